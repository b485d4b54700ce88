import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { discard, extents, read, write, writeZeroes } from '../../block/await.ts';
import { conformance, ModelDisk, type Step } from '../../block/conformance.ts';
import { FLAG, Io, OP } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { PAGE_BYTES } from './limits.ts';
import { openMemoryStore } from './memory-store.ts';

for (const blockBytes of [512, 4096] as const) {
  conformance(
    `memory store, blocks of ${blockBytes}`,
    async () => ({ device: openMemoryStore({ name: 'memory', sizeBytes: 4 << 20, blockBytes }) }),
    {
      atomicBlocks: true,
      exactHoles: true,
      openReadOnly: async () => ({
        device: openMemoryStore({ name: 'm', sizeBytes: 4 << 20, blockBytes, readOnly: true }),
      }),
    },
  );
}

conformance('memory store of an odd size', async () => ({
  device: openMemoryStore({ name: 'memory', sizeBytes: (1 << 20) + 512 }),
}));

const step: fc.Arbitrary<Step> = fc
  .record({
    op: fc.constantFrom(...(Object.keys(OP) as (keyof typeof OP)[])),
    block: fc.nat({ max: 255 }),
    blocks: fc.nat({ max: 200 }),
    flags: fc.nat({ max: 15 }),
    tag: fc.nat({ max: 1000 }),
  })
  .map((made) => ({ ...made, blocks: Math.min(made.blocks, 256 - made.block) }));

test('any sequence of requests agrees with the model, across page borders', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const device = openMemoryStore({ name: 'memory', sizeBytes: 4 * PAGE_BYTES });
      // 256 blocks of 512 bytes, with two page borders in them.
      const model = await ModelDisk.open(device, PAGE_BYTES / 2, 256);
      for (const one of steps) await model.apply(one);
      await model.verify();
    }),
    { numRuns: 150, seed: 20 },
  );
});

test('memory is taken page by page and given back', async () => {
  const store = openMemoryStore({ name: 'memory', sizeBytes: 2 ** 50 });
  assert.equal(store.allocatedBytes, 0);
  await write(store, 2 ** 49, new Uint8Array(512).fill(1));
  await write(store, 2 ** 50 - 512, new Uint8Array(512).fill(2));
  assert.equal(store.allocatedBytes, 2 * PAGE_BYTES);
  await discard(store, 2 ** 49, PAGE_BYTES);
  assert.equal(store.allocatedBytes, PAGE_BYTES);
  await writeZeroes(store, 0, 2 ** 50);
  assert.equal(store.allocatedBytes, 0);
  await writeZeroes(store, 0, PAGE_BYTES + 512, FLAG.NO_HOLE);
  assert.equal(store.allocatedBytes, 2 * PAGE_BYTES);
  await store.close();
  assert.equal(store.allocatedBytes, 0);
});

test('a part of a page is zeroed without giving the page back', async () => {
  const store = openMemoryStore({ name: 'memory', sizeBytes: 1 << 20 });
  await write(store, 0, new Uint8Array(PAGE_BYTES).fill(7));
  await discard(store, 512, PAGE_BYTES - 1024);
  assert.equal(store.allocatedBytes, PAGE_BYTES);
  const bytes = await read(store, 0, PAGE_BYTES);
  assert.equal(bytes.indexOf(0), 512);
  assert.equal(bytes.lastIndexOf(0), PAGE_BYTES - 513);
});

test('the map of a huge disk is short, not wrong', async () => {
  const store = openMemoryStore({ name: 'memory', sizeBytes: 2 ** 50 });
  const found = await extents(store, 0, 2 ** 50);
  assert.equal(found.count, 1);
  assert.equal(found.totalBytes, 65_536 * PAGE_BYTES);
});

test('FAST is refused where it would be as slow as writing', async () => {
  const store = openMemoryStore({ name: 'memory', sizeBytes: 1 << 20 });
  await writeZeroes(store, 0, 1 << 20, FLAG.FAST);
  await assert.rejects(writeZeroes(store, 0, 512, FLAG.FAST | FLAG.NO_HOLE), {
    code: 'EOPNOTSUPP',
  });
});

test('sizes that no disk can have are refused', () => {
  const refused = [0, -512, 511, 513, 1.5, NaN, Infinity, 2 ** 50 + 512];
  for (const sizeBytes of refused) {
    assert.throws(() => openMemoryStore({ name: 'm', sizeBytes }), { name: 'ConfigError' });
  }
  assert.throws(() => openMemoryStore({ name: 'm', sizeBytes: 512, blockBytes: 4096 }), {
    name: 'ConfigError',
  });
});

test('requests on pages that exist allocate nothing', () => {
  const store = openMemoryStore({ name: 'memory', sizeBytes: 1 << 20 });
  const region = Region.plain(8192);
  const io = new Io();
  const owner = { ioDone(): void {} };
  const run = (): void => {
    for (let i = 0; i < 20_000; i += 1) {
      io.reset(i % 2 === 0 ? OP.WRITE : OP.READ, (i % 200) * 4096, 4096, 0);
      io.segments.push(region, 512, 1024);
      io.segments.push(region, 4096, 3072);
      io.push(owner);
      store.submit(io);
    }
  };
  run();
  run();
  // A request that allocated one view would show as several megabytes. A collection in between hides it: take the most.
  let grown = -Infinity;
  for (let i = 0; i < 3; i += 1) {
    const before = process.memoryUsage().heapUsed;
    run();
    grown = Math.max(grown, process.memoryUsage().heapUsed - before);
  }
  assert.ok(grown < 500_000, `the heap grew by ${grown} bytes in 20000 requests`);
});
