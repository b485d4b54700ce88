import { join } from 'node:path';
import type { DatabaseSync, DatabaseSyncOptions } from 'node:sqlite';
import type { Settings } from '../../oracles/types.ts';
import { choice, countOption, NEEDS_NOTHING, numberOf, syncFolder } from './support.ts';
import type { Workload, Workplace } from './types.ts';

const DATABASE = 'test.db';
/** With 4 KiB pages most rows have one of their own, so that a transaction touches several. */
const PAYLOAD_BYTES = 1500;
/** Checkpoints belong to what is tested: often, in pages. */
const CHECKPOINT_PAGES = 40;

/** The payload of a transaction's rows, as SQL: what a row must hold can then be said in SQL too. */
const PAYLOAD = (number: string): string =>
  `substr(replace(hex(zeroblob(${PAYLOAD_BYTES})), '00', ${number} || ','), 1, ${PAYLOAD_BYTES})`;

/** A row for each transaction that is not whole: both rows, their payloads, and the sum that counts them. */
const RULE =
  'SELECT coalesce(l.txn, r.txn) AS txn FROM l FULL JOIN r ON l.txn = r.txn ' +
  `WHERE l.txn IS NULL OR r.txn IS NULL OR l.payload <> ${PAYLOAD('l.txn')} OR r.payload <> l.payload ` +
  'UNION ALL SELECT n FROM total WHERE n <> (SELECT count(*) FROM l)';

/** A number of JavaScript's is bound as a floating-point one. */
function insertInto(table: string): string {
  const value = '(SELECT CAST(? AS INTEGER) AS value)';
  return `INSERT INTO ${table} SELECT value, ${PAYLOAD('value')} FROM ${value}`;
}

async function open(folder: string, settings: Settings): Promise<DatabaseSync> {
  // Some versions of Node warn when it is loaded.
  const sqlite = await import('node:sqlite');
  // Newer versions of Node are defensive by default, and then OFF is not obeyed [SQLite "SQLITE_DBCONFIG_DEFENSIVE"].
  const options: DatabaseSyncOptions & { defensive: boolean } = { defensive: false };
  const database = new sqlite.DatabaseSync(join(folder, DATABASE), options);
  const mode = String(settings['journal']);
  const answer = database.prepare(`PRAGMA journal_mode = ${mode}`).get() ?? {};
  const kept = String(Object.values(answer)[0]);
  if (kept !== mode.toLowerCase()) {
    throw new Error(`SQLite keeps journal_mode ${kept}, and not ${mode}`);
  }
  database.exec(`PRAGMA synchronous = ${settings['synchronous']}`);
  database.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  // A small page cache: transactions also reach the disk before they are committed.
  database.exec('PRAGMA cache_size = 10');
  return database;
}

async function prepare({ folder, settings }: Workplace): Promise<void> {
  const database = await open(folder, { ...settings, synchronous: 'FULL' });
  database.exec('CREATE TABLE l(txn INTEGER PRIMARY KEY, payload TEXT)');
  database.exec('CREATE TABLE r(txn INTEGER PRIMARY KEY, payload TEXT)');
  database.exec('CREATE TABLE total(n INTEGER)');
  database.exec('INSERT INTO total VALUES(0)');
  database.close();
  syncFolder(folder);
}

async function run({ folder, settings, acknowledge }: Workplace): Promise<void> {
  const database = await open(folder, settings);
  const left = database.prepare(insertInto('l'));
  const right = database.prepare(insertInto('r'));
  for (let txn = 1; txn <= numberOf(settings, 'count'); txn += 1) {
    database.exec('BEGIN');
    left.run(txn);
    right.run(txn);
    database.exec('UPDATE total SET n = n + 1');
    database.exec('COMMIT');
    acknowledge({ txn });
  }
  database.close();
}

export const SQLITE: Workload = {
  name: 'sqlite',
  summary: 'transactions of two rows and a sum, in any journal mode',
  options: [
    countOption(30, 'transactions'),
    choice(
      'journal',
      ['DELETE', 'TRUNCATE', 'PERSIST', 'MEMORY', 'OFF', 'WAL'],
      'PRAGMA journal_mode.',
    ),
    choice('synchronous', ['FULL', 'EXTRA', 'NORMAL', 'OFF'], 'PRAGMA synchronous.'),
  ],
  prepare,
  run,
  manifest: () => [],
  judged: (settings) => ({
    kind: 'sqlite',
    options: {
      database: DATABASE,
      rule: RULE,
      keys: 'SELECT txn FROM l',
      ordered: true,
      last: numberOf(settings, 'count'),
    },
  }),
  needs: NEEDS_NOTHING,
};
