// What bounds an exploration besides its budget, and why.

/** A cut with at most so many states is listed: a second's work for a checker in this process. */
export const LISTED_STATES = 4096;

/** Beyond so many different images an exploration ends: they take about half a gigabyte. */
export const MAX_IMAGES = 1 << 24;

/** Pairs of unit and content that the trie of reads holds, 256 MiB; later runs are not remembered by their reads. */
export const MAX_TRIE_PAIRS = 1 << 25;

/** Decisions that wait in read-guided exploration, some 50 MiB; beyond, the cut is given up. */
export const MAX_FRONTIER = 1 << 18;

/** How often a first verdict of its kind is asked for again: three answers like the first are taken for the truth. */
export const CONFIRMATIONS = 3;

/** Ids that a finding lists besides its first; each of these states that was run is confirmed too. */
export const OTHER_IDS = 7;

/** Batches that wait for each job, so that no worker idles while answers are taken in. */
export const BATCHES_PER_JOB = 2;

/** How often progress is told. A person sees a line move, and no more is needed. */
export const PROGRESS_MS = 200;

/** The least time between two saves of the progress file. */
export const SAVE_MS = 5000;

/** Saving may take one part in so many of the time. */
export const SAVE_SHARE = 20;

/** So many random states in a row that were all known: the cut is taken for exhausted. */
export const KNOWN_IN_A_ROW = 2000;

/** What a (rung, cut) may at least take, whatever its share of the budget: a run of a quick checker. */
export const LEAST_SHARE_MS = 20;

/** Runs that read-guided exploration of a cut may at least make before its share is looked at. */
export const LEAST_GUIDED_RUNS = 32;

/** Obligations beyond its own under which a state's reads are looked up: neighbouring cuts, each some microseconds. */
export const MORE_OWED = 16;
