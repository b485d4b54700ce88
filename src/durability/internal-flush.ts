import { assert } from '../base/assert.ts';
import type { BlockDevice } from '../block/device.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { Io, type IoOwner, OP } from '../block/io.ts';

/** Who waits for a flush that Holdfast asks of itself. `held` is the request it was asked for. */
export interface FlushWaiter {
  flushDone(held: Io, error: BlockErrorCode | null): void;
}

/** One FLUSH of our own, reused. */
class InternalFlush implements IoOwner {
  readonly #io = new Io();
  readonly #pool: InternalFlushes;
  #held: Io | null = null;
  #waiter: FlushWaiter | null = null;

  constructor(pool: InternalFlushes) {
    this.#pool = pool;
  }

  start(store: BlockDevice, held: Io, waiter: FlushWaiter): void {
    this.#held = held;
    this.#waiter = waiter;
    this.#io.reset(OP.FLUSH, 0, 0, 0);
    this.#io.push(this);
    store.submit(this.#io);
  }

  ioDone(io: Io): void {
    const held = this.#held;
    const waiter = this.#waiter;
    assert(held !== null && waiter !== null, 'an internal flush without a request');
    this.#held = null;
    this.#waiter = null;
    this.#pool.give(this);
    waiter.flushDone(held, io.error);
  }
}

/** The flushes a disk asks of its store on behalf of requests, made once and reused. */
export class InternalFlushes {
  readonly #store: BlockDevice;
  readonly #free: InternalFlush[] = [];

  constructor(store: BlockDevice) {
    this.#store = store;
  }

  /** Flushes the store; `waiter` gets `held` back with the outcome. */
  flushFor(held: Io, waiter: FlushWaiter): void {
    const flush = this.#free.pop() ?? new InternalFlush(this);
    flush.start(this.#store, held, waiter);
  }

  /** For InternalFlush only. */
  give(flush: InternalFlush): void {
    this.#free.push(flush);
  }
}
