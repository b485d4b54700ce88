import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { MiB } from '../../src/base/units.ts';
import type { DeclaredFile } from '../../src/lab/oracles/files.ts';
import { Guest, GUEST_TOOLS, virtioDisk } from './guest.ts';
import { fuse } from './support/fuse.ts';
import { type Holdfast, startHoldfast, workspace } from './support/holdfast.ts';
import { lab, labSucceeds } from './support/lab.ts';
import { requires } from './support/requires.ts';

// A virtual machine in the power-cut lab: its disks are recorded from outside, and nothing here knows its file systems but
// their checkers. vfat is here because not every kernel that runs these tests can mount it (rows F6c and F10 of the known
// answers).

const FILES = 3;
const ROUNDS = 2;
const BYTES = 6000;

function line(file: number, version: number): string {
  return `file-${file} version ${version}\n`;
}

/** As `yes | head` makes it in the guest. */
function sha256(file: number, version: number): string {
  const text = line(file, version);
  const content = text.repeat(Math.ceil(BYTES / text.length)).slice(0, BYTES);
  return createHash('sha256').update(content).digest('hex');
}

function write(file: number, version: number, name: string): string {
  return `yes "${line(file, version).trim()}" | head -c ${BYTES} > /disk/${name}`;
}

interface Recorded {
  readonly server: Holdfast;
  readonly folder: string;
  readonly control: string;
  readonly trace: string;
}

async function startRecording(t: TestContext, mib: number): Promise<Recorded> {
  const folder = workspace(t);
  const disk = join(folder, 'disk.img');
  writeFileSync(disk, '');
  truncateSync(disk, mib * MiB);
  const control = join(folder, 'control');
  const trace = join(folder, 'guest.trace');
  const server = await startHoldfast(t, [disk, '--record', trace, '--control', control]);
  return { server, folder, control, trace };
}

/** Replaces files by others, each with all the syncing that POSIX asks for: sync of coreutils, fsync(2) of its arguments. */
async function replaceFiles(t: TestContext, guest: Guest, disk: string, to: Recorded) {
  const { folder, control } = to;
  const mark = (...words: string[]): Promise<unknown> =>
    labSucceeds(t, folder, ['mark', ...words, '--control', control]);
  const files = Array.from({ length: FILES }, (_, i) => i);
  const first = files.map((file) => write(file, 0, `file-${file}`));
  const mount = `mkdir -p /disk && mount /dev/${disk} /disk`;
  await guest.succeed([mount, ...first, 'sync', 'umount /disk', mount].join('\n'));
  await mark('begin');
  for (let version = 1; version <= ROUNDS; version += 1) {
    for (const file of files) {
      const name = `file-${file}`;
      const steps = [
        write(file, version, 'new'),
        'sync /disk/new',
        `mv /disk/new /disk/${name}`,
        'sync /disk',
      ];
      await guest.succeed(steps.join('\n'));
      await mark('--ack', JSON.stringify({ file: name, sha256: sha256(file, version) }));
    }
  }
  await guest.succeed('umount /disk');
}

/** What the lab says of a recording. */
async function explore(t: TestContext, fs: string, { folder, trace }: Recorded) {
  const versions = Array.from({ length: ROUNDS + 1 }, (_, version) => version);
  const manifest = Array.from({ length: FILES }, (_, file): DeclaredFile => ({
    file: `file-${file}`,
    versions: versions.map((version) => sha256(file, version)),
  }));
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest));
  const check = `files:fs=${fs},by=copy,manifest=manifest.json`;
  const words = ['explore', trace, '--check', check, '--model', 'M1', '--budget', '5s'];
  return lab(t, folder, words);
}

const needs = requires(
  ...GUEST_TOOLS,
  'mkfs.ext4',
  'mkfs.vfat',
  'e2fsck',
  'debugfs',
  'mcopy',
  'fsck.fat',
);

test(
  'a guest replaces files with fsync: on ext4 each is old or new and what it promised is there, on vfat they break',
  fuse.skip === false ? needs : fuse,
  async (t) => {
    const ext4 = await startRecording(t, 32);
    const vfat = await startRecording(t, 32);
    const guest = await Guest.boot(t, {
      devices: [ext4, vfat].flatMap(({ server: { socket } }, i) =>
        virtioDisk(`file=nbd+unix:///?socket=${socket},cache=writeback`, i),
      ),
      modules: ['vfat', 'nls_cp437', 'nls_ascii', 'nls_iso8859_1', 'nls_utf8'],
      programs: ['mkfs.ext4', 'mkfs.vfat', 'sync'],
    });
    await guest.succeed('mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda');
    await guest.succeed('mkfs.vfat /dev/vdb');
    await replaceFiles(t, guest, 'vda', ext4);
    await replaceFiles(t, guest, 'vdb', vfat);
    await guest.shutDown();
    await Promise.all([ext4.server.stop(), vfat.server.stop()]);
    const sound = await explore(t, 'ext4', ext4);
    assert.match(sound.stdout, /^PASS$/m, sound.stdout + sound.stderr);
    const broken = await explore(t, 'vfat', vfat);
    assert.match(
      broken.stdout,
      /^FAIL failure of (?:integrity|atomicity): /m,
      broken.stdout + broken.stderr,
    );
    assert.match(broken.stdout, /^ {5}(?:Order|Never issued): /m);
  },
);
