import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Exploration } from '../../src/lab/explore/types.ts';
import { capture } from '../capture.ts';
import type { Row } from '../report.ts';
import { median } from '../statistics.ts';

// How fast crash states are judged: by a program that is started for each, and by a module in the lab's own threads.

const LAB = [process.execPath, join(import.meta.dirname, '../../src/cli/main.ts'), 'lab'];

/** Files that come and go on an ext4 of 64 MiB, some of them flushed. */
const WORKLOAD =
  'for i in $(seq 1 60); do mkdir -p "$0/d$((i % 7))"; head -c $((i * 700)) /dev/zero > "$0/d$((i % 7))/f$i"; ' +
  '[ $((i % 3)) -ne 0 ] || sync "$0/d$((i % 7))/f$i"; [ $((i % 5)) -ne 0 ] || rm "$0/d$((i % 7))/f$i"; done; sync';

/** Looks at sixteen places, as a checker of a small database would. */
const MODULE = `
export const usesAcks = false;
export async function check({ devices: [disk] }, { readAll, pass }) {
  let sum = 0;
  for (let i = 0; i < 16; i += 1) sum += (await readAll(disk, i * 4194304, 4096))[1080];
  return pass(String(sum % 2));
}`;

export interface Rate {
  readonly workload: string;
  readonly metric: string;
  readonly check: string;
  readonly of: (exploration: Exploration) => number;
}

export const RATES: readonly Rate[] = [
  {
    workload: 'e2fsck -fn of states of a 64 MiB ext4',
    metric: 'runs',
    check: 'e2fsck -fn {disk}',
    of: ({ checkerRuns }) => checkerRuns,
  },
  {
    workload: 'states judged by a module: 16 reads of 4 KiB each',
    metric: 'states',
    check: 'module',
    of: ({ statesDecided }) => statesDecided,
  },
];

/** Medians over `rounds` explorations of `seconds` each, all processors at work. Needs root, for a mount. */
export async function measureRates(
  options: { readonly rounds: number; readonly seconds: number; readonly only: RegExp },
  say: (line: string) => void,
): Promise<Row[]> {
  const wanted = RATES.filter(({ workload }) => options.only.test(workload));
  if (wanted.length === 0) return [];
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-bench-'));
  try {
    const trace = join(folder, 'ext4.trace');
    const command = ['sh', '-c', WORKLOAD, '{mount}'];
    await capture([
      ...LAB,
      'record',
      '--mkfs',
      'ext4',
      '--size',
      '64M',
      '-o',
      trace,
      '--',
      ...command,
    ]);
    const module = join(folder, 'module.mjs');
    writeFileSync(module, MODULE);
    const rounds = new Map<Rate, number[]>(wanted.map((rate) => [rate, []]));
    for (let round = 0; round < options.rounds; round += 1) {
      for (const rate of wanted) {
        const check = rate.check === 'module' ? module : rate.check;
        rounds.get(rate)?.push(await explore(trace, check, options.seconds, rate));
      }
    }
    return wanted.map((rate) => {
      const values = rounds.get(rate) ?? [];
      say(`${rate.workload}: ${Math.round(median(values))} a second`);
      const { workload, metric } = rate;
      const common = { suite: 'lab', workload, metric, subject: 'recorded', unit: '1/s' };
      return { ...common, median: median(values), rounds: values };
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** One exploration; what it counts, a second. Exit codes say what was found, which does not matter here. */
async function explore(trace: string, check: string, seconds: number, rate: Rate): Promise<number> {
  const words = ['explore', trace, '--json', '--no-read-guided', '--budget', `${seconds}s`];
  const text = await capture([
    'sh',
    '-c',
    '"$@"; [ $? -le 2 ]',
    'sh',
    ...LAB,
    ...words,
    '--check',
    check,
  ]);
  const { exploration } = JSON.parse(text.slice(text.indexOf('{'))) as { exploration: Exploration };
  return rate.of(exploration) / (exploration.elapsedMs / 1000);
}
