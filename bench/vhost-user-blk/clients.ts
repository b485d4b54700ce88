import { join } from 'node:path';
import { runOwnClient } from '../own-client.ts';
import { runQemuImg, type QemuImg } from '../qemu-img.ts';
import type { Measurement, RunTime } from '../race.ts';
import type { BlkWorkload } from './workloads.ts';

/** Runs our own front-end: bench/vhost-user-blk/load.ts. */
export function runBlkLoad(
  workload: BlkWorkload,
  socket: string,
  time: RunTime,
): Promise<Measurement> {
  const args = [`--socket=${socket}`, `--queues=${workload.queues}`];
  return runOwnClient(join(import.meta.dirname, 'load.ts'), workload, args, time);
}

/** How many requests the first look makes: some tens of milliseconds, and never longer than a second. */
const LOOK = 2000;

/** Runs qemu-img with libblkio's driver. */
export function runBlkQemuImg(
  qemuImg: QemuImg,
  workload: BlkWorkload,
  socket: string,
  time: RunTime,
): Promise<Measurement> {
  return runQemuImg(qemuImg, workload, `driver=virtio-blk-vhost-user,path=${socket}`, LOOK, time);
}
