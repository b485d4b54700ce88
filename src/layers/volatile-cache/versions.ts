import { copyBytes } from '../../base/copy-bytes.ts';
import { assert } from '../../base/assert.ts';
import type { Region, Segments } from '../../block/memory.ts';
import { UNIT_BYTES } from './limits.ts';
import { UnitIndex } from './unit-index.ts';

/** What a version reads as, and how it is written back. */
export const KIND = {
  DATA: 0,
  /** Zeroes; the place need not stay allocated. */
  ZERO: 1,
  /** Zeroes; the place stays allocated. */
  ZERO_KEPT: 2,
} as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

/** No version, no write. */
export const NONE = -1;

/** Versions whose data lie in one piece of memory, which is made when the first of them is used: 1 MiB. */
const CHUNK_UNITS = 2048;

/**
 * The content of a volatile cache: for each unit (512 bytes of the disk) the versions that were written and are not
 * stable, in order; for each write the versions that are left of it. Struct of arrays, made once: a version is a number
 * below `capacity`, a write is one too. It knows no requests and no time.
 */
export class Versions {
  readonly capacity: number;
  /** Versions that can still be added. */
  free: number;
  /** By version: the unit's number, and the neighbours among its versions. */
  readonly unit: Float64Array;
  readonly older: Int32Array;
  readonly newer: Int32Array;
  /** By version: its write, and its neighbours among what is left of that. */
  readonly write: Int32Array;
  readonly next: Int32Array;
  readonly #previous: Int32Array;
  readonly kind: Uint8Array;
  /** By version: 1 if `base` has what the unit was before this version was written back. */
  readonly hasBase: Uint8Array;
  /** By write: its number in order of arrival, whether it has not completed, its neighbours in time, its versions. */
  readonly order: Float64Array;
  readonly inFlight: Uint8Array;
  readonly nextWrite: Int32Array;
  readonly #previousWrite: Int32Array;
  readonly first: Int32Array;
  readonly #last: Int32Array;
  oldestWrite: number = NONE;
  #newestWrite: number = NONE;
  /** The number of the newest write that ever was. */
  lastOrder = 0;
  /** Free versions and writes, linked by `next` and `nextWrite`. */
  #freeVersion = 0;
  #freeWrite = 0;
  readonly #index: UnitIndex;
  readonly #data: (Uint8Array | undefined)[] = [];
  readonly #bases: (Uint8Array | undefined)[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
    this.free = capacity;
    this.unit = new Float64Array(capacity);
    this.older = new Int32Array(capacity);
    this.newer = new Int32Array(capacity);
    this.write = new Int32Array(capacity);
    this.next = linked(capacity);
    this.#previous = new Int32Array(capacity);
    this.kind = new Uint8Array(capacity);
    this.hasBase = new Uint8Array(capacity);
    this.order = new Float64Array(capacity);
    this.inFlight = new Uint8Array(capacity);
    this.nextWrite = linked(capacity);
    this.#previousWrite = new Int32Array(capacity);
    this.first = new Int32Array(capacity);
    this.#last = new Int32Array(capacity);
    this.#index = new UnitIndex(capacity);
  }

  get used(): number {
    return this.capacity - this.free;
  }

  /** The unit's newest version, or NONE. */
  newest(unit: number): number {
    return this.#index.get(unit);
  }

  /** The unit's newest version of the writes up to `order`, or NONE. */
  newestUpTo(unit: number, order: number): number {
    let version = this.#index.get(unit);
    while (version !== NONE && (this.order[this.write[version] as number] as number) > order) {
      version = this.older[version] as number;
    }
    return version;
  }

  /** The first unit of [unit, end) with a version, or `end`. */
  nextUsed(unit: number, end: number): number {
    let at = unit;
    while (at < end && this.#index.get(at) === NONE) at += 1;
    return at;
  }

  /** The first unit of [unit, end) without a version, or `end`. */
  nextUnused(unit: number, end: number): number {
    let at = unit;
    while (at < end && this.#index.get(at) !== NONE) at += 1;
    return at;
  }

  /** Adds a write of `count` units, of which there are so many free. Returns it. The data of a DATA one is `segments`. */
  add(unit: number, count: number, kind: Kind, segments: Segments | null): number {
    assert(count > 0 && count <= this.free, 'a write that has no room in the cache');
    const write = this.#freeWrite;
    this.#freeWrite = this.nextWrite[write] as number;
    this.lastOrder += 1;
    this.order[write] = this.lastOrder;
    this.inFlight[write] = 0;
    this.first[write] = NONE;
    this.#last[write] = NONE;
    this.nextWrite[write] = NONE;
    this.#previousWrite[write] = this.#newestWrite;
    if (this.#newestWrite === NONE) this.oldestWrite = write;
    else this.nextWrite[this.#newestWrite] = write;
    this.#newestWrite = write;
    for (let i = 0; i < count; i += 1) this.#addVersion(write, unit + i, kind);
    if (segments !== null) this.#fill(write, segments);
    return write;
  }

  /** Drops a version and all that are older, of its unit. A write of which nothing is left is gone. */
  dropUpTo(version: number): void {
    const newer = this.newer[version] as number;
    if (newer === NONE) this.#index.delete(this.unit[version] as number);
    else this.older[newer] = NONE;
    for (let at = version; at !== NONE;) {
      const older = this.older[at] as number;
      this.#unlink(at);
      at = older;
    }
  }

  clear(): void {
    while (this.oldestWrite !== NONE) {
      const version = this.first[this.oldestWrite] as number;
      this.dropUpTo(this.newest(this.unit[version] as number));
    }
  }

  /** Keeps what the version's unit was before it was written back: the unit at `at` of `source`. */
  saveBase(version: number, source: Uint8Array, at: number): void {
    copyBytes(source, at, this.base(version), this.start(version), UNIT_BYTES);
    this.hasBase[version] = 1;
  }

  /** The memory with a version's data, from `start` on. Of zeroes there is none. */
  data(version: number): Uint8Array {
    const chunk = Math.floor(version / CHUNK_UNITS);
    return (this.#data[chunk] ??= new Uint8Array(CHUNK_UNITS * UNIT_BYTES));
  }

  /** The memory for what a version's unit was before it was written back, from `start` on. */
  base(version: number): Uint8Array {
    const chunk = Math.floor(version / CHUNK_UNITS);
    return (this.#bases[chunk] ??= new Uint8Array(CHUNK_UNITS * UNIT_BYTES));
  }

  /** Where a version's bytes begin in its `data` and in its `base`. */
  start(version: number): number {
    return (version % CHUNK_UNITS) * UNIT_BYTES;
  }

  /** Copies a version's content to `target` at `at`. */
  copyTo(version: number, target: Uint8Array, at: number): void {
    if (this.kind[version] !== KIND.DATA) target.fill(0, at, at + UNIT_BYTES);
    else copyBytes(this.data(version), this.start(version), target, at, UNIT_BYTES);
  }

  /**
   * Copies the newest versions of [unit, end), which all have one, into the segments from byte `skip` of them on.
   */
  read(unit: number, end: number, segments: Segments, skip: number): void {
    let at = unit;
    /** Bytes done of unit `at`. */
    let inside = 0;
    let before = 0;
    for (let i = 0; i < segments.count && at < end; i += 1) {
      const length = segments.lengths[i] as number;
      let from = Math.max(0, skip - before);
      before += length;
      const target = (segments.regions[i] as Region).bytes;
      while (from < length && at < end) {
        const take = Math.min(length - from, UNIT_BYTES - inside);
        const to = (segments.starts[i] as number) + from;
        const version = this.newest(at);
        if (this.kind[version] !== KIND.DATA) target.fill(0, to, to + take);
        else copyBytes(this.data(version), this.start(version) + inside, target, to, take);
        from += take;
        inside += take;
        if (inside < UNIT_BYTES) continue;
        inside = 0;
        at += 1;
      }
    }
  }

  #addVersion(write: number, unit: number, kind: Kind): void {
    const version = this.#freeVersion;
    this.#freeVersion = this.next[version] as number;
    this.free -= 1;
    const older = this.#index.get(unit);
    this.unit[version] = unit;
    this.older[version] = older;
    this.newer[version] = NONE;
    if (older !== NONE) this.newer[older] = version;
    this.#index.set(unit, version);
    this.kind[version] = kind;
    this.hasBase[version] = 0;
    this.write[version] = write;
    this.next[version] = NONE;
    const last = this.#last[write] as number;
    this.#previous[version] = last;
    if (last === NONE) this.first[write] = version;
    else this.next[last] = version;
    this.#last[write] = version;
  }

  #fill(write: number, segments: Segments): void {
    let version = this.first[write] as number;
    let inside = 0;
    for (let i = 0; i < segments.count; i += 1) {
      const source = (segments.regions[i] as Region).bytes;
      const end = segments.end(i);
      for (let from = segments.starts[i] as number; from < end;) {
        const take = Math.min(end - from, UNIT_BYTES - inside);
        copyBytes(source, from, this.data(version), this.start(version) + inside, take);
        from += take;
        inside += take;
        if (inside < UNIT_BYTES) continue;
        inside = 0;
        version = this.next[version] as number;
      }
    }
  }

  /** Takes a version out of its write, and frees it. Its unit has forgotten it. */
  #unlink(version: number): void {
    const write = this.write[version] as number;
    const previous = this.#previous[version] as number;
    const next = this.next[version] as number;
    if (previous === NONE) this.first[write] = next;
    else this.next[previous] = next;
    if (next === NONE) this.#last[write] = previous;
    else this.#previous[next] = previous;
    this.next[version] = this.#freeVersion;
    this.#freeVersion = version;
    this.free += 1;
    if (this.first[write] === NONE) this.#forget(write);
  }

  #forget(write: number): void {
    const previous = this.#previousWrite[write] as number;
    const next = this.nextWrite[write] as number;
    if (previous === NONE) this.oldestWrite = next;
    else this.nextWrite[previous] = next;
    if (next === NONE) this.#newestWrite = previous;
    else this.#previousWrite[next] = previous;
    this.nextWrite[write] = this.#freeWrite;
    this.#freeWrite = write;
  }
}

/** 1, 2, 3 and so on; the end points to nothing. */
function linked(length: number): Int32Array {
  const list = Int32Array.from({ length }, (_, i) => i + 1);
  list[length - 1] = NONE;
  return list;
}
