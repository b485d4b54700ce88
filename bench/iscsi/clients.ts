import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { capture } from '../capture.ts';
import type { LoadResult } from '../load/meter.ts';
import { findProgram, type Program } from '../programs.ts';
import type { Measurement, RunTime } from '../race.ts';
import { TARGET, type IscsiSubject } from './subjects.ts';
import type { IscsiWorkload } from './workloads.ts';

const MIB = 2 ** 20;
const SECTOR_BYTES = 512;

/** The foreign initiators of this machine. */
export interface IscsiClients {
  readonly iscsiPerf: Program | null;
  readonly qemuImg: Program | null;
  readonly qemuImgEnv: Record<string, string>;
  /** Which they are, for the record. */
  readonly notes: readonly string[];
}

export function findIscsiClients(): IscsiClients {
  const iscsiPerf = findProgram('iscsi-perf', null);
  const program = findProgram('qemu-img');
  const root = program === null || program.origin === 'system' ? '/' : program.origin;
  const modules = join(root, 'usr/lib/x86_64-linux-gnu/qemu');
  const qemuImg = existsSync(join(modules, 'block-iscsi.so')) ? program : null;
  return {
    iscsiPerf,
    qemuImg,
    qemuImgEnv: { QEMU_MODULE_DIR: modules },
    notes: [
      `iscsi-perf ${iscsiPerf === null ? 'missing' : 'of libiscsi'}`,
      `qemu-img ${qemuImg?.version ?? 'missing'} bench (libiscsi)`,
    ],
  };
}

let nextPort = 20_000 + (process.pid % 10_000);

/** "127.0.0.1:PORT", each one another, for the last one's connections linger. */
export function freePort(): string {
  nextPort += 1;
  return `127.0.0.1:${nextPort}`;
}

/** Runs a workload's client against the server at "127.0.0.1:PORT". */
export function runIscsiClient(
  clients: IscsiClients,
  workload: IscsiWorkload,
  subject: IscsiSubject,
  socket: string,
  time: RunTime,
): Promise<Measurement> {
  if (workload.client === 'load') return runLoad(workload, subject, socket, time);
  if (workload.client === 'iscsi-perf') {
    if (clients.iscsiPerf === null) throw new Error('iscsi-perf is missing (libiscsi-bin)');
    return runIscsiPerf(clients.iscsiPerf, workload, subject, socket, time);
  }
  return runQemuImg(clients, workload, subject, socket, time);
}

async function runLoad(
  workload: IscsiWorkload,
  { lun }: IscsiSubject,
  socket: string,
  time: RunTime,
): Promise<Measurement> {
  const result = JSON.parse(
    await capture([
      process.execPath,
      join(import.meta.dirname, 'load.ts'),
      `--port=${socket.slice(socket.indexOf(':') + 1)}`,
      `--target=${TARGET}`,
      `--lun=${lun}`,
      `--mode=${workload.mode}`,
      `--bs=${workload.blockBytes}`,
      `--depth=${workload.depth}`,
      `--sessions=${workload.sessions}`,
      `--seconds=${time.seconds}`,
      `--warmup=${time.warmupSeconds}`,
    ]),
  ) as LoadResult;
  return {
    rate: workload.unit === 'MiB/s' ? result.bytesPerSecond / MIB : result.operationsPerSecond,
    clientCpuPercent: result.cpuPercent,
    p99Us: result.latencyUs.p99,
  };
}

/** It counts whole seconds, and has no warm-up. */
async function runIscsiPerf(
  program: Program,
  workload: IscsiWorkload,
  { lun }: IscsiSubject,
  socket: string,
  time: RunTime,
): Promise<Measurement> {
  const output = await capture([
    ...program.command,
    '-m',
    String(workload.depth),
    '-b',
    String(workload.blockBytes / SECTOR_BYTES),
    '-t',
    String(Math.max(1, Math.round(time.seconds))),
    ...(workload.mode.startsWith('rand') ? ['-r'] : []),
    `iscsi://${socket}/${TARGET}/${lun}`,
  ]);
  const rate = Number(/iops average (\d+)/.exec(lastLine(output))?.[1]);
  if (!(rate > 0)) throw new Error(`iscsi-perf said ${output.slice(-500)}`);
  return {
    rate: workload.unit === 'MiB/s' ? (rate * workload.blockBytes) / MIB : rate,
    // It does not say.
    clientCpuPercent: Number.NaN,
    p99Us: Number.NaN,
  };
}

/** What it printed last: each second's line replaces the one before on a terminal. */
function lastLine(output: string): string {
  return output.slice(output.lastIndexOf('iops average'));
}

/** How many requests the first look makes. */
const LOOK = 1000;

/** As over vhost-user: bench/vhost-user-blk/clients.ts says why it is run three times, and why the steps are odd. */
async function runQemuImg(
  clients: IscsiClients,
  workload: IscsiWorkload,
  subject: IscsiSubject,
  socket: string,
  time: RunTime,
): Promise<Measurement> {
  let rate = 0;
  let count = LOOK;
  for (const nextSeconds of [time.warmupSeconds, time.seconds, 0]) {
    rate = count / (await qemuImgSeconds(clients, workload, subject, socket, count));
    count = Math.max(LOOK, Math.round(rate * nextSeconds));
  }
  return {
    rate: workload.unit === 'MiB/s' ? (rate * workload.blockBytes) / MIB : rate,
    clientCpuPercent: Number.NaN,
    p99Us: Number.NaN,
  };
}

async function qemuImgSeconds(
  { qemuImg, qemuImgEnv }: IscsiClients,
  workload: IscsiWorkload,
  { lun }: IscsiSubject,
  socket: string,
  count: number,
): Promise<number> {
  if (qemuImg === null) throw new Error('qemu-img with block-iscsi.so is missing');
  const stepBytes = workload.blockBytes * (workload.mode.startsWith('rand') ? 1811 : 1);
  const output = await capture(
    [
      ...qemuImg.command,
      'bench',
      `--count=${count}`,
      `--depth=${workload.depth}`,
      `--buffer-size=${workload.blockBytes}`,
      `--step-size=${stepBytes}`,
      ...(workload.mode.endsWith('write') ? ['--write', '--pattern=165'] : []),
      '--cache=none',
      '--image-opts',
      `driver=iscsi,transport=tcp,portal=${socket},target=${TARGET},lun=${lun},cache.direct=on`,
    ],
    qemuImgEnv,
  );
  const seconds = Number(/Run completed in ([\d.]+) seconds/.exec(output)?.[1]);
  if (!(seconds > 0)) throw new Error(`qemu-img bench said ${output.slice(0, 4096)}`);
  return seconds;
}
