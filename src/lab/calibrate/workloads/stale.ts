import { closeSync, fsyncSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from '../../../base/errors.ts';
import { MiB } from '../../../base/units.ts';
import {
  contentOf,
  countOption,
  NEEDS_NOTHING,
  numberOf,
  SEED,
  sha256,
  syncFolder,
  writeWhole,
} from './support.ts';
import type { Workload, Workplace } from './types.ts';

/** What free blocks hold. */
const MARKER = 'what a file that was removed had in it; ';
const BYTES = 8192;

/** A disk for tests has less; anything larger is somebody's own. */
const LARGEST_FREE_BYTES = 512 * MiB;

/** Writes the marker over all free blocks. */
function fill(folder: string): void {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize > LARGEST_FREE_BYTES) {
    throw new UsageError(`${folder} is on a large file system: this would fill it`);
  }
  const path = join(folder, 'filler');
  const fd = openSync(path, 'w');
  const bytes = Buffer.alloc(MiB, MARKER);
  try {
    for (;;) writeSync(fd, bytes);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
  fsyncSync(fd);
  closeSync(fd);
  rmSync(path);
  syncFolder(folder);
}

function run({ folder, settings }: Workplace): void {
  for (let i = 0; i < numberOf(settings, 'count'); i += 1) {
    writeWhole(join(folder, `file-${i}`), contentOf(settings, 'file', i, BYTES), false);
    // Makes the journal commit, and with it the names and blocks of the file before.
    syncFolder(folder);
  }
}

export const STALE: Workload = {
  name: 'stale',
  summary:
    'files are made where removed ones were, and only their folder is synced: do they show old data?',
  options: [SEED, countOption(16, 'files')],
  prepare: ({ folder }) => fill(folder),
  run,
  manifest: (settings) =>
    Array.from({ length: numberOf(settings, 'count') }, (_, i) => ({
      file: `file-${i}`,
      versions: [null, sha256(contentOf(settings, 'file', i, BYTES))],
      mayTear: true,
    })),
  judged: (_, manifest) => ({ kind: 'files', options: { manifest, marker: MARKER } }),
  needs: NEEDS_NOTHING,
};
