import { capture } from './capture.ts';
import type { LoadResult } from './load/meter.ts';
import type { Measurement, RunTime, Workload } from './race.ts';

const MIB = 2 ** 20;

/** Runs one of our load clients in its own process: `script`, with what all of them take and `args`. */
export async function runOwnClient(
  script: string,
  workload: Workload,
  args: readonly string[],
  time: RunTime,
): Promise<Measurement> {
  const result = JSON.parse(
    await capture([
      process.execPath,
      script,
      ...args,
      `--mode=${workload.mode}`,
      `--bs=${workload.blockBytes}`,
      `--depth=${workload.depth}`,
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
