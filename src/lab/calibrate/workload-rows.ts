import { MiB } from '../../base/units.ts';
import type { CauseKind } from '../minimise/types.ts';
import { type Given, workloadRow as row } from './workload-row.ts';
import type { CrashRow, Expected } from './types.ts';

// File systems, databases and programs whose behaviour on a power cut is known.

/** What is missing was in the memory of the operating system. */
const IN_MEMORY: readonly CauseKind[] = ['never-issued'];
/** A part was there, and another was in memory, or in the disk's cache. */
const IN_PART: readonly CauseKind[] = ['never-issued', 'order'];
/** Flushes reach the disk only from mkfs and the end. */
const NO_BARRIER: readonly CauseKind[] = ['missing-flush', 'order', 'no-flush-seen'];

const SOUND: Expected = { integrity: 'holds', atomicity: 'holds', durability: 'holds' };

/** The least that mkfs.xfs and mkfs.btrfs take. */
const XFS = { fs: 'xfs', sizeBytes: 320 * MiB } as const;
const BTRFS = { fs: 'btrfs', sizeBytes: 256 * MiB } as const;
const EXT2 = { fs: 'ext2' } as const;
const EXT = { kind: 'ext', options: {} } as const;
/** Without a journal a repair is forgiven otherwise. */
const EXT_STRICT = { kind: 'ext', options: { strict: 'yes' } } as const;

const TORN: Expected = { atomicity: 'breaks' };
const WHOLE: Expected = { atomicity: 'holds' };

type RenameCase = [
  id: string,
  fs: string,
  given: Partial<Given>,
  expected: Expected,
  basis: string,
];

/** A file is replaced by rename(2), and its content is not synced before. */
const RENAMES: readonly RenameCase[] = [
  [
    'F5a',
    'ext4 with dioread_lock',
    { mountOptions: 'dioread_lock' },
    WHOLE,
    'the data is written before the rename is committed [ext4(5) "auto_da_alloc"]',
  ],
  [
    'F5g',
    'ext4, as it comes',
    {},
    TORN,
    'measured: with dioread_nolock a rename may be committed before its blocks count as written: zeroes are read',
  ],
  [
    'F5b',
    'ext4 noauto_da_alloc',
    { mountOptions: 'noauto_da_alloc' },
    TORN,
    'a rename does not wait for data [ext4(5) "auto_da_alloc"]',
  ],
  ['F5c', 'xfs', XFS, TORN, 'rename(2) orders names, not data'],
  ['F5d', 'btrfs', BTRFS, TORN, 'measured: the data is on its way, and not waited for'],
  ['F5e', 'ext2', EXT2, TORN, 'nothing has an order'],
  ['F5f', 'vfat', { fs: 'vfat' }, TORN, 'nothing has an order'],
];

const RENAME_ROWS: readonly CrashRow[] = [
  ...RENAMES.map(([id, fs, given, expected, basis]) =>
    row({
      id,
      title: `rename without fsync on ${fs}`,
      workload: 'replace',
      options: { fsync: false, 'folder-fsync': true, acks: false },
      expected,
      causes: expected === WHOLE ? [] : IN_PART,
      basis,
      ...given,
    }),
  ),
  row({
    id: 'F6a',
    title: 'fsync, rename on ext4: whole, and not yet durable',
    workload: 'replace',
    expected: { atomicity: 'holds', durability: 'breaks' },
    causes: IN_MEMORY,
    basis: 'the folder is not synced [fsync(2)]',
  }),
  row({
    id: 'F6b',
    title: 'fsync, rename, fsync of the folder on ext4',
    workload: 'replace',
    options: { 'folder-fsync': true },
    expected: SOUND,
    basis: '[fsync(2)]',
  }),
  row({
    id: 'F6c',
    title: 'fsync, rename, fsync of the folder on vfat',
    fs: 'vfat',
    workload: 'replace',
    options: { 'folder-fsync': true },
    expected: { atomicity: 'breaks' },
    causes: IN_PART,
    basis: 'a rename is two changes in place',
  }),
];

const FILE_SYSTEM_ROWS: readonly CrashRow[] = [
  row({
    id: 'F1',
    title: 'ext4, as it comes',
    workload: 'storm',
    expected: SOUND,
    basis: 'journal with checksums and barriers [ext4(5)]',
  }),
  row({
    id: 'F1t',
    title: 'ext4 where single sectors of a write may be lost: the superblock tears',
    workload: 'append',
    model: 'M2',
    oracle: EXT,
    expected: { integrity: 'breaks' },
    causes: ['tear'],
    basis: 'the superblock is two sectors with one checksum, written in place at unmount',
  }),
  row({
    id: 'F2',
    title: 'ext4 without barriers',
    workload: 'storm',
    make: ['-J', 'size=4'],
    mountOptions: 'barrier=0',
    expected: { integrity: 'breaks', durability: 'breaks' },
    causes: NO_BARRIER,
    basis: 'barriers are needed with a volatile cache [ext4(5)]',
  }),
  row({
    id: 'F3a',
    title: 'ext2',
    ...EXT2,
    workload: 'storm',
    oracle: EXT_STRICT,
    expected: { integrity: 'breaks' },
    causes: IN_PART,
    basis: 'no journal',
  }),
  row({
    id: 'F3b',
    title: 'ext4 without a journal',
    make: ['-O', '^has_journal'],
    workload: 'storm',
    oracle: EXT_STRICT,
    expected: { integrity: 'breaks' },
    causes: IN_PART,
    basis: 'no journal',
  }),
  row({
    id: 'F4a',
    title: 'ext4, data=writeback: blocks of removed files show',
    workload: 'stale',
    mountOptions: 'data=writeback,nodelalloc,dioread_lock',
    expected: { integrity: 'breaks' },
    causes: IN_PART,
    basis: 'data may be written after the metadata that points at it [ext4(5) "data=writeback"]',
  }),
  row({
    id: 'F4b',
    title: 'ext4, data=ordered: they do not',
    workload: 'stale',
    mountOptions: 'data=ordered,nodelalloc,dioread_lock',
    expected: { integrity: 'holds', atomicity: 'holds' },
    basis: 'data is written before the metadata is committed [ext4(5)]',
  }),
  ...RENAME_ROWS,
  row({
    id: 'F7a',
    title: 'btrfs, as it comes',
    ...BTRFS,
    workload: 'append',
    expected: SOUND,
    basis: 'copy on write, superblock after a barrier',
  }),
  row({
    id: 'F7b',
    title: 'btrfs without barriers',
    ...BTRFS,
    workload: 'append',
    mountOptions: 'nobarrier',
    expected: { integrity: 'breaks', durability: 'breaks' },
    causes: NO_BARRIER,
    basis: 'leads to corruption on power loss [btrfs(5) "nobarrier"]',
  }),
  row({
    id: 'F9a',
    title: 'xfs, as it comes',
    ...XFS,
    workload: 'append',
    expected: SOUND,
    basis: 'log with barriers',
  }),
  row({
    id: 'F9b',
    title: 'xfs on a disk that lies about FLUSH',
    ...XFS,
    workload: 'append',
    model: 'L',
    expected: { durability: 'breaks' },
    causes: ['no-flush-seen'],
    basis: 'no file system can help it',
  }),
  row({
    id: 'F10',
    title: 'vfat',
    fs: 'vfat',
    workload: 'storm',
    oracle: { kind: 'vfat', options: {} },
    expected: { integrity: 'breaks' },
    causes: IN_PART,
    basis: 'no journal',
  }),
];

const BROKEN: Expected = { integrity: 'breaks', atomicity: 'breaks' };
const LATE: Expected = { integrity: 'holds', atomicity: 'holds', durability: 'breaks' };
const PRAGMA = '[SQLite "PRAGMA synchronous"]';
const NO_ROLLBACK = 'there is no rollback after a crash [SQLite "PRAGMA journal_mode"]';

type SqliteCase = [
  id: string,
  journal: string,
  synchronous: string,
  expected: Expected,
  causes: readonly CauseKind[],
  basis: string,
];

const SQLITE_CASES: readonly SqliteCase[] = [
  ['Q1', 'DELETE', 'OFF', { ...BROKEN, durability: 'breaks' }, IN_PART, `may go corrupt ${PRAGMA}`],
  ['Q2a', 'OFF', 'FULL', BROKEN, IN_PART, NO_ROLLBACK],
  ['Q2b', 'MEMORY', 'FULL', BROKEN, IN_PART, NO_ROLLBACK],
  ['Q3', 'DELETE', 'NORMAL', LATE, IN_MEMORY, PRAGMA],
  ['Q4', 'DELETE', 'FULL', LATE, IN_MEMORY, `EXTRA exists for this ${PRAGMA}`],
  ['Q5a', 'DELETE', 'EXTRA', SOUND, [], PRAGMA],
  ['Q5b', 'TRUNCATE', 'FULL', SOUND, [], PRAGMA],
  ['Q5c', 'PERSIST', 'FULL', SOUND, [], PRAGMA],
  ['Q6', 'WAL', 'NORMAL', LATE, IN_MEMORY, PRAGMA],
  ['Q7', 'WAL', 'FULL', SOUND, [], PRAGMA],
];

const SQLITE_ROWS = SQLITE_CASES.map(([id, journal, synchronous, expected, causes, basis]) =>
  row({
    id,
    title: `SQLite, journal_mode ${journal}, synchronous ${synchronous}`,
    workload: 'sqlite',
    options: { journal, synchronous },
    expected,
    causes,
    basis,
  }),
);

const PROGRAM_ROWS: readonly CrashRow[] = [
  row({
    id: 'N1a',
    title: 'classic-level put()',
    workload: 'leveldb',
    expected: { durability: 'breaks' },
    causes: IN_MEMORY,
    basis: 'sync is false by default [classic-level README]',
  }),
  row({
    id: 'N1b',
    title: 'classic-level put() with sync',
    workload: 'leveldb',
    options: { sync: true },
    expected: SOUND,
    basis: '[classic-level README]',
  }),
  row({
    id: 'N5',
    title: 'LMDB with MDB_NOSYNC',
    workload: 'lmdb',
    options: { sync: 'nosync' },
    expected: { integrity: 'breaks', durability: 'breaks' },
    causes: IN_PART,
    basis: 'a crash can corrupt the database [lmdb.h MDB_NOSYNC]',
  }),
  row({
    id: 'N7a',
    title: 'write-file-atomic on xfs',
    ...XFS,
    workload: 'replace',
    options: { by: 'write-file-atomic' },
    expected: { atomicity: 'holds', durability: 'breaks' },
    causes: IN_MEMORY,
    basis: 'it does not sync the folder',
  }),
  row({
    id: 'N7b',
    title: 'write-file-atomic without fsync on xfs',
    ...XFS,
    workload: 'replace',
    options: { by: 'write-file-atomic', fsync: false, 'folder-fsync': true },
    expected: { atomicity: 'breaks' },
    causes: IN_MEMORY,
    basis: 'rename(2) orders names, not data',
  }),
  row({
    id: 'N8',
    title: 'fs.writeFile over a file on ext4',
    workload: 'replace',
    options: { by: 'write-file', fsync: false, 'folder-fsync': true, acks: false },
    expected: { atomicity: 'breaks' },
    causes: IN_MEMORY,
    basis: 'it is cut to nothing first [open(2) O_TRUNC]',
  }),
  row({
    id: 'N10a',
    title: 'git commit on xfs',
    ...XFS,
    workload: 'git',
    expected: { durability: 'breaks' },
    causes: IN_MEMORY,
    basis: 'loose objects are not synced [git-config "core.fsync"]',
  }),
  row({
    id: 'N10b',
    title: 'git commit with core.fsync=all on xfs',
    ...XFS,
    workload: 'git',
    options: { fsync: 'all' },
    expected: { integrity: 'holds', durability: 'breaks' },
    causes: IN_MEMORY,
    basis: '[git-config "core.fsync"]',
  }),
];

export const WORKLOAD_ROWS: readonly CrashRow[] = [
  ...FILE_SYSTEM_ROWS,
  ...SQLITE_ROWS,
  ...PROGRAM_ROWS,
];
