import { fileURLToPath } from 'node:url';
import { UsageError } from '../../../base/errors.ts';
import { settingsOf } from '../../oracles/options.ts';
import type { Settings } from '../../oracles/types.ts';
import { APPEND } from './append.ts';
import { GIT } from './git.ts';
import { LEVELDB, LMDB } from './key-values.ts';
import { OVERWRITE } from './overwrite.ts';
import { REPLACE } from './replace.ts';
import { SQLITE } from './sqlite.ts';
import { STALE } from './stale.ts';
import { STORM } from './storm.ts';
import type { Workload } from './types.ts';

/** All workloads. */
export const WORKLOADS: readonly Workload[] = [
  STORM,
  APPEND,
  OVERWRITE,
  REPLACE,
  STALE,
  SQLITE,
  LEVELDB,
  LMDB,
  GIT,
];

export type WorkloadOptions = Readonly<Record<string, string | number | boolean>>;

/** Throws UsageError for a name that no workload has. */
export function findWorkload(name: string): Workload {
  const found = WORKLOADS.find((workload) => workload.name === name);
  if (found !== undefined) return found;
  const names = WORKLOADS.map((workload) => workload.name).join(', ');
  throw new UsageError(`no workload '${name}'; there are ${names}`);
}

/** Its options with defaults filled in. Throws UsageError. */
export function workloadSettings(workload: Workload, options: WorkloadOptions): Settings {
  return settingsOf(`workload ${workload.name}`, workload.options, options);
}

/** What runs a workload, or prepares for it, in `folder`. It prints a line `ACK {…}` for what it acknowledges. */
export function workloadCommand(
  workload: Workload,
  step: 'prepare' | 'run',
  folder: string,
  options: WorkloadOptions,
): readonly string[] {
  const main = fileURLToPath(import.meta.url.replace(/registry(\.\w+)$/, 'main$1'));
  const texts = Object.entries(options).map(([name, value]) => `${name}=${value}`);
  return [process.execPath, main, workload.name, step, folder, ...texts];
}
