import { join } from 'node:path';
import type { Program } from '../programs.ts';
import { capture } from '../capture.ts';
import { runOwnClient } from '../own-client.ts';
import type { Measurement, RunTime } from '../race.ts';
import type { NbdWorkload } from './workloads.ts';

const MIB = 2 ** 20;

/** Runs our load client: bench/load/main.ts. */
export function runLoad(
  workload: NbdWorkload,
  socket: string,
  exportName: string,
  time: RunTime,
): Promise<Measurement> {
  const script = join(import.meta.dirname, '../load/main.ts');
  const args = [
    `--socket=${socket}`,
    `--export=${exportName}`,
    `--connections=${workload.connections}`,
  ];
  return runOwnClient(script, workload, args, time);
}

interface FioSide {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly percentile?: Record<string, number> };
}

interface FioReport {
  readonly jobs: readonly {
    readonly error: number;
    readonly read: FioSide;
    readonly write: FioSide;
    readonly usr_cpu: number;
    readonly sys_cpu: number;
  }[];
}

/** Runs fio's nbd engine (libnbd). */
export async function runFio(
  fio: Program,
  workload: NbdWorkload,
  socket: string,
  exportName: string,
  time: RunTime,
): Promise<Measurement> {
  const text = await capture([
    ...fio.command,
    '--name=load',
    '--ioengine=nbd',
    '--thread',
    '--output-format=json',
    '--randrepeat=1',
    `--uri=nbd+unix:///${exportName}?socket=${socket}`,
    `--rw=${workload.mode}`,
    `--bs=${workload.blockBytes}`,
    `--iodepth=${workload.depth}`,
    '--time_based',
    `--runtime=${Math.round(time.seconds * 1000)}ms`,
    `--ramp_time=${Math.round(time.warmupSeconds * 1000)}ms`,
    // Without it fio keeps a map of blocks and becomes the bottleneck earlier.
    '--norandommap',
  ]);
  // Warnings precede the report on the same stream.
  const report = JSON.parse(text.slice(text.indexOf('{'))) as FioReport;
  const job = report.jobs[0];
  if (job === undefined || job.error !== 0) throw new Error(`fio failed: error ${job?.error}`);
  const side = workload.mode.endsWith('read') ? job.read : job.write;
  return {
    rate: workload.unit === 'MiB/s' ? side.bw_bytes / MIB : side.iops,
    clientCpuPercent: job.usr_cpu + job.sys_cpu,
    p99Us: (side.clat_ns.percentile?.['99.000000'] ?? 0) / 1000,
  };
}
