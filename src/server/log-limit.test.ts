import assert from 'node:assert/strict';
import test from 'node:test';
import { LogLimit } from './log-limit.ts';

void test('a flood of lines is cut, counted, and lets later lines through', () => {
  let now = 0;
  const lines: string[] = [];
  const limit = new LogLimit(
    () => now,
    (line) => lines.push(line),
  );
  for (let i = 0; i < 1000; i += 1) limit.log(`line ${i}`);
  assert.equal(lines.length, 50);
  now += 100;
  limit.log('later');
  assert.deepEqual(lines.slice(50), ['950 lines left out', 'later']);
  now += 60_000;
  for (let i = 0; i < 1000; i += 1) limit.log('again');
  assert.equal(lines.length, 52 + 50);
});
