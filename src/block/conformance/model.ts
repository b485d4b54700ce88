import assert from 'node:assert/strict';
import { Prng } from '../../base/prng.ts';
import { discard, extents, flush, perform, read, write, writeZeroes } from '../await.ts';
import type { BlockDevice } from '../device.ts';
import { EXTENT } from '../extents.ts';
import { FLAG, OP } from '../io.ts';
import { assertBytes, codeOf, pattern } from './suite.ts';

/** One request in a random test: block numbers count from the start of the model's window. */
export interface Step {
  readonly op: keyof typeof OP;
  readonly block: number;
  readonly blocks: number;
  /** FLAG bits; those that the op does not know are taken off. */
  readonly flags: number;
  /** What a WRITE writes. */
  readonly tag: number;
}

const KNOWN_FLAGS: Readonly<Record<keyof typeof OP, number>> = {
  READ: 0,
  WRITE: FLAG.FUA,
  FLUSH: 0,
  DISCARD: FLAG.FUA,
  WRITE_ZEROES: FLAG.FUA | FLAG.NO_HOLE | FLAG.FAST,
  CACHE: 0,
  EXTENTS: FLAG.ONE,
};

/** A window of a device, and beside it what it must hold. Each step is done on both and compared. */
export class ModelDisk {
  readonly device: BlockDevice;
  /** Where the window starts on the device, in bytes. */
  readonly start: number;
  /** What the window must hold. */
  readonly bytes: Uint8Array;
  /** Blocks whose latest change was a WRITE: they cannot be holes. */
  readonly #written: boolean[];

  private constructor(device: BlockDevice, start: number, bytes: Uint8Array) {
    this.device = device;
    this.start = start;
    this.bytes = bytes;
    this.#written = Array.from({ length: bytes.length / device.info.blockBytes }, () => false);
  }

  /** Reads the window as it is. */
  static async open(device: BlockDevice, start: number, blocks: number): Promise<ModelDisk> {
    const bytes = await readAll(device, start, blocks * device.info.blockBytes);
    return new ModelDisk(device, start, bytes);
  }

  /** Does one step. Steps on ranges that do not overlap can be done at once. */
  async apply(step: Step): Promise<void> {
    const { device } = this;
    const { blockBytes } = device.info;
    const at = step.block * blockBytes;
    const length = Math.min(step.blocks * blockBytes, device.info.maxTransferBytes);
    const offset = this.start + at;
    const flags = step.flags & KNOWN_FLAGS[step.op];
    switch (step.op) {
      case 'READ':
        assertBytes(await read(device, offset, length), this.#part(at, length), describe(step));
        return;
      case 'WRITE': {
        const bytes = pattern(length, step.tag);
        await write(device, offset, bytes, flags);
        this.bytes.set(bytes, at);
        this.#mark(step.block, length / blockBytes, true);
        return;
      }
      case 'FLUSH':
        await flush(device);
        return;
      case 'DISCARD':
        await this.#discard(step, at, length, flags);
        return;
      case 'WRITE_ZEROES':
        await this.#zero(step, at, length, flags);
        return;
      case 'CACHE':
        await advisory(perform(device, OP.CACHE, offset, length));
        return;
      case 'EXTENTS':
        if (length > 0) await this.#extents(at, length, flags);
    }
  }

  /** Reads the whole window and compares. */
  async verify(): Promise<void> {
    assertBytes(
      await readAll(this.device, this.start, this.bytes.length),
      this.bytes,
      'the whole window',
    );
  }

  /** After DISCARD each block reads as it was or as zeroes; the model takes over which. */
  async #discard(step: Step, at: number, length: number, flags: number): Promise<void> {
    const { device } = this;
    const work = discard(device, this.start + at, length, flags);
    if (device.info.discard) await work;
    else await advisory(work);
    const found = await readAll(device, this.start + at, length);
    this.#adopt(found, at, `${describe(step)}: a block is neither old nor zero`);
    this.#mark(step.block, length / device.info.blockBytes, false);
  }

  async #zero(step: Step, at: number, length: number, flags: number): Promise<void> {
    const { device } = this;
    const work = writeZeroes(device, this.start + at, length, flags);
    if ((flags & FLAG.FAST) === 0) {
      await work;
    } else {
      const code = await codeOf(work);
      if (code !== null || (!device.info.fastZero && length > 0)) {
        assert.equal(code, 'EOPNOTSUPP', `${describe(step)}: FAST`);
        const found = await readAll(device, this.start + at, length);
        this.#adopt(found, at, `${describe(step)}: refused, and a block is neither old nor zero`);
        this.#mark(step.block, length / device.info.blockBytes, false);
        return;
      }
    }
    this.bytes.fill(0, at, at + length);
    this.#mark(step.block, length / device.info.blockBytes, false);
  }

  async #extents(at: number, length: number, flags: number): Promise<void> {
    const { device } = this;
    const { blockBytes } = device.info;
    let position = at;
    for (const extent of await mapRange(device, this.start + at, length, flags)) {
      const part = this.#part(position, extent.length);
      if ((extent.flags & EXTENT.ZERO) !== 0) {
        assert.ok(
          part.every((byte) => byte === 0),
          `the extent at ${position} is ZERO and is not`,
        );
      }
      if ((extent.flags & EXTENT.HOLE) !== 0) {
        const last = (position + extent.length) / blockBytes;
        for (let block = position / blockBytes; block < last; block += 1) {
          assert.ok(!this.#written[block], `block ${block} is written and a HOLE`);
        }
      }
      position += extent.length;
    }
  }

  #adopt(found: Uint8Array, at: number, message: string): void {
    const { blockBytes } = this.device.info;
    for (let i = 0; i < found.length; i += blockBytes) {
      const block = found.subarray(i, i + blockBytes);
      const old = this.#part(at + i, blockBytes);
      const same = Buffer.compare(block, old) === 0;
      assert.ok(same || block.every((byte) => byte === 0), message);
    }
    this.bytes.set(found, at);
  }

  #part(at: number, length: number): Uint8Array {
    return this.bytes.subarray(at, at + length);
  }

  #mark(block: number, blocks: number, written: boolean): void {
    this.#written.fill(written, block, block + blocks);
  }
}

/** A random step within a window of `blocks`. */
export function randomStep(prng: Prng, blocks: number): Step {
  const block = prng.below(blocks);
  return {
    op: prng.pick(OPS),
    block,
    blocks: prng.below(Math.min(24, blocks - block) + 1),
    flags: prng.chance(0.3) ? prng.below(16) : 0,
    tag: prng.below(1000),
  };
}

// Writes and reads twice as likely as the rest.
const OPS: readonly (keyof typeof OP)[] = [
  ...(Object.keys(OP) as (keyof typeof OP)[]),
  'READ',
  'WRITE',
];

/** Reads any length, in transfers that the device takes. */
export async function readAll(
  device: BlockDevice,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += device.info.maxTransferBytes) {
    const part = Math.min(device.info.maxTransferBytes, length - at);
    bytes.set(await read(device, offset + at, part), at);
  }
  return bytes;
}

/** Writes any length, in transfers that the device takes. */
export async function writeAll(
  device: BlockDevice,
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  const step = device.info.maxTransferBytes;
  for (let at = 0; at < bytes.length; at += step) {
    await write(device, offset + at, bytes.subarray(at, at + step));
  }
}

/**
 * The allocation of a whole range, asked for as often as it takes: an answer may be short, but it goes on by at least
 * one extent and never beyond what was asked for.
 */
export async function mapRange(
  device: BlockDevice,
  offset: number,
  length: number,
  flags = 0,
): Promise<{ length: number; flags: number }[]> {
  const { blockBytes } = device.info;
  const found: { length: number; flags: number }[] = [];
  let done = 0;
  while (done < length) {
    const answer = await extents(device, offset + done, length - done, flags);
    assert.ok(answer.count > 0, 'an answer without extents');
    assert.ok((flags & FLAG.ONE) === 0 || answer.count === 1, 'more than the ONE extent');
    let total = 0;
    for (let i = 0; i < answer.count; i += 1) {
      const extent = { length: answer.lengths[i] as number, flags: answer.flags[i] as number };
      assert.ok(extent.length > 0 && extent.length % blockBytes === 0, 'an extent of whole blocks');
      assert.ok(device.info.extents || extent.flags === 0, 'info.extents is false: all is data');
      found.push(extent);
      total += extent.length;
    }
    assert.equal(total, answer.totalBytes, 'the sum of the extents');
    done += total;
    assert.ok(done <= length, 'extents beyond the range');
  }
  return found;
}

/** A hint may be taken or not understood; nothing else. */
export async function advisory(work: Promise<unknown>): Promise<void> {
  const code = await codeOf(work);
  assert.ok(code === null || code === 'EOPNOTSUPP', `a hint failed with ${code}`);
}

function describe(step: Step): string {
  return `${step.op} of ${step.blocks} blocks at block ${step.block}, flags ${step.flags}`;
}
