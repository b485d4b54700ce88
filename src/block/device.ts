import type { Io } from './io.ts';

/** What is true of a device now. Frozen; replaced as a whole when something changes. */
export interface DeviceInfo {
  /** What the operator calls it: a path, a URI. For messages. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Every offset and length is a multiple of it. A power of two. */
  readonly blockBytes: number;
  /** Requests of this size and alignment avoid read-modify-write. A power of two, at least blockBytes. */
  readonly preferredBytes: number;
  /** The most bytes in one READ or WRITE Io. */
  readonly maxTransferBytes: number;
  readonly readOnly: boolean;
  /** WCE: a write may complete before it is stable. */
  readonly writeCache: boolean;
  /** FLUSH is acknowledged and not done (mode `unsafe`). Everything that shows the disk shows this. */
  readonly ignoresFlush: boolean;
  /** How FUA is kept: by the request itself, or by a sync after it. */
  readonly fua: 'native' | 'emulated';
  readonly discard: boolean;
  /** WRITE_ZEROES without FAST always works on a writable device; this says that FAST may succeed. */
  readonly fastZero: boolean;
  /** EXTENTS tells holes from data. Without it everything is reported as data. */
  readonly extents: boolean;
  readonly rotational: boolean;
  /** Buffers whose address and length are multiples of it need no copy (O_DIRECT). 1: any will do. */
  readonly memoryAlignment: number;
}

/**
 * A disk. What holds for every one of them (the conformance suite checks each point):
 *
 * 1. `submit` takes an Io that `checkIo` accepts and completes it exactly once, perhaps before it returns.
 * 2. READ fills every byte or fails. WRITE takes every byte or fails; after a failure each block is old or new.
 * 3. FLUSH makes stable every mutation completed, to anyone, before it was submitted: with a length, at least those in
 *    its range. FUA: stable on completion.
 * 4. Overlapping requests in flight together have no order.
 * 5. Buffers are the device's from submit to completion, and not a moment longer.
 * 6. A failed sync is not forgotten: later FLUSH and FUA fail too, until an operator acts.
 * 7. `close` waits for what is in flight; a submit after it fails with ESHUTDOWN.
 * 8. Every field of `info` is true.
 */
export interface BlockDevice {
  readonly info: DeviceInfo;
  submit(io: Io): void;
  close(): Promise<void>;
}
