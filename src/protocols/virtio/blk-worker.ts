import { assert } from '../../base/assert.ts';
import { ProtocolError } from '../../base/errors.ts';
import type { BlockDevice } from '../../block/device.ts';
import { Io, type IoOwner } from '../../block/io.ts';
import { MAX_PARTS, POLL_CHAINS } from './blk.ts';
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
  }

  ready(): boolean {
    return !this.#broken && !this.#detached && this.#queue.ready;
  }

  poll(): void {
    if (this.#broken || this.#detached) return;
    this.#polling = true;
    try {
      for (let left = POLL_CHAINS; left > 0; left -= 1) {
        const chain = this.#queue.take();
        if (chain === null) break;
        this.#begin(chain);
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
    return !this.#broken && !this.#detached && this.#queue.enableNotify();
  }

  disarm(): void {
    if (!this.#broken && !this.#detached) this.#queue.disableNotify();
  }

  detach(drained: () => void): void {
    assert(!this.#detached, 'a queue is detached twice');
    this.#detached = true;
    this.#drained = drained;
    this.#publish();
  }

  #begin(chain: Chain): void {
    const request = this.#requests.pop() ?? new BlkRequest();
    request.parse(chain, this.#device.info, this.#rules);
    this.#inFlight += 1;
    if (request.kind === 'id') request.fillId(this.#id);
    if (request.kind === 'id' || request.kind === 'answer') this.#finish(request);
    else this.#issue(request);
  }

  /**
   * Hands over the next parts of a request, a few at a time. Those of a barrier all at once: each is a barrier of its own,
   * and nothing comes between them.
   */
  #issue(request: BlkRequest): void {
    const device = this.#device;
    request.issuing = true;
    while (request.hasMore && (request.pending < MAX_PARTS || request.barrier)) {
      const io = this.#ios.pop() ?? new Io();
      request.nextPart(io, device.info.maxTransferBytes);
      request.pending += 1;
      io.context = request;
      io.push(this);
      device.submit(io);
    }
    request.issuing = false;
    if (request.pending === 0) this.#finish(request);
  }

  ioDone(io: Io): void {
    const request = io.context as BlkRequest;
    if (io.error !== null) request.failed(io.error);
    io.context = null;
    this.#ios.push(io);
    request.pending -= 1;
    if (request.issuing) return;
    if (request.hasMore) this.#issue(request);
    else if (request.pending === 0) this.#finish(request);
  }

  #finish(request: BlkRequest): void {
    this.#inFlight -= 1;
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
