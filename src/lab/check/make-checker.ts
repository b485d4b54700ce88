import { UsageError } from '../../base/errors.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import type { CrashModel } from '../model/types.ts';
import { openOldOrNew } from '../oracles/old-or-new.ts';
import { makeOracle } from '../oracles/registry.ts';
import { openCommandChecker } from './command.ts';
import { openModuleChecker } from './module.ts';
import type { Checker, CheckerSpec } from './types.ts';

/** Where a checker is to work. */
export interface Workplace {
  readonly reactor: Reactor;
  readonly model: CrashModel;
  /** A folder of the checker's own. */
  readonly folder: string;
  /** Told the process group of a checker while it runs, so that it can be ended from elsewhere; 0: none runs. */
  readonly running: (group: number) => void;
}

/** Makes the checker that a spec describes. Rejects with UsageError or ConfigError: the operator asked for what cannot be. */
export async function makeChecker(spec: CheckerSpec, place: Workplace): Promise<Checker> {
  const { model } = place;
  switch (spec.kind) {
    case 'command':
      return openCommandChecker(place.reactor, {
        command: text(spec, 'command'),
        timeoutMs: spec.timeoutMs,
        disks: model.trace.disks.length,
        timeNs: model.trace.timeNs,
        folder: place.folder,
        running: place.running,
      });
    case 'module':
      return openModuleChecker(text(spec, 'path'));
    case 'old-or-new':
      return openOldOrNew(model);
    default:
      return makeOracle(spec);
  }
}

function text(spec: CheckerSpec, name: string): string {
  const value = spec.options[name];
  if (typeof value === 'string' && value !== '') return value;
  throw new UsageError(`the checker '${spec.kind}' needs the option '${name}'`);
}
