import type { Trace } from '../../trace/trace.ts';

// What a power cut may leave, said once: the words that model, explorer, minimiser and report share.
//
// A unit is the smallest piece that a power cut leaves whole: 512 bytes or more, less where requests begin or end within
// one, more where there are only large zeroes and discards. Each unit has versions: what the base held, and one for each
// request that wrote it, in the order of issue. At a cut, a unit's candidates are those versions that it may hold
// afterwards. All of it is defined in docs/concepts/crash-model.md.

export const MODELS = {
  /** The cache keeps the order of writes: a state is a prefix. */
  M0: 'any prefix of the writes',
  /** Each write is there as a whole or not at all. */
  M1: 'any subset of whole writes',
  /** Each unit is there by itself: writes tear. */
  M2: 'any subset of units',
  /** As M2, and a unit that was being written may hold garbage. */
  M3: 'any subset of units, with garbage where the cut fell',
  /** Not legal for a disk: from the note 'begin' on flushes and FUA do nothing. To see that a failure is found at all. */
  L: 'a disk that lies about FLUSH',
} as const;
export type ModelName = keyof typeof MODELS;

export interface ModelOptions {
  readonly model: ModelName;
  /** Bytes of a unit: a power of two, at least 512 or the disk's blockBytes. Default 512. */
  readonly unitBytes: number;
  /**
   * Writes of one place that were in flight together: in the order of issue, as our recorder makes them, or in any
   * order, as another disk might.
   */
  readonly overlap: 'issued' | 'any';
  /** A discarded unit may also hold garbage (only where the trace says that DISCARD leaves anything). */
  readonly poison: boolean;
}

/**
 * An instant at which the power may fail. Only those just before something becomes stable matter, and the end: between
 * them states are only added.
 */
export interface Cut {
  readonly index: number;
  /** Everything before this event has happened, nothing from it on. The last cut: all events. */
  readonly event: number;
  /** done: only under M3, where a write cannot be garbage any more once it is done. */
  readonly why: 'flush' | 'fua' | 'done' | 'end';
  /** The request that completes; -1 at the end, and where a disk begins to lie (L). */
  readonly request: number;
  /** How many marks of the trace have been made by then: what is owed. */
  readonly marks: number;
}

/** What is open at a cut. Arrays are shared and not to be changed; a view is valid for as long as it is held. */
export interface CutView {
  readonly cut: Cut;
  /** Requests issued before the cut that are not stable at it, ascending. M0 and M1 choose among these. */
  readonly requests: Int32Array;
  /** Units with more than one candidate content, ascending. */
  readonly units: Int32Array;
  /**
   * Candidates of `units[i]`: versions[first[i]] to versions[first[i + 1] - 1], newest first, equal contents merged
   * into the newest. The last one is the floor: the oldest that may be there. Garbage stands just before it.
   */
  readonly first: Int32Array;
  readonly versions: Int32Array;
  /** Product of the candidates: all states of M2 and M3 at this cut, M1's bound. */
  readonly plainCount: bigint;
}

/** How the open requests at a cut fared. Small to write down, whatever it says. Requests are indexes of `Requests`. */
export type Rule =
  /** All issued is there. */
  | { readonly kind: 'all' }
  /** Only what is stable is there. */
  | { readonly kind: 'floor' }
  /** The first `count` of the view's requests, in order of issue or of completion. */
  | { readonly kind: 'prefix'; readonly order: 'issued' | 'completed'; readonly count: number }
  /** All but these, or only these, of the open requests. */
  | { readonly kind: 'lost' | 'kept'; readonly requests: readonly number[] }
  /** Row `row` of a covering array of strength 2 over the open requests; `flip`: the opposite. */
  | { readonly kind: 'pairs'; readonly row: number; readonly flip: boolean }
  /** One request torn, the other open ones lost or kept. */
  | {
      readonly kind: 'tear';
      readonly request: number;
      readonly shape: TearShape;
      readonly others: 'lost' | 'kept';
    }
  /** Every unit with so many candidates holds the one `back` places older than the newest. */
  | { readonly kind: 'stale'; readonly back: number }
  /** Each open request, or each version of a unit, by itself is there with probability `keep` / 256 (0 to 256, whole). */
  | {
      readonly kind: 'random';
      readonly by: 'request' | 'unit';
      readonly seed: number;
      readonly keep: number;
    }
  /** Pairs of unit and version; all other units as `others` says. */
  | { readonly kind: 'units'; readonly others: 'all' | 'floor'; readonly pairs: readonly number[] };

export const TEAR_SHAPES = [
  'head',
  'tail',
  'middle',
  'alternating',
  'first',
  'last',
  'not-first',
  'not-last',
] as const;
export type TearShape = (typeof TEAR_SHAPES)[number];

/** One state of the disks after a power cut. */
export interface StateSpec {
  /** Index of a Cut. */
  readonly cut: number;
  readonly rule: Rule;
}

/** Where a unit is, for people and for devices. */
export interface UnitPlace {
  readonly disk: number;
  readonly offset: number;
  readonly bytes: number;
}

/**
 * The states that a power cut may leave after a trace, under one model. Building it reads the whole trace once; memory
 * is bounded by the number of units written, not by their data.
 */
export interface CrashModel {
  readonly trace: Trace;
  readonly options: ModelOptions;
  /** In the order of time. */
  readonly cuts: readonly Cut[];
  /** Units that the trace writes at all. They are numbered by disk and offset, from 0. */
  readonly unitCount: number;
  place(unit: number): UnitPlace;
  /** The unit that holds this byte; -1: the trace never writes it. */
  unitAt(disk: number, offset: number): number;
  /** Cheap for the same cut again and for the next or previous one. */
  view(cut: number): CutView;
  /** The request that wrote a version, or -1 for the base. */
  requestOf(version: number): number;
  /**
   * The same number for the same content of the same unit, another one otherwise, all over the trace. Compared are the
   * bytes.
   */
  contentOf(version: number): number;
  /** Which version a unit holds in a state. Any unit, open at the cut or not. */
  versionIn(state: StateSpec, unit: number): number;
  /** `versionIn` for all of `view.units`, into `into` (one entry each): the fast way. */
  choose(view: CutView, rule: Rule, into: Int32Array): void;
  /** Fills `into` with a version's bytes, from byte `skip` of its unit on. */
  readVersion(version: number, skip: number, into: Uint8Array): void;
  /** Null, or why no power cut could leave this under the model. */
  whyIllegal(state: StateSpec): string | null;
  /** How many different states there are over all cuts, exactly, where counting them all is possible in short time. */
  countStates(limit: number): bigint | null;
  /** Closes the base images. The trace is the caller's. */
  close(): void;
}
