import type { LogicalUnit } from './logical-unit.ts';
import type { ScsiTask } from './task.ts';

/** How a command stands to reservations of other nexuses [SPC-4 table 67, SBC-4 table 15, SPC-2 table for RESERVE]. */
export type ReservationRule =
  /** Always allowed. */
  | 'allowed'
  /** Conflicts with Exclusive Access; allowed under Write Exclusive. */
  | 'reads'
  /** Conflicts with every reservation of another. */
  | 'writes'
  /** Conflicts with reservations unless registered, as each service action says: the command decides itself. */
  | 'own';

/** What a command counts as in the statistics of its group [SPC-4 table 375]. */
export const GROUPED = { READ: 1, WRITE: 2 } as const;
export type Grouped = (typeof GROUPED)[keyof typeof GROUPED];

/**
 * One command of the device server: a row of the registry (`registry.ts`), from which dispatch, the check of reserved
 * bits, REPORT SUPPORTED OPERATION CODES and the coverage page of the documentation are made.
 */
export interface CommandSpec {
  /** As the standard spells it: "READ (10)". */
  readonly name: string;
  /** Standard and section: "SBC-4 5.13". */
  readonly section: string;
  readonly opcode: number;
  /** Where the operation code alone does not say it. */
  readonly serviceAction?: number;
  readonly cdbBytes: 6 | 10 | 12 | 16;
  /**
   * CDB usage data [SPC-4 6.35.3]: the bits of each byte that are looked at, the operation code and service action as
   * they are. A CDB with any other bit set is refused (INVALID FIELD IN CDB, with the field pointer).
   */
  readonly usage: readonly number[];
  readonly reservation: ReservationRule;
  /** INQUIRY, REPORT LUNS, REQUEST SENSE: done also while a unit attention is pending [SAM-5 5.14.1]. */
  readonly despiteUnitAttention?: boolean;
  /** Fails with NOT READY while the medium is stopped, ejected or being sanitized. */
  readonly needsMedium?: boolean;
  /** Done while the medium is being sanitized and after that failed [SBC-4 4.11.2], as far as this says so of the CDB. */
  readonly duringSanitize?: (cdb: Uint8Array) => boolean;
  /** Changes the medium: DATA PROTECT on a write-protected one. */
  readonly writes?: boolean;
  /** Its group's statistics count it; `groupByte`: where its GROUP NUMBER is. */
  readonly grouped?: Grouped;
  readonly groupByte?: number;
  /** Needs the medium to be thinly provisioned, and so on: false hides the command from this logical unit. */
  readonly offered?: (unit: LogicalUnit) => boolean;
  /**
   * Checks the CDB and fills the plan of the task. False: refused, with `unit.refuse(task, …)`, or it goes on later with
   * `unit.planned(task)`. No allocation for commands of the hot path (READ, WRITE).
   */
  readonly plan: (unit: LogicalUnit, task: ScsiTask) => boolean;
  /**
   * WHOLE: does it, and ends it with `unit.finish(task)` or `unit.refuse(task, …)`, at once or later. READ and WRITE: called
   * after the transfer only if it has something left to do.
   */
  readonly execute?: (unit: LogicalUnit, task: ScsiTask) => void;
  /**
   * The task was aborted after `execute`, and has not ended: ends it, if what goes on can do without it. Without this it ends
   * by itself.
   */
  readonly aborting?: (unit: LogicalUnit, task: ScsiTask) => void;
}
