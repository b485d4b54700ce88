import type { Timers } from '../../base/clock.ts';

/** At most one line of a kind in this time: a full disk must not fill the log's disk too. */
const QUIET_MS = 60_000;

/** What the operator is told about one disk while it is served: one line each, not too often. */
export class OperatorLines {
  readonly #name: string;
  readonly #timers: Timers;
  readonly #warn: (line: string) => void;
  readonly #saidMs = new Map<string, number>();

  constructor(name: string, timers: Timers, warn: (line: string) => void) {
    this.#name = name;
    this.#timers = timers;
    this.#warn = warn;
  }

  /** Says it, unless this kind of thing was said in the last minute. */
  say(kind: string, what: string): void {
    const now = this.#timers.nowMs();
    const before = this.#saidMs.get(kind);
    if (before !== undefined && now - before < QUIET_MS) return;
    this.#saidMs.set(kind, now);
    this.#warn(`disk '${this.#name}': ${what}`);
  }

  /** Says it the first time only. */
  sayOnce(kind: string, what: string): void {
    if (this.#saidMs.has(kind)) return;
    this.say(kind, what);
  }
}
