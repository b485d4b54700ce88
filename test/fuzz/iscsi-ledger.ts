import { Buffer } from 'node:buffer';
import { unreachable } from '../../src/base/assert.ts';
import { fail } from './target.ts';

// What hostile initiators have sent, and so what may be on the disk: every word of their data says which command it is of
// and where in the command's data it stands.

/** The upper byte of every word; then 12 bits of command and 12 of place. */
const MAGIC = 0x6b;
const MAX_COMMANDS = 0xfff;
/** Of the disk's first content. */
const NOBODY = 0;

/** Operation codes of commands that put their Data-Out on the medium as it is, with the length of their CDB. */
const WRITES: Readonly<Record<number, CdbForm>> = {
  0x0a: 6,
  0x2a: 10,
  0xaa: 12,
  0x8a: 16,
  0x2e: 10,
  0xae: 12,
  0x8e: 16,
  0x9c: 'atomic',
};
const READS: Readonly<Record<number, CdbForm>> = { 0x08: 6, 0x28: 10, 0xa8: 12, 0x88: 16 };
const OP = {
  UNMAP: 0x42,
  WRITE_SAME_10: 0x41,
  WRITE_SAME_16: 0x93,
  SANITIZE: 0x48,
  PERSISTENT_RESERVE_OUT: 0x5f,
  EXTENDED_COPY: 0x83,
  COMPARE_AND_WRITE: 0x89,
  ORWRITE: 0x8b,
} as const;
type CdbForm = 6 | 10 | 12 | 16 | 'atomic' | 'caw';

/** A SCSI command as it went out. */
export interface SentCommand {
  readonly id: number;
  readonly itt: number;
  readonly opcode: number;
  readonly sentAt: number;
  /** Bytes of the medium, as far as the CDB says so. */
  readonly start: number;
  readonly end: number;
  readonly kind: 'write' | 'same' | 'compare' | 'read' | 'other';
  /** Its Data-Out; null: the words of `id`. */
  readonly params: Buffer | null;
  /** An earlier one with its tag: the target may take this one's data for that. */
  readonly before: SentCommand | null;
  /** What has come of its Data-In. */
  received: Buffer[];
  receivedBytes: number;
}

/** Registers commands; judges what is written to the disk and what is read from it. */
export class Ledger {
  readonly blockBytes: 512 | 4096;
  readonly shadow: Buffer;
  /** Off: nothing is known of the disk (a server elsewhere). */
  readonly judges: boolean;
  /** Frames were damaged: what was data may have been understood as commands. */
  unframed = false;
  /** Commands were ended without an answer, on purpose. */
  excused = false;
  readonly #commands: (SentCommand | null)[] = [null];
  readonly #zeroable: Uint8Array;
  readonly #mixed: Uint8Array;
  readonly #anything: Uint8Array;
  readonly #writtenAt: Float64Array;
  #copied = false;
  #sanitized = false;
  /** Counts all that happens. */
  now = 1;

  constructor(sizeBytes: number, blockBytes: 512 | 4096, filledBytes: number, judges = true) {
    this.blockBytes = blockBytes;
    this.judges = judges;
    this.shadow = Buffer.alloc(judges ? sizeBytes : 0);
    if (judges) fillWords(this.shadow.subarray(0, filledBytes), NOBODY, 0);
    const blocks = sizeBytes / blockBytes;
    this.#zeroable = new Uint8Array(blocks).fill(1, filledBytes / blockBytes);
    this.#mixed = new Uint8Array(blocks);
    this.#anything = new Uint8Array(blocks);
    this.#writtenAt = new Float64Array(blocks);
  }

  get sizeBytes(): number {
    return this.#zeroable.length * this.blockBytes;
  }

  /** A command goes out: `cdb` as it is on the wire. */
  register(
    itt: number,
    cdb: Buffer,
    params: Buffer | null,
    before: SentCommand | null,
  ): SentCommand {
    this.now += 1;
    const opcode = cdb[0] as number;
    const [start, end] = this.#rangeOf(cdb);
    const kind = kindOf(opcode);
    const id = Math.min(this.#commands.length, MAX_COMMANDS);
    const sentAt = this.now;
    const command: SentCommand = {
      id,
      itt,
      opcode,
      sentAt,
      start,
      end,
      kind,
      params,
      before,
      received: [],
      receivedBytes: 0,
    };
    this.#commands[id] = command;
    // PREEMPT AND ABORT [SPC-4 5.13.11.5] ends commands of others.
    if (opcode === OP.PERSISTENT_RESERVE_OUT && ((cdb[1] as number) & 0x1f) === 5) {
      this.excused = true;
    }
    for (let each: SentCommand | null = command; each !== null; each = each.before) {
      this.#foresee(each, params ?? each.params);
    }
    return command;
  }

  /** Data-Out of a command, from `offset` on. */
  dataOf(command: SentCommand | null, offset: number, bytes: number): Buffer {
    const data = Buffer.alloc(bytes);
    const params = command?.params ?? null;
    if (params === null) fillWords(data, command?.id ?? NOBODY, offset);
    else params.copy(data, 0, Math.min(offset, params.length));
    return data;
  }

  /** The device writes: only what a command may have written there. */
  wrote(offset: number, bytes: Buffer): void {
    this.now += 1;
    if (!this.judges) return;
    for (let at = 0; at < bytes.length; at += 4) {
      const word = bytes.readUInt32BE(at);
      if (!this.#mayStand(word, offset + at)) {
        fail(`the disk gets ${word.toString(16)} at ${offset + at}, which nobody wrote there`);
      }
    }
    bytes.copy(this.shadow, offset);
    this.#touched(offset, bytes.length);
  }

  zeroed(offset: number, length: number): void {
    this.now += 1;
    const { blockBytes } = this;
    for (let at = offset; at < offset + length && this.judges; at += blockBytes) {
      if (!this.#mayBeZero(at)) fail(`block ${at / blockBytes} is zeroed, and nobody wanted that`);
    }
    this.shadow.fill(0, offset, offset + length);
    this.#touched(offset, length);
  }

  /** All data of a READ has come. */
  judgeRead({ sentAt, start, received }: SentCommand): void {
    const data = received.length === 1 ? (received[0] as Buffer) : Buffer.concat(received);
    if (!this.judges || this.shadow.subarray(start, start + data.length).equals(data)) return;
    const { blockBytes } = this;
    for (let at = 0; at < data.length; at += blockBytes) {
      const part = data.subarray(at, at + blockBytes);
      const there = start + at;
      if (there + part.length > this.sizeBytes) fail('data from behind the end of the disk');
      if (part.equals(this.shadow.subarray(there, there + part.length))) continue;
      if ((this.#writtenAt[there / blockBytes] as number) < sentAt) {
        fail(`block ${there / blockBytes} is read, and is not what the disk holds`);
      }
      for (let i = 0; i + 4 <= part.length; i += 4) {
        const word = part.readUInt32BE(i);
        if (!this.#mayStand(word, there + i)) {
          fail(`foreign memory in a READ: ${word.toString(16)} at ${there + i}`);
        }
      }
    }
  }

  /** GOOD was said to a WRITE that is all there. */
  judgeWritten({ sentAt, start, end }: SentCommand): void {
    if (!this.judges) return;
    for (let at = start; at < end; at += this.blockBytes) {
      if ((this.#writtenAt[at / this.blockBytes] as number) < sentAt) {
        fail(`block ${at / this.blockBytes} was acknowledged, and is not on the disk`);
      }
    }
  }

  /** Parameter data holds nobody's blocks. */
  judgeParameters({ opcode, received }: SentCommand): void {
    for (const data of received) {
      for (let i = 0; i + 8 <= data.length; i += 4) {
        if (data[i] === MAGIC && data[i + 4] === MAGIC && data[i + 1] === data[i + 5]) {
          fail(`foreign memory in the answer to 0x${opcode.toString(16)}`);
        }
      }
    }
  }

  #touched(offset: number, length: number): void {
    const { blockBytes } = this;
    const [first, last] = [offset / blockBytes, Math.ceil((offset + length) / blockBytes)];
    this.#writtenAt.fill(this.now, first, last);
  }

  #mayBeZero(at: number): boolean {
    if (this.#copied || this.#sanitized || this.unframed) return true;
    return this.#zeroable[Math.floor(at / this.blockBytes)] === 1;
  }

  #mayStand(word: number, at: number): boolean {
    if (this.#sanitized || this.unframed) return true;
    if (this.#anything[Math.floor(at / this.blockBytes)] === 1) return true;
    if (word === 0) return this.#mayBeZero(at);
    if (word >>> 24 !== MAGIC) return false;
    if (this.#copied || this.#mixed[Math.floor(at / this.blockBytes)] === 1) return true;
    const id = (word >>> 12) & 0xfff;
    const place = word & 0xfff;
    if (id === NOBODY) return place === ((at >>> 2) & 0xfff);
    if (id === MAX_COMMANDS) return true;
    for (let each = this.#commands[id] ?? null; each !== null; each = each.before) {
      if (at >= each.start && at < each.end && this.#standsIn(each, place, at)) return true;
    }
    return false;
  }

  #standsIn({ kind, start, end }: SentCommand, place: number, at: number): boolean {
    const word = (at - start) >>> 2;
    switch (kind) {
      case 'write':
        return place === (word & 0xfff);
      case 'same':
        return place === word % (this.blockBytes >>> 2);
      case 'compare':
        return place === ((word + ((end - start) >>> 2)) & 0xfff);
      case 'read':
      case 'other':
        return false;
      default:
        return unreachable(kind);
    }
  }

  #foresee({ opcode, kind, start, end }: SentCommand, params: Buffer | null): void {
    const { blockBytes } = this;
    const [first, last] = [start / blockBytes, end / blockBytes];
    // A parameter list that is written as data: its bytes stand for nothing.
    if (params !== null && (kind === 'write' || kind === 'same')) {
      this.#anything.fill(1, first, last);
    }
    if (opcode === OP.SANITIZE) this.#sanitized = true;
    if (opcode === OP.EXTENDED_COPY) this.#copied = true;
    if (opcode === OP.ORWRITE) this.#mixed.fill(1, first, last);
    if (opcode === OP.WRITE_SAME_10 || opcode === OP.WRITE_SAME_16) {
      this.#zeroable.fill(1, first, last);
    }
    if (opcode !== OP.UNMAP || params === null) return;
    // [SBC-4 5.32] Descriptors of 16 bytes behind 8 bytes.
    for (let at = 8; at + 16 <= params.length; at += 16) {
      const lba = Number(params.readBigUInt64BE(at));
      this.#zeroable.fill(1, lba, lba + params.readUInt32BE(at + 8));
    }
  }

  #rangeOf(cdb: Buffer): [number, number] {
    const opcode = cdb[0] as number;
    const { blockBytes, sizeBytes } = this;
    const [lba, blocks] = lbaAndCount(cdb, formOf(opcode));
    const start = Math.min(lba * blockBytes, sizeBytes);
    const toEnd = blocks === 0 && kindOf(opcode) === 'same';
    return [start, toEnd ? sizeBytes : Math.min(start + blocks * blockBytes, sizeBytes)];
  }
}

function kindOf(opcode: number): SentCommand['kind'] {
  if (opcode in WRITES) return 'write';
  if (opcode in READS) return 'read';
  if (opcode === OP.WRITE_SAME_10 || opcode === OP.WRITE_SAME_16) return 'same';
  return opcode === OP.COMPARE_AND_WRITE ? 'compare' : 'other';
}

function formOf(opcode: number): CdbForm | null {
  if (opcode === OP.COMPARE_AND_WRITE) return 'caw';
  if (opcode === OP.WRITE_SAME_10) return 10;
  if (opcode === OP.WRITE_SAME_16 || opcode === OP.ORWRITE) return 16;
  return WRITES[opcode] ?? READS[opcode] ?? null;
}

function lbaAndCount(cdb: Buffer, form: CdbForm | null): [number, number] {
  switch (form) {
    case null:
      return [0, 0];
    case 6:
      // [SBC-4 5.10] 0 blocks: 256.
      return [cdb.readUInt32BE(0) & 0x1fffff, cdb[4] === 0 ? 256 : (cdb[4] as number)];
    case 10:
      return [cdb.readUInt32BE(2), cdb.readUInt16BE(7)];
    case 12:
      return [cdb.readUInt32BE(2), cdb.readUInt32BE(6)];
    case 16:
      return [Number(cdb.readBigUInt64BE(2)), cdb.readUInt32BE(10)];
    case 'atomic':
      return [Number(cdb.readBigUInt64BE(2)), cdb.readUInt16BE(12)];
    case 'caw':
      return [Number(cdb.readBigUInt64BE(2)), cdb[13] as number];
    default:
      return unreachable(form);
  }
}

/** Words of a command's data; `offset` may be any. */
export function fillWords(data: Buffer, id: number, offset: number): void {
  const head = MAGIC * 0x1000000 + id * 0x1000;
  const skew = offset & 3;
  if (skew === 0 && (data.length & 3) === 0) {
    for (let at = 0; at < data.length; at += 4) {
      data.writeUInt32BE(head + (((offset + at) >>> 2) & 0xfff), at);
    }
    return;
  }
  const whole = Buffer.alloc((skew + data.length + 3) & ~3);
  fillWords(whole, id, offset - skew);
  whole.copy(data, 0, skew);
}
