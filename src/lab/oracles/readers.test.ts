import assert from 'node:assert/strict';
import test from 'node:test';
import { firstProblem, readE2fsck } from './ext.ts';
import { readMountInfo } from './mount-namespace.ts';
import { readFsckFat } from './vfat.ts';
import { doubt, fail } from './verdict.ts';

// From checkers' words to findings. The words are e2fsck's and fsck.fat's own, of disks as power cuts leave them.

const REPLAYED = [
  'e2fsck 1.47.0 (5-Feb-2023)',
  'disk: recovering journal',
  'Clearing orphaned inode 52 (uid=0, gid=0, mode=0100644, size=102400)',
  'Pass 1: Checking inodes, blocks, and sizes',
  'Pass 2: Checking directory structure',
  'Pass 3: Checking directory connectivity',
  'Pass 4: Checking reference counts',
  'Pass 5: Checking group summary information',
  'Free blocks count wrong (25930, counted=25770).',
  'Fix? yes',
  '',
  'Free inodes count wrong (8182, counted=8121).',
  'Fix? yes',
  '',
  '',
  'disk: ***** FILE SYSTEM WAS MODIFIED *****',
  'disk: 71/8192 files (0.0% non-contiguous), 6998/32768 blocks',
];

test('e2fsck: what follows each replay is no repair', () => {
  assert.deepEqual(readE2fsck(REPLAYED.join('\n')), { replayed: true, problems: [] });
});

test('e2fsck: a disk that it cannot open is one finding, in whichever order its two outputs come', () => {
  const out = [
    'ext2fs_open2: Bad magic number in super-block',
    'e2fsck: Superblock invalid, trying backup blocks...',
    '',
  ];
  const err = ['e2fsck: Superblock checksum does not match superblock while trying to open disk'];
  for (const text of [
    [...out, ...err],
    [...err, ...out],
    [...err, ...REPLAYED.slice(0, 1), ...out],
  ]) {
    const { problems } = readE2fsck(text.join('\n'));
    assert.equal(firstProblem(problems), 'Bad magic number in super-block');
  }
  assert.equal(firstProblem([]), null);
});

test('e2fsck: the same without a journal to replay is', () => {
  const text = REPLAYED.filter((line) => !line.endsWith('recovering journal')).join('\n');
  const { replayed, problems } = readE2fsck(text);
  assert.equal(replayed, false);
  assert.deepEqual(problems.slice(0, 2), [
    'Clearing orphaned inode 52 (uid=0, gid=0, mode=0100644, size=102400)',
    'Free blocks count wrong (25930, counted=25770).',
  ]);
});

test('e2fsck: a group counted wrong is a repair, also after a replay', () => {
  const text = [
    ...REPLAYED,
    'Free blocks count wrong for group #0 (7392, counted=7493).',
    'Fix? yes',
  ];
  const { replayed, problems } = readE2fsck(text.join('\n'));
  assert.equal(replayed, true);
  assert.equal(problems[0], 'Free blocks count wrong for group #0 (7392, counted=7493).');
});

test('fsck.fat: the dirty bit and a stale hint are no damage', () => {
  const harmless = [
    'fsck.fat 4.2 (2021-01-31)',
    'There are differences between boot sector and its backup.',
    'This is mostly harmless. Differences: (offset:original/backup)',
    '  65:01/00',
    '  Not automatically fixing this.',
    'Dirty bit is set. Fs was not properly unmounted and some data may be corrupt.',
    ' Automatically removing dirty bit.',
    'Free cluster summary wrong (20428 vs. really 20429)',
    '  Auto-correcting.',
    '',
    'Leaving filesystem unchanged.',
    'disk: 2 files, 2/20431 clusters',
  ];
  assert.deepEqual(readFsckFat(harmless.join('\n')), []);
  const damaged = [...harmless, 'FATs differ - using second FAT.'];
  assert.deepEqual(readFsckFat(damaged.join('\n')), ['FATs differ - using second FAT.']);
});

function classOf(text: string): string {
  return fail('integrity', text, '').class;
}

test('a class is the same for the same kind of finding', () => {
  assert.equal(
    classOf('Block bitmap differences:  -(718--733) -1170 +(1201--1248)'),
    classOf('Block bitmap differences:  -5'),
  );
  assert.equal(
    classOf("Entry 'f12' in / (2) has deleted/unused inode 13."),
    classOf("Entry 'lost+found' in / (2) has deleted/unused inode 11."),
  );
  assert.notEqual(classOf('Inode bitmap differences: -5'), classOf('Block bitmap differences: -5'));
  assert.equal(doubt('first\nsecond', '').class, 'first');
});

test('mountinfo: folders with blanks, types and sources', () => {
  const text = [
    '29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw',
    '61 29 0:52 / /tmp/a\\040b/disk0 rw,nosuid - fuse.holdfast holdfast-lab rw,user_id=0',
    '62 29 7:0 / /mnt rw,relatime shared:5 master:1 - ext4 /dev/loop0 rw',
    '',
  ];
  assert.deepEqual(readMountInfo(text.join('\n')), [
    { folder: '/', type: 'ext4', source: '/dev/vda' },
    { folder: '/tmp/a b/disk0', type: 'fuse.holdfast', source: 'holdfast-lab' },
    { folder: '/mnt', type: 'ext4', source: '/dev/loop0' },
  ]);
});
