import assert from 'node:assert/strict';
import test from 'node:test';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { checkIo } from '../check.ts';
import type { BlockDevice } from '../device.ts';
import { Io, type Op } from '../io.ts';
import { Region, type Segments } from '../memory.ts';

/** A freshly opened, writable device of at least `MIN_BLOCKS` blocks, whose contents the suite may overwrite. */
export interface ConformanceTarget {
  readonly device: BlockDevice;
  /**
   * The power goes: what is not stable is lost, as the target sees fit. Returns the disk as it is found afterwards. The
   * first device, and what is in flight on it, is gone; the suite neither uses nor closes it again.
   */
  crash?(): Promise<BlockDevice>;
  /** Makes the next sync that the device needs for a FLUSH or a FUA write fail. */
  failNextSync?(): void;
  /** Memory that the device prefers, such as a reactor's. Default: memory for TypeScript only. */
  region?(sizeBytes: number): Region;
  /** Removes files, processes and the like. The device has been closed. */
  dispose?(): Promise<void>;
}

/** What cannot be read from `DeviceInfo`. */
export interface ConformanceTraits {
  /** Opens a device whose info says readOnly. Without it read-only behaviour is not tested. */
  readonly openReadOnly?: () => Promise<ConformanceTarget>;
  /** A READ that overlaps a WRITE in flight sees each block old or new (default: only each byte). */
  readonly atomicBlocks?: boolean;
  /** WRITE_ZEROES with NO_HOLE never leaves a hole, and EXTENTS can tell (default: not checked). */
  readonly exactHoles?: boolean;
  /** Every target has `crash` (default: what survives a loss of power is not tested). */
  readonly canCrash?: boolean;
  /** Every target has `failNextSync` (default: failed syncs are not tested). */
  readonly canFailSync?: boolean;
  /** Of the random tests. Default 1. */
  readonly seed?: number;
  /** Steps of each random test. Default 200. */
  readonly steps?: number;
}

export interface Suite {
  readonly open: () => Promise<ConformanceTarget>;
  readonly traits: ConformanceTraits;
}

/** The smallest disk that the suite can work on. */
export const MIN_BLOCKS = 256;

const TIMEOUT_MS = 60_000;

/** One test on a target of its own. */
export function check(suite: Suite, title: string, body: (opened: Opened) => Promise<void>): void {
  checkOn(suite.open, title, body);
}

export function checkOn(
  open: () => Promise<ConformanceTarget>,
  title: string,
  body: (opened: Opened) => Promise<void>,
): void {
  void test(title, { timeout: TIMEOUT_MS }, async () => {
    const opened = new Opened(await open());
    try {
      const { blockBytes, sizeBytes, maxTransferBytes } = opened.device.info;
      assert.ok(sizeBytes >= MIN_BLOCKS * blockBytes, `the suite needs ${MIN_BLOCKS} blocks`);
      assert.ok(maxTransferBytes >= 16 * blockBytes, 'the suite needs transfers of 16 blocks');
      await body(opened);
    } finally {
      await opened.end();
    }
  });
}

/** A target during one test. */
export class Opened {
  readonly target: ConformanceTarget;
  #device: BlockDevice;
  #closed = false;

  constructor(target: ConformanceTarget) {
    this.target = target;
    this.#device = target.device;
  }

  get device(): BlockDevice {
    return this.#device;
  }

  /** Loses power and goes on with what is left. */
  async crash(): Promise<BlockDevice> {
    assert.ok(this.target.crash !== undefined, 'traits say that this target can crash');
    this.#device = await this.target.crash();
    return this.#device;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#device.close();
  }

  async end(): Promise<void> {
    if (!this.#closed) await this.close();
    await this.target.dispose?.();
  }

  region(sizeBytes: number): Region {
    return this.target.region?.(sizeBytes) ?? Region.plain(sizeBytes);
  }
}

/** Submits and resolves at the first completion. The caller has filled the segments. */
export function submit(device: BlockDevice, io: Io): Promise<Io> {
  assert.equal(
    checkIo(io, device.info),
    null,
    'the suite itself made a request that is not allowed',
  );
  return new Promise((resolve) => {
    io.push({
      ioDone(done: Io): void {
        letEventLoopRun();
        resolve(done);
      },
    });
    device.submit(io);
  });
}

/** Makes an Io over one region. */
export function makeIo(
  op: Op,
  offset: number,
  length: number,
  flags = 0,
  region?: Region,
  start = 0,
): Io {
  const io = new Io();
  io.reset(op, offset, length, flags);
  if (region !== undefined) io.segments.push(region, start, length);
  return io;
}

/** Lets timers, the thread pool and the event loop do what they still have to do. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i += 1) {
    await new Promise((resolve) => {
      setTimeout(resolve, 2);
      letEventLoopRun();
    });
  }
}

/** Bytes that differ from block to block and from tag to tag, none of them zero. */
export function pattern(length: number, tag: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i += 1) bytes[i] = 1 + ((tag * 37 + i * 7 + (i >>> 8) * 11) % 255);
  return bytes;
}

export function segmentBytes(segments: Segments): Uint8Array {
  const bytes = new Uint8Array(segments.totalBytes);
  segments.copyTo(bytes);
  return bytes;
}

/** Like assert.deepEqual, with a message that names the first difference instead of printing both. */
export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assert.equal(actual.length, expected.length, `${what}: length`);
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assert.fail(`${what}: byte ${at} is ${actual[at]}, not ${expected[at]}`);
}

/** The code of the BlockError that `promise` rejects with. */
export async function codeOf(promise: Promise<unknown>): Promise<string | null> {
  try {
    await promise;
    return null;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}
