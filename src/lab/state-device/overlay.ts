import { copyBytes } from '../../base/copy-bytes.ts';
import { OVERLAY_BYTES, OVERLAY_PAGE_BYTES, OVERLAY_RANGES } from './limits.ts';
import { RangeSet } from './range-set.ts';

const PAGES_PER_SLAB = 256;

/**
 * What a checker has written on one disk during one run: ranges that are its own, and pages with what is in them. A
 * range without a page is zeroes. Memory is kept from run to run.
 */
export class Overlay {
  /** What was written or zeroed. */
  readonly ranges: RangeSet = new RangeSet();
  /** Page number to slot. */
  readonly #pages = new Map<number, number>();
  readonly #slabs: Uint8Array[] = [];
  readonly #free: number[] = [];
  #slots = 0;

  /** Forgets everything. */
  clear(): void {
    if (this.ranges.count === 0) return;
    this.ranges.clear();
    this.#pages.clear();
    this.#free.length = 0;
    this.#slots = 0;
  }

  /** Takes `length` bytes of `source` from `from` on as what is at `offset`. False: it is full, and nothing is changed. */
  write(offset: number, source: Uint8Array, from: number, length: number): boolean {
    if (length === 0) return true;
    if (!this.#hasRoom(offset, length)) return false;
    for (let done = 0; done < length;) {
      const page = Math.floor((offset + done) / OVERLAY_PAGE_BYTES);
      const inside = offset + done - page * OVERLAY_PAGE_BYTES;
      const count = Math.min(length - done, OVERLAY_PAGE_BYTES - inside);
      const slot = this.#pages.get(page) ?? this.#makePage(page);
      copyBytes(source, from + done, this.#slabOf(slot), placeIn(slot) + inside, count);
      done += count;
    }
    this.ranges.add(offset, offset + length);
    return true;
  }

  /** Makes a range zeroes: pages that lie in it are given back. False: it is full. */
  zero(offset: number, length: number): boolean {
    if (length === 0) return true;
    if (this.ranges.count >= OVERLAY_RANGES) return false;
    const end = offset + length;
    const first = Math.floor(offset / OVERLAY_PAGE_BYTES);
    const last = Math.floor((end - 1) / OVERLAY_PAGE_BYTES);
    if (last - first >= this.#pages.size) {
      for (const page of this.#pages.keys()) {
        if (page >= first && page <= last) this.#zeroPart(page, offset, end);
      }
    } else {
      for (let page = first; page <= last; page += 1) this.#zeroPart(page, offset, end);
    }
    this.ranges.add(offset, end);
    return true;
  }

  /** Reads what is its own: the range lies in one of `ranges`. */
  read(offset: number, target: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length;) {
      const page = Math.floor((offset + done) / OVERLAY_PAGE_BYTES);
      const inside = offset + done - page * OVERLAY_PAGE_BYTES;
      const count = Math.min(length - done, OVERLAY_PAGE_BYTES - inside);
      const slot = this.#pages.get(page);
      if (slot === undefined) target.fill(0, at + done, at + done + count);
      else copyBytes(this.#slabOf(slot), placeIn(slot) + inside, target, at + done, count);
      done += count;
    }
  }

  #hasRoom(offset: number, length: number): boolean {
    const first = Math.floor(offset / OVERLAY_PAGE_BYTES);
    const last = Math.floor((offset + length - 1) / OVERLAY_PAGE_BYTES);
    const limit = OVERLAY_BYTES / OVERLAY_PAGE_BYTES;
    return this.#pages.size + (last - first + 1) <= limit && this.ranges.count < OVERLAY_RANGES;
  }

  #makePage(page: number): number {
    const slot = this.#free.pop() ?? this.#slots++;
    if (Math.floor(slot / PAGES_PER_SLAB) === this.#slabs.length) {
      this.#slabs.push(new Uint8Array(PAGES_PER_SLAB * OVERLAY_PAGE_BYTES));
    }
    // What was zeroed before it was written here must be found as zeroes, not as what an earlier run wrote.
    this.#slabOf(slot).fill(0, placeIn(slot), placeIn(slot) + OVERLAY_PAGE_BYTES);
    this.#pages.set(page, slot);
    return slot;
  }

  #zeroPart(page: number, start: number, end: number): void {
    const slot = this.#pages.get(page);
    if (slot === undefined) return;
    const from = Math.max(0, start - page * OVERLAY_PAGE_BYTES);
    const to = Math.min(OVERLAY_PAGE_BYTES, end - page * OVERLAY_PAGE_BYTES);
    if (from === 0 && to === OVERLAY_PAGE_BYTES) {
      this.#pages.delete(page);
      this.#free.push(slot);
    } else {
      this.#slabOf(slot).fill(0, placeIn(slot) + from, placeIn(slot) + to);
    }
  }

  #slabOf(slot: number): Uint8Array {
    return this.#slabs[Math.floor(slot / PAGES_PER_SLAB)] as Uint8Array;
  }
}

function placeIn(slot: number): number {
  return (slot % PAGES_PER_SLAB) * OVERLAY_PAGE_BYTES;
}
