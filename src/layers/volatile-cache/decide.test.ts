import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type CutState, decide, GARBAGE, OLD, tally } from './decide.ts';
import { CUT_MODELS, type CutModel } from './requests.ts';

const SEEDS = 4000;

/** Completed writes, unless said otherwise. */
function state(units: readonly (readonly number[])[], inFlight: readonly number[] = []): CutState {
  const writes = Math.max(...units.flat()) + 1;
  return { inFlight: Array.from({ length: writes }, (_, i) => inFlight.includes(i)), units };
}

/** All that comes out over many seeds. For each unit the write that it holds; '-' is the old content, '?' garbage. */
function outcomes(given: CutState, model: CutModel): Set<string> {
  const found = new Set<string>();
  for (let seed = 0; seed < SEEDS; seed += 1) {
    const choices = decide(given, model, seed);
    found.add(given.units.map((versions, i) => show(versions, choices[i] as number)).join(''));
  }
  return found;
}

function show(versions: readonly number[], choice: number): string {
  if (choice === GARBAGE) return '?';
  return choice === OLD ? '-' : String(versions[choice]);
}

function product(...sets: readonly string[]): Set<string> {
  let all = [''];
  for (const set of sets) all = all.flatMap((start) => set.split('').map((next) => start + next));
  return new Set(all);
}

test('three writes: in order four outcomes, in any order eight', () => {
  const three = state([[0], [1], [2]]);
  assert.deepEqual(outcomes(three, 'M0'), new Set(['---', '0--', '01-', '012']));
  for (const model of ['M1', 'M2', 'M3'] as const) {
    assert.deepEqual(outcomes(three, model), product('-0', '-1', '-2'), model);
  }
});

test('a unit written twice is old, the first or the second, never anything else', () => {
  for (const model of CUT_MODELS) {
    assert.deepEqual(outcomes(state([[0, 1]]), model), new Set(['-', '0', '1']), model);
  }
});

test('a write of several units is whole in M0 and M1 and tears in M2', () => {
  const one = state([[0], [0], [0]]);
  for (const model of ['M0', 'M1'] as const) {
    assert.deepEqual(outcomes(one, model), new Set(['---', '000']), model);
  }
  assert.deepEqual(outcomes(one, 'M2'), product('-0', '-0', '-0'));
});

test('two writes over the same three units, the newer over one more', () => {
  const two = state([[0, 1], [0, 1], [1]]);
  assert.deepEqual(outcomes(two, 'M0'), new Set(['---', '00-', '111']));
  assert.deepEqual(outcomes(two, 'M1'), new Set(['---', '00-', '111']));
  assert.deepEqual(outcomes(two, 'M2'), product('-01', '-01', '-1'));
});

test('garbage comes in M3 only, and only where a write was in flight', () => {
  const given = state([[0], [0, 1], [1], [2]], [1]);
  assert.deepEqual(outcomes(given, 'M3'), product('-0', '-01?', '-1?', '-2'));
  assert.deepEqual(outcomes(given, 'M2'), product('-0', '-01', '-1', '-2'));
});

test('an empty cache has one outcome', () => {
  const nothing: CutState = { inFlight: [], units: [] };
  for (const model of CUT_MODELS) assert.equal(decide(nothing, model, 1).length, 0);
});

/** Random states: each unit has some of the writes, in order. */
const STATES = fc
  .record({
    inFlight: fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }),
    units: fc.array(fc.uniqueArray(fc.nat(7), { minLength: 1 }), { maxLength: 12 }),
  })
  .map(({ inFlight, units }): CutState => ({
    inFlight,
    units: units
      .map((writes) => writes.filter((write) => write < inFlight.length).toSorted((a, b) => a - b))
      .filter((writes) => writes.length > 0),
  }));

test('the same seed decides the same; each model allows only what it says', () => {
  fc.assert(
    fc.property(STATES, fc.constantFrom(...CUT_MODELS), fc.nat(), (given, model, seed) => {
      const choices = decide(given, model, seed);
      assert.deepEqual(decide(given, model, seed), choices);
      assert.ok(isLegal(given, model, choices));
      const count = tally(given, choices);
      assert.equal(count.kept + count.dropped + count.stale + count.garbage, count.units);
      if (model === 'M0' || model === 'M1') assert.equal(count.torn + count.garbage, 0);
    }),
    { numRuns: 2000, seed: 1 },
  );
});

/** By trying out all sets of whole writes; by looking at each unit. */
function isLegal({ inFlight, units }: CutState, model: CutModel, choices: Int32Array): boolean {
  if (model === 'M2' || model === 'M3') {
    return units.every((versions, i) => {
      const choice = choices[i] as number;
      if (choice === GARBAGE) return model === 'M3' && versions.some((write) => inFlight[write]);
      return choice >= OLD && choice < versions.length;
    });
  }
  for (let kept = 0; kept < 2 ** inFlight.length; kept += 1) {
    // A prefix is a row of ones from the lowest bit on.
    if (model === 'M0' && (kept & (kept + 1)) !== 0) continue;
    const same = units.every((versions, i) => {
      return choices[i] === versions.findLastIndex((write) => (kept & (1 << write)) !== 0);
    });
    if (same) return true;
  }
  return false;
}

test('few of many are lost in some cuts, and few of many kept in others', () => {
  const many = state(Array.from({ length: 1000 }, (_, i) => [i]));
  let [lostFew, keptFew] = [0, 0];
  for (let seed = 0; seed < 400; seed += 1) {
    const { kept, dropped } = tally(many, decide(many, 'M1', seed));
    if (dropped > 0 && dropped < 10) lostFew += 1;
    if (kept > 0 && kept < 10) keptFew += 1;
  }
  assert.ok(lostFew > 20 && keptFew > 20, `${lostFew} and ${keptFew} of 400`);
});

test('the tally says what became of units and writes', () => {
  const given = state([[0], [0, 1], [1, 2], [3], [3]], [3]);
  assert.deepEqual(tally(given, Int32Array.of(0, OLD, 0, GARBAGE, 0)), {
    writes: 4,
    units: 5,
    kept: 2,
    dropped: 1,
    stale: 1,
    garbage: 1,
    // Write 0 is in the first unit and not in the second, where nothing newer is; so with 1; 3 is there, and garbage.
    torn: 3,
  });
  // What a newer write has replaced is not missing.
  assert.equal(tally(state([[0], [0, 1]]), Int32Array.of(0, 1)).torn, 0);
});
