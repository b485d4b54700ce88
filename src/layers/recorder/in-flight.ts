import type { Io } from '../../block/io.ts';

/**
 * The requests of one disk between issue and completion, and which of them wait for earlier changes of the same place.
 * Looked through from end to end: as many as clients have in flight, a few hundred. Nothing is allocated once it has
 * grown.
 */
export class InFlight {
  /** Null: the slot is not in use. */
  readonly #ios: (Io | null)[] = [];
  /** Bytes; of a slot that is not in use, or of a request that changes nothing, an empty range. */
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  readonly #requests: number[] = [];
  /** How many changes that came earlier are still to be done. */
  readonly #before: number[] = [];
  readonly #unused: number[] = [];
  #held = 0;
  /** Slots that wait for nothing any more and are not taken yet. */
  readonly #freed: number[] = [];

  /** Takes a slot for a request with its number in the trace. */
  add(io: Io, request: number): number {
    const start = io.offset;
    const end = io.mutates ? start + io.length : start;
    let before = 0;
    for (let i = 0; i < this.#ends.length; i += 1) {
      if (this.#overlaps(i, start, end)) before += 1;
    }
    const slot = this.#unused.pop() ?? this.#ios.length;
    this.#ios[slot] = io;
    this.#starts[slot] = start;
    this.#ends[slot] = end;
    this.#requests[slot] = request;
    this.#before[slot] = before;
    if (before > 0) this.#held += 1;
    return slot;
  }

  /** Whether it waits for nothing. */
  isFree(slot: number): boolean {
    return this.#before[slot] === 0;
  }

  requestOf(slot: number): number {
    return this.#requests[slot] as number;
  }

  /** The request is done; `takeFreed` gives those that waited for it alone. */
  remove(slot: number): void {
    const start = this.#starts[slot] as number;
    const end = this.#ends[slot] as number;
    this.#ios[slot] = null;
    this.#ends[slot] = start;
    this.#unused.push(slot);
    if (this.#held === 0) return;
    // Whoever waits and overlaps came later: what came earlier would have held this one back.
    for (let i = 0; i < this.#ends.length; i += 1) {
      if (this.#before[i] === 0 || !this.#overlaps(i, start, end)) continue;
      this.#before[i] = (this.#before[i] as number) - 1;
      if (this.#before[i] === 0) this.#freed.push(i);
    }
  }

  /** The next request that can go to the device, or null. */
  takeFreed(): Io | null {
    const slot = this.#freed.pop();
    if (slot === undefined) return null;
    this.#held -= 1;
    return this.#ios[slot] as Io;
  }

  #overlaps(slot: number, start: number, end: number): boolean {
    const otherStart = this.#starts[slot] as number;
    const otherEnd = this.#ends[slot] as number;
    // An empty range overlaps nothing.
    return Math.max(start, otherStart) < Math.min(end, otherEnd);
  }
}
