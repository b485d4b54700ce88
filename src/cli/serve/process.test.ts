import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { startCaptive } from './captive.ts';
import { looksFormatted } from './image-format.ts';
import { openNotify } from './notify.ts';
import { writePidFile } from './pid-file.ts';
import { makePrivateSocket } from './private-socket.ts';
import { handleSignals } from './signals.ts';
import { readTls } from './tls.ts';

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-test-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test('sd_notify: one datagram at the path, and at the abstract name', async (t) => {
  if (spawnSync('python3', ['--version']).status !== 0) {
    t.skip('python3 receives the datagrams here and is not installed');
    return;
  }
  const receive = [
    'import socket,sys',
    's=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)',
    's.settimeout(20)',
    "s.bind(sys.argv[1].replace('@','\\0',1) if sys.argv[1][0]=='@' else sys.argv[1])",
    "print('ready',flush=True)",
    'print(s.recv(100).decode())',
  ].join('\n');
  for (const name of [join(directory(t), 'notify'), `@holdfast-test-${process.pid}`]) {
    const child = spawn('python3', ['-c', receive, name], { stdio: ['ignore', 'pipe', 'inherit'] });
    let seen = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (seen += text));
    await once(child.stdout, 'data');
    const env = { NOTIFY_SOCKET: name };
    openNotify(env, (why) => assert.fail(why))('READY=1');
    assert.deepEqual(env, {}, 'the variable is gone');
    await once(child, 'close');
    assert.equal(seen, 'ready\nREADY=1\n');
  }
});

test('sd_notify: nothing without a manager, and a word when it cannot be reached', (t) => {
  openNotify({}, (why) => assert.fail(why))('READY=1');
  const said: string[] = [];
  const path = join(directory(t), 'nobody');
  openNotify({ NOTIFY_SOCKET: path }, (why) => said.push(why))('READY=1');
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /nobody: errno 2/);
  openNotify({ NOTIFY_SOCKET: `/${'x'.repeat(200)}` }, (why) => said.push(why))('READY=1');
  assert.match(said[1] ?? '', /errno 36/);
});

test('signals: the first stops, the second ends, SIGUSR2 reports', () => {
  const source = new EventEmitter();
  const seen: string[] = [];
  const undo = handleSignals(
    {
      stop: (signal) => seen.push(`stop ${signal}`),
      stopNow: (code) => seen.push(`now ${code}`),
      report: () => seen.push('report'),
    },
    source,
  );
  source.emit('SIGUSR2', 'SIGUSR2');
  source.emit('SIGHUP', 'SIGHUP');
  source.emit('SIGHUP', 'SIGHUP');
  source.emit('SIGINT', 'SIGINT');
  source.emit('SIGTERM', 'SIGTERM');
  assert.deepEqual(seen, ['report', 'stop SIGHUP', 'now 130', 'now 143']);
  undo();
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2']) {
    assert.equal(source.listenerCount(name), 0, name);
  }
});

test('--run: the command finds its variables, and its status is the answer', async (t) => {
  const out = join(directory(t), 'out');
  const variables = { uri: 'nbd://x/', unixsocket: '/s', port: '' };
  const captive = startCaptive(`echo "$uri $unixsocket [$port]" >${out}; exit 7`, variables);
  assert.equal(await captive.ended, 7);
  assert.equal(readFileSync(out, 'utf8'), 'nbd://x/ /s []\n');
  assert.equal(await startCaptive('kill -9 $$', variables).ended, 137);
  const sleeping = startCaptive('exec sleep 30', variables);
  sleeping.kill('SIGTERM');
  assert.equal(await sleeping.ended, 143);
});

test('the pid file is whole, ours, and removed only while it is', (t) => {
  const path = join(directory(t), 'pid');
  const remove = writePidFile(path, 4711);
  assert.equal(readFileSync(path, 'utf8'), '4711\n');
  writeFileSync(path, '4712\n');
  remove();
  assert.equal(readFileSync(path, 'utf8'), '4712\n');
  writePidFile(path, 4713)();
  assert.equal(existsSync(path), false);
  remove();
  assert.throws(() => writePidFile(join(path, 'no', 'where'), 1), ConfigError);
});

test('a private socket lies where only its owner comes', () => {
  const made = makePrivateSocket();
  assert.equal(statSync(dirname(made.path)).mode & 0o777, 0o700);
  made.remove();
  assert.equal(existsSync(dirname(made.path)), false);
});

test('images of other formats are recognised, raw ones and unreadable ones are not', (t) => {
  const path = join(directory(t), 'image');
  assert.equal(looksFormatted(path), null);
  for (const [head, format] of [
    ['QFI\u00FB\0\0\0\u0003', 'qcow2'],
    ['KDMV', 'VMDK'],
    ['vhdxfile', 'VHDX'],
    ['\0\0\0\0', null],
    ['', null],
  ] as const) {
    writeFileSync(path, head, 'latin1');
    assert.equal(looksFormatted(path), format, head);
  }
  assert.equal(looksFormatted('memory:1M'), null);
});

test('TLS: what does not fit together is refused before any file is read', async () => {
  const refused: readonly [Record<string, string | boolean>, RegExp][] = [
    [{ tlsPsk: '/k' }, /TLS is off/],
    [{ tlsVerifyPeer: true }, /TLS is off/],
    [{ tls: 'require' }, /needs --tls-certificates or --tls-psk/],
    [{ tls: 'on', tlsPsk: '/k', tlsVerifyPeer: true }, /needs --tls-certificates/],
    [{ tls: 'on', tlsPsk: '/k', tlsCertificates: '/d' }, /exclude each other/],
  ];
  for (const [options, message] of refused) {
    await assert.rejects(readTls(options), { name: 'UsageError', message });
  }
  assert.deepEqual(await readTls({}), { mode: 'off' });
});

test('TLS: keys are read from the file that was named, and a bad one is refused', async (t) => {
  const tlsPsk = join(directory(t), 'keys');
  writeFileSync(tlsPsk, 'alice:00ff\n');
  const { mode, settings } = await readTls({ tls: 'on', tlsPsk });
  assert.equal(mode, 'on');
  assert.deepEqual([...(settings?.psk ?? [])], [['alice', new Uint8Array([0, 255])]]);
  const missing = { tls: 'require', tlsCertificates: join(tlsPsk, 'no') };
  await assert.rejects(readTls(missing), { name: 'ConfigError' });
  await assert.rejects(readTls({ tls: 'on', tlsPsk: `${tlsPsk}.no` }), { name: 'ConfigError' });
});
