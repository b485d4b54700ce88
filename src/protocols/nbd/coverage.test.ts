import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Coverage } from './coverage.ts';

const SIZE = 40;

test('coverage agrees with one flag for each byte', () => {
  const range = fc.tuple(fc.nat(SIZE + 4), fc.nat(12));
  fc.assert(
    fc.property(fc.array(range, { maxLength: 40 }), (ranges) => {
      const coverage = new Coverage();
      coverage.reset(100, 100 + SIZE);
      const seen = Array.from({ length: SIZE }, () => false);
      for (const [start, length] of ranges) {
        const inside = length > 0 && start + length <= SIZE;
        const free = inside && !seen.slice(start, start + length).includes(true);
        const wrong = coverage.add(100 + start, 100 + start + length);
        assert.equal(wrong === null, free, `${start}+${length}`);
        if (!free) return;
        seen.fill(true, start, start + length);
        assert.equal(coverage.whole, !seen.includes(false));
      }
    }),
    { numRuns: 2000 },
  );
});

test('fragments in the worst order are whole in the end', () => {
  const coverage = new Coverage();
  coverage.reset(0, 1000);
  for (let i = 999; i >= 0; i -= 1) assert.equal(coverage.add(i, i + 1), null);
  assert.ok(coverage.whole);
});

test('too many fragments are refused', () => {
  const coverage = new Coverage();
  coverage.reset(0, 1_000_000);
  let wrong: string | null = null;
  for (let at = 1; at < 20_000 && wrong === null; at += 2) wrong = coverage.add(at, at + 1);
  assert.equal(wrong, 'too many fragments');
});

test('offsets beyond 2^53 are outside', () => {
  const coverage = new Coverage();
  coverage.reset(0, 4096);
  assert.notEqual(coverage.add(2 ** 63, 2 ** 63 + 4096), null);
  assert.notEqual(coverage.add(2 ** 64 - 4096, 2 ** 64), null);
});
