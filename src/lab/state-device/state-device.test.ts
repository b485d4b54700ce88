import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { Prng } from '../../base/prng.ts';
import { discard, perform, read, write, writeZeroes } from '../../block/await.ts';
import { conformance } from '../../block/conformance.ts';
import { Io, OP } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import type { Trace } from '../../trace/trace.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { CrashModel, ModelName, Rule, StateSpec } from '../model/types.ts';
import { OVERLAY_BYTES } from './limits.ts';
import { openStateDisks } from './state-device.ts';

const SIZE = 512 * 1024;
const BASE_SIZE = SIZE;

/** A folder with a base image that differs in every block. */
const folder = mkdtempSync(join(tmpdir(), 'holdfast-state-'));
const baseBytes = new Uint8Array(BASE_SIZE);
new Prng(5).fill(baseBytes);
writeFileSync(join(folder, 'base.img'), baseBytes);
test.after(() => rmSync(folder, { recursive: true }));

let files = 0;

/** Two disks, one over a base image and one over zeroes, and requests of all kinds on both. */
function randomTrace(seed: number, requests = 60): Trace {
  const random = new Prng(seed);
  const builder = new TraceBuilder({
    disks: [
      { sizeBytes: SIZE, base: { kind: 'file', path: 'base.img', crc32: crc32(baseBytes) } },
      { sizeBytes: SIZE, discard: 'undefined' },
    ],
  });
  const open: number[] = [];
  for (let i = 0; i < requests; i += 1) {
    const disk = random.below(2);
    const offset = random.below(200) * 512 + (random.chance(0.5) ? 100 * 1024 : 0);
    const length = (1 + random.below(random.chance(0.1) ? 300 : 12)) * 512;
    const fua = random.chance(0.1);
    const what = random.below(10);
    if (what < 6) {
      const data = new Uint8Array(length);
      random.fill(data);
      open.push(builder.write({ disk, offset, data, fua }));
    } else if (what === 6) open.push(builder.zeroes({ disk, offset, length, fua }));
    else if (what === 7) open.push(builder.trim({ disk, offset, length }));
    else open.push(builder.flush({ disk }));
    while (open.length > 0 && random.chance(0.6)) {
      builder.done(open.splice(random.below(open.length), 1)[0] as number);
    }
  }
  files += 1;
  return builder.save(join(folder, `trace${files}`));
}

function randomState(model: CrashModel, random: Prng): StateSpec {
  const cut = random.below(model.cuts.length);
  const seed = random.uint32();
  const rules: readonly Rule[] = [
    { kind: 'all' },
    { kind: 'floor' },
    { kind: 'random', by: 'unit', seed, keep: random.below(257) },
    { kind: 'random', by: 'request', seed, keep: 128 },
    { kind: 'prefix', order: 'issued', count: random.below(10) },
    { kind: 'stale', back: 1 },
  ];
  return { cut, rule: random.pick(rules) };
}

/** The whole disk, unit by unit, as the model alone says. */
function naive(model: CrashModel, state: StateSpec, disk: number): Uint8Array {
  const bytes = disk === 0 ? baseBytes.slice() : new Uint8Array(SIZE);
  for (let unit = 0; unit < model.unitCount; unit += 1) {
    const place = model.place(unit);
    if (place.disk !== disk) continue;
    const version = model.versionIn(state, unit);
    model.readVersion(version, 0, bytes.subarray(place.offset, place.offset + place.bytes));
  }
  return bytes;
}

const open = (trace: Trace, model: ModelName = 'M2', poison = false): CrashModel =>
  openCrashModel(trace, { model, unitBytes: 512, overlap: 'issued', poison });

for (const [name, poison] of [
  ['M2', false],
  ['M3', true],
  ['L', false],
] as const) {
  test(`reads are what the model says, whatever was shown before: ${name}`, async () => {
    for (let seed = 1; seed <= 8; seed += 1) {
      const trace = randomTrace(seed * 100);
      const model = open(trace, name, poison);
      const disks = openStateDisks(model, true);
      const random = new Prng(seed);
      for (let step = 0; step < 25; step += 1) {
        const state = randomState(model, random);
        const disk = random.below(2);
        const expected = naive(model, state, disk);
        disks.shown.show(state);
        const device = disks.devices[disk];
        assert.ok(device !== undefined);
        for (let i = 0; i < 6; i += 1) {
          const offset = random.below(SIZE / 512) * 512;
          const most = random.chance(0.3) ? SIZE : 16 * 1024;
          const length = Math.min(SIZE - offset, (1 + random.below(most / 512)) * 512);
          const found = await read(device, offset, length);
          const wanted = expected.subarray(offset, offset + length);
          assert.equal(Buffer.compare(found, wanted), 0, `seed ${seed}, step ${step}`);
        }
      }
      await disks.close();
      trace.close();
    }
  });
}

test('what a run writes is read back in this run, and gone in the next', async () => {
  const trace = randomTrace(77);
  const model = open(trace);
  const disks = openStateDisks(model, false);
  const device = disks.devices[0];
  assert.ok(device !== undefined);
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          what: fc.nat({ max: 4 }),
          block: fc.nat({ max: SIZE / 512 - 1 }),
          blocks: fc.nat({ max: 90 }),
          tag: fc.integer({ min: 1, max: 255 }),
        }),
        { maxLength: 25 },
      ),
      fc.nat(),
      async (steps, seed) => {
        const state = randomState(model, new Prng(seed));
        disks.shown.show(state);
        const expected = naive(model, state, 0);
        for (const { what, block, blocks, tag } of steps) {
          const [offset, end] = [block * 512, Math.min(SIZE, (block + blocks) * 512)];
          const part = expected.subarray(offset, end);
          if (what < 2) await write(device, offset, part.fill(tag));
          else if (what === 2) await writeZeroes(device, offset, part.fill(0).length);
          else if (what === 3) await discard(device, offset, part.fill(0).length);
          else assert.deepEqual(await read(device, offset, part.length), part);
        }
        assert.equal(Buffer.compare(await read(device, 0, SIZE), expected), 0);
      },
    ),
    { numRuns: 60, seed: 9 },
  );
  await disks.close();
  trace.close();
});

test('units are logged when they are first read, unless they were written before', async () => {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: SIZE }, { sizeBytes: SIZE }] });
  builder.wrote({ offset: 0, data: 1, length: 4096 });
  builder.wrote({ disk: 1, offset: 200 * 1024, data: 2, length: 1024 });
  const trace = builder.trace();
  const model = open(trace);
  const disks = openStateDisks(model, true);
  const [first, second] = disks.devices;
  assert.ok(first !== undefined && second !== undefined);
  const at = (disk: number, offset: number): number => model.unitAt(disk, offset);
  disks.shown.show({ cut: 0, rule: { kind: 'all' } });
  await write(first, 1024, new Uint8Array(512));
  await read(second, 200 * 1024 + 512, 512);
  await read(first, 512, 2048);
  await read(first, 64 * 1024, 65_536);
  await read(first, 0, 1024);
  const expected = [at(1, 200 * 1024 + 512), at(0, 512), at(0, 1536), at(0, 2048), at(0, 0)];
  assert.deepEqual([...(disks.shown.reads() ?? [])], expected);
  // Another run begins with nothing; what the last one wrote does not count any more.
  disks.shown.show({ cut: 0, rule: { kind: 'floor' } });
  assert.deepEqual([...(disks.shown.reads() ?? [])], []);
  await read(first, 1024, 512);
  assert.deepEqual([...(disks.shown.reads() ?? [])], [at(0, 1024)]);
  await disks.close();
  const silent = openStateDisks(model, false);
  silent.shown.show({ cut: 0, rule: { kind: 'all' } });
  assert.equal(silent.shown.reads(), null);
  await silent.close();
});

test('a unit of which only a part was written is still read', async () => {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: SIZE }] });
  builder.wrote({ offset: 0, data: 9, length: 8192 });
  const trace = builder.trace();
  const model = openCrashModel(trace, {
    model: 'M2',
    unitBytes: 4096,
    overlap: 'issued',
    poison: false,
  });
  const disks = openStateDisks(model, true);
  const device = disks.devices[0];
  assert.ok(device !== undefined);
  disks.shown.show({ cut: 0, rule: { kind: 'all' } });
  await write(device, 512, new Uint8Array(512).fill(7));
  const bytes = await read(device, 0, 4096);
  assert.deepEqual([bytes[0], bytes[512], bytes[1024]], [9, 7, 9]);
  assert.deepEqual([...(disks.shown.reads() ?? [])], [model.unitAt(0, 0)]);
  await disks.close();
});

test('blocks that are pushed out of the cache come back right', async () => {
  // More blocks than are kept ready: a disk of 80 MiB with a unit in each block of 64 KiB.
  const blocks = 1280;
  const builder = new TraceBuilder({ disks: [{ sizeBytes: blocks * 65_536 }] });
  for (let i = 0; i < blocks; i += 1) builder.wrote({ offset: i * 65_536, data: 1 + (i % 250) });
  const model = open(builder.trace());
  const disks = openStateDisks(model, false);
  const device = disks.devices[0];
  assert.ok(device !== undefined);
  const random = new Prng(3);
  for (const [kind, there] of [
    ['all', 1],
    ['floor', 0],
    ['all', 1],
  ] as const) {
    disks.shown.show({ cut: 0, rule: { kind } });
    for (let i = 0; i < 3000; i += 1) {
      const block = random.below(blocks);
      const bytes = await read(device, block * 65_536, 1024);
      assert.equal(bytes[0], there * (1 + (block % 250)));
      assert.equal(bytes[512], 0);
    }
  }
  await disks.close();
});

test('one run may not fill the memory', async () => {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: 2 ** 40 }] });
  builder.wrote({ offset: 0, data: 1 });
  const disks = openStateDisks(open(builder.trace()), false);
  const device = disks.devices[0];
  assert.ok(device !== undefined);
  const piece = new Uint8Array(1 << 20);
  disks.shown.show({ cut: 0, rule: { kind: 'all' } });
  for (let at = 0; at < OVERLAY_BYTES; at += piece.length) await write(device, at, piece);
  assert.equal(device.overflowed, false);
  await assert.rejects(write(device, OVERLAY_BYTES, piece), { code: 'ENOSPC' });
  assert.equal(device.overflowed, true);
  // Zeroes cost nothing, and give pages back.
  await discard(device, 0, 2 ** 40);
  await write(device, 2 ** 39, piece);
  disks.shown.show({ cut: 0, rule: { kind: 'all' } });
  assert.equal(device.overflowed, false);
  assert.equal((await read(device, 0, 512))[0], 1);
  await disks.close();
});

function overBase(sizeBytes: number, path: string): CrashModel {
  const base = { kind: 'file', path: join(folder, path), crc32: 0 } as const;
  return open(new TraceBuilder({ disks: [{ sizeBytes, base }] }).trace());
}

test("a missing or short base is the operator's to mend", () => {
  assert.throws(() => openStateDisks(overBase(SIZE, 'none.img'), false), { name: 'ConfigError' });
  assert.throws(() => openStateDisks(overBase(2 * SIZE, 'base.img'), false), {
    name: 'ConfigError',
  });
});

test('reading what is ready allocates nothing', () => {
  const trace = randomTrace(4);
  const disks = openStateDisks(open(trace), true);
  disks.shown.show({ cut: 0, rule: { kind: 'all' } });
  const device = disks.devices[0];
  assert.ok(device !== undefined);
  const region = Region.plain(4096);
  const io = new Io();
  const owner = { ioDone(): void {} };
  const run = (): void => {
    for (let i = 0; i < 20_000; i += 1) {
      io.reset(OP.READ, (i % 100) * 4096, 4096, 0);
      io.segments.push(region, 0, 4096);
      io.push(owner);
      device.submit(io);
    }
  };
  run();
  run();
  let grown = -Infinity;
  for (let i = 0; i < 3; i += 1) {
    const before = process.memoryUsage().heapUsed;
    run();
    grown = Math.max(grown, process.memoryUsage().heapUsed - before);
  }
  assert.ok(grown < 500_000, `the heap grew by ${grown} bytes in 20000 reads`);
  trace.close();
});

test('a closed device is closed', async () => {
  const disks = openStateDisks(open(new TraceBuilder().trace()), false);
  disks.shown.show({ cut: 0, rule: { kind: 'all' } });
  const device = disks.devices[0];
  assert.ok(device !== undefined);
  await disks.close();
  await assert.rejects(perform(device, OP.FLUSH, 0, 0), { code: 'ESHUTDOWN' });
});

conformance(
  'state device',
  async () => {
    const trace = randomTrace(31);
    const disks = openStateDisks(open(trace), false);
    disks.shown.show({ cut: 0, rule: { kind: 'all' } });
    const [, device] = disks.devices;
    assert.ok(device !== undefined);
    return {
      device,
      dispose: async () => {
        await disks.close();
        trace.close();
      },
    };
  },
  { atomicBlocks: true },
);
