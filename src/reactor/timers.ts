import type { Timer } from '../base/clock.ts';

class Entry implements Timer {
  readonly dueMs: number;
  callback: (() => void) | null;

  constructor(dueMs: number, callback: () => void) {
    this.dueMs = dueMs;
    this.callback = callback;
  }

  cancel(): void {
    this.callback = null;
  }
}

/** Pending call-backs in order of their time. A sorted array: timers are few (one or two per connection). */
export class TimerQueue {
  readonly #entries: Entry[] = [];

  add(dueMs: number, callback: () => void): Timer {
    const entry = new Entry(dueMs, callback);
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#entries[middle] as Entry).dueMs <= dueMs) low = middle + 1;
      else high = middle;
    }
    this.#entries.splice(low, 0, entry);
    return entry;
  }

  /** Milliseconds until the first is due, Infinity when there is none. Forgets cancelled ones on the way. */
  untilNextMs(nowMs: number): number {
    while (this.#entries.length > 0) {
      const first = this.#entries[0] as Entry;
      if (first.callback !== null) return Math.max(0, first.dueMs - nowMs);
      this.#entries.shift();
    }
    return Infinity;
  }

  /** Calls back all that are due. */
  fire(nowMs: number): void {
    while (this.#entries.length > 0 && (this.#entries[0] as Entry).dueMs <= nowMs) {
      this.#entries.shift()?.callback?.();
    }
  }
}
