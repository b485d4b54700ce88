import { ProtocolError } from '../../base/errors.ts';
import type { Place } from './guest-memory.ts';
import {
  availableRingBytes,
  descriptorTableBytes,
  MAX_QUEUE_SIZE,
  SPLIT_ALIGNMENT,
  usedRingBytes,
} from './limits.ts';

/** virtq_avail.flags: the driver needs no interrupts [virtio 2.7.6]. */
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
/** virtq_used.flags: the device needs no notifications [virtio 2.7.8]. */
export const VIRTQ_USED_F_NO_NOTIFY = 1;

/** Where `flags` and `idx` are in both rings, and where their entries begin, in units of 16 bits [virtio 2.7.6, 2.7.8]. */
export const RING = { flags: 0, idx: 1, entries: 2 } as const;

/** Where the three parts of a split queue lie [virtio 2.7]. */
export interface SplitPlaces {
  /** The descriptor table. */
  readonly descriptors: Place;
  /** The available ring. */
  readonly driver: Place;
  /** The used ring. */
  readonly device: Place;
}

/**
 * The three parts of a split queue as typed arrays, made once. They have the host's byte order, which is little-endian
 * wherever Node runs with io_uring; so the indices that both sides touch can be loaded and stored with Atomics.
 */
export interface SplitRing {
  /** The descriptor table: four words an entry: address low and high, length, flags and (above) next. */
  readonly descriptors: Uint32Array;
  readonly available: Uint16Array;
  readonly used: Uint16Array;
  /** The used ring again: entry i is the words 1 + 2i (id) and 2 + 2i (len). */
  readonly usedWords: Uint32Array;
  /** Where `used_event` is in `available`. Only with VIRTIO_F_EVENT_IDX. */
  readonly usedEvent: number;
  /** Where `avail_event` is in `used`. Only with VIRTIO_F_EVENT_IDX. */
  readonly availEvent: number;
}

/** Throws a ProtocolError when the size is none, or a part is misaligned or does not lie in its region. */
export function splitRing(size: number, places: SplitPlaces, eventIdx: boolean): SplitRing {
  if (!isQueueSize(size)) {
    throw new ProtocolError(`${size} is no size of a split queue`, 'virtio 2.7');
  }
  const { descriptors, driver, device } = places;
  const tableBytes = descriptorTableBytes(size);
  const availableBytes = availableRingBytes(size, eventIdx);
  const usedBytes = usedRingBytes(size, eventIdx);
  check('descriptor table', descriptors, tableBytes, SPLIT_ALIGNMENT.descriptors);
  check('available ring', driver, availableBytes, SPLIT_ALIGNMENT.available);
  check('used ring', device, usedBytes, SPLIT_ALIGNMENT.used);
  return {
    descriptors: new Uint32Array(...at(descriptors), tableBytes / 4),
    available: new Uint16Array(...at(driver), availableBytes / 2),
    used: new Uint16Array(...at(device), usedBytes / 2),
    usedWords: new Uint32Array(...at(device), 1 + 2 * size),
    usedEvent: RING.entries + size,
    availEvent: RING.entries + 4 * size,
  };
}

function isQueueSize(size: number): boolean {
  return Number.isInteger(size) && size >= 1 && size <= MAX_QUEUE_SIZE && (size & (size - 1)) === 0;
}

/** Alignment is that of the mapping here: what Atomics need. Pages are mapped to pages, so it is the guest's too. */
function check(name: string, { region, start }: Place, bytes: number, alignment: number): void {
  if (start < 0 || start + bytes > region.bytes.length) {
    throw new ProtocolError(`the ${name} does not lie in its memory`, 'virtio 2.7');
  }
  if ((region.bytes.byteOffset + start) % alignment !== 0) {
    throw new ProtocolError(`the ${name} is not aligned to ${alignment} bytes`, 'virtio 2.7.1');
  }
}

function at({ region, start }: Place): [ArrayBufferLike, number] {
  return [region.bytes.buffer, region.bytes.byteOffset + start];
}

/**
 * Whether moving a ring's index from `before` to `after` passes the entry at which the other side wants to be told
 * [virtio 2.7.7.2, 2.7.10.1].
 */
export function passes(event: number, before: number, after: number): boolean {
  return ((after - event - 1) & 0xffff) < ((after - before) & 0xffff);
}
