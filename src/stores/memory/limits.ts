import { KiB } from '../../base/units.ts';

/**
 * What is allocated at once. Large enough that a full gigabyte needs 16,384 pages, small enough that scattered 4 KiB
 * writes waste at most 15 parts of 16.
 */
export const PAGE_BYTES: number = 64 * KiB;

/** Pages looked at for one EXTENTS answer: 4 GiB of disk, about a millisecond. The answer is short after that. */
export const EXTENT_SCAN_PAGES: number = 65_536;
