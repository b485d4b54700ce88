import { MiB } from '../../base/units.ts';
import type { CauseKind } from '../minimise/types.ts';
import { type Given, workloadRow as row } from './workload-row.ts';
import type { CrashRow, Expected } from './types.ts';
import type { WorkloadOptions } from './workloads/registry.ts';

// File systems, databases and programs whose behaviour on a power cut is known.

/** Whatever was still on its way when something was promised. */
const LATE: readonly CauseKind[] = ['missing-flush', 'never-issued', 'no-flush-seen'];
const DISORDER: readonly CauseKind[] = ['order', 'tear', 'stale', 'missing-flush', 'no-flush-seen'];
const ANY: readonly CauseKind[] = [...new Set([...LATE, ...DISORDER]), 'always'];

const SOUND: Expected = { integrity: 'holds', atomicity: 'holds', durability: 'holds' };

/** The least that mkfs.xfs and mkfs.btrfs take. */
const XFS = { fs: 'xfs', sizeBytes: 320 * MiB } as const;
const BTRFS = { fs: 'btrfs', sizeBytes: 256 * MiB } as const;
const EXT2 = { fs: 'ext2' } as const;
const EXT = { kind: 'ext', options: {} } as const;
/** Without a journal a repair is forgiven otherwise. */
const EXT_STRICT = { kind: 'ext', options: { strict: 'yes' } } as const;

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
    expected: { durability: 'breaks' },
    basis: 'barriers are needed with a volatile cache [ext4(5)]',
  }),
  row({
    id: 'F3a',
    title: 'ext2',
    ...EXT2,
    workload: 'storm',
    oracle: EXT_STRICT,
    expected: { integrity: 'breaks' },
    basis: 'no journal',
  }),
  row({
    id: 'F3b',
    title: 'ext4 without a journal',
    make: ['-O', '^has_journal'],
    workload: 'storm',
    oracle: EXT_STRICT,
    expected: { integrity: 'breaks' },
    basis: 'no journal',
  }),
  row({
    id: 'F4a',
    title: 'ext4, data=writeback: blocks of removed files show',
    workload: 'stale',
    mountOptions: 'data=writeback',
    expected: { integrity: 'breaks' },
    basis: 'data may be written after the metadata that points at it [ext4(5)]',
  }),
  row({
    id: 'F4b',
    title: 'ext4, data=ordered: they do not',
    workload: 'stale',
    mountOptions: 'data=ordered',
    expected: { integrity: 'holds', atomicity: 'holds' },
    basis: 'data is written before the metadata is committed [ext4(5)]',
  }),
  ...renameRows(),
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
    expected: { integrity: 'breaks' },
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
    basis: 'no journal',
  }),
];

/** A file is replaced by rename(2): what is there afterwards, without and with fsync(2) before it. */
function renameRows(): CrashRow[] {
  const without: WorkloadOptions = { fsync: false, 'folder-fsync': true, acks: false };
  const torn: Expected = { atomicity: 'breaks' };
  const whole: Expected = { atomicity: 'holds' };
  const rows: [string, string, Partial<Given>, Expected][] = [
    ['F5a', 'ext4', {}, whole],
    ['F5b', 'ext4 noauto_da_alloc', { mountOptions: 'noauto_da_alloc' }, torn],
    ['F5c', 'xfs', XFS, torn],
    ['F5d', 'btrfs', BTRFS, whole],
    ['F5e', 'ext2', EXT2, torn],
    ['F5f', 'vfat', { fs: 'vfat' }, torn],
  ];
  return [
    ...rows.map(([id, fs, given, expected]) =>
      row({
        id,
        title: `rename without fsync on ${fs}`,
        workload: 'replace',
        options: without,
        expected,
        basis:
          'rename(2) orders names, not data; ext4 writes the data first [ext4(5) "auto_da_alloc"]',
        ...given,
      }),
    ),
    row({
      id: 'F6a',
      title: 'fsync, rename on ext4: whole, and not yet durable',
      workload: 'replace',
      expected: { atomicity: 'holds', durability: 'breaks' },
      causes: LATE,
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
      basis: 'a rename is two changes in place',
    }),
  ];
}

function sqlite(
  id: string,
  journal: string,
  synchronous: string,
  expected: Expected,
  basis: string,
): CrashRow {
  return row({
    id,
    title: `SQLite, journal_mode ${journal}, synchronous ${synchronous}`,
    workload: 'sqlite',
    options: { journal, synchronous },
    expected,
    basis,
  });
}

const PRAGMA = '[SQLite "PRAGMA synchronous"]';
const SQLITE_ROWS: readonly CrashRow[] = [
  sqlite('Q1', 'DELETE', 'OFF', { durability: 'breaks' }, `might become corrupted ${PRAGMA}`),
  sqlite(
    'Q2a',
    'OFF',
    'FULL',
    { integrity: 'breaks' },
    'no rollback [SQLite "PRAGMA journal_mode"]',
  ),
  sqlite(
    'Q2b',
    'MEMORY',
    'FULL',
    { integrity: 'breaks' },
    'no rollback [SQLite "PRAGMA journal_mode"]',
  ),
  sqlite('Q3', 'DELETE', 'NORMAL', { integrity: 'holds', atomicity: 'holds' }, PRAGMA),
  sqlite(
    'Q4',
    'DELETE',
    'FULL',
    { integrity: 'holds', atomicity: 'holds', durability: 'breaks' },
    `EXTRA exists for this ${PRAGMA}`,
  ),
  sqlite('Q5a', 'DELETE', 'EXTRA', SOUND, PRAGMA),
  sqlite('Q5b', 'TRUNCATE', 'FULL', SOUND, PRAGMA),
  sqlite('Q5c', 'PERSIST', 'FULL', SOUND, PRAGMA),
  sqlite(
    'Q6',
    'WAL',
    'NORMAL',
    { integrity: 'holds', atomicity: 'holds', durability: 'breaks' },
    PRAGMA,
  ),
  sqlite('Q7', 'WAL', 'FULL', SOUND, PRAGMA),
];

const PROGRAM_ROWS: readonly CrashRow[] = [
  row({
    id: 'N1a',
    title: 'classic-level put()',
    workload: 'leveldb',
    expected: { durability: 'breaks' },
    causes: LATE,
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
    id: 'N4a',
    title: 'lmdb put()',
    workload: 'lmdb',
    expected: { integrity: 'holds', durability: 'breaks' },
    causes: LATE,
    basis: 'overlappingSync [lmdb README]',
  }),
  row({
    id: 'N4b',
    title: 'lmdb put() and flushed',
    workload: 'lmdb',
    options: { sync: 'flushed' },
    expected: { integrity: 'holds', durability: 'holds' },
    basis: '[lmdb README]',
  }),
  ...(['M0', 'M1'] as const).map((model) =>
    row({
      id: model === 'M0' ? 'N5a' : 'N5b',
      title: `LMDB with MDB_NOSYNC, on a disk that ${model === 'M0' ? 'keeps' : 'changes'} the order`,
      workload: 'lmdb',
      options: { sync: 'nosync' },
      model,
      expected: { integrity: model === 'M0' ? 'holds' : 'breaks' },
      basis: 'sound if the order of writes is kept [lmdb.h MDB_NOSYNC]',
    }),
  ),
  row({
    id: 'N7a',
    title: 'write-file-atomic on xfs',
    ...XFS,
    workload: 'replace',
    options: { by: 'write-file-atomic' },
    expected: { atomicity: 'holds', durability: 'breaks' },
    causes: LATE,
    basis: 'it does not sync the folder',
  }),
  row({
    id: 'N7b',
    title: 'write-file-atomic without fsync on xfs',
    ...XFS,
    workload: 'replace',
    options: { by: 'write-file-atomic', fsync: false, 'folder-fsync': true },
    expected: { atomicity: 'breaks' },
    basis: 'rename(2) orders names, not data',
  }),
  row({
    id: 'N8',
    title: 'fs.writeFile over a file',
    workload: 'replace',
    options: { by: 'write-file', 'folder-fsync': true },
    expected: { atomicity: 'breaks' },
    basis: 'it is cut to nothing first [open(2) O_TRUNC]',
  }),
  row({
    id: 'N10a',
    title: 'git commit on xfs',
    ...XFS,
    workload: 'git',
    expected: { durability: 'breaks' },
    basis: 'loose objects are not synced [git-config "core.fsync"]',
  }),
  row({
    id: 'N10b',
    title: 'git commit with core.fsync=all on xfs',
    ...XFS,
    workload: 'git',
    options: { fsync: 'all' },
    expected: { integrity: 'holds' },
    basis: '[git-config "core.fsync"]',
  }),
];

export const WORKLOAD_ROWS: readonly CrashRow[] = [
  ...FILE_SYSTEM_ROWS,
  ...SQLITE_ROWS,
  ...PROGRAM_ROWS,
];
