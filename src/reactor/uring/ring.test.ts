import assert from 'node:assert/strict';
import test from 'node:test';
import { distance } from './ring.ts';

void test('positions of a ring are compared across the point where they start over', () => {
  const most = 2 ** 31 - 1;
  assert.equal(distance(0, 512), 512);
  assert.equal(distance(-8, 8), 16);
  // 2^31 requests are three hours of a busy server.
  assert.equal(distance(most - 255, (most + 257) | 0), 512);
  assert.equal(distance(most, -(2 ** 31)), 1);
});
