import { closeSync, fdatasyncSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Settings } from '../../oracles/types.ts';
import {
  choice,
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

const FILE = 'log';
/** No multiple of a block: records begin anywhere in one. */
const RECORD_BYTES = 1500;

function record(settings: Settings, i: number): Buffer {
  return contentOf(settings, FILE, i, RECORD_BYTES);
}

function run({ folder, settings, acknowledge }: Workplace): void {
  const fd = openSync(join(folder, FILE), 'a');
  for (let i = 0; i < numberOf(settings, 'count'); i += 1) {
    const bytes = record(settings, i);
    writeSync(fd, bytes);
    if (settings['sync'] === 'fsync') fsyncSync(fd);
    if (settings['sync'] === 'fdatasync') fdatasyncSync(fd);
    acknowledge({ file: FILE, at: i * RECORD_BYTES, sha256: sha256(bytes) });
  }
  closeSync(fd);
}

export const APPEND: Workload = {
  name: 'append',
  summary: 'records are appended to a file and synced one by one',
  options: [
    SEED,
    countOption(40, 'records'),
    choice('sync', ['fsync', 'fdatasync', 'none'], 'How a record is made stable.'),
  ],
  prepare: ({ folder }) => {
    writeWhole(join(folder, FILE), Buffer.alloc(0), true);
    syncFolder(folder);
  },
  run,
  manifest: (settings) =>
    Array.from({ length: numberOf(settings, 'count') }, (_, i) => ({
      file: FILE,
      at: i * RECORD_BYTES,
      bytes: RECORD_BYTES,
      versions: [null, sha256(record(settings, i))],
      mayTear: true,
    })),
  judged: (_, manifest) => ({ kind: 'files', options: { manifest } }),
  needs: NEEDS_NOTHING,
};
