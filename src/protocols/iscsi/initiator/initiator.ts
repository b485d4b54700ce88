import { assert } from '../../../base/assert.ts';
import { crc32c, readDigest, writeDigest } from '../crc32c.ts';
import { DEFAULT_PARAMETERS, type SessionParameters } from '../parameters.ts';
import {
  ahsBytes,
  BHS_BYTES,
  dataSegmentLength,
  DATA_IN_FLAG,
  DIGEST_BYTES,
  FIELD,
  FLAG_FINAL,
  FLAG_TRANSIT,
  COMMAND_FLAG,
  IMMEDIATE,
  initiatorTaskTag,
  ISCSI_OP,
  opcodeOf,
  padded,
  RESERVED_TAG,
  RESPONSE_FLAG,
  serialAdd,
  serialLessOrEqual,
  setDataSegmentLength,
  STAGE,
  targetTransferTag,
  writeDataOut,
  writeLun,
  writeRequest,
  writeRequestSequence,
  writeScsiCommand,
} from '../wire.ts';

// A small initiator, for tests, the simulator and benchmarks: it knows no sockets, and believes nothing it need not.

/** Where its bytes go. */
export interface InitiatorHost {
  send(bytes: Uint8Array): void;
}

export interface InitiatorOptions {
  readonly initiatorName?: string;
  /** Six bytes. */
  readonly isid?: Uint8Array;
  readonly cid?: number;
  readonly tsih?: number;
  /** Null: a discovery session. */
  readonly targetName: string | null;
  /** Keys besides the names; what is not here is not negotiated. */
  readonly keys?: Readonly<Record<string, string>>;
  /** NOP-In pings are not answered. */
  readonly mute?: boolean;
}

export interface CommandOptions {
  readonly lun?: number;
  readonly cdb: Uint8Array;
  /** Expected Data-In, in bytes. */
  readonly read?: number;
  /** What it sends. */
  readonly write?: Uint8Array;
  /** Expected Data Transfer Length, where it is not the one above. */
  readonly expected?: number;
  readonly attribute?: number;
  readonly immediate?: boolean;
  /** How much goes with the command, and behind it unasked; by default as much as negotiated. */
  readonly immediateBytes?: number;
  readonly unsolicitedBytes?: number;
  /** R2Ts are not answered. */
  readonly silent?: boolean;
}

/** How a command ended. */
export interface CommandResult {
  readonly status: number;
  readonly sense: Uint8Array;
  readonly data: Uint8Array;
  readonly overflow: boolean;
  readonly underflow: boolean;
  readonly residual: number;
  readonly expDataSn: number;
  /** Data-In PDUs, R2Ts. */
  readonly dataIns: number;
  readonly r2ts: number;
}

/** A PDU of the target. */
export interface TargetPdu {
  readonly opcode: number;
  readonly header: DataView;
  readonly data: Uint8Array;
}

interface Pending {
  readonly itt: number;
  readonly options: CommandOptions;
  readonly done: (result: CommandResult) => void;
  readonly data: Uint8Array;
  have: number;
  dataIns: number;
  r2ts: number;
}

const MAX_SEGMENT = 256 * 1024;

/** One session with one connection, as the initiator sees it. */
export class IscsiInitiator {
  readonly #host: InitiatorHost;
  readonly options: InitiatorOptions;
  parameters: SessionParameters = DEFAULT_PARAMETERS;
  /** What the target answered to the login keys. */
  readonly answered = new Map<string, string>();
  tsih = 0;
  cmdSn = 1;
  expStatSn = 0;
  expCmdSn = 1;
  maxCmdSn = 1;
  loggedIn = false;
  /** Sees every PDU of the target. */
  watch: (pdu: TargetPdu) => void = () => {};
  /** Every R2T, before it is answered. */
  #nextTag = 1;
  #rest: Uint8Array = new Uint8Array(0);
  readonly #commands = new Map<number, Pending>();
  readonly #others = new Map<number, (pdu: TargetPdu) => void>();
  readonly #queue: (() => void)[] = [];
  #loginDone: (status: number) => void = () => {};

  constructor(host: InitiatorHost, options: InitiatorOptions) {
    this.#host = host;
    this.options = options;
    this.tsih = options.tsih ?? 0;
  }

  /** Commands that have not ended. */
  get inFlight(): number {
    return this.#commands.size + this.#queue.length;
  }

  /** Everything in one request, from the operational stage to full feature. `done` gets class and detail. */
  login(done: (status: number) => void): void {
    const { initiatorName = 'iqn.2026-11.test:initiator', targetName, keys = {} } = this.options;
    const pairs: Record<string, string> = { InitiatorName: initiatorName };
    if (targetName === null) pairs['SessionType'] = 'Discovery';
    else pairs['TargetName'] = targetName;
    Object.assign(pairs, keys);
    const text = Object.entries(pairs).map(([key, value]) => `${key}=${value}\0`);
    const data = new TextEncoder().encode(text.join(''));
    const bytes = new Uint8Array(BHS_BYTES + padded(data.length));
    const view = new DataView(bytes.buffer);
    const stages = (STAGE.OPERATIONAL << 2) | STAGE.FULL_FEATURE;
    const opcode = ISCSI_OP.LOGIN_REQUEST | IMMEDIATE;
    writeRequest(view, 0, opcode, FLAG_TRANSIT | stages, 0, 0, data.length);
    bytes.set(this.options.isid ?? [0x00, 0x02, 0x3d, 0, 0, 1], FIELD.ISID);
    view.setUint16(FIELD.TSIH, this.tsih);
    view.setUint16(FIELD.CID, this.options.cid ?? 0);
    writeRequestSequence(view, 0, this.cmdSn, this.expStatSn);
    bytes.set(data, BHS_BYTES);
    this.#loginDone = done;
    this.#host.send(bytes);
  }

  /** Sends a command when the window lets it. Returns its initiator task tag. */
  command(options: CommandOptions, done: (result: CommandResult) => void): number {
    const itt = this.#tag();
    const read = options.read ?? 0;
    const start = (): void => {
      this.#commands.set(itt, {
        itt,
        options,
        done,
        data: new Uint8Array(options.write === undefined ? (options.expected ?? read) : read),
        have: 0,
        dataIns: 0,
        r2ts: 0,
      });
      this.#sendCommand(itt, options);
    };
    if (options.immediate === true) start();
    else this.#inWindow(start);
    return itt;
  }

  /** A promise of the same. */
  run(options: CommandOptions): Promise<CommandResult> {
    return new Promise((resolve) => {
      this.command(options, resolve);
    });
  }

  /** Task management, for immediate delivery. */
  manage(
    tmf: number,
    lun: number,
    tag: number,
    refCmdSn: number,
    done: (response: number) => void,
  ): void {
    const itt = this.#tag();
    const view = newHeader();
    const opcode = ISCSI_OP.SCSI_TASK_MANAGEMENT_FUNCTION_REQUEST | IMMEDIATE;
    writeRequest(view, 0, opcode, FLAG_FINAL | tmf, itt, tag, 0);
    writeLun(view, 0, lun);
    view.setUint32(FIELD.REF_CMD_SN, refCmdSn);
    this.#others.set(itt, ({ header }) => done(header.getUint8(FIELD.RESPONSE)));
    this.#sendImmediate(view);
  }

  ping(data: Uint8Array, done: (echo: Uint8Array) => void): void {
    this.request(ISCSI_OP.NOP_OUT, FLAG_FINAL, RESERVED_TAG, data, (pdu) => done(pdu.data));
  }

  text(pairs: string, done: (pdu: TargetPdu) => void): void {
    const data = new TextEncoder().encode(pairs);
    this.request(ISCSI_OP.TEXT_REQUEST, FLAG_FINAL, RESERVED_TAG, data, done);
  }

  /** `reason`: LOGOUT_REASON. */
  logout(reason: number, done: (response: number) => void): void {
    const cid = (this.options.cid ?? 0) * 0x10000;
    this.request(
      ISCSI_OP.LOGOUT_REQUEST,
      FLAG_FINAL | reason,
      cid,
      new Uint8Array(0),
      ({ header }) => done(header.getUint8(FIELD.RESPONSE)),
    );
  }

  /** Any request for immediate delivery; `done` gets the PDU with its tag. */
  request(
    opcode: number,
    flags: number,
    word20: number,
    data: Uint8Array,
    done: (pdu: TargetPdu) => void,
  ): void {
    const itt = this.#tag();
    const view = newHeader();
    writeRequest(view, 0, opcode | IMMEDIATE, flags, itt, word20, data.length);
    this.#others.set(itt, done);
    this.#sendImmediate(view, data);
  }

  /** Takes the next CmdSN. */
  takeCmdSn(): number {
    const taken = this.cmdSn;
    this.cmdSn = serialAdd(taken, 1);
    return taken;
  }

  /** Sends a PDU as it is: header (48 bytes and additional segments), data; digests are added. */
  send(header: DataView, data: Uint8Array = new Uint8Array(0)): void {
    this.#host.send(this.frame(header, data));
  }

  /** The same, without sending it. */
  frame(header: DataView, data: Uint8Array = new Uint8Array(0)): Uint8Array {
    const { headerDigest, dataDigest } = this.loggedIn ? this.parameters : DEFAULT_PARAMETERS;
    const head = header.byteLength + (headerDigest ? DIGEST_BYTES : 0);
    const tail = dataDigest && data.length > 0 ? DIGEST_BYTES : 0;
    const bytes = new Uint8Array(head + padded(data.length) + tail);
    const view = new DataView(bytes.buffer);
    bytes.set(new Uint8Array(header.buffer, header.byteOffset, header.byteLength));
    setDataSegmentLength(view, 0, data.length);
    bytes.set(data, head);
    if (headerDigest) {
      writeDigest(view, header.byteLength, crc32c(view, 0, header.byteLength));
    }
    if (tail > 0) {
      const length = padded(data.length);
      writeDigest(view, head + length, crc32c(view, head, length));
    }
    return bytes;
  }

  /** Bytes of the target have arrived. */
  receive(bytes: Uint8Array): void {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    let at = 0;
    for (;;) {
      const length = this.#pduBytes(all, at);
      if (length === 0) break;
      const pdu = this.#pdu(all, at);
      at += length;
      this.#understand(pdu);
    }
    this.#rest = all.subarray(at);
  }

  #tag(): number {
    const tag = this.#nextTag;
    this.#nextTag += 1;
    return tag;
  }

  #inWindow(start: () => void): void {
    if (this.#queue.length === 0 && serialLessOrEqual(this.cmdSn, this.maxCmdSn)) start();
    else this.#queue.push(start);
  }

  #pduBytes(all: Uint8Array, at: number): number {
    if (all.length - at < BHS_BYTES) return 0;
    const view = new DataView(all.buffer, all.byteOffset);
    const { headerDigest, dataDigest } = this.loggedIn ? this.parameters : DEFAULT_PARAMETERS;
    const data = dataSegmentLength(view, at);
    let length = BHS_BYTES + ahsBytes(view, at) + padded(data);
    if (headerDigest) length += DIGEST_BYTES;
    if (dataDigest && data > 0) length += DIGEST_BYTES;
    return all.length - at < length ? 0 : length;
  }

  /** Takes it apart, and asserts that its digests are right. */
  #pdu(all: Uint8Array, at: number): TargetPdu {
    const view = new DataView(all.buffer, all.byteOffset);
    const { headerDigest, dataDigest } = this.loggedIn ? this.parameters : DEFAULT_PARAMETERS;
    const bare = BHS_BYTES + ahsBytes(view, at);
    const dataBytes = dataSegmentLength(view, at);
    let from = at + bare;
    if (headerDigest) {
      assert(crc32c(view, at, bare) === readDigest(view, from), 'a header digest is wrong');
      from += DIGEST_BYTES;
    }
    const length = padded(dataBytes);
    if (dataDigest && dataBytes > 0) {
      const digest = readDigest(view, from + length);
      assert(crc32c(view, from, length) === digest, 'a data digest is wrong');
    }
    for (let i = dataBytes; i < length; i += 1) {
      assert(all[from + i] === 0, 'padding that is not zero');
    }
    const header = new DataView(all.slice(at, at + bare).buffer);
    const data = all.slice(from, from + dataBytes);
    return { opcode: opcodeOf(header, 0), header, data };
  }

  #understand(pdu: TargetPdu): void {
    const { opcode, header } = pdu;
    const ownStatus = this.#numbers(pdu);
    this.watch(pdu);
    const itt = initiatorTaskTag(header, 0);
    switch (opcode) {
      case ISCSI_OP.LOGIN_RESPONSE:
        this.#loginResponse(pdu);
        break;
      case ISCSI_OP.SCSI_DATA_IN:
        this.#dataIn(pdu, ownStatus);
        break;
      case ISCSI_OP.SCSI_RESPONSE:
        this.#response(pdu);
        break;
      case ISCSI_OP.READY_TO_TRANSFER:
        this.#r2t(pdu);
        break;
      case ISCSI_OP.NOP_IN:
        if (itt !== RESERVED_TAG) this.#other(itt, pdu);
        else this.#pinged(pdu);
        break;
      case ISCSI_OP.TEXT_RESPONSE:
      case ISCSI_OP.LOGOUT_RESPONSE:
      case ISCSI_OP.SCSI_TASK_MANAGEMENT_FUNCTION_RESPONSE:
        this.#other(itt, pdu);
        break;
      case ISCSI_OP.REJECT:
      case ISCSI_OP.ASYNCHRONOUS_MESSAGE:
        break;
      default:
        assert(false, `a PDU with opcode ${opcode} of the target`);
    }
    while (this.#queue.length > 0 && serialLessOrEqual(this.cmdSn, this.maxCmdSn)) {
      this.#queue.shift()?.();
    }
  }

  /** [RFC 7143 4.2.2] Checks StatSN, takes the window. True: the PDU has a StatSN of its own. */
  #numbers({ opcode, header }: TargetPdu): boolean {
    const statSn = header.getUint32(FIELD.STAT_SN);
    const flags = header.getUint8(1);
    const dataIn = opcode === ISCSI_OP.SCSI_DATA_IN;
    const status = !dataIn || (flags & DATA_IN_FLAG.STATUS) !== 0;
    const unasked = opcode === ISCSI_OP.NOP_IN && initiatorTaskTag(header, 0) === RESERVED_TAG;
    const own = status && !unasked && opcode !== ISCSI_OP.READY_TO_TRANSFER;
    if (opcode === ISCSI_OP.LOGIN_RESPONSE && this.expStatSn === 0) this.expStatSn = statSn;
    if (status)
      assert(statSn === this.expStatSn, `StatSN ${statSn} where ${this.expStatSn} is due`);
    if (own) this.expStatSn = serialAdd(statSn, 1);
    const expCmdSn = header.getUint32(FIELD.EXP_CMD_SN);
    const maxCmdSn = header.getUint32(FIELD.MAX_CMD_SN);
    assert(serialLessOrEqual(this.maxCmdSn, maxCmdSn), 'MaxCmdSN goes back');
    this.expCmdSn = expCmdSn;
    this.maxCmdSn = maxCmdSn;
    return own;
  }

  #loginResponse({ header, data }: TargetPdu): void {
    const status = header.getUint16(FIELD.LOGIN_STATUS);
    this.tsih = header.getUint16(FIELD.TSIH);
    for (const pair of new TextDecoder().decode(data).split('\0')) {
      const equals = pair.indexOf('=');
      if (equals > 0) this.answered.set(pair.slice(0, equals), pair.slice(equals + 1));
    }
    const flags = header.getUint8(1);
    if (status === 0 && (flags & FLAG_TRANSIT) !== 0) {
      this.parameters = this.#agreed();
      this.loggedIn = true;
    }
    this.#loginDone(status);
  }

  /** What holds now, from the target's answers and what it declared. */
  #agreed(): SessionParameters {
    const value = (key: string): string | undefined => this.answered.get(key);
    const number = (key: string, or: number): number => Number(value(key) ?? or);
    const yes = (key: string, or: boolean): boolean => {
      const text = value(key);
      return text === undefined ? or : text === 'Yes';
    };
    const d = DEFAULT_PARAMETERS;
    const ours = this.options.keys?.['MaxRecvDataSegmentLength'];
    return {
      ...d,
      headerDigest: value('HeaderDigest') === 'CRC32C',
      dataDigest: value('DataDigest') === 'CRC32C',
      sendSegmentBytes: number('MaxRecvDataSegmentLength', d.sendSegmentBytes),
      receiveSegmentBytes: Number(ours ?? d.receiveSegmentBytes),
      maxBurstLength: number('MaxBurstLength', d.maxBurstLength),
      firstBurstLength: number('FirstBurstLength', d.firstBurstLength),
      initialR2T: yes('InitialR2T', d.initialR2T),
      immediateData: yes('ImmediateData', d.immediateData),
      maxOutstandingR2T: number('MaxOutstandingR2T', d.maxOutstandingR2T),
    };
  }

  #sendCommand(itt: number, options: CommandOptions): void {
    const { write, read, attribute = 1, lun = 0 } = options;
    const { immediateData, initialR2T, firstBurstLength } = this.parameters;
    const expected = options.expected ?? write?.length ?? read ?? 0;
    const first = Math.min(firstBurstLength, write?.length ?? 0, expected);
    const segment = Math.min(this.parameters.sendSegmentBytes, MAX_SEGMENT);
    const immediate = options.immediateBytes ?? (immediateData ? Math.min(first, segment) : 0);
    const unasked = options.unsolicitedBytes ?? (initialR2T ? 0 : first - immediate);
    let flags = attribute;
    if (write !== undefined) flags |= COMMAND_FLAG.WRITE;
    if (read !== undefined) flags |= COMMAND_FLAG.READ;
    if (unasked === 0) flags |= FLAG_FINAL;
    const view = newHeader();
    const data = write?.subarray(0, immediate) ?? new Uint8Array(0);
    writeScsiCommand(view, 0, itt, flags, lun, expected, options.cdb, data.length);
    if (options.immediate === true) view.setUint8(0, view.getUint8(0) | IMMEDIATE);
    const cmdSn = options.immediate === true ? this.cmdSn : this.takeCmdSn();
    writeRequestSequence(view, 0, cmdSn, this.expStatSn);
    this.send(view, data);
    if (unasked > 0 && write !== undefined) {
      this.sendData(itt, RESERVED_TAG, write, immediate, unasked, lun);
    }
  }

  /** Sends [offset, offset + length) of a write as Data-Out. */
  sendData(
    itt: number,
    ttt: number,
    write: Uint8Array,
    offset: number,
    length: number,
    lun = 0,
  ): void {
    const segment = Math.min(this.parameters.sendSegmentBytes, MAX_SEGMENT);
    let dataSn = 0;
    for (let done = 0; done < length;) {
      const bytes = Math.min(segment, length - done);
      const final = done + bytes === length ? FLAG_FINAL : 0;
      const view = newHeader();
      const from = offset + done;
      writeDataOut(view, 0, itt, ttt, final, dataSn, from, bytes);
      writeLun(view, 0, lun);
      writeRequestSequence(view, 0, 0, this.expStatSn);
      this.send(view, write.subarray(from, from + bytes));
      dataSn += 1;
      done += bytes;
    }
  }

  #dataIn({ header, data }: TargetPdu, status: boolean): void {
    const pending = this.#commands.get(initiatorTaskTag(header, 0));
    assert(pending !== undefined, 'Data-In of a command that is not there');
    const offset = header.getUint32(FIELD.BUFFER_OFFSET);
    const dataSn = header.getUint32(FIELD.DATA_SN);
    assert(offset === pending.have, `Data-In at ${offset} where ${pending.have} is due`);
    assert(dataSn === pending.dataIns, 'DataSN out of order');
    assert(data.length <= this.parameters.receiveSegmentBytes, 'a Data-In PDU that is too long');
    assert(offset + data.length <= pending.data.length, 'more Data-In than expected');
    const { maxBurstLength } = this.parameters;
    const lastByte = offset + data.length - 1;
    const sameBurst = Math.floor(offset / maxBurstLength) === Math.floor(lastByte / maxBurstLength);
    assert(data.length === 0 || sameBurst, 'a sequence longer than MaxBurstLength');
    const atEnd = (lastByte + 1) % maxBurstLength === 0;
    const final = (header.getUint8(1) & FLAG_FINAL) !== 0;
    assert(final || !atEnd, 'the end of a sequence without F');
    pending.data.set(data, offset);
    pending.have += data.length;
    pending.dataIns += 1;
    if (status) this.#ended(pending, header, new Uint8Array(0));
  }

  #response({ header, data }: TargetPdu): void {
    const pending = this.#commands.get(initiatorTaskTag(header, 0));
    assert(pending !== undefined, 'a response of a command that is not there');
    const length = data.length < 2 ? 0 : new DataView(data.buffer).getUint16(0);
    assert(data.length === 0 || data.length === 2 + length, 'sense data of another length');
    this.#ended(pending, header, data.subarray(2));
  }

  #ended(pending: Pending, header: DataView, sense: Uint8Array): void {
    this.#commands.delete(pending.itt);
    const flags = header.getUint8(1);
    const response = opcodeOf(header, 0) === ISCSI_OP.SCSI_RESPONSE;
    pending.done({
      status: header.getUint8(FIELD.STATUS),
      sense,
      data: pending.data.subarray(0, pending.have),
      overflow: (flags & RESPONSE_FLAG.OVERFLOW) !== 0,
      underflow: (flags & RESPONSE_FLAG.UNDERFLOW) !== 0,
      residual: header.getUint32(FIELD.RESIDUAL),
      expDataSn: response ? header.getUint32(FIELD.EXP_DATA_SN) : pending.dataIns,
      dataIns: pending.dataIns,
      r2ts: pending.r2ts,
    });
  }

  #r2t({ header }: TargetPdu): void {
    const itt = initiatorTaskTag(header, 0);
    const pending = this.#commands.get(itt);
    if (pending === undefined) return;
    const { write, silent, lun } = pending.options;
    assert(write !== undefined, 'an R2T of a command that sends nothing');
    const offset = header.getUint32(FIELD.BUFFER_OFFSET);
    const length = header.getUint32(FIELD.DESIRED_DATA_TRANSFER_LENGTH);
    assert(header.getUint32(FIELD.DATA_SN) === pending.r2ts, 'R2TSN out of order');
    assert(length > 0 && length <= this.parameters.maxBurstLength, 'an R2T of a wrong length');
    assert(offset + length <= write.length, 'an R2T of what is not there');
    pending.r2ts += 1;
    if (silent !== true) {
      this.sendData(itt, targetTransferTag(header, 0), write, offset, length, lun);
    }
  }

  #pinged({ header }: TargetPdu): void {
    const ttt = targetTransferTag(header, 0);
    if (ttt === RESERVED_TAG || this.options.mute === true) return;
    const view = newHeader();
    writeRequest(view, 0, ISCSI_OP.NOP_OUT | IMMEDIATE, FLAG_FINAL, RESERVED_TAG, ttt, 0);
    this.#sendImmediate(view);
  }

  #other(itt: number, pdu: TargetPdu): void {
    const done = this.#others.get(itt);
    assert(done !== undefined, 'an answer to nothing');
    this.#others.delete(itt);
    done(pdu);
  }

  #sendImmediate(view: DataView, data?: Uint8Array): void {
    writeRequestSequence(view, 0, this.cmdSn, this.expStatSn);
    this.send(view, data);
  }
}

function newHeader(): DataView {
  return new DataView(new ArrayBuffer(BHS_BYTES));
}
