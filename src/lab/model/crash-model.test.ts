import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { crc32 } from 'node:zlib';
import { ConfigError } from '../../base/errors.ts';
import { FLAG } from '../../block/io.ts';
import { type BuiltDisk, TraceBuilder } from '../../trace/builder.ts';
import type { Trace } from '../../trace/trace.ts';
import { attachCrashModel, openCrashModel, shareModel } from './crash-model.ts';
import { enumerateStates } from './enumerate-states.ts';
import type { CrashModel, ModelName, ModelOptions, Rule } from './types.ts';
import { findVersions } from './versions.ts';

// Traces whose states can be counted by hand. Sectors are named by their number, contents by a byte.

const SECTOR = 512;
const TiB = 2 ** 40;

function open(
  trace: Trace | TraceBuilder,
  model: ModelName = 'M2',
  more: Partial<ModelOptions> = {},
): CrashModel {
  const options = { model, unitBytes: 512, overlap: 'issued', poison: false, ...more } as const;
  return openCrashModel(trace instanceof TraceBuilder ? trace.trace() : trace, options);
}

/** The bytes that some sectors of disk 0 hold, as text. */
function shown(model: CrashModel, cut: number, rule: Rule, sectors: readonly number[]): string {
  const bytes = sectors.map((sector) => {
    const unit = model.unitAt(0, sector * SECTOR);
    if (unit < 0) return 0;
    const byte = new Uint8Array(1);
    const skip = sector * SECTOR - model.place(unit).offset;
    model.readVersion(model.versionIn({ cut, rule }, unit), skip, byte);
    return byte[0] as number;
  });
  return bytes.join(' ');
}

/** All states of a cut, the last one if none is named. */
function statesOf(
  model: CrashModel,
  sectors: readonly number[],
  cut = model.cuts.length - 1,
): string[] {
  return [...enumerateStates(model, cut)]
    .map(({ rule }) => shown(model, cut, rule, sectors))
    .toSorted();
}

function at(sector: number, data: number, more: object = {}): { offset: number; data: number } {
  return { offset: sector * SECTOR, data, ...more };
}

test('S1: three writes, no flush: 4 prefixes, 8 subsets', () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 3; i += 1) builder.wrote(at(i, i + 1));
  assert.equal(open(builder, 'M0').countStates(100), 4n);
  assert.equal(open(builder, 'M1').countStates(100), 8n);
  assert.equal(open(builder, 'M2').countStates(100), 8n);
});

test('S2: a write before a flush and one after it, of one sector: 2 states', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.flushed();
  builder.wrote(at(0, 2));
  assert.deepEqual(statesOf(open(builder), [0]), ['1', '2']);
});

test('S3: two writes of one sector: 3 states, never 4', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.wrote(at(0, 2));
  for (const name of ['M0', 'M1', 'M2'] as const) {
    assert.deepEqual(statesOf(open(builder, name), [0]), ['0', '1', '2']);
    assert.equal(open(builder, name).countStates(100), 3n);
  }
});

test('S4: a write that completes while a flush is under way is not covered by it (D5)', () => {
  const builder = new TraceBuilder();
  const write = builder.write(at(0, 1));
  const flush = builder.flush();
  builder.done(write);
  builder.done(flush);
  assert.deepEqual(statesOf(open(builder), [0]), ['0', '1']);
});

test('S5: FUA makes its own write stable and no other (D1)', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.wrote(at(1, 2, { fua: true }));
  assert.deepEqual(statesOf(open(builder), [0, 1]), ['0 2', '1 2']);
  assert.deepEqual(statesOf(open(builder, 'M1'), [0, 1]), ['0 2', '1 2']);
  assert.deepEqual(statesOf(open(builder, 'M0'), [0, 1]), ['1 2']);
});

test('S6: a FUA write that was not completed promises nothing', () => {
  const builder = new TraceBuilder();
  builder.write(at(0, 1, { fua: true }));
  assert.deepEqual(statesOf(open(builder), [0]), ['0', '1']);
});

test('S7: one write of 4 KiB: 2 as a whole, 256 in units of 512', () => {
  const builder = new TraceBuilder();
  builder.wrote({ ...at(0, 1), length: 4096 });
  assert.equal(open(builder, 'M1').countStates(1000), 2n);
  assert.equal(open(builder).countStates(1000), 256n);
  assert.equal(open(builder, 'M2', { unitBytes: 4096 }).countStates(1000), 2n);
});

test('S8: two writes of the same 4 KiB: 6,561; S9: with equal contents: 256', () => {
  for (const [second, expected] of [
    [2, 6561n],
    [1, 256n],
  ] as const) {
    const builder = new TraceBuilder();
    builder.wrote({ ...at(0, 1), length: 4096 });
    builder.wrote({ ...at(0, second), length: 4096 });
    const model = open(builder);
    assert.equal(model.countStates(10_000), expected);
    assert.equal(model.view(0).plainCount, expected);
    assert.equal([...enumerateStates(model, 0)].length, Number(expected));
  }
});

test('S10: a write with a flush before it and FUA: 1 state', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.wrote(at(1, 2, { flags: FLAG.BARRIER }));
  assert.deepEqual(statesOf(open(builder), [0, 1]), ['1 2']);
  const split = new TraceBuilder();
  split.wrote(at(0, 1));
  split.flushed();
  split.wrote(at(1, 2, { fua: true }));
  assert.deepEqual(statesOf(open(split), [0, 1]), ['1 2']);
});

test('a barrier is not there before what it waits for is stable', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.write(at(1, 2, { flags: FLAG.BARRIER }));
  builder.done(1);
  const model = open(builder);
  const all = model.cuts.flatMap(({ index }) => statesOf(model, [0, 1], index));
  assert.deepEqual([...new Set(all)].toSorted(), ['0 0', '1 0', '1 2']);
});

test('S11: a flush that fails makes nothing stable', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.failed(builder.flush());
  const model = open(builder);
  assert.equal(model.cuts.length, 1);
  assert.deepEqual(statesOf(model, [0]), ['0', '1']);
});

test('a write that fails may be there or not, whatever is flushed, until something newer is stable', () => {
  const builder = new TraceBuilder();
  builder.failed(builder.write(at(0, 1)));
  builder.flushed();
  assert.deepEqual(statesOf(open(builder), [0]), ['0', '1']);
  builder.wrote(at(0, 2));
  builder.flushed();
  assert.deepEqual(statesOf(open(builder), [0]), ['2']);
});

test('S12: zeroes are a write; after a discard anything earlier may be there until it is rewritten', () => {
  const trimmed = (discard: BuiltDisk['discard']): TraceBuilder => {
    const builder = new TraceBuilder({ disks: [discard === undefined ? {} : { discard }] });
    builder.wrote(at(0, 7));
    builder.flushed();
    builder.wrote(at(0, 8));
    builder.done(builder.trim({ offset: 0, length: SECTOR }));
    builder.flushed();
    return builder;
  };
  assert.deepEqual(statesOf(open(trimmed('zeroes')), [0]), ['0']);
  const vague = trimmed('undefined');
  assert.deepEqual(statesOf(open(vague), [0]), ['0', '7', '8']);
  const poisoned = open(vague, 'M2', { poison: true });
  assert.equal(statesOf(poisoned, [0]).length, 4);
  vague.wrote(at(0, 9));
  vague.flushed();
  assert.deepEqual(statesOf(open(vague), [0]), ['9']);
  const zeroes = new TraceBuilder();
  zeroes.wrote(at(0, 7));
  zeroes.flushed();
  zeroes.done(zeroes.zeroes({ offset: 0, length: SECTOR, fua: true }));
  assert.deepEqual(statesOf(open(zeroes), [0]), ['0']);
  assert.equal(open(zeroes).cuts.at(-2)?.why, 'fua');
});

test('S13: a flush of one disk says nothing about another', () => {
  const builder = new TraceBuilder({ disks: [{}, {}] });
  builder.wrote(at(0, 1));
  builder.wrote(at(0, 2, { disk: 1 }));
  builder.flushed({ disk: 0 });
  for (const name of ['M0', 'M1', 'M2'] as const) {
    const model = open(builder, name);
    assert.equal(model.view(model.cuts.length - 1).units.length, 1, name);
    assert.equal(model.place(model.view(1).units[0] as number).disk, 1);
    assert.equal([...enumerateStates(model, 1)].length, 2);
  }
});

test('S14: a flush covers other connections only where that was promised', () => {
  for (const [flushCovers, expected] of [
    ['everyone', ['1']],
    ['source', ['0', '1']],
  ] as const) {
    const builder = new TraceBuilder({ disks: [{ flushCovers }] });
    builder.wrote(at(0, 1, { source: 1 }));
    builder.flushed({ source: 2 });
    assert.deepEqual(statesOf(open(builder), [0]), expected);
  }
});

/** Log, data, commit: whether a commit is there without what it stands for, over all states. */
function walStates(before: 'nothing' | 'flush' | 'fua'): { states: Set<string>; bad: string[] } {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.wrote(at(1, 1));
  if (before === 'flush') builder.flushed();
  builder.wrote(at(2, 1, { fua: before === 'fua' }));
  const model = open(builder);
  const states = new Set(model.cuts.flatMap(({ index }) => statesOf(model, [0, 1, 2], index)));
  assert.equal(model.countStates(100), BigInt(states.size));
  const bad = [...states].filter((state) => state.endsWith('1') && state !== '1 1 1');
  return { states, bad };
}

test('S15: a log, its data and a commit: 8 states of which 3 are wrong; a flush mends it, FUA does not', () => {
  const plain = walStates('nothing');
  assert.equal(plain.states.size, 8);
  assert.deepEqual(plain.bad.toSorted(), ['0 0 1', '0 1 1', '1 0 1']);
  const flushed = walStates('flush');
  assert.equal(flushed.states.size, 5);
  assert.deepEqual(flushed.bad, []);
  assert.equal(walStates('fua').bad.length, 3);
});

// What other tools got wrong.

test('D1, D4: a log that writes FUA as a flush loses the state in which only the FUA write is there', () => {
  const truth = new TraceBuilder();
  truth.wrote(at(0, 1));
  truth.wrote(at(1, 2, { fua: true }));
  const log = new TraceBuilder();
  log.wrote(at(0, 1));
  log.wrote(at(1, 2));
  log.flushed();
  assert.ok(statesOf(open(truth), [0, 1]).includes('0 2'));
  assert.deepEqual(statesOf(open(log), [0, 1]), ['1 2']);
});

test('D2: an older version of a sector is a state of its own, beside any version of another', () => {
  const builder = new TraceBuilder();
  builder.wrote({ ...at(0, 1), length: 2 * SECTOR });
  builder.wrote(at(0, 2));
  builder.wrote(at(0, 3));
  assert.deepEqual(statesOf(open(builder), [0, 1]), [
    '0 0',
    '0 1',
    '1 0',
    '1 1',
    '2 0',
    '2 1',
    '3 0',
    '3 1',
  ]);
});

test('D3: overlaps are those of bytes, nothing at all may be there, and how many states there are is known', () => {
  const builder = new TraceBuilder();
  builder.wrote({ ...at(0, 1), length: 3 * SECTOR });
  builder.wrote({ ...at(2, 2), length: 2 * SECTOR });
  builder.wrote(at(4, 3));
  const model = open(builder);
  const { first, units } = model.view(0);
  const sizes = Array.from(units, (_, i) => (first[i + 1] as number) - (first[i] as number));
  assert.deepEqual(sizes, [2, 2, 3, 2, 2]);
  assert.equal(shown(model, 0, { kind: 'floor' }, [0, 1, 2, 3, 4]), '0 0 0 0 0');
  assert.equal(model.view(0).plainCount, 48n);
});

test('D5: a log in the order of completion makes of an uncovered write a covered one; the true times do not', () => {
  const log = new TraceBuilder();
  log.wrote(at(0, 1));
  log.flushed();
  assert.deepEqual(statesOf(open(log), [0]), ['1']);
  const truth = new TraceBuilder();
  const write = truth.write(at(0, 1));
  const flush = truth.flush();
  truth.done(write);
  truth.done(flush);
  assert.deepEqual(statesOf(open(truth), [0]), ['0', '1']);
});

test('D6: a workload without FUA has its crash points all the same', () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 3; i += 1) {
    builder.wrote(at(i, 1));
    builder.flushed();
  }
  assert.deepEqual(
    open(builder).cuts.map(({ why }) => why),
    ['flush', 'flush', 'flush', 'end'],
  );
});

test('D7: a cut looks the same whether one comes from the one before it or from anywhere', () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 40; i += 1) {
    builder.wrote({ ...at((i * 7) % 11, i), length: (1 + (i % 3)) * SECTOR });
    if (i % 4 === 3) builder.flushed({ offset: (i % 3) * SECTOR, length: 6 * SECTOR });
  }
  const forwards = open(builder);
  const views = forwards.cuts.map(({ index }) => forwards.view(index));
  const jumping = open(builder);
  for (let i = 0; i < views.length; i += 1) {
    const index = (i * 7) % views.length;
    assert.deepEqual({ ...jumping.view(index) }, { ...views[index] });
  }
  assert.ok(views.length > 8);
});

test('D10: where nothing is open there is one state, not none', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.flushed();
  const model = open(builder);
  assert.equal(model.view(1).plainCount, 1n);
  assert.equal(model.countStates(0), 2n);
  assert.equal(open(new TraceBuilder()).countStates(10), 1n);
});

test('D12: writes tear in the usual model, and each template leaves what it says', () => {
  const builder = new TraceBuilder();
  builder.wrote({ ...at(0, 1), length: 4 * SECTOR });
  builder.wrote(at(5, 2));
  const model = open(builder);
  const sectors = [0, 1, 2, 3, 5];
  const torn = {
    head: '1 1 0 0',
    tail: '0 0 1 1',
    middle: '0 1 1 0',
    alternating: '1 0 1 0',
    first: '1 0 0 0',
    last: '0 0 0 1',
    'not-first': '0 1 1 1',
    'not-last': '1 1 1 0',
  } as const;
  for (const [shape, expected] of Object.entries(torn)) {
    for (const [others, end] of [
      ['lost', '0'],
      ['kept', '2'],
    ] as const) {
      const rule = { kind: 'tear', request: 0, shape: shape as keyof typeof torn, others } as const;
      assert.equal(shown(model, 0, rule, sectors), `${expected} ${end}`);
    }
  }
});

test('M3: garbage is possible while a write is in flight, and no longer', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.write(at(1, 2));
  const model = open(builder, 'M3');
  assert.deepEqual(
    model.cuts.map(({ why }) => why),
    ['done', 'end'],
  );
  const [first, last] = [statesOf(model, [0, 1], 0), statesOf(model, [0, 1], 1)];
  assert.equal(first.length, 3);
  assert.equal(last.length, 6);
  assert.ok(last.every((state) => /^[01] /.test(state)));
});

test('L: nothing is ever stable', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1, { fua: true }));
  builder.flushed();
  builder.wrote(at(0, 2));
  const model = open(builder, 'L');
  assert.equal(model.cuts.length, 1);
  assert.deepEqual(statesOf(model, [0]), ['0', '1', '2']);
});

test("L: what was done at the note 'begin' is stable: only the workload's disk lies", () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.wrote(at(0, 2));
  const late = builder.write(at(1, 3));
  builder.mark('note', 'begin');
  builder.done(late);
  builder.flushed();
  builder.wrote(at(0, 4));
  builder.flushed();
  const model = open(builder, 'L');
  assert.deepEqual(
    model.cuts.map(({ why, request }) => [why, request]),
    [
      ['flush', -1],
      ['end', -1],
    ],
  );
  assert.deepEqual(statesOf(model, [0, 1]), ['2 0', '2 3', '4 0', '4 3']);
});

test('writes in flight together may come in any order, where that is asked for', () => {
  const builder = new TraceBuilder();
  const [a, b] = [builder.write(at(0, 1)), builder.write(at(0, 2))];
  builder.done(a);
  builder.done(b);
  builder.flushed();
  assert.deepEqual(statesOf(open(builder), [0]), ['2']);
  for (const name of ['M0', 'M1', 'M2'] as const) {
    assert.deepEqual(statesOf(open(builder, name, { overlap: 'any' }), [0]), ['1', '2']);
  }
});

test('a write of which a part was flushed is open until the rest is', () => {
  const builder = new TraceBuilder();
  const write = builder.wrote({ offset: 0, data: 1, length: 4 * SECTOR });
  builder.flushed({ offset: 0, length: 2 * SECTOR });
  builder.flushed({ offset: SECTOR, length: 2 * SECTOR });
  builder.flushed({ offset: 3 * SECTOR, length: SECTOR });
  const model = open(builder);
  const floors = model.cuts.map(({ index }) =>
    shown(model, index, { kind: 'floor' }, [0, 1, 2, 3]),
  );
  assert.deepEqual(floors, ['0 0 0 0', '1 1 0 0', '1 1 1 0', '1 1 1 1']);
  const requests = model.cuts.map(({ index }) => [...model.view(index).requests]);
  assert.deepEqual(requests, [[write], [write], [write], []]);
  // Where writes are there as a whole, a part that is stable is all of it.
  assert.deepEqual([...open(builder, 'M1').view(1).requests], []);
});

test('a flush of a range covers that range', () => {
  const builder = new TraceBuilder();
  builder.wrote({ ...at(0, 1), length: 4 * SECTOR });
  builder.flushed({ offset: SECTOR, length: 2 * SECTOR });
  assert.deepEqual(statesOf(open(builder), [0, 1, 2, 3]), [
    '0 1 1 0',
    '0 1 1 1',
    '1 1 1 0',
    '1 1 1 1',
  ]);
  assert.deepEqual(statesOf(open(builder, 'M1'), [0, 1, 2, 3]), ['1 1 1 1']);
});

test('a trace of more units than memory can hold is refused in words', () => {
  const trace = new TraceBuilder().trace();
  const none = { runDisk: new Uint16Array(0), runFirst: new Int32Array(1) };
  const sizes = { runStart: new Float64Array(0), runUnitBytes: new Float64Array(0) };
  const units = { ...none, ...sizes, unitCount: 2 ** 33 };
  assert.throws(() => findVersions(trace, units), /8589934592 versions of units or more/);
});

test('a discarded disk of 1 TiB is a few units, and small zeroes tear', () => {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: TiB }] });
  builder.done(builder.trim({ offset: 0, length: TiB }));
  builder.wrote({ ...at(8, 1), length: 4096 });
  builder.done(builder.zeroes({ offset: TiB - 4096, length: 4096 }));
  const model = open(builder);
  assert.equal(model.unitCount, 1 + 8 + 1 + 8);
  assert.deepEqual(model.place(9), { disk: 0, offset: 8192, bytes: TiB - 8192 - 4096 });
  assert.equal(model.unitAt(0, TiB / 2), 9);
  assert.equal(model.unitAt(0, TiB - 1), 17);
  assert.equal(model.unitAt(0, TiB), -1);
  assert.equal(model.unitAt(1, 0), -1);
  assert.equal(model.view(0).plainCount, 256n);
});

test('units lie along the grid, and a request that begins within one splits it', () => {
  const builder = new TraceBuilder();
  builder.wrote({ ...at(0, 1), length: 8192 });
  builder.wrote(at(10, 2));
  const model = open(builder, 'M2', { unitBytes: 4096 });
  const places = Array.from({ length: model.unitCount }, (_, unit) => model.place(unit));
  assert.deepEqual(
    places.map(({ offset, bytes }) => [offset, bytes]),
    [
      [0, 4096],
      [4096, 1024],
      [5120, 512],
      [5632, 2560],
    ],
  );
  for (const [unit, { offset, bytes }] of places.entries()) {
    assert.equal(model.unitAt(0, offset), unit);
    assert.equal(model.unitAt(0, offset + bytes - 1), unit);
  }
});

test('the base of a disk is a content like others', () => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-model-'));
  try {
    const image = new Uint8Array(8 * SECTOR).fill(5, 0, 2 * SECTOR).fill(6, 2 * SECTOR);
    writeFileSync(join(folder, 'base.img'), image);
    const base = { kind: 'file', path: 'base.img', crc32: crc32(image) } as const;
    const builder = new TraceBuilder({ disks: [{ sizeBytes: image.length, base }] });
    builder.wrote({ ...at(1, 6), length: 2 * SECTOR });
    const trace = builder.save(join(folder, 'a.trace'));
    const model = open(trace);
    // Sector 2 is overwritten with what it holds.
    assert.deepEqual(statesOf(model, [1, 2]), ['5 6', '6 6']);
    assert.equal(model.view(0).units.length, 1);
    model.close();
    rmSync(join(folder, 'base.img'));
    assert.throws(() => open(trace), ConfigError);
    trace.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('contents are compared, not only their hashes', () => {
  const builder = new TraceBuilder();
  for (const byte of [1, 2, 1, 0, 3, 2, 1, 4, 5, 6, 7, 1]) builder.wrote(at(0, byte));
  const model = open(builder);
  const { units, versions } = model.view(0);
  assert.deepEqual([...units], [0]);
  const bytes = Array.from(versions, (version) => {
    const byte = new Uint8Array(1);
    model.readVersion(version, 511, byte);
    return byte[0];
  });
  assert.deepEqual(bytes, [1, 7, 6, 5, 4, 2, 3, 0]);
  assert.equal(model.contentOf(1), model.contentOf(12));
  assert.notEqual(model.contentOf(1), model.contentOf(2));
  assert.equal(model.contentOf(0), model.contentOf(4));
});

test('a model is attached to in another thread as it is', () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 20; i += 1) {
    builder.wrote(at(i % 5, i));
    if (i % 6 === 5) builder.flushed();
  }
  const trace = builder.trace();
  const model = open(trace);
  const copy = attachCrashModel(trace, structuredClone(shareModel(model)));
  for (const { index } of model.cuts) {
    assert.deepEqual({ ...copy.view(index) }, { ...model.view(index) });
  }
  assert.deepEqual(copy.options, model.options);
  const other = new TraceBuilder();
  other.wrote(at(0, 1));
  assert.throws(() => attachCrashModel(other.trace(), shareModel(model)), /another trace/);
});

test('an image that comes back at a later cut is counted once', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.flushed();
  builder.wrote(at(0, 2));
  builder.flushed();
  builder.wrote(at(0, 1));
  const model = open(builder);
  // 0, 1, 2 and 1 again: a product over cuts would count 1 twice.
  assert.equal(model.countStates(100), 3n);
});

test('counting stops at its limit', () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 12; i += 1) builder.wrote(at(i, 1));
  assert.equal(open(builder, 'M1').countStates(4095), null);
  assert.equal(open(builder, 'M1').countStates(4096), 4096n);
  assert.equal(open(builder, 'M2').countStates(0), 4096n);
});

test('marks are owed from the first cut after them on', () => {
  const builder = new TraceBuilder();
  builder.wrote(at(0, 1));
  builder.flushed();
  builder.mark('ack', 'one');
  builder.wrote(at(1, 1));
  builder.flushed();
  builder.mark('ack', 'two');
  assert.deepEqual(
    open(builder).cuts.map(({ marks }) => marks),
    [0, 1, 2],
  );
});

function why(model: CrashModel, rule: Rule, cut = 0): string {
  return model.whyIllegal({ cut, rule }) ?? 'legal';
}

test('what is illegal is said, and why', () => {
  const builder = new TraceBuilder();
  builder.wrote({ ...at(0, 1), length: 2 * SECTOR });
  builder.wrote(at(0, 2));
  const m1 = open(builder, 'M1');
  assert.match(why(m1, { kind: 'all' }, 1), /no cut 1/);
  assert.match(why(m1, { kind: 'lost', requests: [2] }), /request 2 is not open/);
  assert.match(why(m1, { kind: 'stale', back: 1 }), /as a whole/);
  assert.match(why(m1, { kind: 'prefix', order: 'issued', count: 3 }), /prefix of 3/);
  assert.match(why(m1, { kind: 'pairs', row: 9, flip: false }), /row 9/);
  assert.match(why(m1, { kind: 'units', others: 'all', pairs: [0, 1, 1, 3] }), /no set of writes/);
  assert.equal(why(m1, { kind: 'units', others: 'all', pairs: [1, 3] }), 'legal');
  assert.match(why(m1, { kind: 'units', others: 'all', pairs: [0, 4] }), /cannot hold/);
  const m0 = open(builder, 'M0');
  assert.match(why(m0, { kind: 'lost', requests: [0] }), /prefix/);
  assert.equal(why(m0, { kind: 'lost', requests: [1] }), 'legal');
  const m2 = open(builder);
  assert.equal(why(m2, { kind: 'units', others: 'all', pairs: [0, 1, 1, 3] }), 'legal');
  assert.match(why(m2, { kind: 'random', by: 'unit', seed: 1, keep: 0.5 }), /256/);
  assert.throws(() => open(builder, 'M2', { unitBytes: 1000 }), ConfigError);
});
