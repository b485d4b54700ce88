import assert from 'node:assert/strict';
import { Prng } from '../../base/prng.ts';
import { discard, flush, read, write, writeZeroes } from '../await.ts';
import type { BlockDevice } from '../device.ts';
import { FLAG } from '../io.ts';
import { readAll, writeAll } from './model.ts';
import { assertBytes, check, codeOf, pattern, type Suite } from './suite.ts';

/** What FLUSH and FUA promise, checked by losing power; and that a failed sync is not forgotten. */
export function durabilityTests(suite: Suite): void {
  if (suite.traits.canCrash === true) {
    flushTests(suite);
    fuaTests(suite);
    crashTests(suite);
  }
  if (suite.traits.canFailSync === true) poisonTests(suite);
}

function flushTests(suite: Suite): void {
  check(suite, 'after FLUSH every completed write is stable', async (opened) => {
    const { blockBytes } = opened.device.info;
    const bytes = pattern(40 * blockBytes, 1);
    await writeAll(opened.device, 0, bytes);
    await flush(opened.device);
    const device = await opened.crash();
    assertBytes(await readAll(device, 0, bytes.length), bytes, 'after the crash');
  });

  for (let round = 0; round < 8; round += 1) {
    // What the multi-conn filter of nbdkit forgets: it clears its dirty flag when the first FLUSH ends.
    check(suite, `a FLUSH covers what completed during another (${round})`, async (opened) => {
      const { device } = opened;
      const { blockBytes } = device.info;
      await write(device, 0, pattern(blockBytes, 1));
      const first = flush(device);
      for (let i = 1; i <= round + 1; i += 1) {
        await write(device, i * blockBytes, pattern(blockBytes, 1 + i));
      }
      const second = flush(device);
      await (round % 2 === 0 ? second : Promise.all([first, second]));
      const after = await opened.crash();
      for (let i = 0; i <= round + 1; i += 1) {
        const found = await read(after, i * blockBytes, blockBytes);
        assertBytes(found, pattern(blockBytes, 1 + i), `write ${i}`);
      }
    });
  }

  check(suite, 'zeroes made by WRITE_ZEROES or DISCARD stay zeroes after FLUSH', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    await writeAll(device, 0, pattern(48 * blockBytes, 1));
    await flush(device);
    await writeZeroes(device, 0, 16 * blockBytes);
    await writeZeroes(device, 16 * blockBytes, 16 * blockBytes, FLAG.NO_HOLE);
    if (device.info.discard) await discard(device, 32 * blockBytes, 16 * blockBytes);
    const before = await readAll(device, 0, 48 * blockBytes);
    assert.ok(before.subarray(0, 32 * blockBytes).every((byte) => byte === 0));
    await flush(device);
    const after = await opened.crash();
    assertBytes(await readAll(after, 0, before.length), before, 'after the crash');
  });

  check(suite, 'BARRIER makes everything before it, and itself, stable', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    await write(device, 0, pattern(8 * blockBytes, 1));
    await write(device, 8 * blockBytes, pattern(blockBytes, 2), FLAG.BARRIER);
    const after = await opened.crash();
    assertBytes(await read(after, 0, 8 * blockBytes), pattern(8 * blockBytes, 1), 'before it');
    assertBytes(await read(after, 8 * blockBytes, blockBytes), pattern(blockBytes, 2), 'itself');
  });
}

function fuaTests(suite: Suite): void {
  // QEMU from 10.1 on loses this write with aio=threads (commit d402da1360).
  check(suite, 'a FUA write straight after a FLUSH is stable', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    await write(device, 0, pattern(blockBytes, 1));
    await flush(device);
    await write(device, 0, pattern(blockBytes, 2), FLAG.FUA);
    const after = await opened.crash();
    assertBytes(await read(after, 0, blockBytes), pattern(blockBytes, 2), 'the FUA write');
  });

  check(suite, 'WRITE_ZEROES and DISCARD with FUA are stable', async (opened) => {
    const { device } = opened;
    const { blockBytes } = device.info;
    await writeAll(device, 0, pattern(24 * blockBytes, 1));
    await flush(device);
    await writeZeroes(device, 0, 8 * blockBytes, FLAG.FUA);
    await writeZeroes(device, 8 * blockBytes, 8 * blockBytes, FLAG.FUA | FLAG.NO_HOLE);
    if (device.info.discard) await discard(device, 16 * blockBytes, 8 * blockBytes, FLAG.FUA);
    const before = await readAll(device, 0, 24 * blockBytes);
    const after = await opened.crash();
    assertBytes(await readAll(after, 0, before.length), before, 'after the crash');
  });
}

function crashTests(suite: Suite): void {
  const { seed = 1 } = suite.traits;
  for (let i = 0; i < 6; i += 1) {
    check(suite, `a crash in the midst of random requests (seed ${seed + i})`, async (opened) => {
      const { device } = opened;
      assert.ok(!device.info.ignoresFlush, 'a device that ignores FLUSH keeps no promise');
      const prng = new Prng(seed + i);
      const oracle = await Oracle.open(device);
      const workers = Array.from({ length: 8 }, () => oracle.work(prng, 40));
      // Some of the requests are in flight when the power goes.
      await Promise.all(workers.slice(0, 2));
      oracle.stop();
      const after = await opened.crash();
      await oracle.verify(after);
    });
  }
}

function poisonTests(suite: Suite): void {
  check(suite, 'a failed sync is not forgotten: FLUSH and FUA go on failing', async (opened) => {
    const { device, target } = opened;
    const { blockBytes } = device.info;
    assert.ok(target.failNextSync !== undefined);
    await write(device, 0, pattern(blockBytes, 1));
    await flush(device);
    await write(device, 0, pattern(blockBytes, 2));
    target.failNextSync();
    assert.equal(await codeOf(flush(device)), 'EIO');
    assert.equal(await codeOf(flush(device)), 'EIO', 'the second FLUSH forgot the failure');
    assert.equal(await codeOf(write(device, 0, pattern(blockBytes, 3), FLAG.FUA)), 'EIO');
    await read(device, 0, blockBytes);
  });
}

const WINDOW_BLOCKS = 64;

/**
 * What each block may hold after a crash: any content given to it since the last that was promised to be stable. No two
 * requests in flight touch the same block, so the contents of a block have an order.
 */
class Oracle {
  readonly #device: BlockDevice;
  /** Per block, all contents in order. */
  readonly #history: Uint8Array[][] = [];
  /** Per block, the place in its history that is promised: nothing older may come back. */
  readonly #stable: number[] = [];
  /** Per block, the place of the latest completed change. */
  readonly #completed: number[] = [];
  readonly #busy: boolean[] = [];
  #tag = 0;
  #stopped = false;

  private constructor(device: BlockDevice) {
    this.#device = device;
  }

  static async open(device: BlockDevice): Promise<Oracle> {
    const oracle = new Oracle(device);
    const { blockBytes } = device.info;
    const bytes = await readAll(device, 0, WINDOW_BLOCKS * blockBytes);
    await flush(device);
    for (let block = 0; block < WINDOW_BLOCKS; block += 1) {
      oracle.#history.push([bytes.slice(block * blockBytes, (block + 1) * blockBytes)]);
      oracle.#stable.push(0);
      oracle.#completed.push(0);
      oracle.#busy.push(false);
    }
    return oracle;
  }

  /** Nothing that completes from now on is believed: the power is gone. */
  stop(): void {
    this.#stopped = true;
  }

  /** Makes random requests, one after the other, until there were `count` or the power goes. */
  async work(prng: Prng, count: number): Promise<void> {
    for (let i = 0; i < count && !this.#stopped; i += 1) {
      if (prng.chance(0.06)) await this.#flush();
      else await this.#change(prng);
    }
  }

  async verify(device: BlockDevice): Promise<void> {
    const { blockBytes } = device.info;
    const found = await readAll(device, 0, WINDOW_BLOCKS * blockBytes);
    for (let block = 0; block < WINDOW_BLOCKS; block += 1) {
      const bytes = found.subarray(block * blockBytes, (block + 1) * blockBytes);
      const allowed = (this.#history[block] as Uint8Array[]).slice(this.#stable[block]);
      assert.ok(
        allowed.some((content) => Buffer.compare(content, bytes) === 0),
        `block ${block} lost what was promised to be stable`,
      );
    }
  }

  async #flush(): Promise<void> {
    const covered = [...this.#completed];
    if ((await codeOf(flush(this.#device))) !== null || this.#stopped) return;
    for (const [block, place] of covered.entries()) this.#promise(block, place);
  }

  async #change(prng: Prng): Promise<void> {
    const block = prng.below(WINDOW_BLOCKS);
    const wanted = Math.min(1 + prng.below(6), WINDOW_BLOCKS - block);
    let blocks = 0;
    while (blocks < wanted && !(this.#busy[block + blocks] as boolean)) blocks += 1;
    if (blocks === 0) return;
    const { blockBytes, writeCache } = this.#device.info;
    const fua = prng.chance(0.25) ? FLAG.FUA : 0;
    const zero = prng.chance(0.25);
    this.#tag += 1;
    const bytes = zero
      ? new Uint8Array(blocks * blockBytes)
      : pattern(blocks * blockBytes, this.#tag);
    const places: number[] = [];
    for (let i = 0; i < blocks; i += 1) {
      const history = this.#history[block + i] as Uint8Array[];
      history.push(bytes.slice(i * blockBytes, (i + 1) * blockBytes));
      places.push(history.length - 1);
      this.#busy[block + i] = true;
    }
    const work = zero
      ? writeZeroes(this.#device, block * blockBytes, bytes.length, fua)
      : write(this.#device, block * blockBytes, bytes, fua);
    if ((await codeOf(work)) !== null || this.#stopped) return;
    for (const [i, place] of places.entries()) {
      this.#completed[block + i] = place;
      this.#busy[block + i] = false;
      if (fua !== 0 || !writeCache) this.#promise(block + i, place);
    }
  }

  #promise(block: number, place: number): void {
    this.#stable[block] = Math.max(this.#stable[block] as number, place);
  }
}
