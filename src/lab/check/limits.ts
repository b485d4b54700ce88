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
