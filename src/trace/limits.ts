import { KiB } from '../base/units.ts';

/** Disks in one trace. Their numbers are 16 bits; a server has far fewer, and a hostile file shall not cost more. */
export const MAX_DISKS = 4096;

/** Requests in one trace. Two events for each, and a mark or two, stay below NEVER, which is the last 31-bit number. */
export const MAX_REQUESTS: number = 2 ** 29;

/** Marks in one trace: each is an object with a text, unlike requests. */
export const MAX_MARKS = 4_000_000;

/** Text of a mark or description of a disk: read into memory as a whole. */
export const MAX_TEXT_BYTES: number = 64 * KiB;

/** The name of a disk or of its base: more than any path the kernel takes (PATH_MAX is 4096). */
export const MAX_NAME_LENGTH = 4096;

/** Blocks of a disk. No drive has larger ones; a device that does is not recorded. */
export const MAX_BLOCK_BYTES: number = 64 * KiB;
