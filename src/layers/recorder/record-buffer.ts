import { crc32 } from 'node:zlib';
import { assert } from '../../base/assert.ts';
import type { Segments } from '../../block/memory.ts';
import type { Page, PagePool } from '../../reactor/page-pool.ts';

/**
 * Bytes on their way to a file: a ring of pages, taken at the start. Positions only grow; what is between `tail` and
 * `head` is not in the file yet.
 */
export class RecordBuffer {
  readonly sizeBytes: number;
  readonly #pages: Page[] = [];
  readonly #pageBytes: number;
  #head = 0;
  #tail = 0;

  /** Takes all pages of the pool. */
  constructor(pool: PagePool) {
    this.#pageBytes = pool.pageBytes;
    for (let page = pool.take(); page !== null; page = pool.take()) this.#pages.push(page);
    this.sizeBytes = this.#pages.length * this.#pageBytes;
  }

  /** Bytes put in since the start. */
  get head(): number {
    return this.#head;
  }

  /** Bytes in the file. */
  get tail(): number {
    return this.#tail;
  }

  get used(): number {
    return this.#head - this.#tail;
  }

  get free(): number {
    return this.sizeBytes - this.used;
  }

  /** Appends `bytes`, for which there is room. */
  put(bytes: Uint8Array): void {
    const at = this.skip(bytes.length);
    this.fill(at, bytes);
  }

  /** Appends `length` bytes that are filled afterwards, and before they are written. Returns their position. */
  skip(length: number): number {
    assert(length <= this.free, 'a record is larger than the room for it');
    const at = this.#head;
    this.#head += length;
    return at;
  }

  fill(at: number, bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) {
      const inside = (at + done) % this.#pageBytes;
      const take = Math.min(bytes.length - done, this.#pageBytes - inside);
      const part = take === bytes.length ? bytes : bytes.subarray(done, done + take);
      this.#pageAt(at + done).region.bytes.set(part, inside);
      done += take;
    }
  }

  /** CRC-32 of what was put. */
  crc32(at: number, length: number): number {
    let crc = 0;
    let done = 0;
    while (done < length) {
      const inside = (at + done) % this.#pageBytes;
      const take = Math.min(length - done, this.#pageBytes - inside);
      crc = crc32(this.#pageAt(at + done).region.bytes.subarray(inside, inside + take), crc);
      done += take;
    }
    return crc;
  }

  /** Appends to `segments` what comes next for the file, at most `limit` bytes. */
  next(segments: Segments, limit: number): void {
    let at = this.#tail;
    const end = Math.min(this.#head, this.#tail + limit);
    while (at < end) {
      const inside = at % this.#pageBytes;
      const take = Math.min(end - at, this.#pageBytes - inside);
      segments.push(this.#pageAt(at).region, inside, take);
      at += take;
    }
  }

  /** So many bytes are in the file. */
  written(count: number): void {
    assert(count <= this.used, 'more is written than there is');
    this.#tail += count;
  }

  /** Forgets what is not in the file. */
  drop(): void {
    this.#tail = this.#head;
  }

  #pageAt(position: number): Page {
    return this.#pages[Math.floor(position / this.#pageBytes) % this.#pages.length] as Page;
  }
}
