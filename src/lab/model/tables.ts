import type { Cut } from './types.ts';

// What a crash model is made of: typed arrays in shared memory, so that worker threads attach to them and build
// nothing.

/** Later than every cut. */
export const FOREVER = 0x7fff_ffff;

/** Where the units are: runs of units of one size that follow each other on one disk, by disk and offset. */
export interface UnitTables {
  readonly unitCount: number;
  readonly runDisk: Uint16Array;
  /** Bytes. */
  readonly runStart: Float64Array;
  readonly runUnitBytes: Float64Array;
  /** The number of a run's first unit; one more entry: the number of units. */
  readonly runFirst: Int32Array;
}

/** One entry for each request. */
export interface RequestTables {
  /** The units that it wrote: from `unitFrom` to below `unitTo`. None for one that changes nothing. */
  readonly unitFrom: Int32Array;
  readonly unitTo: Int32Array;
  /** The event after which its data may be on the disk: its issue, or later for a barrier, which waits for others. */
  readonly startedAt: Int32Array;
  /** The first cut at which it is a candidate. */
  readonly bornAt: Int32Array;
  /** The first cut at which it is stable, or FOREVER. */
  readonly stableFrom: Int32Array;
  /** The last cut at which one of its versions may be there; -1: it wrote nothing. */
  readonly aliveTo: Int32Array;
  /** The last cut at which one of its units is open because of it; -1: never. */
  readonly openTo: Int32Array;
  /** Requests that write, by the cut at which they are born: those of cut k from bornFirst[k] on. */
  readonly born: Int32Array;
  readonly bornFirst: Int32Array;
}

/** One entry for each version; those of a unit follow each other: the base, then writers in the order of issue. */
export interface VersionTables {
  /** The first version of each unit; one more entry: the number of versions. */
  readonly firstOf: Int32Array;
  /** Request, or -1 for the base. */
  readonly writer: Int32Array;
  /** The last cut at which it may be there, or FOREVER. */
  readonly lastCut: Int32Array;
  /** 0 if and only if all bytes are zero. */
  readonly hash: Int32Array;
  /** The first version of the same unit with the same content, or -1 when nobody has asked yet. */
  readonly content: Int32Array;
}

export interface ModelTables {
  readonly units: UnitTables;
  readonly requests: RequestTables;
  readonly versions: VersionTables;
  readonly cuts: readonly Cut[];
}

export function sharedInts(length: number, fill = 0): Int32Array {
  const ints = new Int32Array(new SharedArrayBuffer(4 * length));
  return fill === 0 ? ints : ints.fill(fill);
}

export function sharedFloats(length: number): Float64Array {
  return new Float64Array(new SharedArrayBuffer(8 * length));
}
