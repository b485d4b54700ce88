import assert from 'node:assert/strict';
import test from 'node:test';
import { pairColumns, pairRows } from './pair-rows.ts';

test('the rows are as few as they can be', () => {
  // Kleitman and Spencer, Katona: the least N with C(N - 1, ceil(N / 2)) >= n.
  const known = [
    [0, 0],
    [1, 2],
    [2, 4],
    [3, 4],
    [4, 5],
    [5, 6],
    [10, 6],
    [11, 7],
    [15, 7],
    [16, 8],
  ];
  const more = [
    [35, 8],
    [36, 9],
    [56, 9],
    [57, 10],
    [126, 10],
    [462, 12],
    [1716, 14],
    [1717, 15],
  ];
  for (const [columns, rows] of [...known, ...more]) {
    assert.equal(pairRows(columns as number), rows, `${columns} columns`);
  }
});

test('any two columns show all four pairs', () => {
  for (const columns of [2, 3, 4, 5, 10, 11, 15, 16, 35, 56, 126, 200, 463]) {
    const bits = pairColumns(columns);
    const rows = pairRows(columns);
    for (let a = 0; a < columns; a += 1) {
      for (let b = 0; b < a; b += 1) {
        const seen = new Set<number>();
        for (let row = 0; row < rows; row += 1) {
          const one = ((bits[a] as number) >>> row) & 1;
          seen.add(2 * one + (((bits[b] as number) >>> row) & 1));
        }
        assert.equal(seen.size, 4, `columns ${a} and ${b} of ${columns}`);
      }
    }
  }
});

test('columns of a wide array are different subsets of its rows', () => {
  const bits = pairColumns(100_000);
  const rows = pairRows(100_000);
  assert.equal(new Set(bits).size, bits.length);
  assert.ok(bits.every((column) => column > 0 && column < 2 ** rows && column % 2 === 1));
  const half = Math.floor(rows / 2);
  assert.ok(bits.every((column) => column.toString(2).replaceAll('0', '').length === half));
});
