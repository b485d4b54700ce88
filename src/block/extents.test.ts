import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { EXTENT, ExtentList } from './extents.ts';
import { MAX_EXTENTS } from './limits.ts';

test('the bits are those of base:allocation', () => {
  // [NBD proto "base:allocation" metadata context]
  assert.deepEqual(EXTENT, { HOLE: 1, ZERO: 2 });
});

test('equal neighbours are merged, empty ones ignored, and the content is kept', () => {
  const parts = fc.array(fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: 3 })), { maxLength: 40 });
  fc.assert(
    fc.property(parts, (list) => {
      const extents = new ExtentList();
      const expected: number[] = [];
      for (const [length, flags] of list) {
        extents.push(length, flags);
        for (let i = 0; i < length; i += 1) expected.push(flags);
      }
      const found: number[] = [];
      for (let i = 0; i < extents.count; i += 1) {
        const flags = extents.flags[i] as number;
        assert.notEqual(flags, i > 0 ? extents.flags[i - 1] : null, 'neighbours not merged');
        for (let k = 0; k < (extents.lengths[i] as number); k += 1) found.push(flags);
      }
      assert.deepEqual(found, expected);
      assert.equal(extents.totalBytes, expected.length);
      extents.clear();
      assert.deepEqual([extents.count, extents.totalBytes], [0, 0]);
    }),
    { seed: 1 },
  );
});

test('a full list stays short of the truth, not beside it', () => {
  const extents = new ExtentList();
  for (let i = 0; i < MAX_EXTENTS; i += 1) extents.push(512, i % 2);
  assert.ok(extents.full);
  const total = extents.totalBytes;
  extents.push(512, MAX_EXTENTS % 2);
  assert.deepEqual([extents.count, extents.totalBytes], [MAX_EXTENTS, total]);
});

test('a gap is never bridged: what comes after an ignored extent is ignored too', () => {
  const extents = new ExtentList();
  for (let i = 0; i < MAX_EXTENTS; i += 1) extents.push(512, i % 2);
  const total = extents.totalBytes;
  // Ignored, and then one with the flags of the last that was kept: it is no neighbour of it.
  extents.push(512, 0);
  extents.push(512, 1);
  assert.equal(extents.totalBytes, total);
});
