import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB } from '../base/units.ts';
import { flush, read, write } from '../block/await.ts';
import { read16, synchronizeCache, write16 } from '../protocols/iscsi/initiator/cdbs.ts';
import { IscsiInitiator } from '../protocols/iscsi/initiator/initiator.ts';
import { connectNbd, type NbdClient } from '../protocols/nbd/client.ts';
import { openReactor } from '../reactor/open.ts';
import type { DiskConfig, ListenConfig, ServerConfig } from './config.ts';
import { type Server, startServer } from './server.ts';

const LIMIT = { timeout: 30_000 };
const NAME = 'iqn.2026-11.org.example:a';
const LOOPBACK = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;
const NBD: ListenConfig = { protocol: 'nbd', address: LOOPBACK };
const NOW = { seed: 1, model: 'M0', offForMs: 0 } as const;

function disk(path: string, more: Partial<DiskConfig> = {}): DiskConfig {
  return {
    disk: path,
    exportName: '',
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
    volatileCacheBytes: 4 * MiB,
    ...more,
  };
}

function config(disks: readonly DiskConfig[], listen: readonly ListenConfig[]): ServerConfig {
  return { disks, listen, tlsMode: 'off', maxConnections: 8, reactor: 'auto' };
}

async function start(t: TestContext, what: ServerConfig): Promise<Server> {
  const server = await startServer(what);
  t.after(() => server.stop());
  return server;
}

async function nbd(t: TestContext, server: Server): Promise<NbdClient> {
  const { reactor } = await openReactor('portable');
  const client = await connectNbd(reactor, server.uris[0] as string);
  t.after(async () => {
    await client.close();
    await reactor.close();
  });
  return client;
}

function image(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-cut-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'disk.img');
  writeFileSync(path, '');
  truncateSync(path, 8 * MiB);
  return path;
}

/** An initiator that has logged in, and what resolves when its connection ends. */
async function initiator(t: TestContext, server: Server): Promise<[IscsiInitiator, Promise<void>]> {
  const address = server.served[0]?.address;
  assert.ok(address?.kind === 'tcp');
  const socket = connect(address.port, address.host);
  t.after(() => socket.destroy());
  const made = new IscsiInitiator(
    { send: (bytes) => void socket.write(bytes) },
    { targetName: NAME },
  );
  socket.on('data', (bytes) => made.receive(new Uint8Array(bytes)));
  socket.on('error', () => socket.destroy());
  const ended = new Promise<void>((resolve) => {
    socket.on('close', () => resolve());
  });
  assert.equal(await new Promise<number>((resolve) => made.login(resolve)), 0);
  return [made, ended];
}

function data(tag: number): Uint8Array {
  return new Uint8Array(512).fill(tag);
}

async function outcome(what: Promise<unknown>): Promise<string> {
  return what.then(
    () => 'done',
    () => 'failed',
  );
}

test(
  'iSCSI: a cut ends the session without an answer; what was synchronized is there',
  LIMIT,
  async (t) => {
    const luns = [{ lun: 0, exportName: '' }];
    const portal = {
      protocol: 'iscsi',
      address: LOOPBACK,
      target: { name: NAME, alias: '', luns },
    } as const;
    const server = await start(t, config([disk('memory:8M')], [portal]));
    const [first, ended] = await initiator(t, server);
    // The first command of a nexus gets the unit attention.
    await first.run({ cdb: synchronizeCache() });
    assert.equal((await first.run({ cdb: write16(0, 1), write: data(1) })).status, 0);
    assert.equal((await first.run({ cdb: synchronizeCache() })).status, 0);
    for (let i = 0; i < 8; i += 1) {
      assert.equal((await first.run({ cdb: write16(i, 1), write: data(2) })).status, 0);
    }
    const report = await server.cutPower('', NOW);
    assert.deepEqual([report.writes, report.units], [8, 8]);
    await ended;
    const [second] = await initiator(t, server);
    await second.run({ cdb: synchronizeCache() });
    for (let i = 0; i < 8; i += 1) {
      const { data: found } = await second.run({ cdb: read16(i, 1), read: 512 });
      const lost = i === 0 ? 1 : 0;
      assert.equal(found[0], i < report.kept ? 2 : lost, `block ${i}`);
    }
  },
);

test('while the power is off clients wait, and another cut is refused', LIMIT, async (t) => {
  const server = await start(t, config([disk('memory:8M')], [NBD]));
  const client = await nbd(t, server);
  await write(client, 0, new Uint8Array(512).fill(1));
  await server.cutPower('', { ...NOW, offForMs: 400 });
  await assert.rejects(flush(client));
  await assert.rejects(server.cutPower('', NOW), /is off already/);
  const waiting = nbd(t, server);
  assert.equal(await Promise.race([outcome(waiting), sleep(100, 'waits')]), 'waits');
  await write(await waiting, 0, new Uint8Array(512).fill(2));
});

test('a server stops while the power is off', LIMIT, async (t) => {
  const server = await start(t, config([disk('memory:8M')], [NBD]));
  await server.cutPower('', { ...NOW, offForMs: 3_600_000 });
  // It waits, and is let go with the others, whichever comes first.
  const waiting = outcome(nbd(t, server));
  await sleep(50);
  await server.stop();
  assert.match(await waiting, /done|failed/);
  await assert.rejects(server.cutPower('', NOW));
});

test('disks that cannot be cut say why', LIMIT, async (t) => {
  const plain = { volatileCacheBytes: undefined } as unknown as Partial<DiskConfig>;
  const readOnly = disk('memory:8M', { exportName: 'ro', readOnly: true });
  const server = await start(t, config([disk('memory:8M', plain), readOnly], [NBD]));
  await assert.rejects(server.cutPower('', NOW), /has no volatile cache to lose/);
  await assert.rejects(server.cutPower('ro', NOW), /has no volatile cache to lose/);
  await assert.rejects(server.cutPower('other', NOW), /no export is named 'other'/);
  const path = image(t);
  const twice = [disk(path), disk(path, { exportName: 'b', ...plain })];
  await assert.rejects(startServer(config(twice, [NBD])), /is the same disk as .* volatile cache/);
  const tiny = disk('memory:8M', { volatileCacheBytes: 65_536 });
  await assert.rejects(startServer(config([tiny], [NBD])), /cannot have 65536 bytes/);
});

test(
  'a sync that was made to fail is on record, and comes back after a restart',
  LIMIT,
  async (t) => {
    const path = image(t);
    const server = await start(t, config([disk(path)], [NBD]));
    const client = await nbd(t, server);
    await write(client, 0, new Uint8Array(512).fill(1));
    await server.failFlush('', { when: 'once', data: 'keep' });
    await assert.rejects(flush(client), { code: 'EIO' });
    await server.stop();
    const again = await start(t, config([disk(path)], [NBD]));
    const other = await nbd(t, again);
    await assert.rejects(write(other, 0, new Uint8Array(512)), { code: 'EIO' });
    // A cut of a poisoned disk is no cure.
    await again.cutPower('', NOW);
    const third = await nbd(t, again);
    await assert.rejects(flush(third), { code: 'EIO' });
    await again.resume('');
    // A client that has seen the failure goes on failing, so this is another one.
    const fourth = await nbd(t, again);
    await write(fourth, 0, new Uint8Array(512).fill(2));
    await flush(fourth);
    assert.equal((await read(fourth, 0, 512))[0], 2);
  },
);

test('a disk that is stopped after a failed sync is not cut', LIMIT, async (t) => {
  const server = await start(t, config([disk(image(t), { onSyncError: 'stop' })], [NBD]));
  const client = await nbd(t, server);
  await write(client, 0, new Uint8Array(512).fill(1));
  await server.failFlush('', { when: 'once', data: 'keep' });
  const flushed = flush(client);
  assert.equal(await Promise.race([outcome(flushed), sleep(100, 'waits')]), 'waits');
  await assert.rejects(server.cutPower('', NOW), /held back after a failed sync/);
  await server.resume('');
  await flushed;
});
