import { assert } from '../../base/assert.ts';
import type { BlockDevice } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { EXTENT } from '../../block/extents.ts';
import { FLAG, type Io, IoPool, OP, type IoOwner } from '../../block/io.ts';
import type { Region, Segments } from '../../block/memory.ts';
import { MOST_EXTENT_RUNS, MOST_EXTENT_UNITS, UNIT_BYTES } from './limits.ts';
import { KIND, type Versions } from './versions.ts';

/** A READ in parts, or an EXTENTS answered run by run. Pooled. */
class Parted {
  io: Io | null = null;
  /** READ: parts that are not done, and one more while they are made. */
  pending = 0;
  error: BlockErrorCode | null = null;
  /** EXTENTS: the unit that comes next, the end, and the runs that may still be looked at. */
  at = 0;
  end = 0;
  runs = 0;
}

/**
 * The disk as it reads: the newest versions of a cache over its child. What is cached is copied when the request comes,
 * only the rest is asked of the child; so it does not matter what leaves the cache meanwhile.
 */
export class Overlay implements IoOwner {
  readonly #child: BlockDevice;
  readonly #versions: Versions;
  readonly #ios = new IoPool();
  readonly #parted: Parted[] = [];

  constructor(child: BlockDevice, versions: Versions) {
    this.#child = child;
    this.#versions = versions;
  }

  /** Fills a READ and completes it. */
  read(io: Io): void {
    const versions = this.#versions;
    const first = io.offset / UNIT_BYTES;
    const end = first + io.length / UNIT_BYTES;
    if (versions.used === 0 || versions.nextUsed(first, end) === end) {
      this.#child.submit(io);
      return;
    }
    const parted = this.#take(io);
    parted.pending = 1;
    for (let at = first; at < end;) {
      const unused = versions.nextUnused(at, end);
      if (unused > at) versions.read(at, unused, io.segments, (at - first) * UNIT_BYTES);
      at = versions.nextUsed(unused, end);
      if (at > unused) this.#readPart(parted, unused, at);
    }
    this.#partDone(parted, null);
  }

  /** Answers an EXTENTS and completes it. */
  extents(io: Io): void {
    if (this.#versions.used === 0 || io.length === 0) {
      this.#child.submit(io);
      return;
    }
    const parted = this.#take(io);
    parted.at = io.offset / UNIT_BYTES;
    parted.end = parted.at + Math.min(io.length / UNIT_BYTES, MOST_EXTENT_UNITS);
    parted.runs = MOST_EXTENT_RUNS;
    this.#nextRun(parted);
  }

  /** A part that the child was asked for is done. */
  ioDone(part: Io): void {
    const parted = part.context as Parted;
    const { error } = part;
    if (part.op === OP.READ) {
      this.#ios.give(part);
      this.#partDone(parted, error);
      return;
    }
    const io = parted.io as Io;
    const { extents, length } = part;
    for (let i = 0; i < extents.count; i += 1) {
      io.extents.push(extents.lengths[i] as number, extents.flags[i] as number);
    }
    const short = extents.totalBytes < length;
    this.#ios.give(part);
    if (error !== null || short) this.#finish(parted, error);
    else this.#nextRun(parted);
  }

  #readPart(parted: Parted, unit: number, end: number): void {
    const io = parted.io as Io;
    const part = this.#ios.take();
    const offset = unit * UNIT_BYTES;
    part.reset(OP.READ, offset, (end - unit) * UNIT_BYTES, 0);
    pushSlice(part.segments, io.segments, offset - io.offset, part.length);
    part.context = parted;
    part.push(this);
    parted.pending += 1;
    this.#child.submit(part);
  }

  #partDone(parted: Parted, error: BlockErrorCode | null): void {
    parted.error ??= error;
    parted.pending -= 1;
    if (parted.pending === 0) this.#finish(parted, parted.error);
  }

  /** Looks at cached runs, and asks the child for the next one that is not; its answer comes back here. */
  #nextRun(parted: Parted): void {
    const versions = this.#versions;
    const io = parted.io as Io;
    const one = (io.flags & FLAG.ONE) !== 0;
    while (parted.at < parted.end && parted.runs > 0 && !io.extents.full) {
      if (one && io.extents.count > 0) break;
      parted.runs -= 1;
      const unused = versions.nextUnused(parted.at, parted.end);
      if (unused === parted.at) {
        this.#askExtents(parted);
        return;
      }
      for (let at = parted.at; at < unused; at += 1) {
        const data = versions.kind[versions.newest(at)] === KIND.DATA;
        const flags = data ? 0 : EXTENT.ZERO;
        if (one && io.extents.count > 0 && io.extents.flags[0] !== flags) break;
        io.extents.push(UNIT_BYTES, flags);
      }
      parted.at = unused;
    }
    this.#finish(parted, null);
  }

  #askExtents(parted: Parted): void {
    const io = parted.io as Io;
    const end = this.#versions.nextUsed(parted.at, parted.end);
    const part = this.#ios.take();
    part.reset(OP.EXTENTS, parted.at * UNIT_BYTES, (end - parted.at) * UNIT_BYTES, io.flags);
    part.context = parted;
    part.push(this);
    parted.at = end;
    this.#child.submit(part);
  }

  #take(io: Io): Parted {
    const parted = this.#parted.pop() ?? new Parted();
    parted.io = io;
    parted.error = null;
    return parted;
  }

  #finish(parted: Parted, error: BlockErrorCode | null): void {
    const { io } = parted;
    assert(io !== null, 'a request that was completed already');
    parted.io = null;
    this.#parted.push(parted);
    io.complete(error);
  }
}

/** Appends [skip, skip + length) of `source` to `target`. */
function pushSlice(target: Segments, source: Segments, skip: number, length: number): void {
  let before = 0;
  let left = length;
  for (let i = 0; i < source.count && left > 0; i += 1) {
    const size = source.lengths[i] as number;
    const inside = Math.max(0, skip - before);
    before += size;
    if (inside >= size) continue;
    const take = Math.min(size - inside, left);
    target.push(source.regions[i] as Region, (source.starts[i] as number) + inside, take);
    skip += take;
    left -= take;
  }
}
