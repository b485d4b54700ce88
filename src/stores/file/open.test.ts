import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test, type TestContext } from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { KiB, MiB } from '../../base/units.ts';
import { flush, read, write, writeZeroes, discard } from '../../block/await.ts';
import { FLAG } from '../../block/io.ts';
import {
  clearPoison,
  readStateFile,
  statePathOf,
  writeStateFile,
} from '../../durability/state-file.ts';
import type { FileStore } from './file-store.ts';
import { openFileStore, stateFilePath, syncOrPoison, type FileStoreOptions } from './open.ts';
import { escapeId } from './state-path.ts';
import { openFaultyReactor, storeOptions, TestDirectory, type FaultyReactor } from './testing.ts';

let reactor: FaultyReactor;
let directory: TestDirectory;
let lines: string[];
let cleanUp: (() => void)[];

before(async () => {
  reactor = await openFaultyReactor('portable');
});
after(() => reactor.close());
beforeEach(() => {
  directory = new TestDirectory();
  lines = [];
  cleanUp = [];
});
afterEach(() => {
  reactor.files.fault = null;
  for (const undo of cleanUp.toReversed()) undo();
  directory.remove();
});

const open = (path: string, change: Partial<FileStoreOptions> = {}): Promise<FileStore> =>
  openFileStore(reactor, storeOptions(path, lines, change));

/** Opening it is refused with one line and a hint, and leaves everything as it was. */
async function refused(
  path: string,
  what: RegExp,
  change: Partial<FileStoreOptions> = {},
): Promise<void> {
  const before = readdirSync(directory.path, { recursive: true });
  await assert.rejects(open(path, change), (error) => {
    assert.ok(error instanceof ConfigError, String(error));
    assert.match(error.message, what);
    assert.ok(!error.message.includes('\n') && error.hint.length > 0);
    return true;
  });
  assert.deepEqual(readdirSync(directory.path, { recursive: true }), before);
  assert.deepEqual(lines, []);
}

/** Gives up root's rights for a while. */
async function asNobody(body: () => Promise<void>): Promise<void> {
  process.seteuid?.(65_534);
  try {
    await body();
  } finally {
    process.seteuid?.(0);
  }
}

/** Runs a command that needs rights this test may not have. */
function asRoot(context: TestContext, command: string, ...args: string[]): boolean {
  const done = spawnSync(command, args, { encoding: 'utf8' });
  if (done.status === 0) return true;
  context.skip(`${command} ${args.join(' ')}: ${done.error?.message ?? done.stderr.trim()}`);
  return false;
}

function mount(context: TestContext, type: string, options: string): string | null {
  const point = new TestDirectory();
  cleanUp.push(() => point.remove());
  if (!asRoot(context, 'mount', '-t', type, '-o', options, 'none', point.path)) return null;
  cleanUp.push(() => spawnSync('umount', ['-l', point.path]));
  return point.path;
}

void describe('a disk that cannot be opened', () => {
  test('a missing file, and a missing directory', async () => {
    await refused(join(directory.path, 'none.img'), /does not exist/);
    await refused(join(directory.path, 'none/none.img'), /does not exist/);
    await refused(join(directory.image(512), 'x'), /not a directory/);
  });

  test('a symbolic link that leads nowhere', async () => {
    symlinkSync('loop', join(directory.path, 'loop'));
    await refused(join(directory.path, 'loop'), /leads back to itself/);
  });

  test('a directory, a FIFO, a character device, a socket', async () => {
    await refused(directory.path, /is a directory/);
    const fifo = join(directory.path, 'fifo');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    await refused(fifo, /is a FIFO/);
    await refused('/dev/null', /is a character device/);
    const socket = join(directory.path, 'socket');
    const server = createServer().listen(socket);
    await new Promise((resolve) => server.once('listening', resolve));
    await refused(socket, /is a socket/);
    await new Promise((resolve) => server.close(resolve));
  });

  test('an empty file, and odd sizes', async () => {
    await refused(directory.image(0), /is empty/);
    await refused(directory.image(513), /odd size: 513 bytes/);
    await refused(directory.image(MiB + 1), /odd size/, { readOnly: true });
    await refused(directory.image(512 + 4096), /needs a multiple of 4096/, { blockBytes: 4096 });
  });

  test('no permission', async (context) => {
    if (process.geteuid?.() !== 0 || process.seteuid === undefined) {
      context.skip('needs root, to become somebody else');
      return;
    }
    const path = directory.image(MiB);
    chmodSync(directory.path, 0o755);
    chmodSync(path, 0o644);
    await asNobody(() => refused(path, /may not be written by this user/));
    // A reader needs no more than to read.
    await asNobody(async () => (await open(path, { readOnly: true })).close());
    chmodSync(path, 0o600);
    await asNobody(() => refused(path, /may not be read by this user/, { readOnly: true }));
  });

  test('a file system mounted read-only', async (context) => {
    const point = mount(context, 'tmpfs', 'size=2m');
    if (point === null) return;
    const path = join(point, 'disk.img');
    writeFileSync(path, new Uint8Array(4096));
    if (!asRoot(context, 'mount', '-o', 'remount,ro', point)) return;
    await refused(path, /mounted read-only/);
    const other = directory.image(MiB);
    await refused(other, /its state file, .*, cannot be kept in/, {
      stateDirectory: join(point, 'a/b'),
    });
    const store = await open(path, { readOnly: true });
    await read(store, 0, 4096);
    await store.close();
  });

  test('a file system without O_DIRECT', async (context) => {
    const point = mount(context, 'ramfs', 'mode=700');
    if (point === null) return;
    const path = join(point, 'disk.img');
    writeFileSync(path, new Uint8Array(4096));
    await refused(path, /without O_DIRECT \(ramfs\)/, { direct: true });
  });

  test('an immutable file', async (context) => {
    const path = directory.image(MiB);
    if (!asRoot(context, 'chattr', '+i', path)) return;
    cleanUp.push(() => spawnSync('chattr', ['-i', path]));
    await refused(path, /is protected by the kernel/);
  });

  test('one inode with two kinds of cache, block size or sync policy', async () => {
    const path = directory.image(MiB);
    const other = join(directory.path, 'same.img');
    linkSync(path, other);
    const store = await open(path, { blockBytes: 1 });
    await refused(other, /is served already through the page cache/, { direct: true });
    await refused(other, /is served already with --on-sync-error poison/, { onSyncError: 'stop' });
    await refused(other, /with blocks of 1 bytes/, { blockBytes: 512 });
    await store.close();
    const direct = await open(other, { direct: true });
    await refused(path, /is served already with O_DIRECT/);
    await direct.close();
  });

  test('a state file that is not understood: what it says must not be guessed at', async () => {
    const path = directory.image(MiB);
    writeFileSync(statePathOf(path), 'something else');
    await refused(path, /is not a state file of this version/);
  });
});

void describe('what outlives a restart', () => {
  test('nothing is left beside a disk that was only read, or written with FUA', async () => {
    const path = directory.image(MiB);
    const reader = await open(path, { readOnly: true });
    await read(reader, 0, 512);
    await flush(reader);
    await reader.close();
    const writer = await open(path);
    await write(writer, 0, new Uint8Array(512), FLAG.FUA);
    await flush(writer);
    await writer.close();
    assert.deepEqual(readdirSync(directory.path), ['disk.img']);
  });

  test('the clean flag goes before the first volatile write and comes back at a clean stop', async () => {
    const path = directory.image(MiB);
    const store = await open(path);
    await write(store, 0, new Uint8Array(512));
    assert.equal(readStateFile(statePathOf(path))?.clean, false);
    await flush(store);
    await store.close();
    assert.equal(readStateFile(statePathOf(path))?.clean, true);
    const again = await open(path);
    await write(again, 0, new Uint8Array(512));
    await again.close();
    assert.equal(readStateFile(statePathOf(path))?.clean, false, 'closed without a flush');
  });

  test('a crash of the host is noticed (P10)', async () => {
    const path = directory.image(MiB);
    const store = await open(path);
    await write(store, 0, new Uint8Array(512));
    await store.close();
    const record = readStateFile(statePathOf(path));
    assert.ok(record !== null);
    const same = await open(path);
    assert.ok(!(same.state?.hasLost('peer') ?? true), 'the host did not crash');
    await same.close();
    writeStateFile(statePathOf(path), { ...record, bootId: 'another boot' });
    const next = await open(path);
    assert.ok(next.state?.hasLost('peer'));
    assert.match(lines.at(-1) ?? '', /^disk '.*disk\.img': this host went down/);
    await next.close();
  });

  test('a failed sync is remembered until an operator clears it (P5)', async () => {
    const path = directory.image(MiB);
    const store = await open(path);
    await write(store, 0, new Uint8Array(512));
    reactor.files.fault = ({ kind }) => (kind === 'datasync' ? -5 : null);
    await assert.rejects(flush(store), /EIO/);
    reactor.files.fault = null;
    await assert.rejects(flush(store), /EIO/);
    await assert.rejects(write(store, 0, new Uint8Array(512)), /EIO/);
    await store.close();
    assert.equal(lines.length, 1, lines.join('\n'));
    const again = await open(path);
    await assert.rejects(flush(again), /EIO/);
    await assert.rejects(write(again, 0, new Uint8Array(512), FLAG.FUA), /EIO/);
    await read(again, 0, 512);
    await again.close();
    assert.notEqual(clearPoison(statePathOf(path)), null);
    const cleared = await open(path);
    await write(cleared, 0, new Uint8Array(512));
    await flush(cleared);
    await cleared.close();
  });

  test('a writer that joins a reader finds the poison too', async () => {
    const path = directory.image(MiB);
    const store = await open(path);
    await write(store, 0, new Uint8Array(512));
    reactor.files.fault = ({ kind }) => (kind === 'datasync' ? -5 : null);
    await assert.rejects(flush(store), /EIO/);
    await store.close();
    reactor.files.fault = null;
    const reader = await open(path, { readOnly: true });
    const writer = await open(path);
    await assert.rejects(write(writer, 0, new Uint8Array(512)), /EIO/);
    await writer.close();
    await reader.close();
  });

  test('a service with a state directory uses it for images it cannot keep state beside', () => {
    const stats = statSync(directory.image(MiB));
    const service = { STATE_DIRECTORY: join(directory.path, 'service') };
    const where = (path: string, environment: NodeJS.ProcessEnv): string =>
      stateFilePath({}, path, stats, environment);
    const path = join(directory.path, 'disk.img');
    assert.equal(where(path, {}), `${path}.holdfast`);
    assert.equal(where(path, service), `${path}.holdfast`);
    const elsewhere = join(directory.path, 'unwritable/disk.img');
    assert.equal(where(elsewhere, {}), `${elsewhere}.holdfast`);
    const kept = (image: string): string =>
      join(service.STATE_DIRECTORY, `${escapeId(image)}.holdfast`);
    assert.equal(where(elsewhere, service), kept(elsewhere));
    // Once kept there, always found there.
    mkdirSync(service.STATE_DIRECTORY);
    writeFileSync(kept(path), '');
    assert.equal(where(path, service), kept(path));
    writeFileSync(`${path}.holdfast`, '');
    assert.equal(where(path, service), `${path}.holdfast`);
  });

  test('the state can be kept in another directory', async () => {
    const path = directory.image(MiB);
    const state = join(directory.path, 'a/b');
    const store = await open(path, { stateDirectory: state });
    await write(store, 0, new Uint8Array(512));
    await store.close();
    assert.deepEqual(readdirSync(directory.path).toSorted(), ['a', 'disk.img']);
    const [name = ''] = readdirSync(state);
    assert.match(name, /^-.*-disk\.img\.holdfast$/);
  });
});

void describe('on other file systems and devices', () => {
  test('a full file system: ENOSPC for that request, one line, and the disk goes on', async (context) => {
    const point = mount(context, 'tmpfs', 'size=1m');
    if (point === null) return;
    const path = join(point, 'disk.img');
    spawnSync('truncate', ['-s', '8M', path]);
    const store = await open(path);
    const piece = new Uint8Array(512 * KiB).fill(1);
    const results = await Promise.allSettled(
      Array.from({ length: 8 }, (_, i) => write(store, i * piece.length, piece)),
    );
    const failed = results.filter((result) => result.status === 'rejected');
    assert.ok(failed.length >= 6, `${failed.length} failed`);
    for (const result of failed) assert.match(String(result.reason), /ENOSPC/);
    assert.equal(lines.filter((line) => line.includes('no space')).length, 1);
    assert.ok(store.info.discard);
    await discard(store, 0, store.info.sizeBytes);
    await write(store, 0, piece);
    await flush(store);
    await store.close();
  });

  test('tmpfs has no ZERO_RANGE: zeroes with NO_HOLE are written', async (context) => {
    const shm = '/dev/shm';
    if (statSync(shm, { throwIfNoEntry: false }) === undefined) {
      context.skip('no /dev/shm');
      return;
    }
    const memory = new TestDirectory(shm);
    cleanUp.push(() => memory.remove());
    const store = await open(memory.image(4 * MiB));
    await write(store, 0, new Uint8Array(MiB).fill(1));
    await writeZeroes(store, 512, MiB - 1024, FLAG.NO_HOLE);
    const found = await read(store, 0, MiB);
    assert.ok(found.subarray(512, MiB - 512).every((byte) => byte === 0));
    assert.equal(found[511], 1);
    assert.equal(found[MiB - 512], 1);
    assert.equal(store.info.rotational, false);
    await store.close();
  });

  test('a block device', async (context) => {
    const image = directory.image(8 * MiB);
    const attached = spawnSync('losetup', ['-f', '--show', image], { encoding: 'utf8' });
    const device = attached.stdout.trim();
    if (attached.status !== 0) {
      context.skip(`losetup: ${attached.error?.message ?? attached.stderr.trim()}`);
      return;
    }
    cleanUp.push(() => spawnSync('losetup', ['-d', device]));
    const state = join(directory.path, 'state');
    for (const direct of [false, true]) {
      const store = await open(device, { direct, stateDirectory: state });
      assert.equal(store.info.sizeBytes, 8 * MiB);
      assert.equal(store.info.extents, false);
      const bytes = new Uint8Array(16 * KiB).fill(7);
      await write(store, 0, bytes);
      await writeZeroes(store, 512, 1024);
      await writeZeroes(store, 4096, 4096, FLAG.NO_HOLE | FLAG.FUA);
      if (store.info.discard) {
        await discard(store, 8192, 4096);
        if (!direct) await discard(store, 12_288 + 100, 1000);
      }
      // Not whole sectors, so that fallocate(2) will not do it.
      if (!direct) await writeZeroes(store, 1636, 200);
      await flush(store);
      const found = await read(store, 0, 16 * KiB);
      assert.ok(found.subarray(512, 1536).every((byte) => byte === 0));
      assert.ok(found.subarray(4096, 8192).every((byte) => byte === 0));
      assert.ok(direct || found.subarray(1636, 1836).every((byte) => byte === 0));
      for (const at of [511, 1536, 1836, 12_288 + 99, 12_288 + 1100]) assert.equal(found[at], 7);
      assert.equal(readFileSync(image)[8191 + 4097], 7);
      await store.close();
    }
    assert.equal(readdirSync(state).length, 1);
    assert.match(readdirSync(state)[0] ?? '', /^loop/);
    await refusesMounted(context, device, state);
  });
});

async function refusesMounted(context: TestContext, device: string, state: string): Promise<void> {
  if (!asRoot(context, 'mkfs.ext4', '-q', device)) return;
  const point = new TestDirectory(tmpdir());
  cleanUp.push(() => point.remove());
  if (!asRoot(context, 'mount', device, point.path)) return;
  cleanUp.push(() => spawnSync('umount', [point.path]));
  await refused(device, /is in use by the kernel: mounted/, { stateDirectory: state });
  spawnSync('umount', [point.path]);
  spawnSync('blockdev', ['--setro', device]);
  // It stays with the loop device when its file goes.
  cleanUp.push(() => spawnSync('blockdev', ['--setrw', device]));
  await refused(device, /read-only|may not be written/, { stateDirectory: state });
  const reader = await open(device, { readOnly: true });
  await read(reader, 0, 512);
  await reader.close();
}

/** A sync that fails with `code`. */
function failing(code: string): () => never {
  return () => {
    throw Object.assign(new Error(code), { code });
  };
}

test('P5: a sync that fails at open is on record before the open is refused', () => {
  const recorded: string[] = [];
  const state = { syncFailed: (error: string) => recorded.push(error) };
  for (const code of ['EIO', 'ENOSPC', 'EDQUOT']) {
    assert.throws(() => syncOrPoison(failing(code), state), { code });
  }
  assert.deepEqual(recorded, ['EIO', 'EIO', 'EIO']);
  // These say that there was nothing to sync, not that something was lost.
  for (const code of ['EROFS', 'EINVAL', 'EACCES']) {
    assert.throws(() => syncOrPoison(failing(code), state), { code });
  }
  assert.throws(() => syncOrPoison(failing('EIO'), null), { code: 'EIO' });
  syncOrPoison(() => {}, state);
  assert.equal(recorded.length, 3);
});
