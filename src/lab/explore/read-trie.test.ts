import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { ReadTrie } from './read-trie.ts';

/** What a random deterministic reader reads of contents, and its verdict. */
function readerOf(seed: number, units: number, most: number) {
  return (contents: Int32Array): { reads: Int32Array; verdict: number } => {
    const reads: number[] = [];
    let state = seed;
    for (let i = 0; i < most; i += 1) {
      const prng = new Prng(state);
      const unit = prng.below(units);
      if (!reads.includes(unit)) reads.push(unit);
      state = prng.below(2 ** 28) * 8 + (contents[unit] as number);
    }
    return { reads: Int32Array.from(reads), verdict: new Prng(state).below(1000) };
  };
}

function randomContents(prng: Prng, units: number): Int32Array {
  return Int32Array.from({ length: units }, () => prng.below(3));
}

test('a walk finds the verdict of a run that read the same, and only then', () => {
  const units = 12;
  for (let seed = 1; seed <= 20; seed += 1) {
    const prng = new Prng(seed);
    const reader = readerOf(seed, units, 8);
    const trie = new ReadTrie(units);
    const known = new Set<string>();
    for (let i = 0; i < 400; i += 1) {
      const contents = randomContents(prng, units);
      const owed = prng.below(2);
      const { reads, verdict } = reader(contents);
      const path = `${owed}: ${[...reads].map((unit) => `${unit}=${contents[unit]}`).join()}`;
      const found = trie.walk(owed, contents);
      assert.equal(found, known.has(path) ? verdict : -1);
      if (found >= 0) assert.deepEqual([...trie.path.used()], [...reads]);
      else assert.equal(trie.insert(owed, reads, contents, verdict), 'added');
      assert.equal(trie.walk(owed, contents), verdict);
      known.add(path);
    }
    assert.ok(known.size > 20 && known.size < 400, `${known.size} paths`);
  }
});

test('runs that read the same units in another order find their place', () => {
  const trie = new ReadTrie(4);
  trie.insert(0, Int32Array.of(0, 1, 2), Int32Array.of(5, 5, 5, 0), 1);
  assert.equal(trie.insert(0, Int32Array.of(2, 1, 0), Int32Array.of(5, 6, 5, 0), 2), 'added');
  assert.equal(trie.walk(0, Int32Array.of(5, 6, 5, 9)), 2);
  assert.equal(trie.walk(0, Int32Array.of(5, 5, 5, 9)), 1);
  assert.equal(trie.walk(0, Int32Array.of(5, 7, 5, 9)), -1);
});

test('a run that contradicts what is known is refused and changes nothing', () => {
  const trie = new ReadTrie(4);
  const contents = Int32Array.of(5, 5, 5, 5);
  trie.insert(0, Int32Array.of(0, 1), contents, 1);
  assert.equal(trie.insert(0, Int32Array.of(0, 1), contents, 2), 'contradiction');
  assert.equal(trie.insert(0, Int32Array.of(0), contents, 1), 'left-out');
  assert.equal(trie.insert(0, Int32Array.of(0, 1, 2), contents, 1), 'left-out');
  assert.equal(trie.insert(0, Int32Array.of(3), contents, 2), 'left-out');
  assert.equal(trie.walk(0, contents), 1);
});

test('a checker that reads nothing has one verdict', () => {
  const trie = new ReadTrie(2);
  assert.equal(trie.insert(3, new Int32Array(0), Int32Array.of(1, 1), 7), 'added');
  assert.equal(trie.walk(3, Int32Array.of(2, 2)), 7);
  assert.equal(trie.walk(2, Int32Array.of(2, 2)), -1);
});

test('a trie goes on from its parts', () => {
  const units = 10;
  const reader = readerOf(3, units, 6);
  const [one, other] = [new ReadTrie(units), new ReadTrie(units)];
  const prng = new Prng(3);
  for (let i = 0; i < 200; i += 1) {
    const contents = randomContents(prng, units);
    const { reads, verdict } = reader(contents);
    one.insert(0, reads, contents, verdict);
  }
  other.restore(structuredClone(one.parts()));
  for (let i = 0; i < 400; i += 1) {
    const contents = randomContents(prng, units);
    const found = one.walk(0, contents);
    const { reads, verdict } = reader(contents);
    assert.equal(found < 0 || found === verdict, true);
    if (found >= 0) assert.equal(other.walk(0, contents), verdict);
    else if (other.walk(0, contents) < 0) {
      assert.equal(other.insert(0, reads, contents, verdict), 'added');
    }
    assert.equal(other.walk(0, contents), verdict);
  }
});
