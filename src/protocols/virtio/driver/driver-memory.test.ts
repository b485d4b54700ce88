import assert from 'node:assert/strict';
import test from 'node:test';
import { AssertionError } from '../../../base/assert.ts';
import { Prng } from '../../../base/prng.ts';
import { Region } from '../../../block/memory.ts';
import { DriverMemory } from './driver-memory.ts';
import type { Buffer } from './driver-queue.ts';

test('addresses begin where the memory does, aligned as asked', () => {
  const memory = new DriverMemory(Region.plain(4096), 0x1_0000_0008);
  assert.equal(memory.allocate(10, 1).address, 0x1_0000_0008);
  assert.equal(memory.allocate(10, 64).address, 0x1_0000_0040);
  assert.equal(memory.allocate(8, 8).address, 0x1_0000_0018);
  assert.deepEqual(memory.placeOf(0x1_0000_0018), { region: memory.region, start: 16 });
  assert.equal(memory.addressOf({ region: memory.region, start: 16 }), 0x1_0000_0018);
  assert.throws(() => memory.allocate(4096), RangeError);
  assert.throws(() => memory.placeOf(0x1_0000_0007), AssertionError);
  assert.throws(() => memory.bytes({ address: 0x1_0000_1000, length: 16 }), AssertionError);
});

test('the device finds the same bytes', () => {
  const memory = new DriverMemory(Region.plain(4096), 0x1000, 0x7f00_0000_0000);
  const buffer = memory.allocate(16);
  memory.bytes(buffer).fill(7);
  assert.deepEqual(memory.memory.place(buffer.address, 16), memory.placeOf(buffer.address));
  assert.equal(memory.memory.placeOfUser(0x7f00_0000_0000, 16)?.start, 0);
  assert.equal(memory.region.bytes[buffer.address - 0x1000], 7);
});

test('random allocations never overlap, and all memory comes back', () => {
  const size = 1 << 16;
  const memory = new DriverMemory(Region.plain(size), 0x4000);
  const prng = new Prng(9);
  const held: Buffer[] = [];
  const owner = new Int32Array(size).fill(-1);
  for (let round = 0; round < 5000; round += 1) {
    if (prng.chance(0.55)) {
      const alignment = 2 ** prng.below(8);
      let buffer: Buffer;
      try {
        buffer = memory.allocate(prng.below(2000), alignment);
      } catch (error) {
        assert.ok(error instanceof RangeError);
        continue;
      }
      assert.equal(buffer.address % alignment, 0);
      const at = buffer.address - 0x4000;
      assert.ok(owner.subarray(at, at + buffer.length).every((value) => value === -1));
      owner.fill(round, at, at + buffer.length);
      held.push(buffer);
    } else if (held.length > 0) {
      const buffer = held.splice(prng.below(held.length), 1)[0] as Buffer;
      memory.free(buffer);
      owner.fill(-1, buffer.address - 0x4000, buffer.address - 0x4000 + buffer.length);
    }
    assert.equal(memory.freeBytes, size - held.reduce((sum, { length }) => sum + length, 0));
  }
  const twice = held.find(({ length }) => length > 0) as Buffer;
  for (const buffer of held) memory.free(buffer);
  assert.throws(() => memory.free(twice), AssertionError);
  assert.equal(memory.allocate(size).length, size);
});
