import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../base/errors.ts';
import { judgeStore, KEY_VALUE_DETAILS, KEY_VALUE_OPTIONS, type Store } from './key-values.ts';
import { loadModule, PROJECT_OPTION } from './module.ts';
import { ProgramError, runProgram } from './programs.ts';
import type { FolderOracle, Settings } from './types.ts';

/** What is used of the package lmdb. */
interface Lmdb {
  getRange(): Iterable<{ key: unknown; value: Buffer }>;
  close(): Promise<void>;
}

interface LmdbModule {
  open(
    this: void,
    options: { path: string; encoding: 'binary'; noSubdir: boolean; safeRestore: true },
  ): Lmdb;
}

function isFile(path: string): boolean {
  return statSync(path).isFile();
}

async function readByModule(path: string, project: string): Promise<Store> {
  const { open } = (await loadModule('lmdb', project)) as LmdbModule;
  let database: Lmdb | null = null;
  try {
    // This machine has not started anew since the recording, and by the boot id the package would take data for flushed
    // that no power cut leaves [lmdb "safeRestore"].
    database = open({ path, encoding: 'binary', noSubdir: isFile(path), safeRestore: true });
    const entries = new Map<string, Buffer>();
    for (const { key, value } of database.getRange()) entries.set(String(key), Buffer.from(value));
    return { entries };
  } catch (error) {
    return { damaged: messageOf(error) };
  } finally {
    await database?.close();
  }
}

/** [mdb_dump(1)]: a header, then a line for each key and each value, both in hex after a blank. */
function parseDump(text: string): Store {
  const lines = text.split('\n');
  const begin = lines.indexOf('HEADER=END');
  const end = lines.indexOf('DATA=END');
  if (begin < 0 || end < begin) return { damaged: 'mdb_dump: the dump has no end' };
  const entries = new Map<string, Buffer>();
  for (let i = begin + 1; i + 1 < end; i += 2) {
    const [key, value] = [lines[i], lines[i + 1]].map((line) => Buffer.from(line ?? '', 'hex'));
    if (key !== undefined && value !== undefined) entries.set(key.toString(), value);
  }
  return { entries };
}

async function readByDump(path: string): Promise<Store> {
  const args = isFile(path) ? ['-n', path] : [path];
  try {
    const { code, text } = await runProgram('mdb_dump', args, { isData: true });
    return code === 0 ? parseDump(text.replaceAll(/^ /gm, '')) : { damaged: text };
  } catch (error) {
    if (error instanceof ProgramError && error.signal !== null) return { damaged: error.message };
    throw error;
  }
}

async function read(folder: string, settings: Settings): Promise<Store> {
  const path = join(folder, String(settings['database']));
  if (!existsSync(path) || (!isFile(path) && !existsSync(join(path, 'data.mdb')))) {
    return { missing: true };
  }
  return settings['reader'] === 'mdb_dump'
    ? readByDump(path)
    : readByModule(path, String(settings['project']));
}

export const LMDB: FolderOracle = {
  kind: 'lmdb',
  on: 'folder',
  summary: 'an LMDB environment: opens, is whole, has what was acknowledged',
  details: [
    'Reads the environment with the package lmdb of your own project, or with mdb_dump. These two write different ' +
      'formats, and neither reads the other: take the one that the application uses.',
    KEY_VALUE_DETAILS,
    'LMDB trusts its file: that a reader dies of a signal is a finding about the file, of integrity.',
  ],
  options: [
    ...KEY_VALUE_OPTIONS,
    {
      name: 'reader',
      type: 'text',
      choices: ['node', 'mdb_dump'],
      default: 'node',
      description: 'node: the package lmdb of npm; mdb_dump: the program of LMDB itself.',
    },
    PROJECT_OPTION,
  ],
  crashIsFinding: true,
  needs: (settings) =>
    settings['reader'] === 'mdb_dump'
      ? { programs: ['mdb_dump'], modules: [] }
      : { programs: [], modules: [{ name: 'lmdb', project: String(settings['project']) }] },
  usesAcks: () => true,
  judge: (settings) => ({
    judge: async (folder, { acks }) => judgeStore(await read(folder, settings), settings, acks),
  }),
};
