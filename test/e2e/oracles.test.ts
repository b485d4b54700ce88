import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import {
  copyDisk,
  judgeDisks,
  makeDisk,
  makeDiskBy,
  requiresMounts,
  show,
  withMounted,
} from './support/crash-disks.ts';
import { run, succeed } from './support/command.ts';
import { workspace } from './support/holdfast.ts';
import { requires } from './support/requires.ts';

// The oracles for file systems, on disks that were copied while they were mounted, and on damaged ones.

/** Names come and go; one file is open and has no name; all of it has reached the disk, and nothing was unmounted. */
async function stir(folder: string): Promise<void> {
  for (let i = 0; i < 30; i += 1) writeFileSync(join(folder, `f${i}`), `file ${i}`);
  await succeed(['sync', '--file-system', folder]);
  for (let i = 0; i < 20; i += 1) {
    rmSync(join(folder, `f${i}`));
    mkdirSync(join(folder, `d${i}`));
    writeFileSync(join(folder, `d${i}`, 'a'), 'x'.repeat(i * 300));
  }
  await succeed(['sync', '--file-system', folder]);
}

/** Writes garbage over `count` stretches of 512 bytes below `limit`. */
function damage(disk: string, name: string, seed: number, count: number, limit: number): string {
  const copy = `${disk}.${name}`;
  copyDisk(disk, copy);
  const prng = new Prng(seed);
  const garbage = Buffer.alloc(512);
  const fd = openSync(copy, 'r+');
  for (let i = 0; i < count; i += 1) {
    prng.fill(garbage);
    writeSync(fd, garbage, 0, 512, prng.below(limit / 512) * 512);
  }
  closeSync(fd);
  return copy;
}

for (const fs of ['ext3', 'ext4'] as const) {
  test(
    `${fs}: a replay is good, a repair is not`,
    requiresMounts(`mkfs.${fs}`, 'e2fsck'),
    async (t) => {
      const folder = workspace(t);
      const disk = await makeDisk(folder, fs);
      const found: string[] = [];
      await withMounted(disk, '', async (mounted) => {
        await stir(mounted.folder);
        const fd = openSync(join(mounted.folder, 'open'), 'w');
        writeSync(fd, Buffer.alloc(100_000, 1));
        await succeed(['sync', '--file-system', mounted.folder]);
        rmSync(join(mounted.folder, 'open'));
        await succeed(['sync', '--file-system', mounted.folder]);
        found.push(mounted.snapshot('crashed'));
        closeSync(fd);
      });
      const spec = { kind: 'ext', options: {} };
      const [clean, crashed] = await judgeDisks(folder, spec, [disk, ...found]);
      assert.ok(clean !== undefined && crashed !== undefined);
      assert.deepEqual([show(clean), show(crashed)], ['pass clean', 'pass replayed']);
      // 1 MiB has the tables of the first group, which are all in use.
      const damaged = [1, 2, 3].map((seed) => damage(disk, `bad${seed}`, seed, 40, 1 << 20));
      for (const verdict of await judgeDisks(folder, spec, damaged)) {
        assert.match(show(verdict), /^fail integrity: (?:repairable|unrepairable): ./);
      }
      const forgiven = { kind: 'ext', options: { strict: 'no' } };
      const [repaired] = await judgeDisks(folder, forgiven, damaged);
      assert.equal(repaired?.class, 'repaired');
    },
  );
}

test(
  'ext4 with an orphan file: a replay is good',
  requiresMounts('mkfs.ext4', 'e2fsck'),
  async (t) => {
    const folder = workspace(t);
    const command = ['mkfs.ext4', '-q', '-O', 'orphan_file'];
    const disk = await makeDiskBy(folder, command, 32, 'orphans');
    let crashed = '';
    await withMounted(disk, '', async (mounted) => {
      const path = join(mounted.folder, 'open');
      const fd = openSync(path, 'w');
      writeSync(fd, Buffer.alloc(100_000, 1));
      rmSync(path);
      await succeed(['sync', '--file-system', mounted.folder]);
      crashed = mounted.snapshot('crashed');
      closeSync(fd);
    });
    const [verdict] = await judgeDisks(folder, { kind: 'ext', options: {} }, [crashed]);
    assert.equal(verdict?.class, 'replayed');
  },
);

test(
  'ext2: a repair is a class of its own, or a failure',
  requiresMounts('mkfs.ext2', 'e2fsck'),
  async (t) => {
    const folder = workspace(t);
    const disk = await makeDisk(folder, 'ext2');
    let crashed = '';
    await withMounted(disk, '', async (mounted) => {
      const idle = mounted.snapshot('idle');
      const [sound] = await judgeDisks(folder, { kind: 'ext', options: { strict: 'yes' } }, [idle]);
      assert.equal(show(sound ?? assert.fail()), 'pass not unmounted');
      await stir(mounted.folder);
      const fd = openSync(join(mounted.folder, 'open'), 'w');
      rmSync(join(mounted.folder, 'open'));
      await succeed(['sync', '--file-system', mounted.folder]);
      crashed = mounted.snapshot('crashed');
      closeSync(fd);
    });
    const [lenient] = await judgeDisks(folder, { kind: 'ext', options: {} }, [crashed]);
    assert.deepEqual([lenient?.outcome, lenient?.class], ['pass', 'repaired']);
    const strict = { kind: 'ext', options: { strict: 'yes' } };
    const [severe] = await judgeDisks(folder, strict, [crashed]);
    assert.equal(severe?.class, 'repairable: Deleted inode # has zero dtime.');
  },
);

test('no file system at all is not repairable', requires('e2fsck'), async (t) => {
  const folder = workspace(t);
  const disk = join(folder, 'garbage');
  const bytes = Buffer.alloc(1 << 20);
  new Prng(1).fill(bytes);
  writeFileSync(disk, bytes);
  const [verdict] = await judgeDisks(folder, { kind: 'ext', options: {} }, [disk]);
  assert.ok(verdict !== undefined);
  assert.match(show(verdict), /^fail integrity: unrepairable: .*magic number/);
});

const KERNEL_REPLAYED = [
  ['xfs', ['mkfs.xfs', 'xfs_repair'], 64 << 10],
  ['btrfs', ['mkfs.btrfs', 'btrfs'], 48 << 20],
] as const;

for (const [fs, programs, limit] of KERNEL_REPLAYED) {
  test(
    `${fs}: the kernel replays the log; damage is found`,
    requiresMounts(...programs),
    async (t) => {
      const folder = workspace(t);
      const disk = await makeDisk(folder, fs);
      let crashed = '';
      await withMounted(disk, '', async (mounted) => {
        await stir(mounted.folder);
        crashed = mounted.snapshot('crashed');
      });
      const damaged = damage(crashed, 'bad', 1, fs === 'xfs' ? 60 : 20_000, limit);
      const verdicts = await judgeDisks(folder, { kind: fs, options: {} }, [
        disk,
        crashed,
        damaged,
      ]);
      const [clean, replayed, bad] = verdicts.map(show);
      assert.deepEqual([clean, replayed], ['pass clean', 'pass clean']);
      assert.match(bad ?? '', /^fail integrity: ./);
      assert.equal(
        (await run(['losetup', '--list', '--noheadings'])).stdout.includes(folder),
        false,
      );
    },
  );
}

test(
  'vfat: damage is found, a dirty bit is none',
  requires('mkfs.vfat', 'fsck.fat', 'mcopy'),
  async (t) => {
    const folder = workspace(t);
    const disk = await makeDisk(folder, 'vfat');
    const file = join(folder, 'hello');
    writeFileSync(file, 'hello');
    await succeed(['mcopy', '-i', disk, file, '::HELLO.TXT']);
    const dirty = `${disk}.dirty`;
    copyDisk(disk, dirty);
    const fd = openSync(dirty, 'r+');
    // [FAT specification, "BS_Reserved1"]: bit 0 says that it was not unmounted, for FAT16 at 0x25.
    writeSync(fd, Buffer.of(1), 0, 1, 0x25);
    closeSync(fd);
    const damaged = damage(disk, 'bad', 1, 8, 16 << 10);
    const verdicts = await judgeDisks(folder, { kind: 'vfat', options: {} }, [
      disk,
      dirty,
      damaged,
    ]);
    const [clean, notUnmounted, bad] = verdicts.map(show);
    assert.deepEqual([clean, notUnmounted], ['pass clean', 'pass not unmounted']);
    assert.match(bad ?? '', /^fail integrity: ./);
    const command = { by: 'copy', fs: 'vfat', command: 'grep -qx hello {mount}/HELLO.TXT' };
    const [copied] = await judgeDisks(folder, { kind: 'mounted', options: command }, [dirty]);
    assert.deepEqual([copied?.outcome, copied?.class], ['pass', '']);
  },
);
