import { join } from 'node:path';
import { seal, sha256 } from '../../oracles/key-values.ts';
import { loadModule, PROJECT_OPTION } from '../../oracles/module.ts';
import type { NeededModule, Settings } from '../../oracles/types.ts';
import {
  choice,
  contentOf,
  countOption,
  numberOf,
  SEED,
  syncFileSystem,
  yesNo,
} from './support.ts';
import type { Workload, Workplace } from './types.ts';

const DATABASE = 'store';
const VALUE_BYTES = 1000;
/** Puts over existing keys as well as new ones. */
const KEYS = 16;

/** What is used of the packages. */
interface LevelModule {
  readonly ClassicLevel: new (
    path: string,
    options: { writeBufferSize: number },
  ) => {
    open(): Promise<void>;
    put(key: string, value: string, options: { sync: boolean }): Promise<void>;
    close(): Promise<void>;
  };
}
interface LmdbModule {
  open(
    this: void,
    options: { path: string; encoding: 'string'; noSync: boolean },
  ): {
    put(key: string, value: string): Promise<boolean>;
    readonly flushed: Promise<boolean>;
    close(): Promise<void>;
  };
}

/** LevelDB's own default is 4 MiB, which nothing here would reach. */
const WRITE_BUFFER_BYTES = 64 * 1024;

function needs(name: string) {
  return (settings: Settings): { programs: []; modules: NeededModule[] } => ({
    programs: [],
    modules: [{ name, project: String(settings['project']) }],
  });
}

async function putAll(
  { settings, acknowledge }: Workplace,
  put: (key: string, value: string) => Promise<void>,
): Promise<void> {
  for (let i = 0; i < numberOf(settings, 'count'); i += 1) {
    const key = `key-${i % KEYS}`;
    const value = seal(contentOf(settings, 'value', i, VALUE_BYTES / 2).toString('hex'));
    await put(key, value);
    acknowledge({ key, sha256: sha256(Buffer.from(value)) });
  }
}

async function openLevel({ settings, folder }: Workplace) {
  const module = await loadModule('classic-level', String(settings['project']));
  const { ClassicLevel } = module as LevelModule;
  const level = new ClassicLevel(join(folder, DATABASE), { writeBufferSize: WRITE_BUFFER_BYTES });
  await level.open();
  return level;
}

async function runLevel(place: Workplace): Promise<void> {
  const { settings } = place;
  const level = await openLevel(place);
  const sync = settings['sync'] === true;
  await putAll(place, (key, value) => level.put(key, value, { sync }));
  await level.close();
}

async function openLmdb({ settings, folder }: Workplace) {
  const { open } = (await loadModule('lmdb', String(settings['project']))) as LmdbModule;
  return open({
    path: join(folder, DATABASE),
    encoding: 'string',
    noSync: settings['sync'] === 'nosync',
  });
}

async function runLmdb(place: Workplace): Promise<void> {
  const { settings } = place;
  const database = await openLmdb(place);
  await putAll(place, async (key, value) => {
    await database.put(key, value);
    if (settings['sync'] === 'flushed') await database.flushed;
  });
  await database.close();
}

export const LEVELDB: Workload = {
  name: 'leveldb',
  summary: 'put() of classic-level, one after the other',
  options: [
    SEED,
    countOption(100, 'puts'),
    yesNo('sync', false, "The option `sync` of put(); false is the package's own default."),
    PROJECT_OPTION,
  ],
  // How a database begins is another question.
  prepare: async (place) => {
    const level = await openLevel(place);
    await level.close();
    syncFileSystem(place.folder);
  },
  run: runLevel,
  manifest: () => [],
  judged: ({ project }) => ({
    kind: 'leveldb',
    options: { database: DATABASE, values: 'sealed', project: String(project) },
  }),
  needs: needs('classic-level'),
};

export const LMDB: Workload = {
  name: 'lmdb',
  summary: 'put() of the package lmdb, one after the other',
  options: [
    SEED,
    countOption(60, 'puts'),
    choice(
      'sync',
      ['default', 'flushed', 'nosync'],
      'default: put() is awaited. flushed: `flushed` is awaited too. nosync: the option noSync, MDB_NOSYNC of LMDB.',
    ),
    PROJECT_OPTION,
  ],
  prepare: async (place) => {
    const database = await openLmdb(place);
    await database.put('first', seal('value'));
    await database.close();
    syncFileSystem(place.folder);
  },
  run: runLmdb,
  manifest: () => [],
  judged: ({ project }) => ({
    kind: 'lmdb',
    options: { database: DATABASE, values: 'sealed', reader: 'node', project: String(project) },
  }),
  needs: needs('lmdb'),
};
