import type { Virtqueue } from './virtqueue.ts';

// What joins a device type (virtio-blk) with a transport (vhost-user). Neither knows the other.

/** What a transport gives a queue's worker. */
export interface QueueHost {
  /** Used buffers have become visible, and the driver asked to be interrupted for them. */
  interrupt(): void;
  /** The ring is broken and no longer served: why, for the operator. The device needs a reset [virtio 2.1.2]. */
  broken(why: string): void;
  /** Runs a call-back after the current batch (Reactor.defer). */
  defer(callback: () => void): void;
}

/** Serves one queue: takes chains, executes them, gives them back. All calls come from the data plane's thread. */
export interface QueueWorker {
  /** Whether chains wait that may be taken now. A few loads. */
  ready(): boolean;
  /** Takes what waits, a bounded number of chains, and submits it. What is done becomes visible once per batch. */
  poll(): void;
  /** Asks the driver to notify; true when chains have come meanwhile. */
  arm(): boolean;
  disarm(): void;
  /** Takes no more, and gives nothing back: what was taken stays in flight for the driver. `detach` follows. */
  abandon(): void;
  /**
   * Takes no more. Calls back, perhaps at once, when everything taken has been given back and is visible: from then on
   * nothing of this worker touches guest memory. A broken queue is drained too.
   */
  detach(drained: () => void): void;
}

/** One virtio device for one driver at a time. */
export interface VirtioDevice {
  /** [virtio 5]: 2 is a block device. */
  readonly id: number;
  /** The device type's own feature bits that it offers (bits 0 to 23). The transport and the rings add theirs. */
  readonly offered: bigint;
  readonly maxQueues: number;
  readonly configBytes: number;
  /** Called when the configuration space has changed by itself. Set by the transport. */
  onConfigChange: (() => void) | null;
  /**
   * The configuration space, little-endian, [offset, offset + length) inside configBytes. What is read is taken for told:
   * the driver may act on it.
   */
  readConfig(offset: number, length: number): Uint8Array;
  /**
   * The driver writes to it. `done(false)`: nothing was changed (read-only fields, a value that cannot be had). Comes
   * when the change holds: the WCE switch is answered after its flush.
   */
  writeConfig(offset: number, bytes: Uint8Array, done: (accepted: boolean) => void): void;
  /**
   * A driver with these negotiated features is about to use the queues. `ready`, perhaps at once, when it may: what
   * earlier drivers left behind is finished (P11). With other features than before it is another driver. `fresh`: its rings
   * are at their beginning and nothing is in flight, so it has just begun and was not there before this connection.
   */
  start(features: bigint, ready: () => void, fresh: boolean): void;
  /** Between `ready` and reset or end. */
  attach(index: number, queue: Virtqueue, host: QueueHost): QueueWorker;
  /** The driver has reset the device; all queues are detached. `done` when it is as it was at first. */
  reset(done: () => void): void;
  /**
   * The transport is gone, or is about to end, and queues are still being detached: whoever else begins to use the device's
   * resources waits until what is in flight is finished (P11). `end` follows.
   */
  leave(): void;
  /** The transport is gone; all queues are detached. */
  end(): void;
}
