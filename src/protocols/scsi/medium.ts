import type { Nexus } from './nexus.ts';
import { ASC } from './scsi.ts';

/**
 * Whether the medium can be used, and by whom it may be taken out. There is no stopped state: a disk image needs no
 * spindle, and commands are served after START STOP UNIT has stopped it, as from a power condition [SBC-4 4.20].
 */
export class Medium {
  /** False: ejected, of removable units. */
  loaded = true;
  /** A SANITIZE under way: how much of it is done, 0 to 1; null when there is none. */
  sanitizing: number | null = null;
  /** Who forbids removal [SPC-4 6.16 PREVENT ALLOW MEDIUM REMOVAL]. */
  readonly preventers = new Set<Nexus>();

  /** Why it cannot be used now: an additional sense code for NOT READY, or null. */
  get notReady(): number | null {
    if (this.sanitizing !== null) return ASC.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS;
    return this.loaded ? null : ASC.MEDIUM_NOT_PRESENT;
  }
}
