import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { type Score, scoreLines } from '../src/lab/calibrate/score.ts';
import type { RowResult } from '../src/lab/calibrate/types.ts';

// Writes docs/reference/known-answers.md from a run: holdfast lab calibrate --json | node scripts/known-answers.ts

const FILE = fileURLToPath(new URL('../docs/reference/known-answers.md', import.meta.url));

const INTRODUCTION = `# Known answers

A tool that says "nothing found" is worth something only if it would have found something. \`holdfast lab calibrate\` runs the lab on workloads and traces whose outcome is known: some must fail, and for a known reason; the others must not fail in any state. It needs root, for it mounts file systems.

\`\`\`sh
holdfast lab calibrate             # all rows, about ten minutes
holdfast lab calibrate S K0 Q5a    # some of them
holdfast lab calibrate --keep DIR  # traces and reports stay there
\`\`\`

A promise is integrity, atomicity or durability of one row. _Sensitivity_ is the share of the promises known to break that were seen to break, with a cause that may be; _specificity_ the share of those known to hold that were not seen to break. \`–\`: this machine cannot run the row.`;

const SURPRISES = `## What came out otherwise than it is usually told

Each was looked into: whether the lab is wrong, the row, or the software.

- **F5g: ext4 as it comes, rename without fsync.** The manual says that \`auto_da_alloc\` forces the data to the disk before the rename is committed. It does; but with \`dioread_nolock\`, the default since Linux 5.6, blocks count as written only in a later transaction, and until then the new file is all zeroes. With \`dioread_lock\` (F5a) the manual is right. The software.
- **F5d: btrfs, rename without fsync.** Replacing a file by rename starts the writing of its data, and does not wait for it. If the folder is synced right afterwards, the name is there and the file is empty. The software; its documentation promises less than is often believed.
- **F4a: stale data with \`data=writeback\`.** Only seen with \`nodelalloc,dioread_lock\`: otherwise ext4 has no blocks to point at yet, or points at blocks that count as unwritten. The row was wrong.
- **F1t: a torn superblock.** The superblock of ext4 is two sectors with one checksum, written in place. On a disk that may lose single sectors of a write (M2) it can be unreadable; \`e2fsck\` then takes a copy. All other rows are about disks that keep a write whole (M1).
- **F2 and others without barriers** break by order as soon as the journal is used again: a flush comes only at the end.
- **Q2a: SQLite with \`journal_mode=OFF\`.** Node's SQLite is defensive by default, and keeps the journal on. The workload switches that off, and now makes sure. The row was wrong.
- **N8: \`fs.writeFile\` in place.** With its option \`flush\` the new size and the new data mostly go into one transaction, and nothing is seen. The row is without it, which is the default.
- **N5: LMDB with MDB_NOSYNC** is said to keep its integrity if the order of writes is kept. The order of the disk's writes is not enough: the file system must keep that of the program's, and ext4 does not. So there is one row, and not one for each model.
- **LMDB's \`flushed\`** is documented to make the last put durable. After some power cuts the put is not there. Whether the package's choice of the last safe transaction or the row is to blame is not settled, so there is no row for it.
- **K0b: QEMU with \`cache=unsafe\`** keeps a FLUSH to itself over a file. Over NBD it sends it all the same.
- **K0e**, the comparison with a recording by dm-log-writes, is a test of its own (\`test/e2e/dm-log-writes.test.ts\`).`;

const SIGNS = { 'as-known': '✔', other: '✘', cannot: '–' } as const;

function cell(words: string): string {
  return words.replaceAll('|', '\\|').replaceAll('\n', ' ');
}

function tableOf(rows: readonly RowResult[]): string {
  const lines = rows.map(({ id, title, outcome, expected, found, basis }) => {
    // Why this machine could not is of no interest elsewhere.
    const words = outcome === 'cannot' ? 'not run' : found;
    return `| ${id} | ${cell(title)} | ${cell(expected)} | ${SIGNS[outcome]} ${cell(words)} | ${cell(basis)} |`;
  });
  return ['| row | what | known | found | why it is known |', '| --- | --- | --- | --- | --- |']
    .concat(lines)
    .join('\n');
}

function versionOf(command: string, argument: string): string {
  try {
    const output = execFileSync('sh', ['-c', `${command} ${argument} 2>&1`], { encoding: 'utf8' });
    return /\d+\.\d+(?:\.\d+)*/.exec(output)?.[0] ?? '?';
  } catch {
    return '?';
  }
}

function measuredWith(): string {
  const parts = [
    `Linux ${release().split('.').slice(0, 2).join('.')}`,
    `Node ${process.versions.node} with SQLite ${process.versions['sqlite'] ?? '?'}`,
    `e2fsprogs ${versionOf('/usr/sbin/e2fsck', '-V')}`,
    `xfsprogs ${versionOf('/usr/sbin/mkfs.xfs', '-V')}`,
    `btrfs-progs ${versionOf('/usr/sbin/mkfs.btrfs', '--version')}`,
    `git ${versionOf('git', '--version')}`,
    `QEMU ${versionOf('qemu-io', '--version')}`,
  ];
  return `Measured with ${parts.join(', ')}.`;
}

const { rows, score } = JSON.parse(await text(process.stdin)) as {
  rows: readonly RowResult[];
  score: Score;
};
const page = [
  INTRODUCTION,
  '## The score',
  scoreLines(score)
    .map((line) => `- ${line}`)
    .join('\n'),
  measuredWith(),
  '## Traces, counted',
  'States that a power cut leaves of a few requests, by hand from [the definition of the models](../concepts/crash-model.md).',
  tableOf(rows.filter(({ kind }) => kind === 'count')),
  '## The lab itself',
  tableOf(rows.filter(({ id }) => id.startsWith('K'))),
  '## File systems',
  tableOf(rows.filter(({ id }) => id.startsWith('F'))),
  '## SQLite',
  tableOf(rows.filter(({ id }) => id.startsWith('Q'))),
  '## Programs',
  'The rows of LMDB need the package lmdb in the project of the current folder: `npm install --no-save lmdb`.',
  tableOf(rows.filter(({ id }) => id.startsWith('N'))),
  SURPRISES,
].join('\n\n');
writeFileSync(FILE, `${page}\n`);
