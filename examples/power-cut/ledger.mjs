// A small ledger in SQLite: each payment is two rows, which belong together. It says ACK when a payment is made.
// node ledger.mjs FOLDER OFF|NORMAL|FULL|EXTRA
import { DatabaseSync } from 'node:sqlite';
import { join } from 'node:path';

const [folder = '.', synchronous = 'OFF'] = process.argv.slice(2);
const database = new DatabaseSync(join(folder, 'ledger.db'));
database.exec(`PRAGMA journal_mode=DELETE; PRAGMA synchronous=${synchronous}`);
database.exec('CREATE TABLE IF NOT EXISTS entry(payment INTEGER, account TEXT, amount INTEGER)');

const insert = database.prepare('INSERT INTO entry VALUES(?, ?, ?)');
for (let payment = 1; payment <= 12; payment += 1) {
  database.exec('BEGIN');
  insert.run(payment, 'alice', -10);
  insert.run(payment, 'bob', 10);
  database.exec('COMMIT');
  process.stdout.write(`ACK {"txn":${payment}}\n`);
}
database.close();
