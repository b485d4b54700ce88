import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { errorName } from './nbd-errors.ts';

/** [NBD proto "Values"]; written here a second time on purpose: the server's own constants are under test. */
const NBDMAGIC = 0x4e42444d41474943n;
const IHAVEOPT = 0x49484156454f5054n;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const STRUCTURED_REPLY_MAGIC = 0x668e33ef;
const NBD_OPT_GO = 7;
const NBD_OPT_STRUCTURED_REPLY = 8;
const NBD_REP_ACK = 1;
const NBD_REPLY_TYPE_OFFSET_DATA = 1;
const NBD_REPLY_TYPE_OFFSET_HOLE = 2;

export const CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
} as const;
export const FLAG = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const;

interface Pending {
  readonly data: Buffer;
  readonly offset: number;
  readonly resolve: (data: Buffer) => void;
  readonly reject: (error: Error) => void;
  error: Error | null;
}

/** A request that the server refused, or that its end left unanswered. */
export class NbdError extends Error {
  readonly code: string;

  constructor(code: string, what: string) {
    super(`${what}: ${code}`);
    this.code = code;
  }
}

/** A plain, promise-based NBD client for tests: any number of requests in flight, replies in any order. */
export class NbdClient {
  readonly #socket: Socket;
  readonly #pending = new Map<bigint, Pending>();
  #cookie = 1n;
  #input: Buffer = Buffer.alloc(0);
  #wake: (() => void) | null = null;
  #ended: Error | null = null;
  exportBytes = 0;
  transmissionFlags = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#input = this.#input.length === 0 ? chunk : Buffer.concat([this.#input, chunk]);
      this.#wake?.();
    });
    const end = (error: Error | null): void => {
      this.#ended ??= error ?? new NbdError('CLOSED', 'connection');
      this.#wake?.();
    };
    socket.once('error', end);
    socket.once('close', () => end(null));
  }

  static async connect(path: string, exportName = ''): Promise<NbdClient> {
    const socket = createConnection(path);
    const client = new NbdClient(socket);
    await client.#negotiate(exportName);
    void client.#receiveReplies();
    return client;
  }

  read(offset: number, length: number, flags = 0): Promise<Buffer> {
    return this.request(CMD.READ, flags, offset, length);
  }

  async write(offset: number, data: Buffer, flags = 0): Promise<void> {
    await this.request(CMD.WRITE, flags, offset, data.length, data);
  }

  async flush(): Promise<void> {
    await this.request(CMD.FLUSH, 0, 0, 0);
  }

  /** Any request, also one that no server should accept. Resolves with read data, rejects with NbdError. */
  request(
    command: number,
    flags: number,
    offset: number,
    length: number,
    payload?: Buffer,
  ): Promise<Buffer> {
    const cookie = this.#cookie;
    this.#cookie += 1n;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return new Promise((resolve, reject) => {
      if (this.#ended !== null) {
        reject(this.#ended);
        return;
      }
      const data = Buffer.alloc(command === CMD.READ ? length : 0);
      this.#pending.set(cookie, { data, offset, resolve, reject, error: null });
      this.#socket.write(payload === undefined ? header : Buffer.concat([header, payload]));
    });
  }

  /** Says goodbye and closes. */
  async close(): Promise<void> {
    this.request(CMD.DISC, 0, 0, 0).catch(() => undefined);
    await new Promise<void>((resolve) => this.#socket.end(resolve));
    this.#socket.destroy();
  }

  /** Goes away without a word, as a crashed client does. */
  destroy(): void {
    this.#socket.destroy();
  }

  async #negotiate(exportName: string): Promise<void> {
    const hello = await this.#take(18);
    if (hello.readBigUInt64BE(0) !== NBDMAGIC || hello.readBigUInt64BE(8) !== IHAVEOPT) {
      throw new Error('not a newstyle NBD server');
    }
    this.#socket.write(Buffer.from([0, 0, 0, 3]));
    const structured = await this.#option(NBD_OPT_STRUCTURED_REPLY, Buffer.alloc(0));
    if (structured !== NBD_REP_ACK) throw new Error(`structured replies refused: ${structured}`);
    const name = Buffer.from(exportName);
    const data = Buffer.alloc(4 + name.length + 2);
    data.writeUInt32BE(name.length, 0);
    name.copy(data, 4);
    const go = await this.#option(NBD_OPT_GO, data);
    if (go !== NBD_REP_ACK) throw new Error(`export '${exportName}' refused: ${go}`);
  }

  /** Returns the type of the reply that ends the option; export information on the way is kept. */
  async #option(option: number, data: Buffer): Promise<number> {
    const header = Buffer.alloc(16);
    header.writeBigUInt64BE(IHAVEOPT, 0);
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(data.length, 12);
    this.#socket.write(Buffer.concat([header, data]));
    for (;;) {
      const reply = await this.#take(20);
      const type = reply.readUInt32BE(12);
      const body = await this.#take(reply.readUInt32BE(16));
      if (type !== 3) return type;
      if (body.readUInt16BE(0) === 0) {
        this.exportBytes = Number(body.readBigUInt64BE(2));
        this.transmissionFlags = body.readUInt16BE(10);
      }
    }
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#input.length < length) {
      if (this.#ended !== null) throw this.#ended;
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
    const bytes = this.#input.subarray(0, length);
    this.#input = this.#input.subarray(length);
    return bytes;
  }

  async #receiveReplies(): Promise<void> {
    try {
      for (;;) {
        const magic = (await this.#take(4)).readUInt32BE(0);
        if (magic === SIMPLE_REPLY_MAGIC) await this.#simple();
        else if (magic === STRUCTURED_REPLY_MAGIC) await this.#chunk();
        else throw new Error(`not a reply: ${magic.toString(16)}`);
      }
    } catch (error) {
      this.#ended ??= error as Error;
      for (const pending of this.#pending.values()) pending.reject(this.#ended);
      this.#pending.clear();
    }
  }

  async #simple(): Promise<void> {
    const reply = await this.#take(12);
    const pending = this.#find(reply.readBigUInt64BE(4));
    const code = reply.readUInt32BE(0);
    if (code !== 0) pending.error = new NbdError(errorName(code), 'request');
    this.#finish(reply.readBigUInt64BE(4));
  }

  async #chunk(): Promise<void> {
    const header = await this.#take(16);
    const type = header.readUInt16BE(2);
    const cookie = header.readBigUInt64BE(4);
    const body = await this.#take(header.readUInt32BE(12));
    const pending = this.#find(cookie);
    if ((type & 0x8000) !== 0) {
      pending.error = new NbdError(errorName(body.readUInt32BE(0)), 'request');
    } else if (type === NBD_REPLY_TYPE_OFFSET_DATA) {
      body.copy(pending.data, Number(body.readBigUInt64BE(0)) - pending.offset, 8);
    } else if (type === NBD_REPLY_TYPE_OFFSET_HOLE) {
      const start = Number(body.readBigUInt64BE(0)) - pending.offset;
      pending.data.fill(0, start, start + body.readUInt32BE(8));
    }
    if ((header.readUInt16BE(0) & 1) !== 0) this.#finish(cookie);
  }

  #find(cookie: bigint): Pending {
    const pending = this.#pending.get(cookie);
    if (pending === undefined) throw new Error(`a reply to no request of ours: ${cookie}`);
    return pending;
  }

  #finish(cookie: bigint): void {
    const pending = this.#find(cookie);
    this.#pending.delete(cookie);
    if (pending.error === null) pending.resolve(pending.data);
    else pending.reject(pending.error);
  }
}
