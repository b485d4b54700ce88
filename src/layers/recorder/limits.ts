import { KiB, MiB } from '../../base/units.ts';

/** Memory for records that are not yet in the file comes in pieces of this size; a checksum or copy rarely meets an end. */
export const PAGE_BYTES: number = 1 * MiB;

/** So many of them: 16 of the largest requests, and small beside a virtual machine. */
export const BUFFER_PAGES = 16;

/** One write to the trace file: large enough that its fixed cost is nothing, small enough that the next is not long away. */
export const WRITE_BYTES: number = 2 * MiB;

/** So much is collected before it is written, ... */
export const COLLECT_BYTES: number = 256 * KiB;

/** ... or for so long: what a kill of the server costs at most. */
export const COLLECT_MS = 5;

/** Of the buffer, for records without data, so that a FLUSH is recorded when it comes even while writes wait. */
export const SMALL_RESERVE_BYTES: number = 256 * KiB;

/** Marks that wait for room in the buffer: an operator makes a few, a workload a few for each flush. */
export const MAX_WAITING_MARKS = 1024;
