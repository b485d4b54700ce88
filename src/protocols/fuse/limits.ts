import { KiB } from '../../base/units.ts';

/**
 * What one mount may cost. The kernel queues what is not taken, so every limit here only makes programs wait.
 */

/** Requests of one mount in flight, whoever they are for. */
export const MAX_REQUESTS_IN_FLIGHT = 256;

/**
 * Of these, asynchronous ones: read-ahead and libaio's [fuse(4), FUSE_INIT max_background]. The kernel's own default, 12,
 * would hold a queue depth of 32 down.
 */
export const MAX_BACKGROUND = 128;
/** From here on the kernel calls itself congested and reads less ahead: three quarters, as with its own defaults. */
export const CONGESTION_THRESHOLD = 96;

/**
 * The largest request in the kernel's pages of 4 KiB: 1 MiB, which is the most that Linux allows unless told otherwise
 * (fs.fuse.max_pages_limit). A read may have it; a write arrives in one page of the pool, which MAX_CHUNK_BYTES is for.
 */
export const MAX_PAGES = 256;

/** The most bytes of a write, and of one Io of a longer read: with their headers they fit into a page of the pool. */
export const MAX_CHUNK_BYTES: number = 256 * KiB;

/** A payload up to here is copied out of the page it arrived in, which can then take the next request at once. */
export const MAX_COPIED_BYTES: number = 16 * KiB;

/** The most requests that are taken from the kernel at once; each needs a page of the pool to arrive in. */
export const MAX_RECEIVES = 8;

/** Room for every answer without data; STATFS, ATTR and INIT have up to 120 bytes. */
export const SMALL_ANSWER_BYTES = 256;

/** Opens at one time: more than a kernel allows a process descriptors on common settings. */
export const MAX_OPENS = 65_536;

/** How long the start waits for an answer of whoever has mounted something at the path. */
export const LOOK_TIMEOUT_MS = 5_000;

/** How long the end waits for what programs have mapped and changed to be written, and for requests in flight. */
export const STOP_TIMEOUT_MS = 20_000;
