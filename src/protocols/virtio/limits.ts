/** The most entries of a queue: the highest power of two in 16 bits [virtio 2.7], and as many if packed [virtio 2.8.10.1]. */
export const MAX_QUEUE_SIZE = 32768;

/** The most bytes of a chain [virtio 2.7.5.2]. The used length is a le32, so one less can be told as written. */
export const MAX_CHAIN_BYTES = 2 ** 32;

/** The largest length that fits a used element's le32 [virtio 2.7.8]. Telling less is allowed [virtio 2.7.8.2]. */
export const MAX_USED_LENGTH = 2 ** 32 - 1;

/**
 * What an indirect table may add to a chain at least, in descriptors, whatever the queue's size. Drivers must not make
 * chains longer than the queue [virtio 2.7.5.3.1], but Linux does with indirect tables: it goes by the device's seg_max
 * alone. 1024 is IOV_MAX on Linux, and what QEMU takes (VIRTQUEUE_MAX_SIZE).
 */
export const MIN_TABLE_LIMIT = 1024;

/**
 * The bound of addresses: what a double holds exactly. Guest-physical addresses have at most 52 bits on x86-64, arm64 and
 * riscv64, so nothing real lies above.
 */
export const MAX_ADDRESS = 2 ** 53;

/** Ring alignment in bytes [virtio 2.7]. */
export const SPLIT_ALIGNMENT = { descriptors: 16, available: 2, used: 4 } as const;

/** Bytes of a split queue's descriptor table [virtio 2.7]. */
export function descriptorTableBytes(queueSize: number): number {
  return 16 * queueSize;
}

/** Bytes of a split queue's available ring, with used_event at its end if event indices are used [virtio 2.7.6]. */
export function availableRingBytes(queueSize: number, eventIdx: boolean): number {
  return (eventIdx ? 6 : 4) + 2 * queueSize;
}

/** Bytes of a split queue's used ring, with avail_event at its end if event indices are used [virtio 2.7.8]. */
export function usedRingBytes(queueSize: number, eventIdx: boolean): number {
  return (eventIdx ? 6 : 4) + 8 * queueSize;
}
