import assert from 'node:assert/strict';
import test from 'node:test';
import { openMemoryStore } from '../stores/memory/memory-store.ts';
import { discard, extents, flush, perform, read, write, writeZeroes } from './await.ts';
import type { BlockDevice } from './device.ts';
import { EXTENT } from './extents.ts';
import { FLAG, OP } from './io.ts';

test('every helper does what it says', async () => {
  const disk = openMemoryStore({ name: 'memory', sizeBytes: 1 << 20 });
  await write(disk, 512, new Uint8Array(512).fill(5), FLAG.FUA);
  assert.deepEqual(await read(disk, 512, 512), new Uint8Array(512).fill(5));
  await writeZeroes(disk, 512, 512);
  assert.deepEqual(await read(disk, 512, 512), new Uint8Array(512));
  await flush(disk);
  await discard(disk, 0, 1 << 20);
  const found = await extents(disk, 0, 1 << 20);
  assert.deepEqual([found.count, found.flags[0]], [1, EXTENT.HOLE | EXTENT.ZERO]);
  assert.equal((await read(disk, 0, 0)).length, 0);
  const io = await perform(disk, OP.CACHE, 0, 512);
  assert.equal(io.error, null);
});

test('a failure says which device, what, where and why', async () => {
  const disk = openMemoryStore({ name: 'ram', sizeBytes: 1 << 20 });
  await assert.rejects(write(disk, 1 << 20, new Uint8Array(512)), {
    name: 'BlockError',
    code: 'ENOSPC',
    message: 'ram: WRITE of 512 bytes at 1048576 failed: ENOSPC',
  });
});

test('what checkIo refuses never reaches the device', async () => {
  const disk = openMemoryStore({ name: 'ram', sizeBytes: 1 << 20 });
  let submitted = 0;
  const counting: BlockDevice = {
    info: disk.info,
    submit(io) {
      submitted += 1;
      disk.submit(io);
    },
    close: () => disk.close(),
  };
  await assert.rejects(read(counting, 1, 512), { code: 'EINVAL' });
  await assert.rejects(read(counting, 0, 2 << 20), { code: 'EINVAL' });
  assert.equal(submitted, 0);
  await read(counting, 0, 512);
  assert.equal(submitted, 1);
});
