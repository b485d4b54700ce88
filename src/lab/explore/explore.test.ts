import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { Prng } from '../../base/prng.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import type { Trace } from '../../trace/trace.ts';
import type { Verdict } from '../check/types.ts';
import { openCrashModel } from '../model/crash-model.ts';
import { enumerateStates } from '../model/enumerate-states.ts';
import type { CrashModel, ModelName, StateSpec } from '../model/types.ts';
import { explore } from './explore.ts';
import {
  failAs,
  type FakeCheck,
  type FakeDisk,
  FakePool,
  optionsFor,
  PASS,
  passAs,
  QUIET,
  randomCheck,
  randomTrace,
} from './testing.ts';
import type { Exploration, ExploreOptions, Rung } from './types.ts';

const SEED = 1;

function modelOf(trace: Trace, model: ModelName = 'M2'): CrashModel {
  return openCrashModel(trace, { model, unitBytes: 512, overlap: 'issued', poison: false });
}

/** `count` blocks written once each, in order, not flushed. */
function blocks(count: number, model: ModelName = 'M2'): CrashModel {
  const builder = new TraceBuilder();
  for (let i = 0; i < count; i += 1) builder.wrote({ offset: i * 512, data: i + 1 });
  return modelOf(builder.trace(), model);
}

/** Reads block 2, and depending on it block 5, which it has overwritten, or block 9. */
function readsTwo(disk: FakeDisk): Verdict {
  const a = disk.read(2);
  disk.write(5);
  return disk.read(a % 2 === 0 ? 5 : 9) % 2 === 0 ? failAs('even') : PASS;
}

function refusesFloor(disk: FakeDisk): Verdict {
  return disk.state.rule.kind === 'floor' ? failAs('empty') : PASS;
}

async function run(
  model: CrashModel,
  check: FakeCheck,
  options: Partial<ExploreOptions> = {},
  pool: Partial<FakePool> = {},
): Promise<{ found: Exploration; pool: FakePool }> {
  const fake = new FakePool(model, check, pool);
  const found = await explore(model, fake, optionsFor(model, options), QUIET);
  return { found, pool: fake };
}

/** Of each finding and each passing class: how many states. */
function countsOf({ findings, passes }: Exploration): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const [name, count] of Object.entries(passes)) counts[`pass ${name}`] = count;
  for (const { verdict, count } of findings) counts[`${verdict.outcome} ${verdict.class}`] = count;
  return counts;
}

test('a small trace is exact: each state of each cut is judged once, and counted by its verdict', async () => {
  for (const name of ['M0', 'M1', 'M2', 'M3', 'L'] as const) {
    let states = 0;
    for (let seed = 1; seed <= 12; seed += 1) {
      const trace = randomTrace(new Prng(seed), 9, 4);
      const model = modelOf(trace, name);
      const units = model.unitCount;
      const check: FakeCheck = (disk) => {
        let sum = 0;
        for (let unit = 0; unit < units; unit += 1) sum += disk.read(unit) * (unit + 1);
        return sum % 3 === 0 ? failAs('third') : passAs(`p${sum % 3}`);
      };
      const truth: Record<string, number> = {};
      const checkOf = new FakePool(model, check);
      let all = 0;
      for (const { index: cut } of model.cuts) {
        const specs = [...enumerateStates(model, cut)];
        all += specs.length;
        for (const { verdict } of await checkOf.run(specs)) {
          const key = `${verdict.outcome} ${verdict.class}`;
          truth[key] = (truth[key] ?? 0) + 1;
        }
      }
      if (all > 4000 || (truth['fail third'] ?? 0) === all) continue;
      const last = { cut: model.cuts.length - 1, rule: { kind: 'all' } } as const;
      const [end] = await checkOf.run([last]);
      if (end?.verdict.outcome !== 'pass') continue;
      const { found } = await run(model, check, { readGuided: false });
      assert.deepEqual(countsOf(found), truth, `${name}, seed ${seed}`);
      assert.equal(found.statesDecided, all);
      assert.ok(found.coverage.every(({ reached }) => reached === 'exact'));
      assert.equal(found.ended, 'covered');
      states += all;
      trace.close();
    }
    assert.ok(states > 30, `${name}: ${states} states`);
  }
});

test('the same image at several cuts is run once', async () => {
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: 1 });
  builder.flushed();
  builder.wrote({ offset: 512, data: 2 });
  builder.flushed();
  const model = modelOf(builder.trace());
  const { found, pool } = await run(model, (disk) => passAs(`${disk.read(0)} ${disk.read(1)}`));
  // Old and new block 0; then with it, old and new block 1; and the end.
  assert.equal(found.statesDecided, 2 + 2 + 1);
  assert.equal(found.sameImage, 2);
  const images = pool.ran.map(({ cut, rule }) =>
    [0, 1].map((unit) => model.versionIn({ cut, rule }, unit)).join(),
  );
  assert.equal(new Set(images).size, 3);
});

test('with acknowledgements only the last cut of an image is asked', async () => {
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: 1 });
  builder.mark('note', 'not an acknowledgement');
  builder.flushed();
  builder.mark('ack', 'block 0');
  builder.wrote({ offset: 512, data: 2 });
  builder.mark('ack', 'block 1');
  builder.flushed();
  const model = modelOf(builder.trace());
  const blank = model.contentOf(model.versionIn({ cut: 0, rule: { kind: 'floor' } }, 1));
  const check: FakeCheck = (disk) => {
    const lost = disk.read(1) === blank && disk.marks >= 3;
    return lost ? { ...failAs('lost'), axis: 'durability' } : PASS;
  };
  const { found, pool } = await run(model, check, {}, { usesAcks: true });
  assert.deepEqual(countsOf(found), { 'pass ': 3, 'fail lost': 2 });
  assert.equal(found.findings[0]?.state.cut, 1);
  assert.equal(found.findings[0]?.verdict.axis, 'durability');
  // What block 1 lost at cut 1 was judged there; cut 0 has less to say about the same image.
  const asked = pool.ran.filter(({ cut, rule }) => cut === 0 && rule.kind === 'all');
  assert.equal(asked.length, 0);
});

test('each image is judged with the most that is ever owed with it', async () => {
  let images = 0;
  for (let seed = 1; seed <= 20; seed += 1) {
    const trace = randomTrace(new Prng(seed), 14, 4);
    for (const batch of [1, 16]) {
      const model = modelOf(trace);
      const acksAt = (cut: number): number => model.cuts[cut]?.marks ?? 0;
      const imageAt = ({ cut, rule }: StateSpec): string =>
        Array.from({ length: model.unitCount }, (_, unit) =>
          model.contentOf(model.versionIn({ cut, rule }, unit)),
        ).join();
      const most = new Map<string, number>();
      for (const { index } of model.cuts) {
        if (model.view(index).plainCount > 4000n) continue;
        for (const state of enumerateStates(model, index)) {
          most.set(imageAt(state), Math.max(most.get(imageAt(state)) ?? 0, acksAt(index)));
        }
      }
      const { pool } = await run(
        model,
        () => PASS,
        { maxStates: 4000 },
        { usesAcks: true, jobs: batch, batch },
      );
      const asked = new Map<string, number>();
      for (const state of pool.ran) {
        const image = imageAt(state);
        asked.set(image, Math.max(asked.get(image) ?? 0, acksAt(state.cut)));
      }
      for (const [image, owed] of most) {
        assert.ok(
          (asked.get(image) ?? -1) >= owed,
          `seed ${seed}: ${image} was not asked for ${owed}`,
        );
      }
      images += most.size;
    }
  }
  assert.ok(images > 1000, `${images} images`);
});

test('a pass is a pass where less is owed, and a failure is not taken over', async () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 6; i += 1) {
    builder.wrote({ offset: i * 512, data: i + 1 });
    builder.flushed();
    builder.mark('ack', `${i}`);
  }
  const model = modelOf(builder.trace());
  const contentIn = (kind: 'all' | 'floor', unit: number): number =>
    model.contentOf(model.versionIn({ cut: 0, rule: { kind } }, unit));
  const [blank, blankLast] = [contentIn('floor', 0), contentIn('floor', 5)];
  const one = { usesAcks: true, seesReads: true, jobs: 1, batch: 1 };
  // It looks at block 0 alone, which all cuts but the first have, and at what is owed.
  const first = await run(
    model,
    (disk) => (disk.read(0) === blank && disk.marks >= 1 ? failAs('lost') : PASS),
    {},
    one,
  );
  assert.deepEqual(countsOf(first.found), { 'pass ': 2 * 6 + 1 });
  const cutsRun = new Set(first.pool.ran.map(({ cut }) => cut));
  assert.deepEqual([...cutsRun], [6, 5, 0], 'cut 5 is under way together with the last one');
  // Block 5 is missing at most cuts, which matters from cut 3 on. The image of cut 3's floor is judged there.
  const last = await run(
    model,
    (disk) => (disk.read(5) === blankLast && disk.marks >= 3 ? failAs('lost') : PASS),
    {},
    one,
  );
  assert.deepEqual(countsOf(last.found), { 'pass ': 7, 'fail lost': 6 });
});

test('each rung is climbed at a cut that is too large to list, and the coverage says how far', async () => {
  const model = blocks(16);
  const options = { readGuided: false, maxStates: 3000 };
  const { found } = await run(model, () => PASS, options);
  const [cut] = found.coverage;
  assert.equal(cut?.reached, 'pairs');
  assert.equal(cut?.plainCount, '65536');
  const climbed: Rung[] = ['ends', 'prefixes', 'one-missing', 'one-present', 'two-missing'];
  // A block cannot tear and was written once, so that these two are done with nothing to do.
  climbed.push('two-present', 'pairs', 'tears', 'stale');
  assert.deepEqual(cut?.rungs, climbed);
  assert.equal(found.ended, 'states');
  assert.equal(found.statesDecided, 3000);
  assert.equal(cut?.statesDecided, 3000);
});

test('a bug that takes two lost and one kept write is found by its rung', async () => {
  const model = blocks(16);
  const content = (unit: number): number =>
    model.contentOf(model.versionIn({ cut: 0, rule: { kind: 'all' } }, unit));
  const news = Array.from({ length: 16 }, (_, unit) => content(unit));
  const check: FakeCheck = (disk) => {
    const isNew = (unit: number): boolean => disk.read(unit) === news[unit];
    return !isNew(3) && !isNew(11) && isNew(4) && isNew(0) ? failAs('order') : PASS;
  };
  const { found } = await run(model, check, { readGuided: false, maxStates: 400 });
  assert.equal(found.findings.length, 1);
  assert.equal(found.findings[0]?.rung, 'two-missing');
  assert.deepEqual(found.findings[0]?.state.rule, { kind: 'lost', requests: [3, 11] });
  assert.ok((found.findings[0]?.count ?? 0) > 1);
  const ids = [found.findings[0]?.id, ...(found.findings[0]?.others ?? [])];
  assert.ok(ids.length > 1 && new Set(ids).size === ids.length, 'ids differ');
});

test('reads make a large cut exact; the same by listing finds the same', async () => {
  const model = blocks(14);
  const { found } = await run(model, readsTwo, {}, { seesReads: true });
  const [cut] = found.coverage;
  assert.equal(cut?.reached, 'exact');
  assert.equal(cut?.how, 'read-guided');
  assert.equal(found.ended, 'covered');
  assert.ok(found.checkerRuns < 40, `${found.checkerRuns} runs`);
  assert.ok(found.sameReads > 0);
  const blind = await run(model, readsTwo, { readGuided: false, maxStates: 5000 });
  assert.deepEqual(
    Object.keys(countsOf(found)).toSorted(),
    Object.keys(countsOf(blind.found)).toSorted(),
  );
});

test('a checker that answers in two ways is flaky, which is no pass and not exact', async () => {
  const model = blocks(3);
  const seen = new Map<string, number>();
  const check: FakeCheck = (disk) => {
    const image = [0, 1, 2].map((unit) => disk.read(unit)).join();
    const times = (seen.get(image) ?? 0) + 1;
    seen.set(image, times);
    const isOdd = disk.state.rule.kind === 'floor';
    return isOdd && times % 2 === 1 ? failAs('sometimes') : PASS;
  };
  const { found } = await run(model, check, { readGuided: false });
  assert.deepEqual(countsOf(found), { 'pass ': 7, 'flaky fail sometimes or pass': 1 });
  assert.notEqual(found.coverage[0]?.reached, 'exact');
  assert.match(found.coverage[0]?.note ?? '', /1 of its 8 states/);
});

test('hangs, errors and skips are findings, and their cuts are not exact', async () => {
  for (const outcome of ['hang', 'checker-error', 'skip'] as const) {
    const model = blocks(3);
    const check: FakeCheck = (disk) =>
      disk.state.rule.kind === 'floor' ? { ...PASS, outcome, class: 'odd' } : PASS;
    const { found } = await run(model, check, { readGuided: false });
    assert.deepEqual(countsOf(found), { 'pass ': 7, [`${outcome} odd`]: 1 });
    assert.equal(found.coverage[0]?.reached, 'pairs');
  }
});

test('what a run read that did not end says nothing about other states', async () => {
  for (const outcome of ['hang', 'checker-error'] as const) {
    const model = blocks(3);
    const check: FakeCheck = (disk) => {
      disk.read(0);
      return disk.state.rule.kind === 'floor' ? { ...PASS, outcome, class: 'odd' } : PASS;
    };
    const { found } = await run(model, check, { readGuided: false }, { seesReads: true });
    assert.deepEqual(countsOf(found), { 'pass ': 7, [`${outcome} odd`]: 1 });
  }
});

test('every state that is shown was asked for again', async () => {
  const model = blocks(6);
  const { found, pool } = await run(model, (disk) =>
    disk.state.rule.kind === 'all' ? PASS : failAs('lost'),
  );
  const asked = new Map<string, number>();
  for (const { cut, rule } of pool.ran) {
    const image = Array.from({ length: 6 }, (_, unit) => model.versionIn({ cut, rule }, unit));
    asked.set(image.join(), (asked.get(image.join()) ?? 0) + 1);
  }
  const often = [...asked.values()].filter((times) => times === 4).length;
  assert.equal(found.findings[0]?.count, 63);
  // The pass, too, was the first of its kind, and was judged once more before all else.
  assert.ok(often >= 8, `${often} states were confirmed`);
});

test('a checker that does not pass the final image or the base ends it at once', async () => {
  const model = blocks(3);
  await assert.rejects(
    run(model, (disk) => (disk.state.rule.kind === 'all' ? failAs('broken') : PASS)),
    (error) => error instanceof ConfigError && /final image.*broken/.test(error.message),
  );
  await assert.rejects(
    run(model, refusesFloor, { checkBase: true }),
    (error) => error instanceof ConfigError && /before the recording.*empty/.test(error.message),
  );
  const { found } = await run(model, refusesFloor, { checkBase: false });
  assert.equal(countsOf(found)['fail empty'], 1);
});

test('acknowledged data that was never written is a finding, not a broken checker', async () => {
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: 1 });
  builder.mark('ack', 'a record that the guest keeps for itself');
  const model = modelOf(builder.trace());
  const { found } = await run(
    model,
    () => ({ ...failAs('lost'), axis: 'durability' }),
    { checkBase: true },
    { usesAcks: true },
  );
  assert.equal(countsOf(found)['fail lost'], 2);
});

test("cuts before the note 'begin' are left out, and said to be", async () => {
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: 1 });
  builder.flushed();
  builder.mark('note', 'begin');
  builder.wrote({ offset: 512, data: 2 });
  builder.flushed();
  const model = modelOf(builder.trace());
  const { found, pool } = await run(model, () => PASS);
  assert.deepEqual(
    found.coverage.map(({ reached, statesDecided }) => [reached, statesDecided]),
    [
      ['left-out', 0],
      ['exact', 2],
      ['exact', 1],
    ],
  );
  assert.ok(pool.ran.every(({ cut }) => cut > 0));
});

test('without time, what was not reached is said', async () => {
  const { found } = await run(blocks(12), () => PASS, { budgetMs: 0 });
  assert.equal(found.ended, 'budget');
  assert.equal(found.coverage[0]?.reached, 'nothing');
  assert.deepEqual(found.coverage[0]?.rungs, []);
});

test('the number of jobs changes nothing that is found', async () => {
  const trace = randomTrace(new Prng(5), 40, 12);
  const results: unknown[] = [];
  // How many are judged at once belongs to the checker, and decides how many random states make a round.
  for (const [jobs, batch] of [
    [1, 1],
    [4, 1],
    [1, 64],
    [3, 64],
  ] as const) {
    const model = modelOf(trace);
    const check = randomCheck(8, model.unitCount, 6);
    const options = { maxStates: 4000, readGuided: false };
    const { found } = await run(model, check, options, { jobs, batch, seesReads: true });
    assert.ok(found.findings.length > 0);
    results.push([countsOf(found), found.findings.map(({ id }) => id)]);
  }
  assert.deepEqual(results[1], results[0]);
  assert.deepEqual(results[3], results[2]);
});

test('all that is tried is legal, under every model and option', async () => {
  for (const name of ['M0', 'M1', 'M2', 'M3', 'L'] as const) {
    for (let seed = 1; seed <= 6; seed += 1) {
      const model = openCrashModel(randomTrace(new Prng(seed), 30, 10), {
        model: name,
        unitBytes: 512,
        overlap: seed % 2 === 0 ? 'any' : 'issued',
        poison: seed % 3 === 0,
      });
      // The pool asserts it of each state.
      const { found } = await run(model, () => PASS, { maxStates: 1500 });
      assert.ok(found.statesDecided > 20, `${name}, seed ${seed}`);
    }
  }
});

test('what is interrupted while the last states are judged is not covered', async () => {
  const stop = new AbortController();
  const model = blocks(3);
  const pool = new FakePool(model, () => PASS, { batch: 64 });
  const judged = pool.run.bind(pool);
  pool.run = (states) => {
    // The known ends, both ends of the cut, and the first verdict once more; then all the others at once.
    if (states.length < 3) return judged(states);
    stop.abort();
    return new Promise(() => {});
  };
  const hooks = { progress: () => {}, interrupted: stop.signal };
  const found = await explore(model, pool, optionsFor(model), hooks);
  assert.equal(found.coverage[0]?.reached, 'sampled');
  assert.equal(found.ended, 'interrupted');
});

test('an interrupted exploration goes on, runs nothing twice, and finds the same', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'explore-'));
  try {
    const trace = randomTrace(new Prng(5), 40, 12);
    const options = { maxStates: 3000, progressPath: join(folder, 'progress') };
    for (const seesReads of [false, true]) {
      rmSync(options.progressPath, { force: true });
      const model = modelOf(trace);
      const check = randomCheck(8, model.unitCount, 6);
      const whole = await run(model, check, { ...options, progressPath: null }, { seesReads });
      const ran = new Map<string, number>();
      let found: Exploration | null = null;
      let starts = 0;
      for (; found === null || found.ended === 'interrupted'; starts += 1) {
        const again = modelOf(trace);
        const pool = new FakePool(again, check, { seesReads });
        const stop = new AbortController();
        const run = pool.run.bind(pool);
        pool.run = (states) => {
          if (pool.ran.length > 150) stop.abort();
          return run(states);
        };
        const hooks = { progress: () => {}, interrupted: stop.signal };
        found = await explore(again, pool, optionsFor(again, options), hooks);
        for (const { cut, rule } of pool.ran) {
          const image = Array.from({ length: again.unitCount }, (_, unit) =>
            again.contentOf(again.versionIn({ cut, rule }, unit)),
          );
          ran.set(image.join(), (ran.get(image.join()) ?? 0) + 1);
        }
      }
      assert.ok(starts > 2, `${starts} starts`);
      assert.deepEqual(countsOf(found), countsOf(whole.found));
      assert.deepEqual(found.coverage, whole.found.coverage);
      const extra = [...ran.values()].reduce((sum, times) => sum + times - 1, 0);
      // Twice: what was under way when it was interrupted, and what was confirmed.
      const shown = found.findings.length * 8 + Object.keys(found.passes).length;
      assert.ok(extra <= starts * 20 + shown * 4, `${extra} runs more than images`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a progress file of another exploration, and one that is damaged, are refused', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'explore-'));
  try {
    const progressPath = join(folder, 'progress');
    const model = blocks(4);
    await run(model, () => PASS, { progressPath });
    const again = await run(model, () => PASS, { progressPath });
    assert.deepEqual(again.pool.ran, [], 'all is known');
    assert.equal(again.found.statesDecided, 16);
    await assert.rejects(
      run(model, () => PASS, { progressPath, seed: SEED + 1 }),
      (error) => error instanceof ConfigError && /another exploration: seed/.test(error.message),
    );
    await assert.rejects(
      run(blocks(5), () => PASS, { progressPath }),
      (error) => error instanceof ConfigError && /trace/.test(error.message),
    );
    const bytes = readFileSync(progressPath);
    writeFileSync(progressPath, bytes.subarray(0, bytes.length / 2));
    await assert.rejects(
      run(model, () => PASS, { progressPath }),
      (error) => error instanceof ConfigError && /holds no progress/.test(error.message),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('progress is told while it runs', async () => {
  const model = blocks(18);
  const told: number[] = [];
  const pool = new FakePool(model, () => PASS);
  const hooks = {
    progress: ({ statesDecided }: { statesDecided: number }) => void told.push(statesDecided),
    interrupted: QUIET.interrupted,
  };
  const options = optionsFor(model, { budgetMs: 800, readGuided: false });
  const found = await explore(model, pool, options, hooks);
  assert.equal(found.ended, 'budget');
  assert.ok(told.length >= 2, `told ${told.length} times`);
  assert.ok((told[0] ?? 0) < found.statesDecided);
  assert.equal(told.at(-1), found.statesDecided);
  assert.ok(found.elapsedMs < 5000, `${found.elapsedMs} ms`);
});
