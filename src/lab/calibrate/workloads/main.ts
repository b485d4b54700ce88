import { writeSync } from 'node:fs';
import { messageOf, UsageError } from '../../../base/errors.ts';
import { findWorkload, workloadSettings } from './registry.ts';

// The process of a workload: NAME prepare|run FOLDER [OPTION=VALUE …]. See workloadCommand.

const STDOUT = 1;

async function main([name = '', step, folder = '', ...texts]: readonly string[]): Promise<void> {
  const workload = findWorkload(name);
  const options = texts.map((text): [string, string] => {
    const [option = '', ...value] = text.split('=');
    return [option, value.join('=')];
  });
  const settings = workloadSettings(workload, Object.fromEntries(options));
  if (step !== 'prepare' && step !== 'run') throw new UsageError('prepare or run?');
  await workload[step]({
    folder,
    settings,
    // At once, and not through a stream: what it says next comes after it.
    acknowledge: (what) => writeSync(STDOUT, `ACK ${JSON.stringify(what)}\n`),
  });
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
