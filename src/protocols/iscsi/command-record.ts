import { Io } from '../../block/io.ts';
import type { Page } from '../../reactor/page-pool.ts';
import { ScsiTask } from '../scsi/task.ts';
import type { BudgetWaiter } from './collect-budget.ts';
import { MAX_OUTSTANDING_R2T } from './limits.ts';

const NOBODY: BudgetWaiter = { granted: () => {} };

/** How far a command is. */
export const PHASE = {
  /** With the SCSI target, which has not said `taskReady`. Data-Out that comes is kept. */
  WAITING: 0,
  /** Data is moved. */
  MOVING: 1,
  /** The logical unit does it. */
  EXECUTING: 2,
  /** It has ended, and is answered when the initiator has sent all that it is sending [RFC 7143 11.4.2]. */
  ENDED: 3,
  /** The record is nobody's. */
  FREE: 4,
} as const;
export type Phase = (typeof PHASE)[keyof typeof PHASE];

/** What the transport found wrong, told as ABORTED COMMAND with this additional sense code [RFC 7143 11.4.7.2]. */
export const FAULT = {
  NONE: 0,
  UNEXPECTED_UNSOLICITED_DATA: 0x0c0c,
  INCORRECT_AMOUNT_OF_DATA: 0x0c0d,
  PROTOCOL_SERVICE_CRC_ERROR: 0x4705,
  /** There was no memory for its data: BUSY. */
  NO_MEMORY: -1,
  /**
   * [SPC-4 table F.2] INVALID FIELD IN COMMAND INFORMATION UNIT, with ILLEGAL REQUEST: it announced less than its
   * CDB writes.
   */
  SHORT_TRANSFER_LENGTH: 0x0e03,
} as const;
export type Fault = (typeof FAULT)[keyof typeof FAULT];

/** One Io of a command, with the pages its data lies in. Pooled. */
export class Piece {
  readonly io: Io = new Io();
  record!: CommandRecord;
  readonly pages: Page[] = [];
  pageCount = 0;
  /** READ: where in pages[0] the first PDU begins, and how long all are. */
  start = 0;
  pduBytes = 0;
  /** READ: the most data in one of them. */
  segmentBytes = 0;
  /** READ: the bytes of the command's data that it brings, at this offset of it. */
  dataOffset = 0;
  dataBytes = 0;
  done = false;

  constructor() {
    this.io.context = this;
  }

  hold(page: Page): void {
    page.hold();
    this.pages[this.pageCount] = page;
    this.pageCount += 1;
  }

  release(): void {
    for (let i = 0; i < this.pageCount; i += 1) (this.pages[i] as Page).release();
    this.pageCount = 0;
  }
}

/** One SCSI command of an initiator, from its PDU to its response. Pooled; all lengths in bytes. */
export class CommandRecord {
  readonly task: ScsiTask = new ScsiTask();
  /** Its place in the table of the session. */
  readonly slot: number;
  itt = 0;
  /** The LUN field as it came, for R2Ts. */
  lunHigh = 0;
  lunLow = 0;
  /** For immediate delivery: not counted in the CmdSN window. */
  immediate = false;
  /** It counts there now. */
  inWindow = false;
  reads = false;
  writes = false;
  /** What the initiator expects to send and to be sent. */
  outExpected = 0;
  inExpected = 0;
  phase: Phase = PHASE.FREE;
  /** It has been given to the SCSI target. */
  submitted = false;
  fault: Fault = FAULT.NONE;
  /** The first failure of the disk, at which byte of the medium. */
  failed: Io['error'] = null;
  failedAt = 0;
  /** Ios with the disk. */
  pending = 0;
  /** SPDTL: what the command would move, if the initiator let it [RFC 7143 11.4.5.1]. */
  inPresented = 0;
  outPresented = 0;

  // Data-Out
  /** How much the command takes; what comes beyond it is dropped. */
  wanted = 0;
  /** The offset in the command's data that comes next. */
  arrived = 0;
  /** Data of the command PDU, or unsolicited Data-Out, may come. */
  unsolicitedOpen = false;
  /** The PDU of the command is there, and more is to come unasked. */
  unsolicitedOwed = false;
  /** Where the current sequence ends at the latest. */
  sequenceEnd = 0;
  dataSnIn = 0;
  /** What has been solicited so far ends here. */
  solicited = 0;
  r2tSn = 0;
  r2tsOpen = 0;
  readonly ttts: Uint32Array = new Uint32Array(MAX_OUTSTANDING_R2T);
  readonly r2tEnds: Float64Array = new Float64Array(MAX_OUTSTANDING_R2T);
  r2tFirst = 0;
  r2tSince = 0;
  /** WHOLE: what is collected; WAITING: what came early. */
  collected: Uint8Array | null = null;
  /** What it has taken of the budget. */
  budget = 0;
  /** Since when. */
  budgetSinceMs = 0;
  /** It was taken before the command might run. */
  budgetEarly = false;
  waitsForBudget = false;
  waiter: BudgetWaiter = NOBODY;
  filling: Piece | null = null;
  /** A block of which only the first bytes have arrived. */
  partial: Uint8Array | null = null;

  // Data-In
  issued = 0;
  toSend = 0;
  said = 0;
  dataSn = 0;
  readonly pieces: Piece[] = [];
  starved = false;
  busy = false;

  constructor(slot: number) {
    this.slot = slot;
  }

  /** The initiator is still sending. */
  get openSequences(): boolean {
    return this.unsolicitedOpen || this.r2tsOpen > 0;
  }

  reset(): void {
    this.task.reset();
    this.task.context = this;
    this.phase = PHASE.WAITING;
    this.submitted = false;
    this.fault = FAULT.NONE;
    this.failed = null;
    this.failedAt = 0;
    this.pending = 0;
    this.inPresented = 0;
    this.outPresented = 0;
    this.wanted = 0;
    this.arrived = 0;
    this.unsolicitedOpen = false;
    this.unsolicitedOwed = false;
    this.sequenceEnd = 0;
    this.dataSnIn = 0;
    this.solicited = 0;
    this.r2tSn = 0;
    this.r2tsOpen = 0;
    this.r2tFirst = 0;
    this.collected = null;
    this.budget = 0;
    this.budgetEarly = false;
    this.waitsForBudget = false;
    this.filling = null;
    this.partial = null;
    this.issued = 0;
    this.toSend = 0;
    this.said = 0;
    this.dataSn = 0;
    this.starved = false;
    this.busy = false;
  }
}

/** Free list of one connection. */
export class Pieces {
  readonly #free: Piece[] = [];

  take(): Piece {
    return this.#free.pop() ?? new Piece();
  }

  /** Gives its pages back, too. */
  give(piece: Piece): void {
    piece.release();
    this.#free.push(piece);
  }
}
