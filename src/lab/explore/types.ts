import type { Verdict } from '../check/types.ts';
import type { CheckerSpec } from '../check/types.ts';
import type { ModelOptions, StateSpec } from '../model/types.ts';

// What an exploration is asked, and what it answers. The report is made of this and nothing else.

export interface ExploreOptions {
  readonly tracePath: string;
  readonly model: ModelOptions;
  readonly checker: CheckerSpec;
  /** Worker threads. */
  readonly jobs: number;
  readonly budgetMs: number;
  /** The most states to decide; absent: as many as the budget allows. */
  readonly maxStates?: number;
  readonly seed: number;
  /** Read-guided exploration (exact) is tried where the checker's reads come from us. */
  readonly readGuided: boolean;
  /**
   * Whether the image from before the recording must pass the checker. False where the recording makes the file system
   * itself: then the base is nothing that a checker could accept.
   */
  readonly checkBase: boolean;
  /** Where progress is kept, so that an interrupted exploration goes on; null: nowhere. */
  readonly progressPath: string | null;
}

/** The rungs of the coverage ladder, in their order. */
export const RUNGS = [
  'ends',
  'prefixes',
  'exhaustive',
  'read-guided',
  'one-missing',
  'one-present',
  'two-missing',
  'two-present',
  'pairs',
  'tears',
  'stale',
  'random',
] as const;
export type Rung = (typeof RUNGS)[number];

/** How far one cut has been looked at. */
export interface CutCoverage {
  readonly cut: number;
  /** All states there, as a decimal number (it can be larger than any other type holds). */
  readonly plainCount: string;
  /**
   * exact: all states are judged, each pass or fail; pairs: every pair of open requests was seen in all four
   * combinations; sampled: see `rungs`; left-out: it lies before the note 'begin'.
   */
  readonly reached: 'exact' | 'pairs' | 'sampled' | 'nothing' | 'left-out';
  /** How it became exact: by listing, by what the checker reads, or because nothing was open. */
  readonly how: 'listed' | 'read-guided' | 'single' | null;
  /** Finished rungs. */
  readonly rungs: readonly Rung[];
  /** Different states of this cut that were judged one by one; one that is exact by reads stands for more. */
  readonly statesDecided: number;
  readonly openRequests: number;
  readonly openUnits: number;
  /** Why it is not exact, where an attempt was made and given up; null: nothing to say. */
  readonly note: string | null;
}

/** One kind of finding, and the first state in which it was met. */
export interface Finding {
  readonly verdict: Verdict;
  readonly checker: string;
  readonly state: StateSpec;
  /** See src/lab/model/state-id.ts. */
  readonly id: string;
  readonly rung: Rung;
  /** How many states came to this. */
  readonly count: number;
  /** Ids of a few more. */
  readonly others: readonly string[];
}

export interface Exploration {
  readonly options: ExploreOptions;
  readonly fingerprint: string;
  readonly coverage: readonly CutCoverage[];
  readonly findings: readonly Finding[];
  /** Passing states by class. */
  readonly passes: Readonly<Record<string, number>>;
  /** States judged, by a run or without one: a state is an image at a cut. */
  readonly statesDecided: number;
  /** Confirmations included. */
  readonly checkerRuns: number;
  /** Decided without a run: the same image, or the same reads. */
  readonly sameImage: number;
  readonly sameReads: number;
  readonly elapsedMs: number;
  readonly peakMemoryBytes: number;
  /** Why it ended. covered: nothing is left to try. */
  readonly ended: 'covered' | 'budget' | 'states' | 'interrupted';
}

/** Said now and then while it runs. */
export interface Progress {
  readonly statesDecided: number;
  readonly checkerRuns: number;
  readonly failures: number;
  readonly statesPerSecond: number;
  readonly runsPerSecond: number;
  readonly rung: Rung;
  readonly cutsExact: number;
  readonly cuts: number;
  readonly elapsedMs: number;
}

/** Decides one state at a time for others than the explorer: the minimiser. Answers are remembered. */
export type Decide = (state: StateSpec) => Promise<Verdict>;
