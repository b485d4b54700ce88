import { assert } from '../base/assert.ts';
import type { Io } from '../block/io.ts';

const FIRST_CAPACITY = 64;

/**
 * A queue of Ios, each with a tag, first in first out. It grows by doubling and is never given back, so that a steady
 * load allocates nothing.
 */
export class IoRing<Tag> {
  #ios: (Io | null)[] = Array.from<null>({ length: FIRST_CAPACITY }).fill(null);
  #tags: (Tag | null)[] = Array.from<null>({ length: FIRST_CAPACITY }).fill(null);
  /** The capacity less one; capacities are powers of two. */
  #mask = FIRST_CAPACITY - 1;
  #head = 0;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  push(io: Io, tag: Tag): void {
    if (this.#count > this.#mask) this.#grow();
    const place = (this.#head + this.#count) & this.#mask;
    this.#ios[place] = io;
    this.#tags[place] = tag;
    this.#count += 1;
  }

  /** The tag of the entry `index` places behind the oldest. */
  tagAt(index: number): Tag {
    assert(index >= 0 && index < this.#count, 'a ring is read outside its entries');
    return this.#tags[(this.#head + index) & this.#mask] as Tag;
  }

  /** The Io `index` places behind the oldest, which stays. */
  ioAt(index: number): Io {
    assert(index >= 0 && index < this.#count, 'a ring is read outside its entries');
    return this.#ios[(this.#head + index) & this.#mask] as Io;
  }

  /** The oldest Io, which stays. */
  first(): Io {
    assert(this.#count > 0, 'an empty ring has no first entry');
    return this.#ios[this.#head] as Io;
  }

  /** Takes the oldest Io out. Its tag, if wanted, is read before with `tagAt(0)`. */
  shift(): Io {
    const io = this.first();
    this.#ios[this.#head] = null;
    this.#tags[this.#head] = null;
    this.#head = (this.#head + 1) & this.#mask;
    this.#count -= 1;
    return io;
  }

  /** Exchanges the entries `index` and `index - 1`: how a late arrival with an earlier need finds its place. */
  swapBack(index: number): void {
    assert(index > 0 && index < this.#count, 'a ring is changed outside its entries');
    const here = (this.#head + index) & this.#mask;
    const before = (this.#head + index - 1) & this.#mask;
    const io = this.#ios[here] as Io;
    const tag = this.#tags[here] as Tag;
    this.#ios[here] = this.#ios[before] as Io;
    this.#tags[here] = this.#tags[before] as Tag;
    this.#ios[before] = io;
    this.#tags[before] = tag;
  }

  #grow(): void {
    const capacity = (this.#mask + 1) * 2;
    const ios = Array.from<Io | null>({ length: capacity }).fill(null);
    const tags = Array.from<Tag | null>({ length: capacity }).fill(null);
    for (let i = 0; i < this.#count; i += 1) {
      const place = (this.#head + i) & this.#mask;
      ios[i] = this.#ios[place] as Io;
      tags[i] = this.#tags[place] as Tag;
    }
    this.#ios = ios;
    this.#tags = tags;
    this.#mask = capacity - 1;
    this.#head = 0;
  }
}
