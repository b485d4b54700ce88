import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { openReactor } from '../../reactor/open.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { openCommandChecker } from './command.ts';
import type { Checker, Verdict } from './types.ts';

let folder = '';
const reactors: Reactor[] = [];

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-command-'));
  writeFileSync(join(folder, 'disk'), 'what the disk holds\n');
  for (const kind of ['auto', 'portable'] as const) {
    reactors.push((await openReactor(kind, { pageLimit: 4 })).reactor);
  }
});

after(async () => {
  for (const reactor of reactors) await reactor.close();
  rmSync(folder, { recursive: true });
});

function open(command: string, timeoutMs = 5000, reactor = reactors[0] as Reactor): Checker {
  const timeNs = Float64Array.from([5, 10, 15]);
  return openCommandChecker(reactor, { command, timeoutMs, disks: 1, timeNs, folder });
}

async function run(command: string, timeoutMs?: number, reactor?: Reactor): Promise<Verdict> {
  const checker = open(command, timeoutMs, reactor);
  try {
    return await checker.check({
      files: [join(folder, 'disk')],
      devices: [],
      acks: [
        { event: 1, kind: 'ack', text: 'row "1"' },
        { event: 2, kind: 'ack', text: 'two' },
      ],
      scratch: folder,
    });
  } finally {
    await checker.close();
  }
}

void test('what an exit code means', async () => {
  for (const reactor of reactors) {
    for (const [command, outcome, name] of [
      ['true {disk}', 'pass', ''],
      ['false {disk}', 'fail', 'fails without a word'],
      ['grep -q holds {disk}', 'pass', ''],
      ['exit 10 {disk}', 'pass', 'state 10'],
      ['exit 19 {disk}', 'pass', 'state 19'],
      ['exit 77 {disk}', 'skip', ''],
      ['exit 9 {disk}', 'checker-error', 'exit code 9'],
      ['exit 20 {disk}', 'checker-error', 'exit code 20'],
      ['exit 126 {disk}', 'checker-error', 'command cannot be run'],
      ['no-such-program {disk}', 'checker-error', 'cannot be started: ENOENT'],
      ['no-such-program {disk}; exit 127', 'checker-error', 'command not found'],
      ['/etc/passwd {disk}', 'checker-error', 'cannot be started: EACCES'],
      ['kill -SEGV $$ {disk}', 'checker-error', 'signal SIGSEGV'],
      ["sh -c 'kill -ABRT $$' {disk}; exit $?", 'checker-error', 'signal SIGABRT'],
    ] as const) {
      const verdict = await run(command, 5000, reactor);
      assert.deepEqual([verdict.outcome, verdict.class], [outcome, name], command);
    }
  }
});

void test('the words of a failure give axis and class', async () => {
  const plain = await run("echo 'Inode 12 is bad'; echo more >&2; exit 1; {disk}");
  assert.deepEqual(plain, {
    outcome: 'fail',
    axis: 'integrity',
    class: 'Inode # is bad',
    detail: 'Inode 12 is bad\nmore',
  });
  const durable = await run("echo hm; echo 'durability: row 7 lost'; exit 1; {disk}");
  assert.equal(durable.axis, 'durability');
  assert.equal(durable.class, 'row # lost');
});

void test('a checker that does not end is killed with its children', async () => {
  for (const reactor of reactors) {
    const mark = join(folder, 'child');
    const verdict = await run(
      `echo 'still at block 7'; sleep 1000 & echo $! > ${mark}; wait; {disk}`,
      150,
      reactor,
    );
    assert.equal(verdict.outcome, 'hang');
    assert.equal(verdict.detail, 'still at block 7');
    assert.equal(await isGone(Number(readFileSync(mark))), true);
  }
});

void test('what a checker leaves running is ended', async () => {
  const mark = join(folder, 'child');
  const verdict = await run(`sleep 1000 & echo $! > ${mark}; exit 0; {disk}`);
  assert.equal(verdict.outcome, 'pass');
  assert.equal(await isGone(Number(readFileSync(mark))), true);
});

void test('output is bounded, and one run never sees the words of another', async () => {
  const checker = open('yes words {disk}; exit 1');
  const loud = await run('head -c 300000 /dev/zero | tr "\\\\0" x; exit 1; {disk}');
  assert.equal(loud.outcome, 'fail');
  assert.ok(loud.detail.length < 1100);
  const subject = { files: ['x'], devices: [], acks: [], scratch: folder };
  const flood = await checker.check(subject);
  assert.equal(flood.outcome, 'checker-error');
  assert.equal(flood.class, 'writes without end');
  await checker.close();
  assert.equal((await run('exit 1 {disk}')).class, 'fails without a word');
});

void test('acks are there as JSON, one a line', async () => {
  const verdict = await run('cat {acks}; exit 1; {disk}');
  assert.deepEqual(
    verdict.detail.split('\n').map((line) => JSON.parse(line) as unknown),
    [
      { n: 0, text: 'row "1"', timeNs: 10 },
      { n: 1, text: 'two', timeNs: 15 },
    ],
  );
  const checker = open('x {acks} {disk}');
  assert.equal(checker.usesAcks, true);
  await checker.close();
});

void test('the clock that programs are told stands still', async () => {
  const verdict = await run('echo $LC_ALL $SOURCE_DATE_EPOCH $E2FSPROGS_FAKE_TIME; exit 1; {disk}');
  assert.equal(verdict.detail, 'C 2000000000 2000000000');
});

/** Whether a process has ended, or is a zombie that somebody else reaps. */
async function isGone(pid: number): Promise<boolean> {
  for (let i = 0; i < 200; i += 1) {
    try {
      if (/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))) return true;
    } catch {
      return true;
    }
    await new Promise<void>((resolve) => {
      setTimeout(resolve, 5);
    });
  }
  return false;
}
