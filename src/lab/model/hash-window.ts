import { MiB } from '../../base/units.ts';
import { hashWords } from './mix.ts';

/** The most that is read at once. */
const WINDOW_BYTES = MiB;

/** Hashes stretches of something that is read piece by piece, mostly in order. */
export class HashWindow {
  #words = new Int32Array(1024);
  #bytes = new Uint8Array(this.#words.buffer);
  #read: (offset: number, into: Uint8Array) => void = () => {};
  #start = 0;
  #end = 0;

  /** What is hashed from now on. */
  over(read: (offset: number, into: Uint8Array) => void): void {
    this.#read = read;
    this.#start = 0;
    this.#end = 0;
  }

  /**
   * The hash of `length` bytes, 0 if and only if they are all zero. Up to `end` may be read ahead. What is longer than
   * the window is only told apart from zeroes.
   */
  hash(offset: number, length: number, end: number): number {
    if (length > WINDOW_BYTES) return this.#hashLong(offset, length);
    const isAligned = (offset - this.#start) % 4 === 0 && length % 4 === 0;
    if (offset < this.#start || offset + length > this.#end || !isAligned) {
      this.#fill(offset, length % 4 === 0 ? end : offset + length);
    }
    return hashWords(this.#words, (offset - this.#start) / 4, Math.ceil(length / 4));
  }

  #hashLong(offset: number, length: number): number {
    for (let at = offset; at < offset + length; at = this.#end) {
      this.#fill(at, offset + length);
      if (hashWords(this.#words, 0, Math.ceil((this.#end - at) / 4)) !== 0) return 1;
    }
    return 0;
  }

  /** From `offset` on, as much as there is place for; the last word is filled up with zeroes. */
  #fill(offset: number, end: number): void {
    const length = Math.min(WINDOW_BYTES, end - offset);
    if (length > this.#bytes.length) {
      this.#words = new Int32Array(WINDOW_BYTES / 4);
      this.#bytes = new Uint8Array(this.#words.buffer);
    }
    this.#bytes.fill(0, length, (length + 3) & ~3);
    this.#read(offset, this.#bytes.subarray(0, length));
    this.#start = offset;
    this.#end = offset + length;
  }
}
