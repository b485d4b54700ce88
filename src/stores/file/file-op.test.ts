import assert from 'node:assert/strict';
import test from 'node:test';
import { FileOpPool, type FileOp } from './file-op.ts';

void test('an op is never dropped: its place in the ring could not be given back', () => {
  const pool = new FileOpPool();
  const together: FileOp[] = Array.from({ length: 10_000 }, () => pool.take());
  for (const op of together) pool.give(op);
  const again = new Set(Array.from({ length: 10_000 }, () => pool.take()));
  assert.deepEqual(again, new Set(together));
});
