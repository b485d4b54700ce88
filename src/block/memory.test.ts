import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Region, Segments } from './memory.ts';

/** Segments over separate regions, or over one with gaps, with distinct bytes. */
const pieces = fc.array(fc.record({ length: fc.nat({ max: 40 }), gap: fc.nat({ max: 3 }) }), {
  maxLength: 8,
});

test('a region is a window on its buffer', () => {
  const buffer = new ArrayBuffer(16);
  const region = new Region(4096, buffer, 4, 8);
  assert.equal(region.address, 4096);
  region.bytes[0] = 7;
  assert.equal(new Uint8Array(buffer)[4], 7);
  assert.equal(region.view.getUint8(0), 7);
  assert.equal(region.view.byteLength, 8);
  const plain = Region.plain(new Uint8Array(buffer, 4, 2));
  assert.deepEqual([plain.address, plain.bytes.length, plain.bytes[0]], [0, 2, 7]);
  assert.equal(Region.plain(5).bytes.length, 5);
});

test('neighbours in one region are joined, others are not', () => {
  const [a, b] = [Region.plain(100), Region.plain(100)];
  const segments = new Segments();
  segments.push(a, 0, 10);
  segments.push(a, 10, 5);
  segments.push(b, 15, 5);
  segments.push(a, 15, 5);
  segments.push(a, 21, 1);
  assert.equal(segments.count, 4);
  assert.deepEqual(segments.starts.slice(0, 4), [0, 15, 15, 21]);
  assert.deepEqual(segments.lengths.slice(0, 4), [15, 5, 5, 1]);
  assert.equal(segments.totalBytes, 26);
  assert.equal(segments.end(0), 15);
  segments.clear();
  assert.deepEqual([segments.count, segments.totalBytes], [0, 0]);
});

test('bytesAt is a view of the memory', () => {
  const region = Region.plain(10);
  const segments = new Segments();
  segments.push(region, 2, 3);
  segments.bytesAt(0).fill(9);
  assert.deepEqual([...region.bytes], [0, 0, 9, 9, 9, 0, 0, 0, 0, 0]);
});

test('copyTo takes any part, copyFrom puts any part, and nothing else changes', () => {
  fc.assert(
    fc.property(pieces, fc.nat(), fc.nat(), (list, from, size) => {
      const { segments, region } = build(list);
      const all = flat(segments);
      const skip = from % (all.length + 1);
      const length = size % (all.length - skip + 1);
      const part = new Uint8Array(length);
      segments.copyTo(part, skip);
      assert.deepEqual(part, all.slice(skip, skip + length));

      const outside = outsideOf(segments, region);
      segments.copyFrom(new Uint8Array(length).fill(255), skip);
      const expected = all.slice();
      expected.fill(255, skip, skip + length);
      assert.deepEqual(flat(segments), expected);
      assert.deepEqual(outsideOf(segments, region), outside);

      segments.fill(3);
      assert.ok(flat(segments).every((byte) => byte === 3));
      assert.deepEqual(outsideOf(segments, region), outside);
    }),
    { numRuns: 300, seed: 1 },
  );
});

test('a copy longer than the segments is our mistake', () => {
  const segments = new Segments();
  segments.push(Region.plain(4), 0, 4);
  assert.throws(() => segments.copyTo(new Uint8Array(4), 1), { name: 'AssertionError' });
  assert.throws(() => segments.copyFrom(new Uint8Array(5)), { name: 'AssertionError' });
});

function build(list: readonly { length: number; gap: number }[]): {
  segments: Segments;
  region: Region;
} {
  const region = Region.plain(new Uint8Array(400).map((_, i) => i % 251));
  const segments = new Segments();
  let at = 0;
  for (const { length, gap } of list) {
    segments.push(region, at + gap, length);
    at += gap + length;
  }
  return { segments, region };
}

/** The bytes of all segments, one by one: what copyTo must agree with. */
function flat(segments: Segments): Uint8Array {
  const bytes: number[] = [];
  for (let i = 0; i < segments.count; i += 1) bytes.push(...segments.bytesAt(i));
  return Uint8Array.from(bytes);
}

/** The region with all that belongs to segments blanked out. */
function outsideOf(segments: Segments, region: Region): Uint8Array {
  const bytes = region.bytes.slice();
  for (let i = 0; i < segments.count; i += 1) {
    bytes.fill(0, segments.starts[i], segments.end(i));
  }
  return bytes;
}
