import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { type Score, scoreLines } from '../src/lab/calibrate/score.ts';
import type { RowResult } from '../src/lab/calibrate/types.ts';

// Puts the tables of a run into docs/reference/known-answers.md, between the comments that mark their places:
// npm run --silent calibrate -- --json | node scripts/known-answers.ts

const FILE = fileURLToPath(new URL('../docs/reference/known-answers.md', import.meta.url));

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
const ofLetter = (letter: string): string =>
  tableOf(rows.filter(({ id, kind }) => kind !== 'count' && id.startsWith(letter)));
const scored = scoreLines(score).map((line) => `- ${line}`);
const blocks: Readonly<Record<string, string>> = {
  score: [...scored, '', measuredWith()].join('\n'),
  count: tableOf(rows.filter(({ kind }) => kind === 'count')),
  K: ofLetter('K'),
  F: ofLetter('F'),
  Q: ofLetter('Q'),
  N: ofLetter('N'),
};
let page = readFileSync(FILE, 'utf8');
for (const [name, content] of Object.entries(blocks)) {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${FILE} has no place for ${name}`);
  page = `${page.slice(0, from)}${begin}\n\n${content}\n\n${page.slice(to)}`;
}
writeFileSync(FILE, page);
