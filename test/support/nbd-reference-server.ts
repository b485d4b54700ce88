import assert from 'node:assert/strict';
import type { Prng } from '../../src/base/prng.ts';
import type { NegotiatedExport } from '../../src/protocols/nbd/client-handshake.ts';
import { NBD_CMD, NBD_CMD_FLAG, NBD_ERROR, NBD_FLAG } from '../../src/protocols/nbd/wire.ts';

export interface SeenRequest {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly cookie: bigint;
  readonly payload: Buffer;
}

const MAGIC = { compact: 0x25609513, extended: 0x21e41c71 };

/**
 * A second, plain implementation of the server's transmission phase after the specification, on one Buffer: it shares
 * no code with ours but the constants' names. Replies come in random order, cut into random chunks.
 */
export class ReferenceServer {
  readonly disk: Buffer;
  readonly seen: SeenRequest[] = [];
  /** Answers a request with an error: a value of NBD_ERROR, or null for no error. */
  fail: (request: SeenRequest) => number | null = () => null;
  disconnected = false;
  /** Requests that are not answered yet. */
  readonly waiting: SeenRequest[] = [];
  readonly #export: NegotiatedExport;
  readonly #random: Prng;
  #incoming: Buffer = Buffer.alloc(0);

  constructor(negotiated: NegotiatedExport, random: Prng) {
    this.#export = negotiated;
    this.#random = random;
    this.disk = Buffer.alloc(negotiated.sizeBytes);
  }

  /** Takes bytes of the client, in any pieces. */
  receive(bytes: Uint8Array): void {
    this.#incoming = Buffer.concat([this.#incoming, bytes]);
    for (;;) {
      const taken = this.#parse(this.#incoming);
      if (taken === 0) return;
      this.#incoming = this.#incoming.subarray(taken);
    }
  }

  #parse(bytes: Buffer): number {
    const { extended, transmissionFlags } = this.#export;
    const headerBytes = extended ? 32 : 28;
    if (bytes.length < headerBytes) return 0;
    assert.ok(!this.disconnected, 'a request after NBD_CMD_DISC');
    assert.equal(bytes.readUInt32BE(0), extended ? MAGIC.extended : MAGIC.compact);
    const flags = bytes.readUInt16BE(4);
    const command = bytes.readUInt16BE(6);
    const length = extended ? Number(bytes.readBigUInt64BE(24)) : bytes.readUInt32BE(24);
    const hasPayload = extended
      ? (flags & NBD_CMD_FLAG.PAYLOAD_LEN) !== 0
      : command === NBD_CMD.WRITE;
    assert.equal(hasPayload, command === NBD_CMD.WRITE);
    const total = headerBytes + (hasPayload ? length : 0);
    if (bytes.length < total) return 0;
    const request = {
      command,
      flags: flags & ~NBD_CMD_FLAG.PAYLOAD_LEN,
      offset: Number(bytes.readBigUInt64BE(16)),
      length,
      cookie: bytes.readBigUInt64BE(8),
      payload: Buffer.from(bytes.subarray(headerBytes, total)),
    };
    this.#mayAsk(request, transmissionFlags);
    this.seen.push(request);
    if (command === NBD_CMD.DISC) this.disconnected = true;
    else this.waiting.push(request);
    return total;
  }

  /** A client must not use what was not advertised. */
  #mayAsk(request: SeenRequest, can: number): void {
    const { command, flags, offset, length } = request;
    const needs = [
      [command === NBD_CMD.FLUSH, NBD_FLAG.SEND_FLUSH],
      [command === NBD_CMD.TRIM, NBD_FLAG.SEND_TRIM],
      [command === NBD_CMD.WRITE_ZEROES, NBD_FLAG.SEND_WRITE_ZEROES],
      [command === NBD_CMD.CACHE, NBD_FLAG.SEND_CACHE],
      [(flags & NBD_CMD_FLAG.FUA) !== 0, NBD_FLAG.SEND_FUA],
      [(flags & NBD_CMD_FLAG.FAST_ZERO) !== 0, NBD_FLAG.SEND_FAST_ZERO],
    ] as const;
    for (const [used, flag] of needs) assert.ok(!used || (can & flag) !== 0, 'not advertised');
    if (command === NBD_CMD.FLUSH || command === NBD_CMD.DISC) {
      assert.deepEqual([offset, length], [0, 0]);
    } else {
      assert.ok(length > 0 && offset + length <= this.disk.length);
    }
    assert.ok(
      this.waiting.every((other) => other.cookie !== request.cookie),
      'a cookie in use',
    );
  }

  /** Answers one waiting request, any of them. Null when there is none. */
  answer(): Buffer | null {
    if (this.waiting.length === 0) return null;
    const index = this.#random.below(this.waiting.length);
    const [request] = this.waiting.splice(index, 1) as [SeenRequest];
    const error = this.fail(request);
    if (error !== null) return this.#error(request, error);
    this.#perform(request);
    if (request.command === NBD_CMD.READ) return this.#data(request);
    if (request.command === NBD_CMD.BLOCK_STATUS) return this.#status(request);
    return this.#done(request);
  }

  #perform(request: SeenRequest): void {
    const { command, offset, length } = request;
    if (command === NBD_CMD.WRITE) request.payload.copy(this.disk, offset);
    if (command === NBD_CMD.WRITE_ZEROES || command === NBD_CMD.TRIM) {
      this.disk.fill(0, offset, offset + length);
    }
  }

  #simple(request: SeenRequest, error: number, data: Buffer = Buffer.alloc(0)): Buffer {
    const header = Buffer.alloc(16);
    header.writeUInt32BE(0x67446698, 0);
    header.writeUInt32BE(error, 4);
    header.writeBigUInt64BE(request.cookie, 8);
    return Buffer.concat([header, data]);
  }

  #chunk(request: SeenRequest, type: number, done: boolean, payload: Buffer): Buffer {
    const { extended } = this.#export;
    const header = Buffer.alloc(extended ? 32 : 20);
    header.writeUInt32BE(extended ? 0x6e8a278c : 0x668e33ef, 0);
    header.writeUInt16BE(done ? 1 : 0, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(request.cookie, 8);
    if (extended) {
      header.writeBigUInt64BE(BigInt(request.offset), 16);
      header.writeBigUInt64BE(BigInt(payload.length), 24);
    } else {
      header.writeUInt32BE(payload.length, 16);
    }
    return Buffer.concat([header, payload]);
  }

  get #chunked(): boolean {
    return this.#export.structured || this.#export.extended;
  }

  #done(request: SeenRequest): Buffer {
    const simple = !this.#export.extended && (!this.#chunked || this.#random.chance(0.5));
    return simple ? this.#simple(request, 0) : this.#chunk(request, 0, true, Buffer.alloc(0));
  }

  #error(request: SeenRequest, error: number): Buffer {
    if (!this.#chunked) return this.#simple(request, error);
    const message = Buffer.from(this.#random.chance(0.5) ? 'it went wrong' : '');
    const payload = Buffer.alloc(6);
    payload.writeUInt32BE(error, 0);
    payload.writeUInt16BE(message.length, 4);
    const last = this.#random.chance(0.5);
    const at = Buffer.alloc(this.#random.chance(0.5) ? 8 : 0);
    if (at.length > 0) at.writeBigUInt64BE(BigInt(request.offset));
    const type = at.length > 0 ? 0x8002 : 0x8001;
    const chunk = this.#chunk(request, type, last, Buffer.concat([payload, message, at]));
    return last ? chunk : Buffer.concat([chunk, this.#chunk(request, 0, true, Buffer.alloc(0))]);
  }

  #data(request: SeenRequest): Buffer {
    const { offset, length } = request;
    const data = this.disk.subarray(offset, offset + length);
    if (!this.#chunked) return this.#simple(request, 0, data);
    const pieces: { start: number; end: number }[] = [];
    for (let start = offset; start < offset + length;) {
      const most = offset + length - start;
      const size = this.#random.chance(0.3) ? most : 1 + this.#random.below(most);
      pieces.push({ start, end: start + size });
      start += size;
    }
    for (let i = pieces.length - 1; i > 0; i -= 1) {
      const j = this.#random.below(i + 1);
      [pieces[i], pieces[j]] = [pieces[j] as (typeof pieces)[0], pieces[i] as (typeof pieces)[0]];
    }
    const last = this.#random.chance(0.5);
    const chunks = pieces.map(({ start, end }, i) => {
      const bytes = this.disk.subarray(start, end);
      const done = last && i === pieces.length - 1;
      const at = Buffer.alloc(8);
      at.writeBigUInt64BE(BigInt(start));
      if (bytes.some((byte) => byte !== 0)) {
        return this.#chunk(request, 1, done, Buffer.concat([at, bytes]));
      }
      const size = Buffer.alloc(4);
      size.writeUInt32BE(bytes.length);
      return this.#chunk(request, 2, done, Buffer.concat([at, size]));
    });
    if (!last) chunks.push(this.#chunk(request, 0, true, Buffer.alloc(0)));
    return Buffer.concat(chunks);
  }

  /** 512 byte blocks, holes where all is zero; the last extent may go on beyond what was asked. */
  #status(request: SeenRequest): Buffer {
    const { extended, baseAllocationId } = this.#export;
    const one = (request.flags & NBD_CMD_FLAG.REQ_ONE) !== 0;
    const extents: [number, number][] = [];
    const end =
      one || this.#random.chance(0.5) ? request.offset + request.length : this.disk.length;
    for (let at = request.offset; at < end; at += 512) {
      const block = this.disk.subarray(at, Math.min(at + 512, end));
      const state = block.some((byte) => byte !== 0) ? 0 : 3;
      const current = extents.at(-1);
      if (current !== undefined && current[1] === state) current[0] += block.length;
      else if (one && extents.length === 1) break;
      else if (at < request.offset + request.length) extents.push([block.length, state]);
      else break;
    }
    const out = Buffer.alloc(extended ? 8 + 16 * extents.length : 4 + 8 * extents.length);
    out.writeUInt32BE(baseAllocationId as number, 0);
    if (extended) out.writeUInt32BE(extents.length, 4);
    extents.forEach(([length, state], i) => {
      if (extended) {
        out.writeBigUInt64BE(BigInt(length), 8 + 16 * i);
        out.writeBigUInt64BE(BigInt(state), 16 + 16 * i);
      } else {
        out.writeUInt32BE(length, 4 + 8 * i);
        out.writeUInt32BE(state, 8 + 8 * i);
      }
    });
    const type = extended ? 6 : 5;
    if (this.#random.chance(0.5)) return this.#chunk(request, type, true, out);
    return Buffer.concat([
      this.#chunk(request, type, false, out),
      this.#chunk(request, 0, true, Buffer.alloc(0)),
    ]);
  }
}

/** One of the errors that a server may answer. */
export const ANY_ERRORS: readonly number[] = [...Object.values(NBD_ERROR), 4, 0xffffffff];
