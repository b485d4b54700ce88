import { assert } from '../../base/assert.ts';
import { mix32 } from '../model/mix.ts';

/** Of each lane: what a unit and what a content are mixed with (digits of pi). */
const UNIT_SEEDS = Int32Array.of(0x243f6a88, 0x85a308d3, 0x13198a2e);
const CONTENT_SEEDS = Int32Array.of(0x03707344, 0xa4093822, 0x299f31d0);

/**
 * A hash of 96 bits of one content of one unit, in three lanes. An image's key is the sum over its units, lane by lane, so
 * that differences must be as good as random too: unit and content are mixed before they meet.
 */
export function laneHash(unit: number, content: number, lane: number): number {
  const ofUnit = mix32(unit ^ (UNIT_SEEDS[lane] as number));
  return mix32(ofUnit + mix32(content ^ (CONTENT_SEEDS[lane] as number)));
}

/** What a KeyTable is made of, as it goes to a file. */
export interface KeyTableParts {
  readonly count: number;
  readonly keys: Int32Array;
  readonly values: Int32Array;
}

/**
 * From keys of 96 bits to two numbers each, without an object for any of them. With 2^24 keys, two different images
 * have one key with a probability below 10^-14.
 */
export class KeyTable {
  #keys = new Int32Array(3 * 1024);
  /** Pairs; the first is a value plus 1, 0 where nothing is. */
  #values = new Int32Array(2 * 1024);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** The place of a key, for `value` and `weight`; -1: it is not there. Valid until the next `put`. */
  find(a: number, b: number, c: number): number {
    const place = this.#place(a, b, c);
    return this.#values[2 * place] === 0 ? -1 : place;
  }

  value(place: number): number {
    return (this.#values[2 * place] as number) - 1;
  }

  weight(place: number): number {
    return this.#values[2 * place + 1] as number;
  }

  /** Adds a key, or gives it new numbers. */
  put(a: number, b: number, c: number, value: number, weight: number): void {
    assert(value >= 0, 'values of a key table are not negative');
    const place = this.#place(a, b, c);
    const isNew = this.#values[2 * place] === 0;
    this.#keys[3 * place] = a;
    this.#keys[3 * place + 1] = b;
    this.#keys[3 * place + 2] = c;
    this.#values[2 * place] = value + 1;
    this.#values[2 * place + 1] = weight;
    if (!isNew) return;
    this.#count += 1;
    if (this.#count * 4 > (this.#values.length / 2) * 3) this.#grow();
  }

  parts(): KeyTableParts {
    return { count: this.#count, keys: this.#keys, values: this.#values };
  }

  restore(parts: KeyTableParts): void {
    this.#count = parts.count;
    this.#keys = parts.keys as Int32Array<ArrayBuffer>;
    this.#values = parts.values as Int32Array<ArrayBuffer>;
  }

  /** Where a key is or would be. */
  #place(a: number, b: number, c: number): number {
    const mask = this.#values.length / 2 - 1;
    let place = (a ^ Math.imul(b, 0x9e3779b1)) & mask;
    for (;;) {
      if (this.#values[2 * place] === 0) return place;
      const at = 3 * place;
      if (this.#keys[at] === a && this.#keys[at + 1] === b && this.#keys[at + 2] === c) {
        return place;
      }
      place = (place + 1) & mask;
    }
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const size = values.length / 2;
    this.#keys = new Int32Array(keys.length * 2);
    this.#values = new Int32Array(values.length * 2);
    for (let i = 0; i < size; i += 1) {
      if (values[2 * i] === 0) continue;
      const at = 3 * i;
      const place = this.#place(keys[at] as number, keys[at + 1] as number, keys[at + 2] as number);
      for (let lane = 0; lane < 3; lane += 1) {
        this.#keys[3 * place + lane] = keys[at + lane] as number;
      }
      this.#values[2 * place] = values[2 * i] as number;
      this.#values[2 * place + 1] = values[2 * i + 1] as number;
    }
  }
}
