import assert from 'node:assert/strict';
import { discard, perform, read, write, writeZeroes } from '../await.ts';
import { EXTENT } from '../extents.ts';
import { FLAG, OP } from '../io.ts';
import { MAX_EXTENTS } from '../limits.ts';
import { advisory, mapRange, ModelDisk, readAll } from './model.ts';
import { assertBytes, check, codeOf, makeIo, pattern, submit, type Suite } from './suite.ts';

/** DISCARD, WRITE_ZEROES, CACHE and EXTENTS. */
export function zeroesTests(suite: Suite): void {
  zeroTests(suite);
  discardTests(suite);
  extentTests(suite);
}

function zeroTests(suite: Suite): void {
  for (const flags of [0, FLAG.NO_HOLE, FLAG.FUA, FLAG.NO_HOLE | FLAG.FUA]) {
    check(suite, `WRITE_ZEROES makes zeroes (flags ${flags})`, async ({ device }) => {
      const model = await ModelDisk.open(device, 0, 64);
      await model.apply({ op: 'WRITE', block: 0, blocks: 64, flags: 0, tag: 1 });
      await model.apply({ op: 'WRITE_ZEROES', block: 1, blocks: 1, flags, tag: 0 });
      await model.apply({ op: 'WRITE_ZEROES', block: 8, blocks: 40, flags, tag: 0 });
      await model.apply({ op: 'EXTENTS', block: 0, blocks: 64, flags: 0, tag: 0 });
      await model.verify();
      await model.apply({ op: 'WRITE', block: 10, blocks: 2, flags: 0, tag: 2 });
      await model.verify();
    });
  }

  check(suite, 'WRITE_ZEROES may be longer than maxTransferBytes', async ({ device }) => {
    const { maxTransferBytes, sizeBytes, blockBytes } = device.info;
    const length = Math.min(sizeBytes, 2 * maxTransferBytes + blockBytes);
    await write(device, 0, pattern(blockBytes, 1));
    await write(device, length - blockBytes, pattern(blockBytes, 2));
    await writeZeroes(device, 0, length);
    const found = await readAll(device, 0, length);
    assert.ok(found.every((byte) => byte === 0));
  });

  check(
    suite,
    'WRITE_ZEROES with FAST is done or refused, and info says which',
    async ({ device }) => {
      const { blockBytes, fastZero } = device.info;
      const model = await ModelDisk.open(device, 0, 64);
      await model.apply({ op: 'WRITE', block: 0, blocks: 64, flags: 0, tag: 1 });
      const code = await codeOf(writeZeroes(device, 0, 16 * blockBytes, FLAG.FAST));
      assert.ok(code === 'EOPNOTSUPP' || (code === null && fastZero), `${code}, info ${fastZero}`);
      if (code === null) {
        const found = await read(device, 0, 16 * blockBytes);
        assert.ok(found.every((byte) => byte === 0));
      }
      await model.apply({ op: 'WRITE_ZEROES', block: 32, blocks: 8, flags: FLAG.FAST, tag: 0 });
    },
  );

  if (suite.traits.exactHoles !== true) return;
  check(suite, 'with NO_HOLE nothing becomes a hole', async ({ device }) => {
    const length = 64 * device.info.blockBytes;
    await writeZeroes(device, 0, length, FLAG.NO_HOLE);
    for (const extent of await mapRange(device, 0, length)) {
      assert.equal(extent.flags & EXTENT.HOLE, 0);
    }
  });
}

function discardTests(suite: Suite): void {
  check(suite, 'DISCARD leaves old data or zeroes, and its neighbours alone', async (opened) => {
    const { device } = opened;
    const model = await ModelDisk.open(device, 0, 128);
    await model.apply({ op: 'WRITE', block: 0, blocks: 128, flags: 0, tag: 3 });
    await model.apply({ op: 'DISCARD', block: 1, blocks: 1, flags: 0, tag: 0 });
    await model.apply({ op: 'DISCARD', block: 16, blocks: 64, flags: FLAG.FUA, tag: 0 });
    await model.verify();
    await model.apply({ op: 'EXTENTS', block: 0, blocks: 128, flags: 0, tag: 0 });
    await model.apply({ op: 'WRITE', block: 20, blocks: 8, flags: 0, tag: 4 });
    await model.verify();
  });

  check(suite, 'the whole disk can be discarded at once', async ({ device }) => {
    const { sizeBytes, blockBytes } = device.info;
    await write(device, 0, pattern(blockBytes, 1));
    const work = discard(device, 0, sizeBytes);
    if (device.info.discard) await work;
    else await advisory(work);
    const first = await read(device, 0, blockBytes);
    assertBytes(await read(device, 0, blockBytes), first, 'a second read after DISCARD');
  });

  check(suite, 'CACHE is a hint and changes nothing', async ({ device }) => {
    const { sizeBytes, blockBytes } = device.info;
    const bytes = pattern(8 * blockBytes, 6);
    await write(device, 0, bytes);
    await advisory(perform(device, OP.CACHE, 0, 8 * blockBytes));
    await advisory(perform(device, OP.CACHE, 0, Math.min(sizeBytes, 2 ** 30)));
    assertBytes(await read(device, 0, bytes.length), bytes, 'after CACHE');
  });
}

function extentTests(suite: Suite): void {
  check(suite, 'EXTENTS covers what was asked for and tells the truth', async ({ device }) => {
    const model = await ModelDisk.open(device, 0, 256);
    for (let block = 0; block < 256; block += 32) {
      await model.apply({ op: 'WRITE_ZEROES', block, blocks: 32, flags: 0, tag: 0 });
      await model.apply({ op: 'WRITE', block: block + 7, blocks: 9, flags: 0, tag: block });
    }
    for (const flags of [0, FLAG.ONE]) {
      for (const [block, blocks] of [
        [0, 256],
        [7, 1],
        [6, 2],
        [15, 40],
        [255, 1],
      ] as const) {
        await model.apply({ op: 'EXTENTS', block, blocks, flags, tag: 0 });
      }
    }
  });

  check(suite, 'EXTENTS of the whole disk goes on and ends at its end', async ({ device }) => {
    const { sizeBytes, blockBytes } = device.info;
    await write(device, sizeBytes - blockBytes, pattern(blockBytes, 1));
    const length = Math.min(sizeBytes, 2 ** 32);
    const found = await mapRange(device, sizeBytes - length, length);
    const last = found.at(-1);
    assert.ok(last !== undefined && (last.flags & (EXTENT.ZERO | EXTENT.HOLE)) === 0);
  });

  check(suite, 'EXTENTS answers at most MAX_EXTENTS, in an Io used before too', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    const io = makeIo(OP.EXTENTS, 0, 64 * blockBytes);
    assert.equal((await submit(device, io)).error, null);
    assert.ok(io.extents.count >= 1 && io.extents.count <= MAX_EXTENTS);
    io.reset(OP.EXTENTS, 0, blockBytes, FLAG.ONE);
    assert.equal((await submit(device, io)).error, null);
    assert.equal(io.extents.count, 1);
    assert.equal(io.extents.totalBytes, blockBytes);
  });
}
