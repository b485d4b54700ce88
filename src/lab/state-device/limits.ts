import { KiB, MiB } from '../../base/units.ts';

/**
 * What is kept ready of a state at once. Large enough that a checker's small reads beside each other cost one look-up
 * each, small enough that a read of 4 KiB in a new place costs a read of 64 KiB at most.
 */
export const CACHE_BLOCK_BYTES: number = 64 * KiB;

/** Blocks kept ready for one disk: 64 MiB, which is what a checker reads of a test's file system, several times over. */
export const CACHE_BLOCKS = 1024;

/** What a checker's writes are kept in: the page of the kernel, so that its writes fill whole pages. */
export const OVERLAY_PAGE_BYTES: number = 4 * KiB;

/** What one run may write on one disk. More is no check but a restore; the run is told that it went too far. */
export const OVERLAY_BYTES: number = 256 * MiB;

/** Ranges that one run may have written on one disk: each costs 16 bytes, and an insertion moves those behind it. */
export const OVERLAY_RANGES = 65_536;
