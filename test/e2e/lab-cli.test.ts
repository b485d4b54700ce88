import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Exploration } from '../../src/lab/explore/types.ts';
import { until } from './support/command.ts';
import { fuse } from './support/fuse.ts';
import { workspace } from './support/holdfast.ts';
import { lab, labSucceeds, LEDGER, leftovers, sha256, startLab } from './support/lab.ts';
import { requires } from './support/requires.ts';

// The power-cut lab as its users meet it: record, explore, show, mount, through the command line. Nothing may be left of any
// of these commands: `lab` looks.

const options = fuse.skip === false ? requires('mkfs.ext4', 'unshare') : fuse;

/** Row after row, each promised when it is written; `sound` flushes before the promise. */
const WRITER = `
import { fsyncSync, openSync, writeSync } from 'node:fs';
const [disk, how, count, pause] = process.argv.slice(2);
const fd = openSync(disk, 'r+');
for (let i = 1; i <= Number(count); i += 1) {
  writeSync(fd, Buffer.alloc(1024, i), 0, 1024, i * 4096);
  if (how === 'sound') fsyncSync(fd);
  console.log('ACK row ' + i);
  if (pause) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(pause));
}`;

/** Every row that is owed has to be there. A failure says what the disk looked like. */
const CHECK = `
owed=$(wc -l < "$2")
i=1
while [ $i -le $owed ]; do
  if [ "$(od -An -tu1 -j $((i * 4096)) -N1 "$1" | tr -d ' ')" != $i ]; then
    echo "durability: row missing"; sha256sum < "$1"; exit 1
  fi
  i=$((i + 1))
done`;

const MODULE = `
export const usesAcks = true;
export async function check({ devices, acks }, { readAll, pass, fail }) {
  for (let i = 1; i <= acks.length; i += 1) {
    const [byte] = await readAll(devices[0], i * 4096, 1);
    if (byte !== i) return fail('durability', 'row missing');
  }
  return pass();
}`;

const BY_COMMAND = 'sh check.sh {disk} {acks}';

/** A folder with the toy program and its checkers. */
function toys(t: TestContext): string {
  const folder = workspace(t);
  writeFileSync(join(folder, 'writer.mjs'), WRITER);
  writeFileSync(join(folder, 'check.sh'), CHECK);
  writeFileSync(join(folder, 'check.mjs'), MODULE);
  return folder;
}

async function recordRows(
  t: TestContext,
  folder: string,
  out: string,
  how: 'sound' | 'hasty',
  count = 4,
  more: readonly string[] = ['--size', '1M'],
): Promise<void> {
  // The pause: a promise is noticed some time after it was made, and what is written until then must not look promised.
  const pause = '30';
  const command = [process.execPath, 'writer.mjs', '{disk}', how, String(count), pause];
  await labSucceeds(t, folder, ['record', '-o', out, ...more, '--', ...command]);
}

async function exploreJson(
  t: TestContext,
  folder: string,
  words: readonly string[],
  expected: number,
): Promise<Exploration> {
  const { code, stdout, stderr } = await lab(t, folder, ['explore', ...words, '--json']);
  assert.equal(code, expected, stdout + stderr);
  return (JSON.parse(stdout) as { exploration: Exploration }).exploration;
}

/** What was found, however long it took and in whatever order. */
function facts({ findings, statesDecided, passes }: Exploration): unknown {
  return [findings.map(({ verdict, count }) => [verdict.class, count]), passes, statesDecided];
}

const SQLITE =
  'sqlite:database=ledger.db,rule=SELECT payment FROM entry GROUP BY payment HAVING count(*)<>2,' +
  'keys=SELECT payment FROM entry';

for (const { synchronous, states, expected, says } of [
  {
    synchronous: 'OFF',
    states: '24',
    expected: 1,
    says: /FAIL failure of durability.*\n *Never issued: /,
  },
  { synchronous: 'FULL', states: '120', expected: 1, says: /FAIL failure of durability/ },
  { synchronous: 'EXTRA', states: '80', expected: 0, says: /^PASS\n/ },
]) {
  test(`the tutorial: PRAGMA synchronous=${synchronous}`, options, async (t) => {
    const folder = workspace(t);
    const command = [process.execPath, LEDGER, '{mount}', synchronous];
    const said = await labSucceeds(t, folder, [
      'record',
      '--mkfs',
      'ext4',
      '-o',
      't.trace',
      '--',
      ...command,
    ]);
    assert.equal(said.match(/^ACK/gm)?.length, 12);
    const words = ['--model', 'M1', '--mount', 'ext4', '--states', states, '--budget', '60s'];
    const explore = ['explore', 't.trace', ...words, '--report', 't.html', '--check', SQLITE];
    const { code, stdout, stderr } = await lab(t, folder, explore);
    assert.equal(code, expected, stdout + stderr);
    assert.match(stdout, says);
    assert.match(readFileSync(join(folder, 't.html'), 'utf8'), /<h1>/);
  });
}

test(
  'a command, a module, or no checker: 0 for a sound program, 1 for a hasty one',
  options,
  async (t) => {
    const folder = toys(t);
    await recordRows(t, folder, 'sound.trace', 'sound');
    await recordRows(t, folder, 'hasty.trace', 'hasty');
    for (const check of [BY_COMMAND, './check.mjs']) {
      const sound = await exploreJson(t, folder, ['sound.trace', '--check', check], 0);
      assert.deepEqual(sound.findings, []);
      assert.ok(
        sound.coverage.every(({ reached }) => reached !== 'sampled' && reached !== 'nothing'),
      );
      const hasty = await exploreJson(t, folder, ['hasty.trace', '--check', check], 1);
      assert.equal(hasty.findings.length, 1);
      assert.equal(hasty.findings[0]?.verdict.class, 'row missing');
      assert.equal(hasty.findings[0]?.verdict.axis, 'durability');
    }
    const untold = await exploreJson(t, folder, ['sound.trace', '--model', 'M1'], 0);
    assert.ok(untold.statesDecided > 4);
    const torn = await exploreJson(t, folder, ['sound.trace', '--model', 'M2'], 1);
    assert.ok(torn.findings.some(({ verdict }) => verdict.class === 'old and new mixed'));
  },
);

test('what cannot be judged is never a pass (D9)', options, async (t) => {
  const folder = toys(t);
  await recordRows(t, folder, 't.trace', 'hasty');
  // What must pass passes, and of the rest the checker makes something else than a verdict.
  const whole = `[ "$(od -An -tu1 -j 16384 -N1 {disk} | tr -d " ")" = 4 ] && exit 0`;
  for (const [how, outcome] of [
    ['exit 127', 'checker-error'],
    ['no-such-program', 'checker-error'],
    ['kill -SEGV $$', 'checker-error'],
    ['echo ERROR; exit 2', 'checker-error'],
    ['sleep 9', 'hang'],
  ]) {
    const words = ['t.trace', '--timeout', '500ms', '--states', '6', '--check', `${whole}; ${how}`];
    const { findings, passes } = await exploreJson(t, folder, words, 2);
    assert.deepEqual([...new Set(findings.map(({ verdict }) => verdict.outcome))], [outcome], how);
    assert.ok((passes[''] ?? 0) < 6, how);
  }
  // Exit codes decide: what is printed does not.
  const loud = await exploreJson(t, folder, ['t.trace', '--check', 'echo ERROR {disk}'], 0);
  assert.deepEqual(loud.findings, []);
  const absent = await lab(t, folder, ['explore', 't.trace', '--check', '/no/such/checker {disk}']);
  assert.equal(absent.code, 78, absent.stdout + absent.stderr);
  const words = await lab(t, folder, ['explore', 't.trace', '--check', 'no-oracle']);
  assert.equal(words.code, 2);
  assert.match(words.stderr, /neither a command with \{disk\}, nor a module/);
});

test('an exploration that is interrupted goes on, and finds the same', options, async (t) => {
  const folder = toys(t);
  await recordRows(t, folder, 't.trace', 'hasty', 5);
  const words = ['t.trace', '--model', 'M1', '--check', `sleep 0.1; ${BY_COMMAND}`, '-j', '2'];
  const whole = await exploreJson(t, folder, words, 1);
  assert.equal(whole.ended, 'covered');
  const first = startLab(t, folder, ['explore', ...words, '--progress', 'p', '--json']);
  await until('the first progress', 20_000, () => (existsSync(join(folder, 'p')) ? true : null));
  await sleep(700);
  first.signal('SIGINT');
  await first.ended();
  assert.deepEqual(leftovers(folder, first.pid), []);
  const part = (JSON.parse(first.stdout) as { exploration: Exploration }).exploration;
  assert.equal(part.ended, 'interrupted');
  assert.ok(part.statesDecided < whole.statesDecided, `${part.statesDecided}`);
  const rest = await exploreJson(t, folder, [...words, '--progress', 'p'], 1);
  assert.equal(rest.ended, 'covered');
  assert.deepEqual(facts(rest), facts(whole));
  assert.ok(rest.checkerRuns < whole.checkerRuns + 8, 'what was decided is not decided again');
});

test(
  'a state id gives the very bytes that the checker saw, shown and mounted; writes are thrown away',
  options,
  async (t) => {
    const folder = toys(t);
    await recordRows(t, folder, 't.trace', 'hasty');
    const words = ['explore', 't.trace', '--check', BY_COMMAND, '--report', 'r.html'];
    const { code, stdout } = await lab(t, folder, words);
    assert.equal(code, 1);
    const { findings } = await exploreJson(t, folder, words.slice(1, 4), 1);
    const [finding] = findings;
    assert.ok(finding !== undefined);
    const seen = /[0-9a-f]{64}/.exec(finding.verdict.detail)?.[0];
    assert.ok(seen !== undefined);
    const said = await labSucceeds(t, folder, ['show', finding.id, '--write', 's.img']);
    assert.match(said, /power cut \d+ of \d+/);
    assert.match(said, /#\d+ WRITE of 1 KiB at byte \d+: lost/);
    assert.equal(sha256(join(folder, 's.img')), seen);
    assert.equal(statSync(join(folder, 's.img')).size, 2 ** 20);

    for (let round = 0; round < 2; round += 1) {
      const mounted = startLab(t, folder, ['mount', finding.id, 'm.img']);
      await mounted.says(/m\.img\n/);
      const file = await open(join(folder, 'm.img'), 'r+');
      const bytes = Buffer.alloc(2 ** 20);
      await file.read(bytes, 0, bytes.length, 0);
      assert.ok(bytes.equals(readFileSync(join(folder, 's.img'))), `round ${round}`);
      await file.write(Buffer.alloc(4096, 0xee), 0, 4096, 8192);
      await file.read(bytes, 0, 4096, 8192);
      assert.equal(bytes[0], 0xee);
      await file.close();
      mounted.signal('SIGINT');
      assert.equal(await mounted.ended(), 0, mounted.stderr);
      assert.deepEqual(leftovers(folder, mounted.pid), []);
      assert.ok(!existsSync(join(folder, 'm.img')));
    }

    // The ids and commands of the report are the ones that work.
    const id = /^ +(\w+-M2-\S+)$/m.exec(stdout)?.[1] ?? '';
    assert.ok(readFileSync(join(folder, 'r.html'), 'utf8').includes(`holdfast lab show ${id} `));
    await labSucceeds(t, folder, ['show', id, '--trace', 't.trace']);
    assert.equal((await lab(t, folder, ['show', `${finding.id}9`])).code, 78);
    assert.equal((await lab(t, folder, ['show', 'nonsense'])).code === 0, false);
  },
);

test('other traces, changed images and damage are refused, with the place', options, async (t) => {
  const folder = toys(t);
  const image = join(folder, 'base.img');
  writeFileSync(image, Buffer.alloc(2 ** 20, 7));
  await recordRows(t, folder, 'a.trace', 'hasty', 3, ['--disk', image]);
  await recordRows(t, folder, 'b.trace', 'hasty', 4);
  assert.deepEqual(readFileSync(image), Buffer.alloc(2 ** 20, 7), 'the image is not changed');
  const { findings } = await exploreJson(t, folder, ['b.trace', '--check', BY_COMMAND], 1);
  const id = findings[0]?.id ?? '';
  const other = await lab(t, folder, ['show', id, '--trace', 'a.trace']);
  assert.equal(other.code, 78);
  assert.match(other.stderr, /of another trace/);
  const own = await lab(t, folder, ['record', '--disk', image, '-o', image, '--', 'true']);
  assert.equal(own.code, 78);
  assert.equal(statSync(image).size, 2 ** 20);

  writeFileSync(image, Buffer.alloc(2 ** 20, 8));
  const changed = await lab(t, folder, ['explore', 'a.trace', '--check', BY_COMMAND]);
  assert.equal(changed.code, 78, changed.stderr);
  assert.match(changed.stderr, /base\.img/);
  writeFileSync(image, Buffer.alloc(2 ** 20, 7));

  const damaged = join(folder, 'b.trace');
  const fd = openSync(damaged, 'r+');
  writeSync(fd, Buffer.from([0x5a]), 0, 1, 1500);
  closeSync(fd);
  const broken = await lab(t, folder, ['explore', 'b.trace', '--check', BY_COMMAND]);
  assert.equal(broken.code, 78, broken.stderr);
  assert.match(broken.stderr, /b\.trace: damaged at byte \d+, record \d+/);
  // Its id is looked for beside others that cannot be read.
  const lost = await lab(t, folder, ['show', id]);
  assert.equal(lost.code, 78);
  assert.match(lost.stderr, /damaged/);
});

test(
  'a recorder that is killed leaves a trace that can be used, and nothing that the next lab does not remove',
  options,
  async (t) => {
    const folder = toys(t);
    const command = [process.execPath, 'writer.mjs', '{disk}', 'hasty', '200', '20'];
    const killed = startLab(t, folder, [
      'record',
      '-o',
      'k.trace',
      '--size',
      '1M',
      '--',
      ...command,
    ]);
    await killed.says(/ACK row 5\n/);
    killed.signal('SIGKILL');
    assert.equal(await killed.ended(), -1);
    assert.ok(existsSync(join(folder, 'k.trace.disk')), 'there is something to remove');

    const explored = await lab(t, folder, [
      'explore',
      'k.trace',
      '--check',
      './check.mjs',
      '--states',
      '200',
    ]);
    assert.equal(explored.code, 1, explored.stdout + explored.stderr);
    assert.match(explored.stderr, /cut short/);
    await until('what it left to be gone', 5000, () =>
      leftovers(folder, killed.pid).length === 0 ? true : null,
    );

    // However short it is cut.
    for (const bytes of [statSync(join(folder, 'k.trace')).size - 30, 400]) {
      truncateSync(join(folder, 'k.trace'), bytes);
      const { code, stderr } = await lab(t, folder, [
        'explore',
        'k.trace',
        '--check',
        './check.mjs',
        '--states',
        '50',
      ]);
      assert.ok([0, 1].includes(code), stderr);
    }
  },
);

test(
  'SIGINT and SIGKILL while a file system is mounted for checks, and while a workload runs on one',
  options,
  async (t) => {
    const folder = toys(t);
    const slow =
      'i=0; while [ $i -lt 100 ]; do i=$((i + 1)); echo $i > {mount}/f; sync {mount}/f; echo ACK $i; sleep 0.1; done';
    const words = [
      'record',
      '--mkfs',
      'ext4',
      '--size',
      '8M',
      '-o',
      't.trace',
      '--',
      'sh',
      '-c',
      slow,
    ];
    const recorder = startLab(t, folder, words);
    await recorder.says(/ACK 4\n/);
    recorder.signal('SIGINT');
    assert.equal(await recorder.ended(), 143, recorder.stderr);
    assert.deepEqual(leftovers(folder, recorder.pid), []);

    const explore = [
      'explore',
      't.trace',
      '--mount',
      'ext4',
      '--check',
      'sleep 0.2; test -d {mount}',
    ];
    for (const name of ['SIGINT', 'SIGKILL'] as const) {
      const explorer = startLab(t, folder, explore);
      await until('a mount for a check', 20_000, () =>
        leftovers(folder, explorer.pid).some((line) => line.includes('/disk0')) ? true : null,
      );
      await sleep(700);
      explorer.signal(name);
      const code = await explorer.ended();
      if (name === 'SIGINT') assert.equal(code, 130, explorer.stdout + explorer.stderr);
      if (name === 'SIGKILL')
        await labSucceeds(t, folder, ['record', '-o', 'n.trace', '--', 'true']);
      await until(`everything to be gone after ${name}`, 8000, () =>
        leftovers(folder, explorer.pid).length === 0 ? true : null,
      );
    }
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.includes('.disk')),
      [],
    );
  },
);

test(
  'a lying disk is model L alone (D8); a cut leaves more than one state (D11)',
  options,
  async (t) => {
    const folder = toys(t);
    await recordRows(t, folder, 'sound.trace', 'sound');
    await recordRows(t, folder, 'hasty.trace', 'hasty');
    for (const model of ['M1', 'M3']) {
      const words = ['sound.trace', '--model', model, '--check', './check.mjs'];
      assert.deepEqual((await exploreJson(t, folder, words, 0)).findings, [], model);
    }
    const lied = ['explore', 'sound.trace', '--model', 'L', '--check', './check.mjs'];
    const { code, stdout } = await lab(t, folder, lied);
    assert.equal(code, 1);
    assert.match(stdout, /No flush: /);
    assert.match(stdout, /^ +\w+-L-c\d+-/m, 'its states say of themselves what they are');

    // Four writes and no flush: each there or not. Tools that drop all that is not synced know one of these.
    const rows = ['hasty.trace', '--model', 'M1', '--check', './check.mjs'];
    const { coverage } = await exploreJson(t, folder, rows, 1);
    const decided = coverage.map(({ statesDecided, reached }) => [statesDecided, reached]);
    // And one more after the server's own flush at its end.
    assert.deepEqual(decided, [
      [16, 'exact'],
      [1, 'exact'],
    ]);
  },
);
