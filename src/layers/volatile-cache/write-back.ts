import { assert } from '../../base/assert.ts';
import type { BlockDevice } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, Io, OP, type IoOwner } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { LANE_BYTES, LANES, UNIT_BYTES } from './limits.ts';
import { KIND, NONE, type Versions } from './versions.ts';

/** Who is told that a write-back has ended. */
export interface WriteBackOwner {
  writtenBack(error: BlockErrorCode | null): void;
}

const LANE_UNITS = LANE_BYTES / UNIT_BYTES;

/**
 * Writes versions of a cache to the child, one list of them at a time, several requests side by side. A sync first reads
 * what it is about to overwrite and ends with a flush of the child: until that has succeeded nothing was promised, so
 * that a power cut may still choose the old content.
 */
export class WriteBack implements IoOwner {
  readonly #child: BlockDevice;
  readonly #versions: Versions;
  readonly #owner: WriteBackOwner;
  /** What is to be written: at most one version of each unit. */
  readonly #list: Int32Array;
  readonly #listed: Uint8Array;
  #count = 0;
  #at = 0;
  #sync = false;
  #busy = false;
  #error: BlockErrorCode | null = null;
  readonly #idle: Lane[] = [];
  #working = 0;
  #pumping = false;
  readonly #flush = new Io();

  constructor(child: BlockDevice, versions: Versions, owner: WriteBackOwner) {
    this.#child = child;
    this.#versions = versions;
    this.#owner = owner;
    this.#list = new Int32Array(versions.capacity);
    this.#listed = new Uint8Array(versions.capacity);
    for (let i = 0; i < LANES; i += 1) this.#idle.push(new Lane(this, child, versions));
  }

  /** From `start` until the owner has been told. */
  get busy(): boolean {
    return this.#busy;
  }

  /** Puts on the list what all writes up to `order` have left. */
  includeAll(order: number): void {
    const versions = this.#versions;
    for (let write = versions.oldestWrite; write !== NONE;) {
      if ((versions.order[write] as number) > order) break;
      for (let at = versions.first[write] as number; at !== NONE;) {
        const newer = versions.newer[at] as number;
        const last = newer === NONE || this.#orderOf(newer) > order;
        if (last) this.#include(at);
        at = versions.next[at] as number;
      }
      write = versions.nextWrite[write] as number;
    }
  }

  /** Puts on the list what the writes up to `order` have left in `count` units from `unit` on. */
  includeRange(unit: number, count: number, order: number): void {
    const versions = this.#versions;
    if (count <= versions.used) {
      for (let at = unit; at < unit + count; at += 1) {
        const version = versions.newestUpTo(at, order);
        if (version !== NONE) this.#include(version);
      }
      return;
    }
    for (let write = versions.oldestWrite; write !== NONE;) {
      for (let at = versions.first[write] as number; at !== NONE;) {
        const place = versions.unit[at] as number;
        if (place >= unit && place < unit + count) {
          this.#include(versions.newestUpTo(place, order));
        }
        at = versions.next[at] as number;
      }
      write = versions.nextWrite[write] as number;
    }
  }

  /** Writes the list; `writtenBack` follows, perhaps at once. `sync`: keeps what was there before, and flushes. */
  start(sync: boolean): void {
    assert(!this.#busy, 'two write-backs at once');
    this.#busy = true;
    this.#sync = sync;
    this.#error = null;
    this.#at = 0;
    this.#pump();
  }

  /** Drops everything on the list, and what is older, from the cache. The list is empty then. */
  drop(): void {
    for (let i = 0; i < this.#count; i += 1) {
      const version = this.#list[i] as number;
      this.#listed[version] = 0;
      this.#versions.dropUpTo(version);
    }
    this.#count = 0;
  }

  /** Empties the list; the cache keeps all. What has been written counts as written by the cache of its own accord. */
  keep(): void {
    for (let i = 0; i < this.#count; i += 1) {
      const version = this.#list[i] as number;
      this.#listed[version] = 0;
      this.#versions.hasBase[version] = 0;
    }
    this.#count = 0;
  }

  /** For Lane only. */
  laneDone(lane: Lane, error: BlockErrorCode | null): void {
    this.#working -= 1;
    this.#idle.push(lane);
    this.#error ??= error;
    this.#pump();
  }

  /** The child's flush has ended. */
  ioDone(io: Io): void {
    this.#end(io.error);
  }

  /** A loop with a guard: a child may complete inside `submit`. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#at < this.#count && this.#error === null) {
      const lane = this.#idle.pop();
      if (lane === undefined) break;
      this.#working += 1;
      const from = this.#at;
      this.#at = this.#runEnd(from);
      lane.start(this.#list, from, this.#at, this.#sync);
    }
    this.#pumping = false;
    if (this.#working > 0) return;
    if (this.#error !== null || !this.#sync) this.#end(this.#error);
    else {
      this.#flush.reset(OP.FLUSH, 0, 0, 0);
      this.#flush.push(this);
      this.#child.submit(this.#flush);
    }
  }

  #end(error: BlockErrorCode | null): void {
    this.#busy = false;
    this.#owner.writtenBack(error);
  }

  /** Neighbours of one kind are written together. */
  #runEnd(from: number): number {
    const { unit, kind } = this.#versions;
    const first = this.#list[from] as number;
    let end = from + 1;
    while (end < this.#count && end - from < LANE_UNITS) {
      const version = this.#list[end] as number;
      if (unit[version] !== (unit[first] as number) + end - from) break;
      if (kind[version] !== kind[first]) break;
      end += 1;
    }
    return end;
  }

  #include(version: number): void {
    if (version === NONE || this.#listed[version] === 1) return;
    this.#listed[version] = 1;
    this.#list[this.#count] = version;
    this.#count += 1;
  }

  #orderOf(version: number): number {
    return this.#versions.order[this.#versions.write[version] as number] as number;
  }
}

/** One request at a time to the child, with memory of its own. */
class Lane implements IoOwner {
  readonly #writeBack: WriteBack;
  readonly #child: BlockDevice;
  readonly #versions: Versions;
  readonly #io = new Io();
  readonly #region = Region.plain(LANE_BYTES);
  #list!: Int32Array;
  #from = 0;
  #to = 0;

  constructor(writeBack: WriteBack, child: BlockDevice, versions: Versions) {
    this.#writeBack = writeBack;
    this.#child = child;
    this.#versions = versions;
  }

  /** Writes the versions list[from] to list[to - 1], of adjacent units and one kind. `keepBase`: reads first. */
  start(list: Int32Array, from: number, to: number, keepBase: boolean): void {
    this.#list = list;
    this.#from = from;
    this.#to = to;
    if (!keepBase) {
      this.#write();
      return;
    }
    this.#reset(OP.READ, 0);
    this.#submit(true);
  }

  ioDone(io: Io): void {
    if (io.error !== null || io.op !== OP.READ) {
      this.#writeBack.laneDone(this, io.error);
      return;
    }
    for (let i = this.#from; i < this.#to; i += 1) {
      const at = (i - this.#from) * UNIT_BYTES;
      this.#versions.saveBase(this.#list[i] as number, this.#region.bytes, at);
    }
    this.#write();
  }

  #write(): void {
    const versions = this.#versions;
    const kind = versions.kind[this.#list[this.#from] as number];
    if (kind !== KIND.DATA) {
      this.#reset(OP.WRITE_ZEROES, kind === KIND.ZERO_KEPT ? FLAG.NO_HOLE : 0);
      this.#submit(false);
      return;
    }
    for (let i = this.#from; i < this.#to; i += 1) {
      const at = (i - this.#from) * UNIT_BYTES;
      versions.copyTo(this.#list[i] as number, this.#region.bytes, at);
    }
    this.#reset(OP.WRITE, 0);
    this.#submit(true);
  }

  #reset(op: typeof OP.READ | typeof OP.WRITE | typeof OP.WRITE_ZEROES, flags: number): void {
    const unit = this.#versions.unit[this.#list[this.#from] as number] as number;
    this.#io.reset(op, unit * UNIT_BYTES, (this.#to - this.#from) * UNIT_BYTES, flags);
  }

  #submit(withMemory: boolean): void {
    if (withMemory) this.#io.segments.push(this.#region, 0, this.#io.length);
    this.#io.push(this);
    this.#child.submit(this.#io);
  }
}
