import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Timer, Timers } from '../../base/clock.ts';
import { discard, flush, perform, read, write, writeZeroes } from '../../block/await.ts';
import { conformance } from '../../block/conformance.ts';
import { FLAG, Io, OP } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { openMemoryStore, type MemoryStore } from '../../stores/memory/memory-store.ts';
import { FaultLayer } from './fault-layer.ts';
import type { FaultRule } from './rules.ts';

const BLOCK = 512;

conformance(
  'fault layer without rules over memory',
  async () => ({ device: new FaultLayer(memory()) }),
  {
    atomicBlocks: true,
    exactHoles: true,
    openReadOnly: async () => ({
      device: new FaultLayer(openMemoryStore({ name: 'm', sizeBytes: 1 << 20, readOnly: true })),
    }),
  },
);

conformance('two fault layers, all requests delayed or held up after the child', async () => {
  const delays = new FaultLayer(memory(), {
    timers: realTimers,
    rules: [{ probability: 0.5, effect: { kind: 'delay', ms: 0 } }],
  });
  const rules: FaultRule[] = [{ probability: 0.5, effect: { kind: 'delay', ms: 0, after: true } }];
  return { device: new FaultLayer(delays, { timers: realTimers, rules, seed: 2 }) };
});

test('an error before the child leaves the child alone, one after it does not', async () => {
  const { layer, store } = make();
  await write(store, 0, bytes(1));
  layer.add({ ops: ['WRITE'], times: 1, effect: { kind: 'error', code: 'ENOSPC' } });
  layer.add({ ops: ['WRITE'], times: 1, effect: { kind: 'error', code: 'EIO', after: true } });
  await assert.rejects(write(layer, 0, bytes(2)), { code: 'ENOSPC' });
  assert.deepEqual(await read(store, 0, BLOCK), bytes(1));
  await assert.rejects(write(layer, 0, bytes(3)), { code: 'EIO' });
  assert.deepEqual(await read(store, 0, BLOCK), bytes(3));
  await write(layer, 0, bytes(4));
  assert.deepEqual(await read(layer, 0, BLOCK), bytes(4));
});

test('skip and times pick requests by number, and the counters tell', async () => {
  const { layer } = make();
  const effect = { kind: 'error', code: 'EIO' } as const;
  const fault = layer.add({ ops: ['FLUSH'], skip: 2, times: 2, effect });
  const outcomes: boolean[] = [];
  for (let i = 0; i < 6; i += 1) outcomes.push(await succeeds(flush(layer)));
  assert.deepEqual(outcomes, [true, true, false, false, true, true]);
  assert.deepEqual([fault.matched, fault.fired], [6, 2]);
  assert.equal(layer.counts.FLUSH, 6);
  assert.equal(layer.counts.WRITE, 0);
});

test('range and fua pick requests by what they touch', async () => {
  const { layer } = make();
  const effect = { kind: 'error', code: 'EIO' } as const;
  layer.add({ range: { offset: 1024, length: 512 }, fua: true, effect });
  assert.ok(await succeeds(write(layer, 512, bytes(1), FLAG.FUA)));
  assert.ok(await succeeds(write(layer, 1536, bytes(1), FLAG.FUA)));
  assert.ok(await succeeds(write(layer, 1024, bytes(1))));
  assert.ok(!(await succeeds(write(layer, 1024, bytes(1), FLAG.FUA))));
  assert.ok(!(await succeeds(writeZeroes(layer, 0, 4096, FLAG.FUA))));
  assert.ok(await succeeds(flush(layer)));
});

test('probability follows the seed', async () => {
  const first = await outcomesOf(5);
  assert.equal(await outcomesOf(5), first);
  assert.notEqual(await outcomesOf(6), first);
  const failed = first.replaceAll('.', '').length;
  assert.ok(failed > 30 && failed < 90, `${failed} of 200 failed`);
});

test('a delay waits by the timers it was given, on either side of the child', async () => {
  for (const after of [false, true]) {
    const timers = new ManualTimers();
    const store = memory();
    const rules: FaultRule[] = [{ ops: ['WRITE'], effect: { kind: 'delay', ms: 30, after } }];
    const layer = new FaultLayer(store, { timers, rules });
    let done = false;
    const work = write(layer, 0, bytes(1)).then(() => {
      done = true;
    });
    timers.advance(29);
    await turn();
    assert.ok(!done);
    assert.equal((await read(store, 0, BLOCK))[0], after ? 1 : 0);
    timers.advance(1);
    await work;
    assert.equal((await read(store, 0, BLOCK))[0], 1);
  }
});

test('what hangs is held until released, and others pass it', async () => {
  const { layer } = make();
  const fault = layer.add({ ops: ['WRITE'], times: 1, effect: { kind: 'hang' } });
  const held = write(layer, 0, bytes(1));
  await write(layer, 0, bytes(2));
  await flush(layer);
  assert.equal(fault.holding, 1);
  assert.equal(layer.inFlight, 1);
  fault.release();
  await held;
  assert.equal(fault.holding, 0);
  assert.deepEqual(await read(layer, 0, BLOCK), bytes(1));
});

test('close lets go what hangs or is delayed, then refuses', async () => {
  const timers = new ManualTimers();
  const store = memory();
  const layer = new FaultLayer(store, { timers });
  layer.add({ ops: ['WRITE'], effect: { kind: 'hang' } });
  layer.add({ ops: ['READ'], effect: { kind: 'delay', ms: 1e6 } });
  layer.add({ ops: ['FLUSH'], effect: { kind: 'hang', after: true } });
  const works = [write(layer, 0, bytes(1)), read(layer, 0, BLOCK), flush(layer)];
  await layer.close();
  await Promise.all(works);
  assert.equal(layer.inFlight, 0);
  await assert.rejects(flush(layer), { code: 'ESHUTDOWN' });
  await assert.rejects(flush(store), { code: 'ESHUTDOWN' });
});

test('a lie answers FLUSH without doing it and takes FUA off, and only that', async () => {
  const inner = new FaultLayer(memory());
  const fuaSeen = inner.add({ fua: true, probability: 0, effect: { kind: 'lie' } });
  const layer = new FaultLayer(inner);
  const lie = layer.add({ effect: { kind: 'lie' } });
  await flush(layer);
  assert.equal(inner.counts.FLUSH, 0);
  const io = await perform(layer, OP.WRITE, 0, BLOCK, FLAG.FUA | FLAG.BARRIER, bytes(1));
  assert.equal(io.flags, FLAG.FUA | FLAG.BARRIER);
  assert.equal(fuaSeen.matched, 0);
  assert.deepEqual(await read(inner, 0, BLOCK), bytes(1));
  await write(layer, 0, bytes(2));
  assert.equal(lie.fired, 2);
  lie.remove();
  await flush(layer);
  await write(layer, 0, bytes(3), FLAG.FUA);
  assert.equal(inner.counts.FLUSH, 1);
  assert.equal(fuaSeen.matched, 1);
});

test('a dropped change is acknowledged and not done', async () => {
  const { layer, store } = make();
  await write(layer, 0, bytes(1));
  const fault = layer.add({ effect: { kind: 'drop' } });
  await write(layer, 0, bytes(2));
  await writeZeroes(layer, 0, BLOCK);
  await discard(layer, 0, BLOCK);
  assert.deepEqual(await read(layer, 0, BLOCK), bytes(1));
  assert.equal(fault.fired, 3);
  assert.equal(store.allocatedBytes, 65_536);
});

test('a torn write leaves a prefix of whole blocks, from any segments, and fails', async () => {
  const segment = fc.integer({ min: 1, max: 700 });
  await fc.assert(
    fc.asyncProperty(fc.array(segment), fc.nat({ max: 12 }), async (cuts, keep) => {
      const { layer, store } = make();
      await write(store, 0, new Uint8Array(8192).fill(9));
      const keepBytes = keep * BLOCK;
      layer.add({ effect: { kind: 'torn', code: 'EIO', keepBytes } });
      const io = new Io();
      io.reset(OP.WRITE, BLOCK, 10 * BLOCK, 0);
      const data = pushPieces(io, cuts);
      const error = await new Promise((resolve) => {
        io.push({ ioDone: (done) => resolve(done.error) });
        layer.submit(io);
      });
      assert.equal(error, 'EIO');
      const expected = new Uint8Array(8192).fill(9);
      expected.set(data.subarray(0, Math.min(keepBytes, data.length)), BLOCK);
      assert.deepEqual(await read(store, 0, 8192), expected);
    }),
    { numRuns: 60, seed: 3 },
  );
});

test('without keepBytes a write tears at a block that the seed picks', async () => {
  const found = new Set<number>();
  const { layer, store } = make();
  layer.add({ ops: ['WRITE'], effect: { kind: 'torn', code: 'EIO' } });
  for (let i = 0; i < 60; i += 1) {
    await writeZeroes(store, 0, 4096);
    await assert.rejects(write(layer, 0, new Uint8Array(4096).fill(1)), { code: 'EIO' });
    found.add((await read(store, 0, 4096)).filter((byte) => byte === 1).length / BLOCK);
  }
  assert.deepEqual(
    [...found].toSorted((a, b) => a - b),
    [0, 1, 2, 3, 4, 5, 6, 7, 8],
  );
});

test('rules that cannot do what they say are refused', () => {
  const { layer } = make();
  const refused: FaultRule[] = [
    { effect: { kind: 'delay', ms: 1 } },
    { probability: 1.5, effect: { kind: 'drop' } },
    { ops: [], effect: { kind: 'drop' } },
    { effect: { kind: 'torn', code: 'EIO', keepBytes: 100 } },
  ];
  for (const rule of refused) assert.throws(() => layer.add(rule), { name: 'AssertionError' });
});

/** 200 flushes, three of ten of which fail: '.' or 'x' for each. */
async function outcomesOf(seed: number): Promise<string> {
  const effect = { kind: 'error', code: 'EIO' } as const;
  const layer = new FaultLayer(memory(), { seed, rules: [{ probability: 0.3, effect }] });
  let outcomes = '';
  for (let i = 0; i < 200; i += 1) outcomes += (await succeeds(flush(layer))) ? '.' : 'x';
  return outcomes;
}

function memory(): MemoryStore {
  return openMemoryStore({ name: 'memory', sizeBytes: 1 << 20 });
}

function make(): { layer: FaultLayer; store: MemoryStore } {
  const store = memory();
  return { layer: new FaultLayer(store), store };
}

function bytes(value: number): Uint8Array {
  return new Uint8Array(BLOCK).fill(value);
}

async function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}

async function turn(): Promise<void> {
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** Fills an Io with segments of the given lengths, the last one taking what is left. Returns all bytes. */
function pushPieces(io: Io, cuts: readonly number[]): Uint8Array {
  const data = new Uint8Array(io.length).map((_, i) => 10 + (i % 200));
  for (let at = 0, i = 0; at < data.length; i += 1) {
    const take = Math.min(cuts[i] ?? data.length, data.length - at);
    const region = Region.plain(data.slice(at, at + take));
    io.segments.push(region, 0, take);
    at += take;
  }
  return data;
}

const realTimers: Timers = {
  nowMs: () => performance.now(),
  after(delayMs, callback): Timer {
    const timeout = setTimeout(callback, delayMs);
    return { cancel: () => clearTimeout(timeout) };
  },
};

class ManualTimers implements Timers {
  #now = 0;
  readonly #due = new Map<object, { at: number; callback: () => void }>();

  nowMs(): number {
    return this.#now;
  }

  after(delayMs: number, callback: () => void): Timer {
    const key = {};
    this.#due.set(key, { at: this.#now + delayMs, callback });
    return { cancel: () => this.#due.delete(key) };
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const [key, { at, callback }] of this.#due) {
      if (at > this.#now) continue;
      this.#due.delete(key);
      callback();
    }
  }
}
