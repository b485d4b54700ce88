import type { DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import { readU64, viewOf } from './bytes.ts';
import type { NegotiatedExport } from './client-handshake.ts';
import { ClientRequest } from './client-request.ts';
import { Fifo } from '../../base/fifo.ts';
import { MAX_STATUS_DESCRIPTORS, MAX_STRING_BYTES } from './limits.ts';
import {
  codeOfNbdError,
  decodeErrorChunk,
  decodeStatusChunk,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_HEADER,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE,
  NBD_REPLY_TYPE_ERROR_BIT,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  writeRequest,
} from './wire.ts';

export interface ClientSessionHost {
  /** There is something to send: call `fill` soon, not from inside this call. */
  wake(): void;
  /** The server broke the protocol, or said goodbye: the connection is of no more use. */
  broken(reason: string): void;
}

/** Requests on their way at once. QEMU's server reads 16 ahead, nbdkit's default is 16 threads; more only waits. */
const MAX_IN_FLIGHT = 128;

type HeaderFields = Pick<ClientRequest, 'flags' | 'serial' | 'index' | 'offset' | 'length'>;
const GOODBYE: HeaderFields = { flags: 0, serial: 0, index: 0, offset: 0, length: 0 };

/**
 * The client's side of the transmission phase, without sockets and timers. Ios go in by `submit`, the bytes to send
 * come out of `fill`, the server's replies go into `receive`, and the Ios complete.
 *
 * A flush that failed is not asked for again: it and every FUA fail from then on, until the operator makes a new
 * connection.
 */
export class ClientSession {
  readonly #export: NegotiatedExport;
  readonly #host: ClientSessionHost;
  readonly #requests: ClientRequest[] = [];
  readonly #free: ClientRequest[] = [];
  /** Ios that have no request yet. */
  readonly #waiting: Fifo<Io> = new Fifo();
  /** Requests to be sent. */
  readonly #outgoing: Fifo<ClientRequest> = new Fifo();
  #inFlight = 0;
  #barrier = false;
  #syncFailed: BlockErrorCode | null = null;
  /** No new Ios: what those get. */
  #refusing: BlockErrorCode | null = null;
  #dead = false;
  #disconnecting = false;
  #disconnected = false;

  // The message that is being sent.
  readonly #header = new Uint8Array(NBD_HEADER.EXTENDED_REQUEST);
  readonly #headerView: DataView = viewOf(this.#header);
  readonly #headerBytes: number;
  #headerAt: number;
  #payloadOf: ClientRequest | null = null;
  #payloadAt = 0;

  // The message that is being received: `need` bytes are collected, or `dataLeft` bytes go to a request's Io.
  #stage: 'magic' | 'header' | 'offset' | 'payload' = 'magic';
  #collected = new Uint8Array(64);
  #need = 4;
  #have = 0;
  #dataLeft = 0;
  #dataAt = 0;
  #replyOf: ClientRequest | null = null;
  #chunkFlags = 0;
  #chunkType = 0;
  #chunkLength = 0;

  constructor(negotiated: NegotiatedExport, info: DeviceInfo, host: ClientSessionHost) {
    this.#export = negotiated;
    this.#host = host;
    this.#headerBytes = negotiated.extended ? NBD_HEADER.EXTENDED_REQUEST : NBD_HEADER.REQUEST;
    this.#headerAt = this.#headerBytes;
    for (let i = 0; i < MAX_IN_FLIGHT; i += 1) {
      const request = new ClientRequest(i, negotiated, info);
      this.#requests.push(request);
      this.#free.push(request);
    }
  }

  /** Ios that are not complete. */
  get pending(): number {
    return this.#inFlight + this.#waiting.length;
  }

  /** Takes an Io that `checkIo` accepts. */
  submit(io: Io): void {
    if (this.#refusing !== null) {
      io.complete(this.#refusing);
      return;
    }
    this.#waiting.push(io);
    this.#host.wake();
  }

  /** Refuses new Ios and says goodbye once those that are there are complete. */
  disconnect(): void {
    this.#refusing ??= 'ESHUTDOWN';
    this.#disconnecting = true;
    this.#host.wake();
  }

  /** The goodbye has been handed out by `fill`, or is not needed any more. */
  get disconnected(): boolean {
    return this.#disconnected || this.#dead;
  }

  /** The connection is gone: everything pending fails, and everything to come. */
  fail(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#refusing ??= 'EIO';
    this.#replyOf = null;
    for (const request of this.#requests) {
      const { io } = request;
      request.io = null;
      request.awaited = false;
      if (io !== null) io.complete('EIO');
    }
    this.#inFlight = 0;
    for (let io = this.#waiting.shift(); io !== undefined; io = this.#waiting.shift()) {
      io.complete('EIO');
    }
  }

  /** Puts bytes to send into `target` and returns how many; 0 when there are none now. */
  fill(target: Uint8Array): number {
    let at = 0;
    while (at < target.length && !this.#dead) {
      if (this.#headerAt < this.#headerBytes) {
        target[at] = this.#header[this.#headerAt] as number;
        this.#headerAt += 1;
        at += 1;
      } else if (this.#payloadOf !== null) {
        at += this.#fillPayload(this.#payloadOf, target.subarray(at));
      } else if (!this.#nextMessage()) {
        break;
      }
    }
    return at;
  }

  #fillPayload(request: ClientRequest, target: Uint8Array): number {
    const io = request.io as Io;
    const length = Math.min(target.length, request.payload - this.#payloadAt);
    const part = target.subarray(0, length);
    if (request.sendsZeroes) part.fill(0);
    else io.segments.copyTo(part, request.offset - io.offset + this.#payloadAt);
    this.#payloadAt += length;
    if (this.#payloadAt === request.payload) {
      this.#payloadOf = null;
      if (!request.awaited) this.#proceed(request);
    }
    return length;
  }

  /** Makes the next message's header. False: nothing to send. */
  #nextMessage(): boolean {
    this.#startWaiting();
    const request = this.#outgoing.shift();
    if (request !== undefined) {
      this.#writeHeader(request.command, request);
      this.#payloadOf = request.payload === 0 ? null : request;
      this.#payloadAt = 0;
      request.awaited = true;
      return true;
    }
    if (!this.#disconnecting || this.#disconnected || this.pending > 0) return false;
    this.#disconnected = true;
    this.#writeHeader(NBD_CMD.DISC, GOODBYE);
    return true;
  }

  #writeHeader(command: number, fields: HeaderFields): void {
    const { flags, serial, index, offset, length } = fields;
    const { extended } = this.#export;
    writeRequest(this.#headerView, extended, flags, command, serial, index, offset, length);
    this.#headerAt = 0;
  }

  /** Gives waiting Ios a request each, in order, as far as there are any and no barrier holds them back. */
  #startWaiting(): void {
    while (this.#free.length > 0 && !this.#barrier) {
      const io = this.#waiting.peek();
      if (io === undefined) return;
      const barrier = io.mutates && (io.flags & FLAG.BARRIER) !== 0;
      if (barrier && this.#inFlight > 0) return;
      this.#waiting.shift();
      const stable = io.op === OP.FLUSH || (io.flags & (FLAG.FUA | FLAG.BARRIER)) !== 0;
      if (this.#syncFailed !== null && stable) {
        io.complete(this.#syncFailed);
        continue;
      }
      const request = this.#free.pop() as ClientRequest;
      this.#inFlight += 1;
      this.#barrier = barrier;
      request.begin(io);
      this.#proceed(request);
    }
  }

  /** Queues the next request of an Io, or completes it. */
  #proceed(request: ClientRequest): void {
    if (request.next()) {
      this.#outgoing.push(request);
      return;
    }
    const io = request.io as Io;
    request.io = null;
    this.#inFlight -= 1;
    this.#barrier = false;
    this.#free.push(request);
    io.complete(request.error);
  }

  /** Takes bytes of the server, in any pieces. */
  receive(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.#dead) {
      if (this.#dataLeft > 0) {
        at += this.#takeData(bytes.subarray(at, at + this.#dataLeft));
        continue;
      }
      const part = bytes.subarray(at, at + this.#need - this.#have);
      this.#collected.set(part, this.#have);
      this.#have += part.length;
      at += part.length;
      if (this.#have === this.#need) this.#takeCollected();
    }
  }

  #takeData(bytes: Uint8Array): number {
    const request = this.#replyOf as ClientRequest;
    const io = request.io as Io;
    io.segments.copyFrom(bytes, this.#dataAt - io.offset);
    this.#dataAt += bytes.length;
    this.#dataLeft -= bytes.length;
    if (this.#dataLeft === 0) this.#endMessage(request);
    return bytes.length;
  }

  #collect(stage: 'magic' | 'header' | 'offset' | 'payload', need: number, have: number): void {
    this.#stage = stage;
    this.#need = need;
    this.#have = have;
    if (need > this.#collected.length) this.#collected = new Uint8Array(need);
  }

  #broken(reason: string): void {
    this.fail();
    this.#host.broken(reason);
  }

  #takeCollected(): void {
    const view = viewOf(this.#collected);
    switch (this.#stage) {
      case 'magic':
        return this.#takeMagic(view.getUint32(0));
      case 'header':
        return view.getUint32(0) === NBD_SIMPLE_REPLY_MAGIC
          ? this.#takeSimple(view)
          : this.#takeChunk(view);
      case 'offset':
        return this.#takeOffset(readU64(view, 0));
      case 'payload':
        return this.#takePayload(this.#collected.subarray(0, this.#need));
    }
  }

  #takeMagic(magic: number): void {
    const { extended, structured } = this.#export;
    if (extended) {
      if (magic === NBD_EXTENDED_REPLY_MAGIC) {
        return this.#collect('header', NBD_HEADER.EXTENDED_REPLY, 4);
      }
    } else if (magic === NBD_SIMPLE_REPLY_MAGIC) {
      return this.#collect('header', NBD_HEADER.SIMPLE_REPLY, 4);
    } else if (structured && magic === NBD_STRUCTURED_REPLY_MAGIC) {
      return this.#collect('header', NBD_HEADER.STRUCTURED_REPLY, 4);
    }
    return this.#broken(`a reply that starts with 0x${magic.toString(16)}`);
  }

  #find(high: number, low: number): ClientRequest | null {
    const request = this.#requests[low];
    if (request?.awaited === true && request.serial === high) return request;
    this.#broken('a reply to nothing that was asked');
    return null;
  }

  #takeSimple(view: DataView): void {
    const error = view.getUint32(4);
    const request = this.#find(view.getUint32(8), view.getUint32(12));
    if (request === null) return;
    this.#chunkFlags = NBD_REPLY_FLAG_DONE;
    if (error !== 0) {
      this.#noteError(request, error);
      return this.#endMessage(request);
    }
    if (request.command !== NBD_CMD.READ) return this.#endMessage(request);
    if (this.#export.structured) return this.#broken('a simple reply to a structured read');
    return this.#expectData(request, request.offset, request.length);
  }

  #takeChunk(view: DataView): void {
    const request = this.#find(view.getUint32(8), view.getUint32(12));
    if (request === null) return;
    this.#replyOf = request;
    this.#chunkFlags = view.getUint16(4);
    this.#chunkType = view.getUint16(6);
    const { extended } = this.#export;
    if (extended && readU64(view, 16) !== request.offset) {
      return this.#broken('a reply with the offset of another request');
    }
    this.#chunkLength = extended ? readU64(view, 24) : view.getUint32(16);
    switch (this.#chunkType) {
      case NBD_REPLY_TYPE.NONE:
        if (this.#chunkLength !== 0 || (this.#chunkFlags & NBD_REPLY_FLAG_DONE) === 0) break;
        return this.#endMessage(request);
      case NBD_REPLY_TYPE.OFFSET_DATA:
        if (this.#chunkLength < 9) break;
        return this.#collect('offset', 8, 0);
      case NBD_REPLY_TYPE.OFFSET_HOLE:
        if (this.#chunkLength !== 12) break;
        return this.#collect('payload', 12, 0);
      default:
        if (this.#chunkLength === 0 || this.#chunkLength > this.#payloadLimit()) break;
        return this.#collect('payload', this.#chunkLength, 0);
    }
    return this.#broken(`a chunk of type ${this.#chunkType} and ${this.#chunkLength} bytes`);
  }

  /** The longest payload of the current chunk's type that is collected. */
  #payloadLimit(): number {
    const { extended } = this.#export;
    if ((this.#chunkType & NBD_REPLY_TYPE_ERROR_BIT) !== 0) return 6 + 8 + MAX_STRING_BYTES;
    // One of the two, whichever belongs to the headers in use [NBD proto "NBD_REPLY_TYPE_BLOCK_STATUS"].
    if (this.#chunkType === NBD_REPLY_TYPE.BLOCK_STATUS && !extended) {
      return 4 + 8 * MAX_STATUS_DESCRIPTORS;
    }
    if (this.#chunkType === NBD_REPLY_TYPE.BLOCK_STATUS_EXT && extended) {
      return 8 + 16 * MAX_STATUS_DESCRIPTORS;
    }
    return 0;
  }

  #takeOffset(offset: number): void {
    return this.#expectData(this.#replyOf as ClientRequest, offset, this.#chunkLength - 8);
  }

  #expectData(request: ClientRequest, offset: number, length: number): void {
    const wrong = request.takeData(offset, length);
    if (wrong !== null) return this.#broken(wrong);
    this.#replyOf = request;
    this.#dataAt = offset;
    this.#dataLeft = length;
  }

  #takePayload(payload: Uint8Array): void {
    const request = this.#replyOf as ClientRequest;
    let wrong: string | null = null;
    if ((this.#chunkType & NBD_REPLY_TYPE_ERROR_BIT) !== 0) {
      const chunk = decodeErrorChunk(this.#chunkType, payload);
      if (chunk === null) wrong = 'a malformed error chunk';
      else this.#noteError(request, chunk.error);
    } else if (this.#chunkType === NBD_REPLY_TYPE.OFFSET_HOLE) {
      const view = viewOf(payload);
      wrong = request.takeHole(readU64(view, 0), view.getUint32(8));
    } else {
      const chunk = decodeStatusChunk(this.#chunkType, payload);
      wrong = chunk === null ? 'a malformed block status' : request.takeStatus(chunk);
    }
    // A large block status leaves no large buffer behind.
    if (this.#collected.length > 65536) this.#collected = new Uint8Array(64);
    if (wrong !== null) return this.#broken(wrong);
    return this.#endMessage(request);
  }

  #noteError(request: ClientRequest, error: number): void {
    request.error ??= codeOfNbdError(error);
    const stable = request.command === NBD_CMD.FLUSH || (request.flags & NBD_CMD_FLAG.FUA) !== 0;
    if (stable && (request.command === NBD_CMD.FLUSH || request.error === 'EIO')) {
      this.#syncFailed ??= request.error;
    }
    // "If the client receives an NBD_ESHUTDOWN error it MUST initiate a soft disconnect."
    if (error === NBD_ERROR.ESHUTDOWN) this.disconnect();
  }

  /** One reply message is whole; when it is the last of its reply, the request is done. */
  #endMessage(request: ClientRequest): void {
    this.#collect('magic', 4, 0);
    this.#replyOf = null;
    if ((this.#chunkFlags & NBD_REPLY_FLAG_DONE) === 0) return;
    request.awaited = false;
    if (request.error === null) {
      const wrong = request.takeSuccess();
      if (wrong !== null) return this.#broken(wrong);
    }
    // Answered before all of it was sent: the Io's memory is still needed.
    if (request === this.#payloadOf) return;
    this.#proceed(request);
    if (this.#waiting.length > 0 || this.#outgoing.length > 0 || this.#disconnecting) {
      this.#host.wake();
    }
  }
}
