import type { Rung } from './types.ts';

/** How an exploration stands, cut by cut. */
export interface CutTally {
  /** Different states judged. */
  decided: number;
  /** Of these: neither pass nor fail. */
  unjudged: number;
  /** All its states were judged one by one, though perhaps neither pass nor fail. */
  listed: boolean;
  exact: 'listed' | 'read-guided' | 'single' | null;
  rungs: Rung[];
  note: string | null;
  /** New kinds of verdicts and new ways of reading that its states have shown. */
  news: number;
  /** Random states: how many the next round makes, how many were made, how many of the last ones were all known. */
  energy: number;
  drawn: number;
  known: number;
  /** `news` and `decided` after the last round. */
  newsBefore: number;
  decidedBefore: number;
}

/** How an exploration stands as a whole. All of it goes to the progress file. */
export interface Totals {
  statesDecided: number;
  checkerRuns: number;
  sameImage: number;
  sameReads: number;
  /** States that did not pass. */
  failures: number;
  /** Runs that read the same as another and came to something else. */
  contradictions: number;
  /** Of earlier starts. */
  elapsedBeforeMs: number;
  /** Base and final image have passed. */
  endsChecked: boolean;
}

/** Random states of a cut in its first round. */
const FIRST_ENERGY = 16;

export class Tally {
  cuts: CutTally[];
  totals: Totals = {
    statesDecided: 0,
    checkerRuns: 0,
    sameImage: 0,
    sameReads: 0,
    failures: 0,
    contradictions: 0,
    elapsedBeforeMs: 0,
    endsChecked: false,
  };

  constructor(cuts: number) {
    this.cuts = Array.from({ length: cuts }, () => ({
      decided: 0,
      unjudged: 0,
      listed: false,
      exact: null,
      rungs: [],
      note: null,
      news: 0,
      energy: FIRST_ENERGY,
      drawn: 0,
      known: 0,
      newsBefore: 0,
      decidedBefore: 0,
    }));
  }

  cut(index: number): CutTally {
    return this.cuts[index] as CutTally;
  }

  get exactCuts(): number {
    let exact = 0;
    for (const cut of this.cuts) if (cut.exact !== null) exact += 1;
    return exact;
  }
}
