import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { MiB } from '../../base/units.ts';
import { discard, flush, perform, read, write, writeZeroes } from '../../block/await.ts';
import { FLAG, Io, OP } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { openMemoryStore, type MemoryStore } from '../../stores/memory/memory-store.ts';
import { FaultLayer } from '../fault/fault-layer.ts';
import { CUT_MODELS, type CutModel } from './requests.ts';
import type { Survived } from './survivors.ts';
import { VolatileCache, type VolatileCacheOptions } from './volatile-cache.ts';

const UNIT = 512;
const CACHE_BYTES = 1 * MiB;

interface Rig {
  readonly store: MemoryStore;
  /** Between the layer and the store. */
  readonly faults: FaultLayer;
  readonly layer: VolatileCache;
}

function rig(options: Partial<VolatileCacheOptions> = {}, blockBytes: 512 | 4096 = 512): Rig {
  const store = openMemoryStore({ name: 'm', sizeBytes: 8 * MiB, blockBytes });
  const faults = new FaultLayer(store);
  return {
    store,
    faults,
    layer: new VolatileCache(faults, { cacheBytes: CACHE_BYTES, ...options }),
  };
}

function block(tag: number, units = 1): Uint8Array {
  return new Uint8Array(units * UNIT).fill(tag);
}

async function cut(layer: VolatileCache, seed: number, model: CutModel = 'M2'): Promise<Survived> {
  layer.cutPower();
  const survived = await layer.survive({ seed, model, offForMs: 0 });
  layer.powerOn();
  return survived;
}

/** The first byte of each unit, of the store itself. */
async function tags({ store }: Rig, units: number): Promise<string> {
  const bytes = await read(store, 0, units * UNIT);
  return Array.from({ length: units }, (_, i) => bytes[i * UNIT]).join(' ');
}

/** All that a scenario leaves over many seeds. */
async function allOf(
  model: CutModel,
  units: number,
  scenario: (made: Rig) => Promise<void>,
  seeds = 150,
): Promise<string[]> {
  const found = new Set<string>();
  for (let seed = 0; seed < seeds; seed += 1) {
    const made = rig();
    await scenario(made);
    await cut(made.layer, seed, model);
    found.add(await tags(made, units));
  }
  return [...found].toSorted();
}

async function threeWrites({ layer }: Rig): Promise<void> {
  for (let i = 0; i < 3; i += 1) await write(layer, i * UNIT, block(i + 1));
}

/** One FUA write is done, another of the same unit waits for the child's flush. */
async function fuaInFlight({ layer, faults }: Rig): Promise<void> {
  await write(layer, 0, block(1), FLAG.FUA);
  faults.add({ ops: ['FLUSH'], times: 1, effect: { kind: 'delay', ms: 0, after: true } });
  write(layer, 0, block(2), FLAG.FUA).catch(() => {});
}

test('nothing is lost without a cut: completed writes are read, and close brings them to the child', async () => {
  const { layer, store } = rig();
  let stored: Uint8Array = new Uint8Array(0);
  store.close = async () => {
    stored = await read(store, 0, 3 * UNIT);
  };
  await write(layer, 0, block(1, 2));
  await write(layer, UNIT, block(2));
  assert.deepEqual(await read(store, 0, 3 * UNIT), block(0, 3));
  assert.deepEqual(await read(layer, UNIT, UNIT), block(2));
  assert.equal(layer.unflushedBytes, 3 * UNIT);
  await layer.close();
  assert.deepEqual([stored[0], stored[UNIT], stored[2 * UNIT]], [1, 2, 0]);
});

test('three writes and a cut: all outcomes that the model allows, and no other', async () => {
  assert.deepEqual(await allOf('M0', 3, threeWrites), ['0 0 0', '1 0 0', '1 2 0', '1 2 3']);
  assert.equal((await allOf('M1', 3, threeWrites)).length, 8);
});

test('a rewritten unit is old, the first or the second', async () => {
  for (const model of CUT_MODELS) {
    const found = await allOf(model, 1, async ({ layer }) => {
      await write(layer, 0, block(1));
      await write(layer, 0, block(2));
    });
    assert.deepEqual(found, ['0', '1', '2'], model);
  }
});

test('what a flush covered is fixed, what came after it is not', async () => {
  const found = await allOf('M3', 2, async ({ layer }) => {
    await write(layer, 0, block(1));
    await write(layer, UNIT, block(1));
    await flush(layer);
    await write(layer, UNIT, block(2));
  });
  assert.deepEqual(found, ['1 1', '1 2']);
});

test('FUA makes its own units stable, and nothing else', async () => {
  const found = await allOf('M2', 2, async ({ layer }) => {
    await write(layer, 0, block(1));
    await write(layer, UNIT, block(2), FLAG.FUA);
  });
  assert.deepEqual(found, ['0 2', '1 2']);
});

test('a flush of a range makes that stable, and nothing else', async () => {
  const found = await allOf('M2', 3, async ({ layer }) => {
    await write(layer, 0, block(1, 3));
    await perform(layer, OP.FLUSH, UNIT, UNIT);
  });
  assert.deepEqual(found, ['0 1 0', '0 1 1', '1 1 0', '1 1 1']);
});

test('zeroes and discards are volatile too', async () => {
  const found = await allOf('M1', 4, async ({ layer }) => {
    await write(layer, 0, block(1, 4), FLAG.FUA);
    await writeZeroes(layer, 0, UNIT);
    await writeZeroes(layer, UNIT, UNIT, FLAG.NO_HOLE);
    await discard(layer, 2 * UNIT, UNIT);
  });
  assert.equal(found.length, 8);
  assert.ok(found.includes('0 0 0 1') && found.includes('1 1 1 1'));
});

test('a cut while a flush is under way may still lose all that it was to cover', async () => {
  for (const hang of ['FLUSH', 'WRITE'] as const) {
    const found = new Set<string>();
    for (let seed = 0; seed < 100; seed += 1) {
      const made = rig();
      const { layer, faults } = made;
      await write(layer, 0, block(9), FLAG.FUA);
      await write(layer, 0, block(1));
      await write(layer, UNIT, block(2));
      const fault = faults.add({ ops: [hang], effect: { kind: 'hang', after: true } });
      const outcome = flush(layer).then(
        () => 'done',
        () => 'failed',
      );
      await new Promise(setImmediate);
      assert.ok(fault.holding > 0, 'the flush is under way');
      layer.cutPower();
      const over = layer.survive({ seed, model: 'M2', offForMs: 0 });
      assert.equal(await Promise.race([outcome, soon()]), 'nothing', 'answered after the cut');
      faults.clear();
      await over;
      layer.powerOn();
      found.add(await tags(made, 2));
    }
    assert.deepEqual([...found].toSorted(), ['1 0', '1 2', '9 0', '9 2'], hang);
  }
});

test('a FUA write in flight may be old, new, or in M3 garbage', async () => {
  const outcomes = new Map<CutModel, Set<string>>();
  for (const model of ['M2', 'M3'] as const) {
    const found = new Set<string>();
    for (let seed = 0; seed < 60; seed += 1) {
      const store = openMemoryStore({ name: 'm', sizeBytes: 1 * MiB });
      const timers = { nowMs: () => 0, after: (_ms: number, go: () => void) => later(go) };
      const faults = new FaultLayer(store, { timers });
      const layer = new VolatileCache(faults, { cacheBytes: CACHE_BYTES });
      await fuaInFlight({ store, faults, layer });
      const { garbage } = await cut(layer, seed, model);
      found.add(garbage > 0 ? 'garbage' : await tags({ store, faults, layer }, 1));
    }
    outcomes.set(model, found);
  }
  assert.deepEqual([...(outcomes.get('M2') ?? [])].toSorted(), ['1', '2']);
  assert.deepEqual([...(outcomes.get('M3') ?? [])].toSorted(), ['1', '2', 'garbage']);
});

test('a full cache writes its oldest back, whole writes in order', async () => {
  const units = CACHE_BYTES / UNIT;
  for (const model of ['M0', 'M1'] as const) {
    const made = rig();
    // Each write has a neighbour that tears would show in, and there is twice the room that the cache has.
    for (let i = 0; i < units; i += 1)
      await write(made.layer, i * 2 * UNIT, block(1 + (i % 250), 2));
    assert.ok(made.layer.unflushedBytes <= CACHE_BYTES);
    const { writes, torn } = await cut(made.layer, 5, model);
    assert.ok(writes > 0 && writes < units);
    assert.equal(torn, 0);
    const bytes = await read(made.store, 0, 1 * MiB);
    const there = Array.from({ length: MiB / 2 / UNIT }, (_, i) => {
      assert.equal(bytes[i * 2 * UNIT], bytes[(i * 2 + 1) * UNIT], 'a torn write');
      return bytes[i * 2 * UNIT] !== 0;
    });
    assert.ok(there.lastIndexOf(true) >= 0);
    if (model === 'M0') assert.ok(!there.slice(0, there.lastIndexOf(true)).includes(false));
  }
});

test('long zeroes go straight to the child, behind all older writes and before all newer', async () => {
  const made = rig();
  await write(made.layer, 0, block(1, 4));
  await writeZeroes(made.layer, UNIT, 4 * MiB);
  await write(made.layer, 2 * UNIT, block(2));
  assert.equal(await tags(made, 4), '1 0 0 0');
  assert.deepEqual(await read(made.layer, 2 * UNIT, UNIT), block(2));
});

test('the same seed on the same state leaves the same, and says so', async () => {
  for (const model of CUT_MODELS) {
    const ends: string[] = [];
    for (let round = 0; round < 2; round += 1) {
      const made = rig();
      const prng = new Prng(11);
      for (let i = 0; i < 200; i += 1) {
        await write(made.layer, prng.below(100) * UNIT, block(1 + prng.below(255), 1 + (i % 4)));
      }
      const survived = await cut(made.layer, 42, model);
      ends.push(`${JSON.stringify(survived)} ${await tags(made, 110)}`);
    }
    assert.equal(ends[0], ends[1], model);
  }
});

test('tears are of 512 bytes also where the child has larger blocks', async () => {
  const made = rig({}, 4096);
  await write(made.layer, 0, block(1, 8), FLAG.FUA);
  await write(made.layer, 0, block(2, 8));
  const { kept, dropped } = await cut(made.layer, 8);
  const found = await tags(made, 8);
  assert.equal(found.replaceAll(/[^2]/g, '').length, kept);
  assert.ok(kept > 0 && dropped > 0, `seed 8 tears: ${found}`);
});

test('with the power off everything is refused, and nothing of before comes after', async () => {
  const { layer, store } = rig();
  await write(layer, 0, block(1));
  layer.cutPower();
  await assert.rejects(write(layer, 0, block(2)), { code: 'ESHUTDOWN' });
  await layer.survive({ seed: 1, model: 'M0', offForMs: 0 });
  await assert.rejects(flush(layer), { code: 'ESHUTDOWN' });
  layer.powerOn();
  const left = await read(store, 0, UNIT);
  assert.deepEqual(await read(layer, 0, UNIT), left);
  await write(layer, 0, block(3));
  await flush(layer);
  assert.deepEqual(await read(store, 0, UNIT), block(3));
});

test('a failed flush poisons; with keep the data are still there, with drop they are gone', async () => {
  for (const data of ['keep', 'drop'] as const) {
    const { layer, store } = rig();
    await write(layer, 0, block(1), FLAG.FUA);
    await write(layer, 0, block(2));
    layer.failFlush({ when: 'once', data });
    await assert.rejects(flush(layer), { code: 'EIO' });
    assert.equal(layer.domain.health, 'poisoned');
    await assert.rejects(flush(layer), { code: 'EIO' });
    await assert.rejects(write(layer, UNIT, block(3)), { code: 'EIO' });
    assert.deepEqual(await read(layer, 0, UNIT), block(data === 'keep' ? 2 : 1));
    layer.domain.resume();
    await flush(layer);
    assert.deepEqual(await read(store, 0, UNIT), block(data === 'keep' ? 2 : 1));
  }
});

test('every sync fails until it is taken back, FUA writes and flushes of a range among them', async () => {
  const { layer, store } = rig();
  layer.failFlush({ when: 'always', data: 'keep' });
  await assert.rejects(write(layer, 0, block(1), FLAG.FUA), { code: 'EIO' });
  layer.domain.resume();
  await write(layer, UNIT, block(2));
  await assert.rejects(perform(layer, OP.FLUSH, UNIT, UNIT), { code: 'EIO' });
  assert.equal(layer.domain.health, 'poisoned');
  layer.domain.resume();
  layer.failFlush({ when: 'never', data: 'keep' });
  await flush(layer);
  assert.deepEqual([...(await read(store, 0, 2 * UNIT))].slice(UNIT - 1, UNIT + 1), [1, 2]);
});

test('with the policy stop a failed flush waits for the operator, and is then done', async () => {
  const { layer, store } = rig({ domain: { policy: 'stop' } });
  await write(layer, 0, block(1));
  layer.failFlush({ when: 'once', data: 'keep' });
  const outcome = flush(layer).then(() => 'done');
  const ranged = perform(layer, OP.FLUSH, 0, UNIT).then(() => 'done');
  assert.equal(await Promise.race([outcome, ranged, soon()]), 'nothing');
  assert.equal(layer.domain.health, 'stopped');
  layer.domain.resume();
  assert.deepEqual(await Promise.all([outcome, ranged]), ['done', 'done']);
  assert.deepEqual(await read(store, 0, UNIT), block(1));
});

test('a sync that fails in the child fails here, and what it was to cover stays', async () => {
  const { layer, faults } = rig();
  await write(layer, 0, block(1));
  faults.add({ ops: ['FLUSH'], times: 1, effect: { kind: 'error', code: 'EIO' } });
  await assert.rejects(flush(layer), { code: 'EIO' });
  assert.equal(layer.domain.health, 'poisoned');
  assert.equal(layer.unflushedBytes, UNIT);
});

test('a child that takes no more fails those that wait for room, and close says what it could not do', async () => {
  const { layer, faults } = rig();
  const full = CACHE_BYTES / UNIT;
  await write(layer, 0, block(1, full));
  faults.add({ ops: ['WRITE'], effect: { kind: 'error', code: 'ENOSPC' } });
  await assert.rejects(write(layer, 4 * MiB, block(2)), { code: 'ENOSPC' });
  assert.deepEqual(await read(layer, 0, UNIT), block(1));
  await assert.rejects(layer.close(), { code: 'ENOSPC' });
});

test('a read sees what completed before it, whatever is written back meanwhile', async () => {
  const made = rig();
  const { layer, faults } = made;
  await write(layer, UNIT, block(1));
  // The child's part of the read is held up while the cache is emptied and the units change again.
  const fault = faults.add({ ops: ['READ'], times: 2, effect: { kind: 'hang', after: true } });
  const reading = read(layer, 0, 3 * UNIT);
  assert.equal(fault.holding, 2);
  await flush(layer);
  faults.clear();
  assert.deepEqual([...(await reading)].slice(UNIT, 2 * UNIT), [...block(1)]);
});

test('a steady load makes no objects of its own: the same request goes round', () => {
  const { layer } = rig();
  const io = new Io();
  const region = Region.plain(block(7, 8));
  const owner = { ioDone: () => {} };
  const submit = (offset: number, flags: number): void => {
    io.reset(OP.WRITE, offset, region.bytes.length, flags);
    io.segments.push(region, 0, region.bytes.length);
    io.push(owner);
    layer.submit(io);
    assert.equal(io.error, null);
  };
  const round = (): void => {
    for (let i = 0; i < 1000; i += 1) submit((i % 500) * 4096, i % 50 === 0 ? FLAG.FUA : 0);
  };
  for (let i = 0; i < 20; i += 1) round();
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 20; i += 1) round();
  assert.ok(process.memoryUsage().arrayBuffers - before < MiB, 'buffers were made');
});

function soon(): Promise<string> {
  return new Promise((resolve) => {
    setTimeout(() => resolve('nothing'), 5);
  });
}

function later(go: () => void): { cancel(): void } {
  const timer = setTimeout(go, 1);
  return { cancel: () => clearTimeout(timer) };
}
