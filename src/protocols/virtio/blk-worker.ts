import { assert } from '../../base/assert.ts';
import { ProtocolError } from '../../base/errors.ts';
import type { BlockDevice } from '../../block/device.ts';
import { Io, type IoOwner } from '../../block/io.ts';
import { BUFFER_COST_BYTES, MAX_PARTS, POLL_CHAINS, TURN_BYTES } from './blk.ts';
import { BlkRequest, type BlkRules } from './blk-request.ts';
import type { QueueHost, QueueWorker } from './device.ts';
import type { Chain, Virtqueue } from './virtqueue.ts';

export interface BlkWorkerOptions {
  readonly queue: Virtqueue;
  readonly host: QueueHost;
  /** Where requests go: the driver's session. */
  readonly device: BlockDevice;
  readonly rules: BlkRules;
  /** The device ID string, padded to its 20 bytes. */
  readonly id: Uint8Array;
  /** Everything taken has been given back, after `detach`. */
  readonly drained: () => void;
  /** Called once when all that was available at first has been taken. */
  readonly caughtUp: () => void;
}

/**
 * Serves one request queue. Requests go to the device straight between its file and guest memory; each is answered when
 * the device is done, in whatever order that is. What is done in one batch becomes visible together.
 */
export class BlkWorker implements QueueWorker, IoOwner {
  readonly #queue: Virtqueue;
  readonly #host: QueueHost;
  readonly #device: BlockDevice;
  readonly #rules: BlkRules;
  readonly #id: Uint8Array;
  readonly #left: () => void;
  readonly #caughtUp: () => void;
  /** So many chains may have been available at first, and not be taken. */
  #behind: number;
  /** Free objects, never more than were in flight at once: the queue's size bounds that. */
  readonly #requests: BlkRequest[] = [];
  readonly #ios: Io[] = [];
  #inFlight = 0;
  /** Chains were given back that the driver does not see yet. */
  #given = false;
  /** `poll` is at work, and publishes at its end. */
  #polling = false;
  /** `#publish` will be called after the batch. */
  #scheduled = false;
  #broken = false;
  #drained: (() => void) | null = null;
  #detached = false;
  /** What may still be done in this turn. */
  #budget = 0;
  /** Requests that go on in the next turn: the device has done all that it was given of them, and others want to live. */
  readonly #parked: BlkRequest[] = [];
  /** A barrier that was too long for one turn: until it is done, nothing else of this queue is begun. */
  #barrier: BlkRequest | null = null;
  /** `#goOn` will be called. */
  #goingOn = false;
  readonly #goOn = (): void => {
    this.#goingOn = false;
    this.#budget = TURN_BYTES;
    this.#issue(this.#parked.shift() as BlkRequest);
    if (this.#parked.length > 0) this.#goOnLater();
  };
  readonly #publishLater = (): void => {
    this.#scheduled = false;
    this.#publish();
  };

  constructor(options: BlkWorkerOptions) {
    this.#queue = options.queue;
    this.#host = options.host;
    this.#device = options.device;
    this.#rules = options.rules;
    this.#id = options.id;
    this.#left = options.drained;
    this.#caughtUp = options.caughtUp;
    this.#behind = options.queue.size;
  }

  ready(): boolean {
    return !this.#broken && !this.#detached && this.#takes && this.#queue.ready;
  }

  /** Whether more may be taken; if not, it may when a request has gone on. */
  get #takes(): boolean {
    return this.#parked.length === 0 && this.#barrier === null;
  }

  poll(): void {
    if (this.#broken || this.#detached) return;
    this.#polling = true;
    this.#budget = TURN_BYTES;
    try {
      for (let left = POLL_CHAINS; left > 0 && this.#budget > 0 && this.#takes; left -= 1) {
        const chain = this.#queue.take();
        if (chain === null) {
          if (this.#behind > 0) this.#catchUp();
          break;
        }
        this.#begin(chain);
        if (this.#behind > 0) {
          this.#behind -= 1;
          if (this.#behind === 0) this.#catchUp();
        }
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#broken = true;
      this.#host.broken(`${error.message} [${error.spec}]`);
    }
    this.#polling = false;
    this.#publish();
  }

  arm(): boolean {
    return !this.#broken && !this.#detached && this.#queue.enableNotify() && this.#takes;
  }

  disarm(): void {
    if (!this.#broken && !this.#detached) this.#queue.disableNotify();
  }

  abandon(): void {
    this.#broken = true;
  }

  detach(drained: () => void): void {
    assert(!this.#detached, 'a queue is detached twice');
    this.#detached = true;
    this.#drained = drained;
    this.#publish();
  }

  #catchUp(): void {
    this.#behind = 0;
    this.#caughtUp();
  }

  #begin(chain: Chain): void {
    const request = this.#requests.pop() ?? new BlkRequest();
    request.parse(chain, this.#device.info, this.#rules);
    this.#inFlight += 1;
    const { readable, writable } = chain;
    this.#budget -= (readable.count + writable.count) * BUFFER_COST_BYTES;
    // A request that fails has its data zeroed.
    if (request.kind === 'answer') this.#budget -= writable.totalBytes;
    if (request.kind === 'id') request.fillId(this.#id);
    if (request.kind === 'id' || request.kind === 'answer') this.#finish(request);
    else this.#issue(request);
  }

  /**
   * Hands over the next parts of a request, a few at a time. Each part of a barrier is a barrier of its own, and nothing
   * of this queue comes between them.
   */
  #issue(request: BlkRequest): void {
    const device = this.#device;
    request.issuing = true;
    while (
      request.hasMore &&
      this.#budget > 0 &&
      (request.pending < MAX_PARTS || request.barrier)
    ) {
      const io = this.#ios.pop() ?? new Io();
      request.nextPart(io, device.info.maxTransferBytes);
      request.pending += 1;
      this.#budget -= io.length;
      io.context = request;
      io.push(this);
      device.submit(io);
    }
    request.issuing = false;
    if (request.barrier && request.hasMore) this.#barrier = request;
    if (request.pending > 0) return;
    if (request.hasMore) this.#park(request);
    else this.#finish(request);
  }

  #park(request: BlkRequest): void {
    this.#parked.push(request);
    this.#goOnLater();
  }

  #goOnLater(): void {
    if (this.#goingOn) return;
    this.#goingOn = true;
    this.#host.defer(this.#goOn);
  }

  ioDone(io: Io): void {
    const request = io.context as BlkRequest;
    if (io.error !== null) request.failed(io.error);
    io.context = null;
    this.#ios.push(io);
    request.pending -= 1;
    if (request.issuing) return;
    if (request.hasMore) {
      this.#budget = TURN_BYTES;
      this.#issue(request);
    } else if (request.pending === 0) this.#finish(request);
  }

  #finish(request: BlkRequest): void {
    this.#inFlight -= 1;
    if (this.#barrier === request) this.#barrier = null;
    if (this.#broken) {
      // Nothing more is said in a ring that cannot be trusted. The chain stays the queue's.
      request.release();
    } else {
      const written = request.finish();
      this.#queue.give(request.release(), written);
      this.#given = true;
    }
    this.#requests.push(request);
    if (this.#polling || this.#scheduled) return;
    this.#scheduled = true;
    this.#host.defer(this.#publishLater);
  }

  #publish(): void {
    if (this.#given && !this.#broken) {
      this.#given = false;
      if (this.#queue.publish()) this.#host.interrupt();
    }
    if (this.#drained === null || this.#inFlight > 0) return;
    const drained = this.#drained;
    this.#drained = null;
    this.#left();
    drained();
  }
}
