import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { ddmin } from './ddmin.ts';

const needs =
  (...wanted: number[]) =>
  (part: readonly number[]): Promise<boolean> =>
    Promise.resolve(wanted.every((item) => part.includes(item)));

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

test('what always fails needs nothing', async () => {
  assert.deepEqual(await ddmin(upTo(5), needs()), []);
});

test('exactly what is needed is left', async () => {
  assert.deepEqual(await ddmin(upTo(100), needs(3, 64, 65)), [3, 64, 65]);
  assert.deepEqual(await ddmin(upTo(1), needs(0)), [0]);
  assert.deepEqual(await ddmin(upTo(3), needs(0, 1, 2)), [0, 1, 2]);
});

test('whatever fails: without any one of what is left, it does not', async () => {
  const prng = new Prng(7);
  for (let round = 0; round < 200; round += 1) {
    const sets = upTo(3).map(() => upTo(12).filter(() => prng.below(3) === 0));
    const fails = (part: readonly number[]): Promise<boolean> =>
      Promise.resolve(sets.some((set) => set.every((item) => part.includes(item))));
    const all = upTo(12);
    const left = await ddmin(all, fails);
    assert.ok(await fails(left));
    for (const item of left) assert.ok(!(await fails(left.filter((other) => other !== item))));
  }
});

test('it stops when it may not ask any more', async () => {
  let asked = 0;
  const fails = (part: readonly number[]): Promise<boolean> => {
    asked += 1;
    return needs(3, 50, 99)(part);
  };
  const left = await ddmin(upTo(100), fails, () => asked >= 10);
  assert.ok(asked <= 10);
  assert.ok([3, 50, 99].every((item) => left.includes(item)));
});
