import type { TraceParts } from '../../trace/reader.ts';
import type { SharedModel } from '../model/crash-model.ts';
import type { StateSpec } from '../model/types.ts';
import type { CheckerSpec, Verdict } from './types.ts';

// What the pool and its worker threads say to each other.

/** How a worker begins. */
export interface WorkerStart {
  readonly trace: TraceParts;
  readonly model: SharedModel;
  readonly checker: CheckerSpec;
  readonly wantReads: boolean;
  /** The worker's own folder, which exists. */
  readonly folder: string;
  /** Numbers that both threads see: PROGRESS. */
  readonly progress: Int32Array;
}

/** Places in `WorkerStart.progress`. */
export const PROGRESS = {
  /** Which state of the batch is being judged. */
  STATE: 0,
  /** How many runs were begun: it stands still in one that hangs. */
  RUNS: 1,
  /** The process group of the checker that is running, or 0. */
  GROUP: 2,
  /** 1: the pool closes, no further state is begun. */
  CLOSING: 3,
} as const;

/** PROGRESS.STATE of a batch that the worker has not yet looked at. */
export const NOT_BEGUN = -1;

export interface Batch {
  readonly type: 'run';
  readonly states: readonly StateSpec[];
}

export type ToWorker = Batch | { readonly type: 'close' };

/** Runs of a batch, packed: most verdicts of a batch are the same few. */
export interface BatchDone {
  readonly type: 'done';
  readonly verdicts: readonly Verdict[];
  /** For each state, its verdict. */
  readonly which: Int32Array;
  readonly durationsMs: Float64Array;
  /** What all runs read, one after the other, and where each ends; null: not seen. */
  readonly reads: { readonly units: Int32Array; readonly ends: Int32Array } | null;
}

export interface WorkerReady {
  readonly type: 'ready';
  readonly checkerName: string;
  readonly usesAcks: boolean;
  readonly seesReads: boolean;
  readonly batch: number;
  /** Something that the operator should know, once. */
  readonly remark: string | null;
}

/** The worker cannot begin, or cannot go on; it ends after this. */
export interface WorkerFailed {
  readonly type: 'failed';
  readonly error: { readonly name: string; readonly message: string; readonly hint: string | null };
}

export type FromWorker = WorkerReady | BatchDone | WorkerFailed;
