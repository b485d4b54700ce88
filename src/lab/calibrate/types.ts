import type { CacheMode } from '../../durability/modes.ts';
import type { Axis } from '../check/types.ts';
import type { CauseKind } from '../minimise/types.ts';
import type { ModelName } from '../model/types.ts';
import type { WorkloadOptions } from './workloads/registry.ts';

// The known answers: what a lab has to find, and what it must not find.

/** holds: no state may fail on this axis; breaks: at least one has to. An axis that is not named is not looked at. */
export type Expected = Readonly<Partial<Record<Axis, 'holds' | 'breaks'>>>;

/** A workload on a file system, recorded and explored. */
export interface WorkloadRow {
  readonly kind: 'workload';
  readonly id: string;
  readonly title: string;
  /** As `--mkfs` has it. */
  readonly fs: string;
  readonly make: readonly string[];
  readonly mountOptions: string;
  readonly sizeBytes: number;
  readonly cache: CacheMode;
  readonly workload: string;
  readonly options: WorkloadOptions;
  /** null: the workload's own oracle; else an oracle of the disk alone, by its name. */
  readonly oracle: string | null;
  readonly model: ModelName;
  readonly expected: Expected;
  /** Causes that may be found for what breaks. */
  readonly causes: readonly CauseKind[];
  /** Why it is known: a document, or a measurement. */
  readonly basis: string;
}

/** A small trace and the exact number of states that it leaves. */
export interface CountRow {
  readonly kind: 'count';
  readonly id: string;
  readonly title: string;
  /** The states counted now, and those that there are. */
  run(): { readonly counted: string; readonly known: string };
}

export type Row = WorkloadRow | CountRow;

export interface RowResult {
  readonly id: string;
  readonly title: string;
  readonly kind: Row['kind'];
  /** other: not what is known; cannot: this machine lacks something. */
  readonly outcome: 'as-known' | 'other' | 'cannot';
  /** What was expected and what was found, in words. */
  readonly expected: string;
  readonly found: string;
  /** Axes that have to break, and how many of them did with a cause that may be. */
  readonly breaks: number;
  readonly breaksFound: number;
  /** Whether nothing may break, and whether something did. */
  readonly sound: boolean;
  readonly falseAlarm: boolean;
  readonly statesDecided: number;
  readonly checkerRuns: number;
  /** Cuts that are exact, of those that count. */
  readonly cutsExact: number;
  readonly cuts: number;
  readonly seconds: number;
}
