import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { peerEnvironment } from '../test/e2e/support/peers.ts';
import { capture } from './capture.ts';
import { findProgram, type Program } from './programs.ts';
import type { Measurement, RunTime, Workload } from './race.ts';

const KIB = 1024;
const MIB = 2 ** 20;

/** qemu-img with a driver whose module Debian has in a package of its own. */
export interface QemuImg {
  readonly program: Program;
  readonly env: Record<string, string>;
}

/** Null where qemu-img or the module, `block-iscsi.so` say, is missing. */
export function findQemuImg(module: string): QemuImg | null {
  const program = findProgram('qemu-img');
  if (program === null) return null;
  const env = peerEnvironment(program.origin === 'system' ? '/' : program.origin);
  return existsSync(join(env.QEMU_MODULE_DIR, module)) ? { program, env } : null;
}

/**
 * Runs `qemu-img bench`, which does a number of requests and not a time: shorter runs, which are the warm-up, say how
 * many those are; the first makes `look` of them. Its steps through the disk are one size; a large one, in whole blocks,
 * goes everywhere in an order that no read-ahead follows.
 */
export async function runQemuImg(
  qemuImg: QemuImg,
  workload: Workload,
  imageOpts: string,
  look: number,
  time: RunTime,
): Promise<Measurement> {
  let rate = 0;
  let count = look;
  for (const nextSeconds of [time.warmupSeconds, time.seconds, 0]) {
    rate = count / (await qemuImgSeconds(qemuImg, workload, imageOpts, count));
    count = Math.max(look, Math.round(rate * nextSeconds));
  }
  return {
    rate: workload.unit === 'MiB/s' ? (rate * workload.blockBytes) / MIB : rate,
    // It does not say.
    clientCpuPercent: Number.NaN,
    p99Us: Number.NaN,
  };
}

async function qemuImgSeconds(
  { program, env }: QemuImg,
  workload: Workload,
  imageOpts: string,
  count: number,
): Promise<number> {
  const random = workload.mode.startsWith('rand');
  // 1811 is prime, so that every block of a disk of a power of two is visited before the first comes again.
  const stepBytes = workload.blockBytes * (random ? 1811 : 1);
  const command = [
    ...program.command,
    'bench',
    `--count=${count}`,
    `--depth=${workload.depth}`,
    `--buffer-size=${workload.blockBytes}`,
    `--step-size=${stepBytes}`,
    ...(workload.mode.endsWith('write') ? ['--write', '--pattern=165'] : []),
    '--cache=none',
    '--image-opts',
    `${imageOpts},cache.direct=on`,
  ];
  const output = await capture(command, env);
  const seconds = Number(/Run completed in ([\d.]+) seconds/.exec(output)?.[1]);
  if (!(seconds > 0)) throw new Error(`qemu-img bench said ${output.slice(0, 4 * KIB)}`);
  return seconds;
}
