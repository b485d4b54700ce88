import { Buffer } from 'node:buffer';
import type { Prng } from '../../src/base/prng.ts';
import {
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  NBD_BASE_ALLOCATION,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_FLAG,
  NBD_HEADER,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  type StatusChunk,
  writeRequest,
} from '../../src/protocols/nbd/wire.ts';
import { fillSector, readSector, SECTOR_BYTES } from './media.ts';
import { type Oracle } from './oracle.ts';
import { type Kind, Op, type OracleSession } from './ops.ts';
import { ReplyParser, type ReplyReader } from './replies.ts';
import type { SimStream, StreamPeer } from './stream.ts';

/** What a client does, and how much of it. */
export interface ClientTraits {
  readonly depth: number;
  readonly thinkMs: number;
  /** Most requests go to so many sectors at the start, so that they meet. */
  readonly hotSectors: number;
  readonly maxSectors: number;
  /** Of requests: longer than what the server takes in one piece. */
  readonly huge: number;
  readonly flushShare: number;
  readonly fuaShare: number;
  readonly readShare: number;
  /** Of answers: the client goes away instead of going on. */
  readonly cuts: number;
  readonly stalls: number;
  readonly form: 'simple' | 'structured' | 'extended';
  readonly exportName: string;
}

export interface ConnectionHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  nextOp(): number;
  later(ms: number, callback: () => void): void;
  /** Whether this client is to ask on. */
  wantsMore(): boolean;
  /** The connection is of no more use. */
  over(connection: ClientConnection): void;
}

interface Message {
  readonly end: number;
  readonly react: () => void;
}

const COMMAND: Readonly<Record<Kind, number>> = {
  read: NBD_CMD.READ,
  write: NBD_CMD.WRITE,
  zeroes: NBD_CMD.WRITE_ZEROES,
  trim: NBD_CMD.TRIM,
  flush: NBD_CMD.FLUSH,
  cache: NBD_CMD.CACHE,
  status: NBD_CMD.BLOCK_STATUS,
};

/** One connection of a simulated client, from the greeting on. It tells the oracle what it asks and what it is told. */
export class ClientConnection implements StreamPeer, ReplyReader {
  readonly session: OracleSession;
  readonly cookieHigh: number;
  readonly outstanding = new Map<number, Op>();
  stream!: SimStream;
  /** Reached the transmission phase. */
  served = false;
  over = false;
  readonly #host: ConnectionHost;
  readonly #traits: ClientTraits;
  readonly #parser: ReplyParser;
  readonly #messages: Message[] = [];
  /** What the server has yet to take, with what follows from it. */
  readonly #arrivals: Message[] = [];
  readonly #reading = new Map<number, { contents: number[]; missing: number }>();
  readonly #options: { readonly bytes: Uint8Array; readonly option: number }[] = [];
  #heard = 0;
  #taken = 0;
  #sent = 0;
  #pausing = false;
  #leaving = false;

  constructor(host: ConnectionHost, traits: ClientTraits, session: OracleSession) {
    this.#host = host;
    this.#traits = traits;
    this.session = session;
    this.cookieHigh = session.id;
    const complain = (text: string): never => host.oracle.fail(`session ${session.id}: ${text}`);
    this.#parser = new ReplyParser(this, complain);
    host.oracle.opened(session);
  }

  // What the stream tells.

  told(bytes: Uint8Array): void {
    this.#parser.push(bytes);
  }

  heard(count: number): void {
    this.#heard += count;
    while (!this.over && (this.#messages[0]?.end ?? Infinity) <= this.#heard) {
      this.#messages.shift()?.react();
    }
  }

  taken(count: number): void {
    this.#taken += count;
    while ((this.#arrivals[0]?.end ?? Infinity) <= this.#taken) this.#arrivals.shift()?.react();
  }

  hungUp(): void {
    this.#end();
  }

  /** Goes away without a word. */
  cut(): void {
    if (this.over) return;
    this.#host.oracle.gone(this.session);
    this.stream.cut(this.#host.prng.chance(0.3));
    this.#end();
  }

  #end(): void {
    if (this.over) return;
    this.over = true;
    this.#host.oracle.gone(this.session);
    this.#host.over(this);
  }

  // The handshake.

  greeting(end: number): void {
    this.#messages.push({ end, react: () => this.#negotiate() });
  }

  #negotiate(): void {
    const { form, exportName } = this.#traits;
    const { prng } = this.#host;
    const add = (option: number, data: Uint8Array = new Uint8Array(0)): void => {
      this.#options.push({ option, bytes: encodeOption(option, data) });
    };
    if (prng.chance(0.2)) add(NBD_OPT.LIST);
    if (form === 'structured') add(NBD_OPT.STRUCTURED_REPLY);
    if (form === 'extended') add(NBD_OPT.EXTENDED_HEADERS);
    if (form !== 'simple') {
      add(
        NBD_OPT.SET_META_CONTEXT,
        encodeMetaContextRequest(exportName, [NBD_BASE_ALLOCATION, 'x:y']),
      );
    }
    if (prng.chance(0.2)) add(NBD_OPT.INFO, encodeInfoRequest(exportName, [NBD_INFO.NAME]));
    if (form !== 'extended' && prng.chance(0.2)) {
      add(NBD_OPT.EXPORT_NAME, Buffer.from(exportName));
    } else add(NBD_OPT.GO, encodeInfoRequest(exportName, [NBD_INFO.BLOCK_SIZE]));
    this.#send(Buffer.from([0, 0, 0, 3]));
    // The answer to EXPORT_NAME has no header: what came before must have been answered.
    const mayHurry = this.#options.at(-1)?.option === NBD_OPT.GO;
    const together = mayHurry && prng.chance(0.3) ? this.#options.length : 1;
    for (let i = 0; i < together; i += 1) this.#sendOption();
  }

  #sendOption(): void {
    const next = this.#options.shift();
    if (next === undefined) return;
    if (next.option === NBD_OPT.EXPORT_NAME) this.#parser.phase = 'export';
    const { oracle } = this.#host;
    this.#send(next.bytes);
    if (next.option === NBD_OPT.GO || next.option === NBD_OPT.EXPORT_NAME) {
      this.#arrivals.push({ end: this.#sent, react: () => oracle.goArrived(this.session) });
    }
  }

  option(option: number, type: number, payload: Buffer, end: number): void {
    if (type >= 0x80000000) {
      this.#host.oracle.fail(`option ${option} was refused with 0x${type.toString(16)}`);
    }
    if (option === NBD_OPT.GO && type === NBD_REP.INFO) {
      if (payload.readUInt16BE(0) === NBD_INFO.EXPORT) this.#flags(payload.readUInt16BE(10));
    }
    if (type !== NBD_REP.ACK) return;
    if (option === NBD_OPT.STRUCTURED_REPLY) this.#parser.structured = true;
    if (option === NBD_OPT.EXTENDED_HEADERS) {
      this.#parser.structured = true;
      this.#parser.extended = true;
    }
    if (option === NBD_OPT.GO) {
      this.#parser.phase = 'transmission';
      this.#begin(end);
    } else this.#messages.push({ end, react: () => this.#sendOption() });
  }

  exported(_sizeBytes: number, flags: number, end: number): void {
    this.#flags(flags);
    this.#begin(end);
  }

  #flags(flags: number): void {
    this.session.flushes = (flags & NBD_FLAG.SEND_FLUSH) !== 0;
  }

  #begin(end: number): void {
    this.#host.oracle.served(this.session);
    this.#messages.push({
      end,
      react: () => {
        this.served = true;
        this.#goOn();
      },
    });
  }

  // Requests.

  #goOn(): void {
    if (this.over || this.#leaving) return;
    const { prng } = this.#host;
    while (this.outstanding.size < this.#traits.depth && this.#host.wantsMore()) {
      this.#ask();
      if (prng.chance(0.3)) break;
    }
    if (!this.#host.wantsMore()) {
      if (this.outstanding.size === 0) this.#leave();
    } else if (this.outstanding.size < this.#traits.depth && !this.#pausing) {
      this.#pausing = true;
      this.#host.later(prng.float() * this.#traits.thinkMs, () => {
        this.#pausing = false;
        this.#goOn();
      });
    }
  }

  #leave(): void {
    this.#leaving = true;
    if (this.#host.prng.chance(0.5)) {
      this.cut();
      return;
    }
    const bytes = Buffer.alloc(this.#headerBytes);
    writeRequest(viewOf(bytes), this.#parser.extended, 0, NBD_CMD.DISC, 0, 0, 0, 0);
    this.#send(bytes);
  }

  get #headerBytes(): number {
    return this.#parser.extended ? NBD_HEADER.EXTENDED_REQUEST : NBD_HEADER.REQUEST;
  }

  #kind(): Kind {
    const { prng } = this.#host;
    const { flushShare, readShare, form } = this.#traits;
    const allowed = this.session.flushes || prng.chance(0.2);
    if (allowed && prng.chance(flushShare)) return 'flush';
    if (prng.chance(readShare)) {
      if (form !== 'simple' && prng.chance(0.1)) return 'status';
      return prng.chance(0.05) ? 'cache' : 'read';
    }
    if (prng.chance(0.12)) return prng.chance(0.5) ? 'zeroes' : 'trim';
    return 'write';
  }

  #ask(): void {
    const { prng, oracle, sectors: all } = this.#host;
    const { hotSectors, maxSectors, huge, fuaShare } = this.#traits;
    const kind = this.#kind();
    const hot = prng.chance(0.8);
    const most = prng.chance(huge) ? all : maxSectors;
    const first = prng.below(hot ? hotSectors : all);
    const count = 1 + prng.below(Math.min(most, all - first));
    const isFlush = kind === 'flush';
    const fua = (kind === 'write' || kind === 'zeroes' || kind === 'trim') && prng.chance(fuaShare);
    const op = new Op(
      this.#host.nextOp(),
      kind,
      this.session,
      isFlush ? 0 : first,
      isFlush ? 0 : count,
      fua,
    );
    oracle.asked(op);
    this.outstanding.set(op.id, op);
    if (kind === 'read') {
      this.#reading.set(op.id, {
        contents: Array.from({ length: count }, () => -2),
        missing: count,
      });
    }
    this.#sendRequest(op);
    if (prng.chance(this.#traits.cuts)) this.cut();
    else if (prng.chance(this.#traits.stalls)) this.stream.stall(prng.float() * 200);
  }

  #sendRequest(op: Op): void {
    const { prng } = this.#host;
    const { extended } = this.#parser;
    let flags = op.fua ? NBD_CMD_FLAG.FUA : 0;
    if (op.kind === 'zeroes' && prng.chance(0.3)) flags |= NBD_CMD_FLAG.NO_HOLE;
    if (op.kind === 'zeroes' && prng.chance(0.3)) flags |= NBD_CMD_FLAG.FAST_ZERO;
    if (op.kind === 'status' && prng.chance(0.3)) flags |= NBD_CMD_FLAG.REQ_ONE;
    const payload = op.kind === 'write' ? op.sectors * SECTOR_BYTES : 0;
    if (payload > 0 && extended) flags |= NBD_CMD_FLAG.PAYLOAD_LEN;
    const header = this.#headerBytes;
    const bytes = Buffer.alloc(header + payload);
    const offset = op.first * SECTOR_BYTES;
    writeRequest(
      viewOf(bytes),
      extended,
      flags,
      COMMAND[op.kind],
      this.cookieHigh,
      op.id,
      offset,
      op.sectors * SECTOR_BYTES,
    );
    for (let at = header, sector = op.first; at < bytes.length; at += SECTOR_BYTES, sector += 1) {
      fillSector(bytes, at, op.id, sector);
    }
    const arrives = this.#sent + header;
    this.#send(bytes);
    this.#arrivals.push({ end: arrives, react: () => this.#host.oracle.arrived(op) });
  }

  #send(bytes: Uint8Array): void {
    this.#sent += bytes.length;
    this.stream.write(bytes);
  }

  // Replies.

  cookieOf(high: number, low: number): number {
    if (high !== this.cookieHigh)
      this.#host.oracle.fail(`an answer with a foreign cookie: ${high}`);
    return low;
  }

  readBytes(cookie: number): number {
    const op = this.#known(cookie);
    return op.kind === 'read' ? op.sectors * SECTOR_BYTES : 0;
  }

  data(cookie: number, offset: number | null, bytes: Buffer): void {
    const op = this.#known(cookie);
    const reading = this.#reading.get(cookie);
    if (reading === undefined) this.#host.oracle.fail(`${op.text}: data in its answer`);
    const first = offset === null ? op.first : offset / SECTOR_BYTES;
    const count = bytes.length / SECTOR_BYTES;
    const inside = first >= op.first && first + count <= op.first + op.sectors;
    if (!Number.isInteger(first) || !Number.isInteger(count) || !inside) {
      this.#host.oracle.fail(`${op.text}: data outside of what was asked: ${first}+${count}`);
    }
    for (let i = 0; i < count; i += 1) {
      const place = first - op.first + i;
      if (reading.contents[place] !== -2) this.#host.oracle.fail(`${op.text}: data twice`);
      reading.contents[place] = readSector(bytes, i * SECTOR_BYTES, first + i);
      reading.missing -= 1;
    }
  }

  status(cookie: number, chunk: StatusChunk): void {
    const op = this.#known(cookie);
    let sector = op.first;
    for (const [i, length] of chunk.lengths.entries()) {
      const sectors = length / SECTOR_BYTES;
      if (sector + sectors > op.first + op.sectors || !Number.isInteger(sectors)) {
        this.#host.oracle.fail(`${op.text}: status of ${length} bytes beyond what was asked`);
      }
      if (((chunk.flags[i] as number) & 2) !== 0) {
        this.#host.oracle.zeroReported(op, sector, sectors);
      }
      sector += sectors;
    }
  }

  done(cookie: number, error: number, end: number): void {
    const op = this.#known(cookie);
    this.outstanding.delete(cookie);
    const reading = this.#reading.get(cookie);
    this.#reading.delete(cookie);
    if (reading !== undefined && error === 0) {
      if (reading.missing > 0)
        this.#host.oracle.fail(`${op.text}: ${reading.missing} sectors missing`);
      this.#host.oracle.readReturned(op, reading.contents);
    }
    this.#host.oracle.answered(op, error);
    this.#messages.push({
      end,
      react: () => {
        if (this.#host.prng.chance(this.#traits.cuts)) this.cut();
        else this.#goOn();
      },
    });
  }

  #known(cookie: number): Op {
    const op = this.outstanding.get(cookie);
    if (op === undefined) this.#host.oracle.fail(`an answer to #${cookie}, which nobody waits for`);
    return op;
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
