import { KiB, MiB } from '../../base/units.ts';

/** What is kept of a checker's output: enough to say what it found, on a page that somebody reads. */
export const OUTPUT_BYTES: number = 64 * KiB;

/** A checker that has written this much is out of control, and is ended before it fills the disk that /tmp lies on. */
export const FLOOD_BYTES: number = 64 * MiB;

/** How often a running checker's output is measured: a process writes a few hundred megabytes in this time at most. */
export const FLOOD_CHECK_MS = 200;

/** How long a killed process may take to end: it has none of our requests to wait for, but perhaps another file system's. */
export const KILL_WAIT_MS = 5000;

/** How often a process is asked for where its end cannot be waited for: a tenth of what the shortest checkers take. */
export const EXIT_POLL_MS = 1;

/** The longest class of a verdict: it is a row of a table, and a key. */
export const CLASS_CHARACTERS = 120;

/** Lines and characters of a verdict's detail. */
export const DETAIL_LINES = 8;
/** See DETAIL_LINES: what fits into a report's box. */
export const DETAIL_CHARACTERS = 1000;

/** Memory of a worker's reactor for requests of FUSE, in pages: a few checkers' reads and writes in flight at once. */
export const REACTOR_PAGES = 64;

/** How many states a checker of ours is given at once: few messages, and still an answer every few milliseconds. */
export const MODULE_BATCH = 256;

/** What the kernel may read ahead of a checker: measured with e2fsck; more reads what nobody asks for. */
export const READAHEAD_BYTES = 32_768;

/** How long the kernel may take to tell that an ended process has closed its files, before we look who holds them. */
export const CLOSE_WAIT_MS = 50;

/** How long a file system that is being unmounted may take to let go of the disk below it. */
export const LET_GO_MS = 5000;

/** How long a helper program (umount, losetup) may take. */
export const HELPER_LIMIT_MS = 10_000;

/** What the pool adds to the time limit that a checker keeps by itself, before it ends the checker's worker. */
export const WATCHDOG_GRACE_MS = 10_000;

/** How often a worker may end in a row before it has begun with a state: then it cannot work at all. */
export const FRUITLESS_STARTS = 3;

/** How long a worker may take to end in its own way: to unmount, and to end a program that it started. */
export const CLOSE_LIMIT_MS = 10_000;

/** How often the checker that runs while its worker is closed is killed again: the next may just have been started. */
export const KILL_AGAIN_MS = 50;
