import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import type tls from 'node:tls';
import { ConfigError } from '../base/errors.ts';
import type { TlsSettings } from './reactor.ts';
import {
  loadClientCertificates,
  loadPskFile,
  loadPskOfUser,
  loadServerCertificates,
  parsePskFile,
} from './tls-credentials.ts';
import { makeCertificates } from './tls-test-certificates.ts';
import { startTls } from './tls.ts';

const dir = mkdtempSync(join(tmpdir(), 'holdfast-tls-'));
const pki = join(dir, 'pki');
const keys = join(dir, 'keys.psk');
const KEY = 'a8cf7dbd1a2a9a1e5f6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b';

before(() => {
  makeCertificates(pki);
  writeFileSync(keys, `alice:${KEY}\nbob:00112233445566778899aabbccddeeff\n`);
});
after(() => rmSync(dir, { recursive: true }));

/** Both ends of one connection after the handshake. */
async function handshake(
  server: TlsSettings,
  client: TlsSettings,
): Promise<{
  server: PromiseSettledResult<tls.TLSSocket>;
  client: PromiseSettledResult<tls.TLSSocket>;
}> {
  const listener = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as net.AddressInfo;
  const near = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const [far] = (await once(listener, 'connection')) as [net.Socket];
  listener.close();
  near.on('error', () => {});
  far.on('error', () => {});
  const [serverEnd, clientEnd] = await Promise.allSettled([
    startTls(far, server),
    startTls(near, client),
  ]);
  return { server: serverEnd, client: clientEnd };
}

/** Asserts that both ends came up and that a message goes each way. */
async function assertTalks(server: TlsSettings, client: TlsSettings): Promise<tls.TLSSocket> {
  const ends = await handshake(server, client);
  const far = fulfilled(ends.server);
  const near = fulfilled(ends.client);
  near.write('ping');
  assert.equal(String((await once(far, 'data'))[0]), 'ping');
  far.write('pong');
  assert.equal(String((await once(near, 'data'))[0]), 'pong');
  near.destroy();
  far.destroy();
  return far;
}

function fulfilled<T>(result: PromiseSettledResult<T>): T {
  if (result.status === 'rejected') throw result.reason;
  return result.value;
}

function reason(result: PromiseSettledResult<unknown>): string {
  return result.status === 'rejected' ? (result.reason as Error).message : 'no error';
}

const clientOf = (hostname = '127.0.0.1', directory = pki): Promise<TlsSettings> =>
  loadClientCertificates(directory, { hostname, verifyPeer: true });

test('X.509: the client checks the server by address and by name', async () => {
  const server = await loadServerCertificates(pki, { verifyPeer: false });
  await assertTalks(server, await clientOf());
  await assertTalks(server, await clientOf('localhost'));
});

test('X.509: a wrong host name is refused by the client', async () => {
  const server = await loadServerCertificates(pki, { verifyPeer: false });
  const ends = await handshake(server, await clientOf('example.org'));
  assert.match(reason(ends.client), /^TLS handshake failed: .*example\.org/);
});

test('X.509: a server of another authority is refused by the client', async () => {
  const server = await loadServerCertificates(pki, { verifyPeer: false });
  const other = join(dir, 'other');
  makeCertificates(other);
  const ends = await handshake(server, await clientOf('localhost', other));
  assert.match(reason(ends.client), /not signed by the CA|certificate signature failure/);
});

test('X.509: with verifyPeer a client needs a certificate of the CA', async () => {
  const server = await loadServerCertificates(pki, { verifyPeer: true });
  await assertTalks(server, await clientOf());

  const bare = join(dir, 'bare');
  mkdirSync(bare);
  copyFileSync(join(pki, 'ca-cert.pem'), join(bare, 'ca-cert.pem'));
  const without = await handshake(server, await clientOf('localhost', bare));
  assert.match(reason(without.server), /sent no certificate/);

  const foreign = join(dir, 'foreign');
  makeCertificates(foreign);
  copyFileSync(join(pki, 'ca-cert.pem'), join(foreign, 'ca-cert.pem'));
  const wrong = await handshake(server, await clientOf('localhost', foreign));
  assert.match(reason(wrong.server), /TLS handshake failed: /);
});

test('X.509: a revoked client is refused', async () => {
  const revoking = join(dir, 'revoking');
  makeCertificates(revoking, { revokeClient: true });
  const server = await loadServerCertificates(revoking, { verifyPeer: true });
  const ends = await handshake(server, await clientOf('localhost', revoking));
  assert.match(reason(ends.server), /revoked/);
});

test('PSK: TLS 1.3 and TLS 1.2, and the wrong key or user', async () => {
  const server = await loadPskFile(keys);
  const far = await assertTalks(server, await loadPskOfUser(keys, 'alice'));
  assert.equal(far.destroyed, true);
  await assertTalks(server, await loadPskOfUser(keys, 'bob'));

  const client = { hostname: '' };
  const wrongKey = new Map([['alice', new Uint8Array(32)]]);
  const refused = await handshake(server, { psk: wrongKey, client });
  assert.match(reason(refused.server), /^TLS handshake failed: /);
  const nobody = new Map([['mallory', new Uint8Array(32)]]);
  const unknown = await handshake(server, { psk: nobody, client });
  assert.match(reason(unknown.server), /^TLS handshake failed: /);
});

test('what is not TLS is refused, and so is a peer that leaves', async () => {
  const settings = await loadPskFile(keys);
  for (const [bytes, expected] of [
    ['NBDMAGIC is what a client without TLS says', /not TLS/],
    ['', /closed the connection/],
  ] as const) {
    const listener = net.createServer().listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const near = net.connect((listener.address() as net.AddressInfo).port, '127.0.0.1');
    const [far] = (await once(listener, 'connection')) as [net.Socket];
    listener.close();
    near.on('error', () => {});
    near.end(bytes);
    await assert.rejects(startTls(far, settings), expected);
    assert.equal(far.destroyed, true);
    near.destroy();
  }
});

test('bytes read before the handshake began are its beginning', async () => {
  const listener = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const near = net.connect((listener.address() as net.AddressInfo).port, '127.0.0.1');
  const [far] = (await once(listener, 'connection')) as [net.Socket];
  listener.close();
  const client = startTls(near, await loadPskOfUser(keys, 'alice'));
  const [hello] = (await once(far, 'data')) as [Buffer];
  far.pause();
  far.unshift(hello);
  const server = await startTls(far, await loadPskFile(keys));
  (await client).destroy();
  server.destroy();
});

/** A client program against a server that answers with one line: what the program and the server say. */
async function program(
  settings: TlsSettings,
  args: (port: number) => [string, string[]],
): Promise<string> {
  const output: Buffer[] = [];
  const listener = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    startTls(socket, settings).then(
      (secured) => {
        output.push(Buffer.from(`accepted ${secured.getProtocol()}\n`));
        secured.end('hello from holdfast\n');
      },
      () => {},
    );
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const [command, rest] = args((listener.address() as net.AddressInfo).port);
  const child = spawn(command, rest, { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => output.push(chunk));
  await once(child, 'close');
  listener.close();
  return Buffer.concat(output).toString();
}

function has(command: string): boolean {
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

const gnutls = { skip: has('gnutls-cli') ? false : 'gnutls-cli is not installed' };

for (const version of ['1.2', '1.3']) {
  test(`gnutls-cli with TLS ${version}: X.509`, gnutls, async () => {
    const server = await loadServerCertificates(pki, { verifyPeer: true });
    const output = await program(server, (port) => [
      'gnutls-cli',
      [
        `--priority=NORMAL:-VERS-ALL:+VERS-TLS${version}`,
        `--x509cafile=${join(pki, 'ca-cert.pem')}`,
        `--x509certfile=${join(pki, 'client-cert.pem')}`,
        `--x509keyfile=${join(pki, 'client-key.pem')}`,
        `--port=${port}`,
        'localhost',
      ],
    ]);
    assert.match(output, /hello from holdfast/, output);
  });

  test(`gnutls-cli with TLS ${version}: PSK, as nbdinfo and QEMU do`, gnutls, async () => {
    const output = await program(await loadPskFile(keys), (port) => [
      'gnutls-cli',
      [
        `--priority=NORMAL:-VERS-ALL:+VERS-TLS${version}:+ECDHE-PSK:+DHE-PSK:+PSK`,
        '--pskusername=alice',
        `--pskkey=${KEY}`,
        `--port=${port}`,
        '127.0.0.1',
      ],
    ]);
    // gnutls-cli of GnuTLS 3.8 crashes while it describes a TLS 1.2 PSK session: ask the server's side.
    assert.match(output, new RegExp(`accepted TLSv${version}`), output);
  });

  test(`openssl s_client with TLS ${version}: X.509 and PSK`, async () => {
    const flag = `-tls${version.replace('.', '_')}`;
    const x509 = await program(await loadServerCertificates(pki, { verifyPeer: true }), (port) => [
      'openssl',
      // prettier-ignore
      [
        's_client', flag, '-quiet', '-verify_return_error', '-connect', `127.0.0.1:${port}`,
        '-CAfile', join(pki, 'ca-cert.pem'), '-cert', join(pki, 'client-cert.pem'),
        '-key', join(pki, 'client-key.pem'),
      ],
    ]);
    assert.match(x509, /hello from holdfast/, x509);
    const psk = await program(await loadPskFile(keys), (port) => [
      'openssl',
      // prettier-ignore
      [
        's_client', flag, '-quiet', '-connect', `127.0.0.1:${port}`, '-psk_identity', 'alice', '-psk', KEY,
        ...(version === '1.2' ? ['-cipher', 'PSK'] : []),
      ],
    ]);
    assert.match(psk, /hello from holdfast/, psk);
    assert.match(psk, new RegExp(`accepted TLSv${version}`), psk);
  });
}

test('a client older than TLS 1.2 is refused', gnutls, async () => {
  const output = await program(await loadServerCertificates(pki, { verifyPeer: false }), (port) => [
    'gnutls-cli',
    ['--insecure', '--priority=NORMAL:-VERS-ALL:+VERS-TLS1.1', `--port=${port}`, 'localhost'],
  ]);
  assert.doesNotMatch(output, /hello from holdfast/);
});

test('PSK files', () => {
  const parsed = parsePskFile('alice:00ff\r\n\n#626f62:AB\n', 'f');
  assert.deepEqual(Array.from(parsed.keys()), ['alice', 'bob']);
  assert.deepEqual(parsed.get('alice'), Uint8Array.of(0, 255));
  for (const [text, message] of [
    ['alice', /line 1 of 'f' is not USER:KEY/],
    ['alice:0', /line 1/],
    ['a:00\nalice:xx', /line 2/],
    ['alice:', /line 1/],
    [':00', /line 1/],
    ['#6x:00', /line 1/],
    [`alice:${'00'.repeat(513)}`, /line 1/],
    ['', /has no keys/],
    ['a:00\na:11', /user 'a' is twice/],
  ] as const) {
    assert.throws(() => parsePskFile(text, 'f'), configError(message), text);
  }
});

test('the user of a PSK file', async () => {
  await assert.rejects(loadPskOfUser(keys, null), configError(/more than one user/));
  await assert.rejects(loadPskOfUser(keys, 'carol'), configError(/has no user 'carol'/));
  await assert.rejects(loadPskFile(join(dir, 'none')), configError(/does not exist/));
});

test('certificate directories: what is wrong is said with the file that it is about', async () => {
  const load = (name: string, verifyPeer = false): Promise<TlsSettings> =>
    loadServerCertificates(join(dir, name), { verifyPeer });
  const make = (name: string, without: string[] = []): string => {
    const path = join(dir, name);
    makeCertificates(path);
    for (const file of without) rmSync(join(path, file));
    return path;
  };
  await assert.rejects(load('nowhere'), configError(/nowhere': it does not exist/));
  await assert.rejects(load('keys.psk'), configError(/is not a directory/));
  make('no-cert', ['server-cert.pem']);
  await assert.rejects(load('no-cert'), configError(/server-cert\.pem': it does not exist/));
  make('no-key', ['server-key.pem']);
  await assert.rejects(load('no-key'), configError(/server-key\.pem': it does not exist/));
  make('no-ca', ['ca-cert.pem']);
  await load('no-ca');
  await assert.rejects(load('no-ca', true), configError(/ca-cert\.pem': it does not exist/));
  copyFileSync(join(pki, 'client-key.pem'), join(make('mismatch'), 'server-key.pem'));
  await assert.rejects(
    load('mismatch'),
    configError(/server-key\.pem' is not the key of .*server-cert/),
  );
  writeFileSync(join(make('garbage'), 'server-cert.pem'), 'no certificate');
  await assert.rejects(
    load('garbage'),
    configError(/server-cert\.pem' is not a certificate in PEM form/),
  );
  writeFileSync(join(make('bad-key'), 'server-key.pem'), 'no key');
  await assert.rejects(load('bad-key'), configError(/server-key\.pem' is not a private key/));
  makeCertificates(join(dir, 'expired'), { serverDays: -1 });
  await assert.rejects(load('expired'), configError(/server-cert\.pem' expired on/));
  if (process.getuid?.() !== 0) {
    chmodSync(join(make('secret'), 'server-key.pem'), 0);
    await assert.rejects(load('secret'), configError(/server-key\.pem': permission denied/));
  }
});

function configError(message: RegExp): (error: Error) => boolean {
  return (error) => {
    assert.ok(error instanceof ConfigError, String(error));
    assert.match(error.message, message);
    assert.notEqual(error.hint, '');
    return true;
  };
}
