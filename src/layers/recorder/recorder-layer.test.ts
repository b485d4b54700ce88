import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { KiB, MiB } from '../../base/units.ts';
import { discard, flush, perform, read, write, writeZeroes } from '../../block/await.ts';
import { conformance } from '../../block/conformance.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { FLAG, Io, OP } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import {
  openFaultyReactor,
  REACTORS,
  TestDirectory,
  type FaultyReactor,
} from '../../stores/file/testing.ts';
import { openMemoryStore, type MemoryStore } from '../../stores/memory/memory-store.ts';
import { openTrace } from '../../trace/reader.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';
import { RecorderLayer } from './recorder-layer.ts';
import { TraceRecorder, type RecorderOptions } from './trace-recorder.ts';

const BLOCK = 512;
const SIZE = MiB;

for (const kind of REACTORS) {
  const open = async (readOnly: boolean) => {
    const bench = await Bench.open(kind, {}, memory(readOnly));
    return { device: bench.layer, dispose: () => bench.endWhole() };
  };
  conformance(`recorder over memory, ${kind}`, () => open(false), {
    atomicBlocks: true,
    exactHoles: true,
    openReadOnly: () => open(true),
  });

  test(`${kind}: what is recorded is what was asked, with data, flags, ranges and outcomes`, async () => {
    const bench = await Bench.open(kind);
    const { layer } = bench;
    const data = new Uint8Array(3 * BLOCK).map((_, i) => i * 7);
    await write(layer, 2 * BLOCK, data, FLAG.FUA);
    await flush(layer);
    await perform(layer, OP.FLUSH, BLOCK, 2 * BLOCK);
    await discard(layer, 0, 4 * BLOCK);
    await writeZeroes(layer, BLOCK, BLOCK, FLAG.NO_HOLE);
    await read(layer, 0, BLOCK);
    const trace = await bench.end();
    const { requests } = trace;
    assert.deepEqual([...requests.op], [OP.WRITE, OP.FLUSH, OP.FLUSH, OP.DISCARD, OP.WRITE_ZEROES]);
    assert.deepEqual([...requests.flags], [FLAG.FUA, 0, 0, 0, FLAG.NO_HOLE]);
    assert.deepEqual([...requests.offset], [2 * BLOCK, 0, BLOCK, 0, BLOCK]);
    assert.deepEqual([...requests.length], [3 * BLOCK, 0, 2 * BLOCK, 4 * BLOCK, BLOCK]);
    assert.deepEqual([...requests.issued], [0, 2, 4, 6, 8]);
    assert.deepEqual([...requests.done], [1, 3, 5, 7, 9]);
    assert.deepEqual(dataOf(trace, 0), data);
    assert.ok(trace.complete);
  });

  test(`${kind}: while the file is slow requests wait, FLUSHes do not, and nothing is lost`, async () => {
    const bench = await Bench.open(kind, { bufferPages: 2 });
    const held = holdWrites(bench.reactor);
    const writes = [...Array(16).keys()].map((i) =>
      write(bench.layer, i * 64 * KiB, new Uint8Array(64 * KiB).fill(i + 1)),
    );
    const more = [...Array(16).keys()].map((i) =>
      write(bench.layer, i * 64 * KiB, new Uint8Array(64 * KiB).fill(i + 17)),
    );
    const { waiting } = bench.recorder;
    assert.ok(waiting > 0);
    for (let i = 0; i < 1000; i += 1) await flush(bench.layer);
    assert.equal(bench.recorder.waiting, waiting);
    bench.recorder.mark('note', 'x'.repeat(60_000), 0);
    held.release();
    await Promise.all([...writes, ...more]);
    const trace = await bench.end();
    assert.ok(trace.complete);
    assert.equal(trace.marks.length, 1);
    const fills = Array.from({ length: trace.requests.count }, (_, i) => i)
      .filter((i) => trace.requests.op[i] === OP.WRITE)
      .map((i) => dataOf(trace, i)[0]);
    assert.deepEqual(
      fills,
      [...Array(32).keys()].map((i) => i + 1),
    );
  });

  test(`${kind}: a full file system ends the recording, not the guest, and the trace can be read`, async () => {
    const bench = await Bench.open(kind);
    // The file takes 300 001 bytes, the last record in part.
    let space = 300_001;
    bench.reactor.files.mostBytes = 100_000;
    bench.reactor.files.fault = ({ kind: what, length }) => {
      if (what !== 'write') return null;
      if (space <= 0) return -28;
      bench.reactor.files.mostBytes = Math.min(length, space, 100_000);
      space -= bench.reactor.files.mostBytes;
      return null;
    };
    for (let i = 0; i < 8; i += 1) {
      await write(bench.layer, 0, new Uint8Array(64 * KiB).fill(i + 1));
    }
    await until(bench.reactor, () => bench.recorder.stopped !== null);
    assert.deepEqual(await read(bench.store, 0, BLOCK), new Uint8Array(BLOCK).fill(8));
    await flush(bench.layer);
    assert.throws(() => bench.recorder.mark('ack', 'x', 0), /recording has stopped/);
    const trace = await bench.end();
    assert.equal(trace.complete, false);
    assert.equal(trace.requests.count, 4);
    assert.deepEqual(dataOf(trace, 3), new Uint8Array(64 * KiB).fill(4));
    assert.equal(bench.lines.length, 1);
    assert.match(bench.lines[0] ?? '', /test\.trace: the recording has stopped: no space is left;/);
  });

  test(`${kind}: where it is asked for, nothing is done that is not recorded`, async () => {
    const bench = await Bench.open(kind, { onError: 'fail' });
    bench.reactor.files.fault = ({ kind: what }) => (what === 'write' ? -5 : null);
    await write(bench.layer, 0, new Uint8Array(512 * KiB).fill(1));
    await until(bench.reactor, () => bench.recorder.stopped === 'EIO');
    await assert.rejects(write(bench.layer, 0, new Uint8Array(BLOCK).fill(2)), { code: 'EIO' });
    await assert.rejects(flush(bench.layer), { code: 'EIO' });
    assert.equal((await read(bench.layer, 0, BLOCK))[0], 1);
    assert.match(bench.lines[0] ?? '', /writes and flushes fail/);
    await bench.close();
    bench.dispose();
  });
}

test('a request is recorded before the device gets it, its end before its maker hears', async () => {
  const bench = await Bench.open('portable');
  const seen: string[] = [];
  const child: BlockDevice = {
    info: bench.store.info,
    submit: (io) => {
      seen.push(`device ${bench.recorder.requestCount}`);
      bench.store.submit(io);
    },
    close: () => Promise.resolve(),
  };
  const layer = new RecorderLayer(child, bench.recorder, 0);
  const io = new Io();
  io.reset(OP.FLUSH, 0, 0, 0);
  let free = 0;
  io.push({ ioDone: () => (free = bench.clock.asked) });
  const before = bench.clock.asked;
  layer.submit(io);
  assert.deepEqual(seen, ['device 1']);
  assert.equal(free, before + 2, 'both records were dated by then');
  await bench.end();
});

test('changes of one place go to the device one after another, in the order of issue; others do not wait', async () => {
  const child = new ShuffledDisk(3);
  const bench = await Bench.open('portable', {}, child);
  const prng = new Prng(5);
  const blocks = 24;
  const pending: Promise<unknown>[] = [];
  for (let i = 0; i < 600; i += 1) {
    const first = prng.below(blocks);
    const count = 1 + prng.below(Math.min(6, blocks - first));
    const fill = new Uint8Array(count * BLOCK).fill(1 + (i % 255));
    const kind = prng.below(10);
    if (kind < 7) pending.push(write(bench.layer, first * BLOCK, fill));
    else if (kind < 8) pending.push(writeZeroes(bench.layer, first * BLOCK, count * BLOCK));
    else if (kind < 9) pending.push(discard(bench.layer, first * BLOCK, count * BLOCK));
    else pending.push(flush(bench.layer));
    while (child.inFlight > 8) child.finishOne();
    child.checkNoOverlap();
  }
  assert.ok(bench.recorder.requestCount === 600, 'all are issued, though some are held back');
  while (child.inFlight > 0) child.finishOne();
  await Promise.all(pending);
  assert.ok(child.mostInFlight >= 4, 'what does not overlap is in flight together');
  const image = child.image.slice(0, blocks * BLOCK);
  const trace = await bench.end();
  assert.deepEqual(replayed(trace, blocks * BLOCK), image);
});

test('several disks share one trace and one clock', async () => {
  const bench = await Bench.open('portable');
  const second = bench.recorder.addDisk({ ...ZEROES, name: 'second', sizeBytes: SIZE });
  const other = new RecorderLayer(memory(), bench.recorder, second.number);
  await write(bench.layer, 0, new Uint8Array(BLOCK).fill(1));
  await write(other, 0, new Uint8Array(BLOCK).fill(2));
  await write(bench.layer, 0, new Uint8Array(BLOCK).fill(3));
  await other.close();
  const trace = await bench.end();
  assert.deepEqual([...trace.requests.disk], [0, 1, 0]);
  assert.deepEqual(
    trace.disks.map(({ name }) => name),
    ['test', 'second'],
  );
});

test('a mark stands where its time says, however late it comes', async () => {
  const bench = await Bench.open('portable');
  await flush(bench.layer);
  const between = bench.clock.nowNs;
  bench.clock.nowNs += 1000;
  await flush(bench.layer);
  bench.recorder.mark('ack', 'the first flush', between);
  const trace = await bench.end();
  assert.deepEqual(trace.marks, [{ event: 2, kind: 'ack', text: 'the first flush' }]);
  assert.deepEqual([...trace.requests.issued, ...trace.requests.done], [0, 3, 1, 4]);
});

test('READs are recorded on request, and change nothing', async () => {
  const bench = await Bench.open('portable', { reads: true });
  await read(bench.layer, BLOCK, BLOCK);
  const trace = await bench.end();
  assert.deepEqual([...trace.requests.op], [OP.READ]);
  assert.equal(trace.requests.dataAt[0], -1);
});

test('writes that are cut short are continued', async () => {
  const bench = await Bench.open('portable');
  bench.reactor.files.mostBytes = 777;
  await write(bench.layer, 0, new Uint8Array(10 * BLOCK).fill(9));
  const trace = await bench.end();
  assert.ok(trace.complete);
  assert.deepEqual(dataOf(trace, 0), new Uint8Array(10 * BLOCK).fill(9));
});

test('data that a guest changes while they are copied do not make the trace damaged', async () => {
  const bench = await Bench.open('portable');
  const io = new Io();
  const region = Region.plain(BLOCK);
  io.reset(OP.WRITE, 0, BLOCK, 0);
  io.segments.push(region, 0, BLOCK);
  const whole = io.segments.bytesAt.bind(io.segments);
  io.segments.bytesAt = (index) => {
    region.bytes.fill((region.bytes[0] as number) + 1);
    return whole(index);
  };
  io.push({ ioDone: () => {} });
  bench.layer.submit(io);
  const trace = await bench.end();
  assert.equal(trace.requests.count, 1);
});

test('a file that is there is not overwritten', async () => {
  const bench = await Bench.open('portable');
  assert.throws(
    () => new TraceRecorder(bench.reactor, { path: bench.path, warn: () => {} }),
    /test\.trace: a file of this name is there already/,
  );
  await bench.end();
});

test('a layer that is closed refuses, and closing waits for what is in flight', async () => {
  const child = new ShuffledDisk(1);
  const bench = await Bench.open('portable', {}, child);
  const first = write(bench.layer, 0, new Uint8Array(BLOCK));
  const second = write(bench.layer, 0, new Uint8Array(BLOCK));
  const closing = bench.layer.close();
  await assert.rejects(flush(bench.layer), { code: 'ESHUTDOWN' });
  assert.equal(child.closed, false);
  child.finishOne();
  child.finishOne();
  await Promise.all([first, second, closing]);
  assert.equal(child.closed, true);
  const trace = await bench.end();
  assert.ok(trace.requests.done.every((event) => event !== NEVER));
});

const ZEROES = {
  sizeBytes: SIZE,
  blockBytes: BLOCK,
  base: { kind: 'zeroes' },
  discard: 'zeroes',
  flushCovers: 'everyone',
} as const;

function memory(readOnly = false): MemoryStore {
  return openMemoryStore({ name: 'm', sizeBytes: SIZE, readOnly });
}

/** A recorder with one disk, in a directory of its own. */
class Bench {
  readonly lines: string[] = [];
  readonly clock = { nowNs: 1000, asked: 0 };
  readonly path: string;
  readonly recorder: TraceRecorder;
  readonly layer: RecorderLayer;
  readonly reactor: FaultyReactor;
  readonly store: BlockDevice;
  readonly #directory = new TestDirectory();

  private constructor(
    reactor: FaultyReactor,
    options: Partial<RecorderOptions>,
    store: BlockDevice,
  ) {
    this.reactor = reactor;
    this.store = store;
    this.path = join(this.#directory.path, 'test.trace');
    this.recorder = new TraceRecorder(reactor, {
      path: this.path,
      warn: (line) => this.lines.push(line),
      clock: () => {
        this.clock.asked += 1;
        return this.clock.nowNs;
      },
      ...options,
    });
    const { number } = this.recorder.addDisk({ ...ZEROES, name: 'test' });
    this.layer = new RecorderLayer(store, this.recorder, number);
  }

  static async open(
    kind: (typeof REACTORS)[number],
    options: Partial<RecorderOptions> = {},
    store: BlockDevice = memory(),
  ): Promise<Bench> {
    return new Bench(await openFaultyReactor(kind), options, store);
  }

  async close(): Promise<void> {
    await this.layer.close();
    await this.recorder.close();
    await this.reactor.close();
  }

  dispose(): void {
    this.#directory.remove();
  }

  /** Closes all; the trace can be read until the test ends. */
  async end(): Promise<Trace> {
    await this.close();
    const trace = openTrace(this.path);
    this.dispose();
    return trace;
  }

  /** After a test of something else: the trace has to be whole all the same. */
  async endWhole(): Promise<void> {
    const trace = await this.end();
    trace.close();
    assert.ok(trace.complete);
    assert.ok(trace.requests.done.every((event) => event !== NEVER));
    assert.deepEqual(this.lines, []);
  }
}

/** Holds back the writes to files until `release`. */
function holdWrites(reactor: FaultyReactor): { release(): void } {
  const { files } = reactor;
  const real = files.write.bind(files);
  const held: (() => void)[] = [];
  files.write = (...args) => held.push(() => real(...args));
  return {
    release: () => {
      files.write = real;
      for (const go of held.splice(0)) go();
    },
  };
}

/** The reactor's timers run meanwhile. */
async function until(reactor: FaultyReactor, condition: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !condition(); i += 1) {
    reactor.fireTimers();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.ok(condition());
}

function dataOf(trace: Trace, request: number): Uint8Array {
  const data = new Uint8Array(trace.requests.length[request] as number);
  trace.readData(trace.requests.dataAt[request] as number, data);
  return data;
}

/** What the requests make of zeroes, done in the order of issue. */
function replayed(trace: Trace, bytes: number): Uint8Array {
  const image = new Uint8Array(bytes);
  const { requests } = trace;
  for (let i = 0; i < requests.count; i += 1) {
    const offset = requests.offset[i] as number;
    const length = requests.length[i] as number;
    if (requests.op[i] === OP.WRITE) image.set(dataOf(trace, i), offset);
    else image.fill(0, offset, offset + length);
  }
  return image;
}

/** A disk that does what is in flight in a random order. */
class ShuffledDisk implements BlockDevice {
  readonly info: DeviceInfo = memory().info;
  readonly image = new Uint8Array(SIZE);
  closed = false;
  mostInFlight = 0;
  readonly #ios: Io[] = [];
  readonly #prng: Prng;

  constructor(seed: number) {
    this.#prng = new Prng(seed);
  }

  get inFlight(): number {
    return this.#ios.length;
  }

  submit(io: Io): void {
    this.#ios.push(io);
    this.mostInFlight = Math.max(this.mostInFlight, this.#ios.length);
  }

  checkNoOverlap(): void {
    const changes = this.#ios.filter((io) => io.mutates);
    for (const [i, a] of changes.entries()) {
      for (const b of changes.slice(i + 1)) {
        assert.ok(a.offset + a.length <= b.offset || b.offset + b.length <= a.offset);
      }
    }
  }

  finishOne(): void {
    const [io] = this.#ios.splice(this.#prng.below(this.#ios.length), 1);
    assert.ok(io !== undefined);
    if (io.op === OP.WRITE)
      io.segments.copyTo(this.image.subarray(io.offset, io.offset + io.length));
    else if (io.mutates) this.image.fill(0, io.offset, io.offset + io.length);
    io.complete(null);
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}
