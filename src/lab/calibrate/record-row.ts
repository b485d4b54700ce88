import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assert, unreachable } from '../../base/assert.ts';
import { ConfigError } from '../../base/errors.ts';
import type { CheckerSpec } from '../check/types.ts';
import { findModule } from '../oracles/module.ts';
import { findProgram } from '../oracles/programs.ts';
import { record, type RecordOptions } from '../record/record.ts';
import type { CalibrateOptions, CrashRow, Source } from './types.ts';
import { findWorkload, workloadCommand, workloadSettings } from './workloads/registry.ts';
import type { Workload } from './workloads/types.ts';

const TIMEOUT_MS = 20_000;

/** What is to be recorded. */
export type Recorded = Pick<CrashRow, 'source' | 'sizeBytes' | 'cache'>;

/** Records what a source writes into the trace `out`. Throws ConfigError where this machine cannot do it. */
export async function recordSource(
  { source, sizeBytes, cache }: Recorded,
  out: string,
  { signal, remark }: CalibrateOptions,
): Promise<void> {
  const code = await record(
    {
      image: null,
      sizeBytes,
      cache,
      out,
      ackPattern: /^ACK (.*)/,
      signal,
      ...whoWrites(source),
    },
    { line: () => {}, warn: remark, serving: () => Promise.resolve(() => {}) },
  );
  if (code === 0) return;
  const name = source.kind === 'workload' ? source.workload : source.program;
  throw new ConfigError(`the workload ${name} ended with ${code}`, 'see what it said');
}

function whoWrites(
  source: Source,
): Pick<RecordOptions, 'face' | 'command' | 'fileSystem' | 'prepare'> {
  switch (source.kind) {
    case 'workload': {
      const { fs, make, mountOptions, options } = source;
      const workload = findWorkload(source.workload);
      checkNeeds(workload.needs(workloadSettings(workload, options)));
      return {
        face: 'fuse',
        command: workloadCommand(workload, 'run', '{mount}', options),
        fileSystem: { type: fs, make, mountOptions },
        prepare: workloadCommand(workload, 'prepare', '{mount}', options),
      };
    }
    case 'command': {
      const { face, command, program } = source;
      checkNeeds({ programs: [program], modules: [] });
      return { face, command, fileSystem: null, prepare: null };
    }
    default:
      return unreachable(source);
  }
}

function checkNeeds({ programs, modules }: ReturnType<Workload['needs']>): void {
  const program = programs.find((name) => findProgram(name) === null);
  if (program !== undefined) {
    throw new ConfigError(`${program} is not there`, 'install the package that has it');
  }
  const module = modules.find(({ name, project }) => findModule(name, project) === null);
  if (module !== undefined) {
    throw new ConfigError(
      `the project in ${module.project} does not have the package ${module.name}`,
      `npm install --no-save ${module.name}`,
    );
  }
}

/** The oracle of the workload, or that of the disk. What the workload declares is written into `folder`. */
export function checkerOf({ id, source, oracle }: CrashRow, folder: string): CheckerSpec {
  if (oracle !== null) return { ...oracle, timeoutMs: TIMEOUT_MS };
  assert(source.kind === 'workload', `row ${id}: a command has no oracle of its own`);
  const workload = findWorkload(source.workload);
  const settings = workloadSettings(workload, source.options);
  const manifest = join(folder, 'manifest.json');
  writeFileSync(manifest, JSON.stringify(workload.manifest(settings)));
  const { kind, options } = workload.judged(settings, manifest);
  return {
    kind,
    options: { ...options, fs: source.fs, 'mount-options': source.mountOptions },
    timeoutMs: TIMEOUT_MS,
  };
}
