import { assert } from '../../base/assert.ts';
import type { Region, Segments } from '../../block/memory.ts';
import { Completion, type Stream, type StreamOwner, type TlsSettings } from '../reactor.ts';
import * as sys from '../sys.ts';
import { IORING_OP, type Ring } from './ring.ts';
import type { Scratch } from './scratch.ts';
import { localName } from './sockets.ts';

// [send(2)]: the ring retries short sends itself with MSG_WAITALL (Linux 5.19); older ones come back short.
const MSG_WAITALL = 0x100;
const MSG_NOSIGNAL = 0x4000;
const POLLRDHUP = 0x2000;
const POLLHUP = 0x10;
const EPIPE = 32;

/** What a stream needs of its reactor. */
export interface StreamContext {
  readonly ring: Ring;
  readonly scratch: Scratch;
  defer(callback: () => void): void;
  /** Turns a connected TLS socket into one that carries the plain text. */
  bridgeTls(fd: number, settings: TlsSettings): Promise<number>;
}

class Receive extends Completion {
  readonly #stream: UringStream;
  constructor(stream: UringStream) {
    super();
    this.#stream = stream;
  }
  override complete(result: number): void {
    this.#stream.receiveDone(result);
  }
}

class Send extends Completion {
  readonly #stream: UringStream;
  constructor(stream: UringStream) {
    super();
    this.#stream = stream;
  }
  override complete(result: number): void {
    this.#stream.sendDone(result);
  }
}

/** A connected socket on the ring. */
export class UringStream implements Stream {
  owner!: StreamOwner;
  readonly peer: string;
  readonly #context: StreamContext;
  readonly #receive: Receive = new Receive(this);
  readonly #send: Send = new Send(this);
  #fd: number;
  #receiving = false;
  #sending: Segments | null = null;
  #sentBytes = 0;
  #closed: (() => void) | null = null;
  /** The bridge has been given the descriptor's number: it must not come to mean another one before that settles. */
  #bridging = false;

  constructor(context: StreamContext, fd: number, peer: string) {
    this.#context = context;
    this.#fd = fd;
    this.peer = peer;
  }

  receive(region: Region, start: number, length: number): void {
    assert(!this.#receiving && this.#closed === null, 'one receive at a time');
    this.#receiving = true;
    const address = region.address + start;
    this.#context.ring.prepare(this.#receive, IORING_OP.RECV, this.#fd, address, length, 0, 0);
  }

  send(segments: Segments): void {
    assert(this.#sending === null && this.#closed === null, 'one send at a time');
    this.#sending = segments;
    this.#sentBytes = 0;
    this.#sendRest(segments);
  }

  #sendRest(segments: Segments): void {
    const { ring, scratch } = this.#context;
    const flags = MSG_WAITALL | MSG_NOSIGNAL;
    if (segments.count === 1) {
      const region = segments.regions[0] as Region;
      const address = region.address + (segments.starts[0] as number) + this.#sentBytes;
      const length = segments.totalBytes - this.#sentBytes;
      ring.prepare(this.#send, IORING_OP.SEND, this.#fd, address, length, 0, flags);
    } else {
      scratch.prepareMessage(segments);
      const iovecs = scratch.iovecs(segments, this.#sentBytes);
      const message = scratch.msghdr(iovecs, scratch.count);
      ring.prepare(this.#send, IORING_OP.SENDMSG, this.#fd, message, 1, 0, flags);
    }
  }

  /** For Receive only. */
  receiveDone(result: number): void {
    this.#receiving = false;
    this.owner.received(result);
    this.#finishClose();
  }

  /** For Send only. */
  sendDone(result: number): void {
    const segments = this.#sending as Segments;
    if (result > 0) this.#sentBytes += result;
    if (result >= 0 && this.#sentBytes < segments.totalBytes && this.#closed === null) {
      this.#sendRest(segments);
      return;
    }
    const whole = this.#sentBytes === segments.totalBytes;
    this.#sending = null;
    this.owner.sent(whole ? 0 : result < 0 ? result : -EPIPE);
    this.#finishClose();
  }

  local(): string | null {
    return this.#closed === null ? localName(this.#fd) : null;
  }

  peerGone(): boolean {
    const events = sys.pollNow(this.#fd, POLLRDHUP, this.#context.scratch.region);
    return (events & (POLLRDHUP | POLLHUP)) !== 0;
  }

  close(closed: () => void): void {
    assert(this.#closed === null, 'a stream is closed once');
    this.#closed = closed;
    // Both directions: what is outstanding on the ring completes at once, with 0 or an error.
    sys.shutdown(this.#fd);
    this.#context.defer(() => this.#finishClose());
  }

  #finishClose(): void {
    if (this.#closed === null || this.#receiving || this.#sending !== null || this.#fd < 0) return;
    if (this.#bridging) return;
    this.#context.ring.forget(this.#receive);
    this.#context.ring.forget(this.#send);
    sys.close(this.#fd);
    this.#fd = -1;
    this.#closed();
  }

  startTls(settings: TlsSettings, ready: (error: string | null) => void): void {
    assert(!this.#receiving && this.#sending === null, 'TLS starts between messages');
    this.#bridging = true;
    this.#context.bridgeTls(this.#fd, settings).then(
      (plain) => {
        this.#bridging = false;
        if (this.#closed !== null) {
          sys.close(plain);
          this.#finishClose();
          return;
        }
        // The bridge has a descriptor of its own for the cipher text; this stream goes on with the plain side.
        sys.close(this.#fd);
        this.#fd = plain;
        ready(null);
      },
      (error: unknown) => {
        this.#bridging = false;
        this.#finishClose();
        if (this.#closed === null) ready(error instanceof Error ? error.message : String(error));
      },
    );
  }
}
