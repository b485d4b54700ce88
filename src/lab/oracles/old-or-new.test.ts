import assert from 'node:assert/strict';
import test from 'node:test';
import { TraceBuilder } from '../../trace/builder.ts';
import type { Mark } from '../../trace/trace.ts';
import type { Verdict } from '../check/types.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { ModelName, Rule } from '../model/types.ts';
import { openStateDisks } from '../state-device/state-device.ts';
import { openOldOrNew } from './old-or-new.ts';

/** Judges states of the last cut. */
async function judge(
  build: (builder: TraceBuilder) => void,
  rules: readonly Rule[],
  model: ModelName = 'M2',
  discard: 'zeroes' | 'undefined' = 'zeroes',
): Promise<{ verdicts: string[]; details: string[]; usesAcks: boolean }> {
  const builder = new TraceBuilder({ disks: [{ name: 'sda', discard }] });
  build(builder);
  const crash = openCrashModel(builder.trace(), {
    model,
    unitBytes: 512,
    overlap: 'issued',
    poison: false,
  });
  const disks = openStateDisks(crash, true);
  const checker = openOldOrNew(crash);
  const cut = crash.cuts.length - 1;
  const verdicts: Verdict[] = [];
  for (const rule of rules) {
    disks.shown.show({ cut, rule });
    const acks: readonly Mark[] = crash.trace.marks.filter((mark) => mark.kind === 'ack');
    verdicts.push(await checker.check({ files: [], devices: disks.devices, acks, scratch: '' }));
    // Nothing of a state is left out: another run that reads the same is the same.
    assert.equal(disks.shown.reads()?.length, discard === 'zeroes' ? crash.unitCount : 0);
  }
  await disks.close();
  return {
    verdicts: verdicts.map(({ outcome, axis, class: name }) => `${outcome} ${axis ?? '-'} ${name}`),
    details: verdicts.map(({ detail }) => detail),
    usesAcks: checker.usesAcks,
  };
}

const ALL: Rule = { kind: 'all' };
const FLOOR: Rule = { kind: 'floor' };
const MIXED = 'fail atomicity old and new mixed';

test('a write is there as a whole, or not at all', async () => {
  const tear = { kind: 'tear', request: 0, shape: 'head', others: 'lost' } as const;
  const { verdicts, details, usesAcks } = await judge(
    (trace) => trace.wrote({ offset: 4096, data: 7, length: 2048 }),
    [ALL, FLOOR, tear],
  );
  assert.deepEqual(verdicts, ['pass - new', 'pass - old', MIXED]);
  assert.equal(details[2], 'sda: 2048 bytes at 4096, by request 0');
  assert.equal(usesAcks, false);
});

/** Two writes of two blocks, with something between them. */
function twoWrites(
  between: (trace: TraceBuilder) => void,
  offset = 1024,
  fua = false,
): (trace: TraceBuilder) => void {
  return (trace) => {
    trace.wrote({ offset: 0, data: 1, length: 1024 });
    between(trace);
    trace.wrote({ offset, data: 2, length: 1024, fua });
  };
}

function nothing(): void {}

test('requests that continue each other are one object until a flush, a gap or FUA', async () => {
  const second: Rule = { kind: 'lost', requests: [1] };
  assert.deepEqual((await judge(twoWrites(nothing), [second])).verdicts, [MIXED]);
  assert.deepEqual((await judge(twoWrites(nothing, 512), [second])).verdicts, [MIXED]);
  assert.deepEqual((await judge(twoWrites(nothing, 4096), [second])).verdicts, ['pass - ']);
  // A flush that was never answered makes nothing stable, and says that the next is another thing.
  const lost: Rule = { kind: 'lost', requests: [2] };
  const flushed = twoWrites((trace) => void trace.flush());
  assert.deepEqual((await judge(flushed, [lost])).verdicts, ['pass - ']);
  const first: Rule = { kind: 'lost', requests: [0] };
  assert.deepEqual((await judge(twoWrites(nothing, 1024, true), [first])).verdicts, ['pass - ']);
});

test('what was overwritten may be any of what it was', async () => {
  const rules: Rule[] = [
    { kind: 'lost', requests: [2] },
    { kind: 'kept', requests: [0] },
    // Its middle is old, and that is not hidden by the newer block beside it.
    { kind: 'kept', requests: [2] },
    { kind: 'kept', requests: [0, 4] },
    { kind: 'kept', requests: [4] },
  ];
  const { verdicts } = await judge((trace) => {
    trace.wrote({ offset: 0, data: 1, length: 2048 });
    trace.flush();
    trace.wrote({ offset: 512, data: 2, length: 512 });
    trace.flush();
    trace.wrote({ offset: 1024, data: 3, length: 512 });
  }, rules);
  const [whole, old] = ['pass - ', MIXED];
  assert.deepEqual(verdicts, [whole, whole, old, whole, old]);
});

test('what is the same in old and new is either', async () => {
  const data = new Uint8Array(1536);
  data.fill(9, 1024);
  const { verdicts } = await judge((trace) => void trace.wrote({ offset: 0, data }), [ALL, FLOOR]);
  assert.deepEqual(verdicts, ['pass - new', 'pass - old']);
});

test('what was complete when something was acknowledged must be there', async () => {
  const { verdicts, details, usesAcks } = await judge(
    (trace) => {
      trace.wrote({ offset: 0, data: 1 });
      const late = trace.write({ offset: 8192, data: 2 });
      trace.mark('ack', 'first');
      trace.done(late);
      trace.mark('note', 'not a promise');
    },
    [ALL, { kind: 'lost', requests: [1] }, { kind: 'lost', requests: [0] }],
  );
  const lost = 'fail durability what was acknowledged is lost';
  assert.deepEqual(verdicts, ['pass - new', 'pass - ', lost]);
  assert.equal(details[2], 'sda: 512 bytes at 0');
  assert.equal(usesAcks, true);
});

test('garbage is neither', async () => {
  const rules = Array.from({ length: 12 }, (_, seed): Rule => {
    return { kind: 'random', by: 'unit', seed, keep: 128 };
  });
  const { verdicts } = await judge(
    (trace) => void trace.write({ offset: 0, data: 1 }),
    rules,
    'M3',
  );
  assert.ok(verdicts.includes('fail atomicity neither old nor new'));
  assert.ok(verdicts.includes('pass - new'));
});

test('nothing is asked of what was discarded without a promise, or failed', async () => {
  const tear: Rule = { kind: 'tear', request: 1, shape: 'head', others: 'lost' };
  const discarded = await judge(
    (trace) => {
      trace.done(trace.trim({ offset: 0, length: 1024 }));
      trace.wrote({ offset: 0, data: 5, length: 1024 });
    },
    [tear],
    'M2',
    'undefined',
  );
  assert.deepEqual(discarded.verdicts, ['pass - new']);
  const torn: Rule = { kind: 'tear', request: 0, shape: 'head', others: 'lost' };
  const failed = await judge(
    (trace) => void trace.failed(trace.write({ offset: 0, data: 5, length: 1024 })),
    [torn],
  );
  assert.deepEqual(failed.verdicts, ['pass - ']);
});
