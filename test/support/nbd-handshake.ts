import assert from 'node:assert/strict';
import type { DeviceInfo } from '../../src/block/device.ts';
import {
  type ExportInfo,
  type HandshakeHost,
  type HandshakeResult,
  type Refusal,
  ServerHandshake,
  type TlsMode,
} from '../../src/protocols/nbd/handshake.ts';
import {
  decodeOptionReplyHeader,
  encodeOption,
  NBD_HEADER,
  NBD_OPT,
  NBD_REP,
} from '../../src/protocols/nbd/wire.ts';

export const DISK_INFO: DeviceInfo = Object.freeze({
  name: '/srv/disk.img',
  sizeBytes: 1048576,
  blockBytes: 512,
  preferredBytes: 4096,
  maxTransferBytes: 1048576,
  readOnly: false,
  writeCache: true,
  ignoresFlush: false,
  fua: 'native',
  discard: true,
  fastZero: true,
  extents: true,
  rotational: false,
  memoryAlignment: 1,
} satisfies DeviceInfo);

export function makeExport(
  name: string,
  info: Partial<DeviceInfo> = {},
  rest: Partial<ExportInfo> = {},
): ExportInfo {
  return {
    name,
    description: '',
    multiConn: true,
    ...rest,
    info: Object.freeze({ ...DISK_INFO, ...info }),
  };
}

/** A connection that only writes down what the handshake does. */
export class RecordingHost implements HandshakeHost {
  readonly exports: readonly ExportInfo[];
  /** What `open` answers: at once, or when the test calls `opening`. */
  refusal: Refusal | null = null;
  asynchronous = false;
  opening: ((refused: Refusal | null) => void) | null = null;
  readonly opened: string[] = [];
  sent: Uint8Array[] = [];
  sentBytes = 0;
  tlsStarts = 0;
  result: HandshakeResult | null = null;
  closed: string | null = null;

  constructor(exports: readonly ExportInfo[]) {
    this.exports = exports;
  }

  send(bytes: Uint8Array): void {
    this.#alive();
    this.sent.push(bytes);
    this.sentBytes += bytes.length;
  }

  startTls(): void {
    this.#alive();
    this.tlsStarts += 1;
  }

  lookup(name: string): ExportInfo | null {
    return this.exports.find((each) => each.name === name) ?? null;
  }

  list(): readonly ExportInfo[] {
    return this.exports;
  }

  open(name: string, ready: (refused: Refusal | null) => void): void {
    this.#alive();
    this.opened.push(name);
    if (this.asynchronous) this.opening = ready;
    else ready(this.refusal);
  }

  negotiated(result: HandshakeResult): void {
    this.#alive();
    this.result = result;
  }

  close(reason: string): void {
    this.#alive();
    this.closed = reason;
  }

  #alive(): void {
    assert.ok(this.closed === null && this.result === null, 'the handshake goes on after its end');
  }

  /** What was sent since the last call. */
  take(): Buffer {
    const bytes = Buffer.concat(this.sent);
    this.sent = [];
    return bytes;
  }
}

export interface Reply {
  readonly option: number;
  readonly type: number;
  readonly payload: Buffer;
}

/** Splits option replies. Fails when they are not whole. */
export function splitReplies(bytes: Buffer): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + NBD_HEADER.OPTION_REPLY;
    const header = decodeOptionReplyHeader(bytes.subarray(at, end));
    assert.ok(header !== null, 'no option reply');
    assert.ok(end + header.length <= bytes.length, 'an option reply is cut off');
    const payload = bytes.subarray(end, end + header.length);
    replies.push({ option: header.option, type: header.type, payload });
    at = end + header.length;
  }
  return replies;
}

/** Feeds everything, as the server's connection does; returns what was not consumed. */
export function feed(handshake: ServerHandshake, bytes: Uint8Array): Uint8Array {
  let rest = bytes;
  while (rest.length > 0 && handshake.state === 'negotiating') {
    rest = rest.subarray(handshake.receive(rest));
  }
  return rest;
}

/** A client's side written by hand: greeting and flags are done, options go one by one. */
export class HandClient {
  readonly host: RecordingHost;
  readonly handshake: ServerHandshake;
  readonly greeting: Buffer;

  constructor(host: RecordingHost, tlsMode: TlsMode = 'off', flags = 3) {
    this.host = host;
    this.handshake = new ServerHandshake(host, tlsMode);
    this.handshake.start();
    this.greeting = host.take();
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, flags);
    feed(this.handshake, bytes);
  }

  /** Sends an option and returns the raw answer. */
  raw(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
    assert.equal(feed(this.handshake, encodeOption(option, data)).length, 0);
    return this.host.take();
  }

  /** Sends an option and returns its replies. */
  ask(option: number, data?: Uint8Array): Reply[] {
    const replies = splitReplies(this.raw(option, data));
    for (const reply of replies) assert.equal(reply.option, option);
    return replies;
  }

  /** The type of the final reply. */
  last(option: number, data?: Uint8Array): number {
    const replies = this.ask(option, data);
    const last = replies.at(-1);
    assert.ok(last !== undefined, 'no reply');
    for (const reply of replies.slice(0, -1))
      assert.ok(reply.type !== NBD_REP.ACK && reply.type < 2 ** 31);
    return last.type;
  }

  /** Negotiates structured replies. */
  structured(): this {
    assert.equal(this.last(NBD_OPT.STRUCTURED_REPLY), NBD_REP.ACK);
    return this;
  }
}
