import { formatSize } from '../../base/units.ts';
import type { VhostUserBlkDevice } from '../../protocols/vhost-user/blk-client.ts';
import { VIRTIO_BLK_F } from '../../protocols/virtio/blk.ts';
import { hasFeature } from '../../protocols/virtio/virtio.ts';
import type { InfoAnswer } from '../commands/info.ts';

/** What a virtio-blk device says of itself to a driver. Keys are only ever added within format 1; sizes are in bytes. */
export function describeDevice(
  name: string,
  { config, features, info }: Pick<VhostUserBlkDevice, 'config' | 'features' | 'info'>,
): InfoAnswer {
  const has = (bit: number): boolean => hasFeature(features, bit);
  const json = {
    format: 1,
    kind: 'vhost-user-blk',
    name,
    sizeBytes: config.sizeBytes,
    readOnly: has(VIRTIO_BLK_F.RO),
    flush: has(VIRTIO_BLK_F.FLUSH),
    writeCache: info.writeCache,
    writeCacheSwitch: has(VIRTIO_BLK_F.CONFIG_WCE),
    fua: has(VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA),
    discard: has(VIRTIO_BLK_F.DISCARD),
    writeZeroes: has(VIRTIO_BLK_F.WRITE_ZEROES),
    queues: config.numQueues,
    segments: config.segMax,
    logicalBlockBytes: config.blockBytes,
    preferredBlockBytes: config.preferredBytes,
    features: `0x${features.toString(16)}`,
  };
  const cache = json.writeCache ? 'on' : 'off';
  const lines = [
    name,
    `  size               ${json.sizeBytes} bytes (${formatSize(json.sizeBytes)})`,
    `  read-only          ${yes(json.readOnly)}`,
    `  flush              ${yes(json.flush)}`,
    `  write cache        ${cache}${json.writeCacheSwitch ? ', and the driver may switch it' : ''}`,
    `  FUA                ${yes(json.fua)}`,
    `  discard            ${yes(json.discard)}`,
    `  write zeroes       ${yes(json.writeZeroes)}`,
    `  queues             up to ${json.queues}`,
    `  block sizes        at least ${json.logicalBlockBytes}, best ${json.preferredBlockBytes}`,
    `  features           ${json.features}`,
  ];
  return { json, lines };
}

function yes(value: boolean): string {
  return value ? 'yes' : 'no';
}
