import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { chmod, open, readFile, stat, writeFile } from 'node:fs/promises';
import { constants } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import { run, succeed, until } from './support/command.ts';
import { type Holdfast, makeImage, REACTORS, startHoldfast } from './support/holdfast.ts';
import { fuse, mountedAt, mountFolder } from './support/fuse.ts';
import { requires } from './support/requires.ts';

// A disk shown as a file, with the kernel of this host: what programs do with files, and with disks.

const READY = /^ {2}\/.*file$/m;

/** `holdfast serve IMAGE --fuse FILE`, and the file. */
async function shown(
  t: TestContext,
  words: readonly string[] = [],
  reactor: (typeof REACTORS)[number] = 'io_uring',
): Promise<{ server: Holdfast; file: string; image: string; folder: string }> {
  const folder = mountFolder(t);
  const image = makeImage(folder, 16, 4);
  const file = join(folder, 'file');
  const server = await startHoldfast(t, [image, '--fuse', file, ...words], {
    reactor,
    readyLine: READY,
  });
  return { server, file, image, folder };
}

function noise(bytes: number, seed = 1): Buffer {
  const result = Buffer.alloc(bytes);
  new Prng(seed).fill(result);
  return result;
}

for (const reactor of REACTORS) {
  test(`read, write, fsync, stat, and the end: ${reactor}`, fuse, async (t) => {
    const { server, file, image } = await shown(t, [], reactor);
    const before = await readFile(image);
    const stats = await stat(file);
    assert.deepEqual(
      [stats.size, stats.mode & 0o777, stats.blocks, stats.isFile()],
      [16 * MiB, 0o600, (16 * MiB) / 512, true],
    );
    assert.ok((await readFile(file)).equals(before));
    const payload = noise(3 * MiB + 123);
    const handle = await open(file, 'r+');
    await handle.write(payload, 0, payload.length, 1_000_001);
    await handle.datasync();
    await handle.close();
    payload.copy(before, 1_000_001);
    assert.ok((await readFile(image)).equals(before));
    assert.ok((await readFile(file)).equals(before));
    const [counters] = await server.stop();
    assert.equal(counters?.flushesAsked, 1, 'fsync is a flush, close is none');
    assert.equal(existsSync(file), false, 'the file that was made is gone');
    assert.ok((await readFile(image)).equals(before));
  });
}

test(
  'the cache modes: fsync syncs, O_DSYNC and writethrough give stable writes',
  fuse,
  async (t) => {
    for (const mode of [
      'writeback',
      'none',
      'writethrough',
      'directsync',
      'unsafe',
      'until-flush',
    ]) {
      await t.test(mode, async (t2) => {
        const { server, file } = await shown(t2, ['--cache', mode]);
        // Everything that shows the disk shows that flushes are ignored (P8).
        assert.equal(/cache=unsafe/.test(mountedAt(file) ?? ''), mode === 'unsafe');
        const handle = await open(file, 'r+');
        await handle.write(noise(64 * KiB), 0, 64 * KiB, 0);
        const written = await server.counter();
        const stableAlways = ['writethrough', 'directsync', 'until-flush'].includes(mode);
        assert.equal(written.unstableBytes === 0, stableAlways, 'after a write');
        await handle.datasync();
        const synced = await server.counter();
        assert.equal(synced.unstableBytes === 0, mode !== 'unsafe', 'after fsync');
        await handle.write(noise(64 * KiB), 0, 64 * KiB, 0);
        const again = await server.counter();
        const stableStill = ['writethrough', 'directsync'].includes(mode);
        assert.equal(again.unstableBytes === 0, stableStill, 'after a write after a flush');
        await handle.datasync();
        await handle.close();
        const flags = constants.O_WRONLY | constants.O_DSYNC;
        const stable = await open(file, flags);
        await stable.write(noise(4096), 0, 4096, 8192);
        await stable.close();
        assert.equal((await server.counter()).unstableBytes === 0, mode !== 'unsafe', 'O_DSYNC');
        await server.stop();
      });
    }
  },
);

test('O_DIRECT, O_TRUNC, truncate, holes', { ...fuse, ...requires('fallocate') }, async (t) => {
  const { server, file, image, folder } = await shown(t, ['--cache', 'none']);
  const copy = join(folder, 'copy');
  await writeFile(copy, noise(2 * MiB));
  // A shell's redirection and dd open with O_TRUNC, which a disk takes for nothing.
  await succeed(['dd', `if=${copy}`, `of=${file}`, 'bs=64k', 'oflag=direct', 'conv=fsync']);
  await succeed(['dd', `if=${file}`, `of=${copy}2`, 'bs=1M', 'count=2', 'iflag=direct']);
  await succeed(['cmp', copy, `${copy}2`]);
  await succeed(['sh', '-c', `printf abc > ${file}`]);
  assert.equal((await readFile(file)).subarray(0, 3).toString(), 'abc');
  assert.equal((await stat(file)).size, 16 * MiB);
  const handle = await open(file, 'r+');
  await handle.truncate(16 * MiB);
  await assert.rejects(handle.truncate(MiB), { code: 'EPERM' });
  await assert.rejects(handle.truncate(17 * MiB), { code: 'EFBIG' });
  await assert.rejects(handle.write(noise(512), 0, 512, 16 * MiB), { code: 'ENOSPC' });
  await handle.close();
  const before = (await stat(image)).blocks;
  await succeed(['fallocate', '--punch-hole', '-o', '65536', '-l', String(MiB), file]);
  await succeed(['fallocate', '--zero-range', '-n', '-o', '4194300', '-l', '1000', file]);
  assert.ok((await stat(image)).blocks < before, 'space came back');
  const script =
    'import os,sys\n' +
    'f=os.open(sys.argv[1],os.O_RDONLY)\n' +
    'print(os.lseek(f,0,os.SEEK_HOLE),os.lseek(f,65536,os.SEEK_DATA),os.pread(f,4,70000))\n';
  const found = await succeed(['python3', '-c', script, file]);
  assert.equal(found.trim(), `65536 ${65_536 + MiB} b'\\x00\\x00\\x00\\x00'`);
  await server.stop();
});

test(
  'mmap: shared and private, msync is a flush',
  { ...fuse, ...requires('python3') },
  async (t) => {
    const { server, file, image } = await shown(t);
    const script =
      'import mmap,os,sys\n' +
      'f=os.open(sys.argv[1],os.O_RDWR)\n' +
      'p=mmap.mmap(f,8192,mmap.MAP_PRIVATE); p[0:2]=b"no"\n' +
      'm=mmap.mmap(f,1<<20); m[5000:5005]=b"hello"; m.flush()\n' +
      'assert os.pread(f,5,5000)==b"hello"\n' +
      'os.pwrite(f,b"HELLO",5000); assert m[5000:5005]==b"HELLO"\n' +
      // Left to the end: closing and unmounting write it.
      'm[9000:9003]=b"end"\n';
    await succeed(['python3', '-c', script, file]);
    assert.ok((await server.counter()).flushesAsked >= 1);
    await server.stop();
    const bytes = await readFile(image);
    assert.equal(bytes.subarray(5000, 5005).toString(), 'HELLO');
    assert.equal(bytes.subarray(9000, 9003).toString(), 'end');
    assert.notEqual(bytes.subarray(0, 2).toString(), 'no');
  },
);

for (const direct of ['off', 'on']) {
  const needs = requires('losetup', 'mkfs.ext4');
  test(
    `a loop device with direct-io=${direct}: mkfs, mount, write, fsck`,
    { ...fuse, ...needs },
    async (t) => {
      const { server, file, image, folder } = await shown(t);
      const args = ['--find', '--show', `--direct-io=${direct}`, file];
      const loop = (await succeed(['losetup', ...args])).trim();
      t.after(() => run(['losetup', '-d', loop]));
      await succeed(['mkfs.ext4', '-q', '-F', loop]);
      const mountPoint = join(folder, 'mnt');
      await succeed(['mkdir', mountPoint]);
      await succeed(['mount', loop, mountPoint]);
      t.after(() => run(['umount', '-l', mountPoint]));
      const payload = noise(5 * MiB);
      await writeFile(join(mountPoint, 'noise'), payload);
      await succeed(['sync', '-f', mountPoint]);
      const { flushesAsked } = await server.counter();
      assert.ok(flushesAsked > 0, 'the file system reaches the disk with its flushes');
      await succeed(['fstrim', mountPoint]);
      await succeed(['umount', mountPoint]);
      await succeed(['mount', loop, mountPoint]);
      assert.ok((await readFile(join(mountPoint, 'noise'))).equals(payload));
      await succeed(['umount', mountPoint]);
      await succeed(['losetup', '-d', loop]);
      await succeed(['e2fsck', '-fn', file]);
      await server.stop();
      await succeed(['e2fsck', '-fn', image]);
    },
  );
}

test(
  'NBD and the file are one disk: neither sees old data of the other',
  { ...fuse, ...requires('qemu-io') },
  async (t) => {
    const { server, file, folder } = await shown(t, ['-U', join(mountFolder(t), 'n.sock')]);
    const uri = /nbd\+unix:\S+/.exec(server.stdout)?.[0] ?? '';
    const handle = await open(file, 'r+');
    t.after(() => handle.close().catch(() => undefined));
    const seen = Buffer.alloc(4096);
    for (const pattern of [1, 2, 3]) {
      await succeed(['qemu-io', '-f', 'raw', '-c', `write -P ${pattern} 0 4k`, uri]);
      await handle.read(seen, 0, 4096, 0);
      assert.ok(
        seen.every((byte) => byte === pattern),
        `pattern ${pattern}`,
      );
      await handle.write(Buffer.alloc(4096, pattern + 100), 0, 4096, 0);
      const check = `read -P ${pattern + 100} 0 4k`;
      assert.match(await succeed(['qemu-io', '-f', 'raw', '-c', check, uri]), /read 4096/);
    }
    await handle.close();
    await server.stop();
    assert.ok(statSync(folder).isDirectory());
  },
);

test('many at once: fio checks what it wrote', { ...fuse, ...requires('fio') }, async (t) => {
  const { server, file } = await shown(t, ['--cache', 'none']);
  for (const engine of [
    ['--ioengine=libaio', '--iodepth=32', '--direct=1', '--bsrange=4k-512k'],
    [
      '--ioengine=psync',
      '--numjobs=3',
      '--bsrange=512-64k',
      '--bs_unaligned',
      '--offset_increment=4m',
    ],
  ]) {
    const words = [
      '--name=v',
      `--filename=${file}`,
      '--rw=randwrite',
      '--size=4m',
      '--verify=crc32c',
    ];
    await succeed([
      'fio',
      ...words,
      '--fsync=64',
      '--verify_state_save=0',
      '--do_verify=1',
      '--verify_fatal=1',
      ...engine,
    ]);
  }
  await server.stop();
});

test('read-only: nobody opens it for writing', fuse, async (t) => {
  const { server, file } = await shown(t, ['--read-only']);
  await assert.rejects(open(file, 'r+'), { code: 'EROFS' });
  assert.equal((await readFile(file)).length, 16 * MiB);
  assert.equal((await stat(file)).mode & 0o777, 0o400);
  await server.stop();
});

test('the mode decides who else may read it', { ...fuse, ...requires('setpriv') }, async (t) => {
  const { server, file, folder } = await shown(t);
  await chmod(folder, 0o755);
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  const look = [...nobody, 'head', '-c', '1', file];
  assert.match((await run(look)).stderr, /Permission denied/);
  await chmod(file, 0o644);
  assert.equal((await run(look)).status, 0);
  await server.stop();
});

/** --listen with all that a path may have. */
function listen(file: string, name: string): string[] {
  const path = encodeURIComponent(file).replaceAll('%2F', '/');
  return ['--listen', `fuse:${path}?export=${name}`];
}

test('another disk at each file', fuse, async (t) => {
  const folder = mountFolder(t);
  const [a, b] = [join(folder, 'a file'), join(folder, 'b-file')];
  const server = await startHoldfast(
    t,
    ['a=memory:1M', 'b=memory:2M', ...listen(a, 'a'), ...listen(b, 'b')],
    { readyLine: /b-file$/m },
  );
  assert.deepEqual([(await stat(a)).size, (await stat(b)).size], [MiB, 2 * MiB]);
  await server.stop();
});

test('`umount` ends a server that has nothing else', fuse, async (t) => {
  const { server, file } = await shown(t);
  assert.ok(mountedAt(file));
  await succeed(['umount', file]);
  await until('the end', 10_000, () => (server.ended ? true : null));
  assert.equal(server.exitCode, 0);
});

test(
  'still open at the end: a warning, errors for who has it open, and nothing lost',
  fuse,
  async (t) => {
    const { server, file, image } = await shown(t);
    const words = `exec 3<>${file}; printf xyz >&3; exec sleep 60`;
    const holder = spawn('sh', ['-c', words], { stdio: 'ignore' });
    t.after(() => holder.kill('SIGKILL'));
    await until('the write', 5000, async () =>
      (await readFile(image)).subarray(0, 3).toString() === 'xyz' ? true : null,
    );
    await server.stop();
    assert.match(server.stderr, /file is still open somewhere/);
    assert.ok(!mountedAt(file));
  },
);

test('kill -9: the dead mount is undone by the next server at the same file', fuse, async (t) => {
  const { server, file, image } = await shown(t);
  await writeFile(file, 'before', { flag: 'r+' });
  await server.kill();
  // ECONNABORTED: the kernel is still at it.
  await assert.rejects(stat(file), /ENOTCONN|ECONNABORTED/);
  const next = await startHoldfast(t, [image, '--fuse', file], { readyLine: READY });
  assert.match(next.stderr, /a mount was left there by a server that is gone/);
  assert.equal((await readFile(file)).subarray(0, 6).toString(), 'before');
  // A third one keeps away.
  const third = await run([process.execPath, 'src/cli/main.ts', 'mount', 'memory:1M', file]);
  assert.match(third.stderr, /is a mount already/);
  await next.stop();
});

test(
  'without root: fusermount3 mounts, for the own user alone',
  { ...fuse, ...requires('fusermount3', 'setpriv') },
  async (t) => {
    const folder = mountFolder(t);
    await chmod(folder, 0o777);
    const file = join(folder, 'file');
    const under = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    for (const reactor of REACTORS) {
      const server = await startHoldfast(t, ['memory:1M', '--fuse', file], {
        readyLine: READY,
        under,
        reactor,
      });
      const options = mountedAt(file) ?? '';
      assert.match(options, /fuse\.holdfast/);
      assert.doesNotMatch(options, /allow_other/);
      await succeed([
        ...under,
        'dd',
        'if=/dev/zero',
        `of=${file}`,
        'bs=4k',
        'count=2',
        'conv=fsync',
      ]);
      const [counters] = await server.stop();
      assert.deepEqual([counters?.writtenBytes, counters?.flushesAsked], [8192, 1]);
      assert.doesNotMatch(server.stderr, /warning/i);
      assert.equal(mountedAt(file), null);
      assert.equal(existsSync(file), false);
    }
  },
);
