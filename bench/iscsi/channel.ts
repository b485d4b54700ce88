import {
  IscsiInitiator,
  type CommandResult,
} from '../../src/protocols/iscsi/initiator/initiator.ts';
import {
  ahsBytes,
  ATTRIBUTE,
  BHS_BYTES,
  COMMAND_FLAG,
  DATA_IN_FLAG,
  dataSegmentLength,
  FIELD,
  FLAG_FINAL,
  initiatorTaskTag,
  ISCSI_OP,
  opcodeOf,
  padded,
  writeScsiCommand,
} from '../../src/protocols/iscsi/wire.ts';
import { closeFd, connectTcp, Memory, receive, sendAll } from '../load/kernel.ts';

export const READ_10 = 0x28;
export const WRITE_10 = 0x2a;
export const SYNCHRONIZE_CACHE_10 = 0x35;
const READ_CAPACITY_10 = 0x25;
const MODE_SENSE_6 = 0x1a;
const CACHING_PAGE = 0x08;

const RECEIVE_BYTES = 256 * 1024;
/** What is asked for, as open-iscsi and libiscsi do; MaxRecvDataSegmentLength is ours, the rest is agreed on. */
const KEYS = {
  HeaderDigest: 'None',
  DataDigest: 'None',
  InitialR2T: 'No',
  ImmediateData: 'Yes',
  MaxRecvDataSegmentLength: '262144',
  MaxBurstLength: '262144',
  FirstBurstLength: '262144',
  MaxConnections: '1',
  MaxOutstandingR2T: '1',
} as const;
const GOOD = 0;
const CHECK_CONDITION = 2;
/** More than a unit has to say to a new initiator. */
const ATTENTIONS = 10;

/**
 * One iSCSI session, logged in by our initiator and then driven by hand: commands are laid out by the caller in `out`
 * and sent together; responses are parsed out of large receives, and their data is skipped where it lies. The initiator
 * task tag is the caller's slot number. Data goes with the command, so there is never an R2T.
 */
export class IscsiChannel {
  readonly fd: number;
  readonly out: Memory;
  readonly blockBytes: number;
  readonly diskBytes: number;
  readonly #in = new Memory(RECEIVE_BYTES);
  readonly #lun: number;
  #cmdSn: number;
  #expStatSn: number;
  #start = 0;
  #end = 0;
  /** Bytes of a data segment that are still to come. */
  #skip = 0;
  #doneAfterSkip = -1;

  constructor(port: number, target: string, lun: number, session: number, outBytes: number) {
    this.fd = connectTcp(port);
    this.out = new Memory(Math.max(outBytes, 4096));
    this.#lun = lun;
    const initiator = new IscsiInitiator(
      { send: (bytes) => this.#sendBytes(bytes) },
      {
        targetName: target,
        initiatorName: `iqn.2026-11.org.example:load-${session}`,
        isid: new Uint8Array([0x00, 0x02, 0x3d, 0, 0, session]),
        keys: KEYS,
      },
    );
    this.#logIn(initiator);
    const { blockBytes, blocks } = this.#capacity(initiator);
    this.blockBytes = blockBytes;
    this.diskBytes = blockBytes * blocks;
    this.#readCachingPage(initiator);
    this.#cmdSn = initiator.cmdSn;
    this.#expStatSn = initiator.expStatSn;
  }

  close(): void {
    closeFd(this.fd);
  }

  /** Puts a command at byte `at` of `out`, and says how many bytes it has with its data, which is left as it is. */
  layOut(at: number, slot: number, opcode: number, bytes: number): number {
    const writes = opcode === WRITE_10;
    const cdb = new Uint8Array(16);
    cdb[0] = opcode;
    new DataView(cdb.buffer).setUint16(7, bytes / this.blockBytes);
    const direction = bytes === 0 ? 0 : writes ? COMMAND_FLAG.WRITE : COMMAND_FLAG.READ;
    const flags = FLAG_FINAL | direction | ATTRIBUTE.SIMPLE;
    const data = writes ? bytes : 0;
    writeScsiCommand(this.out.view, at, slot, flags, this.#lun, bytes, cdb, data);
    return BHS_BYTES + padded(data);
  }

  /** The next number, and another place on the disk: the hot path. */
  renew(at: number, slot: number, offset: number): void {
    const { view } = this.out;
    view.setUint32(at + FIELD.INITIATOR_TASK_TAG, slot);
    view.setUint32(at + FIELD.CMD_SN, this.#cmdSn);
    view.setUint32(at + FIELD.EXP_STAT_SN, this.#expStatSn);
    view.setUint32(at + FIELD.CDB + 2, offset / this.blockBytes);
    this.#cmdSn = (this.#cmdSn + 1) >>> 0;
  }

  send(from: number, bytes: number): void {
    sendAll(this.fd, this.out.address + from, bytes);
  }

  /** Waits for bytes. Call when `next` returned -1. */
  receive(): void {
    const input = this.#in;
    if (this.#start > 0) {
      input.bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    this.#end += receive(this.fd, input.address + this.#end, input.bytes.length - this.#end);
  }

  /** The slot of the next finished command, or -1 when more bytes are needed first. */
  next(): number {
    const { view } = this.#in;
    for (;;) {
      if (this.#skip > 0) {
        const take = Math.min(this.#skip, this.#end - this.#start);
        this.#start += take;
        this.#skip -= take;
        if (this.#skip > 0) return -1;
      }
      if (this.#doneAfterSkip >= 0) {
        const slot = this.#doneAfterSkip;
        this.#doneAfterSkip = -1;
        return slot;
      }
      if (this.#end - this.#start < BHS_BYTES) return -1;
      this.#header(view, this.#start);
    }
  }

  #header(view: DataView, at: number): void {
    const opcode = opcodeOf(view, at);
    this.#start += BHS_BYTES + ahsBytes(view, at);
    this.#skip = padded(dataSegmentLength(view, at));
    const response = opcode === ISCSI_OP.SCSI_RESPONSE;
    const dataIn = opcode === ISCSI_OP.SCSI_DATA_IN;
    if (!response && !dataIn) throw new Error(`opcode ${opcode} was not expected`);
    if (dataIn && (view.getUint8(at + 1) & DATA_IN_FLAG.STATUS) === 0) return;
    const status = view.getUint8(at + FIELD.STATUS);
    if (status !== GOOD) throw new Error(`a command ended with status ${status}`);
    this.#expStatSn = (view.getUint32(at + FIELD.STAT_SN) + 1) >>> 0;
    this.#doneAfterSkip = initiatorTaskTag(view, at);
  }

  #logIn(initiator: IscsiInitiator): void {
    const told = this.#await<number>(initiator, (done) => initiator.login(done));
    if (told !== 0) throw new Error(`the login failed with status 0x${told.toString(16)}`);
    const { immediateData, firstBurstLength, sendSegmentBytes } = initiator.parameters;
    if (!immediateData || Math.min(firstBurstLength, sendSegmentBytes) < 4096) {
      throw new Error('the target takes no 4 KiB with a command');
    }
  }

  #capacity(initiator: IscsiInitiator): { blockBytes: number; blocks: number } {
    const data = this.#ask(initiator, [READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
    const view = new DataView(data.buffer, data.byteOffset);
    return { blocks: view.getUint32(0) + 1, blockBytes: view.getUint32(4) };
  }

  /** As initiators do before they use a disk; one that has not may take the write cache for off. */
  #readCachingPage(initiator: IscsiInitiator): void {
    this.#ask(initiator, [MODE_SENSE_6, 0, CACHING_PAGE, 0, 255, 0], 255);
  }

  #ask(initiator: IscsiInitiator, cdb: readonly number[], bytes: number): Uint8Array {
    // The first commands hear of resets and changes.
    for (let i = 0; i < ATTENTIONS; i += 1) {
      const { status, data } = this.#await<CommandResult>(initiator, (done) => {
        initiator.command({ cdb: Uint8Array.from(cdb), read: bytes, lun: this.#lun }, done);
      });
      if (status === CHECK_CONDITION) continue;
      if (status !== GOOD) break;
      return data;
    }
    throw new Error(`LUN ${this.#lun} does not answer command 0x${cdb[0]?.toString(16)}`);
  }

  /** Begins something, and waits for its answer. */
  #await<T>(initiator: IscsiInitiator, begin: (done: (answer: T) => void) => void): T {
    const answers: T[] = [];
    begin((answer) => answers.push(answer));
    for (;;) {
      const [answer] = answers;
      if (answer !== undefined) return answer;
      const length = receive(this.fd, this.#in.address, this.#in.bytes.length);
      initiator.receive(this.#in.bytes.slice(0, length));
    }
  }

  #sendBytes(bytes: Uint8Array): void {
    this.out.bytes.set(bytes);
    this.send(0, bytes.length);
  }
}
