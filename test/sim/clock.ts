import { assert } from '../../src/base/assert.ts';
import type { Timer, Timers } from '../../src/base/clock.ts';
import type { Prng } from '../../src/base/prng.ts';
import { Region } from '../../src/block/memory.ts';
import { type Page, PagePool } from '../../src/reactor/page-pool.ts';

class Event implements Timer {
  readonly dueMs: number;
  readonly order: number;
  callback: (() => void) | null;

  constructor(dueMs: number, order: number, callback: () => void) {
    this.dueMs = dueMs;
    this.order = order;
    this.callback = callback;
  }

  cancel(): void {
    this.callback = null;
  }
}

/** More deferred call-backs than this in one turn are a loop without progress. */
const MAX_DEFERRED = 100_000;

/**
 * Virtual time, and everything that happens in it: a queue of events in order of their time, equal times in the order in
 * which they were made. A turn runs one event or a few, as a batch of completions, and then what was deferred.
 */
export class SimClock implements Timers {
  readonly #prng: Prng;
  /** A binary heap. */
  readonly #heap: Event[] = [];
  #deferred: (() => void)[] = [];
  #nowMs = 0;
  #order = 0;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const event = new Event(this.#nowMs + delayMs, this.#order, callback);
    this.#order += 1;
    this.#push(event);
    return event;
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  /** One turn. False: nothing will ever happen again. */
  step(): boolean {
    if (this.#drain()) return true;
    let event = this.#pop();
    if (event === undefined) return false;
    while (event !== undefined) {
      this.#nowMs = Math.max(this.#nowMs, event.dueMs);
      event.callback?.();
      const next = this.#heap[0];
      // Completions that are there together come as one batch, before anything deferred.
      if (next === undefined || next.dueMs > this.#nowMs + 0.2 || this.#prng.chance(0.4)) break;
      event = this.#pop();
    }
    this.#drain();
    return true;
  }

  #drain(): boolean {
    let count = 0;
    while (this.#deferred.length > 0) {
      const batch = this.#deferred;
      this.#deferred = [];
      for (const callback of batch) callback();
      count += batch.length;
      assert(count < MAX_DEFERRED, 'deferred call-backs go round in circles');
    }
    return count > 0;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(event, heap[parent] as Event)) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
  }

  /** The next event that has not been cancelled. */
  #pop(): Event | undefined {
    for (;;) {
      const heap = this.#heap;
      const first = heap[0];
      const last = heap.pop();
      if (first === undefined || last === undefined) return undefined;
      if (heap.length > 0) this.#sink(last);
      if (first.callback !== null) return first;
    }
  }

  #sink(event: Event): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) {
        child += 1;
      }
      if (!before(heap[child] as Event, event)) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = event;
  }
}

function before(a: Event, b: Event): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}

/** What fresh and reused payload memory holds: whoever sends it to a client has sent what is not the client's. */
export const POISON_BYTE = 0xa5;

/** The reactor of one simulated process: when the process is killed, nothing of it runs any more. */
export class SimReactor {
  readonly pool: PagePool;
  readonly #clock: SimClock;
  #dead = false;
  #awake = false;
  #deferred = 0;

  constructor(clock: SimClock, pool: PagePool) {
    this.#clock = clock;
    this.pool = pool;
  }

  get dead(): boolean {
    return this.#dead;
  }

  kill(): void {
    this.#dead = true;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  after(delayMs: number, callback: () => void): Timer {
    return this.#clock.after(delayMs, () => {
      if (this.#dead) return;
      this.#awake = true;
      callback();
    });
  }

  defer(callback: () => void): void {
    this.#deferred += 1;
    this.#clock.defer(() => {
      this.#deferred -= 1;
      if (this.#dead) return;
      this.#awake = true;
      callback();
    });
  }

  /** Whether something of this process has run since it was last asked, and nothing is deferred. */
  turned(): boolean {
    if (!this.#awake || this.#deferred > 0 || this.#dead) return false;
    this.#awake = false;
    return true;
  }
}

/** A pool whose pages hold a marker whenever they are nobody's. */
export class PoisoningPool extends PagePool {
  /** The most pages that were anybody's at one time. */
  mostInUse = 0;

  constructor(pageBytes: number, limit: number) {
    super(pageBytes, limit, (bytes) => {
      const region = Region.plain(bytes);
      region.bytes.fill(POISON_BYTE);
      return region;
    });
  }

  override take(): Page | null {
    const page = super.take();
    this.mostInUse = Math.max(this.mostInUse, this.inUse);
    return page;
  }

  override give(page: Page): void {
    page.region.bytes.fill(POISON_BYTE);
    super.give(page);
  }
}
