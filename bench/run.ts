import { writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { messageOf, UsageError } from '../src/base/errors.ts';
import { fileSystemOf, findProgram, peersRoot } from './programs.ts';
import { asMarkdown, asText, ratiosOf } from './report.ts';
import type { Report } from './report.ts';
import { asSvg } from './svg.ts';
import { findSubjects } from './nbd/subjects.ts';
import type { Subject } from './nbd/subjects.ts';
import { IMAGE_MIB, runSuite, storageFolders } from './nbd/suite.ts';
import { WORKLOADS } from './nbd/workloads.ts';

const USAGE = `Usage: npm run bench -- nbd [options]
  --json FILE        rows and ratios as JSON
  --md FILE          the table as Markdown
  --svg FILE         the table as a picture
  --rounds N         alternating rounds (3)
  --seconds S        measured time of a run (2); a warm-up of 0.3 s precedes it
  --only REGEX       workloads whose name matches
  --subjects LIST    subjects, by name, comma separated; a name with * at its end means all that begin so
  --build NAME=DIR   another checkout of Holdfast as a subject, can be repeated
  --list             print workloads and subjects
Peers are those of .peers/trixie (npm run bench:peers) or of HOLDFAST_PEERS=DIR, else the system's.
`;

interface Options {
  readonly json: string | undefined;
  readonly md: string | undefined;
  readonly svg: string | undefined;
  readonly rounds: number;
  readonly seconds: number;
  readonly only: RegExp;
  readonly subjects: readonly string[];
  readonly build: readonly string[];
  readonly list: boolean;
}

function parse(): Options {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      md: { type: 'string' },
      svg: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '2' },
      only: { type: 'string', default: '' },
      subjects: { type: 'string', default: '*' },
      build: { type: 'string', multiple: true, default: [] },
      list: { type: 'boolean', default: false },
    },
  });
  if (positionals.length !== 1 || positionals[0] !== 'nbd') throw new UsageError(USAGE);
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  if (!Number.isInteger(rounds) || rounds < 1) throw new UsageError('--rounds is a whole number');
  if (!(seconds > 0)) throw new UsageError('--seconds is a number above 0');
  return {
    json: values.json,
    md: values.md,
    svg: values.svg,
    rounds,
    seconds,
    only: new RegExp(values.only),
    subjects: values.subjects.split(','),
    build: values.build,
    list: values.list,
  };
}

function chosen(options: Options, found: readonly Subject[]): Subject[] {
  const wants = (name: string): boolean =>
    options.subjects.some((want) =>
      want.endsWith('*') ? name.startsWith(want.slice(0, -1)) : name === want,
    );
  const subjects = found.filter((subject) => wants(subject.name));
  if (subjects.length === 0) throw new UsageError(`no such subject: ${options.subjects.join(',')}`);
  return subjects;
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function main(): Promise<void> {
  const options = parse();
  const { found, missing } = findSubjects(options.build);
  const subjects = chosen(options, found);
  const workloads = WORKLOADS.filter((workload) => options.only.test(workload.name));
  if (workloads.length === 0) throw new UsageError('no workload matches --only (see --list)');
  const fio = findProgram('fio');
  const notes = [
    `${cpus().length} x ${cpus()[0]?.model ?? 'unknown processor'}, Linux ${release()}`,
    `tmpfs: ${fileSystemOf(storageFolders().tmpfs)}; fs: ${fileSystemOf('.')}`,
    `image: ${IMAGE_MIB} MiB of random bytes`,
    `medians of ${options.rounds} alternating rounds of ${options.seconds} s; peers from ${peersRoot() ?? 'the system'}`,
    `fio ${fio?.version ?? 'missing'} (nbd engine, libnbd); load: bench/load, one process, batched`,
    ...subjects.map((subject) => `${subject.name}: ${subject.description}`),
    ...missing.map((name) => `${name}: not found, not measured`),
  ];
  notes.forEach(say);
  if (options.list) {
    for (const workload of workloads) process.stdout.write(`${workload.name}\n`);
    return;
  }
  const time = { seconds: options.seconds, warmupSeconds: 0.3 };
  const rows = await runSuite({ subjects, workloads, fio, rounds: options.rounds, time, say });
  const ours = new Set(subjects.filter((subject) => subject.ours).map((subject) => subject.name));
  const peers = new Set(subjects.map((subject) => subject.name).filter((name) => !ours.has(name)));
  const report: Report = { rows, ratios: ratiosOf(rows, [...ours][0] ?? '', peers) };
  process.stdout.write(`${asText(report)}\n`);
  if (options.json !== undefined) {
    writeFileSync(options.json, `${JSON.stringify({ notes, ...report }, null, 1)}\n`);
  }
  if (options.md !== undefined) writeFileSync(options.md, asMarkdown(report, notes));
  if (options.svg !== undefined) {
    writeFileSync(options.svg, asSvg(report, 'Holdfast and its peers over NBD', ours));
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof UsageError ? error.message : messageOf(error)}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
