import assert from 'node:assert/strict';
import test from 'node:test';
import type { DeviceInfo } from '../../block/device.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { VIRTIO_BLK_CONFIG, VIRTIO_BLK_CONFIG_BYTES } from './blk.ts';
import { blkConfig } from './blk-config.ts';

const at = VIRTIO_BLK_CONFIG;

function info(changes: Partial<DeviceInfo> = {}): DeviceInfo {
  const store = openMemoryStore({ name: 'm', sizeBytes: 2 ** 33 });
  return { ...store.info, ...changes };
}

function config(changes: Partial<DeviceInfo> = {}, writeback: 0 | 1 = 1): DataView {
  return new DataView(blkConfig(info(changes), { queues: 4, writeback }).buffer);
}

test('5.2.4 the fields lie where struct virtio_blk_config has them', () => {
  const view = config();
  assert.equal(view.byteLength, VIRTIO_BLK_CONFIG_BYTES);
  assert.equal(view.getBigUint64(0, true), BigInt(2 ** 33 / 512), 'capacity');
  assert.equal(view.getUint32(12, true), 126, 'seg_max');
  assert.equal(view.getUint32(20, true), 512, 'blk_size');
  assert.equal(view.getUint8(24), 3, 'physical_block_exp: 4096');
  assert.equal(view.getUint8(25), 0, 'alignment_offset');
  assert.equal(view.getUint16(26, true), 8, 'min_io_size');
  assert.equal(view.getUint32(28, true), 0, 'opt_io_size');
  assert.equal(view.getUint8(32), 1, 'writeback');
  assert.equal(view.getUint16(34, true), 4, 'num_queues');
  assert.equal(view.getUint32(36, true), 2 ** 22, 'max_discard_sectors');
  assert.equal(view.getUint32(40, true), 256, 'max_discard_seg');
  assert.equal(view.getUint32(44, true), 8, 'discard_sector_alignment');
  assert.equal(view.getUint32(48, true), 2 ** 22, 'max_write_zeroes_sectors');
  assert.equal(view.getUint32(52, true), 256, 'max_write_zeroes_seg');
  assert.equal(view.getUint8(56), 1, 'write_zeroes_may_unmap');
});

test('5.2.4 capacity is in sectors of 512 bytes whatever blk_size is, and may need more than 32 bits', () => {
  const view = config({ blockBytes: 4096, sizeBytes: 2 ** 50 });
  assert.equal(view.getBigUint64(at.capacity, true), 2n ** 41n);
  assert.equal(view.getUint32(at.blk_size, true), 4096);
  assert.equal(view.getUint8(at.physical_block_exp), 0);
  assert.equal(view.getUint16(at.min_io_size, true), 1);
});

test('5.2.5.2 unused0 and unused1 are 0, and so are all zoned fields and those of what is not offered', () => {
  const view = config();
  assert.equal(view.getUint8(at.unused0), 0);
  for (let i = 0; i < 3; i += 1) assert.equal(view.getUint8(at.unused1 + i), 0);
  for (let i = at.max_secure_erase_sectors; i < view.byteLength; i += 1) {
    assert.equal(view.getUint8(i), 0);
  }
  for (let i = at.size_max; i < at.seg_max; i += 1) assert.equal(view.getUint8(i), 0);
  for (let i = at.geometry; i < at.blk_size; i += 1) assert.equal(view.getUint8(i), 0);
});

test('5.2.6.2 write_zeroes_may_unmap is 0 if and only if write zeroes cannot deallocate', () => {
  assert.equal(config({ discard: true }).getUint8(at.write_zeroes_may_unmap), 1);
  const view = config({ discard: false });
  assert.equal(view.getUint8(at.write_zeroes_may_unmap), 0);
  assert.equal(view.getUint32(at.max_discard_sectors, true), 0);
  assert.ok(view.getUint32(at.max_write_zeroes_sectors, true) > 0);
});

test('a read-only disk has limits of neither discard nor write zeroes', () => {
  const view = config({ readOnly: true });
  for (let i = at.max_discard_sectors; i < view.byteLength; i += 1) {
    assert.equal(view.getUint8(i), 0);
  }
});
