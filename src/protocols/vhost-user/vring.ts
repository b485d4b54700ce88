import { assert } from '../../base/assert.ts';
import type { Sharing } from '../../reactor/sharing.ts';
import type { QueueHost, QueueWorker } from '../virtio/device.ts';
import type { Virtqueue } from '../virtio/virtqueue.ts';
import type { VringAddress } from './wire.ts';

/** What a ring needs of its connection. */
export interface VringContext {
  readonly sharing: Sharing;
  defer(callback: () => void): void;
  /** The driver has broken the ring; it is being let go of. */
  broken(vring: Vring, why: string): void;
}

const NONE = -1;

/**
 * What the front-end has said of one ring, and the queue that is made of it while it runs. "Attached" is: a worker of
 * the device serves it. It is attached only while it is started and enabled [vhost-user "Ring states"].
 */
export class Vring implements QueueHost {
  readonly index: number;
  readonly #context: VringContext;

  /** Entries; 0 until SET_VRING_NUM. */
  size = 0;
  address: VringAddress | null = null;
  /** Where to start, from SET_VRING_BASE or where the last worker ended; null: at the ring's beginning. */
  base: number | null = null;
  /** Where it was when the device was reset: QEMU 7.2 resets first and then asks with GET_VRING_BASE. */
  baseAtReset: number | null = null;
  /** Between SET_VRING_KICK and GET_VRING_BASE. */
  started = false;
  /** What SET_VRING_ENABLE said last; null: nothing. */
  enabled: boolean | null = null;
  /** Why it is not served any more, until it is stopped or started anew. */
  brokenBy: string | null = null;

  #kick = NONE;
  #call = NONE;
  #err = NONE;
  #queue: Virtqueue | null = null;
  #worker: QueueWorker | null = null;
  #watch: { stop(stopped: () => void): void } | null = null;
  #detaching: (() => void)[] | null = null;

  constructor(index: number, context: VringContext) {
    this.index = index;
    this.#context = context;
  }

  get attached(): boolean {
    return this.#worker !== null;
  }

  /** The front-end asked us to look for work ourselves: no descriptor came with SET_VRING_KICK. */
  get unkicked(): boolean {
    return this.#kick === NONE;
  }

  /** SET_VRING_KICK, detached. The descriptor is the ring's; null: none. */
  setKick(descriptor: number | null): void {
    assert(!this.attached, 'the kick of a running ring is changed');
    this.#kick = this.#replaced(this.#kick, descriptor);
  }

  /** SET_VRING_CALL, at any time: QEMU does it whenever a guest masks interrupts. */
  setCall(descriptor: number | null): void {
    this.#call = this.#replaced(this.#call, descriptor);
    // Chains that a back-end before us made visible may never have been announced. One interrupt too many is harmless.
    this.interrupt();
  }

  setErr(descriptor: number | null): void {
    this.#err = this.#replaced(this.#err, descriptor);
  }

  /** Throws a ProtocolError, and is not attached, when the kick's descriptor cannot be waited for. */
  attach(queue: Virtqueue, makeWorker: () => QueueWorker): QueueWorker {
    assert(this.#worker === null, 'a ring is attached twice');
    // The watch only wakes the reactor; its poller then finds the work.
    if (this.#kick !== NONE) this.#watch = this.#context.sharing.watch(this.#kick, nothing);
    this.#queue = queue;
    this.#worker = makeWorker();
    return this.#worker;
  }

  /** Calls back, perhaps at once, when nothing touches the ring any more; `base` then says where it stands. */
  detach(detached: () => void): void {
    const worker = this.#worker;
    if (worker === null) {
      detached();
      return;
    }
    if (this.#detaching !== null) {
      this.#detaching.push(detached);
      return;
    }
    this.#detaching = [detached];
    let left = 2;
    const part = (): void => {
      left -= 1;
      if (left === 0) this.#detached();
    };
    worker.detach(part);
    const watch = this.#watch;
    this.#watch = null;
    if (watch === null) part();
    else watch.stop(part);
  }

  /** GET_VRING_BASE, detached. */
  stop(): void {
    assert(!this.attached, 'a running ring is stopped');
    this.started = false;
    this.brokenBy = null;
    this.#kick = this.#replaced(this.#kick, null);
  }

  /** The device is reset; detached. The call and error descriptors stay: they are the transport's. */
  reset(): void {
    this.stop();
    this.baseAtReset = this.base;
    this.base = null;
    this.enabled = null;
    this.size = 0;
    this.address = null;
  }

  /** The connection has ended; detached. */
  close(): void {
    this.stop();
    this.#call = this.#replaced(this.#call, null);
    this.#err = this.#replaced(this.#err, null);
  }

  interrupt(): void {
    if (this.#call !== NONE) this.#context.sharing.signal(this.#call);
  }

  broken(why: string): void {
    if (this.brokenBy !== null) return;
    this.brokenBy = why;
    if (this.#err !== NONE) this.#context.sharing.signal(this.#err);
    this.#context.broken(this, why);
  }

  /** Nothing more is said in the ring; it has not broken, and nobody is told. */
  abandon(): void {
    if (this.#worker === null) return;
    this.brokenBy ??= 'it was abandoned';
    this.#worker.abandon();
  }

  defer(callback: () => void): void {
    this.#context.defer(callback);
  }

  #detached(): void {
    const waiting = this.#detaching as (() => void)[];
    // Of a broken ring nobody knows where it stands, and chains of it may never be given back.
    if (this.brokenBy === null) this.base = (this.#queue as Virtqueue).base;
    this.#detaching = null;
    this.#queue = null;
    this.#worker = null;
    for (const callback of waiting) callback();
  }

  #replaced(old: number, descriptor: number | null): number {
    if (old !== NONE) this.#context.sharing.closeDescriptor(old);
    return descriptor ?? NONE;
  }
}

function nothing(): void {}
