import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import type { Verdict } from '../check/types.ts';
import { parseAcks } from './acks.ts';
import type { FolderOracle, Settings } from './types.ts';
import { doubt, fail, pass } from './verdict.ts';

/** [sqlite3 "Result Codes"]: what says that the file is damaged. The low byte; the rest tells more. */
const DAMAGED: ReadonlySet<number> = new Set([11, 26]); // SQLITE_CORRUPT, SQLITE_NOTADB
const PRIMARY_CODE = 0xff;
const MISSING_TABLE = /no such (?:table|column|view)/;

interface Found {
  /** What `integrity_check` says, one finding a line. */
  readonly integrity: readonly string[];
  readonly empty: boolean;
  /** The first row that breaks the rule. */
  readonly broken: string | null;
  readonly transactions: readonly string[];
}

function textOf(settings: Settings, name: string): string {
  return String(settings[name] ?? '');
}

/** Opens the database, which rolls back or replays what the crash left, and asks it everything. */
async function look(path: string, settings: Settings): Promise<Found> {
  // Some versions of Node warn when it is loaded.
  const sqlite = await import('node:sqlite');
  const database = new sqlite.DatabaseSync(path);
  try {
    const integrity = firstColumn(database, 'PRAGMA integrity_check').filter(
      (line) => line !== 'ok',
    );
    const empty = firstColumn(database, 'SELECT count(*) FROM sqlite_schema')[0] === '0';
    if (integrity.length > 0 || empty) return { integrity, empty, broken: null, transactions: [] };
    const rule = textOf(settings, 'rule');
    const broken = rule === '' ? undefined : database.prepare(rule).get();
    const keys = textOf(settings, 'keys');
    return {
      integrity,
      empty,
      broken: broken === undefined ? null : JSON.stringify(broken),
      transactions: keys === '' ? [] : firstColumn(database, keys),
    };
  } finally {
    database.close();
  }
}

function firstColumn(database: DatabaseSync, sql: string): string[] {
  const rows = database.prepare(sql).all();
  return rows.map((row) => String(Object.values(row)[0]));
}

/** The first number that is missing below the largest; null where there is no gap. */
function firstGap(transactions: ReadonlySet<string>): number | null {
  const largest = Math.max(0, ...[...transactions].map(Number));
  for (let i = 1; i < largest; i += 1) if (!transactions.has(String(i))) return i;
  return null;
}

/** A damaged database is a finding; anything else that SQLite refuses (locks, memory, a file it may not open) is not. */
function judgeError(error: unknown, acked: number): Verdict {
  const { errcode = 0, message = String(error) } = error as { errcode?: number; message?: string };
  if (DAMAGED.has(errcode & PRIMARY_CODE)) return fail('integrity', message, message);
  if (MISSING_TABLE.test(message)) {
    return acked > 0 ? fail('durability', 'acknowledged table missing', message) : pass('empty');
  }
  return doubt(`sqlite: ${message}`, message);
}

async function judgeSqlite(
  settings: Settings,
  folder: string,
  texts: readonly string[],
): Promise<Verdict> {
  const acked = parseAcks(texts, 'txn').map((ack) => String(ack['txn']));
  const path = join(folder, textOf(settings, 'database'));
  if (!existsSync(path)) {
    if (acked.length === 0) return pass('absent');
    return fail('durability', 'database missing', `${acked.length} transactions acknowledged`);
  }
  let found: Found;
  try {
    found = await look(path, settings);
  } catch (error) {
    return judgeError(error, acked.length);
  }
  if (found.integrity.length > 0) {
    const [first = ''] = found.integrity.join('\n').split('\n').slice(-1);
    return fail('integrity', `integrity_check: ${first}`, found.integrity.join('\n'));
  }
  if (found.empty) {
    if (acked.length === 0) return pass('empty');
    return fail('durability', 'database empty', `${acked.length} transactions acknowledged`);
  }
  if (found.broken !== null) {
    return fail('atomicity', 'transaction not whole', `the rule gives ${found.broken}`);
  }
  return judgeTransactions(settings, new Set(found.transactions), acked);
}

function judgeTransactions(
  settings: Settings,
  there: ReadonlySet<string>,
  acked: readonly string[],
): Verdict {
  const lost = acked.filter((transaction) => !there.has(transaction));
  if (lost.length > 0 && textOf(settings, 'keys') !== '') {
    const text = `${lost.length} of ${acked.length}, the first: ${lost[0]}`;
    return fail('durability', 'acknowledged transaction missing', text);
  }
  const gap = settings['ordered'] === true ? firstGap(there) : null;
  if (gap !== null) {
    return fail('atomicity', 'later transaction without an earlier one', `${gap} is missing`);
  }
  const last = settings['last'];
  const invented = [...there].find((key) => typeof last === 'number' && Number(key) > last);
  if (invented !== undefined) {
    return fail('integrity', 'transaction that never was', `${invented}, after ${last}`);
  }
  return pass();
}

export const SQLITE: FolderOracle = {
  kind: 'sqlite',
  on: 'folder',
  summary: 'a SQLite database: integrity_check, whole transactions, acknowledged transactions',
  details: [
    "Opens the database with Node's own SQLite, which recovers it from its journal or WAL, in every journal mode. " +
      'Then: `PRAGMA integrity_check` must say ok (integrity); the query `rule` must give no row (atomicity); and what ' +
      'was acknowledged must be among the rows of the query `keys` (durability). The workload acknowledges a transaction ' +
      'after its COMMIT with `ACK {"txn": 17}`.',
    'Good states besides the plain one: `absent` and `empty`, where nothing was acknowledged yet.',
  ],
  options: [
    {
      name: 'database',
      type: 'text',
      required: true,
      description: 'The database, from the root of the file system.',
    },
    {
      name: 'rule',
      type: 'text',
      description: 'A query that gives a row for each transaction that is not whole.',
    },
    {
      name: 'keys',
      type: 'text',
      description: 'A query whose first column has the transactions that are there.',
    },
    {
      name: 'ordered',
      type: 'boolean',
      default: false,
      description: 'Transactions are 1, 2, 3 … of one writer: none may be missing before another.',
    },
    {
      name: 'last',
      type: 'number',
      description: 'No transaction has a larger number: one that has was never begun.',
    },
  ],
  needs: () => ({ programs: [], modules: [] }),
  usesAcks: () => true,
  judge: (settings) => ({
    judge: (folder, { acks }) => judgeSqlite(settings, folder, acks),
  }),
};
