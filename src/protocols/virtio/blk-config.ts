import type { DeviceInfo } from '../../block/device.ts';
import {
  MAX_RANGE_SECTORS,
  MAX_RANGES,
  SECTOR_BYTES,
  SEG_MAX,
  VIRTIO_BLK_CONFIG,
  VIRTIO_BLK_CONFIG_BYTES,
} from './blk.ts';

/** What is in the configuration space beside what the device is. */
export interface BlkConfigOptions {
  readonly queues: number;
  /** 0: write-through, 1: write-back [virtio 5.2.5]. */
  readonly writeback: 0 | 1;
}

/**
 * The configuration space as bytes [virtio 5.2.4]. All fields are filled, whether or not their feature is offered, but
 * those of features that a device like this cannot have: they and the padding are 0 [virtio 5.2.5.2].
 */
export function blkConfig(info: DeviceInfo, options: BlkConfigOptions): Uint8Array {
  const bytes = new Uint8Array(VIRTIO_BLK_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  const at = VIRTIO_BLK_CONFIG;
  const { preferredBytes } = info;
  // A disk may take single bytes; its driver has nothing below sectors [virtio 5.2.6].
  const blockBytes = Math.max(info.blockBytes, SECTOR_BYTES);
  view.setBigUint64(at.capacity, BigInt(Math.floor(info.sizeBytes / SECTOR_BYTES)), true);
  view.setUint32(at.seg_max, SEG_MAX, true);
  view.setUint32(at.blk_size, blockBytes, true);
  // Logical blocks in a physical one, as a power of two. What is smallest is also best: there is no larger size at which
  // this device is at its best, and an opt_io_size other than 0 would pass for the stripe of an array.
  const perPhysical = Math.max(1, preferredBytes / blockBytes);
  view.setUint8(at.physical_block_exp, Math.round(Math.log2(perPhysical)));
  view.setUint16(at.min_io_size, Math.min(perPhysical, 0xffff), true);
  view.setUint8(at.writeback, options.writeback);
  view.setUint16(at.num_queues, options.queues, true);
  if (info.readOnly) return bytes;
  if (info.discard) {
    view.setUint32(at.max_discard_sectors, MAX_RANGE_SECTORS, true);
    view.setUint32(at.max_discard_seg, MAX_RANGES, true);
    const alignment = Math.max(blockBytes, preferredBytes) / SECTOR_BYTES;
    view.setUint32(at.discard_sector_alignment, alignment, true);
  }
  view.setUint32(at.max_write_zeroes_sectors, MAX_RANGE_SECTORS, true);
  view.setUint32(at.max_write_zeroes_seg, MAX_RANGES, true);
  // [virtio 5.2.6.2] 0 if and only if write zeroes cannot deallocate.
  view.setUint8(at.write_zeroes_may_unmap, info.discard ? 1 : 0);
  return bytes;
}
