import type { Verdict } from '../check/types.ts';
import type { Case, Settings } from './types.ts';

// What a worker and its judge process say to each other. One case at a time.

/** The first message to the process. */
export interface BeginMessage {
  readonly kind: string;
  readonly settings: Settings;
  /** Of an oracle that mounts: the mount namespace that it is not in. */
  readonly outside: string | null;
}

export type CaseMessage = Case;

export type AnswerMessage =
  | { readonly verdict: Verdict }
  /** A disk's file is not there: it was mounted after this process got its own view of the mounts. */
  | { readonly unseen: string };
