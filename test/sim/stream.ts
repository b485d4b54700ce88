import { assert } from '../../src/base/assert.ts';
import type { Prng } from '../../src/base/prng.ts';
import type { Region, Segments } from '../../src/block/memory.ts';
import type { Stream, StreamOwner, TlsSettings } from '../../src/reactor/reactor.ts';
import { Fifo } from '../../src/base/fifo.ts';
import type { SimReactor } from './clock.ts';

const EPIPE = -32;
const ECONNRESET = -104;

/** How a simulated network treats bytes. */
export interface NetworkTraits {
  /** The longest piece in which bytes travel. */
  readonly pieceBytes: number;
  readonly delayMs: number;
  /** What may be under way to a client that does not read. */
  readonly windowBytes: number;
}

/** The client's end. */
export interface StreamPeer {
  /** The server has handed these bytes to its kernel: from now on it may have told the client what they say. */
  told(bytes: Uint8Array): void;
  /** Bytes arrived at the client. */
  heard(count: number): void;
  /** The server has taken bytes out of its socket. */
  taken(count: number): void;
  /** The server has closed, or died. */
  hungUp(): void;
}

/** The most pieces of one message, about. */
const MAX_PIECES = 50;

const NOBODY: StreamOwner = {
  received: () => {},
  sent: () => {},
};

/**
 * One connection in memory: the server's Stream, and the client's calls on the other end. Bytes travel in pieces of any
 * size with any delay, in order; either end can be cut off at any byte.
 */
export class SimStream implements Stream {
  owner: StreamOwner = NOBODY;
  readonly peer: string;
  readonly client: StreamPeer;
  readonly #reactor: SimReactor;
  readonly #prng: Prng;
  readonly #network: NetworkTraits;
  /** In the server's socket, not yet received. */
  readonly #arrived = new Fifo<Uint8Array>();
  /** How much of the first has been received. */
  #firstDone = 0;
  /** On the wire to the server. */
  readonly #travelling = new Fifo<Uint8Array>();
  #travellingBytes = 0;
  #region: Region | null = null;
  #start = 0;
  #length = 0;
  #delivering = false;
  #sending: Segments | null = null;
  /** What `#sending` held when it was handed over. */
  #copy = new Uint8Array(0);
  #taken = 0;
  /** Bytes under way to the client. */
  #flying = 0;
  #stalled = false;
  #clientGone = false;
  #reset = false;
  /** The server has closed. */
  #closed = false;
  /** And nothing of it touches memory any more. */
  #over = false;

  constructor(
    reactor: SimReactor,
    prng: Prng,
    network: NetworkTraits,
    peer: string,
    client: StreamPeer,
  ) {
    this.#reactor = reactor;
    this.#prng = prng;
    this.#network = network;
    this.peer = peer;
    this.client = client;
  }

  // The server's end.

  receive(region: Region, start: number, length: number): void {
    assert(this.#region === null, 'two receives outstanding on one stream');
    assert(!this.#closed && length > 0, 'a receive of nothing, or after close');
    this.#region = region;
    this.#start = start;
    this.#length = length;
    this.#deliverSoon();
  }

  send(segments: Segments): void {
    assert(this.#sending === null, 'two sends outstanding on one stream');
    assert(!this.#closed && segments.totalBytes > 0, 'a send of nothing, or after close');
    this.#sending = segments;
    this.#copy = new Uint8Array(segments.totalBytes);
    segments.copyTo(this.#copy);
    this.#taken = 0;
    if (!this.#clientGone) this.client.told(this.#copy);
    this.#later(() => this.#take());
  }

  peerGone(): boolean {
    return this.#clientGone;
  }

  close(closed: () => void): void {
    assert(!this.#closed, 'a stream is closed twice');
    this.#closed = true;
    this.#later(() => {
      if (this.#region !== null) {
        this.#region = null;
        this.owner.received(0);
      }
      if (this.#sending !== null) {
        this.#sending = null;
        this.owner.sent(ECONNRESET);
      }
      this.#over = true;
      this.#hangUp();
      closed();
    });
  }

  /** The client sees the end behind all that was sent. */
  #hangUp(): void {
    if (!this.#over || this.#flying > 0 || this.#clientGone) return;
    this.#clientGone = true;
    this.client.hungUp();
  }

  startTls(_settings: TlsSettings, ready: (error: string | null) => void): void {
    this.#later(() => ready('no TLS in the simulator'));
  }

  // The client's end.

  get clientGone(): boolean {
    return this.#clientGone;
  }

  /** The client sends. */
  write(bytes: Uint8Array): void {
    if (this.#clientGone) return;
    // A long message in single bytes would only take long.
    const most = Math.max(this.#network.pieceBytes, bytes.length / MAX_PIECES);
    this.#travellingBytes += bytes.length;
    for (let at = 0; at < bytes.length;) {
      const piece = 1 + this.#prng.below(most);
      this.#travelling.push(bytes.subarray(at, at + piece));
      at += piece;
      this.#later(() => this.#arrive());
    }
  }

  /** The client does not read for a while. */
  stall(ms: number): void {
    if (this.#stalled) return;
    this.#stalled = true;
    this.#reactor.after(ms, () => {
      this.#stalled = false;
      if (this.#sending !== null) this.#take();
    });
  }

  /**
   * The client goes away without a word. What it has sent is on its way to the server's socket or lost, cut off at any
   * byte; with `reset` even what is in the socket may be thrown away.
   */
  cut(reset: boolean): void {
    if (this.#clientGone) return;
    let left = this.#prng.below(this.#travellingBytes + 1);
    for (let piece = this.#travelling.shift(); piece !== undefined;) {
      const part = piece.subarray(0, left);
      left -= part.length;
      if (part.length > 0) this.#arrived.push(part);
      piece = this.#travelling.shift();
    }
    this.#clientGone = true;
    this.#reset = reset;
    this.#deliverSoon();
  }

  // In between.

  #later(callback: () => void): void {
    const delay = this.#prng.chance(0.3) ? 0 : this.#prng.float() * this.#network.delayMs;
    this.#reactor.after(delay, callback);
  }

  #arrive(): void {
    const piece = this.#travelling.shift();
    if (piece === undefined) return;
    this.#travellingBytes -= piece.length;
    this.#arrived.push(piece);
    this.#deliverSoon();
  }

  #deliverSoon(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    this.#later(() => {
      this.#delivering = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    const region = this.#region;
    if (region === null || this.#closed) return;
    if (this.#reset && this.#prng.chance(0.5)) {
      this.#region = null;
      this.owner.received(ECONNRESET);
      return;
    }
    const most = this.#prng.chance(0.2) ? 1 + this.#prng.below(64) : this.#length;
    let count = 0;
    while (count < Math.min(most, this.#length) && this.#arrived.length > 0) {
      const piece = this.#arrived.peek() as Uint8Array;
      const from = this.#firstDone;
      const part = piece.subarray(from, from + Math.min(most, this.#length) - count);
      region.bytes.set(part, this.#start + count);
      count += part.length;
      this.#firstDone += part.length;
      if (this.#firstDone === piece.length) {
        this.#arrived.shift();
        this.#firstDone = 0;
      }
    }
    if (count === 0 && !this.#clientGone) return;
    this.#region = null;
    if (count > 0) this.client.taken(count);
    this.owner.received(count);
  }

  /** The kernel takes the next piece of what is being sent. */
  #take(): void {
    const segments = this.#sending;
    if (segments === null || this.#closed) return;
    if (this.#clientGone) {
      this.#sending = null;
      this.owner.sent(EPIPE);
      return;
    }
    const room = this.#network.windowBytes - this.#flying;
    if (this.#stalled || room <= 0) return;
    const left = this.#copy.length - this.#taken;
    const most = Math.max(this.#network.pieceBytes, this.#copy.length / MAX_PIECES);
    const count = Math.min(left, room, this.#prng.chance(0.5) ? left : 1 + this.#prng.below(most));
    const now = new Uint8Array(count);
    segments.copyTo(now, this.#taken);
    const then = this.#copy.subarray(this.#taken, this.#taken + count);
    assert(Buffer.compare(now, then) === 0, 'memory was changed while it was being sent');
    this.#taken += count;
    this.#flying += count;
    this.#later(() => {
      this.#flying -= count;
      if (!this.#clientGone) this.client.heard(count);
      this.#hangUp();
      if (this.#sending !== null) this.#take();
    });
    if (this.#taken < this.#copy.length) this.#later(() => this.#take());
    else {
      this.#sending = null;
      this.owner.sent(this.#copy.length);
    }
  }
}
