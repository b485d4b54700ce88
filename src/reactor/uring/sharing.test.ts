import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { ProtocolError } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { GiB } from '../../base/units.ts';
import { eventually, pause, unavailable } from '../conformance/harness.ts';
import * as sys from '../sys.ts';
import { openDescriptors, openSharing } from './testing.ts';

const skip = await unavailable('io_uring');
const O_NONBLOCK = 0o4000;

/** The text of /proc/self/maps that counts mappings of memory made here. */
function mappings(name: string): number {
  return readFileSync('/proc/self/maps', 'latin1').split(`memfd:${name} `).length - 1;
}

/** Adds to an eventfd like somebody else. */
function kick(fd: number, count = 1n): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(count);
  writeSync(fd, bytes);
}

function counterOf(fd: number): bigint {
  const bytes = Buffer.alloc(8);
  readSync(fd, bytes);
  return bytes.readBigUInt64LE();
}

void test('memory is mapped at any offset, shared, and given back', { skip }, (t) => {
  const { sharing } = openSharing(t);
  const { fd, memory } = sharing.create('holdfast-map', 64 * 1024);
  assert.ok(memory.region.bytes.every((byte) => byte === 0));
  for (const [offset, length] of [
    [0, 1],
    [1, 4096],
    [4095, 2],
    [4096, 4096],
    [10_000, 30_001],
    [64 * 1024 - 1, 1],
  ] as const) {
    const other = sharing.map(fd, length, offset);
    assert.equal(other.region.bytes.length, length);
    assert.equal(other.region.view.byteLength, length);
    other.region.bytes[length - 1] = 77;
    assert.equal(memory.region.bytes[offset + length - 1], 77);
    memory.region.bytes[offset] = 78;
    assert.equal(other.region.view.getUint8(0), 78);
    // The kernel sees byte 0 at the region's address.
    assert.equal(sys.pwrite(fd, other.region.address, 1, 0), 1);
    assert.equal(memory.region.bytes[0], 78);
    other.unmap();
  }
  assert.equal(mappings('holdfast-map'), 1);
  memory.unmap();
  assert.equal(mappings('holdfast-map'), 0);
  sharing.closeDescriptor(fd);
});

void test('memory beyond 4 GiB is reached as what it is', { skip }, (t) => {
  const { sharing } = openSharing(t);
  // Sparse: a few pages of it come into being.
  const { fd, memory } = sharing.create('holdfast-large', 6 * GiB);
  const { region } = memory;
  const at = 5 * GiB + 123;
  region.bytes[at] = 99;
  assert.equal(region.view.getUint8(at), 99);
  region.view.setBigUint64(at + 8, 0x1122334455667788n, true);
  const buffer = Buffer.alloc(16);
  readSync(fd, buffer, 0, 16, at);
  assert.equal(buffer[0], 99);
  assert.equal(buffer.readBigUInt64LE(8), 0x1122334455667788n);
  assert.equal(region.bytes[at - 4 * GiB], 0);
  const high = sharing.map(fd, 4096, at);
  assert.equal(high.region.bytes[0], 99);
  high.unmap();
  memory.unmap();
  sharing.closeDescriptor(fd);
});

void test('what cannot be mapped is the fault of who sent it', { skip }, (t) => {
  const { sharing, directory } = openSharing(t);
  const path = join(directory, 'file');
  const fd = openSync(path, 'w+');
  ftruncateSync(fd, 10_000);
  const refused = (length: number, offset: number, descriptor = fd): void =>
    assert.throws(
      () => sharing.map(descriptor, length, offset),
      (error: unknown) => error instanceof ProtocolError && error.message.startsWith('cannot map'),
    );
  const before = readFileSync('/proc/self/maps', 'latin1').split(path).length;
  refused(10_001, 0);
  refused(1, 10_000);
  refused(4096, 8192);
  refused(0, 0);
  refused(-1, 0);
  refused(1, -1);
  refused(2 ** 53, 2 ** 53);
  refused(Number.NaN, 0);
  refused(1.5, 0);
  refused(0.5, 0.5);
  refused(1, 0, 999_999);
  const zero = openSync('/dev/zero', 'r+');
  const readOnly = openSync(path, 'r');
  refused(4096, 0, zero);
  refused(4096, 0, readOnly);
  for (const other of [zero, readOnly]) closeSync(other);
  assert.equal(readFileSync('/proc/self/maps', 'latin1').split(path).length, before);
  const whole = sharing.map(fd, 10_000, 0);
  whole.unmap();
  closeSync(fd);
});

void test('memory that is passed on cannot be made shorter or longer', { skip }, (t) => {
  const { sharing } = openSharing(t);
  const { fd, memory } = sharing.create('holdfast-seal', 4096);
  assert.throws(() => ftruncateSync(fd, 0), { code: 'EPERM' });
  assert.throws(() => ftruncateSync(fd, 8192), { code: 'EPERM' });
  memory.unmap();
  sharing.closeDescriptor(fd);
});

void test('a mapping that is made again and again is the newest one', { skip }, (t) => {
  const { sharing } = openSharing(t);
  for (let i = 0; i < 300; i += 1) {
    const { fd, memory } = sharing.create('holdfast-again', 8192);
    assert.equal(memory.region.bytes[4096], 0);
    memory.region.bytes[4096] = 1 + (i % 250);
    memory.unmap();
    sharing.closeDescriptor(fd);
  }
  assert.equal(mappings('holdfast-again'), 0);
});

void test('a rung eventfd calls back, also when it was rung before', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const fd = sharing.eventfd();
  sharing.signal(fd);
  let rings = 0;
  const watch = sharing.watch(fd, () => {
    rings += 1;
  });
  await eventually(reactor, () => rings === 1, 'rung before');
  for (let i = 2; i < 10; i += 1) {
    sharing.signal(fd);
    await eventually(reactor, () => rings === i, `ring ${i}`);
  }
  await pause(reactor, 10);
  assert.equal(rings, 9, 'a counter that nobody reads rings once per write');
  let stopped = 0;
  watch.stop(() => {
    stopped += 1;
  });
  assert.equal(stopped, 0, 'not inside the call');
  sharing.signal(fd);
  await eventually(reactor, () => stopped === 1, 'stopped');
  sharing.signal(fd);
  await pause(reactor, 10);
  assert.deepEqual([rings, stopped], [9, 1]);
  // It left the counter alone: who watches next knows of the rings.
  assert.equal(counterOf(fd), 11n);
  sharing.closeDescriptor(fd);
});

void test(
  'a watch may be stopped inside its own call, and in the turn of its making',
  { skip },
  async (t) => {
    const { reactor, sharing } = openSharing(t);
    const before = openDescriptors();
    let stopped = 0;
    let rings = 0;
    for (let i = 0; i < 50; i += 1) {
      const fd = sharing.eventfd();
      const done = (): void => {
        stopped += 1;
        sharing.closeDescriptor(fd);
      };
      const watch = sharing.watch(fd, () => {
        rings += 1;
        watch.stop(done);
      });
      if (i % 2 === 0) sharing.signal(fd);
      else watch.stop(done);
    }
    await eventually(reactor, () => stopped === 50, 'stopped');
    assert.equal(rings, 25);
    assert.equal(openDescriptors(), before);
  },
);

void test(
  '100,000 kicks of another thread: the last of each burst is heard',
  { skip },
  async (t) => {
    const { reactor, sharing } = openSharing(t);
    const fd = sharing.eventfd();
    const shared = new Int32Array(new SharedArrayBuffer(8));
    // Increments shared[0] and kicks, in bursts; then waits until the burst's last number is in shared[1].
    const worker = new Worker(
      `const { workerData: { shared, fd } } = require('node:worker_threads');
    const { writeSync } = require('node:fs');
    const one = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
    for (let done = 0, burst = 1; done < 100_000; burst = (burst * 7 + 3) % 61) {
      for (let i = 0; i <= burst; i += 1) {
        done = Atomics.add(shared, 0, 1) + 1;
        writeSync(fd, one);
      }
      for (;;) {
        const heard = Atomics.load(shared, 1);
        if (heard === done) break;
        if (Atomics.wait(shared, 1, heard, 5000) === 'timed-out') throw new Error('lost kick ' + done);
      }
    }`,
      { eval: true, workerData: { shared, fd } },
    );
    let rings = 0;
    const watch = sharing.watch(fd, () => {
      rings += 1;
      Atomics.store(shared, 1, Atomics.load(shared, 0));
      Atomics.notify(shared, 1);
    });
    await new Promise((resolve, reject) => {
      worker.once('error', reject);
      worker.once('exit', resolve);
    });
    assert.ok((shared[0] as number) >= 100_000);
    assert.ok(rings > 0 && rings <= 100_001, `${rings} calls`);
    await new Promise<void>((resolve) => {
      watch.stop(() => {
        reactor.returnToNode();
        resolve();
      });
    });
    assert.equal(counterOf(fd), BigInt(shared[0] as number));
    sharing.closeDescriptor(fd);
  },
);

void test('a counter that is full rings on, and does not stop who signals', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const plain = sharing.eventfd();
  // As its owner may have left it: a write would wait.
  const waiting = sys.eventfd(0);
  let rings = 0;
  const watches = [plain, waiting].map((fd) => sharing.watch(fd, () => void (rings += 1)));
  for (const fd of [plain, waiting]) {
    sharing.signal(fd);
    await eventually(reactor, () => rings > 0, 'rung');
    rings = 0;
    kick(fd, 2n ** 64n - 3n);
    await eventually(reactor, () => rings === 1, 'full');
    sharing.signal(fd);
    sharing.signal(fd);
    assert.equal(counterOf(fd), 2n ** 64n - 2n);
    rings = 0;
    sharing.signal(fd);
    await eventually(reactor, () => rings === 1, 'rung again');
    rings = 0;
  }
  let stopped = 0;
  for (const watch of watches) watch.stop(() => void (stopped += 1));
  await eventually(reactor, () => stopped === 2, 'stopped');
  for (const fd of [plain, waiting]) sharing.closeDescriptor(fd);
});

void test(
  'descriptors that are no eventfds are not watched, and not written to',
  { skip },
  async (t) => {
    const { reactor, sharing, directory } = openSharing(t);
    const path = join(directory, 'file');
    const file = openSync(path, 'w+');
    writeSync(file, 'content');
    const [near, far] = sharing.pair();
    near.close();
    const others = [file, far, openSync('/dev/null', 'w'), openSync('/proc/self/maps', 'r')];
    for (const fd of [...others, 999_999]) {
      assert.throws(() => sharing.watch(fd, () => assert.fail('rung')), ProtocolError);
      sharing.signal(fd);
    }
    assert.equal(readFileSync(path, 'latin1'), 'content');
    // The number of a descriptor says nothing of the next one that has it.
    sharing.closeDescriptor(file);
    const fd = sharing.eventfd();
    assert.equal(fd, file);
    sharing.signal(fd);
    assert.equal(counterOf(fd), 1n);
    for (const other of [fd, ...others.slice(1)]) sharing.closeDescriptor(other);
    await pause(reactor, 5);
  },
);

void test('an eventfd is non-blocking, and not inherited', { skip }, (t) => {
  const { sharing } = openSharing(t);
  const fd = sharing.eventfd();
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
  const flags = Number.parseInt(/flags:\s+(\d+)/.exec(info)?.[1] ?? '', 8);
  assert.equal(flags & O_NONBLOCK, O_NONBLOCK);
  assert.equal(flags & 0o2000000, 0o2000000);
  sharing.closeDescriptor(fd);
});

void test('a descriptor that can be read is told once, now or later', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const before = openDescriptors();
  const fd = sharing.eventfd();
  let told = 0;
  sharing.whenReadable(fd, () => {
    told += 1;
    letEventLoopRun();
  });
  await pause(reactor, 5);
  assert.equal(told, 0);
  kick(fd);
  await eventually(reactor, () => told === 1, 'the first');
  sharing.whenReadable(fd, () => {
    told += 1;
    letEventLoopRun();
  });
  await eventually(reactor, () => told === 2, 'the second');
  kick(fd);
  await pause(reactor, 5);
  assert.equal(told, 2);
  sharing.closeDescriptor(fd);
  assert.equal(openDescriptors(), before);
});
