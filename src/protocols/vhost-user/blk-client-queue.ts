import { assert } from '../../base/assert.ts';
import { messageOf } from '../../base/errors.ts';
import type { Sharing } from '../../reactor/sharing.ts';
import { Fifo } from '../../base/fifo.ts';
import type { DriverQueue } from '../virtio/driver/driver-queue.ts';
import type { BlkRequest } from './blk-client-request.ts';

/** One queue of our driver: the ring, its eventfds, and whose chain each token is. */
export class BlkQueue {
  readonly kick: number;
  readonly call: number;
  readonly #sharing: Sharing;
  readonly #driver: DriverQueue;
  readonly #indirect: boolean;
  readonly #byToken: (BlkRequest | null)[] = [];
  /** Requests that found the ring full. */
  readonly #stalled: Fifo<BlkRequest> = new Fifo();
  #added = false;
  /** Done, and found by looking whether something is: given out first. Its token may be in use again. */
  #ahead: BlkRequest | null = null;
  #broken: string | null = null;

  /** `indirect`: VIRTIO_F_INDIRECT_DESC was negotiated. */
  constructor(sharing: Sharing, driver: DriverQueue, indirect: boolean) {
    this.#sharing = sharing;
    this.#driver = driver;
    this.#indirect = indirect;
    this.kick = sharing.eventfd();
    this.call = sharing.eventfd();
    driver.disableInterrupts();
  }

  /** How the device broke the ring, or null. Nothing comes out of a broken one. */
  get broken(): string | null {
    return this.#broken;
  }

  /** Adds a request's chain. The device sees it with the next `publish`. */
  add(request: BlkRequest): void {
    if (this.#stalled.length > 0 || !this.#tryAdd(request)) this.#stalled.push(request);
  }

  #tryAdd(request: BlkRequest): boolean {
    const token = this.#driver.add(request.readable, request.writable, this.#indirect);
    if (token < 0) return false;
    this.#byToken[token] = request;
    this.#added = true;
    return true;
  }

  /** Lets the device see what was added, and rings where it asked for that. */
  publish(): void {
    if (!this.#added) return;
    this.#added = false;
    if (this.#driver.publish()) this.ring();
  }

  /** Rings whether or not it was asked for. */
  ring(): void {
    this.#sharing.signal(this.kick);
  }

  /** Whether `take` has something to give, or the ring turned out to be broken. A few loads. */
  get ready(): boolean {
    this.#ahead ??= this.#next();
    return this.#ahead !== null || this.#broken !== null;
  }

  /** The next request that is done, or null. Its `finish` has been called. */
  take(): BlkRequest | null {
    const request = this.#ahead ?? this.#next();
    this.#ahead = null;
    return request;
  }

  #next(): BlkRequest | null {
    if (this.#broken !== null) return null;
    try {
      const used = this.#driver.take();
      if (used === null) return null;
      const request = this.#byToken[used.token] ?? null;
      assert(request !== null, 'a driver queue gave a token that it had not handed out');
      this.#byToken[used.token] = null;
      request.finish(used.written);
      return request;
    } catch (error) {
      this.#broken = messageOf(error);
      return null;
    }
  }

  /** Adds what found no room before. Call after `take`. */
  retry(): void {
    for (let next = this.#stalled.peek(); next !== undefined; next = this.#stalled.peek()) {
      if (!this.#tryAdd(next)) return;
      this.#stalled.shift();
    }
  }

  /** Asks the device to call. True: something is there already. */
  arm(): boolean {
    if (this.ready) return true;
    return this.#driver.enableInterrupts() && this.ready;
  }

  disarm(): void {
    this.#driver.disableInterrupts();
  }

  close(): void {
    this.#sharing.closeDescriptor(this.kick);
    this.#sharing.closeDescriptor(this.call);
  }
}
