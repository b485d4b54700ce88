import assert from 'node:assert/strict';
import test from 'node:test';
import { Region, Segments } from '../../block/memory.ts';
import { GuestMemory } from './guest-memory.ts';
import { Prng } from '../../base/prng.ts';

function region(guestAddress: number, sizeBytes: number, userAddress = 0, extra = 0) {
  return { guestAddress, userAddress, sizeBytes, region: Region.plain(sizeBytes + extra) };
}

test('regions may touch but not overlap, and lie below 2^53', () => {
  assert.equal(new GuestMemory([region(100, 100), region(0, 100)]).regions[0]?.guestAddress, 0);
  assert.throws(() => new GuestMemory([region(0, 101), region(100, 100)]), RangeError);
  assert.equal(new GuestMemory([region(2 ** 53 - 16, 16)]).regions.length, 1);
  assert.throws(() => new GuestMemory([region(2 ** 53 - 16, 18)]), RangeError);
  const short = { ...region(0, 16), sizeBytes: 17 };
  assert.throws(() => new GuestMemory([short]), RangeError);
});

test('without regions nothing is inside', () => {
  const memory = new GuestMemory([]);
  const segments = new Segments();
  assert.equal(memory.push(segments, 0, 1), false);
  assert.equal(memory.push(segments, 0, 0), true);
  assert.equal(memory.place(0, 1), null);
  assert.equal(memory.placeOfUser(0, 1), null);
  assert.equal(segments.count, 0);
});

test('bytes are found in pieces as regions hold them', () => {
  const [low, high] = [region(0x1000, 0x1000), region(0x2000, 0x1000)];
  const memory = new GuestMemory([low, high, region(0x8000, 0x1000, 0, 0x1000)]);
  const segments = new Segments();
  assert.equal(memory.push(segments, 0x1ff0, 0x20), true);
  assert.deepEqual(segments.regions, [low.region, high.region]);
  assert.deepEqual(segments.starts, [0xff0, 0]);
  assert.deepEqual(segments.lengths, [0x10, 0x10]);
  for (const [address, length] of [
    [0xfff, 1],
    [0x2fff, 2],
    [0x8fff, 2],
    [0x9000, 1],
    [0x1000, 2 ** 32 - 1],
    [2 ** 53, 1],
    [2 ** 64, 1],
  ] as const) {
    segments.clear();
    assert.equal(memory.push(segments, address, length), false, `${address}`);
  }
});

test('places are in one piece, by the guest or by the front-end address', () => {
  const low = region(0x1000, 0x1000, 0x7000_0000_0000);
  const high = region(0x2000, 0x1000, 0x7000_0000_1000);
  const memory = new GuestMemory([low, high]);
  assert.deepEqual(memory.place(0x1800, 0x800), { region: low.region, start: 0x800 });
  assert.equal(memory.place(0x1800, 0x801), null);
  assert.equal(memory.place(0x3000, 0), null);
  assert.deepEqual(memory.placeOfUser(0x7000_0000_1010, 16), { region: high.region, start: 16 });
  assert.equal(memory.placeOfUser(0x7000_0000_0ff8, 16), null);
  assert.equal(memory.placeOfUser(0x1000, 16), null);
});

test('whatever is asked, every byte found is the byte at that address', () => {
  const prng = new Prng(5);
  const regions = [];
  let address = 0;
  for (let i = 0; i < 20; i += 1) {
    address += prng.chance(0.5) ? 0 : prng.below(64);
    const made = region(address, 1 + prng.below(64));
    regions.push(made);
    address += made.sizeBytes;
  }
  const table = new Map<number, [Region, number]>();
  for (const { guestAddress, sizeBytes, region: bytes } of regions) {
    for (let i = 0; i < sizeBytes; i += 1) table.set(guestAddress + i, [bytes, i]);
  }
  const memory = new GuestMemory(regions);
  const segments = new Segments();
  for (let round = 0; round < 5000; round += 1) {
    const at = prng.below(address + 20);
    const length = prng.below(200);
    segments.clear();
    const inside = Array.from({ length }, (_, i) => table.has(at + i)).every(Boolean);
    assert.equal(memory.push(segments, at, length), inside);
    if (!inside) continue;
    assert.equal(segments.totalBytes, length);
    let done = 0;
    for (let i = 0; i < segments.count; i += 1) {
      const first = table.get(at + done);
      assert.deepEqual([segments.regions[i], segments.starts[i]], first);
      done += segments.lengths[i] as number;
      const last = table.get(at + done - 1);
      assert.deepEqual([segments.regions[i], segments.end(i) - 1], last);
    }
    assert.equal(done, length);
  }
});
