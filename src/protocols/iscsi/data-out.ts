import { type Io, type IoOwner, OP } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import type { Page } from '../../reactor/page-pool.ts';
import { TRANSFER } from '../scsi/task.ts';
import type { CollectBudget } from './collect-budget.ts';
import {
  type CommandRecord,
  FAULT,
  type Fault,
  PHASE,
  type Piece,
  Pieces,
} from './command-record.ts';
import type { SessionParameters } from './parameters.ts';
import { type PduSender, STAT_SN } from './pdu-sender.ts';
import { PIECE_BYTES } from './session-limits.ts';
import { FIELD, isFinal, RESERVED_TAG, serialAdd, targetTransferTag, writeR2t } from './wire.ts';

/** Who is told of the commands whose data has been taken. */
export interface DataOutHost {
  readonly nowMs: number;
  /** All is there and nothing of it is with the disk any more; or it has failed, been stopped, or has ended. */
  moved(record: CommandRecord): void;
  progress(): void;
}

/**
 * The data of commands from the initiator: in the command's PDU, unsolicited behind it, or solicited with R2T
 * [RFC 7143 4.2.5.2]. WRITE: what arrives goes to the disk from where it lies, at the end of each PDU at the
 * latest, so that no memory waits for a slow initiator. Commands that need their data as a whole collect it,
 * within a budget.
 */
export class DataOut implements IoOwner {
  readonly #host: DataOutHost;
  readonly #sender: PduSender;
  readonly #parameters: SessionParameters;
  readonly #budget: CollectBudget;
  readonly #pieces = new Pieces();
  #nextTtt = 0;
  #gone = false;
  /** Sequences that have not come to their end, of all commands: R2Ts, and data behind a command unasked. */
  #owed = 0;
  /** When the last Data-Out came. */
  #heardMs = 0;

  constructor(
    host: DataOutHost,
    sender: PduSender,
    parameters: SessionParameters,
    budget: CollectBudget,
  ) {
    this.#host = host;
    this.#sender = sender;
    this.#parameters = parameters;
    this.#budget = budget;
  }

  /** For how long an initiator has owed data, in ms; 0 when it owes none. */
  get overdueMs(): number {
    return this.#owed === 0 ? 0 : this.#host.nowMs - this.#heardMs;
  }

  /**
   * For how long the command has held memory that others may need, its data still to come, in ms: an initiator that sends
   * a few bytes now and then would have it for ever.
   */
  hoardsMs(record: CommandRecord): number {
    const hoards = record.budget > 0 && record.openSequences && this.#budget.scarce;
    return hoards ? this.#host.nowMs - record.budgetSinceMs : 0;
  }

  /** The connection is gone. */
  dispose(): void {
    this.#gone = true;
  }

  /** The header of a SCSI Command with W has arrived, with so much immediate data. */
  begin(record: CommandRecord, immediateBytes: number): void {
    const { immediateData, firstBurstLength } = this.#parameters;
    record.unsolicitedOpen = true;
    record.sequenceEnd = Math.min(firstBurstLength, record.outExpected);
    if (immediateBytes > 0 && !immediateData)
      this.#blame(record, FAULT.UNEXPECTED_UNSOLICITED_DATA);
    else if (immediateBytes > record.sequenceEnd) {
      this.#blame(record, FAULT.INCORRECT_AMOUNT_OF_DATA);
    }
  }

  /** The end of the command's PDU. */
  commandEnds(record: CommandRecord, final: boolean): void {
    // [RFC 7143 13.10] With InitialR2T nothing comes behind the command that is not asked for.
    const closed = final || this.#parameters.initialR2T || record.arrived >= record.sequenceEnd;
    if (record.unsolicitedOpen && closed) this.#closeUnsolicited(record);
    else if (record.unsolicitedOpen) {
      record.unsolicitedOwed = true;
      this.#owe();
    }
    this.settle(record);
  }

  /** A Data-Out PDU has arrived for the command. False: it is not one of those it waits for, and is dropped. */
  dataBegins(record: CommandRecord, view: DataView, at: number, bytes: number): boolean {
    const ttt = targetTransferTag(view, at);
    this.#heardMs = this.#host.nowMs;
    if (ttt === RESERVED_TAG) {
      if (!record.unsolicitedOpen) {
        this.#blame(record, FAULT.UNEXPECTED_UNSOLICITED_DATA);
        return false;
      }
    } else if (record.r2tsOpen === 0 || record.ttts[record.r2tFirst] !== ttt) {
      return false;
    }
    // [RFC 7143 11.7.5, 11.7.7] In order: DataPDUInOrder and DataSequenceInOrder are Yes.
    const dataSn = view.getUint32(at + FIELD.DATA_SN);
    const offset = view.getUint32(at + FIELD.BUFFER_OFFSET);
    const inOrder = dataSn === record.dataSnIn && offset === record.arrived;
    if (!inOrder || offset + bytes > record.sequenceEnd) {
      this.#blame(record, FAULT.INCORRECT_AMOUNT_OF_DATA);
    }
    record.dataSnIn = serialAdd(dataSn, 1);
    return true;
  }

  /** The end of a Data-Out PDU that `dataBegins` has accepted. */
  dataEnds(record: CommandRecord, final: boolean): void {
    if (final || (record.fault === FAULT.NONE && record.arrived >= record.sequenceEnd)) {
      if (record.unsolicitedOpen) this.#closeUnsolicited(record);
      else this.#closeR2t(record);
    }
    this.settle(record);
  }

  /** A Data-Out PDU was damaged [RFC 7143 7.8]: its command fails, when the initiator is done with sending. */
  damaged(record: CommandRecord, view: DataView, at: number): void {
    if (!this.dataBegins(record, view, at, 0)) return;
    this.#blame(record, FAULT.PROTOCOL_SERVICE_CRC_ERROR);
    this.dataEnds(record, isFinal(view, at));
  }

  /**
   * A part of a command's data. `page`: holds it, null for memory of its own; `left`: bytes of the PDU that are
   * still to come, with these.
   */
  take(
    record: CommandRecord,
    region: Region,
    page: Page | null,
    start: number,
    length: number,
    left: number,
  ): void {
    if (this.#drops(record)) {
      record.arrived += length;
    } else if (record.phase === PHASE.WAITING || record.task.transfer !== TRANSFER.WRITE) {
      this.#collect(record, region, start, length);
    } else {
      this.#write(record, region, page, start, length, left);
    }
  }

  /** The SCSI target says that the command may run. */
  ready(record: CommandRecord): void {
    const { task } = record;
    const write = task.transfer === TRANSFER.WRITE;
    record.outPresented = write ? task.transferBytes : task.outBytes;
    record.wanted = Math.min(record.outPresented, record.outExpected);
    if (write && record.wanted % task.session.info.blockBytes !== 0) {
      // [RFC 7143 11.4.5.1] A write of fewer blocks than the CDB says is told by its residual. Half a block cannot be
      // written.
      this.#blame(record, FAULT.SHORT_TRANSFER_LENGTH);
    }
    const early = record.collected;
    if (write && early !== null && !this.#drops(record)) {
      const bytes = Math.min(record.arrived, early.length);
      record.arrived = 0;
      // It must not end before this is through.
      record.pending += 1;
      if (bytes > 0) this.#write(record, Region.plain(early), null, 0, bytes, bytes);
      record.pending -= 1;
    } else if (!write && record.wanted > 0 && !this.#drops(record)) {
      this.#wholeReady(record, early);
    }
    // Inside the command's own PDU: its end comes.
    if (!record.unsolicitedOpen) this.settle(record);
  }

  /** Where the command stands: asks for more, or says that it is done. */
  settle(record: CommandRecord): void {
    if (record.phase === PHASE.ENDED) {
      if (!record.openSequences) this.#host.moved(record);
      return;
    }
    if (record.phase !== PHASE.MOVING || record.task.transfer === TRANSFER.READ) return;
    if (record.task.aborted || this.#gone) {
      if (record.pending === 0) this.#host.moved(record);
      return;
    }
    if (!record.unsolicitedOpen && !record.waitsForBudget && !this.#drops(record)) {
      this.#solicit(record);
    }
    if (record.openSequences || record.pending > 0 || record.waitsForBudget) return;
    if (record.arrived >= record.wanted || this.#drops(record)) this.#host.moved(record);
  }

  /** Gives back what the command has taken for collecting. */
  release(record: CommandRecord): void {
    this.#owed -= record.r2tsOpen + (record.unsolicitedOwed ? 1 : 0);
    record.r2tsOpen = 0;
    record.unsolicitedOpen = false;
    record.unsolicitedOwed = false;
    if (record.filling !== null) {
      this.#pieces.give(record.filling);
      record.filling = null;
    }
    if (record.waitsForBudget) this.#cancelWait(record);
    record.collected = null;
    record.partial = null;
    this.#giveBudget(record);
  }

  ioDone(io: Io): void {
    const piece = io.context as Piece;
    const { record } = piece;
    record.pending -= 1;
    if (io.error !== null && (record.failed === null || io.offset < record.failedAt)) {
      record.failed = io.error;
      record.failedAt = io.offset;
    }
    this.#pieces.give(piece);
    this.settle(record);
    this.#host.progress();
  }

  /** Data that comes is only to be out of the way. */
  #drops(record: CommandRecord): boolean {
    return (
      record.fault !== FAULT.NONE ||
      record.failed !== null ||
      record.task.aborted ||
      record.phase >= PHASE.EXECUTING ||
      this.#gone
    );
  }

  #owe(): void {
    if (this.#owed === 0) this.#heardMs = this.#host.nowMs;
    this.#owed += 1;
  }

  #blame(record: CommandRecord, fault: Fault): void {
    if (record.fault === FAULT.NONE) record.fault = fault;
  }

  #closeUnsolicited(record: CommandRecord): void {
    record.unsolicitedOpen = false;
    if (record.unsolicitedOwed) this.#owed -= 1;
    record.unsolicitedOwed = false;
    record.dataSnIn = 0;
    record.solicited = record.arrived;
  }

  #closeR2t(record: CommandRecord): void {
    // [RFC 7143 11.8.4] What was asked for comes whole.
    if (record.arrived < record.sequenceEnd) this.#blame(record, FAULT.INCORRECT_AMOUNT_OF_DATA);
    record.r2tFirst = (record.r2tFirst + 1) % record.ttts.length;
    record.r2tsOpen -= 1;
    this.#owed -= 1;
    record.dataSnIn = 0;
    record.sequenceEnd = record.r2tEnds[record.r2tFirst] as number;
  }

  /** Sends the R2Ts that may be outstanding [RFC 7143 11.8]. */
  #solicit(record: CommandRecord): void {
    const { maxOutstandingR2T, maxBurstLength } = this.#parameters;
    const most = Math.min(maxOutstandingR2T, record.ttts.length);
    while (record.r2tsOpen < most && record.solicited < record.wanted) {
      const bytes = Math.min(maxBurstLength, record.wanted - record.solicited);
      const ttt = this.#nextTtt;
      this.#nextTtt = ttt === RESERVED_TAG - 1 ? 0 : ttt + 1;
      const slot = (record.r2tFirst + record.r2tsOpen) % record.ttts.length;
      record.ttts[slot] = ttt;
      record.r2tEnds[slot] = record.solicited + bytes;
      if (record.r2tsOpen === 0) record.sequenceEnd = record.solicited + bytes;
      this.#owe();
      const sender = this.#sender;
      sender.open(0);
      writeR2t(sender.view, sender.at, record.itt, ttt, record.r2tSn, record.solicited, bytes);
      sender.view.setUint32(sender.at + FIELD.LUN, record.lunHigh);
      sender.view.setUint32(sender.at + FIELD.LUN + 4, record.lunLow);
      sender.close(STAT_SN.NEXT);
      record.r2tSn += 1;
      record.r2tsOpen += 1;
      record.solicited += bytes;
      this.#host.progress();
    }
  }

  // Collecting

  #wholeReady(record: CommandRecord, early: Uint8Array | null): void {
    const { wanted } = record;
    if (early !== null && early.length >= wanted) return;
    if (this.#budget.take(wanted)) {
      this.#collectInto(record, wanted);
    } else if (record.arrived > 0) {
      this.#blame(record, FAULT.NO_MEMORY);
    } else {
      record.waitsForBudget = true;
      record.waiter = {
        granted: () => {
          record.waitsForBudget = false;
          this.#collectInto(record, wanted);
          this.settle(record);
        },
      };
      this.#budget.wait(wanted, record.waiter);
    }
  }

  #cancelWait(record: CommandRecord): void {
    record.waitsForBudget = false;
    this.#budget.cancel(record.waiter);
  }

  /** Zero-filled memory for the data; what came early is moved there. The budget for it has been taken. */
  #collectInto(record: CommandRecord, bytes: number): void {
    const whole = new Uint8Array(bytes);
    const early = record.collected;
    if (early !== null) whole.set(early.subarray(0, Math.min(record.arrived, bytes)));
    record.collected = whole;
    this.#giveBudget(record);
    record.budget = bytes;
    record.budgetSinceMs = this.#host.nowMs;
  }

  #giveBudget(record: CommandRecord): void {
    const { budget, budgetEarly } = record;
    record.budget = 0;
    record.budgetEarly = false;
    if (budget === 0) return;
    if (budgetEarly) this.#budget.giveEarly(budget);
    else this.#budget.give(budget);
  }

  #collect(record: CommandRecord, region: Region, start: number, length: number): void {
    if (record.collected === null) {
      // Not yet known what the command takes: what it may send unasked.
      const bytes = record.phase === PHASE.WAITING ? record.sequenceEnd : 0;
      if (bytes > 0 && this.#budget.takeEarly(bytes)) {
        this.#collectInto(record, bytes);
        record.budgetEarly = true;
      } else if (bytes > 0) this.#blame(record, FAULT.NO_MEMORY);
    }
    if (record.waitsForBudget) {
      // Its data comes unasked, and there is nowhere to put it.
      this.#cancelWait(record);
      this.#blame(record, FAULT.NO_MEMORY);
    }
    const target = record.collected;
    if (target !== null && record.arrived < target.length) {
      const take = Math.min(length, target.length - record.arrived);
      target.set(region.bytes.subarray(start, start + take), record.arrived);
    }
    record.arrived += length;
  }

  // WRITE

  /** Whole blocks go to the disk from where they lie; a piece of a block waits for its rest in memory of its own. */
  #write(
    record: CommandRecord,
    region: Region,
    page: Page | null,
    start: number,
    length: number,
    left: number,
  ): void {
    const { blockBytes, maxTransferBytes } = record.task.session.info;
    let at = start;
    let more = length;
    let inPdu = left;
    while (more > 0) {
      const toWanted = record.wanted - record.arrived;
      if (toWanted <= 0 || record.failed !== null) {
        record.arrived += more;
        return;
      }
      let taken: number;
      const usable = Math.min(inPdu, toWanted);
      const inBlock = record.filling === null ? record.arrived % blockBytes : 0;
      if (inBlock > 0 || (record.filling === null && usable < blockBytes)) {
        taken = Math.min(more, usable, blockBytes - inBlock);
        this.#fillBlock(record, region, at, taken, inBlock, blockBytes);
      } else {
        const whole = Math.min(usable, maxTransferBytes, PIECE_BYTES);
        taken = this.#fillPiece(record, region, page, at, more, whole - (whole % blockBytes));
      }
      at += taken;
      more -= taken;
      inPdu -= taken;
    }
  }

  #fillPiece(
    record: CommandRecord,
    region: Region,
    page: Page | null,
    start: number,
    length: number,
    bytes: number,
  ): number {
    const piece = record.filling ?? this.#newPiece(record, record.arrived, bytes);
    record.filling = piece;
    const { segments } = piece.io;
    const taken = Math.min(length, piece.io.length - segments.totalBytes);
    segments.push(region, start, taken);
    if (page !== null) piece.hold(page);
    record.arrived += taken;
    if (segments.totalBytes === piece.io.length) {
      record.filling = null;
      this.#submit(piece);
    }
    return taken;
  }

  #fillBlock(
    record: CommandRecord,
    region: Region,
    start: number,
    length: number,
    inBlock: number,
    blockBytes: number,
  ): void {
    const partial = (record.partial ??= new Uint8Array(blockBytes));
    partial.set(region.bytes.subarray(start, start + length), inBlock);
    record.arrived += length;
    if (inBlock + length < blockBytes) return;
    record.partial = null;
    const piece = this.#newPiece(record, record.arrived - blockBytes, blockBytes);
    piece.io.segments.push(Region.plain(partial), 0, blockBytes);
    this.#submit(piece);
  }

  #newPiece(record: CommandRecord, dataOffset: number, bytes: number): Piece {
    const piece = this.#pieces.take();
    piece.record = record;
    piece.io.reset(OP.WRITE, record.task.offset + dataOffset, bytes, record.task.ioFlags);
    return piece;
  }

  #submit(piece: Piece): void {
    const { record } = piece;
    record.pending += 1;
    piece.io.push(this);
    record.task.session.submit(piece.io);
  }
}
