import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { KiB, MiB } from '../../base/units.ts';
import type { BlockDevice } from '../../block/device.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { MAX_REQUESTS_IN_FLIGHT } from './limits.ts';
import { type FuseFile, type FuseSource, sourceOfDevice } from './source.ts';
import { FakeKernel, fields, message, O_RDWR, viewOf, words } from './testing.ts';
import {
  ERRNO,
  FALLOC,
  FATTR,
  FOPEN,
  FUSE_INIT_FLAG,
  FUSE_OP,
  O_DSYNC,
  readU32,
  readU64,
  SEEK,
} from './wire.ts';

const O_RDONLY = 0;
const O_SYNC = 0o4010000;

/** Sees what is asked of a disk in memory; holds it back if told to. */
class Watched implements BlockDevice {
  readonly inner: BlockDevice;
  readonly seen: string[] = [];
  readonly held: Io[] = [];
  hold = false;

  constructor(sizeBytes: number = 1 * MiB) {
    this.inner = openMemoryStore({ name: 'test', sizeBytes });
  }

  get info(): BlockDevice['info'] {
    return this.inner.info;
  }

  submit(io: Io): void {
    const name = Object.entries(OP).find(([, op]) => op === io.op)?.[0] ?? '';
    const flags = Object.entries(FLAG).filter(([, flag]) => (io.flags & flag) !== 0);
    this.seen.push([name, io.offset, io.length, ...flags.map(([flag]) => flag)].join(' '));
    if (this.hold) this.held.push(io);
    else this.inner.submit(io);
  }

  let(): void {
    for (const io of this.held.splice(0)) this.inner.submit(io);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

async function mounted(
  sizeBytes: number = 1 * MiB,
): Promise<{ kernel: FakeKernel; disk: Watched }> {
  const disk = new Watched(sizeBytes);
  const kernel = await FakeKernel.mounted({ settings: { source: sourceOfDevice(disk) } });
  return { kernel, disk };
}

function bytes(length: number, seed = 1): Uint8Array {
  const result = new Uint8Array(length);
  new Prng(seed).fill(result);
  return result;
}

test('INIT: what is agreed on, and no write-back cache in the kernel', async () => {
  const kernel = new FakeKernel({ settings: { source: sourceOfDevice(new Watched()) } });
  assert.equal(await kernel.open().catch((error: Error) => error.message), 'open: errno 5');
  const { errno, view, body } = await kernel.init();
  assert.equal(errno, 0);
  assert.equal(body.length, 64);
  assert.deepEqual([readU32(view, 0), readU32(view, 4)], [7, 39]);
  const flags = readU32(view, 12);
  assert.equal(flags & FUSE_INIT_FLAG.WRITEBACK_CACHE, 0);
  for (const name of ['ASYNC_READ', 'BIG_WRITES', 'ASYNC_DIO', 'MAX_PAGES', 'INIT_EXT'] as const) {
    assert.notEqual(flags & FUSE_INIT_FLAG[name], 0, name);
  }
  assert.equal(readU32(view, 20), 256 * KiB);
  assert.equal(view.getUint16(28, true), 256);
  assert.equal(readU32(view, 32), 1 << 4);
  assert.ok(kernel.isReady);
});

test('INIT: nothing is agreed on that the kernel did not offer', async () => {
  const kernel = new FakeKernel({ settings: { source: sourceOfDevice(new Watched()) } });
  const { view } = await kernel.init(7, 31, FUSE_INIT_FLAG.BIG_WRITES | FUSE_INIT_FLAG.MAX_PAGES);
  assert.equal(readU32(view, 12), FUSE_INIT_FLAG.BIG_WRITES | FUSE_INIT_FLAG.MAX_PAGES);
  assert.equal(readU32(view, 32), 0);
});

test('INIT: a newer major asks again; a kernel that is too old is refused', async () => {
  const newer = new FakeKernel({ settings: { source: sourceOfDevice(new Watched()) } });
  assert.equal(readU32((await newer.init(8)).view, 0), 7);
  assert.ok(!newer.isReady);
  await newer.init();
  assert.ok(newer.isReady);
  const older = new FakeKernel({ settings: { source: sourceOfDevice(new Watched()) } });
  assert.equal((await older.init(7, 27)).errno, ERRNO.EPROTO);
  assert.match(older.overWith ?? '', /7\.27/);
});

test('read and write, also to the end and over it', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open();
  const payload = bytes(8192);
  const { errno, view } = await kernel.write(handle, 4096, payload);
  assert.deepEqual([errno, readU32(view, 0)], [0, 8192]);
  assert.deepEqual((await kernel.read(handle, 4096, 8192)).body, payload);
  assert.deepEqual((await kernel.read(handle, 5000, 700)).body, payload.subarray(904, 1604));
  // [read(2)] up to the end, then nothing.
  assert.equal((await kernel.read(handle, MiB - 100, 4096)).body.length, 100);
  assert.equal((await kernel.read(handle, MiB, 4096)).body.length, 0);
  assert.equal((await kernel.read(handle, 2 ** 60, 4096)).body.length, 0);
  // [write(2)] on a block device: what there is room for, then ENOSPC.
  assert.equal(readU32((await kernel.write(handle, MiB - 512, payload)).view, 0), 512);
  assert.equal((await kernel.write(handle, MiB, payload)).errno, ERRNO.ENOSPC);
  assert.equal((await kernel.write(handle, 2 ** 62, payload)).errno, ERRNO.ENOSPC);
  assert.equal((await kernel.write(handle, 0, new Uint8Array(0))).errno, 0);
  assert.equal(disk.info.blockBytes, 512);
});

test('reads and writes that are longer than an Io', async () => {
  const { kernel, disk } = await mounted(4 * MiB);
  const handle = await kernel.open();
  const payload = bytes(256 * KiB);
  for (let i = 0; i < 5; i += 1) await kernel.write(handle, i * payload.length + 7, payload);
  const { body } = await kernel.read(handle, 3, MiB);
  assert.equal(body.length, MiB);
  assert.deepEqual(body.subarray(0, 4), new Uint8Array(4));
  for (let at = 4, i = 0; at + payload.length < MiB; i += 1, at += payload.length) {
    assert.ok(Buffer.from(body.subarray(at, at + payload.length)).equals(payload), `piece ${i}`);
  }
  assert.ok(disk.seen.filter((line) => line.startsWith('READ 0 ')).length > 0);
  assert.equal(kernel.pool.inUse > 0, true);
});

test('O_DSYNC and O_SYNC are FUA; the flags of the write count, not those of the open', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open(O_RDWR | O_DSYNC);
  await kernel.write(handle, 0, bytes(512), O_RDWR | O_DSYNC);
  await kernel.write(handle, 512, bytes(512), O_RDWR | O_SYNC);
  await kernel.write(handle, 1024, bytes(512), O_RDWR);
  assert.deepEqual(disk.seen, ['WRITE 0 512 FUA', 'WRITE 512 512 FUA', 'WRITE 1024 512']);
});

test('a part of a block is read, changed and written; with O_DSYNC each write is stable', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open();
  await kernel.writeStable(handle, 500, bytes(1100));
  assert.deepEqual(disk.seen, [
    'READ 0 512',
    'WRITE 0 512 FUA',
    'WRITE 512 1024 FUA',
    'READ 1536 512',
    'WRITE 1536 512 FUA',
  ]);
});

test('two parts of one block in flight together both arrive', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open();
  disk.hold = true;
  const first = kernel.write(handle, 10, new Uint8Array(10).fill(1));
  const second = kernel.write(handle, 20, new Uint8Array(10).fill(2));
  const whole = kernel.write(handle, 0, new Uint8Array(512).fill(3));
  const beside = kernel.write(handle, 512, new Uint8Array(512).fill(4));
  // Only the first has begun, and what is no neighbour's business.
  assert.deepEqual(disk.seen, ['READ 0 512', 'WRITE 512 512']);
  disk.hold = false;
  disk.let();
  await Promise.all([first, second, whole, beside]);
  const { body } = await kernel.read(handle, 0, 513);
  assert.deepEqual([...new Set(body)], [3, 4], 'served in order: the whole block came last');
  assert.equal(disk.seen.filter((line) => line === 'READ 0 512').length, 2);
});

test('fsync is a flush, of every open; closing a file is none', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open();
  await kernel.write(handle, 0, bytes(512));
  assert.equal((await kernel.ask(FUSE_OP.FLUSH, fields(24, [0, handle]))).errno, ERRNO.ENOSYS);
  assert.deepEqual(disk.seen.slice(1), []);
  await kernel.fsync(handle);
  const reader = await kernel.open(O_RDONLY);
  await kernel.fsync(reader);
  await kernel.release(handle);
  assert.deepEqual(disk.seen.slice(1), ['FLUSH 0 0', 'FLUSH 0 0']);
});

test('fallocate: holes, zeroes, and space that is there already', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open();
  await kernel.write(handle, 0, bytes(64 * KiB));
  const { KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE } = FALLOC;
  disk.seen.length = 0;
  assert.equal((await kernel.fallocate(handle, KEEP_SIZE | PUNCH_HOLE, 4096, 8192)).errno, 0);
  assert.equal((await kernel.fallocate(handle, KEEP_SIZE | ZERO_RANGE, 16_384, 4096)).errno, 0);
  assert.deepEqual(disk.seen, ['WRITE_ZEROES 4096 8192', 'WRITE_ZEROES 16384 4096 NO_HOLE']);
  assert.ok((await kernel.read(handle, 4096, 8192)).body.every((byte) => byte === 0));
  // Over the end: cut where the size is kept, refused where the file would grow.
  const punched = await kernel.fallocate(handle, KEEP_SIZE | PUNCH_HOLE, MiB - 512, 4096);
  assert.equal(punched.errno, 0);
  assert.equal((await kernel.fallocate(handle, ZERO_RANGE, MiB - 512, 4096)).errno, ERRNO.EFBIG);
  assert.equal((await kernel.fallocate(handle, 0, 0, MiB)).errno, ERRNO.EOPNOTSUPP);
  assert.equal((await kernel.fallocate(handle, 0x40, 0, 512)).errno, ERRNO.EOPNOTSUPP);
  const whole = await kernel.fallocate(handle, 0, 32 * KiB, 4096);
  assert.equal(whole.errno, disk.info.extents ? 0 : ERRNO.EOPNOTSUPP);
});

test('fallocate of parts of blocks, and with O_SYNC', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open(O_RDWR | O_SYNC);
  await kernel.write(handle, 0, new Uint8Array(4096).fill(9));
  disk.seen.length = 0;
  await kernel.fallocate(handle, FALLOC.KEEP_SIZE | FALLOC.PUNCH_HOLE, 100, 1000);
  assert.deepEqual(disk.seen, [
    'READ 0 512',
    'WRITE 0 512 FUA',
    'WRITE_ZEROES 512 512 FUA',
    'READ 1024 512',
    'WRITE 1024 512 FUA',
  ]);
  const { body } = await kernel.read(handle, 0, 4096);
  assert.deepEqual([body[99], body[100], body[1099], body[1100]], [9, 0, 0, 9]);
});

test('SEEK_DATA and SEEK_HOLE', async () => {
  const { kernel } = await mounted(16 * MiB);
  const handle = await kernel.open();
  await kernel.write(handle, 4 * MiB, bytes(64 * KiB));
  const seek = async (at: number, whence: number): Promise<number> => {
    const { errno, view } = await kernel.seek(handle, at, whence);
    return errno === 0 ? readU64(view, 0) : -errno;
  };
  assert.equal(await seek(0, SEEK.DATA), 4 * MiB);
  assert.equal(await seek(4 * MiB + 7, SEEK.DATA), 4 * MiB + 7);
  assert.equal(await seek(4 * MiB + 7, SEEK.HOLE), 4 * MiB + 64 * KiB);
  assert.equal(await seek(7, SEEK.HOLE), 7);
  assert.equal(await seek(5 * MiB, SEEK.DATA), -ERRNO.ENXIO);
  assert.equal(await seek(16 * MiB, SEEK.HOLE), -ERRNO.ENXIO);
  assert.equal(await seek(0, 0), -ERRNO.EINVAL);
  await kernel.write(handle, 16 * MiB - 64 * KiB, bytes(64 * KiB));
  assert.equal(await seek(16 * MiB - 1, SEEK.HOLE), 16 * MiB, 'the end is a hole');
});

test('attributes: a disk of its size, whose mode and owner can be changed', async () => {
  const { kernel } = await mounted();
  const { body, view } = await kernel.ask(FUSE_OP.GETATTR, new Uint8Array(16));
  assert.equal(body.length, 104);
  assert.equal(readU64(view, 16 + 8), MiB);
  assert.equal(readU32(view, 16 + 60), 0o100600);
  const mode = await kernel.setattr(FATTR.MODE, 68, 0o106_640);
  assert.equal(readU32(mode.view, 16 + 60), 0o100640);
  const owner = await kernel.setattr(FATTR.UID, 76, 1000);
  assert.deepEqual([readU32(owner.view, 84), readU32(owner.view, 88)], [1000, 8]);
  assert.equal((await kernel.ask(FUSE_OP.STATFS, new Uint8Array(0))).body.length, 80);
});

test('truncate: to the size it has, and by O_TRUNC, nothing; else refused', async () => {
  const { kernel } = await mounted();
  const { SIZE, FH } = FATTR;
  assert.equal((await kernel.setattr(SIZE, 16, MiB)).errno, 0);
  assert.equal((await kernel.setattr(SIZE | FH, 16, 0)).errno, ERRNO.EPERM);
  assert.equal((await kernel.setattr(SIZE, 16, 4096)).errno, ERRNO.EPERM);
  assert.equal((await kernel.setattr(SIZE, 16, MiB + 1)).errno, ERRNO.EFBIG);
  const { errno, view } = await kernel.setattr(SIZE, 16, 0);
  assert.deepEqual([errno, readU64(view, 24)], [0, MiB], 'the kernel takes this size over');
});

test('read-only: of the mount and of the disk', async () => {
  const disk = openMemoryStore({ name: 'r', sizeBytes: MiB, readOnly: true });
  const kernel = await FakeKernel.mounted({ settings: { source: sourceOfDevice(disk) } });
  assert.equal((await kernel.ask(FUSE_OP.OPEN, words(O_RDWR, 0))).errno, ERRNO.EROFS);
  const mount = await FakeKernel.mounted({
    settings: { source: sourceOfDevice(new Watched()), readOnly: true },
  });
  assert.equal((await mount.ask(FUSE_OP.OPEN, words(1, 0))).errno, ERRNO.EROFS);
  const handle = await mount.open(O_RDONLY);
  assert.equal((await mount.write(handle, 0, bytes(512))).errno, ERRNO.EBADF);
  assert.equal((await mount.fallocate(handle, 3, 0, 512)).errno, ERRNO.EBADF);
});

/** Every open gets the next device. */
class Changing implements FuseSource {
  readonly sizeBytes = MiB;
  readonly preferredBytes = 4096;
  readonly readOnly = false;
  readonly devices: Watched[] = [];
  readonly closed: number[] = [];
  open(_writable: boolean, opened: (file: FuseFile | null, refused: 'EBUSY' | null) => void): void {
    const number = this.devices.length;
    if (number === 2) {
      opened(null, 'EBUSY');
      return;
    }
    const device = new Watched();
    this.devices.push(device);
    setImmediate(() => opened({ device, close: () => this.closed.push(number) }, null));
  }
}

test('every open may get another device, and is told when it gets none', async () => {
  const source = new Changing();
  const kernel = await FakeKernel.mounted({ settings: { source } });
  const [first, second] = [await kernel.open(), await kernel.open()];
  await kernel.write(first, 0, new Uint8Array(512).fill(1));
  await kernel.write(second, 0, new Uint8Array(512).fill(2));
  assert.equal((await kernel.read(first, 0, 1)).body[0], 1);
  assert.equal((await kernel.read(second, 0, 1)).body[0], 2);
  assert.equal((await kernel.ask(FUSE_OP.OPEN, words(O_RDWR, 0))).errno, ERRNO.EBUSY);
  await kernel.release(first);
  assert.deepEqual(source.closed, [0]);
  assert.equal((await kernel.read(first, 0, 1)).errno, ERRNO.EBADF);
  assert.equal((await kernel.read(second, 0, 1)).errno, 0);
  kernel.session.dispose();
  assert.deepEqual(source.closed, [0, 1]);
});

test('pages of a former open are never kept', async () => {
  for (const directIo of [true, false]) {
    const kernel = await FakeKernel.mounted({
      settings: { source: sourceOfDevice(new Watched()), directIo },
    });
    const { view } = await kernel.ask(FUSE_OP.OPEN, words(O_RDWR, 0));
    const KEEP_CACHE = 2;
    assert.equal(readU32(view, 8) & KEEP_CACHE, 0);
    assert.equal((readU32(view, 8) & FOPEN.DIRECT_IO) !== 0, directIo);
  }
});

test('what is not known, or not there, has its own error', async () => {
  const { kernel } = await mounted();
  for (const opcode of [5, 9, 22, 28, 37, 40, 47, 50, 51, 4096, 2 ** 32 - 1]) {
    assert.equal((await kernel.ask(opcode, new Uint8Array(64))).errno, ERRNO.ENOSYS, `${opcode}`);
  }
  assert.equal((await kernel.ask(FUSE_OP.IOCTL, new Uint8Array(32))).errno, ERRNO.ENOTTY);
  assert.equal((await kernel.ask(FUSE_OP.LOOKUP, new Uint8Array(2))).errno, ERRNO.ENOENT);
  assert.equal((await kernel.ask(FUSE_OP.GETATTR, new Uint8Array(16), 2)).errno, ERRNO.ENOENT);
  assert.equal((await kernel.read(99, 0, 512)).errno, ERRNO.EBADF);
  assert.equal((await kernel.release(99)).errno, ERRNO.EBADF);
});

test('messages that are too short, or lie about their length', async () => {
  const { kernel } = await mounted();
  const handle = await kernel.open();
  for (const opcode of Object.values(FUSE_OP)) {
    const silent: readonly number[] = [FUSE_OP.FORGET, FUSE_OP.BATCH_FORGET, FUSE_OP.INTERRUPT];
    const any: readonly number[] = [FUSE_OP.STATFS, FUSE_OP.DESTROY];
    if (silent.includes(opcode) || any.includes(opcode)) continue;
    assert.equal((await kernel.ask(opcode, new Uint8Array(0))).errno, ERRNO.EINVAL, `${opcode}`);
  }
  const long = fields(40 + 512, [0, handle]);
  viewOf(long).setUint32(16, 513, true);
  assert.equal((await kernel.ask(FUSE_OP.WRITE, long)).errno, ERRNO.EINVAL);
  assert.equal(kernel.overWith, undefined);
  const lies = message(FUSE_OP.STATFS, 4, 1, new Uint8Array(8));
  viewOf(lies).setUint32(0, 40, true);
  kernel.say(lies);
  assert.match(kernel.overWith ?? '', /not as long as it says/);
});

test('noise never throws, and leaves nothing behind', async () => {
  const prng = new Prng(5);
  // These two may end a session, and then nobody is answered.
  const final: readonly number[] = [FUSE_OP.DESTROY, FUSE_OP.INIT];
  const opcodes = [...Object.values(FUSE_OP), 999].filter((op) => !final.includes(op));
  const silent: readonly number[] = [FUSE_OP.FORGET, FUSE_OP.BATCH_FORGET, FUSE_OP.INTERRUPT];
  for (let round = 0; round < 20; round += 1) {
    const { kernel } = await mounted();
    await kernel.open();
    const asked: Promise<unknown>[] = [];
    for (let i = 0; i < 100; i += 1) {
      const body = new Uint8Array(prng.below(200));
      prng.fill(body);
      // Often the handle that is there.
      if (prng.chance(0.7)) body.set(fields(8, [0, 1]).subarray(0, body.length));
      if (prng.chance(0.5)) body.fill(0, 10, 16);
      const opcode = prng.pick(opcodes);
      const asking = kernel.ask(opcode, body, prng.chance(0.9) ? 1 : prng.below(2 ** 40));
      if (!silent.includes(opcode)) asked.push(asking);
    }
    await Promise.all(asked);
    assert.equal(kernel.session.inFlight, 0);
    kernel.session.dispose();
    assert.equal(kernel.pool.inUse, 0);
  }
});

test('without memory requests wait, and none is lost', async () => {
  const disk = new Watched(8 * MiB);
  const kernel = await FakeKernel.mounted({
    settings: { source: sourceOfDevice(disk) },
    pageLimit: 40,
    slow: false,
  });
  const handle = await kernel.open();
  disk.hold = true;
  const reads = Array.from({ length: 30 }, (_, i) => kernel.read(handle, i * 4096, 256 * KiB));
  assert.ok(kernel.waiting > 0, 'not all found room');
  assert.ok(kernel.pool.inUse <= 40);
  disk.hold = false;
  disk.let();
  for (const { errno, body } of await Promise.all(reads)) {
    assert.deepEqual([errno, body.length], [0, 256 * KiB]);
  }
  assert.equal(kernel.waiting, 0);
});

test('a long read that lacks memory gives nobody a false alarm', async () => {
  const disk = new Watched(1 * MiB);
  const source = sourceOfDevice(disk);
  const kernel = await FakeKernel.mounted({ settings: { source }, pageLimit: 8 });
  const handle = await kernel.open();
  // One page has the answers, one the message: three are left of the four that it needs.
  const others = Array.from({ length: 3 }, () => kernel.pool.take());
  let freed = 0;
  kernel.pool.whenFree(() => (freed += 1));
  const read = kernel.read(handle, 0, 1 * MiB);
  assert.deepEqual([kernel.waiting, kernel.pool.left, freed], [1, 3, 0]);
  for (const page of others) page?.release();
  assert.equal(freed, 1);
  kernel.progress();
  assert.equal((await read).body.length, 1 * MiB);
});

test('no more requests are taken than the limit', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open();
  disk.hold = true;
  // Each message that waits takes a page, of which there are not so many.
  const count = MAX_REQUESTS_IN_FLIGHT + 5;
  const flushes = Array.from({ length: count }, () => kernel.fsync(handle));
  assert.equal(kernel.session.inFlight, MAX_REQUESTS_IN_FLIGHT);
  assert.ok(kernel.waiting > 0);
  disk.hold = false;
  disk.let();
  await Promise.all(flushes);
  assert.equal(kernel.session.inFlight, 0);
});

test('a connection that is gone: nobody is answered, opens are let go, memory comes back', async () => {
  const source = new Changing();
  const kernel = await FakeKernel.mounted({ settings: { source } });
  const handle = await kernel.open();
  const [device] = source.devices as [Watched];
  device.hold = true;
  void kernel.read(handle, 0, 4096);
  void kernel.writeStable(handle, 10, bytes(1000));
  kernel.session.disconnect();
  assert.deepEqual(source.closed, [0], 'at once, whatever is in flight');
  assert.equal(kernel.session.inFlight, 2);
  while (device.held.length > 0) device.let();
  assert.equal(kernel.session.inFlight, 0);
  assert.equal(kernel.unanswered, 2);
  kernel.session.dispose();
  assert.equal(kernel.pool.inUse, 0);
  assert.deepEqual(source.closed, [0]);
});

test('a device that fails is what the program sees, also half-way through a part of a block', async () => {
  const { kernel, disk } = await mounted();
  const handle = await kernel.open();
  disk.hold = true;
  const read = kernel.read(handle, 0, 4096);
  const write = kernel.write(handle, 8191, bytes(2));
  const flush = kernel.fsync(handle);
  for (const io of disk.held.splice(0)) io.complete('EIO');
  for (const answer of [read, write, flush]) assert.equal((await answer).errno, ERRNO.EIO);
  disk.hold = false;
  assert.equal((await kernel.write(handle, 8191, bytes(2))).errno, 0, 'the gate is open again');
});
