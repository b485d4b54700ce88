import { Segments } from '../../block/memory.ts';
import type { GuestMemory, Place } from './guest-memory.ts';

// What a device sees of a virtqueue, split [virtio 2.7] or packed [virtio 2.8]. Guest memory is hostile and changes
// while it is read: every field is copied out once, and the copy is checked.

/**
 * One descriptor chain, copied out of the rings and checked: all its bytes lie in the memory table, what the device reads
 * comes before what it writes. Pooled by its queue.
 */
export class Chain {
  /** What the driver knows it by: the head's index (split), the buffer id (packed). */
  id = 0;
  /** Slots of the ring that it takes (packed: how far the used index moves on; split: 1). */
  slots = 1;
  /** The queue's own number for it while it is under way: its entry of the in-flight region, say. */
  tag = 0;
  /** Device-readable bytes, in order. */
  readonly readable: Segments = new Segments();
  /** Device-writable bytes, in order. */
  readonly writable: Segments = new Segments();
}

/** How a queue is set up. */
export interface QueueOptions {
  /** Entries, a power of two for a split queue [virtio 2.7]; any number for a packed one [virtio 2.8.10.1]. */
  readonly size: number;
  /** The descriptor table (split), the descriptor ring (packed). */
  readonly descriptors: Place;
  /** Driver area: the available ring (split), the driver's event suppression (packed). */
  readonly driver: Place;
  /** Device area: the used ring (split), the device's event suppression (packed). */
  readonly device: Place;
  /** Where buffers and indirect tables lie. */
  readonly memory: GuestMemory;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /**
   * Where to go on, as vhost-user's SET_VRING_BASE says it: split: the next available index (16 bits). Packed: bits 0
   * to 14 the next descriptor, bit 15 its wrap counter, bits 16 to 30 the next used one, bit 31 its wrap counter.
   */
  readonly base: number;
  /**
   * This queue's part of the in-flight region [vhost-user "Inflight I/O tracking"], or null. What it holds from an
   * earlier process is taken first, oldest first.
   */
  readonly inflight: Place | null;
}

/**
 * The device's side of one queue. `take` and `poll`-like calls throw a ProtocolError when the driver has broken the ring
 * (a head out of range, a loop, a chain longer than the queue, a buffer outside the memory table): such a queue is not
 * used again until it is set up anew, for nothing in it can be trusted.
 */
export interface Virtqueue {
  readonly size: number;
  /** Whether a chain waits to be taken. A few loads. */
  readonly ready: boolean;
  /** Chains taken and not given back. */
  readonly inFlight: number;
  /** The next available chain, or null. It is the caller's until it is given back. */
  take(): Chain | null;
  /** Marks a chain as used, with `written` bytes written from the start of its writable part. The driver does not see it yet. */
  give(chain: Chain, written: number): void;
  /** Lets the driver see all that was given. True: it asked to be interrupted for that. */
  publish(): boolean;
  /** Asks the driver to notify from now on. True: chains have become available meanwhile. */
  enableNotify(): boolean;
  /** Tells the driver that it need not notify. */
  disableNotify(): void;
  /** Where a successor goes on, as `QueueOptions.base`. Only with nothing in flight and all published. */
  readonly base: number;
}
