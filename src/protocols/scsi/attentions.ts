import type { Nexus } from './nexus.ts';
import { ASC } from './scsi.ts';

/** An error of a command that has ended long ago [SPC-4 4.5.5]. */
export interface DeferredError {
  readonly key: number;
  readonly code: number;
}

/** The most conditions kept for one nexus; beyond it one of them says enough: look at everything again. */
const MOST = 16;

/**
 * The unit attention conditions of one logical unit, by nexus [SAM-5 5.14], and its deferred errors. Each condition is
 * reported once, resets first.
 */
export class Attentions {
  readonly #pending = new Map<Nexus, number[]>();
  readonly #deferred = new Map<Nexus, DeferredError>();

  /** A nexus begins, with a condition of its own. */
  open(nexus: Nexus, code: number): void {
    this.#pending.set(nexus, [code]);
  }

  close(nexus: Nexus): void {
    this.#pending.delete(nexus);
    this.#deferred.delete(nexus);
  }

  /** For every nexus but `except`. */
  establish(code: number, except: Nexus | null = null): void {
    for (const nexus of this.#pending.keys()) if (nexus !== except) this.establishFor(nexus, code);
  }

  establishFor(nexus: Nexus, code: number): void {
    const codes = this.#pending.get(nexus);
    if (codes === undefined || codes.includes(code) || codes.length >= MOST) return;
    // [SAM-5 5.14.1, table 42] A reset covers all that came before it.
    if (isReset(code)) codes.splice(0, codes.length, code);
    else codes.push(code);
  }

  has(nexus: Nexus): boolean {
    const codes = this.#pending.get(nexus);
    return (codes !== undefined && codes.length > 0) || this.#deferred.has(nexus);
  }

  /** The next condition, which is cleared by that. */
  take(nexus: Nexus): number | null {
    return this.#pending.get(nexus)?.shift() ?? null;
  }

  /** REPORT LUNS has shown what there was to see [SPC-4 6.33]. */
  clear(nexus: Nexus, code: number): void {
    const codes = this.#pending.get(nexus);
    const at = codes?.indexOf(code) ?? -1;
    if (at >= 0) codes?.splice(at, 1);
  }

  defer(nexus: Nexus, error: DeferredError): void {
    if (this.#pending.has(nexus)) this.#deferred.set(nexus, error);
  }

  takeDeferred(nexus: Nexus): DeferredError | null {
    const error = this.#deferred.get(nexus) ?? null;
    this.#deferred.delete(nexus);
    return error;
  }
}

function isReset(code: number): boolean {
  return code === ASC.POWER_ON_OCCURRED || code === ASC.BUS_DEVICE_RESET_FUNCTION_OCCURRED;
}
