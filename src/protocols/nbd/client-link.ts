import { assert } from '../../base/assert.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { Segments } from '../../block/memory.ts';
import type { Page } from '../../reactor/page-pool.ts';
import type { Reactor, Stream, StreamOwner, TlsSettings } from '../../reactor/reactor.ts';

/** The protocol on one end of a link. */
export interface LinkUser {
  /** Puts bytes to send into `target` and returns how many; 0 when there are none now. */
  fill(target: Uint8Array): number;
  /** Takes what arrived. */
  receive(bytes: Uint8Array): void;
  /** The connection ended or broke; nothing arrives any more. */
  lost(reason: string): void;
}

/**
 * Joins a protocol without sockets to a stream of the reactor: one page of memory for what is sent, one for what
 * arrives. Sending is put off to the end of a batch, so that requests made together travel together.
 */
export class ClientLink implements StreamOwner {
  readonly #reactor: Reactor;
  readonly #stream: Stream;
  readonly #out: Page;
  readonly #in: Page;
  readonly #segments: Segments = new Segments();
  #user: LinkUser;
  #sending = false;
  #receiving = false;
  #paused = false;
  #woken = false;
  #lost: string | null = null;
  #closing = false;
  /** Called once sending has come to rest. */
  #whenIdle: (() => void) | null = null;

  private constructor(reactor: Reactor, stream: Stream, out: Page, incoming: Page, user: LinkUser) {
    this.#reactor = reactor;
    this.#stream = stream;
    this.#out = out;
    this.#in = incoming;
    this.#user = user;
    stream.owner = this;
  }

  /** Takes over a connected stream. */
  static async open(reactor: Reactor, stream: Stream, user: LinkUser): Promise<ClientLink> {
    const out = await takePage(reactor);
    const incoming = await takePage(reactor);
    return new ClientLink(reactor, stream, out, incoming, user);
  }

  /** For messages. */
  get peer(): string {
    return this.#stream.peer;
  }

  /** Begins to receive. Call once. */
  start(): void {
    this.#receive();
    this.wake();
  }

  /** Hands the link to another protocol, for what arrives from now on. */
  passTo(user: LinkUser): void {
    this.#user = user;
    if (this.#lost !== null) user.lost(this.#lost);
  }

  /** There is something to send. */
  wake(): void {
    if (this.#woken || this.#sending || this.#closing || this.#lost !== null) return;
    this.#woken = true;
    this.#reactor.defer(() => {
      this.#woken = false;
      this.#send();
    });
  }

  /** Encrypts from here on, once all that `fill` has is sent. Call from within `receive`, which it stops. */
  startTls(settings: TlsSettings, ready: (error: string | null) => void): void {
    this.#paused = true;
    this.#whenIdle = () => {
      this.#stream.startTls(settings, (error) => {
        this.#paused = false;
        ready(error);
        if (error === null) this.#receive();
        letEventLoopRun();
      });
    };
    this.#reactor.defer(() => this.#settle());
  }

  /** Sends what `fill` still has, then ends the connection. Resolves when nothing of it touches memory. */
  async close(): Promise<void> {
    assert(!this.#closing, 'a link is closed once');
    if (this.#lost === null) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = () => {
          letEventLoopRun();
          resolve();
        };
        this.#reactor.defer(() => this.#settle());
      });
    }
    this.#closing = true;
    await new Promise<void>((resolve) => {
      this.#stream.close(() => {
        letEventLoopRun();
        resolve();
      });
    });
    this.#out.release();
    this.#in.release();
  }

  /** Ends the connection at once. Resolves like `close`. */
  abort(): Promise<void> {
    this.#lost ??= 'the connection was given up';
    return this.close();
  }

  #settle(): void {
    if (!this.#sending && this.#lost === null) this.#send();
    if (this.#sending) return;
    const idle = this.#whenIdle;
    this.#whenIdle = null;
    idle?.();
  }

  #send(): void {
    if (this.#sending || this.#closing || this.#lost !== null) return;
    const length = this.#user.fill(this.#out.region.bytes);
    if (length === 0) return;
    this.#sending = true;
    this.#segments.clear();
    this.#segments.push(this.#out.region, 0, length);
    this.#stream.send(this.#segments);
  }

  #receive(): void {
    if (this.#receiving || this.#closing || this.#paused || this.#lost !== null) return;
    this.#receiving = true;
    this.#stream.receive(this.#in.region, 0, this.#in.region.bytes.length);
  }

  sent(result: number): void {
    this.#sending = false;
    if (result < 0) this.#lose(`the connection broke (errno ${-result})`);
    this.#settle();
  }

  received(count: number): void {
    this.#receiving = false;
    if (this.#closing) return;
    if (count > 0) {
      this.#user.receive(this.#in.region.bytes.subarray(0, count));
      this.#receive();
    } else {
      this.#lose(
        count === 0 ? 'the server closed the connection' : `the connection broke (errno ${-count})`,
      );
    }
  }

  #lose(reason: string): void {
    if (this.#lost !== null) return;
    this.#lost = reason;
    this.#user.lost(reason);
    this.#settle();
  }
}

/** A page of the reactor's memory, in turn with everybody else. */
async function takePage(reactor: Reactor): Promise<Page> {
  for (;;) {
    const page = reactor.pool.take();
    if (page !== null) return page;
    await new Promise<void>((resolve) => {
      reactor.pool.whenFree(() => {
        letEventLoopRun();
        resolve();
      });
    });
  }
}
