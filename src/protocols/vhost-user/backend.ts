import { assert, AssertionError } from '../../base/assert.ts';
import { messageOf } from '../../base/errors.ts';
import type { DescriptorSocket, DescriptorSocketOwner, Sharing } from '../../reactor/sharing.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { MAX_REFUSALS } from './limits.ts';
import type { Message } from './messages.ts';
import { MessageReader } from './messages.ts';
import type { Answer } from './session.ts';
import { Session } from './session.ts';
import { encodeMessage, encodeU64, VHOST_USER_REPLY_MASK } from './wire.ts';

export interface BackendContext {
  /** For this connection alone. */
  readonly device: VirtioDevice;
  readonly sharing: Sharing;
  /** Runs a call-back after the current batch (Reactor.defer). */
  defer(callback: () => void): void;
  /** A line for the operator's log. */
  log(line: string): void;
  /** The connection is over: nothing of it is in flight, nothing is mapped, the device has been told. Called once. */
  ended(backend: VhostUserBackend): void;
}

const NON_ZERO = 1;

/**
 * The back-end's side of one vhost-user connection: it serves a virtio device to the front-end at the other end of a
 * socket. Messages are worked on one at a time; while one waits (for requests in flight, for a flush), nothing more is
 * received.
 */
export class VhostUserBackend implements DescriptorSocketOwner {
  readonly #context: BackendContext;
  readonly #socket: DescriptorSocket;
  readonly #reader: MessageReader = new MessageReader();
  readonly #session: Session;
  #current: Exchange | null = null;
  #paused = false;
  #pumping = false;
  #ending = false;
  #refusals = 0;

  constructor(context: BackendContext, socket: DescriptorSocket) {
    this.#context = context;
    this.#socket = socket;
    this.#session = new Session({
      device: context.device,
      sharing: context.sharing,
      peer: socket.peer,
      defer: (callback) => context.defer(callback),
      log: (what) => this.#log(what),
      wake: () => context.defer(() => this.#pump()),
    });
    socket.owner = this;
  }

  received(bytes: Uint8Array, descriptors: readonly number[]): void {
    if (this.#ending) {
      for (const fd of descriptors) this.#context.sharing.closeDescriptor(fd);
      return;
    }
    try {
      this.#reader.push(bytes, descriptors);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#pump();
  }

  ended(error: string | null): void {
    if (this.#ending) return;
    if (error !== null) this.#log(`the connection broke: ${error}`);
    this.#end(true);
  }

  /**
   * The server stops. What is in flight is answered, and the driver sees it; then the socket is closed. A front-end that
   * reconnects finds everything done that was begun.
   */
  shutdown(): void {
    if (!this.#ending) this.#end(false);
  }

  /**
   * Ends the connection if the front-end is gone though that has not been seen: while a message waits, nothing is
   * received, and rings would go on being served (P11).
   */
  endIfGone(): void {
    if (!this.#ending && this.#socket.peerGone()) this.#end(true);
  }

  /** As if this process had died: no ring says anything more, and what is in flight stays so for the driver. */
  cut(): void {
    this.#session.abandon();
    if (!this.#ending) this.#end(true);
  }

  /** The front-end is gone or let go, and what it left in flight has not ended: `ended` follows. */
  get ending(): boolean {
    return this.#ending;
  }

  /** Works on what has arrived, until a message has to wait. */
  #pump(): void {
    if (this.#pumping || this.#ending) return;
    this.#pumping = true;
    try {
      while (!this.#ending && this.#current === null) {
        const message = this.#reader.next();
        if (message === null) break;
        this.#work(message);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#pumping = false;
    if (this.#ending) return;
    const busy = this.#current !== null;
    if (busy !== this.#paused) {
      this.#paused = busy;
      this.#socket.pause(busy);
    }
    if (!busy) this.#session.idle();
  }

  #work(message: Message): void {
    const exchange = new Exchange(message, this);
    this.#current = exchange;
    try {
      this.#session.handle(message, exchange);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      exchange.end(messageOf(error));
    } finally {
      for (const fd of message.takeAll()) this.#context.sharing.closeDescriptor(fd);
    }
  }

  /** For `Exchange` only: `payload` null sends nothing. The descriptors are closed. */
  answered(
    exchange: Exchange,
    payload: Uint8Array | null,
    descriptors: readonly number[] = [],
  ): void {
    if (!this.#ending && payload !== null) {
      const { request } = exchange.message;
      this.#socket.send(encodeMessage(request, VHOST_USER_REPLY_MASK, payload), descriptors);
    }
    for (const fd of descriptors) this.#context.sharing.closeDescriptor(fd);
    if (this.#ending) return;
    assert(this.#current === exchange, 'an answer to no message');
    this.#current = null;
    // Not from inside the call that told us: it may be a queue's.
    if (!this.#pumping) this.#context.defer(() => this.#pump());
  }

  /** For `Exchange` only. */
  refused(exchange: Exchange, why: string, fatal: boolean): void {
    const { message } = exchange;
    const answered = message.needReply && this.#session.replyAck;
    this.answered(exchange, answered ? encodeU64(NON_ZERO) : null);
    if (this.#ending) return;
    this.#refusals += 1;
    this.#log(`${message.name}: ${why}`);
    if (fatal || !answered || this.#refusals >= MAX_REFUSALS) this.#end(true);
  }

  /** For `Exchange` only: zero or not, if that was asked for. */
  acknowledged(exchange: Exchange, value: number): void {
    const wanted = exchange.message.needReply && this.#session.replyAck;
    this.answered(exchange, wanted ? encodeU64(value) : null);
  }

  #fail(error: unknown): void {
    if (error instanceof AssertionError) throw error;
    if (this.#ending) return;
    this.#log(messageOf(error));
    this.#end(true);
  }

  #log(what: string): void {
    this.#context.log(`${this.#socket.peer}: front-end: ${what}`);
  }

  /** `atOnce`: the socket is closed before what is in flight has been answered. */
  #end(atOnce: boolean): void {
    this.#ending = true;
    if (atOnce) this.#socket.close();
    else this.#socket.pause(true);
    for (const fd of this.#reader.takeDescriptors()) this.#context.sharing.closeDescriptor(fd);
    this.#session.end(() => {
      if (!atOnce) this.#socket.close();
      this.#context.ended(this);
    });
  }
}

/** One message on its way to its answer. */
class Exchange implements Answer {
  readonly message: Message;
  readonly #backend: VhostUserBackend;

  constructor(message: Message, backend: VhostUserBackend) {
    this.message = message;
    this.#backend = backend;
  }

  reply(payload: Uint8Array, descriptors: readonly number[] = []): void {
    this.#backend.answered(this, payload, descriptors);
  }

  done(): void {
    this.#backend.acknowledged(this, 0);
  }

  failed(): void {
    this.#backend.acknowledged(this, NON_ZERO);
  }

  refuse(why: string): void {
    this.#backend.refused(this, why, false);
  }

  end(why: string): void {
    this.#backend.refused(this, why, true);
  }
}
