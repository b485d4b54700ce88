import { ConfigError, messageOf } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import type { Region } from '../../block/memory.ts';
import type { Poller } from '../../reactor/sharing.ts';
import { Fifo } from '../../base/fifo.ts';
import { VIRTIO_BLK_CONFIG } from '../virtio/blk.ts';
import {
  type BlkConfig,
  configBytesFor,
  decodeBlkConfig,
  describeBlk,
  isWriteBack,
} from './blk-client-config.ts';
import { BlkLink, type BlkOptions, type BlkReactor, type LinkUser } from './blk-client-link.ts';
import type { BlkQueue } from './blk-client-queue.ts';
import { BlkRequest, type BlkTerms } from './blk-client-request.ts';

export type { BlkOptions, BlkReactor } from './blk-client-link.ts';

/**
 * Connects to a vhost-user-blk back-end that listens at `path`, as a driver of its disk. Needs a reactor with `sharing`.
 * Rejects with a ConfigError that names the path and says what went wrong.
 */
export async function connectVhostUserBlk(
  reactor: BlkReactor,
  path: string,
  options: BlkOptions = {},
): Promise<VhostUserBlkDevice> {
  const { sharing } = reactor;
  if (sharing === null) {
    throw new ConfigError(
      `vhost-user-blk:${path}: this reactor cannot share memory`,
      'use --reactor io_uring (Linux 5.13 or later)',
    );
  }
  let link: BlkLink | null = null;
  try {
    link = await BlkLink.open(reactor, sharing, path, options);
    return new VhostUserBlkDevice(reactor, link, options);
  } catch (error) {
    link?.release();
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(
      `vhost-user-blk:${path}: ${messageOf(error)}`,
      'is a vhost-user-blk server listening there, with room for another front-end?',
      { cause: error },
    );
  }
}

/**
 * The disk of a vhost-user-blk back-end, as a device. Requests go through shared memory: data that lies in it
 * (`allocate`) where it is, other data by a copy.
 *
 * A flush that failed is not asked for again: it and every FUA fail from then on, until the operator makes a new
 * connection.
 */
export class VhostUserBlkDevice implements BlockDevice, Poller, LinkUser {
  #info: DeviceInfo;
  #config: BlkConfig;
  readonly #reactor: BlkReactor;
  readonly #link: BlkLink;
  readonly #terms: BlkTerms;
  readonly #queues: readonly BlkQueue[];
  readonly #requests: readonly BlkRequest[];
  readonly #free: BlkRequest[] = [];
  /** Ios that have no request yet, and the queue that each is meant for. */
  readonly #waiting: Fifo<Io> = new Fifo();
  readonly #waitingQueues: Fifo<number> = new Fifo();
  readonly #publishLater: () => void;
  readonly #stopPolling: (() => void) | null;
  readonly #watches: { stop(stopped: () => void): void }[] = [];
  #turn = 0;
  #inFlight = 0;
  /** A barrier is under way. */
  #barrier = false;
  #publishing = false;
  #refusing: BlockErrorCode | null = null;
  #syncFailed: BlockErrorCode | null = null;
  #lostWhy: string | null = null;
  #closing: Promise<void> | null = null;
  #drained: (() => void) | null = null;

  /** Use `connectVhostUserBlk`. */
  constructor(reactor: BlkReactor, link: BlkLink, options: BlkOptions) {
    this.#reactor = reactor;
    this.#link = link;
    this.#config = link.config;
    this.#terms = link.terms;
    this.#queues = link.queues;
    this.#info = this.#describe();
    this.#requests = link.places.map((place, i) => new BlkRequest(i, link.terms, place));
    this.#free.push(...this.#requests);
    this.#publishLater = () => this.#publish();
    for (const queue of link.queues) {
      this.#watches.push(link.sharing.watch(queue.call, () => this.#called()));
    }
    this.#stopPolling = options.poll === false ? null : link.sharing.poll(this);
    if (this.#stopPolling === null) this.arm();
    link.passTo(this);
  }

  get info(): DeviceInfo {
    return this.#info;
  }

  /** What the device said of itself when last asked. */
  get config(): BlkConfig {
    return this.#config;
  }

  /** The virtio features in use. */
  get features(): bigint {
    return this.#link.features;
  }

  get queues(): number {
    return this.#queues.length;
  }

  /** Why there is no connection, or null. Requests fail with EIO from then on; with `reconnect` they wait. */
  get lost(): string | null {
    return this.#lostWhy;
  }

  /** How often the connection was made anew. */
  get reconnects(): number {
    return this.#link.reconnects;
  }

  /** Memory that the device reaches: data in it is not copied. Never given back. Of `memoryBytes` of the options. */
  allocate(sizeBytes: number): Region {
    return this.#link.allocate(sizeBytes);
  }

  submit(io: Io): void {
    this.submitTo(io, this.#turn);
    this.#turn = this.#turn + 1 === this.#queues.length ? 0 : this.#turn + 1;
  }

  /** The same, through the queue of that number. */
  submitTo(io: Io, queue: number): void {
    if (this.#refusing !== null) {
      io.complete(this.#refusing);
      return;
    }
    const barrier = io.mutates && (io.flags & FLAG.BARRIER) !== 0;
    if (this.#free.length > 0 && this.#waiting.length === 0 && !this.#barrier && !barrier) {
      this.#start(io, queue, false);
    } else {
      this.#waiting.push(io);
      this.#waitingQueues.push(queue);
      this.#startWaiting();
    }
    if (this.#publishing) return;
    this.#publishing = true;
    this.#reactor.defer(this.#publishLater);
  }

  /** The byte `writeback` of the device, asked anew; null without CONFIG_WCE. */
  async getWriteback(): Promise<boolean | null> {
    await this.#readConfig();
    return this.#config.writeback === null ? null : this.#config.writeback !== 0;
  }

  /** Switches the device's write cache. Resolves when the device says that it is so. Needs CONFIG_WCE. */
  async setWriteback(on: boolean): Promise<void> {
    const what = `${this.#info.name}: the write cache cannot be switched ${on ? 'on' : 'off'}`;
    if (this.#config.writeback === null) {
      throw new ConfigError(`${what}: CONFIG_WCE is not negotiated`, 'the back-end decides that');
    }
    try {
      await this.#link.frontend.setConfig(VIRTIO_BLK_CONFIG.writeback, Uint8Array.of(on ? 1 : 0));
    } catch (error) {
      throw new ConfigError(`${what}: ${messageOf(error)}`, 'look at what the back-end logged', {
        cause: error,
      });
    }
    if ((await this.getWriteback()) !== on) {
      throw new ConfigError(`${what}: the back-end did nothing`, 'the back-end decides that');
    }
  }

  /** Waits for what is in flight, stops the rings and ends the connection. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#refusing = 'ESHUTDOWN';
    if (this.#pending > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    this.#stopPolling?.();
    for (const watch of this.#watches) {
      await new Promise<void>((resolve) => {
        watch.stop(() => {
          letEventLoopRun();
          resolve();
        });
      });
    }
    await this.#link.close();
  }

  get #pending(): number {
    return this.#inFlight + this.#waiting.length;
  }

  // The rings.

  ready(): boolean {
    if (this.#lostWhy !== null) return false;
    for (let i = 0; i < this.#queues.length; i += 1) {
      if ((this.#queues[i] as BlkQueue).ready) return true;
    }
    return false;
  }

  poll(): void {
    if (this.#lostWhy !== null) return;
    // What completions submit is published once, below.
    this.#publishing = true;
    for (let i = 0; i < this.#queues.length; i += 1) {
      const queue = this.#queues[i] as BlkQueue;
      for (let request = queue.take(); request !== null; request = queue.take()) {
        this.#noteSync(request);
        this.#proceed(request);
      }
      queue.retry();
      if (queue.broken !== null) {
        this.#link.fail(`the back-end broke a ring: ${queue.broken}`);
        return;
      }
    }
    this.#startWaiting();
    this.#publish();
    if (this.#drained !== null && this.#pending === 0) this.#noteDrained();
  }

  arm(): boolean {
    let some = false;
    for (let i = 0; i < this.#queues.length; i += 1) {
      if ((this.#queues[i] as BlkQueue).arm()) some = true;
    }
    return some;
  }

  disarm(): void {
    for (let i = 0; i < this.#queues.length; i += 1) (this.#queues[i] as BlkQueue).disarm();
  }

  /** The device has rung. */
  #called(): void {
    if (this.#stopPolling !== null) {
      if (this.ready()) this.poll();
      return;
    }
    this.disarm();
    do this.poll();
    while (this.arm());
  }

  #publish(): void {
    this.#publishing = false;
    if (this.#lostWhy !== null) return;
    for (let i = 0; i < this.#queues.length; i += 1) (this.#queues[i] as BlkQueue).publish();
  }

  // Requests.

  /** Gives waiting Ios a request each, in order, as far as there are any and no barrier holds them back. */
  #startWaiting(): void {
    while (this.#free.length > 0 && !this.#barrier) {
      const io = this.#waiting.peek();
      if (io === undefined) return;
      const barrier = io.mutates && (io.flags & FLAG.BARRIER) !== 0;
      if (barrier && this.#inFlight > 0) return;
      this.#waiting.shift();
      this.#start(io, this.#waitingQueues.shift() as number, barrier);
    }
  }

  #start(io: Io, queue: number, barrier: boolean): void {
    const refused = this.#refuse(io);
    if (refused !== null) {
      io.complete(refused);
      return;
    }
    const request = this.#free.pop() as BlkRequest;
    this.#inFlight += 1;
    this.#barrier = barrier;
    request.queue = queue;
    request.begin(io);
    this.#proceed(request);
  }

  #refuse(io: Io): BlockErrorCode | null {
    if (io.mutates && this.#info.readOnly) return 'EROFS';
    const stable = io.op === OP.FLUSH || (io.flags & (FLAG.FUA | FLAG.BARRIER)) !== 0;
    return stable ? this.#syncFailed : null;
  }

  /** Adds the next chain of a request, or completes its Io. */
  #proceed(request: BlkRequest): void {
    if (request.next()) {
      (this.#queues[request.queue] as BlkQueue).add(request);
      return;
    }
    const io = request.io as Io;
    request.io = null;
    this.#inFlight -= 1;
    this.#barrier = false;
    this.#free.push(request);
    io.complete(request.error);
  }

  #noteSync(request: BlkRequest): void {
    if (request.error !== null && request.failedSync) this.#syncFailed ??= request.error;
  }

  #noteDrained(): void {
    this.#drained?.();
    this.#drained = null;
    letEventLoopRun();
  }

  // The connection.

  /** The connection is gone for good: everything pending fails, and everything to come. */
  lostLink(reason: string): void {
    this.#lostWhy ??= reason;
    this.#refusing ??= 'EIO';
    for (const request of this.#requests) {
      const { io } = request;
      request.io = null;
      if (io !== null) io.complete('EIO');
    }
    this.#inFlight = 0;
    for (let io = this.#waiting.shift(); io !== undefined; io = this.#waiting.shift()) {
      io.complete('EIO');
    }
    this.#noteDrained();
  }

  configChanged(): void {
    this.#readConfig().catch((error: unknown) => {
      // The connection itself reports what is wrong with it; an answer of no use changes nothing.
      this.#lostWhy ??= this.#link.frontend.over === null ? null : messageOf(error);
    });
  }

  async #readConfig(): Promise<void> {
    const { frontend, features } = this.#link;
    this.#config = decodeBlkConfig(await frontend.getConfig(0, configBytesFor(features)), features);
    this.#terms.writeBack = isWriteBack(this.#config, features);
    this.#info = this.#describe();
  }

  #describe(): DeviceInfo {
    const { name, features } = this.#link;
    return describeBlk(name, this.#config, features, this.#terms.maxTransferBytes);
  }
}
