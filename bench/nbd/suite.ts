import { randomFillSync } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  mkdtempSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { messageOf } from '../../src/base/errors.ts';
import type { Program } from '../programs.ts';
import type { Row } from '../report.ts';
import { median } from '../statistics.ts';
import { ServerProcess } from '../server-process.ts';
import { runFio, runLoad } from './clients.ts';
import type { Measurement, RunTime } from './clients.ts';
import type { Subject } from './subjects.ts';
import type { Workload } from './workloads.ts';

const MIB = 2 ** 20;
export const IMAGE_MIB = 512;

export interface SuiteOptions {
  readonly subjects: readonly Subject[];
  readonly workloads: readonly Workload[];
  readonly fio: Program | null;
  readonly rounds: number;
  readonly time: RunTime;
  readonly say: (line: string) => void;
}

/** One subject's run of one workload, with what the server itself counted. */
interface Run extends Measurement {
  readonly serverCpuPercent: number;
  readonly flushesPerSync: number | null;
}

/** The places the images lie: memory, and a real file system. */
export function storageFolders(): Record<Workload['storage'], string> {
  return { tmpfs: '/dev/shm', fs: resolve('.bench') };
}

/**
 * Runs every workload in alternating rounds: in each round every subject once, the order rotated, so that drift of a
 * shared machine hits all alike. Returns a row for each subject, workload and metric.
 */
export async function runSuite(options: SuiteOptions): Promise<Row[]> {
  const folders = new Map<Workload['storage'], string>();
  mkdirSync(storageFolders().fs, { recursive: true });
  const rows: Row[] = [];
  try {
    for (const workload of options.workloads) {
      if (!folders.has(workload.storage)) {
        folders.set(workload.storage, prepare(storageFolders()[workload.storage]));
      }
      const folder = folders.get(workload.storage) as string;
      const runs = await runWorkload(workload, folder, options);
      for (const subject of options.subjects) {
        rows.push(...rowsOf(workload, subject.name, runs.get(subject.name) ?? []));
      }
    }
  } finally {
    for (const folder of folders.values()) rmSync(folder, { recursive: true });
  }
  return rows;
}

async function runWorkload(
  workload: Workload,
  folder: string,
  options: SuiteOptions,
): Promise<Map<string, Run[]>> {
  const { subjects } = options;
  const runs = new Map<string, Run[]>(subjects.map((subject) => [subject.name, []]));
  for (let round = 0; round < options.rounds; round += 1) {
    for (let i = 0; i < subjects.length; i += 1) {
      const subject = subjects[(i + round) % subjects.length] as Subject;
      try {
        runs.get(subject.name)?.push(await runOnce(workload, subject, folder, options));
      } catch (error) {
        // A subject that cannot do a workload is shown as such; it must not end the others' race.
        options.say(`! ${workload.name}: ${subject.name}: ${messageOf(error)}`);
      }
    }
  }
  const best = (name: string): string => `${name} ${Math.round(median(ratesOf(runs.get(name))))}`;
  options.say(`${workload.name}: ${subjects.map((subject) => best(subject.name)).join(', ')}`);
  return runs;
}

function ratesOf(runs: readonly Run[] | undefined): number[] {
  return (runs ?? []).map((run) => run.rate);
}

async function runOnce(
  workload: Workload,
  subject: Subject,
  folder: string,
  options: SuiteOptions,
): Promise<Run> {
  const image = join(folder, 'disk.img');
  settle(image);
  const socket = join(folder, 'nbd.sock');
  rmSync(socket, { force: true });
  const command = subject.command(image, socket, folder);
  const server = await ServerProcess.start(subject.name, command, socket, subject.env);
  let measured: Measurement;
  let cpu: number;
  try {
    const before = server.cpuSeconds();
    measured = await client(workload, subject, socket, options);
    cpu = server.cpuSeconds() - before;
  } finally {
    await server.stop();
  }
  const { seconds, warmupSeconds } = options.time;
  return {
    ...measured,
    serverCpuPercent: (cpu / (seconds + warmupSeconds)) * 100,
    flushesPerSync: subject.ours ? flushesPerSync(server.output) : null,
  };
}

function client(
  workload: Workload,
  subject: Subject,
  socket: string,
  options: SuiteOptions,
): Promise<Measurement> {
  if (workload.client === 'load')
    return runLoad(workload, socket, subject.exportName, options.time);
  if (options.fio === null) throw new Error('fio is missing (apt-get install fio)');
  return runFio(options.fio, workload, socket, subject.exportName, options.time);
}

/** From the counters that Holdfast prints at its end (src/server/config.ts, DiskCounters). */
function flushesPerSync(output: string): number | null {
  const line = output.split('\n').findLast((text) => text.includes('"flushesAsked"'));
  if (line === undefined) return null;
  const counters = JSON.parse(line.slice(line.indexOf('{'))) as Record<string, number>;
  const asked = (counters['flushesAsked'] ?? 0) + (counters['fuaEmulated'] ?? 0);
  const syncs = counters['syncs'] ?? 0;
  return asked === 0 || syncs === 0 ? null : asked / syncs;
}

/** A new private folder in `parent` with an image of random bytes: no zeroes, no holes, nothing to shortcut. */
function prepare(parent: string): string {
  const folder = mkdtempSync(join(parent, 'holdfast-bench-'));
  const chunk = Buffer.alloc(MIB);
  const fd = openSync(join(folder, 'disk.img'), 'w');
  for (let i = 0; i < IMAGE_MIB; i += 1) writeSync(fd, randomFillSync(chunk));
  fdatasyncSync(fd);
  closeSync(fd);
  return folder;
}

/** Leaves no dirty pages of the run before, and the whole image in the page cache. */
function settle(image: string): void {
  if (!existsSync(image)) throw new Error(`${image} is gone`);
  const fd = openSync(image, 'r+');
  fdatasyncSync(fd);
  const chunk = Buffer.alloc(MIB);
  while (readSync(fd, chunk) > 0);
  closeSync(fd);
}

function rowsOf(workload: Workload, subject: string, runs: readonly Run[]): Row[] {
  const row = (metric: string, unit: string, values: number[]): Row => ({
    suite: 'nbd',
    workload: workload.name,
    subject,
    metric,
    unit,
    median: median(values),
    rounds: values,
  });
  if (runs.length === 0) return [];
  const rows = [
    row(workload.metric, workload.unit, ratesOf(runs)),
    row(
      'client CPU',
      '% of a core',
      runs.map((run) => run.clientCpuPercent),
    ),
    row(
      'server CPU',
      '% of a core',
      runs.map((run) => run.serverCpuPercent),
    ),
    row(
      'latency p99',
      'µs',
      runs.map((run) => run.p99Us),
    ),
  ];
  const shared = runs.map((run) => run.flushesPerSync).filter((value) => value !== null);
  if (workload.mode === 'flush' && shared.length > 0) {
    rows.push(row('flushes per sync', '1', shared));
  }
  return rows;
}
