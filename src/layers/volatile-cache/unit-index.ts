import { assert } from '../../base/assert.ts';

const EMPTY = -1;

/**
 * Where each unit's newest version is: a hash table in typed arrays (open addressing, linear probing), so that a steady
 * load allocates nothing. Made for `limit` units, half full at most.
 */
export class UnitIndex {
  readonly #units: Float64Array;
  readonly #nodes: Int32Array;
  readonly #mask: number;

  constructor(limit: number) {
    let places = 16;
    while (places < limit * 2) places *= 2;
    this.#units = new Float64Array(places);
    this.#nodes = new Int32Array(places).fill(EMPTY);
    this.#mask = places - 1;
  }

  /** -1: the unit is not there. */
  get(unit: number): number {
    return this.#nodes[this.#place(unit)] as number;
  }

  set(unit: number, node: number): void {
    const place = this.#place(unit);
    this.#units[place] = unit;
    this.#nodes[place] = node;
  }

  delete(unit: number): void {
    let hole = this.#place(unit);
    assert(this.#nodes[hole] !== EMPTY, 'a unit is deleted that is not there');
    // What was pushed on by a collision moves back, or it would not be found any more.
    for (let at = this.#next(hole); this.#nodes[at] !== EMPTY; at = this.#next(at)) {
      const home = this.#home(this.#units[at] as number);
      if (((at - home) & this.#mask) < ((at - hole) & this.#mask)) continue;
      this.#units[hole] = this.#units[at] as number;
      this.#nodes[hole] = this.#nodes[at] as number;
      hole = at;
    }
    this.#nodes[hole] = EMPTY;
  }

  /** Where the unit is, or would be. */
  #place(unit: number): number {
    let at = this.#home(unit);
    while (this.#nodes[at] !== EMPTY && this.#units[at] !== unit) at = this.#next(at);
    return at;
  }

  #next(place: number): number {
    return (place + 1) & this.#mask;
  }

  /** Neighbours stay neighbours in runs of 64; runs are spread by a multiplication (Knuth's, 2^32 / golden ratio). */
  #home(unit: number): number {
    const run = Math.floor(unit / 64);
    const spread = Math.imul(run | 0, 0x9e3779b1) ^ Math.imul((run / 2 ** 32) | 0, 0x85ebca6b);
    return ((spread >>> 0) * 64 + (unit % 64)) & this.#mask;
  }
}
