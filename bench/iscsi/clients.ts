import { join } from 'node:path';
import { capture } from '../capture.ts';
import { runOwnClient } from '../own-client.ts';
import { findProgram, type Program } from '../programs.ts';
import { findQemuImg, runQemuImg, type QemuImg } from '../qemu-img.ts';
import type { Measurement, RunTime } from '../race.ts';
import { TARGET, type IscsiSubject } from './subjects.ts';
import type { IscsiWorkload } from './workloads.ts';

const MIB = 2 ** 20;
const SECTOR_BYTES = 512;
/** How many requests qemu-img's first look makes. */
const LOOK = 1000;

/** The foreign initiators of this machine. */
export interface IscsiClients {
  readonly iscsiPerf: Program | null;
  readonly qemuImg: QemuImg | null;
  /** Which they are, for the record. */
  readonly notes: readonly string[];
}

export function findIscsiClients(): IscsiClients {
  const iscsiPerf = findProgram('iscsi-perf', null);
  const qemuImg = findQemuImg('block-iscsi.so');
  return {
    iscsiPerf,
    qemuImg,
    notes: [
      `iscsi-perf ${iscsiPerf === null ? 'missing' : 'of libiscsi'}`,
      `qemu-img ${qemuImg?.program.version ?? 'missing'} bench (libiscsi)`,
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
  if (clients.qemuImg === null) throw new Error('qemu-img with block-iscsi.so is missing');
  const image = `driver=iscsi,transport=tcp,portal=${socket},target=${TARGET},lun=${subject.lun}`;
  return runQemuImg(clients.qemuImg, workload, image, LOOK, time);
}

function runLoad(
  workload: IscsiWorkload,
  { lun }: IscsiSubject,
  socket: string,
  time: RunTime,
): Promise<Measurement> {
  const args = [
    `--port=${socket.slice(socket.indexOf(':') + 1)}`,
    `--target=${TARGET}`,
    `--lun=${lun}`,
    `--sessions=${workload.sessions}`,
  ];
  return runOwnClient(join(import.meta.dirname, 'load.ts'), workload, args, time);
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
