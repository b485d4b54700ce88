import { copyBytes } from '../../base/copy-bytes.ts';
import { OP } from '../../block/io.ts';
import { builtModel } from '../model/built-model.ts';
import type { Contents } from '../model/contents.ts';
import type { CrashModel } from '../model/types.ts';
import type { BaseImage } from './base-image.ts';
import { CACHE_BLOCK_BYTES, CACHE_BLOCKS } from './limits.ts';
import type { ShownState } from './shown-state.ts';

const BLOCKS_PER_SLAB = 16;
/** No unit is smaller than a sector. */
const UNITS_PER_BLOCK = CACHE_BLOCK_BYTES / 512;
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
  readonly #contents: Contents;
  readonly #base: BaseImage;
  readonly #sizeBytes: number;
  /** The disk's units, from #firstUnit on: where each begins and ends. */
  readonly #firstUnit: number;
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;

  /** Block number to slot. */
  readonly #slots = new Map<number, number>();
  readonly #slabs: Uint8Array[] = [];
  /** The block in each slot, the first of its units (counted from #firstUnit), and the versions that they hold. */
  readonly #blockIn: Float64Array;
  readonly #firstIn: Int32Array;
  readonly #held: Int32Array;
  /** 1: read since the hand came by. */
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
    this.#contents = builtModel(shown.model).contents;
    this.#base = base;
    this.#sizeBytes = sizeBytes;
    const [first, end] = units;
    this.#firstUnit = first;
    this.#starts = new Float64Array(end - first);
    this.#ends = new Float64Array(end - first);
    for (let i = 0; i < this.#starts.length; i += 1) {
      const { offset, bytes } = shown.model.place(first + i);
      this.#starts[i] = offset;
      this.#ends[i] = offset + bytes;
    }
    const slots = Math.min(CACHE_BLOCKS, Math.ceil(sizeBytes / CACHE_BLOCK_BYTES));
    this.#blockIn = new Float64Array(slots);
    this.#firstIn = new Int32Array(slots);
    this.#held = new Int32Array(slots * UNITS_PER_BLOCK);
    this.#used = new Uint8Array(slots);
  }

  /** Fills `length` bytes of `target` from `at` on, and logs the units that it took them from. */
  read(offset: number, target: Uint8Array, at: number, length: number): void {
    const end = offset + length;
    let from = offset;
    while (from < end) {
      const block = Math.floor(from / CACHE_BLOCK_BYTES);
      let slot = this.#slots.get(block);
      let to = Math.min(end, (block + 1) * CACHE_BLOCK_BYTES);
      if (slot === undefined) {
        const bare = this.#bareUntil(block);
        if (bare > from) {
          to = Math.min(end, bare);
          this.#base.read(from, target, at + from - offset, to - from);
          from = to;
          continue;
        }
        slot = this.#load(block);
      }
      this.#used[slot] = 1;
      this.#bringUp(slot, from, to);
      const inside = placeIn(slot) + from - block * CACHE_BLOCK_BYTES;
      copyBytes(this.#slabOf(slot), inside, target, at + from - offset, to - from);
      from = to;
    }
  }

  /** Whether a range is zeroes in every state. */
  isBlank(offset: number, length: number): boolean {
    if (!this.#base.isZeroes) return false;
    const next = this.#unitAfter(offset, 0, this.#starts.length);
    return next === this.#starts.length || (this.#starts[next] as number) >= offset + length;
  }

  close(): void {
    this.#slots.clear();
    this.#slabs.length = 0;
    this.#base.close();
  }

  /** Gives every unit of a slot's block that has bytes in [from, to) the content it has in the state that is shown. */
  #bringUp(slot: number, from: number, to: number): void {
    const shown = this.#shown;
    const first = this.#firstIn[slot] as number;
    const heldAt = slot * UNITS_PER_BLOCK - first;
    let i = this.#unitAfter(from, first, first + UNITS_PER_BLOCK);
    for (; i < this.#starts.length && (this.#starts[i] as number) < to; i += 1) {
      const unit = this.#firstUnit + i;
      if (shown.logsReads) shown.logRead(unit);
      const version = shown.versionOf(unit);
      if (this.#held[heldAt + i] !== version) this.#replace(slot, i, version);
    }
  }

  /** Reads a version into its place, and with it the following units of the block that come from the same request. */
  #replace(slot: number, index: number, version: number): void {
    const blockStart = (this.#blockIn[slot] as number) * CACHE_BLOCK_BYTES;
    const blockEnd = blockStart + CACHE_BLOCK_BYTES;
    const heldAt = slot * UNITS_PER_BLOCK - (this.#firstIn[slot] as number);
    const unitStart = this.#starts[index] as number;
    const start = Math.max(unitStart, blockStart);
    let end = Math.min(this.#ends[index] as number, blockEnd);
    const at = placeIn(slot) + start - blockStart;
    const slab = this.#slabOf(slot);
    this.#held[heldAt + index] = version;
    const source = this.#sourceOf(version);
    if (source === null) {
      this.#model.readVersion(version, start - unitStart, slab.subarray(at, at + end - start));
      return;
    }
    for (let i = index + 1; end < blockEnd && this.#starts[i] === end; i += 1) {
      const next = this.#shown.versionOf(this.#firstUnit + i);
      if (this.#held[heldAt + i] === next || this.#sourceOf(next) !== source) break;
      this.#held[heldAt + i] = next;
      end = Math.min(this.#ends[i] as number, blockEnd);
    }
    if (source < 0) {
      this.#base.read(start, slab, at, end - start);
      return;
    }
    const { trace } = this.#model;
    const { dataAt, offset } = trace.requests;
    const from = (dataAt[source] as number) + start - (offset[source] as number);
    trace.readData(from, slab.subarray(at, at + end - start));
  }

  /** Where a version's bytes lie in one piece with others': -1 in the base, else in a request's data; null: nowhere. */
  #sourceOf(version: number): number | null {
    if (this.#contents.isGarbage(version)) return null;
    const request = this.#contents.requestOf(version);
    if (request < 0) return -1;
    return this.#model.trace.requests.op[request] === OP.WRITE ? request : null;
  }

  /** Where the first block with a unit begins, from this one on; the disk's end when there is none. */
  #bareUntil(block: number): number {
    const start = block * CACHE_BLOCK_BYTES;
    const next = this.#unitAfter(start, 0, this.#starts.length);
    if (next === this.#starts.length) return this.#sizeBytes;
    const found = Math.floor((this.#starts[next] as number) / CACHE_BLOCK_BYTES);
    return Math.max(start, found * CACHE_BLOCK_BYTES);
  }

  /** The first unit that ends after `offset`, of those from `low` to below `high`. */
  #unitAfter(offset: number, low: number, high: number): number {
    let to = Math.min(this.#ends.length, high);
    let from = low;
    while (from < to) {
      const middle = (from + to) >>> 1;
      if ((this.#ends[middle] as number) > offset) to = middle;
      else from = middle + 1;
    }
    return from;
  }

  /** Takes a slot for a block, with the base around its units in it. */
  #load(block: number): number {
    const slot = this.#takeSlot();
    const start = block * CACHE_BLOCK_BYTES;
    const length = Math.min(CACHE_BLOCK_BYTES, this.#sizeBytes - start);
    this.#base.read(start, this.#slabOf(slot), placeIn(slot), length);
    this.#held.fill(NONE, slot * UNITS_PER_BLOCK, (slot + 1) * UNITS_PER_BLOCK);
    this.#blockIn[slot] = block;
    this.#firstIn[slot] = this.#unitAfter(start, 0, this.#ends.length);
    this.#slots.set(block, slot);
    return slot;
  }

  /** A new slot, or that of a block that was not read since the hand last came by. */
  #takeSlot(): number {
    if (this.#taken < this.#used.length) {
      if (this.#taken % BLOCKS_PER_SLAB === 0) {
        const blocks = Math.min(BLOCKS_PER_SLAB, this.#used.length - this.#taken);
        this.#slabs.push(new Uint8Array(blocks * CACHE_BLOCK_BYTES));
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
}

function placeIn(slot: number): number {
  return (slot % BLOCKS_PER_SLAB) * CACHE_BLOCK_BYTES;
}
