import { unreachable } from '../../base/assert.ts';
import type { DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { EXTENT } from '../../block/extents.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import type { NegotiatedExport } from './client-handshake.ts';
import { Coverage } from './coverage.ts';
import { NBD_CMD, NBD_CMD_FLAG, NBD_FLAG, type StatusChunk } from './wire.ts';

/** The longest TRIM or WRITE_ZEROES in one request: long enough to be cheap, short enough for any server. */
const MAX_EFFECT_BYTES = 2 ** 30;
/** The longest BLOCK_STATUS question of a compact request, whose length has 32 bits. */
const MAX_STATUS_BYTES = 2 ** 31;

type Stage = 'before' | 'body' | 'after' | 'end';

/**
 * One Io of our client on its way, reused. It becomes one request, or several in turn: pieces where the wire cannot
 * say the length, a flush after where the server knows no FUA, a flush before and after for a barrier.
 */
export class ClientRequest {
  /** The low half of the cookie: the place in the session's table. */
  readonly index: number;
  /** The high half: counts the requests made here, so that a stale reply is recognised. */
  serial = 0;
  io: Io | null = null;
  /** A reply is due. */
  awaited = false;
  error: BlockErrorCode | null = null;

  // The request to send, valid after `next` returned true.
  command: number = NBD_CMD.READ;
  flags = 0;
  offset = 0;
  length = 0;
  /** Bytes that follow the header. They are the Io's data, or zeroes when `sendsZeroes`. */
  payload = 0;
  sendsZeroes = false;

  readonly #export: NegotiatedExport;
  readonly #info: DeviceInfo;
  readonly #coverage: Coverage = new Coverage();
  #stage: Stage = 'end';
  /** Bytes of the Io that requests have been made for. */
  #asked = 0;

  constructor(index: number, negotiated: NegotiatedExport, info: DeviceInfo) {
    this.index = index;
    this.#export = negotiated;
    this.#info = info;
  }

  begin(io: Io): void {
    this.io = io;
    this.error = null;
    this.#asked = 0;
    this.#stage = 'before';
  }

  /** Prepares the next request of this Io. False: there is none, and `error` is the Io's outcome. */
  next(): boolean {
    const io = this.io as Io;
    if (this.error !== null) return false;
    const barrier = io.mutates && (io.flags & FLAG.BARRIER) !== 0;
    if (this.#stage === 'before') {
      this.#stage = 'body';
      if (barrier && this.#can(NBD_FLAG.SEND_FLUSH)) return this.#make(NBD_CMD.FLUSH, 0, 0, 0);
    }
    if (this.#stage === 'body') {
      if (this.#body(io)) return true;
      this.#stage = 'after';
      const stable = barrier || (io.mutates && (io.flags & FLAG.FUA) !== 0);
      const flush = stable && this.error === null && !this.#can(NBD_FLAG.SEND_FUA);
      if (flush && this.#can(NBD_FLAG.SEND_FLUSH)) return this.#make(NBD_CMD.FLUSH, 0, 0, 0);
    }
    this.#stage = 'end';
    return false;
  }

  #can(flag: number): boolean {
    return (this.#export.transmissionFlags & flag) !== 0;
  }

  #body(io: Io): boolean {
    switch (io.op) {
      case OP.READ:
        return this.#piece(io, NBD_CMD.READ, 0, this.#info.maxTransferBytes);
      case OP.WRITE:
        return this.#piece(io, NBD_CMD.WRITE, this.#fua(io), this.#info.maxTransferBytes);
      case OP.FLUSH:
        this.#stage = 'after';
        return this.#can(NBD_FLAG.SEND_FLUSH) && this.#make(NBD_CMD.FLUSH, 0, 0, 0);
      case OP.DISCARD:
        // A hint: without TRIM every block reads as it was, which is one of the two outcomes.
        if (!this.#can(NBD_FLAG.SEND_TRIM)) return false;
        return this.#piece(io, NBD_CMD.TRIM, this.#fua(io), MAX_EFFECT_BYTES);
      case OP.WRITE_ZEROES:
        return this.#zeroes(io);
      case OP.CACHE:
        if (!this.#can(NBD_FLAG.SEND_CACHE)) return false;
        // Servers may hold it to the maximum payload, as QEMU does.
        return this.#piece(io, NBD_CMD.CACHE, 0, this.#info.maxTransferBytes);
      case OP.EXTENTS:
        return this.#extents(io);
      default:
        return unreachable(io.op);
    }
  }

  #fua(io: Io): number {
    const stable = (io.flags & (FLAG.FUA | FLAG.BARRIER)) !== 0;
    return stable && this.#can(NBD_FLAG.SEND_FUA) ? NBD_CMD_FLAG.FUA : 0;
  }

  #zeroes(io: Io): boolean {
    const fast = (io.flags & FLAG.FAST) !== 0;
    if (fast && !this.#can(NBD_FLAG.SEND_FAST_ZERO)) {
      this.error = 'EOPNOTSUPP';
      return false;
    }
    if (!this.#can(NBD_FLAG.SEND_WRITE_ZEROES)) {
      return this.#piece(io, NBD_CMD.WRITE, this.#fua(io), this.#info.maxTransferBytes);
    }
    let flags = this.#fua(io);
    if (fast) flags |= NBD_CMD_FLAG.FAST_ZERO;
    if ((io.flags & FLAG.NO_HOLE) !== 0) flags |= NBD_CMD_FLAG.NO_HOLE;
    return this.#piece(io, NBD_CMD.WRITE_ZEROES, flags, MAX_EFFECT_BYTES);
  }

  #extents(io: Io): boolean {
    this.#stage = 'after';
    if (this.#export.baseAllocationId === null) {
      io.extents.push(io.length, 0);
      return false;
    }
    if (io.length === 0) return false;
    const limit = this.#export.extended ? io.length : MAX_STATUS_BYTES;
    const flags = (io.flags & FLAG.ONE) === 0 ? 0 : NBD_CMD_FLAG.REQ_ONE;
    return this.#make(NBD_CMD.BLOCK_STATUS, flags, io.offset, Math.min(io.length, limit));
  }

  /** The next part of the Io, of at most `limit` bytes. */
  #piece(io: Io, command: number, flags: number, limit: number): boolean {
    const length = Math.min(io.length - this.#asked, limit);
    if (length === 0) return false;
    const offset = io.offset + this.#asked;
    this.#asked += length;
    return this.#make(command, flags, offset, length);
  }

  #make(command: number, flags: number, offset: number, length: number): boolean {
    this.serial = (this.serial + 1) >>> 0;
    this.command = command;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.payload = 0;
    if (command === NBD_CMD.WRITE) {
      this.payload = length;
      this.sendsZeroes = this.io?.op === OP.WRITE_ZEROES;
      // [NBD proto extension-ext-header "NBD_CMD_FLAG_PAYLOAD_LEN"]
      if (this.#export.extended) this.flags |= NBD_CMD_FLAG.PAYLOAD_LEN;
    }
    if (command === NBD_CMD.READ) this.#coverage.reset(offset, offset + length);
    this.#statusSeen = false;
    return true;
  }

  // Replies. Each returns null, or how the server broke the protocol.

  #statusSeen = false;

  /** [start, start + length) of the device arrives. */
  takeData(start: number, length: number): string | null {
    if (this.command !== NBD_CMD.READ) return 'data in reply to a request that reads nothing';
    return this.#coverage.add(start, start + length);
  }

  takeHole(start: number, length: number): string | null {
    const wrong = this.takeData(start, length);
    if (wrong !== null) return wrong;
    const io = this.io as Io;
    const zeroes = ZEROES.subarray(0, Math.min(length, ZEROES.length));
    for (let done = 0; done < length; done += zeroes.length) {
      io.segments.copyFrom(
        zeroes.subarray(0, Math.min(zeroes.length, length - done)),
        start - io.offset + done,
      );
    }
    return null;
  }

  takeStatus(chunk: StatusChunk): string | null {
    if (this.command !== NBD_CMD.BLOCK_STATUS) return 'a block status that was not asked for';
    if (chunk.contextId !== this.#export.baseAllocationId) return 'the status of another context';
    if (this.#statusSeen) return 'two statuses of one context';
    this.#statusSeen = true;
    const io = this.io as Io;
    const { extents } = io;
    for (let i = 0; i < chunk.lengths.length; i += 1) {
      const rest = io.length - extents.totalBytes;
      const length = Math.min(chunk.lengths[i] as number, rest);
      const flags = (chunk.flags[i] as number) & (EXTENT.HOLE | EXTENT.ZERO);
      const before = extents.totalBytes;
      extents.push(length, flags);
      // Full, or the whole range is told: what follows would be taken for its continuation.
      if (extents.totalBytes === before) break;
    }
    return null;
  }

  /** The reply is whole and told of no error. */
  takeSuccess(): string | null {
    if (this.command === NBD_CMD.READ && !this.#coverage.whole)
      return 'a read without all its data';
    if (this.command === NBD_CMD.BLOCK_STATUS && !this.#statusSeen) return 'no block status';
    return null;
  }
}

const ZEROES = new Uint8Array(65536);
