import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../base/errors.ts';
import { judgeStore, KEY_VALUE_DETAILS, KEY_VALUE_OPTIONS, type Store } from './key-values.ts';
import { loadModule, PROJECT_OPTION } from './module.ts';
import type { FolderOracle, Settings } from './types.ts';

/** What is used of classic-level. */
interface Level {
  open(options: { createIfMissing: boolean }): Promise<void>;
  iterator(options: { valueEncoding: 'buffer' }): AsyncIterable<[string, Buffer]>;
  close(): Promise<void>;
}

interface LevelModule {
  readonly ClassicLevel: new (path: string) => Level;
}

async function read(folder: string, settings: Settings): Promise<Store> {
  const path = join(folder, String(settings['database']));
  // LevelDB's own sign of a database, which it writes last when it makes one.
  if (!existsSync(join(path, 'CURRENT'))) return { missing: true };
  const { ClassicLevel } = (await loadModule(
    'classic-level',
    String(settings['project']),
  )) as LevelModule;
  const level = new ClassicLevel(path);
  try {
    await level.open({ createIfMissing: false });
    const entries = new Map<string, Buffer>();
    for await (const [key, value] of level.iterator({ valueEncoding: 'buffer' })) {
      entries.set(key, value);
    }
    return { entries };
  } catch (error) {
    const { cause } = error as Error;
    return { damaged: messageOf(cause ?? error) };
  } finally {
    await level.close();
  }
}

export const LEVELDB: FolderOracle = {
  kind: 'leveldb',
  on: 'folder',
  summary: 'a LevelDB database: opens, is whole, has what was acknowledged',
  details: [
    'Opens the database with the package classic-level of your own project, which recovers it from its log.',
    KEY_VALUE_DETAILS,
  ],
  options: [...KEY_VALUE_OPTIONS, PROJECT_OPTION],
  crashIsFinding: true,
  needs: (settings) => ({
    programs: [],
    modules: [{ name: 'classic-level', project: String(settings['project']) }],
  }),
  usesAcks: () => true,
  judge: (settings) => ({
    judge: async (folder, { acks }) => judgeStore(await read(folder, settings), settings, acks),
  }),
};
