import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { flush, read, write } from '../block/await.ts';
import { ConfigError } from '../base/errors.ts';
import { connectNbd } from '../protocols/nbd/client.ts';
import {
  inquiry,
  read16,
  synchronizeCache,
  testUnitReady,
  write16,
} from '../protocols/iscsi/initiator/cdbs.ts';
import {
  IscsiInitiator,
  type CommandOptions,
  type CommandResult,
  type InitiatorOptions,
} from '../protocols/iscsi/initiator/initiator.ts';
import { openReactor } from '../reactor/open.ts';
import type { DiskConfig, IscsiListen, IscsiTargetConfig, ServerConfig } from './config.ts';
import { identityOf, serialsOf } from './faces/iscsi-identity.ts';
import { type Server, startServer } from './server.ts';

const LIMIT = { timeout: 30_000 };
const REACTORS = ['io_uring', 'portable'] as const;
const NAME = 'iqn.2026-11.org.example:a';
const LOOPBACK = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;

/** [SPC-4 4.5.3] fixed format sense data: sense key and additional sense code. */
const UNIT_ATTENTION = 0x06;
const MODE_PARAMETERS_CHANGED = 0x2a01;
const AUTHENTICATION_FAILURE = 0x0201;
const AUTHORIZATION_FAILURE = 0x0202;
const NOT_FOUND = 0x0203;

function disk(exportName: string, path = 'memory:64M'): DiskConfig {
  return {
    disk: path,
    exportName,
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
  };
}

function portal(more: Partial<IscsiTargetConfig> = {}): IscsiListen {
  const luns = [{ lun: 0, exportName: '' }];
  return {
    protocol: 'iscsi',
    address: LOOPBACK,
    target: { name: NAME, alias: 'a disk', luns, ...more },
  };
}

function config(
  listen: ServerConfig['listen'],
  reactor: ServerConfig['reactor'] = 'auto',
  disks = [disk('')],
): ServerConfig {
  return { disks, listen, tlsMode: 'off', maxConnections: 8, reactor };
}

async function start(
  t: TestContext,
  what: ServerConfig,
): Promise<{ server: Server; lines: string[] }> {
  const lines: string[] = [];
  const server = await startServer(what, (_level, line) => lines.push(line));
  t.after(async () => {
    // A session that is there is asked to log out first, and given time for it.
    for (const client of clients) client.end();
    await server.stop();
  });
  return { server, lines };
}

/** Those of the running test. */
const clients = new Set<Client>();

/** An initiator on a socket. */
class Client {
  readonly initiator: IscsiInitiator;
  readonly ended: Promise<void>;
  readonly end: () => void;

  constructor(server: Server, place: number, options: InitiatorOptions) {
    const address = server.served[place]?.address;
    assert.ok(address?.kind === 'tcp');
    const host = { '0.0.0.0': '127.0.0.1', '::': '::1' }[address.host] ?? address.host;
    const socket = connect(address.port, host);
    this.initiator = new IscsiInitiator({ send: (bytes) => void socket.write(bytes) }, options);
    socket.on('data', (bytes) => this.initiator.receive(new Uint8Array(bytes)));
    socket.on('error', () => socket.destroy());
    this.ended = new Promise((resolve) => {
      socket.on('close', () => resolve());
    });
    this.end = () => socket.destroy();
  }

  run(options: CommandOptions): Promise<CommandResult> {
    return this.initiator.run(options);
  }
}

/** Status class and detail of a login. */
async function tryLogin(
  t: TestContext,
  server: Server,
  options: Partial<InitiatorOptions> = {},
  place = 0,
): Promise<[Client, number]> {
  const client = new Client(server, place, { targetName: NAME, ...options });
  clients.add(client);
  t.after(() => clients.delete(client));
  const status = await new Promise<number>((resolve) => client.initiator.login(resolve));
  return [client, status];
}

/** A session in which the unit attention that every new one gets has been heard. */
async function login(
  t: TestContext,
  server: Server,
  options: Partial<InitiatorOptions> = {},
): Promise<Client> {
  const [client, status] = await tryLogin(t, server, options);
  assert.equal(status, 0);
  assert.equal((await client.run({ cdb: testUnitReady() })).status, 2);
  return client;
}

async function senseOf(client: Client, cdb: Uint8Array): Promise<[number, number] | null> {
  const { status, sense } = await client.run({ cdb });
  if (status === 0) return null;
  return [(sense[2] as number) & 0x0f, ((sense[12] as number) << 8) | (sense[13] as number)];
}

/** MODE SENSE (10) of the Caching page, current values: WCE. */
async function writeCache(client: Client): Promise<boolean> {
  const cdb = Uint8Array.from([0x5a, 8, 8, 0, 0, 0, 0, 0, 64, 0]);
  const { status, data } = await client.run({ cdb, read: 64 });
  assert.equal(status, 0);
  return ((data[8 + 2] as number) & 4) !== 0;
}

/** MODE SELECT (10) of the same. */
async function setWriteCache(client: Client, enabled: boolean): Promise<number> {
  const list = new Uint8Array(8 + 20);
  list.set([8, 0x12, enabled ? 4 : 0], 8);
  const cdb = Uint8Array.from([0x55, 0x10, 0, 0, 0, 0, 0, 0, list.length, 0]);
  return (await client.run({ cdb, write: list })).status;
}

/** PERSISTENT RESERVE OUT; RESERVE is for Write Exclusive. */
function reserveOut(action: number, list: Uint8Array): CommandOptions {
  const type = action === 1 ? 0x01 : 0;
  const cdb = Uint8Array.from([0x5f, action, type, 0, 0, 0, 0, 0, list.length, 0]);
  return { cdb, write: list };
}

/** A target whose LUN 0 is this disk, by this serial number. */
function lun(exportName: string, serial: string): IscsiListen {
  return portal({ luns: [{ lun: 0, exportName, serial }] });
}

async function discover(t: TestContext, server: Server, place = 0): Promise<string[]> {
  const [client, status] = await tryLogin(t, server, { targetName: null }, place);
  assert.equal(status, 0);
  return new Promise((resolve) => {
    client.initiator.text('SendTargets=All\0', ({ data }) => {
      resolve(
        new TextDecoder()
          .decode(data)
          .split('\0')
          .filter((pair) => pair !== ''),
      );
    });
  });
}

for (const reactor of REACTORS) {
  test(
    `${reactor}: what is written over iSCSI is read over NBD, and the other way`,
    LIMIT,
    async (t) => {
      const nbd = { protocol: 'nbd', address: LOOPBACK } as const;
      const { server } = await start(t, config([portal(), nbd], reactor));
      assert.match(server.served[0]?.names[0] ?? '', /^iscsi:\/\/127\.0\.0\.1:\d+\/iqn.*:a\/0$/);
      const client = await login(t, server);
      const { reactor: own } = await openReactor('portable');
      const other = await connectNbd(own, server.uris[0] as string);
      const bytes = new Uint8Array(1024 * 512).map((_, i) => (i * 7) >> 3);
      const written = await client.run({ cdb: write16(5, 1024), write: bytes });
      assert.equal(written.status, 0);
      assert.deepEqual(await read(other, 5 * 512, bytes.length), bytes);
      await write(other, 0, new Uint8Array(512).fill(9));
      await flush(other);
      const got = await client.run({ cdb: read16(0, 6), read: 6 * 512 });
      assert.deepEqual([got.status, got.data[0], got.data[5 * 512 + 8]], [0, 9, bytes[8]]);
      assert.equal((await client.run({ cdb: synchronizeCache() })).status, 0);
      assert.equal((await server.counters())[0]?.failed, 0);
      await other.close();
      await own.close();
    },
  );

  test(
    `${reactor}: one write cache behind all faces, and initiators hear of its switch`,
    LIMIT,
    async (t) => {
      const nbd = { protocol: 'nbd', address: LOOPBACK } as const;
      const { server } = await start(t, config([portal(), nbd], reactor));
      const [first, second] = [
        await login(t, server),
        await login(t, server, { isid: Uint8Array.of(0, 2, 0x3d, 0, 0, 2) }),
      ];
      assert.equal(await writeCache(first), true);
      assert.equal(await setWriteCache(first, false), 0);
      assert.equal(await senseOf(first, testUnitReady()), null, 'it knows what it has done');
      assert.deepEqual(await senseOf(second, testUnitReady()), [
        UNIT_ATTENTION,
        MODE_PARAMETERS_CHANGED,
      ]);
      assert.equal(await writeCache(second), false);
      const { reactor: own } = await openReactor('portable');
      const strict = await connectNbd(own, server.uris[0] as string);
      assert.equal(strict.info.writeCache, false, 'NBD clients see no cache to flush');
      await strict.close();
      assert.equal(await setWriteCache(second, true), 0);
      assert.deepEqual(await senseOf(first, testUnitReady()), [
        UNIT_ATTENTION,
        MODE_PARAMETERS_CHANGED,
      ]);
      const cached = await connectNbd(own, server.uris[0] as string);
      assert.equal(cached.info.writeCache, true);
      await cached.close();
      await own.close();
    },
  );

  test(
    `${reactor}: stop ends sessions, idle and silent ones alike, in bounded time`,
    LIMIT,
    async (t) => {
      const { server } = await start(t, config([portal()], reactor));
      const both = [
        await login(t, server),
        await login(t, server, { isid: Uint8Array.of(0, 2, 0x3d, 0, 0, 2), mute: true }),
      ];
      const [half] = reactor === 'io_uring' ? both : [];
      // A write whose data never comes.
      half?.initiator.command(
        {
          cdb: write16(0, 256),
          write: new Uint8Array(256 * 512),
          immediateBytes: 0,
          unsolicitedBytes: 0,
          silent: true,
        },
        () => assert.fail('it has no end'),
      );
      const sinceMs = performance.now();
      await server.stop();
      assert.ok(performance.now() - sinceMs < 15_000);
      await Promise.all(both.map(({ ended }) => ended));
    },
  );
}

test(
  'discovery: at each portal the targets that are there, with all portals of theirs',
  LIMIT,
  async (t) => {
    const other = {
      name: 'iqn.2026-11.org.example:b',
      alias: '',
      luns: [{ lun: 3, exportName: 'b' }],
    };
    const here = portal({
      luns: [
        { lun: 0, exportName: 'a' },
        { lun: 1, exportName: 'b' },
      ],
    });
    const there: IscsiListen = { ...here, target: other };
    const { server } = await start(
      t,
      config([here, { ...here }, there], 'auto', [disk('a'), disk('b')]),
    );
    const ports = server.served.map(({ address }) => (address.kind === 'tcp' ? address.port : 0));
    const at = (place: number): string => `TargetAddress=127.0.0.1:${ports[place]},1`;
    assert.deepEqual(await discover(t, server, 0), [`TargetName=${NAME}`, at(0), at(1)]);
    assert.deepEqual(await discover(t, server, 1), [`TargetName=${NAME}`, at(0), at(1)]);
    assert.deepEqual(await discover(t, server, 2), [`TargetName=${other.name}`, at(2)]);
    const [, refused] = await tryLogin(t, server, { targetName: NAME }, 2);
    assert.equal(refused, NOT_FOUND, 'a target is reached at its own portals only');
  },
);

for (const reactor of REACTORS) {
  for (const host of ['0.0.0.0', '::']) {
    test(
      `${reactor}: discovery at ${host}: the address by which one has come`,
      LIMIT,
      async (t) => {
        const where: IscsiListen = { ...portal(), address: { ...LOOPBACK, host } };
        const { server } = await start(t, config([where], reactor));
        const address = server.served[0]?.address;
        const port = address?.kind === 'tcp' ? address.port : 0;
        const found = await discover(t, server);
        const own =
          host === '::'
            ? /^TargetAddress=\[(::|(0:){7})1\]:\d+,1$/
            : /^TargetAddress=127\.0\.0\.1:/;
        assert.match(found[1] ?? '', own);
        assert.ok(found[1]?.includes(`:${port},1`));
      },
    );
  }
}

/** The relative target port identifier, of the Device Identification page. */
async function relativePort(initiator: Client, lun: number): Promise<number> {
  const cdb = Uint8Array.from([0x12, 1, 0x83, 0, 252, 0]);
  const { data } = await initiator.run({ lun, cdb, read: 252 });
  for (let at = 4; at < data.length; at += 4 + (data[at + 3] as number)) {
    if (((data[at + 1] as number) & 0x3f) === 0x14) return data[at + 7] as number;
  }
  return assert.fail('no relative target port identifier');
}

test('targets may share an address, and a disk be in both', LIMIT, async (t) => {
  // A port that was free a moment ago.
  const { server: probe } = await start(t, config([portal()]));
  const address = probe.served[0]?.address;
  assert.ok(address?.kind === 'tcp');
  await probe.stop();
  const b = 'iqn.2026-11.org.example:b';
  const { server } = await start(
    t,
    config([
      { ...portal(), address },
      { ...portal({ name: b, luns: [{ lun: 2, exportName: '' }] }), address },
    ]),
  );
  assert.deepEqual(
    (await discover(t, server)).filter((pair) => pair.startsWith('TargetName')),
    [`TargetName=${NAME}`, `TargetName=${b}`],
  );
  const identification = Uint8Array.from([0x12, 1, 0x80, 0, 252, 0]);
  const first = await login(t, server);
  const one = await first.run({ cdb: identification, read: 252 });
  const [second] = await tryLogin(t, server, { targetName: b });
  const same = await second.run({ lun: 2, cdb: identification, read: 252 });
  assert.deepEqual(same.data, one.data, 'one disk has one serial number');
  assert.equal(await relativePort(first, 0), 1);
  assert.equal(
    await relativePort(second, 2),
    2,
    'a port of its own: so registrations are told apart',
  );
  const absent = await second.run({ lun: 0, cdb: inquiry(36), read: 36 });
  assert.equal(absent.data[0], 0x7f, 'there is no LUN 0');
});

test('who may not log in is told so, and the log says it once for each', LIMIT, async (t) => {
  const secret = new TextEncoder().encode('correct horse');
  const chap = { user: 'bob', secret };
  const guarded = portal({ chap, initiators: ['iqn.2026-11.test:initiator'] });
  const { server, lines } = await start(t, config([guarded]));
  const [, refused] = await tryLogin(t, server);
  assert.equal(refused, AUTHENTICATION_FAILURE, 'without CHAP');
  const stranger = 'iqn.2026-11.test:stranger';
  const [, forbidden] = await tryLogin(t, server, { initiatorName: stranger });
  assert.ok([AUTHENTICATION_FAILURE, AUTHORIZATION_FAILURE].includes(forbidden));
  const [, unknown] = await tryLogin(t, server, { targetName: 'iqn.2026-11.test:no' });
  assert.equal(unknown, NOT_FOUND);
  await server.stop();
  assert.equal(lines.filter((line) => /refused/.test(line)).length, 3, lines.join('\n'));
  assert.doesNotMatch(lines.join('\n'), /correct horse/);
});

test('a flood of refused logins is cut in the log', LIMIT, async (t) => {
  const { server, lines } = await start(t, config([portal()]));
  const sinceMs = performance.now();
  for (let i = 0; i < 80; i += 1) {
    const [client, status] = await tryLogin(t, server, { targetName: 'iqn.2026-11.test:no' });
    assert.equal(status, NOT_FOUND);
    client.end();
    await client.ended;
  }
  await server.stop();
  // 50 at once and ten a second.
  const most = 51 + (performance.now() - sinceMs) / 100;
  const told = lines.filter((line) => /refused/.test(line)).length;
  assert.ok(told >= 50 && told <= most, `${told} of ${most}`);
});

test('further connections than allowed are closed at once', LIMIT, async (t) => {
  const { server } = await start(t, { ...config([portal()]), maxConnections: 1 });
  await login(t, server);
  const second = new Client(server, 0, { targetName: NAME });
  clients.add(second);
  await second.ended;
});

test('reservations with APTPL are beside the image, and hold after a restart', LIMIT, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-iscsi-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const image = join(folder, 'a.img');
  writeFileSync(image, new Uint8Array(2 ** 20));
  const what = config([portal()], 'auto', [disk('', image)]);
  const { server } = await start(t, what);
  const holder = await login(t, server);
  const register = new Uint8Array(24);
  register[15] = 7; // SERVICE ACTION RESERVATION KEY
  register[20] = 1; // APTPL
  assert.equal((await holder.run(reserveOut(0, register))).status, 0);
  const reserve = new Uint8Array(24);
  reserve[7] = 7; // RESERVATION KEY
  assert.equal((await holder.run(reserveOut(1, reserve))).status, 0);
  holder.end();
  await server.stop();
  assert.ok(existsSync(`${image}.holdfast-pr`));
  const { server: again } = await start(t, what);
  const other = await login(t, again, { isid: Uint8Array.of(0, 2, 0x3d, 0, 0, 2) });
  const options = { cdb: write16(0, 1), write: new Uint8Array(512) };
  assert.equal((await other.run(options)).status, 0x18, 'RESERVATION CONFLICT');
  const back = await login(t, again);
  assert.equal((await back.run(options)).status, 0);
});

test('identities: the same on each start, different for different disks, unless a serial is given', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-iscsi-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [a, b] = ['a', 'b'].map((name) => join(folder, name));
  for (const path of [a, b]) writeFileSync(path ?? '', '');
  const of = (path: string | undefined, serial?: string): string => {
    const { naa, serial: shown } = identityOf(disk('', path), serial);
    assert.equal(naa.length, 8);
    assert.equal((naa[0] as number) >> 4, 3, 'NAA 3h: locally assigned');
    return `${Buffer.from(naa).toString('hex')} ${shown}`;
  };
  assert.equal(of(a), of(a));
  assert.notEqual(of(a), of(b));
  assert.equal(of(a, 'S'), of(b, 'S'), 'a serial number moves with the disk');
  assert.notEqual(of('memory:1M'), of('memory:1M'), 'a new disk on each start');
  assert.match(of(a, 'S-1'), / S-1$/);
  assert.match(of(a), / [0-9a-f]{16}$/);
  assert.equal(identityOf(disk('', a), undefined).reservationsPath, `${a}.holdfast-pr`);
  assert.equal(identityOf(disk('', 'memory:1M'), undefined).reservationsPath, null);
});

test('one serial number for one disk', () => {
  assert.deepEqual(
    [...serialsOf([lun('a', 'S'), lun('a', 'S'), lun('b', 'T')])],
    [
      ['a', 'S'],
      ['b', 'T'],
    ],
  );
  assert.throws(() => serialsOf([lun('a', 'S'), lun('a', 'T')]), ConfigError);
  assert.throws(() => serialsOf([lun('a', 'S'), lun('b', 'S')]), /two disks/);
});

test('a disk that is not there', LIMIT, async () => {
  await assert.rejects(
    startServer(config([portal({ luns: [{ lun: 0, exportName: 'x' }] })])),
    (error) => error instanceof ConfigError && /no disk is named 'x'/.test(error.message),
  );
});
