import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';
import { run, succeed } from './support/command.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import { iscsiUrl, startIscsi } from './support/iscsi.ts';

// `holdfast info iscsi://...`: our own initiator, with sockets.

const MAIN = process.env['HOLDFAST_MAIN'] ?? join(import.meta.dirname, '../../src/cli/main.ts');

function info(...words: string[]): string[] {
  return [process.execPath, MAIN, 'info', ...words];
}

test('info of a logical unit: what it is and what it promises', async (t) => {
  const image = makeImage(workspace(t), 64);
  const { ports } = await startIscsi(
    t,
    ['first=memory:32M', `data=${image}`, '--cache', 'writethrough'],
    {
      query: '?serial=1:D-1&removable=1:on&thin=1:on',
    },
  );
  const uri = iscsiUrl(ports[0] ?? 0, 1);
  const json = JSON.parse(await succeed(info('--json', uri))) as Record<string, unknown>;
  assert.match(String(json['naa']), /^3[0-9a-f]{15}$/);
  delete json['naa'];
  delete json['revision'];
  assert.deepEqual(json, {
    format: 1,
    kind: 'iscsi',
    uri,
    vendor: 'HOLDFAST',
    product: 'data',
    serial: 'D-1',
    sizeBytes: 64 * 2 ** 20,
    logicalBlockBytes: 512,
    physicalBlockBytes: 4096,
    removable: true,
    readOnly: false,
    writeCache: false,
    fua: true,
    thin: true,
    unmap: true,
    compareAndWriteBlocks: 255,
    maximumTransferBytes: 32 * 2 ** 20,
  });
  const text = await succeed(info(uri));
  assert.match(text, /size +67108864 bytes \(64 MiB\)/);
  assert.match(text, /write cache +off/);
  const missing = await run(info(iscsiUrl(ports[0] ?? 0, 7)));
  assert.equal(missing.status, 78);
  assert.match(missing.stderr, /no disk has this LUN/);
  const other = await run(info(uri.replace(/:disk\//, ':other/')));
  assert.equal(other.status, 78);
  assert.match(other.stderr, /there is no such target/);
  const listed = await run(info('--list', uri));
  assert.equal(listed.status, 2, listed.stderr);
});

test('info of a target with CHAP says so; of a server of another kind, or of none, as well', async (t) => {
  const chap = join(workspace(t), 'chap');
  writeFileSync(chap, 'guest:a secret of the guest\n', { mode: 0o600 });
  const { ports } = await startIscsi(t, ['memory:32M'], { query: `?chap=${chap}` });
  const refused = await run(info(iscsiUrl(ports[0] ?? 0)));
  assert.equal(refused.status, 78);
  assert.match(refused.stderr, /the target asks for CHAP/);
  const secret = await run(info(iscsiUrl(ports[0] ?? 0, 0, 'guest%hidden@')));
  assert.equal(secret.status, 2);
  assert.doesNotMatch(secret.stderr, /hidden/);

  const foreign = createServer((socket) => {
    socket.on('error', () => {});
    socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  });
  await new Promise<void>((resolve) => {
    foreign.listen(0, '127.0.0.1', resolve);
  });
  t.after(() => foreign.close());
  const address = foreign.address();
  assert.ok(address !== null && typeof address === 'object');
  const wrong = await run(info(iscsiUrl(address.port)));
  assert.equal(wrong.status, 78, wrong.stderr);
  assert.match(wrong.stderr, /broke the protocol|closed the connection/);
  foreign.close();
  const nobody = await run(info(iscsiUrl(1)));
  assert.equal(nobody.status, 69);
  assert.match(nobody.stderr, /cannot connect/);
});
