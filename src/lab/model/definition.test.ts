import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { builtModel } from './built-model.ts';
import { openCrashModel } from './crash-model.ts';
import { enumerateStates } from './enumerate-states.ts';
import { factsOf, imagesAt, randomTrace, SECTOR, SECTORS } from './testing.ts';
import {
  type CrashModel,
  type ModelName,
  type ModelOptions,
  type Rule,
  type StateSpec,
  TEAR_SHAPES,
} from './types.ts';

// The model against its definition (testing.ts), for thousands of small random traces.

function randomOptions(prng: Prng): ModelOptions {
  return {
    model: prng.pick<ModelName>(['M0', 'M1', 'M1', 'M2', 'M2', 'M3', 'M3', 'L']),
    unitBytes: prng.pick([512, 512, 1024]),
    overlap: prng.pick(['issued', 'issued', 'any'] as const),
    poison: prng.chance(0.25),
  };
}

// The model's side.

function imageOf(model: CrashModel, state: StateSpec): string {
  const { contents } = builtModel(model);
  const byte = new Uint8Array(1);
  let image = '';
  for (const { number } of model.trace.disks) {
    for (let sector = 0; sector < SECTORS; sector += 1) {
      const unit = model.unitAt(number, sector * SECTOR);
      let content = '0';
      if (unit >= 0) {
        const version = model.versionIn(state, unit);
        model.readVersion(version, sector * SECTOR - model.place(unit).offset, byte);
        content = contents.isGarbage(version) ? `g${model.requestOf(version)}` : String(byte[0]);
      }
      image += `${content},`;
    }
  }
  return image;
}

function randomRule(prng: Prng, model: CrashModel, cut: number): Rule {
  const { requests, units, first, versions } = model.view(cut);
  const some = [...requests].filter(() => prng.chance(0.5));
  const seed = prng.uint32();
  switch (prng.below(9)) {
    case 0:
      return { kind: 'floor' };
    case 1: {
      const order = prng.pick(['issued', 'completed'] as const);
      return { kind: 'prefix', order, count: prng.below(requests.length + 1) };
    }
    case 2:
      return { kind: prng.pick(['lost', 'kept'] as const), requests: some };
    case 3:
      if (requests.length === 0) return { kind: 'all' };
      return { kind: 'pairs', row: prng.below(2), flip: prng.chance(0.5) };
    case 4: {
      if (requests.length === 0) return { kind: 'all' };
      const shape = prng.pick(TEAR_SHAPES);
      const others = prng.pick(['lost', 'kept'] as const);
      return { kind: 'tear', request: prng.pick([...requests]), shape, others };
    }
    case 5:
      return { kind: 'stale', back: prng.below(3) };
    case 6:
      return { kind: 'random', by: 'request', seed, keep: prng.below(257) };
    case 7:
      return { kind: 'random', by: 'unit', seed, keep: prng.below(257) };
    default: {
      const pairs: number[] = [];
      for (let at = 0; at < units.length; at += 1) {
        if (prng.chance(0.5)) continue;
        const from = first[at] as number;
        const place = from + prng.below((first[at + 1] as number) - from);
        pairs.push(units[at] as number, versions[place] as number);
      }
      return { kind: 'units', others: prng.pick(['all', 'floor'] as const), pairs };
    }
  }
}

function checkTrace(seed: number): void {
  const prng = new Prng(seed);
  const trace = randomTrace(prng);
  const options = randomOptions(prng);
  const facts = factsOf(trace, options);
  const what = `seed ${seed}, ${JSON.stringify(options)}`;
  const model = openCrashModel(trace, options);
  const [atCuts, canonical] = [new Set<string>(), new Set<string>()];
  const owed = new Map<string, number>();
  for (const { index, event } of model.cuts) {
    const expected = imagesAt(facts, event);
    const found = new Set<string>();
    let states = 0;
    for (const state of enumerateStates(model, index)) {
      const image = imageOf(model, state);
      states += 1;
      found.add(image);
      atCuts.add(image);
      owed.set(image, model.cuts[index]?.marks as number);
      assert.equal(model.whyIllegal(state), null, what);
    }
    assert.deepEqual([...found].toSorted(), [...expected].toSorted(), `${what}, cut ${index}`);
    assert.equal(states, found.size, `${what}, cut ${index}: a state came twice`);
    if (!['M0', 'M1'].includes(options.model)) {
      assert.equal(model.view(index).plainCount, BigInt(found.size), what);
    }
    for (const state of enumerateStates(model, index, { canonical: true })) {
      canonical.add(imageOf(model, state));
    }
    for (let i = 0; i < 6; i += 1) checkRule(prng, model, index, expected, what);
  }
  const ever = new Set<string>();
  const owedInTruth = new Map<string, number>();
  for (let t = 0; t <= trace.events; t += 1) {
    const marks = trace.marks.filter(({ event }) => event < t).length;
    for (const one of imagesAt(facts, t)) {
      ever.add(one);
      owedInTruth.set(one, marks);
    }
  }
  assert.deepEqual([...atCuts].toSorted(), [...ever].toSorted(), `${what}: all instants`);
  for (const image of ever) {
    assert.equal(owed.get(image), owedInTruth.get(image), `${what}: owed with ${image}`);
  }
  assert.equal(canonical.size, ever.size, `${what}: canonical states`);
  assert.equal(model.countStates(100_000), BigInt(ever.size), `${what}: countStates`);
}

/** A rule that is legal leaves one of the images; of one that is not, no set of requests leaves the image. */
function checkRule(
  prng: Prng,
  model: CrashModel,
  cut: number,
  expected: ReadonlySet<string>,
  what: string,
): void {
  const rule = randomRule(prng, model, cut);
  const state = { cut, rule };
  const image = imageOf(model, state);
  const why = model.whyIllegal(state);
  const ofUnits =
    ['tear', 'stale'].includes(rule.kind) || (rule.kind === 'random' && rule.by === 'unit');
  const byRequest = ['M0', 'M1'].includes(model.options.model);
  const isLegal = expected.has(image) && !(byRequest && ofUnits);
  assert.equal(why === null, isLegal, `${what}, cut ${cut}, ${JSON.stringify(rule)}: ${why}`);
  const { units } = model.view(cut);
  const chosen = new Int32Array(units.length);
  model.choose(model.view(cut), rule, chosen);
  const alone = Int32Array.from(units, (unit) => model.versionIn({ cut, rule: { ...rule } }, unit));
  assert.deepEqual(alone, chosen, `${what}: one by one as all together`);
}

// S16. The seeds are apart so that the parts run in reasonable pieces.
for (let part = 0; part < 8; part += 1) {
  test(`S16: 1,250 random traces have the states of the definition (${part + 1} of 8)`, () => {
    for (let i = 0; i < 1250; i += 1) checkTrace(1 + part * 1250 + i);
  });
}
