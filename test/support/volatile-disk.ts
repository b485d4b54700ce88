import { unreachable } from '../../src/base/assert.ts';
import { Prng } from '../../src/base/prng.ts';
import type { BlockDevice, DeviceInfo } from '../../src/block/device.ts';
import type { BlockErrorCode } from '../../src/block/errors.ts';
import { EXTENT } from '../../src/block/extents.ts';
import { FLAG, OP, type Io } from '../../src/block/io.ts';

/** What a disk can get wrong, one at a time: each must be caught by the conformance suite. */
export const MISTAKES = [
  'READ leaves the last block as it was',
  'READ fills only the first segment',
  'READ writes to memory after it completed',
  'WRITE takes its data after it completed',
  'WRITE spills into the next block',
  'WRITE stops at 64 KiB',
  'overlapping writes mix within a block',
  'requests complete twice',
  'a request comes back with another offset',
  'FLUSH is not done',
  'FLUSH forgets writes that completed while another ran',
  'FLUSH leaves zeroes out',
  'FLUSH after a failed one succeeds',
  'FUA after FLUSH is not done',
  'FUA of WRITE_ZEROES is not done',
  'BARRIER leaves earlier writes out',
  'WRITE_ZEROES leaves one block',
  'WRITE_ZEROES with FAST is as slow as writing, and done',
  'NO_HOLE makes holes',
  'DISCARD fills with ones',
  'DISCARD hits a neighbour',
  'EXTENTS calls data zero',
  'EXTENTS calls data a hole',
  'EXTENTS never ends',
  'close does not wait',
  'requests after close are done',
  'info says writes are stable',
  'info is not frozen',
  'a read-only disk is written to',
] as const;
export type Mistake = (typeof MISTAKES)[number];

export interface VolatileDiskOptions {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly seed: number;
  readonly readOnly?: boolean;
  readonly mistake?: Mistake;
}

/**
 * A disk with a volatile cache, in memory: requests complete later and in random order, and a crash leaves of every
 * block any content it had since it was last stable.
 */
export class VolatileDisk implements BlockDevice {
  readonly info: DeviceInfo;
  readonly #options: VolatileDiskOptions;
  readonly #prng: Prng;
  readonly #bytes: Uint8Array;
  readonly #hole: boolean[];
  /** Per block, its contents since the last stable one, which is the first. */
  readonly #history: Uint8Array[][];
  readonly #pending: (() => void)[] = [];
  #ticking = false;
  #inFlight = 0;
  #closed = false;
  #poisoned = false;
  #failNext = false;
  #flushes = 0;
  /** Writes since the last FLUSH: for one of the mistakes. */
  #fresh = 0;
  #drained: (() => void) | null = null;

  constructor(options: VolatileDiskOptions) {
    const { blocks, blockBytes, readOnly = false } = options;
    this.#options = options;
    this.#prng = new Prng(options.seed);
    this.#bytes = new Uint8Array(blocks * blockBytes);
    this.#hole = Array.from({ length: blocks }, () => true);
    this.#history = Array.from({ length: blocks }, () => [new Uint8Array(blockBytes)]);
    const info = {
      name: 'volatile',
      sizeBytes: blocks * blockBytes,
      blockBytes,
      preferredBytes: blockBytes,
      maxTransferBytes: 128 * 1024,
      readOnly: readOnly && !this.#errs('a read-only disk is written to'),
      writeCache: !this.#errs('info says writes are stable'),
      ignoresFlush: false,
      fua: 'native',
      discard: true,
      fastZero: false,
      extents: true,
      rotational: false,
      memoryAlignment: 1,
    } satisfies DeviceInfo;
    this.info = this.#errs('info is not frozen') ? info : Object.freeze(info);
  }

  /** The disk as it may be found after a loss of power now. */
  crash(): VolatileDisk {
    const { mistake: _, ...sound } = this.#options;
    const after = new VolatileDisk(sound);
    // Mostly the worst there is: of everything the oldest.
    const oldest = this.#prng.chance(0.8);
    for (const [block, contents] of this.#history.entries()) {
      const left = oldest ? (contents[0] as Uint8Array) : this.#prng.pick(contents);
      after.#bytes.set(left, block * this.info.blockBytes);
      after.#history[block] = [left];
    }
    // What is in flight finds nobody.
    this.#pending.length = 0;
    return after;
  }

  failNextSync(): void {
    this.#failNext = true;
  }

  submit(io: Io): void {
    if (this.#closed && !this.#errs('requests after close are done')) {
      io.complete('ESHUTDOWN');
      return;
    }
    this.#inFlight += 1;
    this.#queue(() => this.#start(io));
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight > 0 && !this.#errs('close does not wait')) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
  }

  #start(io: Io): void {
    if (io.op === OP.FLUSH) {
      this.#flush(io);
      return;
    }
    if (io.op === OP.WRITE && this.#errs('overlapping writes mix within a block')) {
      this.#writeInHalves(io);
      return;
    }
    const barrier = (io.flags & FLAG.BARRIER) !== 0;
    if (barrier && !this.#errs('BARRIER leaves earlier writes out')) this.#sync(this.#places());
    const error = this.#perform(io);
    if (error === null && (barrier || (io.flags & FLAG.FUA) !== 0)) {
      this.#fua(io);
      if (this.#poisoned && io.mutates) {
        this.#finish(io, 'EIO');
        return;
      }
    }
    this.#finish(io, error);
  }

  #perform(io: Io): BlockErrorCode | null {
    const { offset, length } = io;
    const { blockBytes } = this.info;
    switch (io.op) {
      case OP.READ:
        this.#read(io);
        return null;
      case OP.WRITE:
        this.#write(io);
        return null;
      case OP.WRITE_ZEROES: {
        const fast = (io.flags & FLAG.FAST) !== 0;
        if (fast && !this.#errs('WRITE_ZEROES with FAST is as slow as writing, and done')) {
          return 'EOPNOTSUPP';
        }
        const short = this.#errs('WRITE_ZEROES leaves one block') ? blockBytes : 0;
        const holes = (io.flags & FLAG.NO_HOLE) === 0 || this.#errs('NO_HOLE makes holes');
        const zeroes = new Uint8Array(Math.max(0, length - short));
        this.#put(offset, zeroes, holes, this.#errs('FLUSH leaves zeroes out'));
        return null;
      }
      case OP.DISCARD: {
        const more = this.#errs('DISCARD hits a neighbour') ? blockBytes : 0;
        const value = this.#errs('DISCARD fills with ones') ? 1 : 0;
        const end = Math.min(this.info.sizeBytes, offset + length + more);
        this.#put(offset, new Uint8Array(end - offset).fill(value), value === 0, false);
        return null;
      }
      case OP.EXTENTS:
        this.#extents(io);
        return null;
      case OP.FLUSH:
      case OP.CACHE:
        return null;
      default:
        return unreachable(io.op);
    }
  }

  #read(io: Io): void {
    const bytes = this.#bytes.slice(io.offset, io.offset + io.length);
    let length = io.length;
    if (this.#errs('READ leaves the last block as it was')) {
      length = Math.max(0, length - this.info.blockBytes);
    }
    if (this.#errs('READ fills only the first segment')) length = io.segments.lengths[0] ?? 0;
    io.segments.copyFrom(bytes.subarray(0, Math.min(length, io.length)));
    const region = io.segments.regions[0];
    if (this.#errs('READ writes to memory after it completed') && region !== undefined) {
      setImmediate(() => region.bytes.set(bytes.subarray(0, 1), io.segments.starts[0]));
    }
  }

  #write(io: Io): void {
    let bytes = new Uint8Array(io.length);
    io.segments.copyTo(bytes);
    if (this.#errs('WRITE stops at 64 KiB')) bytes = bytes.subarray(0, 64 * 1024);
    this.#fresh += 1;
    if (this.#errs('WRITE takes its data after it completed')) {
      const segments = io.segments;
      setImmediate(() => {
        segments.copyTo(bytes);
        this.#put(io.offset, bytes, false, false);
      });
    }
    this.#put(io.offset, bytes, false, false);
    const end = io.offset + bytes.length;
    if (this.#errs('WRITE spills into the next block') && end < this.info.sizeBytes) {
      this.#bytes[end] = 0x77;
    }
  }

  #writeInHalves(io: Io): void {
    const bytes = new Uint8Array(io.length);
    io.segments.copyTo(bytes);
    const half = bytes.length - this.info.blockBytes / 2;
    const first = bytes.slice(0, Math.max(0, half));
    this.#bytes.set(first, io.offset);
    this.#queue(() => {
      this.#bytes.set(bytes.subarray(first.length), io.offset + first.length);
      this.#put(io.offset, this.#bytes.slice(io.offset, io.offset + io.length), false, false);
      this.#finish(io, null);
    });
  }

  #put(offset: number, bytes: Uint8Array, hole: boolean, forgotten: boolean): void {
    const { blockBytes } = this.info;
    this.#bytes.set(bytes, offset);
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = (offset + at) / blockBytes;
      this.#hole[block] = hole;
      if (!forgotten) this.#history[block]?.push(bytes.slice(at, at + blockBytes));
    }
  }

  #extents(io: Io): void {
    const { blockBytes } = this.info;
    const blocks = io.length / blockBytes + (this.#errs('EXTENTS never ends') ? 1 : 0);
    for (let i = 0; i < blocks; i += 1) {
      let flags = this.#hole[io.offset / blockBytes + i] === true ? EXTENT.HOLE | EXTENT.ZERO : 0;
      if (this.#errs('EXTENTS calls data zero')) flags |= EXTENT.ZERO;
      if (this.#errs('EXTENTS calls data a hole')) flags |= EXTENT.HOLE;
      const { extents } = io;
      if ((io.flags & FLAG.ONE) !== 0 && extents.count === 1 && extents.flags[0] !== flags) return;
      extents.push(blockBytes, flags);
    }
  }

  #flush(io: Io): void {
    if (this.#poisoned && !this.#errs('FLUSH after a failed one succeeds')) {
      this.#finish(io, 'EIO');
      return;
    }
    const eager = this.#errs('FLUSH forgets writes that completed while another ran');
    if (eager && this.#flushes > 0) {
      // As if clean: another is running, and takes what it took.
      this.#finish(io, null);
      return;
    }
    this.#flushes += 1;
    const places = this.#places();
    const failed = this.#failNext;
    this.#failNext = false;
    // A sync takes longer than the rest.
    this.#later(1 + this.#prng.below(8), () => {
      this.#flushes -= 1;
      if (failed) this.#poisoned = true;
      else if (!this.#errs('FLUSH is not done')) this.#sync(places);
      this.#fresh = 0;
      this.#finish(io, failed ? 'EIO' : null);
    });
  }

  #fua(io: Io): void {
    if (this.#errs('FUA after FLUSH is not done') && this.#fresh <= 1) return;
    if (this.#errs('FUA of WRITE_ZEROES is not done') && io.op === OP.WRITE_ZEROES) return;
    const { blockBytes } = this.info;
    const places = this.#places();
    const first = io.offset / blockBytes;
    const last = (io.offset + io.length) / blockBytes;
    this.#sync(places.map((place, block) => (block >= first && block < last ? place : null)));
  }

  #places(): (Uint8Array | null)[] {
    return this.#history.map((contents) => contents.at(-1) ?? null);
  }

  /** Forgets what each block held before the given content. */
  #sync(places: readonly (Uint8Array | null)[]): void {
    for (const [block, place] of places.entries()) {
      const contents = this.#history[block] as Uint8Array[];
      if (place !== null && contents.includes(place)) contents.splice(0, contents.indexOf(place));
    }
  }

  #finish(io: Io, error: BlockErrorCode | null): void {
    if (this.#errs('a request comes back with another offset')) io.offset += 512;
    io.complete(error);
    this.#inFlight -= 1;
    if (this.#inFlight === 0) this.#drained?.();
    if (this.#errs('requests complete twice')) io.complete(error);
  }

  /** Does `work` some ticks later, in no particular order. */
  #queue(work: () => void): void {
    this.#pending.push(work);
    if (this.#ticking) return;
    this.#ticking = true;
    setImmediate(() => this.#tick());
  }

  #later(ticks: number, work: () => void): void {
    if (ticks === 0) work();
    else this.#queue(() => this.#later(ticks - 1, work));
  }

  #tick(): void {
    const count = 1 + this.#prng.below(this.#pending.length + 1);
    for (let i = 0; i < count && this.#pending.length > 0; i += 1) {
      this.#pending.splice(this.#prng.below(this.#pending.length), 1)[0]?.();
    }
    this.#ticking = this.#pending.length > 0;
    if (this.#ticking) setImmediate(() => this.#tick());
  }

  #errs(mistake: Mistake): boolean {
    return this.#options.mistake === mistake;
  }
}
