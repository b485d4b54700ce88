import { linkSync, mkdirSync, readdirSync, renameSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import type { DeclaredFile } from '../../oracles/files.ts';
import type { Settings } from '../../oracles/types.ts';
import {
  contentOf,
  countOption,
  NEEDS_NOTHING,
  numberOf,
  prngFor,
  SEED,
  sha256,
  syncFolder,
  writeWhole,
  yesNo,
} from './support.ts';
import type { Workload, Workplace } from './types.ts';

/** So many steps from one file that is kept to the next. */
const KEEP_EVERY = 5;
const KEPT_BYTES = 3000;
/** More names than this only make folders longer. */
const NAMES = 24;

function keptFile(step: number): string {
  return `kept-${step}`;
}

function keptSteps(settings: Settings): number[] {
  const steps = numberOf(settings, 'count');
  return Array.from({ length: Math.floor(steps / KEEP_EVERY) }, (_, i) => (i + 1) * KEEP_EVERY);
}

function run({ folder, settings, acknowledge }: Workplace): void {
  const prng = prngFor(settings, 'storm');
  const storm = join(folder, 'storm');
  mkdirSync(storm);
  const sync = settings['fsync'] === true;
  for (let step = 1; step <= numberOf(settings, 'count'); step += 1) {
    const path = join(storm, `n${prng.below(NAMES)}`);
    const other = join(storm, `n${prng.below(NAMES)}`);
    stir(prng.below(6), path, other, contentOf(settings, 'storm', step, prng.below(9000)));
    if (step % KEEP_EVERY !== 0) continue;
    const content = contentOf(settings, 'kept', step, KEPT_BYTES);
    writeWhole(join(folder, keptFile(step)), content, sync);
    if (sync) syncFolder(folder);
    acknowledge({ file: keptFile(step), sha256: sha256(content) });
  }
}

/** One change of names. What it meets there decides what can be done. */
function stir(kind: number, path: string, other: string, content: Buffer): void {
  const there = new Set(readdirSync(join(path, '..')).map((name) => join(path, '..', name)));
  const isFree = !there.has(other);
  if (!there.has(path)) {
    if (kind === 0) mkdirSync(`${path}-d${content.length}`);
    else writeWhole(path, content, false);
  } else if (kind === 1) rmSync(path);
  else if (kind === 2 && path !== other) renameSync(path, other);
  else if (kind === 3 && isFree) linkSync(path, other);
  else if (kind === 4) truncateSync(path, content.length);
  else writeWhole(path, content, false);
}

export const STORM: Workload = {
  name: 'storm',
  summary:
    'files and folders are made, renamed, linked, cut and removed; every fifth step one is kept',
  options: [
    SEED,
    countOption(60, 'changes'),
    yesNo(
      'fsync',
      true,
      'Whether a kept file and its folder are synced before they are acknowledged.',
    ),
  ],
  prepare: () => undefined,
  run,
  manifest: (settings): readonly DeclaredFile[] =>
    keptSteps(settings).map((step) => ({
      file: keptFile(step),
      versions: [null, sha256(contentOf(settings, 'kept', step, KEPT_BYTES))],
      mayTear: true,
    })),
  judged: (_, manifest) => ({ kind: 'files', options: { manifest } }),
  needs: NEEDS_NOTHING,
};
