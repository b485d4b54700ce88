import { assert } from '../../base/assert.ts';
import { ProtocolError } from '../../base/errors.ts';
import type { Poller, Sharing } from '../../reactor/sharing.ts';
import type { QueueWorker, VirtioDevice } from '../virtio/device.ts';
import type { GuestMemory } from '../virtio/guest-memory.ts';
import { hasFeature, VIRTIO_F } from '../virtio/virtio.ts';
import type { InflightArea } from './inflight.ts';
import { isBeginning, openQueue } from './ring-setup.ts';
import { Vring } from './vring.ts';
import { VHOST_USER_F_PROTOCOL_FEATURES } from './wire.ts';

export interface RingsContext {
  readonly device: VirtioDevice;
  readonly sharing: Sharing;
  defer(callback: () => void): void;
  /** A ring is not served any more: why, for the operator. */
  broken(why: string): void;
  /** The device has become ready, and rings that waited for it run. */
  running(): void;
}

const NO_PROTOCOL_FEATURES = ~(1n << BigInt(VHOST_USER_F_PROTOCOL_FEATURES));

/**
 * All rings of a connection, and the device as their driver sees it: started before the first is attached, reset,
 * ended. One poller looks after the attached ones.
 *
 * Rings are set up by the front-end in any order; whenever something has changed, `resume` attaches those that can run.
 */
export class Rings implements Poller {
  readonly vrings: readonly Vring[];
  readonly #context: RingsContext;
  /** Of the attached rings, in the order of their attachment. */
  #workers: readonly QueueWorker[] = [];
  readonly #workerOf = new Map<Vring, QueueWorker>();
  /** One of them has no kick: nobody would wake us. */
  #unkicked = false;
  #stopPolling: (() => void) | null = null;

  /** What was negotiated; null until SET_FEATURES and after a reset. */
  features: bigint | null = null;
  memory: GuestMemory;
  inflight: InflightArea | null = null;
  /** It comes from an earlier connection, and so does the driver. */
  inflightIsOlder = false;

  /** With what the device was started; null: it was not. */
  #startedWith: bigint | null = null;
  /** The same, of a start that is not ready yet. A later start, a reset or the end makes it void. */
  #startingWith: bigint | null = null;
  #starts = 0;
  #ended = false;

  constructor(context: RingsContext, memory: GuestMemory) {
    this.#context = context;
    this.memory = memory;
    this.vrings = Array.from(
      { length: context.device.maxQueues },
      (_, index) =>
        new Vring(index, {
          sharing: context.sharing,
          defer: (callback) => context.defer(callback),
          broken: (vring, why) => this.#broken(vring, why),
        }),
    );
  }

  /** Whether any ring is attached. */
  get running(): boolean {
    return this.#workers.length > 0;
  }

  /** DEVICE_NEEDS_RESET [virtio 2.1.2]. */
  get needsReset(): boolean {
    return this.vrings.some(({ brokenBy }) => brokenBy !== null);
  }

  // The poller. Loops over the workers without allocating; there are a handful.

  ready(): boolean {
    const workers = this.#workers;
    for (let i = 0; i < workers.length; i += 1) {
      if ((workers[i] as QueueWorker).ready()) return true;
    }
    return false;
  }

  poll(): void {
    const workers = this.#workers;
    for (let i = 0; i < workers.length; i += 1) {
      const worker = workers[i] as QueueWorker;
      if (worker.ready()) worker.poll();
    }
  }

  arm(): boolean {
    const workers = this.#workers;
    let come = this.#unkicked;
    for (let i = 0; i < workers.length; i += 1) {
      if ((workers[i] as QueueWorker).arm()) come = true;
    }
    return come;
  }

  disarm(): void {
    const workers = this.#workers;
    for (let i = 0; i < workers.length; i += 1) (workers[i] as QueueWorker).disarm();
  }

  /** Lets go of every ring. Calls back, perhaps at once, when nothing touches guest memory any more. */
  detachAll(detached: () => void): void {
    let left = 1;
    const part = (): void => {
      left -= 1;
      if (left === 0) detached();
    };
    for (const vring of this.vrings) {
      if (!vring.attached) continue;
      left += 1;
      this.detach(vring, part);
    }
    part();
  }

  /** Lets go of one ring, as `detachAll`. */
  detach(vring: Vring, detached: () => void): void {
    const worker = this.#workerOf.get(vring);
    if (worker !== undefined) {
      this.#workerOf.delete(vring);
      this.#setWorkers(this.#workers.filter((other) => other !== worker));
    }
    vring.detach(detached);
  }

  /**
   * Attaches the rings that are started, enabled and complete, once the device is ready for them. Returns why one could
   * not be, for the front-end; the ring is then broken.
   */
  resume(): string | null {
    const { features } = this;
    if (this.#ended || features === null) return null;
    const waiting = this.vrings.filter((vring) => this.#canRun(vring, features));
    if (waiting.length === 0) return null;
    if (this.#startedWith !== features) {
      if (this.#startingWith !== features) this.#start(features);
      return null;
    }
    let failure: string | null = null;
    for (const vring of waiting) {
      const why = this.#attach(vring, features);
      failure ??= why;
    }
    return failure;
  }

  /** The driver resets the device. `done` when it and all rings are as at first; what is mapped stays. */
  reset(done: () => void): void {
    this.detachAll(() => {
      for (const vring of this.vrings) vring.reset();
      this.features = null;
      this.dropInflight();
      this.#startedWith = null;
      this.#startingWith = null;
      this.#starts += 1;
      this.#context.device.reset(done);
    });
  }

  /** The connection is over. `done` when nothing is touched any more; all descriptors are closed. */
  end(done: () => void): void {
    this.#ended = true;
    this.#context.device.leave();
    this.detachAll(() => {
      for (const vring of this.vrings) vring.close();
      this.dropInflight();
      this.#context.device.end();
      done();
    });
  }

  /** No ring is spoken in any more. `end` follows, or is under way. */
  abandon(): void {
    for (const vring of this.vrings) vring.abandon();
  }

  /** No ring is attached. */
  dropInflight(): void {
    this.inflight?.close();
    this.inflight = null;
    this.inflightIsOlder = false;
  }

  #canRun(vring: Vring, features: bigint): boolean {
    // "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the enabled state."
    const enabled = vring.enabled ?? !hasFeature(features, VHOST_USER_F_PROTOCOL_FEATURES);
    return (
      enabled &&
      vring.started &&
      vring.size > 0 &&
      vring.address !== null &&
      vring.brokenBy === null &&
      !vring.attached
    );
  }

  #start(features: bigint): void {
    this.#startedWith = null;
    this.#startingWith = features;
    this.#starts += 1;
    const start = this.#starts;
    const ready = (): void => {
      if (this.#starts !== start) return;
      this.#startingWith = null;
      this.#startedWith = features;
      this.resume();
      this.#context.running();
    };
    this.#context.device.start(features & NO_PROTOCOL_FEATURES, ready, this.#isFresh(features));
  }

  /**
   * All that is known of the rings is that they begin. A driver may have begun on an earlier connection, and have asked
   * for nothing: then its front-end brings the in-flight region of that.
   */
  #isFresh(features: bigint): boolean {
    const packed = hasFeature(features, VIRTIO_F.RING_PACKED);
    if (this.inflightIsOlder || this.inflight?.isUsed(packed) === true) return false;
    return this.vrings.every(({ base }) => isBeginning(base, packed));
  }

  #attach(vring: Vring, features: bigint): string | null {
    const { index, size, base, address } = vring;
    assert(address !== null, 'a ring without addresses is attached');
    const { memory, inflight } = this;
    let worker;
    try {
      const queue = openQueue({ index, size, address, base, features, memory, inflight });
      worker = vring.attach(queue, () => this.#context.device.attach(index, queue, vring));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      vring.broken(error.message);
      return `ring ${index}: ${error.message}`;
    }
    this.#workerOf.set(vring, worker);
    this.#setWorkers([...this.#workers, worker]);
    return null;
  }

  #broken(vring: Vring, why: string): void {
    this.#context.broken(`ring ${vring.index}: ${why}`);
    // Not from inside the worker's own call.
    this.#context.defer(() => {
      if (vring.brokenBy !== null) this.detach(vring, () => {});
    });
  }

  /** A new array each time: one may be under way in `poll`. */
  #setWorkers(workers: readonly QueueWorker[]): void {
    this.#workers = workers;
    this.#unkicked = this.vrings.some((vring) => this.#workerOf.has(vring) && vring.unkicked);
    if (workers.length > 0) this.#stopPolling ??= this.#context.sharing.poll(this);
    else {
      this.#stopPolling?.();
      this.#stopPolling = null;
    }
  }
}
