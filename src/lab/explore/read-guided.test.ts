import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { CrashModel, ModelName, Rule, StateSpec } from '../model/types.ts';
import { CutImages } from './cut-images.ts';
import { RequestTree, UnitTree, type DecisionTree, listStates } from './decisions.ts';
import { ImageHistory } from './image-history.ts';
import { Judge } from './judge.ts';
import { exploreReads, type GuidedOutcome } from './read-guided.ts';
import { Tally } from './tally.ts';
import {
  FakePool,
  passAs,
  PASS,
  QUIET,
  randomCheck,
  randomTrace,
  type FakeCheck,
} from './testing.ts';
import { kindOf } from './verdict-book.ts';

const FLOOR: StateSpec = { cut: 0, rule: { kind: 'floor' } };

const LIMITS = {
  jobs: 2,
  stopped: () => false,
  spent: () => false,
  pace: async () => {},
} as const;

function modelOf(seed: number, name: ModelName): CrashModel {
  const trace = randomTrace(new Prng(seed), 14, 5);
  return openCrashModel(trace, { model: name, unitBytes: 512, overlap: 'issued', poison: false });
}

function treeAt(model: CrashModel, images: CutImages, cut: number): DecisionTree {
  const view = images.moveTo(cut);
  const Tree = model.options.model === 'M1' ? RequestTree : UnitTree;
  return new Tree(model, view, images.placeOf);
}

/** Every state of a cut by brute force: all subsets of requests, or all choices of units. */
function bruteForce(model: CrashModel, cut: number): Rule[] {
  const { requests, units, first, versions } = model.view(cut);
  if (model.options.model === 'M1') {
    return Array.from({ length: 2 ** requests.length }, (_, bits) => ({
      kind: 'lost',
      requests: [...requests].filter((_request, i) => ((bits >> i) & 1) === 1),
    }));
  }
  let all: number[][] = [[]];
  for (const [i, unit] of units.entries()) {
    const choices = [...versions.subarray(first[i], first[i + 1])];
    all = all.flatMap((pairs) => choices.map((version) => [...pairs, unit, version]));
  }
  return all.map((pairs) => ({ kind: 'units', others: 'all', pairs }));
}

function imageOf(model: CrashModel, cut: number, rule: Rule): string {
  const image: number[] = [];
  for (let unit = 0; unit < model.unitCount; unit += 1) {
    image.push(model.contentOf(model.versionIn({ cut, rule }, unit)));
  }
  return image.join();
}

async function guide(
  model: CrashModel,
  check: FakeCheck,
  cut: number,
  limits: Partial<Parameters<typeof exploreReads>[2]> = {},
): Promise<{ outcome: GuidedOutcome; kinds: string[]; runs: number; judge: Judge }> {
  const history = new ImageHistory(model);
  const pool = new FakePool(model, check, { seesReads: true });
  const judge = new Judge(history, pool, new Tally(model.cuts.length), QUIET.interrupted);
  const tree = treeAt(model, judge.images, cut);
  const outcome = await exploreReads(judge, tree, { ...LIMITS, ...limits });
  const kinds = judge.book.parts().map(({ verdict }) => kindOf(verdict));
  return { outcome, kinds: kinds.toSorted(), runs: judge.tally.totals.statesDecided, judge };
}

for (const name of ['M1', 'M2', 'M3'] as const) {
  test(`${name}: the listed states of a cut are all images that brute force finds`, () => {
    let states = 0;
    for (let seed = 1; seed <= 60; seed += 1) {
      const model = modelOf(seed, name);
      const images = new CutImages(new ImageHistory(model));
      for (const { index: cut } of model.cuts) {
        if (model.view(cut).plainCount > 3000n || model.view(cut).requests.length > 10) continue;
        const tree = treeAt(model, images, cut);
        const listed = listStates(tree, model.view(cut), 4096) ?? [];
        const found = new Set(listed.map((rule) => imageOf(model, cut, rule)));
        const truth = new Set(bruteForce(model, cut).map((rule) => imageOf(model, cut, rule)));
        assert.deepEqual([...found].toSorted(), [...truth].toSorted(), `seed ${seed}, cut ${cut}`);
        for (const rule of listed) assert.equal(model.whyIllegal({ cut, rule }), null);
        states += truth.size;
      }
      model.trace.close();
    }
    assert.ok(states > 1000, `${states} states`);
  });

  test(`${name}: what reads lead to is what brute force leads to, in fewer runs`, async () => {
    let [runs, states] = [0, 0];
    for (let seed = 1; seed <= 40; seed += 1) {
      const model = modelOf(seed, name);
      const check = randomCheck(seed, model.unitCount, 4);
      for (const { index: cut } of model.cuts) {
        if (model.view(cut).plainCount > 3000n || model.view(cut).requests.length > 10) continue;
        const rules = bruteForce(model, cut);
        const truth = await new FakePool(model, check).run(rules.map((rule) => ({ cut, rule })));
        const kinds = new Set(truth.map(({ verdict }) => kindOf(verdict)));
        const found = await guide(model, check, cut);
        assert.deepEqual(found.outcome, { exact: true, note: null });
        assert.deepEqual(found.kinds, [...kinds].toSorted(), `seed ${seed}, cut ${cut}`);
        const images = new Set(rules.map((rule) => imageOf(model, cut, rule)));
        assert.ok(found.runs <= images.size);
        runs += found.runs;
        states += images.size;
      }
      model.trace.close();
    }
    assert.ok(runs * 2 < states, `${runs} runs for ${states} states`);
  });
}

/** Sixteen blocks written at once: 65 536 states. */
function sixteen(): CrashModel {
  const builder = new TraceBuilder();
  for (let i = 0; i < 16; i += 1) builder.wrote({ offset: i * 512, data: i + 1 });
  return openCrashModel(builder.trace(), {
    model: 'M2',
    unitBytes: 512,
    overlap: 'issued',
    poison: false,
  });
}

test('states that differ only in what is overwritten before it is read are one', async () => {
  const model = sixteen();
  const { outcome, runs } = await guide(
    model,
    (disk) => {
      for (let unit = 1; unit < 16; unit += 1) disk.write(unit);
      for (let unit = 0; unit < 16; unit += 1) disk.read(unit);
      return PASS;
    },
    0,
  );
  assert.equal(outcome.exact, true);
  assert.equal(runs, 2);
});

test('a cut that takes more than its share is given up, and says so', async () => {
  const model = sixteen();
  const { outcome, runs } = await guide(
    model,
    (disk) => {
      for (let unit = 0; unit < 16; unit += 1) disk.read(unit);
      return PASS;
    },
    0,
    { spent: () => true },
  );
  assert.equal(outcome.exact, false);
  assert.match(outcome.note ?? '', /share of the budget/);
  assert.ok(runs < 100, `${runs} runs`);
});

test('a verdict that is none ends it, for its reads say nothing', async () => {
  const model = sixteen();
  const { outcome } = await guide(
    model,
    (disk) =>
      disk.read(3) === disk.read(4) ? passAs('same') : { ...PASS, outcome: 'hang', class: 'stuck' },
    0,
  );
  assert.equal(outcome.exact, false);
  assert.match(outcome.note ?? '', /'hang'/);
});

test('two verdicts after the same reads make no cut exact', async () => {
  const model = sixteen();
  const history = new ImageHistory(model);
  const pool = new FakePool(
    model,
    (disk) => {
      disk.read(0);
      // Unit 1 is looked at, but not as the pool sees it.
      const isNew = model.versionIn(disk.state, 1) !== model.versionIn(FLOOR, 1);
      return passAs(isNew ? 'new' : 'old');
    },
    { seesReads: true },
  );
  const judge = new Judge(history, pool, new Tally(model.cuts.length), QUIET.interrupted);
  judge.images.moveTo(0);
  for (const rule of [{ kind: 'all' }, { kind: 'kept', requests: [0] }] as const) {
    judge.images.apply(rule);
    judge.offer(rule, 'ends');
  }
  await judge.settle();
  assert.equal(judge.tally.totals.contradictions, 1);
  const outcome = await exploreReads(judge, treeAt(model, judge.images, 0), LIMITS);
  assert.equal(outcome.exact, false);
  assert.match(outcome.note ?? '', /different verdicts/);
});
