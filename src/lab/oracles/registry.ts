import { spawnSync } from 'node:child_process';
import { ConfigError, UsageError } from '../../base/errors.ts';
import type { Checker, CheckerSpec } from '../check/types.ts';
import { JudgeChecker } from './judge-process.ts';
import { ORACLES } from './list.ts';
import { findModule } from './module.ts';
import { settingsOf } from './options.ts';
import { findProgram, PACKAGES } from './programs.ts';
import type { DiskOracle, Needs } from './types.ts';

/** The names of the ready-made oracles. */
export const ORACLE_KINDS: readonly string[] = ORACLES.map((oracle) => oracle.kind);

/** A ready-made oracle; null: there is none of that name. */
export function findOracle(kind: string): DiskOracle | null {
  return ORACLES.find((oracle) => oracle.kind === kind) ?? null;
}

/**
 * A checker for a ready-made oracle. Throws UsageError for options that it does not take, and ConfigError where the
 * machine has not what it needs.
 */
export function makeOracle(spec: CheckerSpec): Checker {
  const oracle = findOracle(spec.kind);
  if (oracle === null) {
    throw new UsageError(`no oracle '${spec.kind}'; there are ${ORACLE_KINDS.join(', ')}`);
  }
  const settings = settingsOf(`oracle ${oracle.kind}`, oracle.options, spec.options);
  requireNeeds(oracle, oracle.needs(settings));
  return new JudgeChecker(oracle, settings, spec.timeoutMs);
}

function requireNeeds(oracle: DiskOracle, needs: Needs): void {
  const missing = needs.programs.filter((name) => findProgram(name) === null);
  if (missing.length > 0) {
    const packages = new Set(missing.map((name) => PACKAGES[name] ?? name));
    throw new ConfigError(
      `oracle ${oracle.kind}: ${missing.join(', ')} is not installed`,
      `on Debian: apt-get install ${[...packages].join(' ')}`,
    );
  }
  for (const { name, project } of needs.modules) {
    if (findModule(name, project) === null) {
      throw new ConfigError(
        `oracle ${oracle.kind}: ${project} has no package ${name}`,
        `npm install ${name} there, or say with project=FOLDER where it is`,
      );
    }
  }
  if (!needs.mounts || canMount()) return;
  const other = oracle.options.some((option) => option.name === 'by')
    ? 'run as root, or use by=copy (ext2, ext3, ext4 and vfat)'
    : 'run as root';
  throw new ConfigError(`oracle ${oracle.kind}: this process may not mount`, other);
}

let mayMount: boolean | null = null;

/** Whether this process may have a mount namespace of its own; asked once. */
function canMount(): boolean {
  mayMount ??=
    spawnSync(findProgram('unshare') ?? 'unshare', ['--mount', 'true'], { stdio: 'ignore' })
      .status === 0;
  return mayMount;
}
