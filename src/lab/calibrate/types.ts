import type { CacheMode } from '../../durability/modes.ts';
import type { Axis, CheckerSpec } from '../check/types.ts';
import type { CauseKind } from '../minimise/types.ts';
import type { ModelName } from '../model/types.ts';
import type { RecordFace } from '../record/record.ts';
import type { WorkloadOptions } from './workloads/registry.ts';

// The known answers: what a lab has to find, and what it must not find.

/** holds: no state may fail on this axis; breaks: at least one has to. An axis that is not named is not looked at. */
export type Expected = Readonly<Partial<Record<Axis, 'holds' | 'breaks'>>>;

/** Who writes to the disk while it is recorded. */
export type Source =
  /** One of our workloads, on a file system. */
  | {
      readonly kind: 'workload';
      /** As `--mkfs` has it. */
      readonly fs: string;
      readonly make: readonly string[];
      readonly mountOptions: string;
      readonly workload: string;
      readonly options: WorkloadOptions;
    }
  /** A program that works on the disk itself; `{disk}` in its words is the disk. */
  | {
      readonly kind: 'command';
      readonly face: RecordFace;
      readonly command: readonly string[];
      /** What it cannot do without. */
      readonly program: string;
    };

/** A run of something that is recorded and explored. */
export interface CrashRow {
  readonly kind: 'crash';
  readonly id: string;
  readonly title: string;
  readonly source: Source;
  readonly sizeBytes: number;
  readonly cache: CacheMode;
  /** null: the workload's own oracle; else one of the disk alone. */
  readonly oracle: { readonly kind: string; readonly options: CheckerSpec['options'] } | null;
  readonly model: ModelName;
  readonly expected: Expected;
  /** Causes that may be found for what breaks. */
  readonly causes: readonly CauseKind[];
  /** Why it is known: a document, or a measurement. */
  readonly basis: string;
}

/** What was known, and what came out; the row is right where both are the same words. */
export interface Answer {
  readonly known: string;
  readonly found: string;
}

/** A small trace and the exact number of states that it leaves. */
export interface CountRow {
  readonly kind: 'count';
  readonly id: string;
  readonly title: string;
  run(): Answer;
}

/** Something about the lab itself. Rejects with ConfigError where this machine cannot do it. */
export interface SelfTestRow {
  readonly kind: 'self-test';
  readonly id: string;
  readonly title: string;
  readonly basis: string;
  run(options: CalibrateOptions): Promise<Answer>;
}

export type Row = CrashRow | CountRow | SelfTestRow;

export interface CalibrateOptions {
  /** For the exploration of one row. */
  readonly budgetMs: number;
  readonly jobs: number;
  /** Traces and reports are kept there; null: nowhere. */
  readonly keep: string | null;
  readonly version: string;
  readonly signal: AbortSignal;
  readonly remark: (line: string) => void;
}

export interface RowResult {
  readonly id: string;
  readonly title: string;
  readonly kind: Row['kind'];
  /** other: not what is known; cannot: this machine lacks something. */
  readonly outcome: 'as-known' | 'other' | 'cannot';
  /** What was expected and what was found, in words. */
  readonly expected: string;
  readonly found: string;
  /** Why it is known. */
  readonly basis: string;
  /** Axes that have to break, and how many of them did with a cause that may be. */
  readonly breaks: number;
  readonly breaksFound: number;
  /** Axes that have to hold, and how many of them broke. */
  readonly holds: number;
  readonly falseAlarms: number;
  readonly statesDecided: number;
  readonly checkerRuns: number;
  /** Cuts that are exact, of those that count. */
  readonly cutsExact: number;
  readonly cuts: number;
  readonly seconds: number;
}
