import type { Nexus } from './nexus.ts';
import { ASC, SENSE_KEY } from './scsi.ts';
import type { ScsiTask } from './task.ts';

/** Why the medium cannot be used now. */
export interface Obstacle {
  readonly key: number;
  readonly code: number;
}

const NOT_PRESENT: Obstacle = { key: SENSE_KEY.NOT_READY, code: ASC.MEDIUM_NOT_PRESENT };
const SANITIZING: Obstacle = {
  key: SENSE_KEY.NOT_READY,
  code: ASC.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS,
};
const SANITIZE_FAILED: Obstacle = {
  key: SENSE_KEY.MEDIUM_ERROR,
  code: ASC.SANITIZE_COMMAND_FAILED,
};

/**
 * Whether the medium can be used, and by whom it may be taken out. There is no stopped state: a disk image needs no
 * spindle, and commands are served after START STOP UNIT has stopped it, as from a power condition [SBC-4 4.20].
 */
export class Medium {
  /** False: ejected, of removable units. */
  loaded = true;
  /** A SANITIZE under way: how much of it is done, 0 to 1; null when there is none. */
  sanitizing: number | null = null;
  /** The SANITIZE command that is answered when it is done; null once it was aborted, or was answered at once (IMMED). */
  sanitizeTask: ScsiTask | null = null;
  /**
   * The last SANITIZE failed [SBC-4 4.11.4]; only another one can be done, or with AUSE also EXIT FAILURE MODE
   * ('unrestricted').
   */
  sanitizeFailed: 'restricted' | 'unrestricted' | null = null;
  /** Who forbids removal [SPC-4 6.16 PREVENT ALLOW MEDIUM REMOVAL]. */
  readonly preventers = new Set<Nexus>();

  get obstacle(): Obstacle | null {
    if (this.sanitizing !== null) return SANITIZING;
    if (!this.loaded) return NOT_PRESENT;
    return this.sanitizeFailed === null ? null : SANITIZE_FAILED;
  }
}
