import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import type { DiskCounters } from '../../server/config.ts';
import { cleanEnvironment, holdfast, MAIN, Program, scratch, start } from '../testing.ts';
import { answerTo } from './control-socket.ts';

// `holdfast serve` as a process: what it prints, what it leaves behind, how it ends.

interface Report {
  readonly pid: number;
  readonly disks: readonly { readonly export: string; readonly uris: readonly string[] }[];
}

async function served(t: TestContext, ...words: string[]): Promise<[Program, Report]> {
  const program = start(t, 'serve', '--json', ...words);
  await program.until(/^\{"format":1,.*\}$/m);
  return [program, JSON.parse(program.stdout) as Report];
}

function counterLines(stderr: string): DiskCounters[] {
  const lines = stderr.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as DiskCounters);
}

test('two disks at two places: every URI answers, SIGTERM ends with 0 and the counters', async (t) => {
  const socket = join(scratch(t), 'sock');
  const [program, report] = await served(t, 'a=memory:1M', 'b=memory:2M', '-p', '0', '-k', socket);
  assert.equal(report.pid, program.child.pid);
  assert.deepEqual(
    report.disks.map((disk) => disk.export),
    ['a', 'b'],
  );
  const sizes = await Promise.all(
    report.disks.flatMap((disk) =>
      disk.uris.map(async (uri) => {
        const ended = await holdfast(t, 'info', '--json', uri);
        assert.equal(ended.code, 0, ended.stderr);
        return (JSON.parse(ended.stdout) as { sizeBytes: number }).sizeBytes;
      }),
    ),
  );
  assert.deepEqual(sizes, [2 ** 20, 2 ** 20, 2 ** 21, 2 ** 21]);
  const listed = await holdfast(t, 'info', '--list', report.disks[0]?.uris[1] ?? '');
  assert.equal(listed.stdout, 'a\nb\n');
  program.kill('SIGTERM');
  const ended = await program.ended;
  assert.equal(ended.code, 0, ended.stderr);
  assert.deepEqual(
    counterLines(ended.stderr).map((counters) => counters.export),
    ['a', 'b'],
  );
  assert.equal(existsSync(socket), false, 'the socket is gone');
});

test('SIGUSR2 and the control socket show the counters of a running server', async (t) => {
  const control = join(scratch(t), 'control');
  const [program] = await served(t, 'memory:1M', '-k', '-', '--control', control);
  assert.equal(statSync(control).mode & 0o777, 0o600);
  program.kill('SIGUSR2');
  await program.until(/^\{"disk".*\}$/m);
  const [counters] = counterLines(program.stderr);
  assert.equal(counters?.flushesAsked, 0);
  const asked = await holdfast(t, 'counters', control);
  assert.equal(asked.code, 0, asked.stderr);
  assert.deepEqual(JSON.parse(asked.stdout), counters);
  const refused = await holdfast(t, 'resume', control, 'nobody', '--yes');
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /no export is named 'nobody'/);
  assert.equal((await holdfast(t, 'resume', control)).code, 1, 'not without --yes');
  assert.equal((await holdfast(t, 'resume', control, '--yes')).code, 0);
  program.kill('SIGINT');
  assert.equal((await program.ended).code, 0);
  assert.equal(existsSync(control), false);
  assert.equal((await holdfast(t, 'counters', control)).code, 69);
});

test('the control socket answers nonsense with an error', async () => {
  const asked: unknown[] = [];
  const server = {
    counters: () => Promise.resolve([]),
    resume: () => Promise.resolve(),
    mark: (...mark: unknown[]) => {
      asked.push(mark);
      return Promise.resolve();
    },
    cutPower: (name: string, request: object) => {
      asked.push([name, request]);
      return Promise.reject(new Error('no such luck'));
    },
    failFlush: (name: string, fault: object) => {
      asked.push([name, fault]);
      return Promise.resolve();
    },
  };
  for (const line of ['', 'null', '{}', '[1]', '{"op":"resume"}', '{"op":"stop"}', '{"op":']) {
    assert.equal((await answerTo(line, server)).ok, false, line);
  }
  for (const rest of [
    '"seed":1,"model":"M4","offForMs":0',
    '"seed":-1,"model":"M2","offForMs":0',
    '"seed":1.5,"model":"M2","offForMs":0',
    '"seed":1,"model":"M2"',
  ]) {
    const answer = await answerTo(`{"op":"cut","export":"",${rest}}`, server);
    assert.deepEqual(answer, { ok: false, error: 'the request is not understood' }, rest);
  }
  for (const rest of ['"when":"once"', '"when":"often","data":"keep"', '"data":"drop"']) {
    assert.equal((await answerTo(`{"op":"fail-flush","export":"",${rest}}`, server)).ok, false);
  }
  for (const rest of [
    '"kind":"ack","text":"x"',
    '"kind":"other","text":"x","agoMs":0',
    '"kind":"ack","text":5,"agoMs":0',
    '"kind":"ack","text":"x","agoMs":-1',
    '"kind":"ack","text":"x","agoMs":1e9',
  ]) {
    assert.equal((await answerTo(`{"op":"mark",${rest}}`, server)).ok, false, rest);
  }
  assert.deepEqual(asked, []);
  await answerTo('{"op":"mark","kind":"ack","text":"x","agoMs":5}', server);
  assert.deepEqual(asked.splice(0), [['ack', 'x', 5]]);
  const cut = { seed: 1, model: 'M2', offForMs: 5 };
  const cutLine = JSON.stringify({ op: 'cut', export: 'a', ...cut });
  assert.deepEqual(await answerTo(cutLine, server), { ok: false, error: 'no such luck' });
  const fault = { when: 'once', data: 'drop' };
  await answerTo(JSON.stringify({ op: 'fail-flush', export: 'b', ...fault }), server);
  assert.deepEqual(asked, [
    ['a', cut],
    ['b', fault],
  ]);
  assert.deepEqual(await answerTo('{"op":"counters"}', server), { ok: true, disks: [] });
});

test('--run: the exit status of the command, with nothing of ours on its standard output', async (t) => {
  const ended = await holdfast(
    t,
    'serve',
    'memory:1M',
    '-q',
    '--run',
    `${process.execPath} ${MAIN} info "$uri"; exit 5`,
  );
  assert.equal(ended.code, 5, ended.stderr);
  assert.match(ended.stdout, /^nbd\+unix:\/\/\/\?socket=.*\n {2}size +1048576 bytes/);
  assert.equal(ended.stderr, '');
  const socket = decodeURIComponent(/socket=(\S+)/.exec(ended.stdout)?.[1] ?? '');
  assert.equal(existsSync(dirname(socket)), false, 'the private directory is gone');
});

test('--run: a signal to the server ends the command first', async (t) => {
  const program = start(t, 'serve', 'memory:1M', '-q', '--run', 'echo up; exec sleep 60');
  await program.until(/up/);
  program.kill('SIGTERM');
  assert.equal((await program.ended).code, 143);
});

test('a pid file is there as soon as the report is, and gone after the end', async (t) => {
  const pidFile = join(scratch(t), 'pid');
  const [program, report] = await served(t, 'memory:1M', '-k', '-', '-P', pidFile);
  assert.equal(readFileSync(pidFile, 'utf8'), `${report.pid}\n`);
  program.kill('SIGHUP');
  assert.equal((await program.ended).code, 0);
  assert.equal(existsSync(pidFile), false);
});

/** The variable names the process that is to take the sockets; exec keeps its number. */
function activated(
  t: TestContext,
  fds: number,
  descriptor: number | 'ignore',
  words: string[],
): Program {
  return new Program(
    t,
    'sh',
    ['-c', `LISTEN_PID=$$ LISTEN_FDS=${fds} exec "$0" "$@"`, process.execPath, MAIN, ...words],
    ['ignore', 'pipe', 'pipe', descriptor],
  );
}

test('socket activation: serves on the descriptor, and refuses other places', async (t) => {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const address = listener.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  const handle = (listener as unknown as Record<'_handle', { fd: number }>)['_handle'];
  const refused = await activated(t, 1, handle.fd, ['serve', 'memory:1M', '-p', '0']).ended;
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /handed over sockets/);
  const program = activated(t, 1, handle.fd, ['serve', '--json', 'memory:1M']);
  // The socket lives on in the program, which alone accepts from it now.
  listener.close();
  await program.until(/\n/);
  const info = await holdfast(t, 'info', `nbd://127.0.0.1:${port}/`);
  assert.equal(info.code, 0, info.stderr);
  program.kill('SIGTERM');
  assert.equal((await program.ended).code, 0);
});

test('a socket that was promised and is none: exit code 78', async (t) => {
  const ended = await activated(t, 1, 'ignore', ['serve', 'memory:1M']).ended;
  assert.equal(ended.code, 78, ended.stderr);
  assert.match(ended.stderr, /^holdfast: LISTEN_FDS promises a listening socket at descriptor 3/);
});

test('--exit-with-parent: the server ends, in order, when its parent does', async (t) => {
  const directory = scratch(t);
  const pidFile = join(directory, 'pid');
  const parent = spawn(
    'sh',
    ['-c', '"$0" "$@" >/dev/null 2>&1 & wait', process.execPath, MAIN].concat([
      'serve',
      'memory:1M',
      '-k',
      '-',
      '--exit-with-parent',
      '-P',
      pidFile,
    ]),
    { stdio: 'ignore', env: cleanEnvironment() },
  );
  const deadlineMs = performance.now() + 20_000;
  while (!existsSync(pidFile) && performance.now() < deadlineMs) await sleep(20);
  assert.ok(existsSync(pidFile));
  const pid = Number(readFileSync(pidFile, 'utf8'));
  t.after(() => {
    if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  });
  parent.kill('SIGKILL');
  while (existsSync(pidFile) && performance.now() < deadlineMs) await sleep(20);
  assert.equal(existsSync(pidFile), false, 'it cleaned up');
});

test('people are told how to attach, and of what is dangerous', async (t) => {
  const image = join(scratch(t), 'a.qcow2');
  writeFileSync(image, `QFI\u00FB${'\0'.repeat(508)}`, 'latin1');
  const program = start(t, 'serve', image, '--cache', 'unsafe', '-b', '0.0.0.0', '-p', '0');
  await program.until(/nbd-client -d/);
  program.kill('SIGTERM');
  const { code, stdout, stderr } = await program.ended;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /qemu-system-x86_64 -m 1G -drive file=nbd:\/\/0\.0\.0\.0:\d+\//);
  assert.match(stderr, /warning: .*unsafe.*NOT DONE/);
  assert.match(stderr, /warning: .*looks like a qcow2 image/);
  assert.match(stderr, /warning: listening on 0\.0\.0\.0 without TLS/);
});

test('demo: the disk is made once, and kept', async (t) => {
  const disk = join(scratch(t), 'state', 'demo.img');
  for (const made of [true, false]) {
    const program = start(t, 'demo', '--disk', disk, '-p', '0');
    await program.until(/nbd-client -d/);
    assert.equal(statSync(disk).size, 2 ** 30);
    assert.ok(statSync(disk).blocks * 512 < 2 ** 20, 'sparse');
    program.kill('SIGTERM');
    const { code, stdout, stderr } = await program.ended;
    assert.equal(code, 0, stderr);
    assert.equal(/made .*demo\.img/.test(stderr), made);
    assert.match(stdout, /nbd\+unix:\/\/\/\?socket=.*demo\.sock/);
    assert.match(stdout, /nbd:\/\/127\.0\.0\.1:\d+\//);
  }
});

test('clear: says what it would do, does it with --yes, once', async (t) => {
  const disk = join(scratch(t), 'a.img');
  assert.equal((await holdfast(t, 'create', disk, '1M')).code, 0);
  assert.match((await holdfast(t, 'clear', disk)).stderr, /is not poisoned/);
  const poisoned = { error: 'EIO', when: '2026-01-02T03:04:05.000Z' };
  const record = { version: 1, bootId: 'b', clean: true, poisoned, hostCrash: null };
  writeFileSync(`${disk}.holdfast`, JSON.stringify(record));
  assert.match((await holdfast(t, 'info', disk)).stdout, /poisoned: a sync failed with EIO/);
  const asked = await holdfast(t, 'clear', disk);
  assert.equal(asked.code, 1);
  assert.match(asked.stderr, /failed with EIO at 2026-01-02.*--yes/);
  assert.equal((await holdfast(t, 'clear', disk, '--yes')).code, 0);
  assert.match((await holdfast(t, 'info', disk)).stdout, /state +clean/);
});

test('the JSON help is JSON', async (t) => {
  const ended = await holdfast(t, '--help', '--json');
  assert.equal(ended.code, 0);
  assert.equal((JSON.parse(ended.stdout) as { format: number }).format, 1);
});

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
