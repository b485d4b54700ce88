import { ProtocolError } from '../../base/errors.ts';
import type { GuestMemory, Place } from '../virtio/guest-memory.ts';
import { availableRingBytes, descriptorTableBytes, usedRingBytes } from '../virtio/limits.ts';
import { EVENT_SUPPRESSION_BYTES, PackedQueue } from '../virtio/packed-queue.ts';
import { SplitQueue } from '../virtio/split-queue.ts';
import { DESCRIPTOR_BYTES, hasFeature, VIRTIO_F } from '../virtio/virtio.ts';
import type { Virtqueue } from '../virtio/virtqueue.ts';
import type { InflightArea } from './inflight.ts';
import type { VringAddress } from './wire.ts';

/** Both indices at the beginning, both wrap counters 1 [virtio 2.8.1]. */
const PACKED_BEGINNING = 0x80008000;

export interface RingSetup {
  readonly index: number;
  readonly size: number;
  readonly address: VringAddress;
  /** As SET_VRING_BASE says it; null: the ring's beginning. */
  readonly base: number | null;
  readonly features: bigint;
  readonly memory: GuestMemory;
  readonly inflight: InflightArea | null;
}

/** The queue that a front-end has described. Throws a ProtocolError when it cannot be one. */
export function openQueue(setup: RingSetup): Virtqueue {
  const { index, size, address, features, memory, inflight } = setup;
  const packed = hasFeature(features, VIRTIO_F.RING_PACKED);
  const eventIdx = hasFeature(features, VIRTIO_F.EVENT_IDX);
  const place = (what: string, userAddress: number, length: number): Place => {
    const found = memory.placeOfUser(userAddress, length);
    if (found === null) throw new ProtocolError(`its ${what} is not in memory`, 'Memory access');
    return found;
  };
  const options = {
    size,
    memory,
    eventIdx,
    indirect: hasFeature(features, VIRTIO_F.INDIRECT_DESC),
    base: packed ? packedBase(setup.base) : (setup.base ?? 0) & 0xffff,
    inflight: inflight === null ? null : inflight.place(index, size, packed),
  };
  if (packed) {
    return new PackedQueue({
      ...options,
      descriptors: place('descriptor ring', address.descriptor, size * DESCRIPTOR_BYTES),
      driver: place('driver area', address.available, EVENT_SUPPRESSION_BYTES),
      device: place('device area', address.used, EVENT_SUPPRESSION_BYTES),
    });
  }
  return new SplitQueue({
    ...options,
    descriptors: place('descriptor table', address.descriptor, descriptorTableBytes(size)),
    driver: place('available ring', address.available, availableRingBytes(size, eventIdx)),
    device: place('used ring', address.used, usedRingBytes(size, eventIdx)),
  });
}

/** Whether a base, as SET_VRING_BASE says it, is that of a ring that nobody has used; null: none was said. */
export function isBeginning(base: number | null, packed: boolean): boolean {
  if (base === null) return true;
  return packed ? packedBase(base) === PACKED_BEGINNING : (base & 0xffff) === 0;
}

/**
 * Front-ends that know of 16 bits only (DPDK's) give the available index and its wrap counter; the used index is the
 * same, for nothing is in flight when a ring is set up.
 */
function packedBase(base: number | null): number {
  if (base === null) return PACKED_BEGINNING;
  return base >>> 16 === 0 ? (base | (base << 16)) >>> 0 : base;
}
