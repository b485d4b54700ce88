import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { KeyTable, laneHash } from './key-table.ts';

test('a key table is a map, also where keys share their first lane', () => {
  const table = new KeyTable();
  const truth = new Map<string, [number, number]>();
  const prng = new Prng(7);
  for (let i = 0; i < 20_000; i += 1) {
    const key = [prng.below(40) - 20, prng.below(40) - 20, prng.below(8)] as const;
    const [value, weight] = [prng.below(1000), prng.below(9)];
    assert.equal(table.find(...key) >= 0, truth.has(key.join()));
    table.put(...key, value, weight);
    truth.set(key.join(), [value, weight]);
  }
  assert.equal(table.count, truth.size);
  for (const [text, [value, weight]] of truth) {
    const [a = 0, b = 0, c = 0] = text.split(',').map(Number);
    const place = table.find(a, b, c);
    assert.deepEqual([table.value(place), table.weight(place)], [value, weight]);
  }
});

test('a key table goes on from its parts', () => {
  const table = new KeyTable();
  for (let i = 0; i < 5000; i += 1) table.put(i, -i, i ^ 77, i, 1);
  const other = new KeyTable();
  other.restore(structuredClone(table.parts()));
  for (let i = 5000; i < 9000; i += 1) other.put(i, -i, i ^ 77, i, 1);
  for (let i = 0; i < 9000; i += 1) assert.equal(other.value(other.find(i, -i, i ^ 77)), i);
  assert.equal(other.count, 9000);
});

test('lanes differ for any change of unit or content, and from each other', () => {
  const seen = new Set<number>();
  let values = 0;
  for (let lane = 0; lane < 3; lane += 1) {
    for (let unit = 0; unit < 100; unit += 1) {
      for (let content = 0; content < 100; content += 1) {
        seen.add(laneHash(unit, content, lane));
        values += 1;
      }
    }
  }
  // Of 30 000 random numbers of 32 bits, a tenth of one would meet another.
  assert.ok(values - seen.size < 5, `${values - seen.size} collisions`);
});

test('what a change adds to a key is as good as random, for neighbouring units and contents too', () => {
  for (const step of [2, 3, 65]) {
    for (let lane = 0; lane < 3; lane += 1) {
      const added = Int32Array.from({ length: 1 << 18 }, (_, unit) => {
        const content = unit * step;
        return laneHash(unit, content + 1, lane) - laneHash(unit, content, lane);
      });
      const equal = added.length - new Set(added).size;
      // Of so many random numbers of 32 bits, 8 meet another.
      assert.ok(equal < 30, `lane ${lane}, step ${step}: ${equal} are equal`);
    }
  }
});
