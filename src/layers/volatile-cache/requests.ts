// What an operator may ask of a disk with a volatile cache, and the answer: also what threads and processes say to each
// other about it.

/** What a power cut may leave of unflushed writes, each model allowing more than the one before; see `decide`. */
export const CUT_MODELS = ['M0', 'M1', 'M2', 'M3'] as const;
export type CutModel = (typeof CUT_MODELS)[number];

export interface CutRequest {
  /** 0 to 2^53 - 1. */
  readonly seed: number;
  readonly model: CutModel;
  /** How long the disk stays away after the cut. */
  readonly offForMs: number;
}

/** What became of what no flush had covered. A unit is 512 bytes. */
export interface CutReport {
  readonly export: string;
  readonly seed: number;
  readonly model: CutModel;
  /** Requests that had something unflushed. */
  readonly writes: number;
  /** Units that had something unflushed: the sum of the next four. */
  readonly units: number;
  /** Units with their newest content. */
  readonly kept: number;
  /** Units as they were at the last flush. */
  readonly dropped: number;
  /** Units with a content between the two. */
  readonly stale: number;
  /** Units with what nobody wrote (M3). */
  readonly garbage: number;
  /** Requests that survive in part. */
  readonly torn: number;
  /** In all versions of all units. */
  readonly unflushedBytes: number;
  /** Written to the disk because of the cut. */
  readonly survivedBytes: number;
  /** Requests that got no answer. */
  readonly inFlight: number;
}

export interface FlushFault {
  /** `never` takes an earlier fault back. */
  readonly when: 'once' | 'always' | 'never';
  /** What a failed sync does to the data that it was to make stable: they stay in the cache, or are lost. */
  readonly data: 'keep' | 'drop';
}
