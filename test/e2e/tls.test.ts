import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onBothReactors } from './support/both.ts';
import { run, succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';

const TCP_LINE = /nbds:\/\/(?:localhost|127\.0\.0\.1|\[::1\]):(\d+)/;

/** A CA, a server certificate for localhost, and a client certificate, as certtool(1) makes them. */
async function makePki(folder: string): Promise<{ server: string; client: string }> {
  const server = join(folder, 'server');
  const client = join(folder, 'client');
  const templates = {
    ca: 'cn = "Holdfast tests"\nca\ncert_signing_key\n',
    server:
      'cn = "localhost"\ndns_name = "localhost"\nip_address = "127.0.0.1"\n' +
      'tls_www_server\nsigning_key\nencryption_key\n',
    client: 'cn = "a client"\ntls_www_client\nsigning_key\nencryption_key\n',
  };
  for (const [name, text] of Object.entries(templates)) {
    writeFileSync(join(folder, `${name}.template`), text);
    const key = ['certtool', '--generate-privkey', '--key-type=ecdsa', '--curve=secp256r1'];
    await succeed([...key, '--outfile', join(folder, `${name}-key.pem`)]);
  }
  const make = (name: string, ...args: string[]): Promise<string> =>
    succeed([
      'certtool',
      ...args,
      '--load-privkey',
      join(folder, `${name}-key.pem`),
      '--template',
      join(folder, `${name}.template`),
      '--outfile',
      join(folder, `${name}-cert.pem`),
    ]);
  await make('ca', '--generate-self-signed');
  const ca = ['--load-ca-certificate', join(folder, 'ca-cert.pem')];
  const signed = ['--generate-certificate', ...ca, '--load-ca-privkey', join(folder, 'ca-key.pem')];
  await make('server', ...signed);
  await make('client', ...signed);
  for (const side of [server, client]) {
    mkdirSync(side);
    await succeed(['cp', join(folder, 'ca-cert.pem'), side]);
  }
  for (const part of ['key', 'cert']) {
    await succeed(['cp', join(folder, `server-${part}.pem`), server]);
    await succeed(['cp', join(folder, `client-${part}.pem`), client]);
  }
  return { server, client };
}

onBothReactors('TLS with certificates', ['nbdinfo', 'qemu-img', 'certtool'], async (t, reactor) => {
  const folder = workspace(t);
  const pki = await makePki(folder);
  const image = makeImage(folder, 8, 2);
  const tls = ['--tls', 'require', '--tls-certificates', pki.server];
  const where = ['-p', '0', '-b', '127.0.0.1'];
  const server = await startHoldfast(t, [image, ...tls, ...where], {
    reactor,
    readyLine: TCP_LINE,
  });
  const port = TCP_LINE.exec(server.stdout)?.[1] ?? '';
  const uri = `nbds://localhost:${port}/`;
  const report = JSON.parse(
    await succeed(['nbdinfo', '--json', `${uri}?tls-certificates=${pki.client}`]),
  ) as { TLS: boolean };
  assert.equal(report.TLS, true);
  const creds = `tls-creds-x509,id=t,endpoint=client,dir=${pki.client}`;
  const node = `driver=raw,file.driver=nbd,file.host=localhost,file.port=${port},file.tls-creds=t`;
  await succeed(['qemu-img', 'info', '--object', creds, '--image-opts', node]);
  const out = join(folder, 'out.img');
  await succeed(['qemu-img', 'convert', '--object', creds, '--image-opts', node, '-O', 'raw', out]);
  await succeed(['cmp', image, out]);
  // Without TLS there is nothing for anyone.
  const plain = await run(['nbdinfo', `nbd://localhost:${port}/`]);
  assert.notEqual(plain.status, 0);
  // A CA that did not sign the server: the client goes, the server stays.
  const other = join(folder, 'other');
  mkdirSync(other);
  const otherPki = await makePki(other);
  const wrong = await run(['nbdinfo', `${uri}?tls-certificates=${otherPki.client}`]);
  assert.notEqual(wrong.status, 0);
  await succeed(['nbdinfo', `${uri}?tls-certificates=${pki.client}`]);
  await server.stop();
});

onBothReactors(
  'TLS that asks for client certificates',
  ['nbdinfo', 'certtool'],
  async (t, reactor) => {
    const folder = workspace(t);
    const pki = await makePki(folder);
    const image = makeImage(folder, 8, 2);
    const tls = ['--tls', 'require', '--tls-certificates', pki.server, '--tls-verify-peer'];
    const where = ['-p', '0', '-b', '127.0.0.1'];
    const server = await startHoldfast(t, [image, ...tls, ...where], {
      reactor,
      readyLine: TCP_LINE,
    });
    const uri = `nbds://localhost:${TCP_LINE.exec(server.stdout)?.[1] ?? ''}/`;
    await succeed(['nbdinfo', `${uri}?tls-certificates=${pki.client}`]);
    const nameless = join(folder, 'nameless');
    mkdirSync(nameless);
    await succeed(['cp', join(folder, 'ca-cert.pem'), nameless]);
    const refused = await run(['nbdinfo', `${uri}?tls-certificates=${nameless}`]);
    assert.notEqual(refused.status, 0, 'a client without a certificate is refused');
    await server.stop();
  },
);

onBothReactors(
  'TLS with pre-shared keys, over a Unix socket',
  ['nbdinfo', 'nbdcopy', 'qemu-img', 'psktool'],
  async (t, reactor) => {
    const folder = workspace(t);
    const image = makeImage(folder, 8, 4);
    const keys = join(folder, 'keys.psk');
    await succeed(['psktool', '-u', 'alice', '-p', keys]);
    const server = await startHoldfast(t, [image, '--tls', 'require', '--tls-psk', keys], {
      reactor,
    });
    const uri = `nbds+unix://alice@/?socket=${server.socket}&tls-psk-file=${keys}`;
    const report = JSON.parse(await succeed(['nbdinfo', '--json', uri])) as { TLS: boolean };
    assert.equal(report.TLS, true);
    const out = join(folder, 'out.img');
    await succeed(['nbdcopy', '--connections=3', uri, out]);
    await succeed(['cmp', image, out]);
    const stranger = join(folder, 'stranger.psk');
    await succeed(['psktool', '-u', 'alice', '-p', stranger]);
    const refused = await run(['nbdinfo', uri.replace(keys, stranger)]);
    assert.notEqual(refused.status, 0, 'the wrong key opens nothing');
    // QEMU reads keys.psk of a folder.
    const creds = `tls-creds-psk,id=t,endpoint=client,username=alice,dir=${folder}`;
    const node = `driver=raw,file.driver=nbd,file.path=${server.socket},file.tls-creds=t`;
    await succeed(['qemu-img', 'info', '--object', creds, '--image-opts', node]);
    await server.stop();
  },
);

onBothReactors(
  'TLS that is offered and not required',
  ['nbdinfo', 'psktool'],
  async (t, reactor) => {
    const folder = workspace(t);
    const keys = join(folder, 'keys.psk');
    await succeed(['psktool', '-u', 'alice', '-p', keys]);
    const args = [makeImage(folder, 8, 1), '--tls', 'on', '--tls-psk', keys];
    const server = await startHoldfast(t, args, { reactor });
    await succeed(['nbdinfo', server.uri()]);
    await succeed(['nbdinfo', `nbds+unix://alice@/?socket=${server.socket}&tls-psk-file=${keys}`]);
    await server.stop();
  },
);
