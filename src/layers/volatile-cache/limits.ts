import { MiB } from '../../base/units.ts';

/** The tear unit: what a drive writes whole or not at all, its logical block [NVMe base "Atomic Operations": at least one]. */
export const UNIT_BYTES = 512;

/** As much as a consumer SSD or disk has of cache memory for each few hundred gigabytes. */
export const DEFAULT_CACHE_BYTES: number = 64 * MiB;

/** Room for a few of the largest requests, so that one always fits while another is being written back. */
export const LEAST_CACHE_BYTES: number = 4 * MiB;

/** The memory is taken twice while a flush is under way; more than any drive has. */
export const MOST_CACHE_BYTES: number = 4096 * MiB;

/**
 * The longest WRITE_ZEROES or DISCARD that is cached. Each unit takes a place, and a file system that is made discards
 * its whole disk: that goes straight to the disk, behind all older writes.
 */
export const MOST_CACHED_ZERO_BYTES: number = 1 * MiB;

/** What one lane writes back at once: most of what a sequential writer leaves between two flushes, in a few requests. */
export const LANE_BYTES: number = MiB / 8;

/** Requests to the child that a write-back has in flight. Enough for a drive to work on several, and 1 MiB of memory. */
export const LANES = 8;

/** The part of a full cache that is written back at once, so that not every write waits for one of its own. */
export const EVICT_PART: number = 1 / 8;

/** Extents of one answer that are looked at one after the other; the answer is short after that. */
export const MOST_EXTENT_RUNS = 256;

/** Units that one EXTENTS answer looks at: 64 MiB of disk, some milliseconds. */
export const MOST_EXTENT_UNITS = 131_072;
