import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConfigError } from '../base/errors.ts';
import { flush, read, write } from '../block/await.ts';
import { connectNbd } from '../protocols/nbd/client.ts';
import { connectVhostUserBlk } from '../protocols/vhost-user/blk-client.ts';
import { openReactor } from '../reactor/open.ts';
import type { Reactor } from '../reactor/reactor.ts';
import type { DiskConfig, ServerConfig, VhostUserBlkListen } from './config.ts';
import { serialOf } from './faces/vhost-user-blk.ts';
import { type Server, startServer } from './server.ts';

const LIMIT = { timeout: 30_000 };

function disk(exportName: string): DiskConfig {
  return {
    disk: 'memory:64M',
    exportName,
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
  };
}

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-vhost-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function device(path: string, more: Partial<VhostUserBlkListen> = {}): VhostUserBlkListen {
  return { protocol: 'vhost-user-blk', address: { kind: 'unix', path }, exportName: '', ...more };
}

function config(listen: ServerConfig['listen'], disks = [disk('')]): ServerConfig {
  return { disks, listen, tlsMode: 'off', maxConnections: 8, reactor: 'io_uring' };
}

/** The server's lines are in `lines`; it is stopped after the test if it is not yet. */
async function start(
  t: TestContext,
  what: ServerConfig,
): Promise<{ server: Server; lines: string[] }> {
  const lines: string[] = [];
  const server = await startServer(what, (_level, line) => lines.push(line));
  t.after(() => server.stop());
  return { server, lines };
}

async function openRing(t: TestContext): Promise<Reactor> {
  const { reactor } = await openReactor('io_uring');
  t.after(() => reactor.close());
  return reactor;
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !holds(); i += 1) await sleep(10);
  assert.ok(holds(), what);
}

/** GET_FEATURES, as a front-end asks it first; and how long its answer is [vhost-user "Header"]. */
const GET_FEATURES = Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);
const ANSWER_BYTES = 20;

/** Whether the back-end at the other end answers; null: it closed the connection. */
function answers(socket: Socket): Promise<number | null> {
  return new Promise((resolve) => {
    socket.once('data', (bytes) => resolve(bytes.length));
    socket.once('close', () => resolve(null));
    socket.once('error', () => resolve(null));
    socket.write(GET_FEATURES);
  });
}

void test('a disk over vhost-user and NBD at once: one Disk behind both', LIMIT, async (t) => {
  const directory = scratch(t);
  const path = join(directory, 'vm.sock');
  const nbd = { kind: 'unix', path: join(directory, 'nbd.sock') } as const;
  const { server } = await start(t, config([device(path), { protocol: 'nbd', address: nbd }]));
  assert.deepEqual(
    server.served.map(({ protocol, names }) => [protocol, names.length]),
    [
      ['vhost-user-blk', 1],
      ['nbd', 1],
    ],
  );
  assert.deepEqual(server.served[0]?.names, [`vhost-user-blk:${path}`]);
  assert.deepEqual(server.addresses, [nbd]);
  const reactor = await openRing(t);
  const uri = server.uris[0] as string;
  const guest = await connectVhostUserBlk(reactor, path);
  const client = await connectNbd(reactor, uri);
  assert.equal(guest.info.sizeBytes, 64 * 2 ** 20);
  await write(guest, 4096, new Uint8Array(8192).fill(7));
  assert.deepEqual(await read(client, 4096, 512), new Uint8Array(512).fill(7));
  await write(client, 8192, new Uint8Array(512).fill(9));
  assert.deepEqual((await read(guest, 8192, 1024)).subarray(511, 513), Uint8Array.of(9, 7));
  await flush(guest);
  const [counters] = await server.counters();
  assert.deepEqual([counters?.writes, counters?.flushesAsked], [2, 1]);

  assert.equal(client.info.writeCache, true);
  assert.equal(await guest.getWriteback(), true);
  await guest.setWriteback(false);
  const later = await connectNbd(reactor, uri);
  assert.equal(later.info.writeCache, false, 'the switch is the disk’s');
  await guest.setWriteback(true);
  const last = await connectNbd(reactor, uri);
  assert.equal(last.info.writeCache, true);
  for (const each of [client, later, last]) await each.close();
  await guest.close();
});

void test(
  'stop with a front-end connected: it ends soon, and the socket is gone',
  LIMIT,
  async (t) => {
    const path = join(scratch(t), 'vm.sock');
    const { server } = await start(t, config([device(path)]));
    const reactor = await openRing(t);
    const guest = await connectVhostUserBlk(reactor, path);
    await write(guest, 0, new Uint8Array(4096).fill(1));
    const startMs = performance.now();
    await server.stop();
    assert.ok(performance.now() - startMs < 4000, 'it does not wait for its limit');
    assert.equal((await server.counters())[0]?.writes, 1);
    assert.equal(existsSync(path), false);
    await assert.rejects(read(guest, 0, 512));
    await guest.close();
  },
);

void test(
  'one front-end at a time: a second is refused, and the next may come',
  LIMIT,
  async (t) => {
    const path = join(scratch(t), 'vm.sock');
    const { lines } = await start(t, config([device(path)]));
    const first = connect(path);
    t.after(() => first.destroy());
    assert.equal(await answers(first), ANSWER_BYTES);
    // It is given a moment, in which the first may turn out to be gone; a third is not.
    const second = answers(connect(path));
    await sleep(50);
    assert.equal(await answers(connect(path)), null);
    assert.equal(await second, null);
    assert.equal(lines.filter((line) => /refused: another front-end/.test(line)).length, 2);
    assert.equal(await answers(first), ANSWER_BYTES, 'the first is served on');

    const successor = connect(path);
    t.after(() => successor.destroy());
    const answered = answers(successor);
    await sleep(20);
    first.destroy();
    assert.equal(await answered, ANSWER_BYTES, 'it came before its predecessor went');
  },
);

void test(
  'connect=on: waits for a front-end, and connects again when it has gone',
  LIMIT,
  async (t) => {
    const path = join(scratch(t), 'vm.sock');
    const { server, lines } = await start(t, config([device(path, { connect: true })]));
    await until('the operator is told', () =>
      lines.some((line) => /waits for a front-end/.test(line)),
    );
    for (let round = 0; round < 2; round += 1) {
      const listener = createServer().listen(path);
      const socket = await new Promise<Socket>((resolve) => listener.once('connection', resolve));
      assert.equal(await answers(socket), ANSWER_BYTES);
      socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    }
    assert.ok(
      lines.filter((line) => /waits for a front-end/.test(line)).length <= 3,
      lines.join('\n'),
    );
    await server.stop();
  },
);

void test('every disk has its own devices; what cannot be is refused', LIMIT, async (t) => {
  const directory = scratch(t);
  const [one, two] = [join(directory, 'one'), join(directory, 'two')];
  const disks = [disk('a'), disk('b')];
  const places = [device(one, { exportName: 'a' }), device(two, { exportName: 'b', queues: 2 })];
  const { server } = await start(t, config(places, disks));
  const reactor = await openRing(t);
  const [a, b] = [await connectVhostUserBlk(reactor, one), await connectVhostUserBlk(reactor, two)];
  await write(a, 0, new Uint8Array(512).fill(1));
  assert.equal((await read(b, 0, 512))[0], 0);
  await a.close();
  await b.close();
  const wrong: readonly [Partial<VhostUserBlkListen>, RegExp][] = [
    [{ exportName: 'c' }, /no disk is named 'c'/],
    [{ exportName: 'a', queues: 257 }, /cannot have 257 queues/],
    [{ exportName: 'a', serial: 'x'.repeat(21) }, /cannot be a serial number/],
    [{ exportName: 'a', address: { kind: 'unix', path: one } }, /in use/],
  ];
  for (const [more, why] of wrong) {
    const refused = startServer(config([device(join(directory, 'x'), more)], disks));
    await assert.rejects(
      refused,
      (error) => error instanceof ConfigError && why.test(error.message),
    );
  }
  await assert.rejects(startServer({ ...config(places, disks), reactor: 'portable' }), {
    name: 'ConfigError',
    message: /needs io_uring/,
  });
  assert.equal(server.served.length, 2);
});

function serialFor(exportName: string, path = '/images/root-disk.img'): string {
  return serialOf({ ...disk(exportName), disk: path });
}

void test('serial numbers: readable, and different where names only begin alike', () => {
  assert.equal(serialFor(''), 'root-disk');
  assert.equal(serialFor('data'), 'data');
  assert.equal(serialFor('', 'memory:1M'), 'memory');
  const [one, two] = [serialFor(`${'x'.repeat(30)}1`), serialFor(`${'x'.repeat(30)}2`)];
  assert.notEqual(one, two);
  for (const serial of [one, two, serialFor('vm/disk 1'), serialFor('é')])
    assert.match(serial, /^[\w.-]{1,20}$/);
  assert.notEqual(serialFor('a b'), serialFor('a/b'));
});
