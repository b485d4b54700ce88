import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import test, { type TestContext } from 'node:test';
import {
  findWorkload,
  workloadCommand,
  workloadSettings,
  type WorkloadOptions,
} from '../../src/lab/calibrate/workloads/registry.ts';
import type { CheckerSpec } from '../../src/lab/check/types.ts';
import { sha256, seal } from '../../src/lab/oracles/key-values.ts';
import { judgeDisks, makeDisk, requiresMounts, show, withMounted } from './support/crash-disks.ts';
import { run, succeed } from './support/command.ts';
import { workspace } from './support/holdfast.ts';
import { requires } from './support/requires.ts';

// The oracles for what applications leave in a file system: after a cut at the end of a workload that kept its word, and
// where the disk is older than what was acknowledged.

const PROJECT = resolve(import.meta.dirname, '../..');

interface Cut {
  readonly folder: string;
  /** Before the workload began, and at its end, unmounted neither time. */
  readonly before: string;
  readonly after: string;
  readonly acks: readonly string[];
  readonly spec: Omit<CheckerSpec, 'timeoutMs'>;
}

async function cutAfter(
  t: TestContext,
  fs: string,
  name: string,
  options: WorkloadOptions,
): Promise<Cut> {
  const folder = workspace(t);
  const disk = await makeDisk(folder, fs);
  const workload = findWorkload(name);
  const settings = workloadSettings(workload, options);
  const manifest = join(folder, 'manifest.json');
  writeFileSync(manifest, JSON.stringify(workload.manifest(settings)));
  let [before, after, output] = ['', '', ''];
  await withMounted(disk, '', async (mounted) => {
    await succeed(workloadCommand(workload, 'prepare', mounted.folder, options));
    await succeed(['sync', '--file-system', mounted.folder]);
    before = mounted.snapshot('before');
    output = await succeed(workloadCommand(workload, 'run', mounted.folder, options));
    after = mounted.snapshot('after');
  });
  const lines = output.split('\n').filter((line) => line.startsWith('ACK '));
  const { kind, options: own } = workload.judged(settings, manifest);
  const acks = lines.map((line) => line.slice('ACK '.length));
  return { folder, before, after, acks, spec: { kind, options: { fs, ...own } } };
}

function hex(text: string): string {
  return Buffer.from(text).toString('hex');
}

const KEPT: readonly [fs: string, workload: string, options: WorkloadOptions, lost: string][] = [
  ['ext4', 'storm', { count: 30 }, 'fail durability: acknowledged content missing'],
  [
    'ext4',
    'sqlite',
    { count: 12, journal: 'WAL' },
    'fail durability: acknowledged transaction missing',
  ],
  [
    'xfs',
    'sqlite',
    { count: 12, journal: 'PERSIST' },
    'fail durability: acknowledged transaction missing',
  ],
  ['btrfs', 'append', { count: 8 }, 'fail durability: acknowledged content missing'],
  [
    'ext4',
    'replace',
    { count: 8, by: 'write-file-atomic', 'folder-fsync': true, project: PROJECT },
    'fail durability: acknowledged content missing',
  ],
  [
    'ext4',
    'leveldb',
    { count: 20, sync: true, project: PROJECT },
    'fail durability: acknowledged key missing',
  ],
  [
    'ext4',
    'git',
    { count: 3, fsync: 'all', sync: true },
    'fail durability: acknowledged commit missing',
  ],
];

for (const [fs, workload, options, lost] of KEPT) {
  const needed = ['git', `mkfs.${fs}`, 'e2fsck', 'debugfs', 'xfs_repair', 'btrfs'];
  test(
    `${workload} on ${fs}: what was acknowledged is there, or missed`,
    requiresMounts(...needed),
    async (t) => {
      const { folder, spec, before, after, acks } = await cutAfter(t, fs, workload, options);
      const ways = fs === 'ext4' ? ['mount', 'copy'] : ['mount'];
      for (const by of ways) {
        const full = { ...spec, options: { ...spec.options, by } };
        const [kept, gone] = await judgeDisks(folder, full, [after, before], acks);
        assert.ok(kept !== undefined && gone !== undefined);
        assert.equal(show(kept), 'pass', kept.detail);
        assert.equal(show(gone), lost, gone.detail);
        const [earlier] = await judgeDisks(folder, full, [before], []);
        assert.equal(earlier?.outcome, 'pass', earlier?.detail);
      }
    },
  );
}

test(
  'lmdb: keys of mdb_load are there, a damaged file is found',
  requires('mkfs.ext4', 'debugfs', 'mdb_load', 'mdb_dump'),
  async (t) => {
    const folder = workspace(t);
    const content = join(folder, 'content');
    mkdirSync(join(content, 'store'), { recursive: true });
    const keys = Array.from({ length: 40 }, (_, i) => `key-${i}`);
    const lines = keys.flatMap((key) => [` ${hex(key)}`, ` ${hex(seal(key.repeat(200)))}`]);
    const head = ['VERSION=3', 'format=bytevalue', 'type=btree', 'mapsize=1048576', 'HEADER=END'];
    const dump = join(folder, 'dump');
    writeFileSync(dump, [...head, ...lines, 'DATA=END', ''].join('\n'));
    await succeed(['mdb_load', '-f', dump, join(content, 'store')]);
    const disk = join(folder, 'disk.img');
    await succeed(['mkfs.ext4', '-q', '-d', content, disk, '16M']);
    const options = {
      fs: 'ext4',
      by: 'copy',
      database: 'store',
      reader: 'mdb_dump',
      values: 'sealed',
    };
    const spec = { kind: 'lmdb', options };
    const acks = keys.map((key) =>
      JSON.stringify({ key, sha256: sha256(Buffer.from(seal(key.repeat(200)))) }),
    );
    const [good] = await judgeDisks(folder, spec, [disk], acks);
    assert.ok(good !== undefined);
    assert.equal(show(good), 'pass', good.detail);
    const [lost] = await judgeDisks(folder, spec, [disk], ['{"key":"key-40"}']);
    assert.equal(lost?.class, 'acknowledged key missing');
    // Both meta pages: there is nothing left to open.
    writeFileSync(join(content, 'store', 'data.mdb'), Buffer.alloc(8192, 0x5a));
    const bad = join(folder, 'bad.img');
    await succeed(['mkfs.ext4', '-q', '-d', content, bad, '16M']);
    const [damaged] = await judgeDisks(folder, spec, [bad], []);
    assert.equal(damaged?.axis, 'integrity');
  },
);

test(
  'a command on the mounted file system: its verdicts, its end, and nothing left behind',
  requiresMounts('mkfs.ext4', 'e2fsck'),
  async (t) => {
    const folder = workspace(t);
    const disk = await makeDisk(folder, 'ext4');
    const ask = async (command: string, timeoutMs = 30_000): Promise<string> => {
      const spec = { kind: 'mounted', options: { fs: 'ext4', command }, timeoutMs };
      const [verdict] = await judgeDisks(folder, spec, [disk], ['first', 'second']);
      return verdict === undefined ? '' : show(verdict);
    };
    assert.equal(await ask('test -d {mount}/lost+found'), 'pass');
    assert.equal(await ask('exit 12'), 'pass state 12');
    assert.equal(await ask('exit 77'), 'skip');
    assert.equal(await ask('echo durability: 17 lost; exit 1'), 'fail durability: # lost');
    assert.equal(await ask('grep -q second {acks} || exit 1'), 'pass');
    assert.equal(await ask('no-such-program-here'), 'checker-error command not found');
    assert.equal(await ask('kill -9 $$'), 'checker-error sh: SIGKILL');
    assert.equal(await ask('sleep 1000', 1500), 'hang hang');
    // The mount and the loop device end with the namespace of the process that was killed.
    const { stdout } = await run(['losetup', '--list', '--noheadings']);
    assert.equal(stdout.includes(folder), false, stdout);
  },
);

test(
  'a file system that the kernel refuses is a failure, with the reason',
  requiresMounts('mkfs.ext4'),
  async (t) => {
    const folder = workspace(t);
    const disk = join(folder, 'disk.img');
    writeFileSync(disk, Buffer.alloc(1 << 20, 0x5a));
    const spec = { kind: 'mounted', options: { fs: 'ext4' } };
    const [verdict] = await judgeDisks(folder, spec, [disk]);
    assert.match(show(verdict ?? assert.fail()), /^fail integrity: mount refused: wrong fs type/);
  },
);

test('a judge keeps no mount of others alive', requiresMounts('mkfs.ext4', 'e2fsck'), async (t) => {
  const folder = workspace(t);
  const disk = await makeDisk(folder, 'ext4');
  const other = await makeDisk(folder, 'ext4', 'other');
  const command = `! grep -q ${other}.mount /proc/self/mountinfo && grep -q {mount} /proc/self/mountinfo`;
  const spec = { kind: 'mounted', options: { fs: 'ext4', command } };
  await withMounted(other, '', async (mounted) => {
    const [verdict] = await judgeDisks(folder, spec, [disk]);
    assert.equal(show(verdict ?? assert.fail()), 'pass');
    assert.ok((await succeed(['findmnt', mounted.folder])).includes('ext4'));
  });
});
