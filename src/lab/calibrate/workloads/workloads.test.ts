import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import type { Verdict } from '../../check/types.ts';
import { FILES } from '../../oracles/files.ts';
import { settingsOf } from '../../oracles/options.ts';
import { SQLITE } from '../../oracles/sqlite.ts';
import { findWorkload, workloadCommand, WORKLOADS, workloadSettings } from './registry.ts';
import type { WorkloadOptions } from './registry.ts';

// Workloads on a folder whose power is never cut: their oracles must agree with what they did, and with nothing less.

interface Ran {
  readonly folder: string;
  readonly acks: readonly string[];
  readonly judge: (acks?: readonly string[]) => Promise<Verdict>;
}

function start(command: readonly string[]): string {
  const [program = '', ...args] = command;
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

function runWorkload(t: TestContext, name: string, options: WorkloadOptions): Ran {
  const top = mkdtempSync(join(tmpdir(), 'holdfast-workload-'));
  t.after(() => rmSync(top, { recursive: true, force: true }));
  const folder = join(top, 'files');
  mkdirSync(folder);
  const workload = findWorkload(name);
  start(workloadCommand(workload, 'prepare', folder, options));
  const acks = start(workloadCommand(workload, 'run', folder, options))
    .split('\n')
    .filter((line) => line.startsWith('ACK '))
    .map((line) => line.slice('ACK '.length));
  const settings = workloadSettings(workload, options);
  const manifest = join(top, 'manifest.json');
  writeFileSync(manifest, JSON.stringify(workload.manifest(settings)));
  const judged = workload.judged(settings, manifest);
  const oracle = [FILES, SQLITE].find(({ kind }) => kind === judged.kind);
  assert.ok(oracle !== undefined);
  const judge = oracle.judge(settingsOf(oracle.kind, oracle.options, judged.options));
  const subject = { files: [], scratch: top };
  return {
    folder,
    acks,
    judge: (told = acks) => judge.judge(folder, { ...subject, acks: told }),
  };
}

const RUNS: readonly [name: string, options: WorkloadOptions, acks: number][] = [
  ['storm', { count: 60 }, 12],
  ['append', { count: 5 }, 5],
  ['append', { count: 5, sync: 'fdatasync' }, 5],
  ['overwrite', { count: 20, whole: true }, 20],
  ['replace', { count: 9, 'folder-fsync': true }, 9],
  ['replace', { count: 9, by: 'write-file', fsync: false }, 9],
  ['sqlite', { count: 12 }, 12],
  ['sqlite', { count: 12, journal: 'WAL', synchronous: 'NORMAL' }, 12],
  ['sqlite', { count: 12, journal: 'OFF', synchronous: 'OFF' }, 12],
];

for (const [name, options, count] of RUNS) {
  test(`${name} ${JSON.stringify(options)}: what it leaves is what it acknowledged`, async (t) => {
    const { acks, judge } = runWorkload(t, name, options);
    assert.equal(acks.length, count);
    assert.equal((await judge()).outcome, 'pass');
    // A cut before the first of them: all that is there was written by nobody's promise.
    assert.equal((await judge([])).outcome, 'pass');
  });
}

test('a workload does the same each time', (t) => {
  const options = { count: 40, seed: 3 };
  const [one, other] = [runWorkload(t, 'storm', options), runWorkload(t, 'storm', options)];
  assert.deepEqual(one.acks, other.acks);
  assert.deepEqual(
    readFileSync(join(one.folder, 'kept-5')),
    readFileSync(join(other.folder, 'kept-5')),
  );
  assert.notDeepEqual(one.acks, runWorkload(t, 'storm', { count: 40, seed: 4 }).acks);
});

test('what was acknowledged and is gone is found', async (t) => {
  const replaced = runWorkload(t, 'replace', { count: 4 });
  writeFileSync(join(replaced.folder, 'file-0'), '');
  assert.deepEqual(pick(await replaced.judge()), ['fail', 'atomicity', 'empty']);
  rmSync(join(replaced.folder, 'file-0'));
  assert.deepEqual(pick(await replaced.judge()), ['fail', 'atomicity', 'absent']);

  const appended = runWorkload(t, 'append', { count: 4 });
  const log = readFileSync(join(appended.folder, 'log'));
  writeFileSync(join(appended.folder, 'log'), log.subarray(0, 5000));
  const short = await appended.judge();
  assert.deepEqual(pick(short), ['fail', 'durability', 'acknowledged content cut short']);
  assert.equal((await appended.judge(appended.acks.slice(0, 3))).outcome, 'pass');
});

test('stale does not fill a disk that is not its own', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-workload-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [program = '', ...args] = workloadCommand(findWorkload('stale'), 'prepare', folder, {});
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  assert.equal(status, 2);
  assert.match(stderr, /would fill it/);
});

test('every workload is described, and says no to options that it does not have', () => {
  for (const workload of WORKLOADS) {
    assert.match(workload.summary, /\w/);
    for (const option of workload.options) assert.match(option.description, /\.$/);
    assert.throws(() => workloadSettings(workload, { nothing: 1 }), { name: 'UsageError' });
  }
  assert.throws(() => findWorkload('nothing'), { name: 'UsageError' });
});

function pick({ outcome, axis, class: name }: Verdict): readonly (string | null)[] {
  return [outcome, axis, name];
}
