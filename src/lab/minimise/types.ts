import type { Finding } from '../explore/types.ts';
import type { StateSpec } from '../model/types.ts';

// Why a crash state breaks: what the minimiser finds.

/** The cause by its kind. */
export type CauseKind =
  /** An acknowledged write was in the cache: a FLUSH before the acknowledgement is missing. */
  | 'missing-flush'
  /** B was there and A was not: a FLUSH between them is missing. */
  | 'order'
  /** One write is there in part. */
  | 'tear'
  /** A unit holds an older version than its neighbours. */
  | 'stale'
  /** Nothing that was issued is lost: what is missing was still in the guest's memory. */
  | 'never-issued'
  /** The guest sent no FLUSH and no FUA at all, or the disk lied about them (model L). */
  | 'no-flush-seen'
  /** The checker fails even on what is stable and acknowledged by nobody: nothing on the disk's side would help. */
  | 'always';

/** A request of the cause, with what people can say about it. */
export interface Actor {
  readonly request: number;
  /** "WRITE 4 KiB at 1.2 MiB (journal of ext4)", "page 3 of accounts.db". */
  readonly words: string;
}

/** A FLUSH that, had the guest sent it, would have made this failure impossible. */
export interface WhatIf {
  /** Anywhere after this event and before that one. */
  readonly afterEvent: number;
  readonly beforeEvent: number;
  readonly words: string;
}

export interface Cause {
  readonly finding: Finding;
  /** The smallest state that fails the same way, and at the earliest cut. */
  readonly state: StateSpec;
  readonly id: string;
  readonly kind: CauseKind;
  /** One sentence. */
  readonly sentence: string;
  /** Without any one of these lost, it does not fail. */
  readonly lost: readonly Actor[];
  /** Without any one of these present, it does not fail. */
  readonly kept: readonly Actor[];
  readonly whatIf: readonly WhatIf[];
  /** False: it was stopped before every smaller state had been tried. */
  readonly minimal: boolean;
  /** States asked for. */
  readonly statesTried: number;
}
