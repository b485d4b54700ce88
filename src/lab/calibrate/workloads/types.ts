import type { DeclaredFile } from '../../oracles/files.ts';
import type { NeededModule, OracleOption, Settings } from '../../oracles/types.ts';

// Small programs whose behaviour on a power cut is known. Each is run as a process of its own, in a folder on the file
// system under test, and says on standard output what it acknowledges. They do the same each time.

export interface Workplace {
  /** On the file system under test. */
  readonly folder: string;
  readonly settings: Settings;
  /** Prints `ACK` and this. Returns when it is written. */
  readonly acknowledge: (what: Readonly<Record<string, unknown>>) => void;
}

/** What judges it: a ready-made oracle with its own options, those of the mount left out. */
export interface Judged {
  readonly kind: string;
  readonly options: Readonly<Record<string, string | number | boolean>>;
}

export interface Workload {
  readonly name: string;
  /** A line for lists. */
  readonly summary: string;
  readonly options: readonly OracleOption[];
  /** What is on the disk before the recording begins. */
  prepare(place: Workplace): void | Promise<void>;
  run(place: Workplace): void | Promise<void>;
  /** For the oracle `files`: all contents, once prepared. To be written to the file that `judged` is given. */
  manifest(settings: Settings): readonly DeclaredFile[];
  judged(settings: Settings, manifest: string): Judged;
  /** Programs and packages of npm that it cannot do without. */
  needs(settings: Settings): { programs: readonly string[]; modules: readonly NeededModule[] };
}
