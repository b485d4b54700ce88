import { ConfigError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import type { DeviceInfo } from '../../block/device.ts';
import { MAX_DISK_BYTES, MAX_TRANSFER_BYTES } from '../../block/limits.ts';
import { SECTOR_BYTES, VIRTIO_BLK_CONFIG, VIRTIO_BLK_F } from '../virtio/blk.ts';
import { hasFeature } from '../virtio/virtio.ts';

const AT = VIRTIO_BLK_CONFIG;

/** What the device says of itself, as far as features were negotiated that make the fields valid. */
export interface BlkConfig {
  readonly sizeBytes: number;
  /** The most bytes of one buffer in a request; Infinity without SIZE_MAX. */
  readonly sizeMax: number;
  /** The most data buffers in a request, or null without SEG_MAX. */
  readonly segMax: number | null;
  readonly blockBytes: number;
  readonly preferredBytes: number;
  /** The byte `writeback`, or null without CONFIG_WCE. */
  readonly writeback: number | null;
  readonly numQueues: number;
  /** The most bytes of one DISCARD; 0: it cannot be had. */
  readonly discardBytes: number;
  /** The most bytes of one WRITE_ZEROES; 0: it cannot be had. */
  readonly zeroesBytes: number;
  readonly zeroesMayUnmap: boolean;
}

/** As much of the configuration space as these features fill: older back-ends know no more, and refuse to say more. */
export function configBytesFor(features: bigint): number {
  const late = [VIRTIO_BLK_F.DISCARD, VIRTIO_BLK_F.WRITE_ZEROES];
  return late.some((bit) => hasFeature(features, bit))
    ? AT.max_secure_erase_sectors
    : AT.max_discard_sectors;
}

/** `bytes` are at least configBytesFor(features) long. */
export function decodeBlkConfig(bytes: Uint8Array, features: bigint): BlkConfig {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const has = (bit: number): boolean => hasFeature(features, bit);
  const u32 = (at: number): number => view.getUint32(at, true);
  const sectors = view.getUint32(AT.capacity + 4, true) * 2 ** 32 + u32(AT.capacity);
  const blockBytes = has(VIRTIO_BLK_F.BLK_SIZE) ? u32(AT.blk_size) : SECTOR_BYTES;
  let preferredBytes = Math.max(blockBytes, 4096);
  if (has(VIRTIO_BLK_F.TOPOLOGY)) {
    const physical = blockBytes * 2 ** view.getUint8(AT.physical_block_exp);
    const smallest = blockBytes * view.getUint16(AT.min_io_size, true);
    preferredBytes = Math.max(preferredBytes, physical, smallest);
  }
  const zeroes = has(VIRTIO_BLK_F.WRITE_ZEROES);
  return {
    sizeBytes: sectors * SECTOR_BYTES,
    // QEMU 7.2 offers SIZE_MAX and says 0; 0 means nothing to Linux's driver either.
    sizeMax: (has(VIRTIO_BLK_F.SIZE_MAX) && u32(AT.size_max)) || Infinity,
    segMax: (has(VIRTIO_BLK_F.SEG_MAX) && u32(AT.seg_max)) || null,
    blockBytes,
    preferredBytes,
    writeback: has(VIRTIO_BLK_F.CONFIG_WCE) ? view.getUint8(AT.writeback) : null,
    numQueues: has(VIRTIO_BLK_F.MQ) ? view.getUint16(AT.num_queues, true) : 1,
    discardBytes: has(VIRTIO_BLK_F.DISCARD) ? u32(AT.max_discard_sectors) * SECTOR_BYTES : 0,
    zeroesBytes: zeroes ? u32(AT.max_write_zeroes_sectors) * SECTOR_BYTES : 0,
    zeroesMayUnmap: zeroes && view.getUint8(AT.write_zeroes_may_unmap) !== 0,
  };
}

/**
 * Whether completed writes may be volatile, by what was negotiated and the byte `writeback`
 * [virtio 5.2.5.1, 5.2.6.2].
 */
export function isWriteBack(config: BlkConfig, features: bigint): boolean {
  if (config.writeback !== null) return config.writeback !== 0;
  return hasFeature(features, VIRTIO_BLK_F.FLUSH);
}

/**
 * The most bytes of one READ or WRITE with so many data buffers, at most `wish`, in whole blocks. 0 where not even one
 * block goes.
 */
export function maxTransfer(config: BlkConfig, dataBuffers: number, wish: number): number {
  const most = Math.min(MAX_TRANSFER_BYTES, wish, config.sizeMax * dataBuffers);
  return most - (most % config.blockBytes);
}

/** What the disk is as a device. Throws a ConfigError for sizes that no device can have. */
export function describeBlk(
  name: string,
  config: BlkConfig,
  features: bigint,
  maxTransferBytes: number,
): DeviceInfo {
  const { blockBytes } = config;
  if (!isPowerOfTwo(blockBytes) || blockBytes < SECTOR_BYTES || blockBytes > 65536) {
    throw new ConfigError(
      `${name}: the back-end has blocks of ${blockBytes} bytes`,
      'they are powers of two from 512 to 65536: look at its options',
    );
  }
  // The last sectors of a size that is no multiple cannot be reached.
  const sizeBytes = config.sizeBytes - (config.sizeBytes % blockBytes);
  if (!(sizeBytes <= MAX_DISK_BYTES) || sizeBytes === 0) {
    throw new ConfigError(
      `${name}: the disk has ${config.sizeBytes} bytes`,
      `a disk has at least one block and at most ${formatSize(MAX_DISK_BYTES)}`,
    );
  }
  if (maxTransferBytes === 0) {
    throw new ConfigError(
      `${name}: the back-end takes ${config.sizeMax} bytes in a buffer`,
      'that is less than a block: look at its options',
    );
  }
  const writeCache = isWriteBack(config, features);
  const preferred = isPowerOfTwo(config.preferredBytes) ? config.preferredBytes : 4096;
  return Object.freeze({
    name,
    sizeBytes,
    blockBytes,
    preferredBytes: Math.max(preferred, blockBytes),
    maxTransferBytes,
    readOnly: hasFeature(features, VIRTIO_BLK_F.RO),
    writeCache,
    ignoresFlush: false,
    fua: !writeCache || hasFua(features) ? 'native' : 'emulated',
    discard: config.discardBytes > 0,
    // The protocol cannot ask for "fast or not at all".
    fastZero: false,
    extents: false,
    rotational: false,
    memoryAlignment: 1,
  } satisfies DeviceInfo);
}

/** Bits 18 and 19 are both there: one write can be asked to be stable. */
export function hasFua(features: bigint): boolean {
  const bits = [VIRTIO_BLK_F.REQ_FLAGS, VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA];
  return bits.every((bit) => hasFeature(features, bit));
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}
