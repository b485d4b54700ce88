import { closeFd, connectUnix, Memory, receive, sendAll } from './kernel.ts';

/** [NBD proto "Values"], only what a load client needs. */
const NBDMAGIC = 0x4e42444d41474943n;
const IHAVEOPT = 0x49484156454f5054n;
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const STRUCTURED_REPLY_MAGIC = 0x668e33ef;
const NBD_FLAG_C_FIXED_NEWSTYLE_NO_ZEROES = 3;
const NBD_OPT_GO = 7;
const NBD_OPT_STRUCTURED_REPLY = 8;
const NBD_REP_ACK = 1;
const NBD_REP_INFO = 3;
const NBD_INFO_EXPORT = 0;
const NBD_REPLY_TYPE_ERROR_BIT = 0x8000;
const NBD_REPLY_FLAG_DONE = 1;

export const REQUEST_BYTES = 28;
export const NBD_CMD = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3 } as const;
export const NBD_CMD_FLAG_FUA = 1;

/**
 * One NBD connection, after the handshake. Requests are laid out by the caller in `out` and sent together; replies
 * are parsed out of large receives, and their data is skipped where it lies. The cookie is the caller's slot number.
 */
export class Channel {
  readonly fd: number;
  readonly out: Memory;
  readonly #in: Memory;
  #start = 0;
  #end = 0;
  /** Bytes of read data still to come that belong to the current chunk. */
  #skip = 0;
  #doneAfterSkip = -1;
  /** Bytes of data that a simple reply to a slot's request carries: servers without structured replies. */
  readonly #simpleData: number;
  exportBytes = 0;
  structured = false;

  constructor(
    socketPath: string,
    exportName: string,
    outBytes: number,
    inBytes: number,
    simpleData: number,
  ) {
    this.fd = connectUnix(socketPath);
    this.out = new Memory(Math.max(outBytes, 4096));
    this.#in = new Memory(Math.max(inBytes, 4096));
    this.#simpleData = simpleData;
    this.#negotiate(exportName);
  }

  close(): void {
    this.writeHeader(0, NBD_CMD.DISC, 0, 0, 0, 0);
    this.send(REQUEST_BYTES);
    closeFd(this.fd);
  }

  /** Puts a request header at byte `at` of `out`. */
  writeHeader(
    at: number,
    command: number,
    flags: number,
    slot: number,
    offset: number,
    length: number,
  ): void {
    const view = this.out.view;
    view.setUint32(at, REQUEST_MAGIC);
    view.setUint16(at + 4, flags);
    view.setUint16(at + 6, command);
    view.setUint32(at + 8, 0);
    view.setUint32(at + 12, slot);
    this.writeOffset(at, offset);
    view.setUint32(at + 24, length);
  }

  /** Changes the slot and the offset of a request that is laid out already: the hot path. */
  retarget(at: number, slot: number, offset: number): void {
    this.out.view.setUint32(at + 12, slot);
    this.writeOffset(at, offset);
  }

  private writeOffset(at: number, offset: number): void {
    const high = Math.floor(offset / 2 ** 32);
    this.out.view.setUint32(at + 16, high);
    this.out.view.setUint32(at + 20, offset - high * 2 ** 32);
  }

  send(length: number): void {
    sendAll(this.fd, this.out.address, length);
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

  /** The slot of the next finished request, or -1 when more bytes are needed first. */
  next(): number {
    const view = this.#in.view;
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
      const at = this.#start;
      const have = this.#end - at;
      if (have < 16) return -1;
      if (view.getUint32(at) === SIMPLE_REPLY_MAGIC) {
        if (view.getUint32(at + 4) !== 0)
          throw new Error(`request failed: ${view.getUint32(at + 4)}`);
        this.#start += 16;
        // With structured replies negotiated, reads are never answered by simple ones.
        this.#skip = this.structured ? 0 : this.#simpleData;
        this.#doneAfterSkip = view.getUint32(at + 12);
      } else if (have < 20) {
        return -1;
      } else {
        this.#chunk(at);
      }
    }
  }

  #chunk(at: number): void {
    const view = this.#in.view;
    if (view.getUint32(at) !== STRUCTURED_REPLY_MAGIC) throw new Error('not an NBD reply');
    if ((view.getUint16(at + 6) & NBD_REPLY_TYPE_ERROR_BIT) !== 0)
      throw new Error('request failed');
    this.#start += 20;
    this.#skip = view.getUint32(at + 16);
    const done = (view.getUint16(at + 4) & NBD_REPLY_FLAG_DONE) !== 0;
    this.#doneAfterSkip = done ? view.getUint32(at + 12) : -1;
  }

  /** Handshake and options, one at a time: [NBD proto "Fixed newstyle negotiation"]. */
  #negotiate(exportName: string): void {
    const hello = this.#take(18);
    if (hello.getBigUint64(0) !== NBDMAGIC || hello.getBigUint64(8) !== IHAVEOPT) {
      throw new Error('not a newstyle NBD server');
    }
    this.out.view.setUint32(0, NBD_FLAG_C_FIXED_NEWSTYLE_NO_ZEROES);
    this.send(4);
    this.#option(NBD_OPT_STRUCTURED_REPLY, new Uint8Array());
    this.structured = this.#optionReply().type === NBD_REP_ACK;
    const name = Buffer.from(exportName);
    const data = Buffer.alloc(4 + name.length + 2);
    data.writeUInt32BE(name.length, 0);
    name.copy(data, 4);
    this.#option(NBD_OPT_GO, data);
    for (;;) {
      const reply = this.#optionReply();
      if (reply.type === NBD_REP_ACK) break;
      if (reply.type !== NBD_REP_INFO) {
        throw new Error(`export '${exportName}' refused: option reply ${reply.type}`);
      }
      if (reply.data.getUint16(0) === NBD_INFO_EXPORT) {
        this.exportBytes = Number(reply.data.getBigUint64(2));
      }
    }
  }

  #option(option: number, data: Uint8Array): void {
    this.out.view.setBigUint64(0, IHAVEOPT);
    this.out.view.setUint32(8, option);
    this.out.view.setUint32(12, data.length);
    this.out.bytes.set(data, 16);
    this.send(16 + data.length);
  }

  #optionReply(): { type: number; data: DataView } {
    const header = this.#take(20);
    if (header.getBigUint64(0) !== OPTION_REPLY_MAGIC) throw new Error('not an NBD option reply');
    return { type: header.getUint32(12), data: this.#take(header.getUint32(16)) };
  }

  /** The next `length` bytes, as a copy. */
  #take(length: number): DataView {
    while (this.#end - this.#start < length) this.receive();
    const copy = this.#in.bytes.slice(this.#start, this.#start + length);
    this.#start += length;
    return new DataView(copy.buffer);
  }
}
