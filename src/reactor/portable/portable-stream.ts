import type net from 'node:net';
import { assert } from '../../base/assert.ts';
import { KiB } from '../../base/units.ts';
import type { Region, Segments } from '../../block/memory.ts';
import { formatLocal } from '../socket-error.ts';
import type { Stream, StreamOwner, TlsSettings } from '../reactor.ts';
import { startTls } from '../tls.ts';
import { negatedErrno } from './errno.ts';
import { libcOrNull } from './libc.ts';

/** What may wait unread before the socket is left alone: one of libuv’s 64 KiB reads, so that many connections stay cheap. */
const READ_AHEAD_BYTES = 64 * KiB;
/** What a chunk counts at least: a peer that sends single bytes must not fill memory with small objects. */
const CHUNK_BYTES_MIN = 512;

/** How long close waits for a peer that reads nothing. */
const GOODBYE_MS = 1000;

const EPIPE = 32;
const ECONNABORTED = 103;
// [poll(2)]; the number is the same on all architectures Node runs on.
const POLLRDHUP = 0x2000;

/**
 * A Stream over a net.Socket. Node pushes and we pull: what arrives early waits in a short queue and is copied into
 * the owner's memory when asked for. So the kernel never holds a pointer into memory that is received into.
 */
export class PortableStream implements Stream {
  owner: StreamOwner = NOBODY;
  readonly peer: string;
  /** The descriptor, for questions only. */
  readonly #fd: number;
  #socket: net.Socket;
  #secured = false;

  #chunks: Uint8Array[] = [];
  #queuedBytes = 0;
  /** The same with CHUNK_BYTES_MIN: what the limit is about. */
  #queuedCost = 0;
  #paused = false;

  #region: Region | null = null;
  #start = 0;
  #length = 0;
  #sending = 0;

  /** The peer has ended its side. */
  #ended = false;
  /** The socket is closed: no call-back of it will come any more. */
  #dead = false;
  #error = 0;
  #closing = false;
  #closed: (() => void) | null = null;

  constructor(socket: net.Socket, peer: string) {
    this.#socket = socket;
    this.peer = peer;
    this.#fd = descriptorOf(socket);
    this.#listen(socket);
  }

  receive(region: Region, start: number, length: number): void {
    assert(this.#region === null, 'two receives outstanding on one stream');
    assert(!this.#closing && length > 0, 'a receive of nothing, or after close');
    this.#region = region;
    this.#start = start;
    this.#length = length;
    if (this.#queuedBytes > 0 || this.#ended || this.#dead) process.nextTick(this.#deliver);
  }

  send(segments: Segments): void {
    assert(this.#sending === 0, 'two sends outstanding on one stream');
    assert(!this.#closing && segments.totalBytes > 0, 'a send of nothing, or after close');
    this.#sending = segments.totalBytes;
    if (this.#dead) {
      process.nextTick(this.#failSend);
      return;
    }
    const socket = this.#socket;
    const last = segments.count - 1;
    if (last > 0) socket.cork();
    // libuv keeps pointers into the memory until the call-back: a part may wait in its queue.
    for (let i = 0; i < last; i += 1) socket.write(segments.bytesAt(i));
    socket.write(segments.bytesAt(last), this.#onSent);
    if (last > 0) socket.uncork();
  }

  local(): string | null {
    const { localAddress: host, localPort: port } = this.#socket;
    return host === undefined || port === undefined ? null : formatLocal(host, port);
  }

  peerGone(): boolean {
    if (this.#ended || this.#dead || this.#socket.destroyed) return true;
    const libc = libcOrNull();
    // Without poll(2) an end behind unread bytes is seen only once those are read.
    return libc !== null && this.#fd >= 0 && (libc.pollNow(this.#fd, POLLRDHUP) & POLLRDHUP) !== 0;
  }

  close(closed: () => void): void {
    assert(!this.#closing, 'a stream is closed twice');
    this.#closing = true;
    this.#closed = closed;
    this.#dropQueue();
    if (this.#dead) process.nextTick(this.#finishClose);
    else if (this.#secured && this.#sending === 0) this.#sayGoodbye();
    else this.#socket.destroy();
  }

  /** TLS tells the peer that this is the end and no cut wire [RFC 8446 6.1], if it can be told. */
  #sayGoodbye(): void {
    const socket = this.#socket;
    const timer = setTimeout(() => socket.destroy(), GOODBYE_MS);
    socket.once('close', () => clearTimeout(timer));
    socket.destroySoon();
  }

  /** For the reactor's own end: the owner sees the connection break. */
  destroy(): void {
    this.#socket.destroy();
  }

  startTls(settings: TlsSettings, ready: (error: string | null) => void): void {
    assert(this.#region === null && this.#sending === 0, 'TLS starts between requests');
    const socket = this.#socket;
    if (this.#ended || this.#dead) {
      process.nextTick(ready, 'the peer closed the connection before the TLS handshake');
      return;
    }
    socket.pause();
    socket.removeListener('data', this.#onData).removeListener('end', this.#onEnd);
    // The client may have begun already. What it sent goes through TLS: nothing sent before is ever taken as secret.
    if (this.#queuedBytes > 0) socket.unshift(Buffer.concat(this.#chunks));
    this.#dropQueue();
    this.#paused = false;
    startTls(socket, settings).then(
      (secured) => {
        // After close the owner waits for nothing but `closed`.
        if (this.#closing) return;
        if (this.#dead || secured.destroyed) {
          ready('the connection closed right after the TLS handshake');
          return;
        }
        // From here only the outer socket's close counts: it comes last.
        socket.removeListener('close', this.#onClose);
        this.#socket = secured;
        this.#secured = true;
        this.#listen(secured);
        ready(null);
      },
      (error: Error) => {
        if (!this.#closing) ready(error.message);
      },
    );
  }

  #listen(socket: net.Socket): void {
    socket.on('error', this.#onError);
    socket.on('end', this.#onEnd);
    socket.on('close', this.#onClose);
    socket.on('data', this.#onData);
  }

  readonly #onData = (chunk: Uint8Array): void => {
    if (this.#closing) return;
    this.#chunks.push(chunk);
    this.#queuedBytes += chunk.length;
    this.#queuedCost += Math.max(chunk.length, CHUNK_BYTES_MIN);
    if (this.#region !== null) this.#deliver();
    if (this.#queuedCost >= READ_AHEAD_BYTES && !this.#paused) {
      this.#paused = true;
      this.#socket.pause();
    }
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    if (this.#region !== null) this.#deliver();
  };

  readonly #onError = (error: Error): void => {
    if (this.#error === 0) this.#error = negatedErrno(error);
  };

  readonly #onClose = (): void => {
    this.#dead = true;
    this.#failSend();
    if (this.#region !== null) this.#deliver();
    if (this.#closed !== null) this.#finishClose();
  };

  readonly #onSent = (error?: Error | null): void => {
    if (this.#sending === 0) return;
    if (error instanceof Error) {
      this.#onError(error);
      this.#failSend();
      return;
    }
    this.#sending = 0;
    this.owner.sent(0);
  };

  readonly #failSend = (): void => {
    if (this.#sending === 0) return;
    this.#sending = 0;
    this.owner.sent(this.#error === 0 ? -EPIPE : this.#error);
  };

  /** Completes the outstanding receive with what there is. */
  readonly #deliver = (): void => {
    const region = this.#region;
    if (region === null) return;
    // A tick that `receive` ordered, overtaken by data that arrived and was delivered: this is the next receive's.
    const nothing = this.#queuedBytes === 0 && !this.#ended && !this.#dead && !this.#closing;
    if (nothing) return;
    this.#region = null;
    if (this.#closing) this.owner.received(0);
    else if (this.#queuedBytes > 0) this.owner.received(this.#take(region));
    else if (this.#error !== 0) this.owner.received(this.#error);
    else this.owner.received(this.#ended ? 0 : -ECONNABORTED);
  };

  #take(region: Region): number {
    let done = 0;
    let used = 0;
    for (const chunk of this.#chunks) {
      const room = this.#length - done;
      if (room === 0) break;
      const part = chunk.length > room ? chunk.subarray(0, room) : chunk;
      region.bytes.set(part, this.#start + done);
      done += part.length;
      this.#queuedCost -= Math.max(chunk.length, CHUNK_BYTES_MIN);
      if (part.length < chunk.length) {
        const rest = chunk.subarray(room);
        this.#chunks[used] = rest;
        this.#queuedCost += Math.max(rest.length, CHUNK_BYTES_MIN);
        break;
      }
      used += 1;
    }
    this.#chunks.splice(0, used);
    this.#queuedBytes -= done;
    if (this.#paused && this.#queuedCost < READ_AHEAD_BYTES / 2) {
      this.#paused = false;
      this.#socket.resume();
    }
    return done;
  }

  #dropQueue(): void {
    this.#chunks = [];
    this.#queuedBytes = 0;
    this.#queuedCost = 0;
  }

  readonly #finishClose = (): void => {
    const closed = this.#closed;
    if (closed === null) return;
    // A receive or send made just before still owes its completion.
    this.#failSend();
    if (this.#region !== null) this.#deliver();
    this.#closed = null;
    closed();
  };
}

const NOBODY: StreamOwner = {
  received: () => assert(false, 'a stream without an owner received'),
  sent: () => assert(false, 'a stream without an owner sent'),
};

/** The descriptor under a socket, or -1: Node shows it only through its handle. */
function descriptorOf(socket: net.Socket): number {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } | null };
  return handle?.fd ?? -1;
}
