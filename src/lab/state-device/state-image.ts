import { OP } from '../../block/io.ts';
import type { CrashModel } from '../model/types.ts';
import type { BaseImage } from './base-image.ts';
import { copyBytes } from './copy.ts';
import { CACHE_BLOCK_BYTES, CACHE_BLOCKS } from './limits.ts';
import type { ShownState } from './shown-state.ts';

const BLOCKS_PER_SLAB = 16;
/** No version has this number. */
const NONE = -0x8000_0000;

/**
 * One disk of the state that is shown, without what a checker writes. Blocks that the trace writes are kept ready, with
 * the version that each of their units holds: a read replaces those that are not the ones wanted now and copies.
 * Neighbouring states differ little, so that is little work, and a state never has to be told what changed. Blocks that
 * the trace never writes are read from the base.
 */
export class StateImage {
  readonly #shown: ShownState;
  readonly #model: CrashModel;
  readonly #base: BaseImage;
  readonly #sizeBytes: number;
  readonly #blockBytes: number;
  readonly #unitsPerBlock: number;
  /** The disk's units: from #firstUnit on, where each starts, and where the last ends. */
  readonly #firstUnit: number;
  readonly #starts: Float64Array;
  readonly #lastEnd: number;
  /** Block number to the first of its units (counted from #firstUnit); how many there are is seen from #starts. */
  readonly #written = new Map<number, number>();

  /** Block number to slot. */
  readonly #slots = new Map<number, number>();
  readonly #slabs: Uint8Array[] = [];
  readonly #held: Int32Array;
  readonly #blockIn: Float64Array;
  readonly #used: Uint8Array;
  #hand = 0;
  #taken = 0;

  /** `units`: the disk's, `[first, end)`. */
  constructor(
    shown: ShownState,
    base: BaseImage,
    sizeBytes: number,
    units: readonly [number, number],
  ) {
    this.#shown = shown;
    this.#model = shown.model;
    this.#base = base;
    this.#sizeBytes = sizeBytes;
    const { unitBytes } = shown.model.options;
    this.#blockBytes = Math.max(CACHE_BLOCK_BYTES, unitBytes);
    this.#unitsPerBlock = this.#blockBytes / unitBytes;
    const [first, end] = units;
    this.#firstUnit = first;
    this.#starts = new Float64Array(end - first);
    for (let i = 0; i < this.#starts.length; i += 1) {
      const start = shown.model.place(first + i).offset;
      this.#starts[i] = start;
      const block = Math.floor(start / this.#blockBytes);
      if (!this.#written.has(block)) this.#written.set(block, i);
    }
    const last = end > first ? shown.model.place(end - 1) : { offset: 0, bytes: 0 };
    this.#lastEnd = last.offset + last.bytes;
    const slots = Math.min(CACHE_BLOCKS, this.#written.size);
    this.#held = new Int32Array(slots * this.#unitsPerBlock);
    this.#blockIn = new Float64Array(slots);
    this.#used = new Uint8Array(slots);
  }

  /** Fills `length` bytes of `target` from `at` on, and logs the units that it took them from. */
  read(offset: number, target: Uint8Array, at: number, length: number): void {
    const end = offset + length;
    let from = offset;
    while (from < end) {
      let block = Math.floor(from / this.#blockBytes);
      const first = this.#written.get(block);
      let to = Math.min(end, (block + 1) * this.#blockBytes);
      if (first === undefined) {
        // What the trace never wrote, as far as it goes, in one read.
        while (to < end && !this.#written.has(++block)) {
          to = Math.min(end, to + this.#blockBytes);
        }
        this.#base.read(from, target, at + from - offset, to - from);
      } else {
        const slot = this.#slots.get(block) ?? this.#load(block);
        this.#used[slot] = 1;
        this.#bringUp(slot, block * this.#blockBytes, first, from, to);
        const inside = this.#placeOf(slot) + from - block * this.#blockBytes;
        copyBytes(this.#slabOf(slot), inside, target, at + from - offset, to - from);
      }
      from = to;
    }
  }

  close(): void {
    this.#slots.clear();
    this.#slabs.length = 0;
    this.#base.close();
  }

  /** Gives every unit of the block in `slot` that lies in [from, to) the content it has in the state that is shown. */
  #bringUp(slot: number, blockStart: number, first: number, from: number, to: number): void {
    const shown = this.#shown;
    const heldAt = slot * this.#unitsPerBlock - first;
    for (let i = this.#unitAfter(first, from); i < this.#starts.length; i += 1) {
      if ((this.#starts[i] as number) >= to) return;
      const unit = this.#firstUnit + i;
      if (shown.logsReads) shown.logRead(unit);
      const version = shown.versionOf(unit);
      if (this.#held[heldAt + i] !== version) {
        this.#replace(slot, blockStart, heldAt, i, version, to);
      }
    }
  }

  /** Reads a version into its place, and with it the following units that come from the same request. */
  #replace(
    slot: number,
    blockStart: number,
    heldAt: number,
    index: number,
    version: number,
    to: number,
  ): void {
    const start = this.#starts[index] as number;
    let end = this.#endOf(index);
    const at = this.#placeOf(slot) + start - blockStart;
    this.#held[heldAt + index] = version;
    const request = this.#requestToRead(version);
    if (request === null) {
      this.#model.readVersion(version, 0, this.#slabOf(slot).subarray(at, at + end - start));
      return;
    }
    for (let i = index + 1; i < this.#starts.length; i += 1) {
      if (this.#starts[i] !== end || end >= to) break;
      const next = this.#shown.versionOf(this.#firstUnit + i);
      if (this.#held[heldAt + i] === next || this.#requestToRead(next) !== request) break;
      this.#held[heldAt + i] = next;
      end = this.#endOf(i);
    }
    if (request < 0) {
      this.#base.read(start, this.#slabOf(slot), at, end - start);
      return;
    }
    const { requests } = this.#model.trace;
    const from = (requests.dataAt[request] as number) + start - (requests.offset[request] as number);
    this.#model.trace.readData(from, this.#slabOf(slot).subarray(at, at + end - start));
  }

  /** Where a version's bytes lie in one piece with others': -1 in the base, else in a request's data; null: nowhere. */
  #requestToRead(version: number): number | null {
    const request = this.#model.requestOf(version);
    if (request < 0) return -1;
    return this.#model.trace.requests.op[request] === OP.WRITE ? request : null;
  }

  /** The first unit from `first` on that ends after `offset`. */
  #unitAfter(first: number, offset: number): number {
    let low = first;
    let high = Math.min(this.#starts.length, first + this.#unitsPerBlock);
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#endOf(middle) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #endOf(index: number): number {
    const end = (this.#starts[index] as number) + this.#model.options.unitBytes;
    // Only the disk's last unit can be shorter.
    return end > this.#lastEnd ? this.#lastEnd : end;
  }

  /** Takes a slot for a block, with the base around its units in it. */
  #load(block: number): number {
    const slot = this.#takeSlot();
    const start = block * this.#blockBytes;
    const length = Math.min(this.#blockBytes, this.#sizeBytes - start);
    this.#base.read(start, this.#slabOf(slot), this.#placeOf(slot), length);
    this.#held.fill(NONE, slot * this.#unitsPerBlock, (slot + 1) * this.#unitsPerBlock);
    this.#blockIn[slot] = block;
    this.#slots.set(block, slot);
    return slot;
  }

  /** A new slot, or that of a block that was not used since the hand last came by. */
  #takeSlot(): number {
    if (this.#taken < this.#used.length) {
      if (this.#taken % BLOCKS_PER_SLAB === 0) {
        const blocks = Math.min(BLOCKS_PER_SLAB, this.#used.length - this.#taken);
        this.#slabs.push(new Uint8Array(blocks * this.#blockBytes));
      }
      this.#taken += 1;
      return this.#taken - 1;
    }
    while (this.#used[this.#hand] === 1) {
      this.#used[this.#hand] = 0;
      this.#hand = (this.#hand + 1) % this.#used.length;
    }
    const slot = this.#hand;
    this.#hand = (this.#hand + 1) % this.#used.length;
    this.#slots.delete(this.#blockIn[slot] as number);
    return slot;
  }

  #slabOf(slot: number): Uint8Array {
    return this.#slabs[Math.floor(slot / BLOCKS_PER_SLAB)] as Uint8Array;
  }

  #placeOf(slot: number): number {
    return (slot % BLOCKS_PER_SLAB) * this.#blockBytes;
  }
}
