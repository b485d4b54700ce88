import { assert } from '../../base/assert.ts';
import type { Outbox } from '../../reactor/outbox.ts';
import type { PagePool } from '../../reactor/page-pool.ts';
import { SENSE_KEY, STATUS, TASK_ATTRIBUTE, type TaskAttribute } from '../scsi/scsi.ts';
import { senseData } from '../scsi/sense.ts';
import { type ScsiTask, type TaskOwner, TRANSFER } from '../scsi/task.ts';
import { CommandRecord, FAULT, PHASE } from './command-record.ts';
import { DataIn } from './data-in.ts';
import { DataOut } from './data-out.ts';
import { type PduSender, STAT_SN } from './pdu-sender.ts';
import type { IscsiSession } from './session.ts';
import { COMMAND_WINDOW, MAX_IMMEDIATE_COMMANDS } from './session-limits.ts';
import {
  AHS_TYPE,
  BHS_BYTES,
  bidirectionalReadLength,
  COMMAND_FLAG,
  DATA_IN_FLAG,
  dataSegmentLength,
  expectedDataTransferLength,
  extendedCdbBytes,
  FIELD,
  findAhs,
  FLAG_FINAL,
  flagsOf,
  initiatorTaskTag,
  readCdb,
  readLun,
  REJECT,
  RESERVED_TAG,
  RESPONSE,
  RESPONSE_FLAG,
  writeDataIn,
  writeScsiResponse,
} from './wire.ts';

const SLOTS = COMMAND_WINDOW + MAX_IMMEDIATE_COMMANDS;
const CDB_BYTES = 16;
/** [RFC 7143 11.2.2.4] AHSLength: a reserved byte and the length. */
const BIDIRECTIONAL_AHS_LENGTH = 5;
/** Sense data is preceded by its length [RFC 7143 11.4.7]. */
const SENSE_LENGTH_BYTES = 2;

export interface CommandsHost {
  readonly nowMs: number;
  progress(): void;
  /** A command has gone without an answer, or is no longer there to be waited for. */
  released(): void;
}

/** The SCSI commands of a session: from their PDUs to the SCSI target and back to responses. */
export class Commands implements TaskOwner {
  readonly #session: IscsiSession;
  readonly #sender: PduSender;
  readonly #host: CommandsHost;
  readonly in: DataIn;
  readonly out: DataOut;
  /** By slot: the initiator task tag of the command there, or RESERVED_TAG. */
  readonly #tags: Uint32Array = new Uint32Array(SLOTS).fill(RESERVED_TAG);
  readonly #records: (CommandRecord | undefined)[] = [];
  readonly #free: number[] = [];
  #count = 0;
  #immediate = 0;
  #gone = false;

  // The outcome of `#residuals`.
  #flags = 0;
  #residual = 0;
  #bidirectional = 0;

  constructor(
    session: IscsiSession,
    sender: PduSender,
    outbox: Outbox,
    pool: PagePool,
    host: CommandsHost,
  ) {
    this.#session = session;
    this.#sender = sender;
    this.#host = host;
    const dataHost = {
      get nowMs() {
        return host.nowMs;
      },
      moved: (record: CommandRecord) => this.#moved(record),
      progress: () => host.progress(),
    };
    const { maxBurstLength } = session.parameters;
    this.in = new DataIn(dataHost, sender, outbox, pool, session, maxBurstLength);
    this.out = new DataOut(dataHost, sender, session.parameters, session.table.budget);
    for (let slot = SLOTS - 1; slot >= 0; slot -= 1) this.#free.push(slot);
  }

  /** Commands taken and not yet answered. */
  get count(): number {
    return this.#count;
  }

  /** For how long one of them has held memory that others may need, for data that does not come, in ms. */
  get hoardsMs(): number {
    let most = 0;
    for (const record of this.#records) {
      if (record !== undefined) most = Math.max(most, this.out.hoardsMs(record));
    }
    return most;
  }

  /** The command with this initiator task tag. */
  find(itt: number): CommandRecord | null {
    if (itt === RESERVED_TAG) return null;
    const slot = this.#tags.indexOf(itt);
    return slot < 0 ? null : (this.#records[slot] as CommandRecord);
  }

  /** Why a SCSI Command PDU cannot be taken: a reason for Reject, or 0. */
  refuse(view: DataView, at: number, ahs: number, immediate: boolean): number {
    const itt = initiatorTaskTag(view, at);
    if (itt === RESERVED_TAG) return REJECT.INVALID_PDU_FIELD;
    if (this.#tags.indexOf(itt) >= 0) return REJECT.TASK_IN_PROGRESS;
    if ((flagsOf(view, at) & COMMAND_FLAG.ATTRIBUTE) > TASK_ATTRIBUTE.ACA) {
      return REJECT.INVALID_PDU_FIELD;
    }
    if (ahs > 0 && !soundAhs(view, at + BHS_BYTES, ahs)) return REJECT.INVALID_PDU_FIELD;
    if (immediate && this.#immediate === MAX_IMMEDIATE_COMMANDS) {
      return REJECT.IMMEDIATE_COMMAND_REJECT;
    }
    return 0;
  }

  /** Takes a SCSI Command PDU that `refuse` has nothing against [RFC 7143 11.3]. Its data and `pduEnds` follow. */
  begin(view: DataView, at: number, ahs: number, immediate: boolean): CommandRecord {
    const record = this.#takeRecord(view, at, immediate);
    const { task } = record;
    const flags = flagsOf(view, at);
    const attribute = (flags & COMMAND_FLAG.ATTRIBUTE) as TaskAttribute;
    task.owner = this;
    task.lun = readLun(view, at);
    task.tag = record.itt;
    // [RFC 7143 11.3.1] Untagged: as simple.
    task.attribute = attribute === TASK_ATTRIBUTE.UNTAGGED ? TASK_ATTRIBUTE.SIMPLE : attribute;
    readCdb(view, at, task.cdb);
    task.cdbBytes = CDB_BYTES;
    record.lunHigh = view.getUint32(at + FIELD.LUN);
    record.lunLow = view.getUint32(at + FIELD.LUN + 4);
    record.reads = (flags & COMMAND_FLAG.READ) !== 0;
    record.writes = (flags & COMMAND_FLAG.WRITE) !== 0;
    const expected = expectedDataTransferLength(view, at);
    record.outExpected = record.writes ? expected : 0;
    record.inExpected = record.reads && !record.writes ? expected : 0;
    if (ahs > 0) this.#additional(record, view, at + BHS_BYTES, ahs);
    task.expectedOutBytes = record.outExpected;
    task.expectedInBytes = record.inExpected;
    if (record.writes) this.out.begin(record, dataSegmentLength(view, at));
    this.#session.submit(record);
    return record;
  }

  /** For IscsiSession, when commands may run. */
  submit(record: CommandRecord): void {
    record.submitted = true;
    record.task.nexus = this.#session.nexus as NonNullable<IscsiSession['nexus']>;
    this.#session.scsi.submit(record.task);
  }

  /** The nexus has never been opened, or a command was aborted before. */
  forget(record: CommandRecord): void {
    assert(!record.submitted, 'a command of the SCSI target is forgotten');
    this.#release(record);
  }

  /** Commands of a LUN (null: all) that have ended and whose answer waits for the initiator get none any more. */
  dropEnded(lun: number | null): void {
    for (const record of this.#records) {
      if (record?.phase !== PHASE.ENDED || (lun !== null && record.task.lun !== lun)) continue;
      this.#release(record);
    }
  }

  /** The same for one. */
  drop(record: CommandRecord): void {
    this.#release(record);
  }

  /** The connection is gone: nobody is answered any more. The nexus is closed next, which ends what is under way. */
  dispose(): void {
    this.#gone = true;
    this.in.dispose();
    this.out.dispose();
    for (const record of this.#records) {
      if (record === undefined || record.phase === PHASE.FREE) continue;
      if (record.phase === PHASE.ENDED || !record.submitted) this.#release(record);
    }
  }

  // TaskOwner

  taskReady(task: ScsiTask): void {
    const record = task.context as CommandRecord;
    record.phase = PHASE.MOVING;
    if (task.transfer === TRANSFER.READ) this.in.begin(record);
    else this.out.ready(record);
  }

  taskAborting(task: ScsiTask): void {
    const record = task.context as CommandRecord;
    if (task.transfer === TRANSFER.READ) this.in.stop(record);
    else this.out.settle(record);
  }

  taskDone(task: ScsiTask): void {
    const record = task.context as CommandRecord;
    const silent = task.aborted && task.status !== STATUS.TASK_ABORTED;
    record.phase = PHASE.ENDED;
    if (this.#gone || silent) {
      this.#release(record);
      this.#host.released();
      return;
    }
    if (record.fault !== FAULT.NONE && !task.aborted) tellFault(record);
    if (!record.openSequences) this.#answer(record);
  }

  // Between

  #takeRecord(view: DataView, at: number, immediate: boolean): CommandRecord {
    const slot = this.#free.pop();
    assert(slot !== undefined, 'more commands than the window allows');
    const record = (this.#records[slot] ??= new CommandRecord(slot));
    record.reset();
    record.itt = initiatorTaskTag(view, at);
    record.immediate = immediate;
    this.#tags[slot] = record.itt;
    this.#count += 1;
    if (immediate) this.#immediate += 1;
    else this.#session.held += 1;
    record.inWindow = !immediate;
    return record;
  }

  #release(record: CommandRecord): void {
    this.in.drop(record);
    this.out.release(record);
    record.phase = PHASE.FREE;
    this.#tags[record.slot] = RESERVED_TAG;
    this.#free.push(record.slot);
    this.#count -= 1;
    if (record.immediate) this.#immediate -= 1;
    this.#leaveWindow(record);
    this.#host.progress();
  }

  /** Before its answer is said, so that this tells of the place that has become free. */
  #leaveWindow(record: CommandRecord): void {
    if (!record.inWindow) return;
    record.inWindow = false;
    this.#session.held -= 1;
  }

  #additional(record: CommandRecord, view: DataView, at: number, bytes: number): void {
    const cdb = findAhs(view, at, bytes, AHS_TYPE.EXTENDED_CDB);
    if (cdb >= 0) record.task.cdbBytes = CDB_BYTES + extendedCdbBytes(view, cdb);
    const read = findAhs(view, at, bytes, AHS_TYPE.BIDIRECTIONAL_READ_LENGTH);
    if (read >= 0 && record.reads && record.writes) {
      record.inExpected = bidirectionalReadLength(view, read);
    }
  }

  /** Data-In or Data-Out: it is the SCSI target's turn again, or the time to answer. */
  #moved(record: CommandRecord): void {
    const { task } = record;
    if (record.phase === PHASE.ENDED) {
      this.#answer(record);
      return;
    }
    record.phase = PHASE.EXECUTING;
    const error = record.fault === FAULT.NO_MEMORY ? 'EBUSY' : faultError(record);
    if (error !== null) {
      this.#session.scsi.transferred(task, error, record.failedAt);
    } else if (task.transfer === TRANSFER.WHOLE) {
      const bytes = Math.min(record.arrived, record.wanted);
      task.dataOut = record.collected?.subarray(0, bytes) ?? null;
      this.#session.scsi.execute(task);
    } else {
      this.#session.scsi.transferred(task, null);
    }
  }

  // Answers

  #answer(record: CommandRecord): void {
    const { task } = record;
    this.#leaveWindow(record);
    const good = task.status === STATUS.GOOD && task.sense === null;
    const { dataIn } = task;
    if (task.transfer === TRANSFER.READ && !good) record.inPresented = record.said;
    if (dataIn !== null && task.transfer === TRANSFER.WHOLE) record.inPresented = dataIn.length;
    this.#residuals(record);
    // [RFC 7143 11.7.3] GOOD may come with the last of the data.
    const status = good && !record.writes ? DATA_IN_FLAG.STATUS : 0;
    let told = false;
    if (task.transfer === TRANSFER.READ) {
      if (good && record.pieces.length > 0) {
        this.in.sayLast(record, status === 0 ? 0 : status | this.#flags, this.#residual);
        told = status !== 0;
      }
    } else if (dataIn !== null && record.inExpected > 0 && dataIn.length > 0) {
      this.#sayWhole(record, dataIn, status);
      told = status !== 0;
    }
    if (!told) this.#respond(record);
    this.#release(record);
  }

  /** [RFC 7143 11.4.5] What the initiator expected and what the command is about, as flags and counts. */
  #residuals(record: CommandRecord): void {
    const { reads, writes, inPresented, outPresented } = record;
    let presented = writes ? outPresented : inPresented;
    let expected = writes ? record.outExpected : record.inExpected;
    const other = writes ? inPresented : outPresented;
    if (presented === 0 && other > 0 && !(reads && writes)) {
      // It moves data the other way than was announced, so none was moved.
      presented = other;
      expected = 0;
    }
    this.#flags = 0;
    if (presented > expected) this.#flags = RESPONSE_FLAG.OVERFLOW;
    else if (presented < expected) this.#flags = RESPONSE_FLAG.UNDERFLOW;
    this.#residual = Math.abs(presented - expected);
    this.#bidirectional = 0;
    if (!reads || !writes) return;
    this.#bidirectional = Math.abs(inPresented - record.inExpected);
    if (inPresented > record.inExpected) this.#flags |= RESPONSE_FLAG.BIDI_OVERFLOW;
    else if (inPresented < record.inExpected) this.#flags |= RESPONSE_FLAG.BIDI_UNDERFLOW;
  }

  #respond(record: CommandRecord): void {
    const { task } = record;
    const { sense } = task;
    const sender = this.#sender;
    const dataBytes = sense === null ? 0 : SENSE_LENGTH_BYTES + sense.length;
    sender.open(dataBytes);
    const { view, at } = sender;
    writeScsiResponse(
      view,
      at,
      record.itt,
      this.#flags,
      RESPONSE.COMMAND_COMPLETED,
      task.status,
      record.dataSn + record.r2tSn,
      this.#residual,
      dataBytes,
    );
    view.setUint32(at + FIELD.BIDIRECTIONAL_RESIDUAL, this.#bidirectional);
    if (sense !== null) {
      view.setUint16(sender.dataAt, sense.length);
      sender.bytes.set(sense, sender.dataAt + SENSE_LENGTH_BYTES);
    }
    sender.close(STAT_SN.OWN);
  }

  /** Parameter data, which the logical unit has made as a whole. */
  #sayWhole(record: CommandRecord, dataIn: Uint8Array, status: number): void {
    const { maxBurstLength } = this.#session.parameters;
    const { sendSegmentBytes } = this.#session;
    const all = Math.min(dataIn.length, record.inExpected);
    const sender = this.#sender;
    for (let offset = 0; offset < all;) {
      const inBurst = maxBurstLength - (offset % maxBurstLength);
      const length = Math.min(all - offset, sendSegmentBytes, inBurst, MOST_WHOLE_PDU_BYTES);
      const end = offset + length;
      const last = end === all;
      let flags = last || end % maxBurstLength === 0 ? FLAG_FINAL : 0;
      if (last && status !== 0) flags |= status | this.#flags;
      const residual = last && status !== 0 ? this.#residual : 0;
      sender.open(length);
      const { view, at, bytes } = sender;
      writeDataIn(view, at, record.itt, flags, 0, record.dataSn, offset, residual, length);
      bytes.set(dataIn.subarray(offset, end), sender.dataAt);
      sender.close(last && status !== 0 ? STAT_SN.OWN : STAT_SN.NONE);
      record.dataSn += 1;
      offset = end;
    }
  }
}

/** Whether additional header segments are what they say, and one with a length of Data-In holds it. */
function soundAhs(view: DataView, at: number, bytes: number): boolean {
  const damaged = -2;
  const read = findAhs(view, at, bytes, AHS_TYPE.BIDIRECTIONAL_READ_LENGTH);
  if (read === damaged) return false;
  return read < 0 || view.getUint16(read) === BIDIRECTIONAL_AHS_LENGTH;
}

/** Parameter data goes in pieces that find room easily. */
const MOST_WHOLE_PDU_BYTES = 16 * 1024;

/** What the transport found wrong, as the disk's error: the sense data is put right when the task has ended. */
function faultError(record: CommandRecord): CommandRecord['failed'] {
  return record.fault === FAULT.NONE ? record.failed : 'EIO';
}

/** [RFC 7143 11.4.7.2] */
function tellFault(record: CommandRecord): void {
  const { task, fault } = record;
  if (fault === FAULT.NO_MEMORY) return;
  const { ILLEGAL_REQUEST, ABORTED_COMMAND } = SENSE_KEY;
  task.status = STATUS.CHECK_CONDITION;
  const key = fault === FAULT.SHORT_TRANSFER_LENGTH ? ILLEGAL_REQUEST : ABORTED_COMMAND;
  task.sense = senseData(false, key, fault);
  task.dataIn = null;
}
