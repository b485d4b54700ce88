import type { DiskSession } from '../../durability/disk-session.ts';
import type { CommandSpec } from './command.ts';
import type { Nexus } from './nexus.ts';
import { STATUS, TASK_ATTRIBUTE, type TaskAttribute } from './scsi.ts';

/** What a command does with data, known once its CDB is understood. */
export const TRANSFER = {
  /** No data, or parameter data that the logical unit makes (`dataIn`) or takes (`dataOut`) as a whole. */
  WHOLE: 0,
  /** Blocks of the medium to the initiator: the transport reads them piece by piece into its own memory. */
  READ: 1,
  /** Blocks from the initiator: the transport writes them piece by piece from where they arrived. */
  WRITE: 2,
} as const;
export type Transfer = (typeof TRANSFER)[keyof typeof TRANSFER];

/** Who is told how a task goes on: the transport. */
export interface TaskOwner {
  /**
   * The task may run: its attribute and the task set allow it, its CDB is sound, nothing stands against it. The plan is in
   * the task. READ and WRITE: the transport moves `transferBytes` bytes from `offset` on, in Ios of its own on
   * `task.session` with `ioFlags`, and then calls `ScsiTarget.transferred` once, when none of them is in flight any more.
   * WHOLE: it collects min(`outBytes`, what the initiator announced) bytes into `dataOut`, at once if there are none,
   * and then calls `ScsiTarget.execute`.
   */
  taskReady(task: ScsiTask): void;
  /**
   * A task management function ends it. It comes only between `taskReady` and `taskDone`: no more data is moved, and when no
   * Io is in flight, `transferred` or `execute` is called as ever, at once if need be.
   */
  taskAborting(task: ScsiTask): void;
  /**
   * It is over: status, sense and `dataIn` are there. Comes exactly once for each task submitted, perhaps inside
   * `submit`; with `aborted` nothing is said to the initiator, unless `status` is TASK_ABORTED.
   */
  taskDone(task: ScsiTask): void;
}

/** One command [SAM-5 5.1 "Execute Command"]. Pooled by its transport. */
export class ScsiTask {
  // Set by the transport before `ScsiTarget.submit`.
  owner!: TaskOwner;
  nexus!: Nexus;
  /** [SAM-5 4.7] single level: 0 to 16383. */
  lun = 0;
  /** The command identifier: iSCSI's initiator task tag. */
  tag = 0;
  attribute: TaskAttribute = TASK_ATTRIBUTE.SIMPLE;
  /** 16 bytes, zero-filled behind a shorter CDB. */
  readonly cdb: Uint8Array = new Uint8Array(16);
  /** Bytes of the CDB that came; more than 16 are refused by the logical unit. */
  cdbBytes = 16;
  /** What the initiator announced for Data-Out: WHOLE commands with parameter lists are checked against it. */
  expectedOutBytes = 0;
  /** What it has room for. */
  expectedInBytes = 0;

  // Set by the logical unit before `taskReady`.
  command: CommandSpec | null = null;
  session!: DiskSession;
  transfer: Transfer = TRANSFER.WHOLE;
  /** Bytes from the start of the medium, for READ and WRITE. */
  offset = 0;
  transferBytes = 0;
  /** FLAG bits for the Ios of a WRITE. */
  ioFlags = 0;
  /** WHOLE: how much Data-Out the command takes. */
  outBytes = 0;

  // Set by the transport before `execute`: the bytes that came, perhaps fewer than `outBytes`.
  dataOut: Uint8Array | null = null;

  // The outcome, set before `taskDone`.
  status: number = STATUS.GOOD;
  /** Fixed or descriptor format sense data, with CHECK CONDITION. */
  sense: Uint8Array | null = null;
  /** Already cut to the allocation length. */
  dataIn: Uint8Array | null = null;
  /** A task management function has ended it. Transports stop moving its data as soon as they can. */
  aborted = false;
  /** For the logical unit: its GROUP NUMBER, 0 for none, and when it began. */
  group = 0;
  groupSince = 0;
  /** For the logical unit: it is with the transport, between `taskReady` and `transferred` or `execute`. */
  begun = false;

  /** Where the transport keeps its own record of it. */
  context: object | null = null;

  /** Before each use. */
  reset(): void {
    this.command = null;
    this.cdb.fill(0);
    this.expectedOutBytes = 0;
    this.expectedInBytes = 0;
    this.outBytes = 0;
    this.transferBytes = 0;
    this.ioFlags = 0;
    this.transfer = TRANSFER.WHOLE;
    this.dataOut = null;
    this.status = STATUS.GOOD;
    this.sense = null;
    this.dataIn = null;
    this.aborted = false;
    this.group = 0;
    this.begun = false;
    this.context = null;
  }
}
