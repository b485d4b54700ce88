import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Fifo } from './fifo.ts';

test('a queue gives back in order, however pushes and shifts mix', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -40, max: 40 }), { maxLength: 300 }), (steps) => {
      const fifo = new Fifo<number>();
      let pushed = 0;
      let shifted = 0;
      for (const step of steps) {
        for (let i = 0; i < step; i += 1) fifo.push(pushed++);
        for (let i = 0; i > step; i -= 1) {
          assert.equal(fifo.peek(), shifted < pushed ? shifted : undefined);
          assert.equal(fifo.shift(), shifted < pushed ? shifted : undefined);
          if (shifted < pushed) shifted += 1;
        }
        assert.equal(fifo.length, pushed - shifted);
      }
    }),
  );
});

test('a queue that is never empty does not grow for ever', () => {
  const fifo = new Fifo<number>();
  fifo.push(0);
  for (let i = 0; i < 100_000; i += 1) {
    fifo.push(i + 1);
    assert.equal(fifo.shift(), i);
  }
  assert.equal(fifo.length, 1);
});
