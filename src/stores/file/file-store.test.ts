import assert from 'node:assert/strict';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  unlinkSync,
} from 'node:fs';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { KiB, MiB } from '../../base/units.ts';
import { discard, extents, flush, perform, read, write, writeZeroes } from '../../block/await.ts';
import { EXTENT } from '../../block/extents.ts';
import { FLAG, Io, OP } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { FALLOCATE } from '../../reactor/reactor.ts';
import type { FileStore } from './file-store.ts';
import { openFileStore, type FileStoreOptions } from './open.ts';
import {
  openFaultyReactor,
  REACTORS,
  storeOptions,
  TestDirectory,
  type FaultyReactor,
} from './testing.ts';

const SIZE_BYTES = 4 * MiB;
const PUNCH = FALLOCATE.PUNCH_HOLE | FALLOCATE.KEEP_SIZE;
const ZERO = FALLOCATE.ZERO_RANGE | FALLOCATE.KEEP_SIZE;
const EOPNOTSUPP = -95;

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // The directory's own descriptor is gone by now.
    return '';
  }
}

const code = (expected: string) => (error: { code?: string }) => error.code === expected;

for (const kind of REACTORS) {
  void describe(`file store on ${kind}`, () => {
    let reactor: FaultyReactor;
    let directory: TestDirectory;
    let path: string;
    let lines: string[];
    let stores: FileStore[];

    const open = async (change: Partial<FileStoreOptions> = {}): Promise<FileStore> => {
      const store = await openFileStore(reactor, storeOptions(path, lines, change));
      stores.push(store);
      return store;
    };

    beforeEach(async () => {
      reactor ??= await openFaultyReactor(kind);
      directory = new TestDirectory();
      path = directory.image(SIZE_BYTES);
      lines = [];
      stores = [];
    });
    afterEach(async () => {
      reactor.files.fault = null;
      reactor.files.mostBytes = Infinity;
      reactor.files.traits = (found) => found;
      for (const store of stores) await store.close();
      directory.remove();
    });
    after(() => reactor.close());

    test('what is written is in the file', async () => {
      const store = await open();
      await write(store, 1000, Buffer.from('holdfast'));
      await flush(store);
      assert.equal(readFileSync(path).toString('latin1', 1000, 1008), 'holdfast');
    });

    test('short reads and writes are continued', async () => {
      for (const direct of [false, true]) {
        const store = await open({ direct });
        const bytes = new Uint8Array(64 * KiB).map((_, i) => i * 7 + (i >> 8));
        reactor.files.mostBytes = 4096;
        await write(store, 8192, bytes);
        assert.deepEqual(await read(store, 8192, bytes.length), bytes);
        reactor.files.mostBytes = Infinity;
        assert.deepEqual(await read(store, 8192, bytes.length), bytes);
        await store.close();
      }
    });

    test('EINTR and EAGAIN are asked again', async () => {
      const store = await open();
      const results = [-4, -11, -4];
      reactor.files.fault = ({ kind: what }) => (what === 'write' ? (results.pop() ?? null) : null);
      await write(store, 0, new Uint8Array(512).fill(3));
      assert.equal(results.length, 0);
      assert.equal((await read(store, 0, 1))[0], 3);
    });

    test('a flush of a clean disk costs no sync, that of one client costs one', async () => {
      const store = await open();
      const before = reactor.files.counts.datasync;
      await flush(store);
      assert.equal(reactor.files.counts.datasync - before, 0);
      await write(store, 0, new Uint8Array(512));
      await flush(store);
      assert.equal(reactor.files.counts.datasync - before, 1);
      await flush(store);
      assert.equal(reactor.files.counts.datasync - before, 1);
      assert.equal(store.domain.counters.leftOut, 2);
    });

    test('64 commits at once share their syncs', async () => {
      const store = await open();
      const before = reactor.files.counts.datasync;
      await Promise.all(
        Array.from({ length: 64 }, async (_, i) => {
          await write(store, i * 4096, new Uint8Array(4096));
          await flush(store);
        }),
      );
      const syncs = reactor.files.counts.datasync - before;
      assert.ok(syncs <= 64 / 8, `${syncs} syncs`);
      assert.equal(store.domain.unstableWrites, 0);
    });

    test('two exports of one inode share one flush domain', async () => {
      const first = await open();
      const second = await open();
      const reader = await open({ readOnly: true });
      assert.equal(first.domain, second.domain);
      assert.equal(first.domain, reader.domain);
      const before = reactor.files.counts.datasync;
      await write(first, 0, new Uint8Array(512).fill(9));
      await flush(reader);
      assert.equal(reactor.files.counts.datasync - before, 1);
      await flush(first);
      await flush(second);
      assert.equal(reactor.files.counts.datasync - before, 1);
      assert.equal((await read(reader, 511, 1))[0], 9);
      await assert.rejects(write(reader, 0, new Uint8Array(512)), code('EROFS'));
    });

    test('a reader first, then a writer: the writer gets what it needs', async () => {
      const reader = await open({ readOnly: true });
      const writer = await open();
      assert.ok(writer.info.discard && !reader.info.discard);
      await write(writer, 0, new Uint8Array(512).fill(5));
      assert.equal((await read(reader, 0, 1))[0], 5);
      await reader.close();
      await flush(writer);
    });

    test('FUA is kept natively or by a sync, and counted', async () => {
      const store = await open();
      const { counters } = store.domain;
      for (let i = 0; i < 20; i += 1) await write(store, 0, new Uint8Array(4096), FLAG.FUA);
      assert.equal(counters.fuaNative + counters.fuaEmulated, 20);
      assert.equal(store.info.fua, kind === 'io_uring' ? 'native' : 'emulated');
      assert.equal(counters.fuaNative > 0, kind === 'io_uring');
      await writeZeroes(store, 0, 4096, FLAG.FUA);
      await discard(store, 0, 4096, FLAG.FUA);
      assert.equal(counters.fuaNative + counters.fuaEmulated, 22);
      assert.equal(store.domain.unstableWrites, 0);
    });

    test('without RWF_DSYNC every FUA write is followed by a sync', async () => {
      reactor.files.traits = (found) => ({ ...found, dsync: false });
      const store = await open();
      const before = { ...reactor.files.counts, dsync: reactor.files.dsyncWrites };
      await write(store, 0, new Uint8Array(512), FLAG.FUA);
      await flush(store);
      await write(store, 0, new Uint8Array(512), FLAG.FUA);
      assert.equal(reactor.files.counts.datasync - before.datasync, 2);
      assert.equal(reactor.files.dsyncWrites, before.dsync);
    });

    test('zeroes: punched, else zeroed, else written; what fails is not asked again', async () => {
      const store = await open();
      const bytes = new Uint8Array(3 * MiB).fill(1);
      const modes: number[] = [];
      reactor.files.fault = ({ kind: what, mode }) => {
        if (what === 'allocate') modes.push(mode);
        return what === 'allocate' ? EOPNOTSUPP : null;
      };
      for (let at = 0; at < bytes.length; at += MiB) await write(store, at, bytes.subarray(0, MiB));
      await assert.rejects(writeZeroes(store, 0, 4096, FLAG.FAST), code('EOPNOTSUPP'));
      assert.deepEqual(modes, [PUNCH, ZERO]);
      assert.ok(!store.info.discard && !store.info.fastZero);
      await writeZeroes(store, 1, 3 * MiB - 2);
      assert.deepEqual(modes, [PUNCH, ZERO], 'asked again');
      const found = readFileSync(path);
      assert.ok(found.subarray(1, 3 * MiB - 1).every((byte) => byte === 0));
      assert.equal(found[0], 1);
      assert.equal(found[3 * MiB - 1], 1);
      await assert.rejects(discard(store, 0, 4096), code('EOPNOTSUPP'));
    });

    test('zeroes with NO_HOLE are never punched', async () => {
      const store = await open();
      const modes: number[] = [];
      reactor.files.fault = ({ kind: what, mode }) => {
        if (what === 'allocate') modes.push(mode);
        return null;
      };
      await writeZeroes(store, 0, 4096, FLAG.NO_HOLE);
      await writeZeroes(store, 0, 4096);
      assert.deepEqual(modes, [ZERO, PUNCH]);
    });

    test('the map tells data from holes', async () => {
      const store = await open();
      await write(store, 128 * KiB, new Uint8Array(64 * KiB).fill(1));
      const map = await extents(store, 0, SIZE_BYTES);
      assert.deepEqual(map.lengths.slice(0, map.count), [
        128 * KiB,
        64 * KiB,
        SIZE_BYTES - 192 * KiB,
      ]);
      assert.deepEqual(map.flags.slice(0, map.count), [3, 0, 3]);
      const one = await extents(store, 128 * KiB, MiB, FLAG.ONE);
      assert.deepEqual([one.count, one.lengths[0], one.flags[0]], [1, 64 * KiB, 0]);
      await discard(store, 128 * KiB, 64 * KiB);
      const after = await extents(store, 0, SIZE_BYTES, FLAG.ONE);
      assert.deepEqual([after.lengths[0], after.flags[0]], [SIZE_BYTES, EXTENT.HOLE | EXTENT.ZERO]);
    });

    test('a ragged file is mapped a part at a time', async () => {
      const store = await open();
      for (let at = 0; at < SIZE_BYTES; at += 4096) {
        if ((at / 4096) % 2 === 0) await write(store, at, new Uint8Array(4096).fill(1));
      }
      let at = 0;
      let requests = 0;
      while (at < SIZE_BYTES) {
        const map = await extents(store, at, SIZE_BYTES - at);
        assert.ok(map.totalBytes > 0);
        at += map.totalBytes;
        requests += 1;
      }
      assert.ok(requests > 1);
    });

    test('a file cut while it is served fails with EIO, and says so once', async () => {
      const store = await open();
      await write(store, 0, new Uint8Array(SIZE_BYTES / 4).fill(1));
      truncateSync(path, MiB);
      await assert.rejects(read(store, MiB - 512, 1024), code('EIO'));
      await assert.rejects(read(store, 2 * MiB, 512), code('EIO'));
      await assert.rejects(write(store, 2 * MiB, new Uint8Array(512)), code('EIO'));
      await assert.rejects(writeZeroes(store, 2 * MiB, 512), code('EIO'));
      await assert.rejects(extents(store, 0, SIZE_BYTES), code('EIO'));
      assert.equal((await read(store, MiB - 512, 512))[0], 1);
      assert.deepEqual(
        lines.map((line) => /was cut from 4 MiB/.test(line)),
        [true],
      );
    });

    test('the map never calls a missing end a hole', async () => {
      const store = await open();
      truncateSync(path, MiB);
      await assert.rejects(extents(store, 0, SIZE_BYTES), code('EIO'));
    });

    test('a file that cannot be looked at any more ends nothing, and is said once', async () => {
      await open();
      // As a file server that has lost the file (ESTALE) or a dead FUSE program (ENOTCONN): fstat(2) fails.
      const fds = readdirSync('/proc/self/fd').filter(
        (fd) => linkOf(`/proc/self/fd/${fd}`) === path,
      );
      assert.ok(fds.length >= 2);
      for (const fd of fds) closeSync(Number(fd));
      try {
        reactor.fireTimers();
        reactor.fireTimers();
      } finally {
        // The numbers are the store's to close.
        for (const _ of fds) openSync('/dev/null', 'r');
      }
      assert.equal(lines.length, 1);
      assert.match(lines[0] ?? '', /cannot be looked at/);
    });

    test('a file deleted while it is served is said once, and still served', async () => {
      const store = await open();
      reactor.fireTimers();
      assert.deepEqual(lines, []);
      unlinkSync(path);
      reactor.fireTimers();
      reactor.fireTimers();
      assert.equal(lines.length, 1);
      assert.match(lines[0] ?? '', /deleted or replaced/);
      await write(store, 0, new Uint8Array(512));
      await flush(store);
    });

    test('failures are passed on, counted as changes, and told once a minute', async () => {
      const store = await open();
      reactor.files.fault = ({ kind: what }) => (what === 'write' ? -28 : null);
      for (let i = 0; i < 3; i += 1) {
        await assert.rejects(write(store, 0, new Uint8Array(512)), code('ENOSPC'));
      }
      assert.equal(lines.length, 1);
      assert.match(lines[0] ?? '', /^disk '.*': a request failed with errno 28: no space/);
      assert.equal(store.domain.unstableWrites, 3);
      reactor.files.fault = null;
      await flush(store);
      assert.equal(store.domain.unstableWrites, 0);
    });

    test('misaligned memory is bounced under O_DIRECT, more of it at once than there are pages', async () => {
      const store = await open({ direct: true });
      const { blockBytes } = store.info;
      const work = Array.from({ length: 40 }, async (_, i) => {
        const region = Region.plain(200_000);
        region.bytes.fill(i + 1);
        const io = new Io();
        io.reset(OP.WRITE, i * 16 * blockBytes, 16 * blockBytes, 0);
        io.segments.push(region, 3, 100);
        io.segments.push(region, 500, 16 * blockBytes - 100);
        await new Promise<void>((resolve, reject) => {
          io.push({
            ioDone: (done) => {
              letEventLoopRun();
              if (done.error === null) resolve();
              else reject(new Error(done.error));
            },
          });
          store.submit(io);
        });
        const found = await read(store, i * 16 * blockBytes, 16 * blockBytes);
        assert.ok(found.every((byte) => byte === i + 1));
      });
      await Promise.all(work);
    });

    test('memory with an address is used as it is where it is aligned, and bounced where not', async () => {
      const store = await open({ direct: true });
      const page = reactor.pool.take();
      assert.ok(page !== null);
      const length = 8 * store.info.blockBytes;
      for (const start of [0, store.info.memoryAlignment, 1, 28, store.info.memoryAlignment - 1]) {
        for (const op of [OP.WRITE, OP.READ]) {
          const io = new Io();
          io.reset(op, 0, length, 0);
          io.segments.push(page.region, start, length);
          const value = 1 + (start % 200);
          page.region.bytes.fill(op === OP.WRITE ? value : 0);
          await new Promise<void>((resolve) => {
            io.push({
              ioDone: () => {
                letEventLoopRun();
                resolve();
              },
            });
            store.submit(io);
          });
          assert.equal(io.error, null, `at ${start}`);
          const found = page.region.bytes.subarray(start, start + length);
          assert.ok(found.every((byte) => byte === value));
        }
      }
      page.release();
    });

    test('a discard that the file system does not know is refused, and not asked for again', async () => {
      const store = await open();
      const before = reactor.files.counts.allocate;
      reactor.files.fault = ({ kind: what }) => (what === 'allocate' ? EOPNOTSUPP : null);
      assert.ok(store.info.discard);
      for (let i = 0; i < 2; i += 1) {
        await assert.rejects(discard(store, 0, 4096), code('EOPNOTSUPP'));
        assert.ok(!store.info.discard);
      }
      assert.equal(reactor.files.counts.allocate - before, 1);
    });

    test('CACHE reads ahead, and has nothing to do under O_DIRECT', async () => {
      const buffered = await open();
      const before = reactor.files.counts.willNeed;
      await perform(buffered, OP.CACHE, 0, MiB);
      assert.equal(reactor.files.counts.willNeed - before, 1);
      reactor.files.fault = ({ kind: what }) => (what === 'willNeed' ? -22 : null);
      await perform(buffered, OP.CACHE, 0, MiB);
      await buffered.close();
      const direct = await open({ direct: true });
      await perform(direct, OP.CACHE, 0, MiB);
      assert.equal(reactor.files.counts.willNeed - before, 2);
    });
  });
}
