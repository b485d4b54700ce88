import type { Verdict } from '../check/types.ts';

// What the ready-made oracles are written against. They run in a process of their own (judge-main.ts), so that one that
// hangs can be killed with everything that it started, and so that nothing blocks the thread that shows the disk.

/** One crash state, as a judge sees it. */
export interface Case {
  /** The disks: a path to each. */
  readonly files: readonly string[];
  /** What was acknowledged before the cut, in order: the texts of the marks. */
  readonly acks: readonly string[];
  /** An empty folder for this case. */
  readonly scratch: string;
}

/** Judges disks. */
export interface DiskJudge {
  judge(subject: Case): Promise<Verdict>;
}

/** Judges the folder where a file system was made visible. May write to it. */
export interface FolderJudge {
  judge(folder: string, subject: Case): Promise<Verdict>;
}

/** Options after parsing: all that the oracle has, with defaults filled in; absent are those without a default. */
export type Settings = Readonly<Record<string, string | number | boolean | undefined>>;

/** An option of an oracle. Help and documentation are made from it. */
export interface OracleOption {
  readonly name: string;
  readonly type: 'text' | 'number' | 'boolean';
  /** Full sentences. */
  readonly description: string;
  readonly choices?: readonly string[];
  readonly default?: string | number | boolean;
  readonly required?: boolean;
}

/** What an oracle cannot do without, with certain settings. */
export interface Needs {
  readonly programs: readonly string[];
  /** Packages of npm, from the operator's project. */
  readonly modules: readonly NeededModule[];
  /** Mounts: root, and a mount namespace of its own. */
  readonly mounts: boolean;
}

export interface NeededModule {
  readonly name: string;
  /** The folder that it is looked for from. */
  readonly project: string;
}

interface Description {
  readonly kind: string;
  /** A line for lists. */
  readonly summary: string;
  /** Paragraphs: what it does, and what its classes mean. */
  readonly details: readonly string[];
  readonly options: readonly OracleOption[];
  /**
   * It works with code that a damaged file can bring down: that the process ends by SIGSEGV and the like is a finding
   * about the disk, and no accident of the checker.
   */
  readonly crashIsFinding?: boolean;
}

export interface DiskOracle extends Description {
  readonly on: 'disk';
  needs(settings: Settings): Needs;
  /** Whether it looks at what was acknowledged. */
  usesAcks(settings: Settings): boolean;
  judge(settings: Settings): DiskJudge;
}

/** Works on a mounted file system; see mounted.ts. */
export interface FolderOracle extends Description {
  readonly on: 'folder';
  needs(settings: Settings): Omit<Needs, 'mounts'>;
  usesAcks(settings: Settings): boolean;
  judge(settings: Settings): FolderJudge;
}
