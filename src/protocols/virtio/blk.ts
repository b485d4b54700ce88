/**
 * The block device's constants [virtio 5.2]. `VIRTIO_BLK_F.RO` here is VIRTIO_BLK_F_RO there. Everything is little-endian,
 * also for legacy drivers: guests with other byte orders are not served.
 */

/** The device id [virtio 5.2.1]. */
export const VIRTIO_ID_BLOCK = 2;

/** Feature bits, as bit numbers [virtio 5.2.3]. */
export const VIRTIO_BLK_F = {
  /** Legacy [virtio 5.2.3.1]. */
  BARRIER: 0,
  SIZE_MAX: 1,
  SEG_MAX: 2,
  GEOMETRY: 4,
  RO: 5,
  BLK_SIZE: 6,
  /** Legacy [virtio 5.2.3.1]. */
  SCSI: 7,
  /** Called WCE in the legacy interface. */
  FLUSH: 9,
  TOPOLOGY: 10,
  CONFIG_WCE: 11,
  MQ: 12,
  DISCARD: 13,
  WRITE_ZEROES: 14,
  LIFETIME: 15,
  SECURE_ERASE: 16,
  ZONED: 17,
  /** Not in 1.4: the request's `reserved` word is `flags` [oasis-tcs/virtio-spec issue 237]. */
  REQ_FLAGS: 18,
  /** Not in 1.4: OUT_FUA is known [oasis-tcs/virtio-spec issue 237]. */
  REQ_FLAGS_OUT_FUA: 19,
} as const;

/** Request types [virtio 5.2.6]. */
export const VIRTIO_BLK_T = {
  IN: 0,
  OUT: 1,
  /** Legacy [virtio 5.2.6.3]. */
  SCSI_CMD: 2,
  SCSI_CMD_OUT: 3,
  FLUSH: 4,
  /** Legacy: the same as FLUSH [virtio 5.2.6.3]. */
  FLUSH_OUT: 5,
  GET_ID: 8,
  GET_LIFETIME: 10,
  DISCARD: 11,
  WRITE_ZEROES: 13,
  SECURE_ERASE: 14,
  ZONE_APPEND: 15,
  ZONE_REPORT: 16,
  ZONE_OPEN: 18,
  ZONE_CLOSE: 20,
  ZONE_FINISH: 22,
  ZONE_RESET: 24,
  ZONE_RESET_ALL: 26,
  /** Legacy: added to any type [virtio 5.2.6.3]. */
  BARRIER: 0x80000000,
} as const;

/** The last byte of every request [virtio 5.2.6]. */
export const VIRTIO_BLK_S = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;
export type BlkStatus = (typeof VIRTIO_BLK_S)[keyof typeof VIRTIO_BLK_S];

/** Bits of the request's flags with REQ_FLAGS [oasis-tcs/virtio-spec issue 237]. */
export const VIRTIO_BLK_REQ_FLAG = { OUT_FUA: 1 } as const;

/** Bits of a discard or write-zeroes segment's flags [virtio 5.2.6]. */
export const VIRTIO_BLK_WRITE_ZEROES_FLAG = { UNMAP: 1 } as const;

/** Where the fields of struct virtio_blk_config begin, in bytes [virtio 5.2.4]. */
export const VIRTIO_BLK_CONFIG = {
  capacity: 0,
  size_max: 8,
  seg_max: 12,
  geometry: 16,
  blk_size: 20,
  physical_block_exp: 24,
  alignment_offset: 25,
  min_io_size: 26,
  opt_io_size: 28,
  writeback: 32,
  unused0: 33,
  num_queues: 34,
  max_discard_sectors: 36,
  max_discard_seg: 40,
  discard_sector_alignment: 44,
  max_write_zeroes_sectors: 48,
  max_write_zeroes_seg: 52,
  write_zeroes_may_unmap: 56,
  unused1: 57,
  max_secure_erase_sectors: 60,
  max_secure_erase_seg: 64,
  secure_erase_sector_alignment: 68,
  zoned: 72,
} as const;

/**
 * The whole struct. Drivers of before zoned devices, and QEMU without the features at its end, ask for 60 bytes or fewer;
 * those that know more find zeroes in what is not offered [virtio 5.2.5.2].
 */
export const VIRTIO_BLK_CONFIG_BYTES = 96;

/** The unit of capacity, `sector` and all limits, whatever blk_size says [virtio 5.2.5]. */
export const SECTOR_BYTES = 512;

/** type, reserved (flags), sector [virtio 5.2.6]. */
export const BLK_HEADER_BYTES = 16;

/** struct virtio_blk_discard_write_zeroes: sector, num_sectors, flags [virtio 5.2.6]. */
export const BLK_RANGE_BYTES = 16;

/** The device ID string [virtio 5.2.6]. */
export const VIRTIO_BLK_ID_BYTES = 20;

/**
 * seg_max: a request is its data's segments, the header and the status byte, and must fit into a queue of 128 entries,
 * QEMU's default, for drivers without indirect descriptors [virtio 2.7.5.3.1: a chain is no longer than its queue].
 * QEMU's own virtio-blk says the same.
 */
export const SEG_MAX: number = 128 - 2;

/**
 * The most ranges in one discard or write-zeroes request. 256 is Linux's own limit (MAX_DISCARD_SEGMENTS), and 4 KiB on
 * the wire.
 */
export const MAX_RANGES = 256;

/**
 * The most sectors in one range: 2 GiB. fallocate(2) of so much is quick, and where zeroes have to be written it takes
 * seconds, so that a driver's timeout (30 s on Linux) is far. A multiple of every block size.
 */
export const MAX_RANGE_SECTORS: number = 2 ** 31 / SECTOR_BYTES;

/**
 * Chains taken in one call of `poll`: a whole queue of QEMU's default size, after which other queues and connections
 * have their turn.
 */
export const POLL_CHAINS = 128;

/**
 * What a queue hands to the device at once, in bytes: POLL_CHAINS requests of 64 KiB, or some milliseconds of copying
 * for a disk in memory, which does everything at once. A request that is longer goes on in the next turn.
 */
export const TURN_BYTES: number = 8 * 2 ** 20;

/** What each buffer of a chain counts for among these: it costs about as much time as copying so many bytes. */
export const BUFFER_COST_BYTES = 256;

/**
 * Parts of one long request in flight together: enough for a drive to have the next at hand when one is done, few enough
 * that a request of 4 GiB leaves room for others.
 */
export const MAX_PARTS = 4;
