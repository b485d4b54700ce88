import assert from 'node:assert/strict';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { extents, flush, perform, read, write, writeZeroes, discard } from '../await.ts';
import type { BlockDevice } from '../device.ts';
import { FLAG, Io, OP, type IoOwner } from '../io.ts';
import { MAX_DISK_BYTES, MAX_TRANSFER_BYTES } from '../limits.ts';
import { Region } from '../memory.ts';
import { advisory, mapRange } from './model.ts';
import {
  assertBytes,
  check,
  checkOn,
  codeOf,
  makeIo,
  pattern,
  settle,
  submit,
  type Suite,
} from './suite.ts';

/** Info, completion, memory ownership, close, and read-only devices. */
export function lifecycleTests(suite: Suite): void {
  infoTests(suite);
  completionTests(suite);
  closeTests(suite);
  readOnlyTests(suite);
}

function infoTests(suite: Suite): void {
  check(suite, 'info is frozen and makes sense', async ({ device }) => {
    const { info } = device;
    assert.ok(Object.isFrozen(info));
    assert.ok(info.name.length > 0 && !info.name.includes('\n'));
    for (const size of [info.blockBytes, info.preferredBytes, info.memoryAlignment]) {
      assert.ok(Number.isSafeInteger(size) && size > 0 && Number.isInteger(Math.log2(size)));
    }
    assert.ok(info.preferredBytes >= info.blockBytes);
    assert.ok(Number.isSafeInteger(info.sizeBytes) && info.sizeBytes <= MAX_DISK_BYTES);
    assert.equal(info.sizeBytes % info.blockBytes, 0);
    assert.ok(info.maxTransferBytes >= info.blockBytes);
    assert.ok(info.maxTransferBytes <= MAX_TRANSFER_BYTES);
    assert.equal(info.maxTransferBytes % info.blockBytes, 0);
    assert.ok(!info.readOnly, 'the suite was given a read-only device');
    assert.ok(info.fua === 'native' || info.fua === 'emulated');
    // Nothing is left to flush without a write cache, so nothing can be ignored.
    assert.ok(info.writeCache || !info.ignoresFlush);
  });
}

function completionTests(suite: Suite): void {
  check(suite, 'every request completes exactly once, as it was submitted', async (opened) => {
    const { device } = opened;
    const length = 4 * device.info.blockBytes;
    const counter = new Counter();
    const ios: Io[] = [];
    for (const op of Object.values(OP)) {
      for (let i = 0; i < 4; i += 1) {
        const size = op === OP.FLUSH ? 0 : length;
        const region = op === OP.READ || op === OP.WRITE ? opened.region(length) : undefined;
        const flags = op === OP.WRITE && i === 0 ? FLAG.FUA : 0;
        const io = makeIo(op, size === 0 ? 0 : i * length, size, flags, region);
        io.context = { op, offset: io.offset, length: size, flags, segments: io.segments.count };
        ios.push(io);
      }
    }
    for (const io of ios) {
      io.push(counter);
      device.submit(io);
    }
    await counter.reaches(ios.length);
    await settle();
    assert.equal(counter.count, ios.length);
    for (const io of ios) {
      assert.ok(!io.inFlight);
      const now = {
        op: io.op,
        offset: io.offset,
        length: io.length,
        flags: io.flags,
        segments: io.segments.count,
      };
      assert.deepEqual(now, io.context, 'a device changed the maker’s fields');
    }
  });

  check(suite, 'a request may be made from inside a completion', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    const io = makeIo(OP.WRITE, 0, blockBytes, 0, opened.region(blockBytes));
    let left = 200;
    await new Promise<void>((resolve) => {
      const owner: IoOwner = {
        ioDone(done) {
          left -= 1;
          if (left === 0 || done.error !== null) {
            letEventLoopRun();
            resolve();
            return;
          }
          done.push(owner);
          device.submit(done);
        },
      };
      io.push(owner);
      device.submit(io);
    });
    assert.equal(left, 0);
    assert.equal(io.error, null);
  });

  check(suite, 'memory is the maker’s again from completion on', async (opened) => {
    const { device } = opened;
    const length = 8 * device.info.blockBytes;
    for (const flags of [0, FLAG.FUA]) {
      const region = opened.region(length);
      region.bytes.set(pattern(length, 1));
      const out = makeIo(OP.WRITE, 0, length, flags, region);
      await submitThen(device, out, () => region.bytes.fill(0xdd));
      assert.equal(out.error, null);
      await settle();
      assertBytes(await read(device, 0, length), pattern(length, 1), 'scribbled after a write');
    }
    const region = opened.region(length);
    const back = makeIo(OP.READ, 0, length, 0, region);
    await submitThen(device, back, () => region.bytes.fill(0xdd));
    await settle();
    assert.ok(
      region.bytes.every((byte) => byte === 0xdd),
      'memory was written after READ completed',
    );
  });

  check(suite, 'a completed write is seen by every later read', async ({ device }) => {
    const { blockBytes } = device.info;
    for (let round = 1; round <= 20; round += 1) {
      await write(device, 0, pattern(blockBytes, round));
      const both = await Promise.all([read(device, 0, blockBytes), read(device, 0, blockBytes)]);
      for (const found of both) assertBytes(found, pattern(blockBytes, round), `round ${round}`);
    }
  });
}

function closeTests(suite: Suite): void {
  check(suite, 'close waits for what is in flight', async (opened) => {
    const { device } = opened;
    const length = 4 * device.info.blockBytes;
    const counter = new Counter();
    const ios: Io[] = [];
    for (let i = 0; i < 16; i += 1) {
      ios.push(
        makeIo(OP.WRITE, i * length, length, i % 4 === 0 ? FLAG.FUA : 0, opened.region(length)),
      );
      ios.push(makeIo(OP.READ, i * length, length, 0, opened.region(length)));
    }
    ios.push(makeIo(OP.FLUSH, 0, 0));
    for (const io of ios) {
      io.push(counter);
      device.submit(io);
    }
    await opened.close();
    assert.equal(counter.count, ios.length, 'close was done before the requests');
    for (const io of ios) assert.equal(io.error, null);
  });

  check(suite, 'after close every request fails with ESHUTDOWN', async (opened) => {
    const { device } = opened;
    const length = device.info.blockBytes;
    await write(device, 0, pattern(length, 1));
    await opened.close();
    for (const op of Object.values(OP)) {
      const data = op === OP.READ || op === OP.WRITE ? Region.plain(length) : undefined;
      const io = await submit(device, makeIo(op, 0, op === OP.FLUSH ? 0 : length, 0, data));
      assert.equal(io.error, 'ESHUTDOWN');
    }
  });
}

function readOnlyTests(suite: Suite): void {
  const { openReadOnly } = suite.traits;
  if (openReadOnly === undefined) return;

  checkOn(openReadOnly, 'a read-only device reads, maps and flushes', async ({ device }) => {
    const { blockBytes } = device.info;
    assert.ok(device.info.readOnly);
    const length = 16 * blockBytes;
    assertBytes(await read(device, 0, length), await read(device, 0, length), 'two reads');
    await flush(device);
    await advisory(perform(device, OP.CACHE, 0, length));
    await mapRange(device, 0, length);
    await extents(device, 0, length, FLAG.ONE);
  });

  checkOn(openReadOnly, 'a read-only device refuses every change with EROFS', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    const old = await read(device, 0, blockBytes);
    assert.equal(await codeOf(write(device, 0, pattern(blockBytes, 1))), 'EROFS');
    assert.equal(await codeOf(write(device, 0, pattern(blockBytes, 1), FLAG.FUA)), 'EROFS');
    assert.equal(await codeOf(writeZeroes(device, 0, blockBytes)), 'EROFS');
    assert.equal(await codeOf(discard(device, 0, blockBytes)), 'EROFS');
    assertBytes(await read(device, 0, blockBytes), old, 'after refused changes');
  });
}

/** Submits; `first` runs inside the completion, before anything else can. */
function submitThen(device: BlockDevice, io: Io, first: () => void): Promise<void> {
  return new Promise((resolve) => {
    io.push({
      ioDone() {
        first();
        letEventLoopRun();
        resolve();
      },
    });
    device.submit(io);
  });
}

class Counter implements IoOwner {
  count = 0;
  #goal = Infinity;
  #resolve: (() => void) | null = null;

  ioDone(): void {
    this.count += 1;
    if (this.count < this.#goal) return;
    letEventLoopRun();
    this.#resolve?.();
  }

  async reaches(goal: number): Promise<void> {
    if (this.count >= goal) return;
    this.#goal = goal;
    await new Promise<void>((resolve) => {
      this.#resolve = resolve;
    });
  }
}
