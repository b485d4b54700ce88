import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import test, { type TestContext } from 'node:test';
import type { Verdict } from '../check/types.ts';
import { FILES } from './files.ts';
import { judgeStore, seal } from './key-values.ts';
import { settingsOf } from './options.ts';
import { SQLITE } from './sqlite.ts';
import type { FolderOracle } from './types.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-oracle-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function judge(
  oracle: FolderOracle,
  path: string,
  options: Record<string, string | number | boolean>,
  acks: readonly object[],
): Promise<readonly (string | null)[]> {
  const judged = oracle.judge(settingsOf(oracle.kind, oracle.options, options));
  const texts = acks.map((ack) => JSON.stringify(ack));
  return pick(await judged.judge(path, { files: [], acks: texts, scratch: path }));
}

function pick({ outcome, axis, class: name }: Verdict): readonly (string | null)[] {
  return [outcome, axis, name];
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

const GOOD = ['pass', null, ''];

test('files without a manifest: old or new, as the acknowledgements tell', async (t) => {
  const path = folder(t);
  const file = join(path, 'a');
  const [one, two] = [
    { file: 'a', sha256: sha256('one') },
    { file: 'a', sha256: sha256('two') },
  ];
  const begun = { ...two, begun: true };
  assert.deepEqual(await judge(FILES, path, {}, []), GOOD);
  writeFileSync(file, 'one');
  assert.deepEqual(await judge(FILES, path, {}, [one]), GOOD);
  assert.deepEqual(await judge(FILES, path, {}, [one, begun]), GOOD);
  const lost = ['fail', 'durability', 'acknowledged content missing'];
  assert.deepEqual(await judge(FILES, path, {}, [one, begun, two]), lost);
  writeFileSync(file, 'two');
  assert.deepEqual(await judge(FILES, path, {}, [one, begun]), GOOD);
  const torn = ['fail', 'atomicity', 'neither old nor new'];
  assert.deepEqual(await judge(FILES, path, {}, [one]), torn);
  writeFileSync(file, Buffer.alloc(3));
  assert.deepEqual(await judge(FILES, path, {}, [one]), ['fail', 'atomicity', 'all zeroes']);
});

test('files with a manifest: contents that come again, parts, markers', async (t) => {
  const path = folder(t);
  const manifest = join(path, 'manifest.json');
  const versions = ['x', 'y', 'x'].map(sha256);
  writeFileSync(manifest, JSON.stringify([{ file: 'a', versions }]));
  const [x, y] = [
    { file: 'a', sha256: sha256('x') },
    { file: 'a', sha256: sha256('y') },
  ];
  writeFileSync(join(path, 'a'), 'x');
  for (const acks of [[], [x], [x, y], [x, y, x]]) {
    assert.deepEqual(await judge(FILES, path, { manifest }, acks), GOOD);
  }
  writeFileSync(join(path, 'a'), 'y');
  assert.deepEqual(await judge(FILES, path, { manifest }, [x]), GOOD);
  assert.equal((await judge(FILES, path, { manifest }, [x, y, x]))[1], 'durability');
  const stale = ['fail', 'integrity', 'stale data'];
  assert.deepEqual(await judge(FILES, path, { manifest, marker: 'y' }, [x]), stale);
  writeFileSync(
    manifest,
    JSON.stringify([{ file: 'a', at: 1, bytes: 2, versions: [null, sha256('bc')] }]),
  );
  const part = { file: 'a', at: 1, sha256: sha256('bc') };
  writeFileSync(join(path, 'a'), 'abcd');
  assert.deepEqual(await judge(FILES, path, { manifest }, [part]), GOOD);
  writeFileSync(join(path, 'a'), 'ab');
  assert.deepEqual(await judge(FILES, path, { manifest }, []), ['fail', 'atomicity', 'cut short']);
  writeFileSync(join(path, 'a'), 'a');
  assert.equal((await judge(FILES, path, { manifest }, [part]))[1], 'durability');
});

test('acknowledgements that an oracle does not understand are never passed over', async (t) => {
  const path = folder(t);
  for (const ack of [{ fiel: 'a' }, { file: 'a' }, { file: 'a', sha256: 'short' }]) {
    await assert.rejects(judge(FILES, path, {}, [ack]), { name: 'AckError' });
  }
  const manifest = join(path, 'manifest.json');
  writeFileSync(manifest, '[]');
  const stranger = { file: 'a', sha256: sha256('x') };
  await assert.rejects(judge(FILES, path, { manifest }, [stranger]), { name: 'AckError' });
});

const DATABASE = {
  database: 'test.db',
  rule: 'SELECT txn FROM l WHERE txn NOT IN (SELECT txn FROM r)',
  keys: 'SELECT txn FROM l',
  ordered: true,
  last: 40,
};

function makeDatabase(path: string, transactions: readonly number[]): string {
  const file = join(path, DATABASE.database);
  rmSync(file, { force: true });
  const database = new DatabaseSync(file);
  database.exec('CREATE TABLE l(txn INTEGER PRIMARY KEY, p); CREATE TABLE r(txn INTEGER, p)');
  const [left, right] = ['l', 'r'].map((table) =>
    database.prepare(`INSERT INTO ${table} VALUES(?, hex(zeroblob(900)))`),
  );
  for (const txn of transactions) {
    left?.run(txn);
    right?.run(txn);
  }
  database.close();
  return file;
}

test('sqlite: lost, torn, out of order and invented transactions are told apart', async (t) => {
  const path = folder(t);
  const ask = (acks: readonly number[]): ReturnType<typeof judge> =>
    judge(
      SQLITE,
      path,
      DATABASE,
      acks.map((txn) => ({ txn })),
    );
  assert.deepEqual(await ask([]), ['pass', null, 'absent']);
  assert.deepEqual(await ask([1]), ['fail', 'durability', 'database missing']);
  writeFileSync(join(path, DATABASE.database), '');
  assert.deepEqual(await ask([]), ['pass', null, 'empty']);
  assert.equal((await ask([1]))[1], 'durability');
  makeDatabase(path, [1, 2, 3]);
  assert.deepEqual(await ask([1, 2]), GOOD);
  assert.deepEqual(await ask([3, 4]), ['fail', 'durability', 'acknowledged transaction missing']);
  makeDatabase(path, [1, 3]);
  const gap = ['fail', 'atomicity', 'later transaction without an earlier one'];
  assert.deepEqual(await ask([1]), gap);
  makeDatabase(
    path,
    Array.from({ length: 41 }, (_, i) => i + 1),
  );
  assert.deepEqual(await ask([1]), ['fail', 'integrity', 'transaction that never was']);
  const database = new DatabaseSync(makeDatabase(path, [1, 2]));
  database.exec('DELETE FROM r WHERE txn = 2');
  database.close();
  assert.deepEqual(await ask([1]), ['fail', 'atomicity', 'transaction not whole']);
});

test('sqlite: damage is of integrity, wherever it is seen', async (t) => {
  const path = folder(t);
  const file = makeDatabase(
    path,
    Array.from({ length: 30 }, (_, i) => i + 1),
  );
  const sound = readFileSync(file);
  for (const at of [0, 4096, 3 * 4096]) {
    const bytes = Buffer.from(sound);
    bytes.fill(0x5a, at, at + 2048);
    writeFileSync(file, bytes);
    const [outcome, axis] = await judge(SQLITE, path, DATABASE, []);
    assert.deepEqual([outcome, axis], ['fail', 'integrity'], `at ${at}`);
  }
});

function askStore(
  store: Parameters<typeof judgeStore>[0],
  acks: readonly object[],
): readonly (string | null)[] {
  const texts = acks.map((ack) => JSON.stringify(ack));
  return pick(judgeStore(store, { values: 'sealed' }, texts));
}

test('stores of keys and values: what is lost, torn or unreadable', () => {
  const value = seal('text');
  const entries = new Map([['k', Buffer.from(value)]]);
  assert.deepEqual(askStore({ entries }, [{ key: 'k', sha256: sha256(value) }]), GOOD);
  assert.deepEqual(askStore({ entries: new Map() }, []), ['pass', null, 'empty']);
  assert.deepEqual(askStore({ missing: true }, []), ['pass', null, 'absent']);
  assert.equal(askStore({ missing: true }, [{ key: 'k' }])[1], 'durability');
  assert.equal(askStore({ damaged: 'Corruption: bad block' }, [])[1], 'integrity');
  assert.equal(askStore({ entries }, [{ key: 'other' }])[1], 'durability');
  assert.equal(askStore({ entries }, [{ key: 'k', sha256: sha256('new') }])[1], 'durability');
  const torn = new Map([['k', Buffer.from(value.slice(0, -1))]]);
  assert.equal(askStore({ entries: torn }, [])[1], 'atomicity');
});
