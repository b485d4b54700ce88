import { renameSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadModule, PROJECT_OPTION } from '../../oracles/module.ts';
import type { Settings } from '../../oracles/types.ts';
import {
  choice,
  contentOf,
  countOption,
  numberOf,
  SEED,
  sha256,
  syncFolder,
  writeWhole,
  yesNo,
} from './support.ts';
import type { Workload, Workplace } from './types.ts';

const FILES = 4;
const BYTES = 6000;
const WAYS = ['rename', 'write-file', 'write-file-atomic'] as const;

type WriteFileAtomic = (
  path: string,
  content: Buffer,
  options: { fsync: boolean },
) => Promise<void>;

function nameOf(i: number): string {
  return `file-${i % FILES}`;
}

/** Files are replaced in turn. */
function content(settings: Settings, i: number): Buffer {
  return contentOf(settings, nameOf(i), Math.floor(i / FILES) + 1, BYTES);
}

function first(settings: Settings, file: string): Buffer {
  return contentOf(settings, file, 0, BYTES);
}

async function writerOf(
  settings: Settings,
): Promise<(path: string, content: Buffer) => Promise<void>> {
  const fsync = settings['fsync'] === true;
  switch (String(settings['by'])) {
    case 'write-file':
      return (path, bytes) => writeFile(path, bytes, { flush: fsync });
    case 'write-file-atomic': {
      const module = await loadModule('write-file-atomic', String(settings['project']));
      const write = (module as { default: WriteFileAtomic }).default;
      return (path, bytes) => write(path, bytes, { fsync });
    }
    default:
      return async (path, bytes) => {
        writeWhole(`${path}.new`, bytes, fsync);
        renameSync(`${path}.new`, path);
      };
  }
}

async function run({ folder, settings, acknowledge }: Workplace): Promise<void> {
  const write = await writerOf(settings);
  for (let i = 0; i < numberOf(settings, 'count'); i += 1) {
    const bytes = content(settings, i);
    await write(join(folder, nameOf(i)), bytes);
    if (settings['folder-fsync'] === true) syncFolder(folder);
    if (settings['acks'] === true) acknowledge({ file: nameOf(i), sha256: sha256(bytes) });
  }
}

export const REPLACE: Workload = {
  name: 'replace',
  summary: 'files are replaced by new ones: temporary file and rename, or other ways',
  options: [
    SEED,
    countOption(24, 'replacements'),
    choice(
      'by',
      WAYS,
      'rename: a temporary file, renamed. write-file: fs.writeFile over the old one. write-file-atomic: the package.',
    ),
    yesNo('fsync', true, 'Whether the new content is synced.'),
    yesNo('folder-fsync', false, 'Whether the folder is synced after that.'),
    yesNo('acks', true, 'Whether it acknowledges: without, only atomicity is looked at.'),
    PROJECT_OPTION,
  ],
  prepare: ({ folder, settings }) => {
    for (let i = 0; i < FILES; i += 1) {
      writeWhole(join(folder, nameOf(i)), first(settings, nameOf(i)), true);
    }
    syncFolder(folder);
  },
  run,
  manifest: (settings) => {
    const count = numberOf(settings, 'count');
    const all = Array.from({ length: count }, (_, i) => i);
    return Array.from({ length: FILES }, (_, file) => ({
      file: nameOf(file),
      versions: [
        sha256(first(settings, nameOf(file))),
        ...all.filter((i) => i % FILES === file).map((i) => sha256(content(settings, i))),
      ],
    }));
  },
  judged: (_, manifest) => ({ kind: 'files', options: { manifest } }),
  needs: (settings) => ({
    programs: [],
    modules:
      settings['by'] === 'write-file-atomic'
        ? [{ name: 'write-file-atomic', project: String(settings['project']) }]
        : [],
  }),
};
