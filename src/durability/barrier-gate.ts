import type { BlockDevice } from '../block/device.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG, type Io, OP } from '../block/io.ts';
import type { FlushWaiter, InternalFlushes } from './internal-flush.ts';
import { IoRing } from './io-ring.ts';

/**
 * Where all requests of a disk pass on their way to the store, so that nothing passes a barrier: a request with BARRIER
 * waits until everything before it is done (drain), flushes, and goes alone; it is stable when it completes. What
 * arrives meanwhile waits in order. One that changes nothing is only put in order: there is nothing of it to be stable.
 * A FLUSH without BARRIER is none: it goes past writes in flight, which it does not cover.
 */
export class BarrierGate implements FlushWaiter {
  readonly #store: BlockDevice;
  readonly #flushes: InternalFlushes;
  /** Mode `unsafe`: the order of a barrier is kept, its flushes are not done. */
  readonly #ignoresFlush: boolean;
  readonly #queue = new IoRing<null>();
  #inFlight = 0;
  /** The barrier on its way. */
  #barrier: Io | null = null;
  #advancing = false;

  constructor(store: BlockDevice, flushes: InternalFlushes, ignoresFlush: boolean) {
    this.#store = store;
    this.#flushes = flushes;
    this.#ignoresFlush = ignoresFlush;
  }

  /** Requests inside, those in line included. */
  get count(): number {
    return this.#inFlight + this.#queue.count;
  }

  /** Takes a request to the store, now or in its turn. Each is followed by one `leave` when it is done. */
  enter(io: Io): void {
    if (this.#barrier === null && this.#queue.count === 0 && !isBarrier(io)) {
      this.#start(io);
      return;
    }
    this.#queue.push(io, null);
    this.#advance();
  }

  /** Completes a request with an error, whatever waits. Followed by `leave` like the others. */
  refuse(io: Io, error: BlockErrorCode): void {
    this.#inFlight += 1;
    io.complete(error);
  }

  /** A request is done and its maker has been told. */
  leave(io: Io): void {
    this.#inFlight -= 1;
    if (this.#barrier === io) this.#barrier = null;
    if (this.#queue.count > 0) this.#advance();
  }

  /** The flush before a barrier is done: the barrier itself goes, or fails without having changed anything. */
  flushDone(held: Io, error: BlockErrorCode | null): void {
    if (error === null) this.#store.submit(held);
    else held.complete(error);
  }

  #start(io: Io): void {
    this.#inFlight += 1;
    if (io.op === OP.FLUSH && this.#ignoresFlush) io.complete(null);
    else this.#store.submit(io);
  }

  #startBarrier(io: Io): void {
    this.#barrier = io;
    io.flags &= ~FLAG.BARRIER;
    if (this.#ignoresFlush || !io.mutates) {
      this.#start(io);
      return;
    }
    this.#inFlight += 1;
    this.#flushes.flushFor(io, this);
  }

  /** A loop with a guard: a store may complete inside `submit`, which comes back here through `leave`. */
  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    while (this.#barrier === null && this.#queue.count > 0) {
      if (!isBarrier(this.#queue.first())) this.#start(this.#queue.shift());
      else if (this.#inFlight === 0) this.#startBarrier(this.#queue.shift());
      else break;
    }
    this.#advancing = false;
  }
}

function isBarrier(io: Io): boolean {
  return (io.flags & FLAG.BARRIER) !== 0;
}
