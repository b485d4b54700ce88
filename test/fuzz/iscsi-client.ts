import { Buffer } from 'node:buffer';
import type { Prng } from '../../src/base/prng.ts';
import { FIELD, ISCSI_OP, LOGIN_STATUS, RESERVED_TAG } from '../../src/protocols/iscsi/wire.ts';
import { type Attack, noise, noiseAttack, saneAttack, wildAttack } from './iscsi-cdbs.ts';
import type { Ledger, SentCommand } from './iscsi-ledger.ts';
import { LoginScript, type LoginPlan } from './iscsi-login.ts';
import { type Damage, type Digests, type HeardPdu, PduParser, sealed } from './iscsi-pdu.ts';
import { fail } from './target.ts';

// One initiator, sane or hostile, that reacts to what it hears.

/** How it reaches its target. */
export interface Wire {
  write(bytes: Buffer): void;
  after(ms: number, callback: () => void): void;
}

export interface ClientTraits {
  /** 0: keeps to the standards, and is owed an answer to each command. */
  readonly wildness: number;
  readonly login: LoginPlan;
  /** Requests that it sends of its own accord. */
  readonly requests: number;
  /** Frames may be damaged: what follows on its connection is noise. */
  readonly breaksFrames: boolean;
}

/** What all runs of this process came to. */
export const sent = {
  pdus: 0,
  commands: 0,
  logins: 0,
  refused: 0,
  fullFeature: 0,
  good: 0,
  failed: 0,
  rejected: 0,
  tmfs: 0,
  dataIn: 0,
  dataOut: 0,
  reads: 0,
};

const NO_AHS = Buffer.alloc(0);
const NO_DATA = Buffer.alloc(0);
const MOST_R2T_BYTES = 96 * 1024;
const STATUS_GOOD = 0;
/** ABORT TASK is of one's own; the others may hit commands of others [RFC 7143 11.5.1]. */
const HITS_OTHERS = [4, 5, 6, 7];

export class FuzzClient {
  readonly traits: ClientTraits;
  readonly digests: Digests = { header: false, data: false };
  readonly #prng: Prng;
  readonly #ledger: Ledger;
  readonly #wire: Wire;
  readonly #parser: PduParser;
  readonly #login: LoginScript;
  readonly #open = new Map<number, SentCommand>();
  state: 'login' | 'full' | 'over' = 'login';
  /** Of the login, when it was refused. */
  refusedWith = 0;
  logoutAnswered = false;
  #cmdSn: number;
  #expCmdSn: number;
  #expStatSn = 0;
  #nextItt = 1;
  #left: number;
  #burstBytes = 8192;
  #broken = false;
  #silent = false;
  /** Of the last Data-Out that was asked for. */
  #lastTtt = 0;

  constructor(prng: Prng, ledger: Ledger, wire: Wire, traits: ClientTraits) {
    this.#prng = prng;
    this.#ledger = ledger;
    this.#wire = wire;
    this.traits = traits;
    this.#left = traits.requests;
    this.#cmdSn = prng.chance(0.2) ? 0xffff_fffa : prng.below(1000);
    this.#expCmdSn = this.#cmdSn;
    this.#login = new LoginScript(prng, traits.login, this.#cmdSn);
    this.#parser = new PduParser(this.digests, (pdu) => this.#heard(pdu));
  }

  /** Commands that are owed an answer. */
  get owed(): number {
    return this.#open.size;
  }

  /** The same for people. */
  get owedText(): string {
    return [...this.#open.values()]
      .map(({ itt, opcode, start, end }) => `${itt}: 0x${opcode.toString(16)} [${start}, ${end})`)
      .join('; ');
  }

  get sane(): boolean {
    return this.traits.wildness === 0;
  }

  begin(): void {
    sent.logins += 1;
    for (const bytes of this.#login.first()) this.#write(bytes);
    if (this.#login.broken) this.#ledger.unframed = true;
  }

  told(bytes: Uint8Array): void {
    this.#parser.push(bytes);
  }

  hungUp(): void {
    this.state = 'over';
  }

  /** Says nothing any more of its own accord; a sane one still answers. */
  hush(): void {
    this.#silent = true;
    this.#left = 0;
  }

  /** A sane one, at the end: one command, whatever becomes of it. */
  command(attack: Attack): SentCommand {
    return this.#command(attack, 0);
  }

  answered(command: SentCommand): boolean {
    return this.#open.get(command.itt) !== command;
  }

  logout(): void {
    const header = this.#header(ISCSI_OP.LOGOUT_REQUEST | 0x40, 0x80);
    this.#send(header, NO_AHS, NO_DATA);
  }

  #write(bytes: Buffer): void {
    if (this.#broken || this.state === 'over') return;
    sent.pdus += 1;
    this.#wire.write(bytes);
  }

  // What it hears

  #heard({ header, data }: HeardPdu): void {
    const opcode = (header[0] as number) & 0x3f;
    if (opcode === ISCSI_OP.LOGIN_RESPONSE) {
      this.#loginAnswer(header, data);
      return;
    }
    if (this.state === 'login') fail(`PDU 0x${opcode.toString(16)} in the login phase`);
    this.#expCmdSn = header.readUInt32BE(FIELD.EXP_CMD_SN);
    switch (opcode) {
      case ISCSI_OP.SCSI_RESPONSE:
        this.#response(header, header[3] as number, ((header[1] as number) & 6) === 0);
        break;
      case ISCSI_OP.SCSI_DATA_IN:
        this.#dataIn(header, data);
        break;
      case ISCSI_OP.READY_TO_TRANSFER:
        this.#r2t(header);
        break;
      case ISCSI_OP.NOP_IN:
        this.#ping(header);
        break;
      case ISCSI_OP.REJECT:
        sent.rejected += 1;
        if (this.sane && !this.#ledger.unframed) {
          fail(`a sane PDU is rejected: ${header[2]} ${data.toString('hex')}`);
        }
        break;
      case ISCSI_OP.LOGOUT_RESPONSE:
        if (header[2] === 0) this.logoutAnswered = true;
        break;
      default:
        break;
    }
  }

  #loginAnswer(header: Buffer, data: Buffer): void {
    if (this.state !== 'login') fail('a login response in the full feature phase');
    const status = header.readUInt16BE(FIELD.LOGIN_STATUS);
    if (status !== LOGIN_STATUS.SUCCESS) {
      sent.refused += 1;
      this.refusedWith = status;
      return;
    }
    const flags = header[1] as number;
    if ((flags & 0x83) !== 0x83) {
      for (const bytes of this.#login.next(header, data)) this.#write(bytes);
      return;
    }
    this.#login.judge();
    sent.fullFeature += 1;
    this.state = 'full';
    this.#login.note(data);
    this.digests.header = this.#login.agreed('HeaderDigest') === 'CRC32C';
    this.digests.data = this.#login.agreed('DataDigest') === 'CRC32C';
    this.#burstBytes = Number(this.#login.agreed('FirstBurstLength')) || 65_536;
    this.#expStatSn = header.readUInt32BE(FIELD.STAT_SN) + 1;
    this.#act();
  }

  #response(header: Buffer, status: number, complete: boolean): void {
    const itt = header.readUInt32BE(FIELD.INITIATOR_TASK_TAG);
    const command = this.#open.get(itt);
    if (command === undefined) {
      if (!this.#ledger.unframed) fail('an answer to nothing');
      return;
    }
    sent[status === STATUS_GOOD ? 'good' : 'failed'] += 1;
    // Whose answer it is, of two with one tag, is not known: there may be another.
    if (command.before !== null) return;
    this.#open.delete(itt);
    if (command.kind === 'read') {
      sent.reads += 1;
      this.#ledger.judgeRead(command);
    } else {
      this.#ledger.judgeParameters(command);
      const whole = status === STATUS_GOOD && complete && command.kind === 'write';
      if (whole) this.#ledger.judgeWritten(command);
    }
  }

  #dataIn(header: Buffer, data: Buffer): void {
    sent.dataIn += 1;
    const command = this.#open.get(header.readUInt32BE(FIELD.INITIATOR_TASK_TAG));
    if (command === undefined) {
      if (!this.#ledger.unframed) fail('data for nobody');
      return;
    }
    if (command.before === null) {
      if (header.readUInt32BE(FIELD.BUFFER_OFFSET) !== command.receivedBytes) {
        fail('Data-In out of order');
      }
      command.received.push(data);
      command.receivedBytes += data.length;
    }
    const flags = header[1] as number;
    if ((flags & 1) !== 0) this.#response(header, header[3] as number, (flags & 6) === 0);
  }

  #r2t(header: Buffer): void {
    const itt = header.readUInt32BE(FIELD.INITIATOR_TASK_TAG);
    const ttt = header.readUInt32BE(FIELD.TARGET_TRANSFER_TAG);
    const offset = header.readUInt32BE(FIELD.BUFFER_OFFSET);
    const bytes = header.readUInt32BE(44);
    const prng = this.#prng;
    this.#lastTtt = ttt;
    const { wildness } = this.traits;
    if (wildness > 0 && (this.#silent || bytes > MOST_R2T_BYTES || prng.chance(wildness * 0.2))) {
      return;
    }
    const lun = header.subarray(8, 16);
    const deliver = (): void => this.#deliver(itt, ttt, offset, bytes, lun);
    // [RFC 7143 13.19] DataSequenceInOrder: who is sane keeps to the order of what it was asked for.
    if (this.sane || prng.chance(0.5)) deliver();
    else this.#wire.after(prng.float() * 10, deliver);
  }

  #deliver(itt: number, ttt: number, offset: number, bytes: number, lun: Buffer): void {
    const prng = this.#prng;
    const { wildness } = this.traits;
    const segment = prng.pick([bytes, 512, 700, 4096, 8192]);
    let dataSn = 0;
    for (let done = 0; done < bytes;) {
      let length = Math.min(segment, bytes - done, 65_536);
      let at = offset + done;
      let tag = ttt;
      const wrong = prng.chance(wildness * 0.08) ? prng.below(7) : -1;
      if (wrong === 0) at += prng.pick([1, 512, -512, 0x7fff_0000]);
      if (wrong === 1) tag = prng.pick([RESERVED_TAG, tag + 1, 0]);
      if (wrong === 2) dataSn += 1;
      if (wrong === 3) length += prng.pick([1, 512, 4096]);
      if (wrong === 4) length = 0;
      const last = wrong === 5 || done + length >= bytes;
      this.#dataOut(itt, tag, last && wrong !== 6, dataSn, at >>> 0, length, lun);
      dataSn += 1;
      done += Math.max(length, 1);
    }
  }

  #dataOut(
    itt: number,
    ttt: number,
    last: boolean,
    dataSn: number,
    offset: number,
    bytes: number,
    lun: Buffer,
  ): void {
    const header = Buffer.alloc(48);
    header[0] = ISCSI_OP.SCSI_DATA_OUT;
    header[1] = last ? 0x80 : 0;
    lun.copy(header, FIELD.LUN);
    header.writeUInt32BE(itt, FIELD.INITIATOR_TASK_TAG);
    header.writeUInt32BE(ttt >>> 0, FIELD.TARGET_TRANSFER_TAG);
    header.writeUInt32BE(dataSn, FIELD.DATA_SN);
    header.writeUInt32BE(offset, FIELD.BUFFER_OFFSET);
    this.#mutate(header, 0.05);
    const final = header.readUInt32BE(FIELD.INITIATOR_TASK_TAG);
    const at = header.readUInt32BE(FIELD.BUFFER_OFFSET);
    sent.dataOut += 1;
    const data = this.#ledger.dataOf(this.#open.get(final) ?? null, at, bytes);
    this.#send(header, NO_AHS, data);
  }

  #ping(header: Buffer): void {
    const ttt = header.readUInt32BE(FIELD.TARGET_TRANSFER_TAG);
    if (ttt === RESERVED_TAG || !this.sane) return;
    const answer = this.#header(ISCSI_OP.NOP_OUT | 0x40, 0x80);
    answer.writeUInt32BE(RESERVED_TAG, FIELD.INITIATOR_TASK_TAG);
    answer.writeUInt32BE(ttt, FIELD.TARGET_TRANSFER_TAG);
    header.copy(answer, FIELD.LUN, FIELD.LUN, FIELD.LUN + 8);
    this.#send(answer, NO_AHS, NO_DATA);
  }

  // What it does of its own accord

  #act(): void {
    if (this.state !== 'full' || this.#left <= 0) return;
    const prng = this.#prng;
    const burst = this.sane ? 1 + prng.below(4) : 1 + prng.below(12);
    // What was rejected has left a gap, which an initiator closes by beginning there again.
    if (!this.sane && prng.chance(0.7)) this.#cmdSn = this.#expCmdSn;
    for (let i = 0; i < burst && this.#left > 0; i += 1) {
      this.#left -= 1;
      this.#request();
    }
    this.#wire.after(prng.float() * 15, () => this.#act());
  }

  #request(): void {
    const prng = this.#prng;
    const { wildness, breaksFrames } = this.traits;
    if (!prng.chance(wildness)) {
      this.#command(saneAttack(prng, this.#ledger), 0);
      return;
    }
    if (breaksFrames && prng.chance(0.05)) {
      this.#breakFrames();
      return;
    }
    switch (prng.below(14)) {
      case 0:
        this.#taskManagement();
        break;
      case 1:
        this.#nopOut();
        break;
      case 2:
        this.#text();
        break;
      case 3:
        this.#strayData();
        break;
      case 4:
        this.#anyPdu();
        break;
      case 5:
        this.#command(noiseAttack(prng), wildness);
        break;
      case 6:
        this.#command(saneAttack(prng, this.#ledger), wildness);
        break;
      case 7:
        this.#command(saneAttack(prng, this.#ledger), 0);
        break;
      default:
        this.#command(wildAttack(prng, this.#ledger), wildness);
    }
  }

  #command(attack: Attack, wildness: number): SentCommand {
    const prng = this.#prng;
    const ledger = this.#ledger;
    const { cdb, direction, params, bytes } = attack;
    const wild = prng.chance(wildness);
    const immediate = wild && prng.chance(0.1);
    const header = this.#header(ISCSI_OP.SCSI_COMMAND | (immediate ? 0x40 : 0), 0x80);
    if (direction === 'in') header[1] = 0xc0;
    if (direction === 'out') header[1] = 0xa0;
    if (wild && prng.chance(0.05)) header[1] = (header[1] as number) | 0x60;
    const attribute = wildness === 0 ? 1 : prng.pick([1, 1, 1, 1, 0, 2, 3, 4]);
    header[1] = (header[1] as number) | attribute;
    if (wild && prng.chance(0.05)) header[9] = prng.below(4);
    header.writeUInt32BE(bytes, 20);
    cdb.copy(header, FIELD.CDB);
    const unasked = direction === 'out' && prng.chance(0.6);
    let length = unasked ? Math.min(bytes, this.#burstBytes, 8192) : 0;
    if (length > 0 && prng.chance(0.3)) length = prng.below(length) & ~3;
    if (this.#login.agreed('ImmediateData') === 'No' && !wild) length = 0;
    if (wild && prng.chance(0.05)) length = prng.pick([1, 700, 8192, 65_536]);
    if (wild) this.#mutate(header, 0.1);
    const ahs = wild && prng.chance(0.08) ? this.#ahs() : NO_AHS;
    if (ahs.length > 0 && prng.chance(0.5)) header[1] |= 0x60;
    const itt = header.readUInt32BE(FIELD.INITIATOR_TASK_TAG);
    const isCommand = ((header[0] as number) & 0x3f) === ISCSI_OP.SCSI_COMMAND;
    const before = this.#open.get(itt) ?? null;
    const command = ledger.register(itt, header.subarray(32, 48), params, before);
    if (isCommand && itt !== RESERVED_TAG) this.#open.set(itt, command);
    sent.commands += 1;
    const data = ledger.dataOf(command, 0, length);
    if (wild && prng.chance(0.05)) header[1] &= 0x7f;
    this.#send(header, ahs, data, wild);
    if (wild && length > 0 && prng.chance(0.1)) this.#unsolicited(command, length, bytes);
    return command;
  }

  #unsolicited(command: SentCommand, offset: number, bytes: number): void {
    const length = Math.min(Math.max(bytes - offset, 0), 4096);
    const lun = Buffer.alloc(8);
    this.#dataOut(command.itt, RESERVED_TAG, this.#prng.chance(0.8), 0, offset, length, lun);
  }

  #ahs(): Buffer {
    const prng = this.#prng;
    const parts: Buffer[] = [];
    const count = 1 + prng.below(3);
    for (let i = 0; i < count; i += 1) {
      const bytes = prng.pick([1, 5, 17, 33, 2]);
      const segment = noise(prng, (3 + bytes + 3) & ~3);
      segment.writeUInt16BE(prng.chance(0.1) ? prng.pick([0, 0xffff, 100]) : bytes, 0);
      segment[2] = prng.pick([1, 2, 2, 0, 255]);
      parts.push(segment);
    }
    if (prng.chance(0.1)) parts.unshift(longSegment(prng));
    return Buffer.concat(parts).subarray(0, 255 * 4);
  }

  #taskManagement(): void {
    const prng = this.#prng;
    sent.tmfs += 1;
    const immediate = prng.chance(0.7) ? 0x40 : 0;
    // Resets end everybody's commands, and cold ones sessions: not all the time.
    const tmf = prng.chance(0.1) ? prng.below(20) : prng.pick([1, 1, 2, 3, 8, 9, 10, 12]);
    const header = this.#header(
      ISCSI_OP.SCSI_TASK_MANAGEMENT_FUNCTION_REQUEST | immediate,
      0x80 | tmf,
    );
    const tags = [...this.#open.keys()];
    const tag = tags.length > 0 && prng.chance(0.8) ? prng.pick(tags) : prng.below(100);
    header.writeUInt32BE(tag, FIELD.REFERENCED_TASK_TAG);
    header.writeUInt32BE((this.#cmdSn - prng.below(4) + 1) >>> 0, FIELD.REF_CMD_SN);
    this.#mutate(header, 0.05);
    const wanted = (header[1] as number) & 0x7f;
    if (HITS_OTHERS.includes(wanted)) this.#ledger.excused = true;
    this.#send(header, NO_AHS, NO_DATA);
  }

  #nopOut(): void {
    const prng = this.#prng;
    const header = this.#header(ISCSI_OP.NOP_OUT | (prng.chance(0.5) ? 0x40 : 0), 0x80);
    header.writeUInt32BE(prng.chance(0.7) ? RESERVED_TAG : prng.uint32(), 20);
    if (prng.chance(0.2)) header.writeUInt32BE(RESERVED_TAG, FIELD.INITIATOR_TASK_TAG);
    this.#send(header, NO_AHS, noise(prng, prng.chance(0.1) ? 5000 : prng.below(80)), true);
  }

  #text(): void {
    const prng = this.#prng;
    const header = this.#header(ISCSI_OP.TEXT_REQUEST, prng.pick([0x80, 0x80, 0x40, 0, 0xc0]));
    header.writeUInt32BE(prng.chance(0.8) ? RESERVED_TAG : prng.below(8), 20);
    const texts = [
      'SendTargets=All\0',
      'SendTargets=\0',
      'SendTargets=All\0'.repeat(60),
      `MaxRecvDataSegmentLength=${prng.pick([512, 513, 1000, 8192, 262_144, 0])}\0`,
      'HeaderDigest=CRC32C\0',
      'X#a=b\0',
      'no key',
    ];
    const data = prng.chance(0.2) ? noise(prng, prng.below(300)) : Buffer.from(prng.pick(texts));
    this.#send(header, NO_AHS, data, true);
  }

  #strayData(): void {
    const prng = this.#prng;
    const tags = [...this.#open.keys()];
    const itt = tags.length > 0 && prng.chance(0.8) ? prng.pick(tags) : prng.below(100);
    const ttt = prng.pick([RESERVED_TAG, this.#lastTtt, prng.below(20)]);
    const offset = prng.pick([0, 0, 512, 4096, 0xffff_fe00]);
    const bytes = prng.pick([0, 1, 511, 512, 4096, 16_384]);
    this.#dataOut(itt, ttt, prng.chance(0.7), prng.below(3), offset, bytes, Buffer.alloc(8));
  }

  /** Any operation code; what looks like a command is one in the books. */
  #anyPdu(): void {
    const prng = this.#prng;
    const header = noise(prng, 48);
    const opcode = prng.chance(0.5) ? prng.pick(Object.values(ISCSI_OP)) : prng.below(64);
    header[0] = opcode | (prng.chance(0.5) ? 0x40 : 0);
    if (opcode === ISCSI_OP.LOGOUT_REQUEST && prng.chance(0.7)) header[1] = 0x82;
    if (opcode === ISCSI_OP.SCSI_TASK_MANAGEMENT_FUNCTION_REQUEST) this.#ledger.excused = true;
    if (prng.chance(0.7)) header.writeUInt32BE(this.#cmdSn, FIELD.CMD_SN);
    if (opcode === ISCSI_OP.SCSI_COMMAND) {
      const itt = header.readUInt32BE(FIELD.INITIATOR_TASK_TAG);
      const before = this.#open.get(itt) ?? null;
      this.#open.set(itt, this.#ledger.register(itt, header.subarray(32, 48), null, before));
    }
    this.#send(header, NO_AHS, noise(prng, prng.pick([0, 0, 3, 600])), true);
  }

  /** From here on lengths lie, and nothing on this connection can be told apart any more. */
  #breakFrames(): void {
    const prng = this.#prng;
    this.#ledger.unframed = true;
    this.#ledger.excused = true;
    const header = this.#header(prng.below(64), 0x80);
    const bytes = Buffer.concat([header, noise(prng, prng.below(2000))]);
    bytes[4] = prng.pick([0, 1, 255]);
    bytes.writeUIntBE(prng.pick([0, 1, 3, 100, 262_144, 262_145, 0xffffff]), 5, 3);
    this.#write(bytes);
    this.#broken = true;
  }

  /** A request's header with its numbers. */
  #header(opcode: number, flags: number): Buffer {
    const prng = this.#prng;
    const header = Buffer.alloc(48);
    header[0] = opcode;
    header[1] = flags;
    let itt = this.#nextItt;
    if (!this.sane && prng.chance(0.03)) itt = prng.below(this.#nextItt + 2);
    else this.#nextItt += 1;
    header.writeUInt32BE(itt, FIELD.INITIATOR_TASK_TAG);
    header.writeUInt32BE(this.#cmdSn, FIELD.CMD_SN);
    header.writeUInt32BE(this.#expStatSn >>> 0, FIELD.EXP_STAT_SN);
    if ((opcode & 0x40) === 0) this.#cmdSn = (this.#cmdSn + 1) >>> 0;
    if (this.sane || !prng.chance(0.02)) return header;
    header.writeUInt32BE((this.#cmdSn + prng.pick([1, 5, -3, 200, 2 ** 31])) >>> 0, FIELD.CMD_SN);
    return header;
  }

  /** Random bytes in random fields; lengths stay. */
  #mutate(header: Buffer, chance: number): void {
    const prng = this.#prng;
    if (this.sane || !prng.chance(chance)) return;
    const count = 1 + prng.below(3);
    for (let i = 0; i < count; i += 1) {
      const at = prng.below(48);
      // The operation code decides in whose books it is.
      if (at === 0 || (at >= 4 && at < 8)) continue;
      header[at] = prng.below(256);
    }
    if (HITS_OTHERS.includes((header[1] as number) & 0x7f)) this.#ledger.excused = true;
  }

  #send(header: Buffer, ahs: Buffer, data: Buffer, wild = false): void {
    const prng = this.#prng;
    const damage: Damage =
      wild && prng.chance(0.02)
        ? { headerDigest: prng.chance(0.2), dataDigest: prng.chance(0.8) }
        : {};
    this.#write(sealed(header, ahs, data, this.digests, damage));
  }
}

/** Fills a header to its utmost, with what follows it. */
function longSegment(prng: Prng): Buffer {
  const segment = noise(prng, 4 * prng.pick([251, 253, 254]));
  segment.writeUInt16BE(segment.length - 3, 0);
  segment[2] = 1;
  return segment;
}
