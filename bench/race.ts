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
import { messageOf } from '../src/base/errors.ts';
import type { Row } from './report.ts';
import { ServerProcess } from './server-process.ts';
import { median } from './statistics.ts';

/** One server in the race. */
export interface Subject {
  readonly name: string;
  /** Product, version and settings, for the record. */
  readonly description: string;
  readonly ours: boolean;
  readonly env: Record<string, string>;
  /** The command that serves `image` at `socket`, in the foreground. `folder` is for its private files. */
  command(image: string, socket: string, folder: string): string[];
}

/** What is done to a server. Every server gets the same bytes at the same offsets' distribution. */
export interface Workload {
  readonly name: string;
  readonly storage: 'tmpfs' | 'fs';
  /** Of the suite's clients, by name. */
  readonly client: string;
  readonly mode: 'randread' | 'randwrite' | 'read' | 'write' | 'flush' | 'fua';
  readonly blockBytes: number;
  readonly depth: number;
  /** What the rate counts. */
  readonly metric: 'IOPS' | 'throughput' | 'commits';
  readonly unit: '1/s' | 'MiB/s';
}

/** What one client saw in one run. */
export interface Measurement {
  /** In the workload's unit. */
  readonly rate: number;
  /** Of one core. */
  readonly clientCpuPercent: number;
  /** NaN where the client does not say. */
  readonly p99Us: number;
}

export interface RunTime {
  readonly seconds: number;
  readonly warmupSeconds: number;
}

const MIB = 2 ** 20;
export const IMAGE_MIB = 512;

export interface Race<S extends Subject, W extends Workload> {
  /** The protocol, for the rows. */
  readonly suite: string;
  readonly subjects: readonly S[];
  readonly workloads: readonly W[];
  readonly rounds: number;
  readonly time: RunTime;
  readonly say: (line: string) => void;
  /** Where the next server shall listen, "127.0.0.1:PORT"; without it, at a Unix socket. */
  readonly address?: () => string;
  /** Runs a workload's client against a server that listens at `socket`. */
  client(workload: W, subject: S, socket: string): Promise<Measurement>;
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
export async function runRace<S extends Subject, W extends Workload>(
  race: Race<S, W>,
): Promise<Row[]> {
  const folders = new Map<Workload['storage'], string>();
  mkdirSync(storageFolders().fs, { recursive: true });
  const rows: Row[] = [];
  try {
    for (const workload of race.workloads) {
      if (!folders.has(workload.storage)) {
        folders.set(workload.storage, prepare(storageFolders()[workload.storage]));
      }
      const folder = folders.get(workload.storage) as string;
      const runs = await runWorkload(workload, folder, race);
      for (const subject of race.subjects) {
        rows.push(...rowsOf(race.suite, workload, subject.name, runs.get(subject.name) ?? []));
      }
    }
  } finally {
    for (const folder of folders.values()) rmSync(folder, { recursive: true });
  }
  return rows;
}

async function runWorkload<S extends Subject, W extends Workload>(
  workload: W,
  folder: string,
  race: Race<S, W>,
): Promise<Map<string, Run[]>> {
  const { subjects } = race;
  const runs = new Map<string, Run[]>(subjects.map((subject) => [subject.name, []]));
  for (let round = 0; round < race.rounds; round += 1) {
    for (let i = 0; i < subjects.length; i += 1) {
      const subject = subjects[(i + round) % subjects.length] as S;
      try {
        runs.get(subject.name)?.push(await runOnce(workload, subject, folder, race));
      } catch (error) {
        // A subject that cannot do a workload is shown as such; it must not end the others' race.
        race.say(`! ${workload.name}: ${subject.name}: ${messageOf(error)}`);
      }
    }
  }
  const best = (name: string): string => `${name} ${Math.round(median(ratesOf(runs.get(name))))}`;
  race.say(`${workload.name}: ${subjects.map((subject) => best(subject.name)).join(', ')}`);
  return runs;
}

function ratesOf(runs: readonly Run[] | undefined): number[] {
  return (runs ?? []).map((run) => run.rate);
}

async function runOnce<S extends Subject, W extends Workload>(
  workload: W,
  subject: S,
  folder: string,
  race: Race<S, W>,
): Promise<Run> {
  const image = join(folder, 'disk.img');
  settle(image);
  const socket = race.address?.() ?? join(folder, 'disk.sock');
  if (race.address === undefined) rmSync(socket, { force: true });
  const command = subject.command(image, socket, folder);
  const server = await ServerProcess.start(subject.name, command, socket, subject.env);
  let measured: Measurement;
  let cpu: number;
  try {
    const before = server.cpuSeconds();
    measured = await race.client(workload, subject, socket);
    cpu = server.cpuSeconds() - before;
  } finally {
    await server.stop();
  }
  const { seconds, warmupSeconds } = race.time;
  return {
    ...measured,
    serverCpuPercent: (cpu / (seconds + warmupSeconds)) * 100,
    flushesPerSync: subject.ours ? flushesPerSync(server.output) : null,
  };
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

function rowsOf(suite: string, workload: Workload, subject: string, runs: readonly Run[]): Row[] {
  const row = (metric: string, unit: string, values: number[]): Row => ({
    suite,
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
