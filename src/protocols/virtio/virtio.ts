/** Feature bits that are not a device type's own [virtio 6], as bit numbers. */
export const VIRTIO_F = {
  /** Legacy: VIRTIO_F_NOTIFY_ON_EMPTY [virtio 6.3]. */
  NOTIFY_ON_EMPTY: 24,
  /** Legacy: VIRTIO_F_ANY_LAYOUT [virtio 6.3]. */
  ANY_LAYOUT: 27,
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  RING_RESET: 40,
} as const;

/** Device status bits [virtio 2.1]. */
export const VIRTIO_CONFIG_S = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  DEVICE_NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Descriptor flags of both ring formats [virtio 2.7.5, 2.8.6]. */
export const VIRTQ_DESC_F = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;

/** Flags of packed descriptors alone: whose they are, in step with a wrap counter [virtio 2.8.1]. */
export const VIRTQ_PACKED_DESC_F = { AVAIL: 1 << 7, USED: 1 << 15 } as const;

/** Event suppression of packed queues [virtio 2.8.10]; 3 is reserved. */
export const RING_EVENT_FLAGS = { ENABLE: 0, DISABLE: 1, DESC: 2 } as const;

/** Bytes of one descriptor, in either format. */
export const DESCRIPTOR_BYTES = 16;

export function hasFeature(features: bigint, bit: number): boolean {
  return ((features >> BigInt(bit)) & 1n) === 1n;
}
