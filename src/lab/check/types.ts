import type { BlockDevice } from '../../block/device.ts';
import type { Mark } from '../../trace/trace.ts';
import type { StateSpec } from '../model/types.ts';

// What judges a crash state, and what it says.

/** I: the structure is sound; A: each object is old or new; D: what was acknowledged is there. */
export type Axis = 'integrity' | 'atomicity' | 'durability';

export type Outcome =
  /** Nothing is wrong. */
  | 'pass'
  /** The workload's promise is broken. */
  | 'fail'
  /** The checker could not judge: it crashed, or left with a code that says so. Never a pass. */
  | 'checker-error'
  /** It did not end in time, and was killed. */
  | 'hang'
  /** It judged the same state differently when asked again. */
  | 'flaky'
  /** The checker said that this state is not for it (exit code 77). */
  | 'skip';

export interface Verdict {
  readonly outcome: Outcome;
  /** Of a failure: which of the three is broken. */
  readonly axis: Axis | null;
  /**
   * A short name for what was found, the same for the same kind of finding: numbers and addresses are taken out of it.
   * Of a pass: a named good state ('old', 'new', 'clean', 'replayed') or ''.
   */
  readonly class: string;
  /** The checker's own words, at most a few lines. */
  readonly detail: string;
}

/** One crash state, ready to be looked at. */
export interface Subject {
  /** One file for each disk of the trace: reads come from us, writes go to a layer that is thrown away. */
  readonly files: readonly string[];
  /** The same, for checkers that run in this process. */
  readonly devices: readonly BlockDevice[];
  /** What was acknowledged before the cut, in order. */
  readonly acks: readonly Mark[];
  /** A folder of this run, empty, removed after it. */
  readonly scratch: string;
}

/** Judges crash states. One object for each worker; `check` is not called again before it has answered. */
export interface Checker {
  /** Shown beside every verdict. */
  readonly name: string;
  /** Whether it looks at what was acknowledged: then the same bytes at another cut are another question. */
  readonly usesAcks: boolean;
  /** Whether it needs `files`: a process does, code of ours does not. */
  readonly needsFiles: boolean;
  check(subject: Subject): Promise<Verdict>;
  close(): Promise<void>;
}

/** How a checker is made in a worker thread: data only, since it crosses threads. */
export interface CheckerSpec {
  /** A ready-made oracle (src/lab/oracles), 'command', or 'module'. */
  readonly kind: string;
  /** The command with `{disk}`, `{disk1}`…, `{acks}`, `{mount}`; the module's path; the oracle's own options. */
  readonly options: Readonly<Record<string, string | number | boolean>>;
  readonly timeoutMs: number;
}

/** One state, judged once. */
export interface Run {
  readonly verdict: Verdict;
  /**
   * Units of the model that were read before this run wrote them, in the order of their first reading; null where reads
   * are not seen. Two states that agree on all of them give the same run.
   */
  readonly reads: Int32Array | null;
  readonly durationMs: number;
}

/** Worker threads, each with a model of its own over shared arrays, a checker, and a place where states are shown. */
export interface CheckerPool {
  readonly checkerName: string;
  readonly usesAcks: boolean;
  /** Whether runs tell what they read. */
  readonly seesReads: boolean;
  /** How many batches are worked on at once; more wait inside. */
  readonly jobs: number;
  /** How many states should be given at once: 1 where a process is started for each, many where code of ours judges. */
  readonly batch: number;
  /** Judges states in order. Rejects only when the pool itself breaks; what goes wrong with a checker is a verdict. */
  run(states: readonly StateSpec[]): Promise<readonly Run[]>;
  close(): Promise<void>;
}
