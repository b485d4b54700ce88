import assert from 'node:assert/strict';
import { Prng } from '../../base/prng.ts';
import { flush, read, write, writeZeroes, discard, extents } from '../await.ts';
import { FLAG, Io, OP } from '../io.ts';
import { ModelDisk, randomStep, readAll } from './model.ts';
import {
  assertBytes,
  check,
  codeOf,
  makeIo,
  pattern,
  segmentBytes,
  submit,
  type Opened,
  type Suite,
} from './suite.ts';

/** READ and WRITE: ranges, sizes, memory, overlap, and random requests against the model. */
export function transferTests(suite: Suite): void {
  rangeTests(suite);
  sizeTests(suite);
  segmentTests(suite);
  overlapTests(suite);
  randomTests(suite);
}

function rangeTests(suite: Suite): void {
  check(suite, 'a request beyond the end is refused', async ({ device }) => {
    const { sizeBytes, blockBytes } = device.info;
    const last = sizeBytes - blockBytes;
    const two = new Uint8Array(2 * blockBytes);
    assert.equal(await codeOf(read(device, last, two.length)), 'EINVAL');
    assert.equal(await codeOf(write(device, last, two)), 'ENOSPC');
    assert.equal(await codeOf(writeZeroes(device, last, two.length)), 'ENOSPC');
    assert.equal(await codeOf(discard(device, last, two.length)), 'EINVAL');
    assert.equal(await codeOf(extents(device, last, two.length)), 'EINVAL');
    assert.equal(await codeOf(read(device, sizeBytes, blockBytes)), 'EINVAL');
  });

  check(suite, 'a request that is not whole blocks is refused', async ({ device }) => {
    const { blockBytes } = device.info;
    if (blockBytes === 1) return;
    const half = blockBytes / 2;
    const old = await read(device, 0, 2 * blockBytes);
    assert.equal(await codeOf(read(device, half, blockBytes)), 'EINVAL');
    assert.equal(await codeOf(read(device, 0, half)), 'EINVAL');
    assert.equal(await codeOf(write(device, half, pattern(blockBytes, 1))), 'EINVAL');
    assert.equal(await codeOf(write(device, 0, pattern(half, 1))), 'EINVAL');
    assert.equal(await codeOf(writeZeroes(device, half, blockBytes)), 'EINVAL');
    assertBytes(await read(device, 0, 2 * blockBytes), old, 'after refused writes');
  });

  check(suite, 'the first and the last block are written and read', async ({ device }) => {
    const { sizeBytes, blockBytes } = device.info;
    const last = sizeBytes - blockBytes;
    await write(device, 0, pattern(blockBytes, 1));
    await write(device, last, pattern(blockBytes, 2));
    assertBytes(await read(device, 0, blockBytes), pattern(blockBytes, 1), 'the first block');
    assertBytes(await read(device, last, blockBytes), pattern(blockBytes, 2), 'the last block');
  });

  check(suite, 'a write changes its own blocks only', async ({ device }) => {
    const { blockBytes } = device.info;
    await write(device, 0, pattern(3 * blockBytes, 1));
    await write(device, blockBytes, pattern(blockBytes, 2));
    const expected = pattern(3 * blockBytes, 1);
    expected.set(pattern(blockBytes, 2), blockBytes);
    assertBytes(await read(device, 0, 3 * blockBytes), expected, 'three blocks');
  });

  check(suite, 'requests of length zero succeed and change nothing', async ({ device }) => {
    const { blockBytes, sizeBytes } = device.info;
    await write(device, 0, pattern(blockBytes, 1));
    for (const offset of [0, sizeBytes]) {
      await read(device, offset, 0);
      await write(device, offset, new Uint8Array(0));
      await write(device, offset, new Uint8Array(0), FLAG.FUA);
      await writeZeroes(device, offset, 0);
      if (device.info.discard) await discard(device, offset, 0);
    }
    assertBytes(await read(device, 0, blockBytes), pattern(blockBytes, 1), 'the first block');
  });
}

function sizeTests(suite: Suite): void {
  check(suite, 'READ fills every byte', async (opened) => {
    const { device } = opened;
    const length = 16 * device.info.blockBytes;
    await write(device, 0, pattern(length / 2, 1));
    const region = opened.region(length);
    const reads: Uint8Array[] = [];
    for (const filler of [0x55, 0xaa]) {
      region.bytes.fill(filler);
      const io = await submit(device, makeIo(OP.READ, 0, length, 0, region));
      assert.equal(io.error, null);
      reads.push(region.bytes.slice());
    }
    const [first, second] = reads as [Uint8Array, Uint8Array];
    assertBytes(first, second, 'two reads into differently filled memory');
    assertBytes(first.subarray(0, length / 2), pattern(length / 2, 1), 'what was written');
  });

  check(suite, 'one request moves maxTransferBytes, and not more', async ({ device }) => {
    const { maxTransferBytes, sizeBytes, blockBytes } = device.info;
    const length = Math.min(maxTransferBytes, sizeBytes);
    const bytes = pattern(length, 5);
    await write(device, sizeBytes - length, bytes);
    assertBytes(await read(device, sizeBytes - length, length), bytes, 'the largest transfer');
    const more = maxTransferBytes + blockBytes;
    assert.equal(await codeOf(read(device, 0, more)), 'EINVAL');
    assert.equal(await codeOf(write(device, 0, new Uint8Array(more))), 'EINVAL');
  });

  check(suite, 'transfers of every size up to 40 blocks arrive whole', async ({ device }) => {
    const { blockBytes, maxTransferBytes } = device.info;
    const model = await ModelDisk.open(device, 0, 64);
    const most = Math.min(40, maxTransferBytes / blockBytes);
    for (let blocks = 1; blocks <= most; blocks += 1) {
      const block = (blocks * 5) % (64 - blocks);
      await model.apply({ op: 'WRITE', block, blocks, flags: 0, tag: blocks });
      await model.apply({ op: 'READ', block, blocks, flags: 0, tag: 0 });
    }
    await model.verify();
  });

  check(suite, 'a write with FUA, and a FLUSH, succeed and change nothing else', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    await write(device, 0, pattern(4 * blockBytes, 1));
    await write(device, blockBytes, pattern(blockBytes, 2), FLAG.FUA);
    await flush(device);
    await flush(device);
    await write(device, 2 * blockBytes, pattern(blockBytes, 3), FLAG.BARRIER);
    const expected = pattern(4 * blockBytes, 1);
    expected.set(pattern(blockBytes, 2), blockBytes);
    expected.set(pattern(blockBytes, 3), 2 * blockBytes);
    assertBytes(await read(device, 0, 4 * blockBytes), expected, 'four blocks');
  });
}

function segmentTests(suite: Suite): void {
  check(suite, 'data may lie in many segments of any length and alignment', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    const prng = new Prng(suite.traits.seed ?? 1);
    for (let round = 0; round < 12; round += 1) {
      const length = Math.min((1 + prng.below(24)) * blockBytes, device.info.maxTransferBytes);
      const offset = prng.below(64) * blockBytes;
      const bytes = pattern(length, round);
      const out = scatter(opened, OP.WRITE, offset, length, prng);
      out.segments.copyFrom(bytes);
      assert.equal((await submit(device, out)).error, null);
      const back = scatter(opened, OP.READ, offset, length, prng);
      const guards = back.segments.regions.map((region) => region.bytes);
      for (const guard of guards) guard.fill(0xee);
      assert.equal((await submit(device, back)).error, null);
      assertBytes(segmentBytes(back.segments), bytes, `round ${round}`);
      back.segments.fill(0xee);
      for (const guard of guards) {
        assert.ok(
          guard.every((byte) => byte === 0xee),
          'memory beside a segment was written',
        );
      }
    }
  });

  check(suite, 'aligned memory works too', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    const length = Math.min(device.info.maxTransferBytes, 32 * blockBytes);
    const region = opened.region(length);
    region.bytes.set(pattern(length, 9));
    const out = await submit(device, makeIo(OP.WRITE, 0, length, 0, region));
    assert.equal(out.error, null);
    region.bytes.fill(0);
    const back = await submit(device, makeIo(OP.READ, 0, length, 0, region));
    assert.equal(back.error, null);
    assertBytes(region.bytes, pattern(length, 9), 'an aligned transfer');
  });
}

/** An Io of `length` bytes in segments of odd lengths, each with a gap before and after it. */
function scatter(
  opened: Opened,
  op: typeof OP.READ | typeof OP.WRITE,
  offset: number,
  length: number,
  prng: Prng,
): Io {
  const io = new Io();
  io.reset(op, offset, length, 0);
  for (let left = length; left > 0;) {
    const take = Math.min(left, prng.pick([1, 3, 511, 512, 513, 1000, 4096, 5000]));
    const start = prng.below(17);
    io.segments.push(opened.region(start + take + 5), start, take);
    left -= take;
  }
  return io;
}

function overlapTests(suite: Suite): void {
  check(suite, 'of overlapping writes each block holds one, whole', async ({ device }) => {
    const { blockBytes } = device.info;
    for (let round = 0; round < 6; round += 1) {
      const writes = Array.from({ length: 8 }, (_, i) =>
        write(device, (i % 4) * blockBytes, solid(8 * blockBytes, 1 + i)),
      );
      await Promise.all(writes);
      const found = await read(device, 0, 11 * blockBytes);
      for (let block = 0; block < 11; block += 1) {
        const value = found[block * blockBytes] as number;
        assert.ok(uniform(found, block, blockBytes), `block ${block} is a mixture`);
        // Write i covers blocks i % 4 to i % 4 + 7.
        const first = (value - 1) % 4;
        assert.ok(value >= 1 && value <= 8 && block >= first && block < first + 8);
      }
    }
  });

  check(suite, 'a read that overlaps writes sees old or new', async ({ device }) => {
    const { blockBytes } = device.info;
    const length = 8 * blockBytes;
    await write(device, 0, solid(length, 1));
    for (let value = 2; value < 20; value += 1) {
      const work = write(device, 0, solid(length, value));
      const reads = [read(device, 0, length), read(device, 0, length)];
      await work;
      for (const found of await Promise.all(reads)) {
        assert.ok(found.every((byte) => byte === value || byte === value - 1));
        if (suite.traits.atomicBlocks !== true) continue;
        for (let block = 0; block < 8; block += 1) assert.ok(uniform(found, block, blockBytes));
      }
    }
  });
}

function solid(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function uniform(bytes: Uint8Array, block: number, blockBytes: number): boolean {
  const part = bytes.subarray(block * blockBytes, (block + 1) * blockBytes);
  return part.every((byte) => byte === part[0]);
}

function randomTests(suite: Suite): void {
  const { seed = 1, steps = 200 } = suite.traits;

  check(suite, `random requests agree with the model (seed ${seed})`, async ({ device }) => {
    const prng = new Prng(seed);
    const { blockBytes, sizeBytes } = device.info;
    const atEnd = sizeBytes - 64 * blockBytes;
    const models = [await ModelDisk.open(device, 0, 64), await ModelDisk.open(device, atEnd, 64)];
    for (let i = 0; i < steps; i += 1) await prng.pick(models).apply(randomStep(prng, 64));
    for (const model of models) await model.verify();
  });

  check(suite, `so do many in flight at once (seed ${seed})`, async ({ device }) => {
    const prng = new Prng(seed + 1);
    const { blockBytes } = device.info;
    // Sixteen neighbours of 16 blocks, so that requests share pages and never a block.
    const models: ModelDisk[] = [];
    for (let i = 0; i < 16; i += 1) {
      models.push(await ModelDisk.open(device, i * 16 * blockBytes, 16));
    }
    const plans = models.map(() =>
      Array.from({ length: Math.ceil(steps / 8) }, () => randomStep(prng, 16)),
    );
    await Promise.all(
      models.map(async (model, i) => {
        for (const step of plans[i] ?? []) await model.apply(step);
      }),
    );
    for (const model of models) await model.verify();
    const whole = await readAll(device, 0, 256 * blockBytes);
    const expected = Buffer.concat(models.map((model) => model.bytes));
    assertBytes(whole, expected, 'all windows in one');
  });
}
