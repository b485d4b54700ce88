import assert from 'node:assert/strict';
import test from 'node:test';
import { TraceBuilder } from '../../trace/builder.ts';
import type { Axis, Verdict } from '../check/types.ts';
import type { Decide, Finding } from '../explore/types.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { CrashModel, ModelName, StateSpec } from '../model/types.ts';
import { explainFinding } from './cause.ts';
import type { Cause } from './types.ts';

// A toy database: blocks of 512 bytes that hold one letter each. What fails is a function of the letters.

type Letters = (block: number) => number;

/** `other`: of the second disk. */
type Broken = (letters: Letters, acks: number, other: Letters) => Axis | null;

const BLOCK = 512;

function verdict(axis: Axis | null): Verdict {
  return { outcome: axis === null ? 'pass' : 'fail', axis, class: 'toy', detail: '' };
}

function decider(model: CrashModel, broken: Broken): Decide {
  return (state) => {
    assert.equal(model.whyIllegal(state), null);
    const lettersOf = (disk: number) => (block: number) => {
      const unit = model.unitAt(disk, block * BLOCK);
      if (unit < 0) return 0;
      const byte = new Uint8Array(1);
      model.readVersion(model.versionIn(state, unit), 0, byte);
      return byte[0] as number;
    };
    const { marks } = model.view(state.cut).cut;
    return Promise.resolve(verdict(broken(lettersOf(0), marks, lettersOf(1))));
  };
}

function modelOf(builder: TraceBuilder, model: ModelName): CrashModel {
  const trace = builder.trace();
  return openCrashModel(trace, { model, unitBytes: BLOCK, overlap: 'issued', poison: false });
}

async function explain(
  builder: TraceBuilder,
  broken: Broken,
  rule: StateSpec['rule'],
  { cut = -1, name = 'M1' }: { cut?: number; name?: ModelName } = {},
): Promise<Cause> {
  const model = modelOf(builder, name);
  const state = { cut: cut < 0 ? model.cuts.length + cut : cut, rule };
  const decide = decider(model, broken);
  const found = await decide(state);
  assert.equal(found.outcome, 'fail', 'the test begins with a state that fails');
  const finding: Finding = {
    verdict: found,
    checker: 'toy',
    state,
    id: '',
    rung: 'ends',
    count: 1,
    others: [],
  };
  return explainFinding(model, finding, decide, { mostStates: 1000, describe: null });
}

const numbers = (actors: Cause['lost']): number[] => actors.map(({ request }) => request);

test('an acknowledged write in the cache: the flush before the acknowledgement is missing', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  const noise = trace.wrote({ offset: 9 * BLOCK, data: 9 });
  const write = trace.wrote({ offset: 0, data: 1 });
  trace.mark('ack', 'one');
  const cause = await explain(
    trace,
    (letter, acks) => (acks > 0 && letter(0) !== 1 ? 'durability' : null),
    { kind: 'floor' },
  );
  assert.equal(cause.kind, 'missing-flush');
  assert.deepEqual(numbers(cause.lost), [write]);
  assert.deepEqual(numbers(cause.kept), []);
  assert.ok(cause.minimal);
  assert.match(cause.whatIf[0]?.words ?? '', /a FLUSH after #\d+ is done and before 'one'/);
  assert.ok(!numbers(cause.lost).includes(noise));
});

test('the commit is there and the data is not: B reached the disk before A', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  const log = trace.wrote({ offset: 0, data: 1 });
  trace.wrote({ offset: 5 * BLOCK, data: 5 });
  const commit = trace.wrote({ offset: BLOCK, data: 2 });
  const cause = await explain(
    trace,
    (letter) => (letter(1) === 2 && letter(0) !== 1 ? 'integrity' : null),
    { kind: 'kept', requests: [commit] },
  );
  assert.equal(cause.kind, 'order');
  assert.deepEqual([numbers(cause.lost), numbers(cause.kept)], [[log], [commit]]);
  assert.match(cause.sentence, new RegExp(`#${commit} .*before #${log} `));
  const [gap] = cause.whatIf;
  assert.ok(gap !== undefined && gap.afterEvent < gap.beforeEvent);
});

test('one write in part is a tear, and no flush helps', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  const write = trace.wrote({ offset: 0, data: 1, length: 4 * BLOCK });
  const state = { kind: 'tear', request: write, shape: 'head', others: 'lost' } as const;
  const cause = await explain(
    trace,
    (letter) => (letter(0) === 1 && letter(3) !== 1 ? 'integrity' : null),
    state,
    { name: 'M2' },
  );
  assert.equal(cause.kind, 'tear');
  assert.deepEqual([numbers(cause.lost), numbers(cause.kept)], [[write], []]);
  assert.deepEqual(cause.whatIf, []);
});

test('an older version beside a newer one is stale', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  trace.wrote({ offset: 0, data: 1, length: 2 * BLOCK });
  trace.wrote({ offset: 0, data: 2, length: 2 * BLOCK });
  const model = modelOf(trace, 'M2');
  const view = model.view(model.cuts.length - 1);
  const unit = model.unitAt(0, BLOCK);
  const at = view.units.indexOf(unit);
  const older = view.versions[(view.first[at] as number) + 1] as number;
  const cause = await explain(
    trace,
    (letter) => (letter(0) === 2 && letter(1) === 1 ? 'integrity' : null),
    { kind: 'units', others: 'all', pairs: [unit, older] },
    { name: 'M2' },
  );
  assert.equal(cause.kind, 'stale');
});

test('what the guest sent only after its promise was never issued', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  trace.mark('ack', 'too early');
  trace.wrote({ offset: 0, data: 1 });
  const cause = await explain(
    trace,
    (letter, acks) => (acks > 0 && letter(0) !== 1 ? 'durability' : null),
    { kind: 'floor' },
  );
  assert.equal(cause.kind, 'never-issued');
});

test('what is broken until the guest sends the rest was never issued, whatever the axis', async () => {
  const trace = new TraceBuilder();
  trace.wrote({ offset: 0, data: 1 });
  trace.flushed();
  trace.wrote({ offset: BLOCK, data: 2, fua: true });
  const cause = await explain(
    trace,
    (letter) => (letter(0) === 1 && letter(1) !== 2 ? 'atomicity' : null),
    { kind: 'all' },
    { cut: 0 },
  );
  assert.equal(cause.kind, 'never-issued');
  assert.deepEqual(cause.lost, []);
});

test('without any flush that is what the cause says; a flush of the server itself does not count', async () => {
  const trace = new TraceBuilder();
  trace.wrote({ offset: 0, data: 1, source: 3 });
  trace.mark('ack', 'one');
  trace.flushed({ source: 0 });
  const cause = await explain(
    trace,
    (letter, acks) => (acks > 0 && letter(0) !== 1 ? 'durability' : null),
    { kind: 'floor' },
    { cut: 0 },
  );
  assert.equal(cause.kind, 'no-flush-seen');
});

test('what fails with everything there is no power cut’s fault', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  trace.wrote({ offset: 0, data: 1 });
  const cause = await explain(trace, () => 'integrity', { kind: 'floor' });
  assert.equal(cause.kind, 'always');
  assert.deepEqual(cause.lost, []);
});

test('the earliest cut is found', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  const lost = trace.wrote({ offset: 0, data: 1 });
  for (let i = 1; i < 6; i += 1) trace.wrote({ offset: i * 8 * BLOCK, data: i, fua: true });
  const cause = await explain(
    trace,
    (letter) => (letter(0) !== 1 && letter(8) === 1 ? 'integrity' : null),
    { kind: 'lost', requests: [lost] },
  );
  assert.equal(cause.kind, 'order');
  assert.ok(cause.state.cut <= 1, `cut ${cause.state.cut}`);
});

test('under M0 the shortest prefix that fails is found', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  trace.wrote({ offset: 0, data: 1 });
  const bad = trace.wrote({ offset: BLOCK, data: 2 });
  const mended = trace.wrote({ offset: 2 * BLOCK, data: 3 });
  const state = { kind: 'prefix', order: 'issued', count: 2 } as const;
  const cause = await explain(
    trace,
    (letter) => (letter(1) === 2 && letter(2) !== 3 ? 'integrity' : null),
    state,
    { name: 'M0' },
  );
  assert.deepEqual([numbers(cause.lost), numbers(cause.kept)], [[mended], [bad]]);
});

test('no cause is moved to before the note begin', async () => {
  const trace = new TraceBuilder();
  const mkfs = trace.wrote({ offset: 0, data: 1 });
  trace.flushed();
  trace.mark('note', 'begin');
  const again = trace.wrote({ offset: 0, data: 2 });
  trace.wrote({ offset: BLOCK, data: 3, fua: true });
  const cause = await explain(trace, (letter) => (letter(0) === 2 ? null : 'integrity'), {
    kind: 'floor',
  });
  assert.deepEqual(numbers(cause.lost), [again]);
  assert.ok(cause.state.cut > 0 && !numbers(cause.lost).includes(mkfs));
});

test('M0 on two disks: what is lost on one while the other has more', async () => {
  const trace = new TraceBuilder({ disks: [{}, {}] });
  trace.flushed();
  const log = trace.wrote({ disk: 0, offset: 0, data: 1 });
  const commit = trace.wrote({ disk: 1, offset: 0, data: 2 });
  const cause = await explain(
    trace,
    (letter, _acks, other) => (other(0) === 2 && letter(0) !== 1 ? 'integrity' : null),
    { kind: 'lost', requests: [log] },
    { name: 'M0' },
  );
  assert.equal(cause.kind, 'order');
  assert.deepEqual([numbers(cause.lost), numbers(cause.kept)], [[log], [commit]]);
  assert.match(cause.whatIf[0]?.words ?? '', /a FLUSH of disk0 after #1 is done and before #2/);
});

test('a unit whose base came back is at its floor when it holds that', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  const write = trace.wrote({ offset: 0, data: 1, length: 2 * BLOCK });
  const back = trace.wrote({ offset: 0, data: 0 });
  const rule = { kind: 'tear', request: write, shape: 'head', others: 'lost' } as const;
  const cause = await explain(
    trace,
    (letter) => (letter(0) === 1 && letter(1) !== 1 ? 'integrity' : null),
    rule,
    { name: 'M2' },
  );
  assert.deepEqual(numbers(cause.lost), [write, back]);
  const { rule: found } = cause.state;
  assert.ok(found.kind === 'units' && found.others === 'floor' && found.pairs.length === 2);
});

test('garbage where the cut fell is a tear', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  const write = trace.write({ offset: 0, data: 1 });
  const model = modelOf(trace, 'M3');
  const { units, versions } = model.view(model.cuts.length - 1);
  const pairs = [units[0] as number, versions[1] as number];
  const cause = await explain(
    trace,
    (letter) => (letter(0) > 1 ? 'integrity' : null),
    { kind: 'units', others: 'all', pairs },
    { name: 'M3' },
  );
  assert.equal(cause.kind, 'tear');
  assert.deepEqual(numbers(cause.lost), [write]);
});

test('the promise that is broken is the one after what is lost, not the last', async () => {
  const trace = new TraceBuilder();
  trace.flushed();
  trace.wrote({ offset: 0, data: 1 });
  trace.mark('ack', 'one');
  trace.wrote({ offset: BLOCK, data: 2 });
  trace.mark('ack', 'two');
  const cause = await explain(
    trace,
    (letter, acks) => (acks > 0 && letter(0) !== 1 ? 'durability' : null),
    { kind: 'floor' },
  );
  assert.match(cause.sentence, /when 'one' was acknowledged/);
  assert.match(cause.whatIf[0]?.words ?? '', /before 'one'/);
});

test('no FLUSH helps where the disk lies', async () => {
  const trace = new TraceBuilder();
  trace.wrote({ offset: 0, data: 1 });
  trace.flushed();
  trace.mark('ack', 'one');
  const cause = await explain(
    trace,
    (letter, acks) => (acks > 0 && letter(0) !== 1 ? 'durability' : null),
    { kind: 'floor' },
    { name: 'L' },
  );
  assert.equal(cause.kind, 'no-flush-seen');
  assert.match(cause.sentence, /this disk does nothing on FLUSH/);
  assert.deepEqual(cause.whatIf, []);
});
