import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import type { Checker, CheckerSpec, Subject } from '../check/types.ts';
import { JudgeChecker } from './judge-process.ts';
import { PACKAGES } from './programs.ts';
import { findOracle, makeOracle, ORACLE_KINDS } from './registry.ts';
import { settingsOf } from './options.ts';
import type { DiskOracle } from './types.ts';

function spec(kind: string, options: CheckerSpec['options']): CheckerSpec {
  return { kind, options, timeoutMs: 10_000 };
}

test('every oracle is described, and what it needs has a package', () => {
  assert.ok(ORACLE_KINDS.includes('ext') && ORACLE_KINDS.includes('sqlite'));
  for (const kind of ORACLE_KINDS) {
    const oracle = findOracle(kind) as DiskOracle;
    assert.doesNotMatch(oracle.summary, /\.$/);
    for (const text of oracle.details) assert.match(text, /\.$/);
    for (const { description } of oracle.options) assert.match(description, /\.$/);
    const given = { fs: 'ext4', database: 'x', repository: 'x' };
    const own = oracle.options.filter(({ name }) => name in given);
    const options = Object.fromEntries(
      own.map(({ name }) => [name, given[name as keyof typeof given]]),
    );
    const { programs } = oracle.needs(settingsOf(kind, oracle.options, options));
    for (const program of programs) assert.ok(program in PACKAGES, program);
  }
});

test('what makes no sense is refused before anything is checked', () => {
  const usage = { name: 'UsageError' };
  assert.throws(() => makeOracle(spec('nothing', {})), usage);
  assert.throws(() => makeOracle(spec('ext', { strict: 'perhaps' })), usage);
  assert.throws(() => makeOracle(spec('ext', { srtict: 'yes' })), usage);
  assert.throws(() => makeOracle(spec('sqlite', { fs: 'ext4' })), usage);
  assert.throws(() => makeOracle(spec('sqlite', { fs: 'ext4', database: 'x', last: 'y' })), usage);
});

test('a package that is not there is named, and how to get it', () => {
  const options = { fs: 'ext4', by: 'copy', fsck: false, database: 'x', project: tmpdir() };
  assert.throws(() => makeOracle(spec('lmdb', options)), {
    name: 'ConfigError',
    hint: /npm install lmdb/,
  });
});

test('options of a command line are texts', () => {
  const { options } = findOracle('sqlite') as DiskOracle;
  const settings = settingsOf('sqlite', options, {
    fs: 'ext4',
    database: 'a',
    last: '12',
    ordered: 'true',
  });
  assert.deepEqual([settings['last'], settings['ordered'], settings['by']], [12, true, 'mount']);
});

function checkerOf(t: TestContext, limitMs: number, kind = 'ext'): [Checker, Subject] {
  const scratch = mkdtempSync(join(tmpdir(), 'holdfast-oracle-'));
  const oracle = findOracle('ext') as DiskOracle;
  const checker = new JudgeChecker({ ...oracle, kind }, { strict: 'auto' }, limitMs);
  t.after(async () => {
    await checker.close();
    rmSync(scratch, { recursive: true, force: true });
  });
  const disk = join(scratch, 'disk');
  writeFileSync(disk, Buffer.alloc(65536));
  return [checker, { files: [disk], devices: [], acks: [], scratch }];
}

test('a judge that cannot begin is an error of the checker, never a pass', async (t) => {
  const [checker, subject] = checkerOf(t, 10_000, 'no such oracle');
  const verdict = await checker.check(subject);
  assert.equal(verdict.outcome, 'checker-error');
  assert.match(verdict.detail, /no oracle no such oracle/);
});

test('a judge that takes too long is a hang, and the next case has a new one', async (t) => {
  const [checker, subject] = checkerOf(t, 1);
  assert.equal((await checker.check(subject)).outcome, 'hang');
  assert.equal((await checker.check(subject)).outcome, 'hang');
});

test('a disk that is not there is an error of the checker', async (t) => {
  const [checker, subject] = checkerOf(t, 10_000);
  const verdict = await checker.check({ ...subject, files: ['/nonexistent/disk'] });
  assert.deepEqual(
    [verdict.outcome, verdict.class],
    ['checker-error', 'the disk cannot be opened'],
  );
});
