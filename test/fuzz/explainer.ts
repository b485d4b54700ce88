import { Buffer } from 'node:buffer';
import {
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_HEADER,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  type StatusChunk,
} from '../../src/protocols/nbd/wire.ts';
import { ReplyParser, type ReplyReader } from '../sim/replies.ts';
import { fail } from './target.ts';

/** What every reply is explained by, besides the client's own bytes. */
export interface ServedDisk {
  readonly exportName: string;
  readonly description: string;
  readonly blockBytes: number;
  readonly readOnly: boolean;
  /** What the disk holds; the explainer changes it as the server has to. */
  readonly content: Buffer;
}

interface Request {
  readonly type: number;
  readonly flags: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
  readonly payload: Buffer;
  /** Bytes of data that have come. */
  got: number;
}

/** What all explainers of this process have seen: a fuzzer whose requests all fail finds little. */
export const explained = { options: 0, served: 0, succeeded: 0, failed: 0, dataBytes: 0 };

const NBD_ERRORS = new Set([1, 5, 12, 22, 28, 75, 95, 108]);
const MAX_PAYLOAD = 2 ** 25;
const SECTOR_BYTES = 512;

/**
 * Knows every byte that a client sent, reads them by the specification as the server has to, and so explains every byte of
 * the answers: whose request it answers, whether that had to succeed, and what the disk held. A byte it cannot explain is
 * a failure. The disk must do its requests at once.
 */
export class Explainer implements ReplyReader {
  readonly parser: ReplyParser;
  readonly #client: Buffer;
  readonly #disk: ServedDisk;
  #at = 0;
  #option: { option: number; data: Buffer } | null = null;
  #pending: Request[] = [];
  #contextId: number | null = null;
  #contextFor: string | null = null;
  #exportAsked = '';

  constructor(client: Buffer, disk: ServedDisk) {
    this.#client = client;
    this.#disk = disk;
    this.parser = new ReplyParser(this, fail);
  }

  /** Requests that must still be answered, if the client stays to hear it. */
  get unanswered(): number {
    return this.#pending.length;
  }

  // The handshake.

  greeting(): void {
    this.#at = NBD_HEADER.CLIENT_FLAGS;
    const flags = this.#client.length >= 4 ? this.#client.readUInt32BE(0) : 0;
    this.parser.noZeroes = (flags & 2) !== 0;
    this.#nextOption();
  }

  #nextOption(): void {
    this.#option = null;
    const start = this.#at + NBD_HEADER.OPTION;
    if (start > this.#client.length) return;
    const end = start + this.#client.readUInt32BE(this.#at + 12);
    if (end > this.#client.length) return;
    const option = this.#client.readUInt32BE(this.#at + 8);
    this.#option = { option, data: this.#client.subarray(start, end) };
    this.#at = end;
    if (option === NBD_OPT.SET_META_CONTEXT) {
      // "replaces all previously-set metadata contexts (including when this command fails)"
      // [NBD proto "NBD_OPT_SET_META_CONTEXT"]
      this.#contextId = null;
      this.#contextFor = null;
    }
    // Its answer has no header of its own, and there is none if it is refused.
    if (option === NBD_OPT.EXPORT_NAME) this.parser.phase = 'export';
  }

  option(option: number, type: number, payload: Buffer): void {
    explained.options += 1;
    const asked = this.#option;
    if (asked === null || asked.option !== option) {
      fail(`an answer to option ${option}; asked was ${asked?.option}`);
    }
    if (type >= 0x80000000) {
      this.#text(payload);
      this.#nextOption();
      return;
    }
    switch (type) {
      case NBD_REP.ACK:
        if (payload.length > 0) fail('an ACK with a payload');
        this.#acknowledged(asked);
        return;
      case NBD_REP.SERVER:
        return this.#server(option, payload);
      case NBD_REP.INFO:
        return this.#info(option, payload);
      case NBD_REP.META_CONTEXT:
        return this.#context(asked, payload);
      default:
        fail(`a reply of type ${type}`);
    }
  }

  #acknowledged(asked: { option: number; data: Buffer }): void {
    const { option, data } = asked;
    if (option === NBD_OPT.STRUCTURED_REPLY) this.parser.structured = true;
    if (option === NBD_OPT.EXTENDED_HEADERS) {
      this.parser.structured = true;
      this.parser.extended = true;
    }
    if (option !== NBD_OPT.GO) {
      this.#nextOption();
      return;
    }
    const name = data.subarray(4, 4 + data.readUInt32BE(0)).toString();
    if (name !== this.#disk.exportName) fail(`GO to '${name}' succeeded`);
    this.begin(name);
  }

  #text(payload: Buffer): void {
    if (payload.length > 4096 || !/^[\x20-\x7e]*$/.test(payload.toString('latin1'))) {
      fail(`an error message that is no message: ${payload.toString('hex')}`);
    }
  }

  #server(option: number, payload: Buffer): void {
    const { exportName, description } = this.#disk;
    const length = payload.readUInt32BE(0);
    const name = payload.subarray(4, 4 + length).toString();
    const rest = payload.subarray(4 + length).toString();
    if (option !== NBD_OPT.LIST || name !== exportName || rest !== description) {
      fail(`an export '${name}' that is not there`);
    }
  }

  #info(option: number, payload: Buffer): void {
    if (option !== NBD_OPT.INFO && option !== NBD_OPT.GO) fail('information that nobody asked for');
    const { exportName, description, content, blockBytes } = this.#disk;
    const rest = payload.subarray(2);
    let fits = false;
    switch (payload.readUInt16BE(0)) {
      case NBD_INFO.EXPORT:
        fits = rest.length === 10 && Number(rest.readBigUInt64BE(0)) === content.length;
        break;
      case NBD_INFO.NAME:
        fits = rest.toString() === exportName;
        break;
      case NBD_INFO.DESCRIPTION:
        fits = rest.toString() === description;
        break;
      case NBD_INFO.BLOCK_SIZE:
        fits = rest.length === 12 && rest.readUInt32BE(0) === blockBytes;
        fits &&= rest.readUInt32BE(8) === MAX_PAYLOAD;
        break;
      default:
    }
    if (!fits) fail(`information that is not true: ${payload.toString('hex')}`);
  }

  #context(asked: { option: number; data: Buffer }, payload: Buffer): void {
    if (payload.subarray(4).toString() !== 'base:allocation') fail('an unknown context');
    if (asked.option === NBD_OPT.SET_META_CONTEXT) {
      this.#contextId = payload.readUInt32BE(0);
      const length = asked.data.readUInt32BE(0);
      this.#contextFor = asked.data.subarray(4, 4 + length).toString();
    } else if (asked.option !== NBD_OPT.LIST_META_CONTEXT) fail('a context that nobody asked for');
  }

  exported(sizeBytes: number): void {
    const name = this.#option?.data.toString();
    if (sizeBytes !== this.#disk.content.length || name !== this.#disk.exportName) {
      fail(`export '${name}' of ${sizeBytes} bytes`);
    }
    this.begin(name);
  }

  // The transmission phase.

  /** From here on the client's bytes are requests. For a target without a handshake: `form` and context as given. */
  begin(exportName: string, contextId: number | null = this.#contextId): void {
    explained.served += 1;
    this.#exportAsked = exportName;
    this.#contextId = contextId;
    this.#contextFor ??= exportName;
    this.parser.phase = 'transmission';
    while (this.#request());
  }

  /** Reads one whole request; false at the end, or where the server has to stop listening. */
  #request(): boolean {
    const client = this.#client;
    const { extended } = this.parser;
    const header = extended ? NBD_HEADER.EXTENDED_REQUEST : NBD_HEADER.REQUEST;
    const at = this.#at;
    if (at + header > client.length) return false;
    if (client.readUInt32BE(at) !== (extended ? 0x21e41c71 : 0x25609513)) return false;
    const flags = client.readUInt16BE(at + 4);
    const type = client.readUInt16BE(at + 6);
    if (type === NBD_CMD.DISC) return false;
    const length = extended
      ? Number(client.readBigUInt64BE(at + 24))
      : client.readUInt32BE(at + 24);
    const announced = extended ? (flags & NBD_CMD_FLAG.PAYLOAD_LEN) !== 0 : type === NBD_CMD.WRITE;
    if (extended && type === NBD_CMD.WRITE && !announced) return false;
    if (announced && length > MAX_PAYLOAD) return false;
    const end = at + header + (announced ? length : 0);
    if (end > client.length) return false;
    this.#at = end;
    this.#pending.push({
      type,
      flags,
      cookieHigh: client.readUInt32BE(at + 8),
      cookieLow: client.readUInt32BE(at + 12),
      offset: Number(client.readBigUInt64BE(at + 16)),
      length,
      payload: client.subarray(at + header, end),
      got: 0,
    });
    return true;
  }

  cookieOf(high: number, low: number): number {
    const found = this.#pending.findIndex(
      (each) => each.cookieHigh === high && each.cookieLow === low,
    );
    if (found < 0) fail(`an answer to a request that was not made: cookie ${high}, ${low}`);
    return found;
  }

  readBytes(index: number): number {
    const request = this.#pending[index] as Request;
    return request.type === NBD_CMD.READ ? request.length : 0;
  }

  data(index: number, offset: number | null, bytes: Buffer): void {
    const request = this.#pending[index] as Request;
    const from = offset ?? request.offset;
    if (request.type !== NBD_CMD.READ) fail(`data in reply to a request of type ${request.type}`);
    if (from !== request.offset + request.got) fail(`data of ${from}, expected is what follows`);
    request.got += bytes.length;
    explained.dataBytes += bytes.length;
    if (request.got > request.length) fail('more data than were asked for');
    const expected = this.#disk.content.subarray(from, from + bytes.length);
    if (expected.equals(bytes)) return;
    // A long read goes on while later requests are done: requests in flight together have no order.
    for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
      const there = bytes.subarray(at, at + SECTOR_BYTES);
      const known = expected.subarray(at, at + SECTOR_BYTES).equals(there);
      if (!known && !this.#overtaken(index, from + at, there)) fail(foreign(expected, bytes, from));
    }
  }

  /** Whether a request made after this one, and not yet answered, writes these bytes there. */
  #overtaken(index: number, offset: number, bytes: Buffer): boolean {
    return this.#pending.slice(index + 1).some((later) => {
      const start = offset - later.offset;
      if (start < 0 || start + bytes.length > later.length) return false;
      if (later.type === NBD_CMD.WRITE) {
        return later.payload.subarray(start, start + bytes.length).equals(bytes);
      }
      const zeroes = later.type === NBD_CMD.TRIM || later.type === NBD_CMD.WRITE_ZEROES;
      return zeroes && bytes.every((byte) => byte === 0);
    });
  }

  status(index: number, chunk: StatusChunk): void {
    const request = this.#pending[index] as Request;
    if (request.type !== NBD_CMD.BLOCK_STATUS || chunk.contextId !== this.#contextId) {
      fail('a status that nobody asked for');
    }
    let at = request.offset;
    for (const [i, length] of chunk.lengths.entries()) {
      if (at + length > this.#disk.content.length) fail('a status beyond the end of the disk');
      const there = this.#disk.content.subarray(at, at + length);
      const flags = chunk.flags[i] as number;
      if ((flags & 2) !== 0 && there.some((byte) => byte !== 0)) fail('data reported as zeroes');
      if (flags > 3) fail(`status flags ${flags}`);
      at += length;
    }
    const one = (request.flags & NBD_CMD_FLAG.REQ_ONE) !== 0;
    if (one && chunk.lengths.length !== 1) fail('several extents, one was asked for');
  }

  done(index: number, error: number): void {
    if (error === 0) explained.succeeded += 1;
    else explained.failed += 1;
    const [request] = this.#pending.splice(index, 1) as [Request];
    if (error !== 0 && !NBD_ERRORS.has(error)) fail(`error ${error}`);
    const verdict = this.#verdict(request);
    const { type, flags, offset, length } = request;
    const what = `request of type ${type}, flags ${flags}, ${offset}+${length}: error ${error}`;
    if (verdict === 'succeeds' && error !== 0) fail(`a good ${what}`);
    if (verdict === 'fails' && error === 0) fail(`a bad ${what}`);
    if (error !== 0) return;
    if (type === NBD_CMD.READ && request.got !== length) fail(`only ${request.got} bytes: ${what}`);
    const { content } = this.#disk;
    if (type === NBD_CMD.WRITE) request.payload.copy(content, offset);
    if ((type === NBD_CMD.TRIM || type === NBD_CMD.WRITE_ZEROES) && length > 0) {
      content.fill(0, offset, offset + length);
    }
  }

  /** What the specification, and our memory store behind it, leave no choice about. */
  #verdict(request: Request): 'succeeds' | 'fails' | 'either' {
    const { type, flags, offset, length } = request;
    const { blockBytes, readOnly, content } = this.#disk;
    const { FUA, DF, PAYLOAD_LEN, NO_HOLE } = NBD_CMD_FLAG;
    if (type > NBD_CMD.BLOCK_STATUS || (flags & ~0x3f) !== 0) return 'fails';
    if (type === NBD_CMD.FLUSH) return flags === 0 && length === 0 ? 'succeeds' : 'either';
    if (type === NBD_CMD.BLOCK_STATUS) {
      const usable = this.#contextId !== null && this.parser.structured;
      return usable && this.#contextFor === this.#exportAsked ? 'either' : 'fails';
    }
    const inside =
      offset % blockBytes === 0 && length % blockBytes === 0 && offset + length <= content.length;
    if (!inside) return 'fails';
    if (length === 0) return 'either';
    const mutates = type !== NBD_CMD.READ && type !== NBD_CMD.CACHE;
    if (mutates && readOnly) return 'fails';
    if (type === NBD_CMD.READ && length > MAX_PAYLOAD) return 'fails';
    let plain = FUA;
    if (type === NBD_CMD.READ && this.parser.structured && length <= 65_536) plain |= DF;
    if (type === NBD_CMD.WRITE && this.parser.extended) plain |= PAYLOAD_LEN;
    if (type === NBD_CMD.WRITE_ZEROES) plain |= NO_HOLE;
    return (flags & ~plain) === 0 ? 'succeeds' : 'either';
  }
}

function foreign(expected: Buffer, bytes: Buffer, from: number): string {
  let at = 0;
  while (at < bytes.length && expected[at] === bytes[at]) at += 1;
  const show = (each: Buffer): string => each.subarray(at, at + 16).toString('hex');
  return `foreign memory in a reply: at byte ${from + at} ${show(bytes)}, the disk has ${show(expected)}`;
}
