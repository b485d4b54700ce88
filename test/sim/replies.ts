import { unreachable } from '../../src/base/assert.ts';
import {
  decodeErrorChunk,
  decodeOptionReplyHeader,
  decodeStatusChunk,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_HEADER,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE,
  NBD_REPLY_TYPE_ERROR_BIT,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  readU64,
  type StatusChunk,
} from '../../src/protocols/nbd/wire.ts';

/** Says what is wrong with what the server sent. Does not return. */
export type Complain = (text: string) => never;

/** What is read out of the bytes of a server, message by message. `end`: bytes of the stream up to the message's end. */
export interface ReplyReader {
  greeting(end: number): void;
  option(option: number, type: number, payload: Buffer, end: number): void;
  exported(sizeBytes: number, flags: number, end: number): void;
  /** READ data at byte `at` of the request's own range; for a simple reply all of it. */
  data(cookie: number, offset: number | null, bytes: Buffer): void;
  status(cookie: number, chunk: StatusChunk): void;
  done(cookie: number, error: number, end: number): void;
  /** The bytes of data after a simple reply without an error to this cookie. */
  readBytes(cookie: number): number;
  /** What stands for the request with this cookie in the other calls; complains if there is none. */
  cookieOf(high: number, low: number): number;
}

export type ReplyPhase = 'greeting' | 'options' | 'export' | 'transmission';

/** Cuts a server's bytes into messages, however they come. Whatever does not fit the protocol is complained of. */
export class ReplyParser {
  phase: ReplyPhase = 'greeting';
  extended = false;
  structured = false;
  noZeroes = true;
  readonly #reader: ReplyReader;
  readonly #complain: Complain;
  #rest: Buffer = Buffer.alloc(0);
  #consumed = 0;
  /** The error of each request whose reply has begun and not ended. */
  readonly #errors = new Map<number, number>();

  constructor(reader: ReplyReader, complain: Complain) {
    this.#reader = reader;
    this.#complain = complain;
  }

  /** No message is cut off at its middle. */
  get whole(): boolean {
    return this.#rest.length === 0;
  }

  push(bytes: Uint8Array): void {
    this.#rest = this.#rest.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#rest, bytes]);
    for (;;) {
      const used = this.#message();
      if (used === 0) return;
      this.#rest = this.#rest.subarray(used);
    }
  }

  /** Tells of the message at the start, if all of it is there. */
  #message(): number {
    switch (this.phase) {
      case 'greeting':
        if (!this.#has(NBD_HEADER.GREETING)) return 0;
        this.phase = 'options';
        this.#reader.greeting(this.#end(NBD_HEADER.GREETING));
        return NBD_HEADER.GREETING;
      case 'options':
        return this.#option();
      case 'export':
        return this.#export();
      case 'transmission':
        return this.#reply();
      default:
        return unreachable(this.phase);
    }
  }

  #has(bytes: number): boolean {
    return this.#rest.length >= bytes;
  }

  #end(bytes: number): number {
    this.#consumed += bytes;
    return this.#consumed;
  }

  #option(): number {
    if (!this.#has(NBD_HEADER.OPTION_REPLY)) return 0;
    const header = decodeOptionReplyHeader(this.#rest.subarray(0, NBD_HEADER.OPTION_REPLY));
    if (header === null) return this.#complain('an option reply without its magic number');
    const total = NBD_HEADER.OPTION_REPLY + header.length;
    if (!this.#has(total)) return 0;
    const payload = this.#rest.subarray(NBD_HEADER.OPTION_REPLY, total);
    this.#reader.option(header.option, header.type, payload, this.#end(total));
    return total;
  }

  #export(): number {
    const total = this.noZeroes ? NBD_HEADER.EXPORT_NO_ZEROES : NBD_HEADER.EXPORT;
    if (!this.#has(total)) return 0;
    this.phase = 'transmission';
    const sizeBytes = Number(this.#rest.readBigUInt64BE(0));
    if (this.#rest.subarray(10, total).some((byte) => byte !== 0)) {
      return this.#complain('the reserved zeroes of the export are not zeroes');
    }
    this.#reader.exported(sizeBytes, this.#rest.readUInt16BE(8), this.#end(total));
    return total;
  }

  #reply(): number {
    if (!this.#has(4)) return 0;
    const magic = this.#rest.readUInt32BE(0);
    if (magic === NBD_SIMPLE_REPLY_MAGIC && !this.extended) return this.#simple();
    if (magic === NBD_STRUCTURED_REPLY_MAGIC && this.structured && !this.extended) {
      return this.#chunk(NBD_HEADER.STRUCTURED_REPLY);
    }
    if (magic === NBD_EXTENDED_REPLY_MAGIC && this.extended) {
      return this.#chunk(NBD_HEADER.EXTENDED_REPLY);
    }
    return this.#complain(`a reply with the magic number 0x${magic.toString(16)}`);
  }

  #cookie(): number {
    return this.#reader.cookieOf(this.#rest.readUInt32BE(8), this.#rest.readUInt32BE(12));
  }

  #simple(): number {
    if (!this.#has(NBD_HEADER.SIMPLE_REPLY)) return 0;
    const error = this.#rest.readUInt32BE(4);
    const cookie = this.#cookie();
    const length = error === 0 ? this.#reader.readBytes(cookie) : 0;
    if (length > 0 && this.structured) this.#complain('data in a simple reply');
    const total = NBD_HEADER.SIMPLE_REPLY + length;
    if (!this.#has(total)) return 0;
    if (length > 0) {
      this.#reader.data(cookie, null, this.#rest.subarray(NBD_HEADER.SIMPLE_REPLY, total));
    }
    this.#reader.done(cookie, error, this.#end(total));
    return total;
  }

  #chunk(header: number): number {
    if (!this.#has(header)) return 0;
    const view = new DataView(this.#rest.buffer, this.#rest.byteOffset, header);
    const length = this.extended ? readU64(view, 24) : view.getUint32(16);
    if (length > 2 ** 26) this.#complain(`a chunk of ${length} bytes`);
    const total = header + length;
    if (!this.#has(total)) return 0;
    const flags = view.getUint16(4);
    const cookie = this.#cookie();
    const error = this.#content(cookie, view.getUint16(6), this.#rest.subarray(header, total));
    if (error !== 0 && !this.#errors.has(cookie)) this.#errors.set(cookie, error);
    const end = this.#end(total);
    if ((flags & NBD_REPLY_FLAG_DONE) !== 0) {
      this.#reader.done(cookie, this.#errors.get(cookie) ?? 0, end);
      this.#errors.delete(cookie);
    }
    return total;
  }

  /** Returns the chunk's error, 0 if it says none. */
  #content(cookie: number, type: number, payload: Buffer): number {
    if ((type & NBD_REPLY_TYPE_ERROR_BIT) !== 0) {
      const chunk = decodeErrorChunk(type, payload);
      return chunk === null ? this.#complain('a malformed error chunk') : chunk.error;
    }
    switch (type) {
      case NBD_REPLY_TYPE.NONE:
        if (payload.length !== 0) this.#complain('an empty chunk with a payload');
        return 0;
      case NBD_REPLY_TYPE.OFFSET_DATA:
        if (payload.length <= 8) this.#complain('a data chunk without data');
        this.#reader.data(cookie, Number(payload.readBigUInt64BE(0)), payload.subarray(8));
        return 0;
      case NBD_REPLY_TYPE.BLOCK_STATUS:
      case NBD_REPLY_TYPE.BLOCK_STATUS_EXT: {
        const chunk = decodeStatusChunk(type, payload);
        if (chunk === null) this.#complain('a malformed status chunk');
        else this.#reader.status(cookie, chunk);
        return 0;
      }
      default:
        return this.#complain(`a chunk of type ${type}`);
    }
  }
}
