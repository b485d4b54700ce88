import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
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

const FILE = 'table';
const BLOCK_BYTES = 4096;
const BLOCKS = 8;

/** Which block each write goes to. */
function targets(settings: Settings): number[] {
  const prng = prngFor(settings, 'targets');
  return Array.from({ length: numberOf(settings, 'count') }, () => prng.below(BLOCKS));
}

function block(settings: Settings, number: number, version: number): Buffer {
  return contentOf(settings, `${FILE}/${number}`, version, BLOCK_BYTES);
}

function run({ folder, settings, acknowledge }: Workplace): void {
  const fd = openSync(join(folder, FILE), 'r+');
  const versions = Array.from({ length: BLOCKS }, () => 0);
  for (const number of targets(settings)) {
    const version = (versions[number] ?? 0) + 1;
    versions[number] = version;
    const bytes = block(settings, number, version);
    writeSync(fd, bytes, 0, BLOCK_BYTES, number * BLOCK_BYTES);
    if (settings['fsync'] === true) fsyncSync(fd);
    acknowledge({ file: FILE, at: number * BLOCK_BYTES, sha256: sha256(bytes) });
  }
  closeSync(fd);
}

export const OVERWRITE: Workload = {
  name: 'overwrite',
  summary: 'blocks of 4 KiB of a file are overwritten in place and synced one by one',
  options: [
    SEED,
    countOption(40, 'writes'),
    yesNo('fsync', true, 'Whether a write is synced before it is acknowledged.'),
    yesNo(
      'whole',
      false,
      'Whether a block is held to be old or new as a whole, which no file system promises.',
    ),
  ],
  prepare: ({ folder, settings }) => {
    const blocks = Array.from({ length: BLOCKS }, (_, i) => block(settings, i, 0));
    writeWhole(join(folder, FILE), Buffer.concat(blocks), true);
    syncFolder(folder);
  },
  run,
  manifest: (settings) => {
    const to = targets(settings);
    return Array.from({ length: BLOCKS }, (_, number) => ({
      file: FILE,
      at: number * BLOCK_BYTES,
      bytes: BLOCK_BYTES,
      versions: Array.from(
        { length: 1 + to.filter((one) => one === number).length },
        (_, version) => sha256(block(settings, number, version)),
      ),
      mayTear: settings['whole'] !== true,
    }));
  },
  judged: (_, manifest) => ({ kind: 'files', options: { manifest } }),
  needs: NEEDS_NOTHING,
};
