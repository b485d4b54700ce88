import { writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { messageOf, UsageError } from '../src/base/errors.ts';
import { fileSystemOf, findProgram, peersRoot } from './programs.ts';
import { asMarkdown, asText, ratiosOf } from './report.ts';
import type { Report } from './report.ts';
import { asSvg } from './svg.ts';
import { runFio, runLoad } from './nbd/clients.ts';
import { findSubjects } from './nbd/subjects.ts';
import { WORKLOADS } from './nbd/workloads.ts';
import { IMAGE_MIB, runRace, storageFolders } from './race.ts';
import type { Race, Subject, Workload } from './race.ts';
import { findIscsiClients, freePort, runIscsiClient } from './iscsi/clients.ts';
import { findIscsiSubjects } from './iscsi/subjects.ts';
import { ISCSI_WORKLOADS } from './iscsi/workloads.ts';
import { benchLab, labWorkloads } from './lab/suite.ts';
import { findQemuImg } from './qemu-img.ts';
import { runBlkLoad, runBlkQemuImg } from './vhost-user-blk/clients.ts';
import { findBlkSubjects } from './vhost-user-blk/subjects.ts';
import { BLK_WORKLOADS } from './vhost-user-blk/workloads.ts';

const USAGE = `Usage: npm run bench -- nbd|vhost-user-blk|iscsi|lab [options]
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

const SUITES = ['nbd', 'vhost-user-blk', 'iscsi', 'lab'] as const;

interface Options {
  readonly suite: (typeof SUITES)[number];
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
  const suite = SUITES.find((name) => name === positionals[0]);
  if (positionals.length !== 1 || suite === undefined) throw new UsageError(USAGE);
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  if (!Number.isInteger(rounds) || rounds < 1) throw new UsageError('--rounds is a whole number');
  if (!(seconds > 0)) throw new UsageError('--seconds is a number above 0');
  return {
    suite,
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

/** One protocol's race, before its subjects and workloads are chosen. */
interface Suite<S extends Subject, W extends Workload> {
  readonly title: string;
  readonly found: readonly S[];
  readonly missing: readonly string[];
  readonly workloads: readonly W[];
  /** What the clients are. */
  readonly notes: readonly string[];
  readonly client: Race<S, W>['client'];
  readonly address?: () => string;
}

function chosen<S extends Subject>(options: Options, found: readonly S[]): S[] {
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

async function race<S extends Subject, W extends Workload>(
  options: Options,
  suite: Suite<S, W>,
): Promise<void> {
  const subjects = chosen(options, suite.found);
  const workloads = suite.workloads.filter((workload) => options.only.test(workload.name));
  if (workloads.length === 0) throw new UsageError('no workload matches --only (see --list)');
  const notes = [
    ...machineNotes(),
    `image: ${IMAGE_MIB} MiB of random bytes`,
    `medians of ${options.rounds} alternating rounds of ${options.seconds} s; peers from ${peersRoot() ?? 'the system'}`,
    ...suite.notes,
    ...subjects.map((subject) => `${subject.name}: ${subject.description}`),
    ...suite.missing.map((name) => `${name}: not found, not measured`),
  ];
  notes.forEach(say);
  if (options.list) {
    for (const workload of workloads) process.stdout.write(`${workload.name}\n`);
    return;
  }
  const time = timeOf(options);
  const { suite: name, rounds } = options;
  const { client, address } = suite;
  const common = { suite: name, subjects, workloads, rounds, time, say, client };
  const rows = await runRace(address === undefined ? common : { ...common, address });
  const ours = new Set(subjects.filter((subject) => subject.ours).map((subject) => subject.name));
  const peers = new Set(subjects.map((subject) => subject.name).filter((one) => !ours.has(one)));
  const report: Report = { rows, ratios: ratiosOf(rows, [...ours][0] ?? '', peers) };
  publish(options, report, notes, suite.title, ours);
}

function publish(
  options: Options,
  report: Report,
  notes: readonly string[],
  title: string,
  ours: ReadonlySet<string>,
): void {
  process.stdout.write(`${asText(report)}\n`);
  if (options.json !== undefined) {
    writeFileSync(options.json, `${JSON.stringify({ notes, ...report }, null, 1)}\n`);
  }
  if (options.md !== undefined) writeFileSync(options.md, asMarkdown(report, notes));
  if (options.svg !== undefined) writeFileSync(options.svg, asSvg(report, title, ours));
}

function machineNotes(): string[] {
  return [
    `${cpus().length} x ${cpus()[0]?.model ?? 'unknown processor'}, Linux ${release()}`,
    `tmpfs: ${fileSystemOf(storageFolders().tmpfs)}; fs: ${fileSystemOf('.')}`,
  ];
}

function timeOf({ seconds }: Options): { seconds: number; warmupSeconds: number } {
  return { seconds, warmupSeconds: 0.3 };
}

function raceNbd(options: Options): Promise<void> {
  const fio = findProgram('fio');
  return race(options, {
    title: 'Holdfast and its peers over NBD',
    ...findSubjects(options.build),
    workloads: WORKLOADS,
    notes: [
      `fio ${fio?.version ?? 'missing'} (nbd engine, libnbd); load: bench/load, one process, batched`,
    ],
    client: (workload, subject, socket) => {
      const time = timeOf(options);
      if (workload.client === 'load') return runLoad(workload, socket, subject.exportName, time);
      if (fio === null) throw new Error('fio is missing (apt-get install fio)');
      return runFio(fio, workload, socket, subject.exportName, time);
    },
  });
}

function raceVhostUserBlk(options: Options): Promise<void> {
  const qemuImg = findQemuImg('block-blkio.so');
  const theirs = `qemu-img ${qemuImg?.program.version ?? 'missing'} bench (libblkio)`;
  return race(options, {
    title: 'Holdfast and its peers over vhost-user-blk',
    ...findBlkSubjects(options.build),
    workloads: BLK_WORKLOADS,
    notes: [`${theirs}; load: bench/vhost-user-blk/load.ts, our own driver, one process`],
    client: (workload, _subject, socket) => {
      const time = timeOf(options);
      if (workload.client === 'load') return runBlkLoad(workload, socket, time);
      if (qemuImg === null) {
        throw new Error('qemu-img with block-blkio.so is missing (npm run bench:peers)');
      }
      return runBlkQemuImg(qemuImg, workload, socket, time);
    },
  });
}

function raceIscsi(options: Options): Promise<void> {
  const clients = findIscsiClients();
  return race(options, {
    title: 'Holdfast and its peers over iSCSI',
    ...findIscsiSubjects(options.build),
    workloads: ISCSI_WORKLOADS,
    notes: [
      `${clients.notes.join('; ')}; load: bench/iscsi/load.ts, our own initiator, one process`,
    ],
    address: freePort,
    client: (workload, subject, socket) =>
      runIscsiClient(clients, workload, subject, socket, timeOf(options)),
  });
}

async function raceLab(options: Options): Promise<void> {
  if (options.list) {
    for (const name of labWorkloads()) process.stdout.write(`${name}\n`);
    return;
  }
  const { rounds, seconds, only } = options;
  const notes = [
    ...machineNotes(),
    `medians of ${rounds} alternating rounds of ${seconds} s; recorded: holdfast serve --record, unrecorded: without`,
    'load: our own clients, one process; rates of checks: lab explore, one thread for each processor',
  ];
  notes.forEach(say);
  const rows = await benchLab({ rounds, only, ...timeOf(options) }, say);
  const ratios = ratiosOf(rows, 'recorded', new Set(['unrecorded']));
  publish(options, { rows, ratios }, notes, 'The power-cut lab', new Set(['recorded']));
}

const RACES = {
  nbd: raceNbd,
  'vhost-user-blk': raceVhostUserBlk,
  iscsi: raceIscsi,
  lab: raceLab,
} as const;

function main(): Promise<void> {
  const options = parse();
  return RACES[options.suite](options);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof UsageError ? error.message : messageOf(error)}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
