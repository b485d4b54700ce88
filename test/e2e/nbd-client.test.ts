import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, describe } from 'node:test';
import { ConfigError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { extents, flush, read, write, writeZeroes } from '../../src/block/await.ts';
import { conformance } from '../../src/block/conformance.ts';
import { FLAG } from '../../src/block/io.ts';
import {
  type ConnectOptions,
  connectNbd,
  listNbdExports,
  type NbdClient,
} from '../../src/protocols/nbd/client.ts';
import { openReactor } from '../../src/reactor/open.ts';
import type { Reactor } from '../../src/reactor/reactor.ts';
import { bridgeTls } from '../../src/reactor/tls-bridge.ts';
import { until } from './support/command.ts';
import { requires, tool } from './support/requires.ts';

// Our client with real servers: every kind of handshake and reply that they have, on both reactors.

const folder = mkdtempSync(join(tmpdir(), 'hf-client-'));
const image = join(folder, 'disk.img');
const holdfast = process.env['HOLDFAST_MAIN'] ?? join(import.meta.dirname, '../../src/cli/main.ts');
writeFileSync(image, '');
truncateSync(image, 16 * MiB);
writeFileSync(join(folder, 'keys.psk'), 'alice:0123456789abcdef0123456789abcdef\n');

const running = new Map<string, Promise<string>>();
let sockets = 0;
const children: ChildProcess[] = [];
const reactors: Reactor[] = [];

after(async () => {
  for (const reactor of reactors) await reactor.close();
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = new Promise((resolve) => {
      child.once('exit', resolve);
    });
    child.kill('SIGKILL');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Starts a server once and returns its socket. */
function serve(name: string, command: readonly string[]): Promise<string> {
  const known = running.get(name);
  if (known !== undefined) return known;
  const socket = join(folder, `${(sockets += 1)}.sock`);
  const start = async (): Promise<string> => {
    const [program = '', ...words] = command.map((word) => word.replace('{socket}', socket));
    const path = program === 'node' ? process.execPath : tool(program);
    const child = spawn(path, words, { stdio: ['ignore', 'ignore', 'inherit'] });
    children.push(child);
    await until(`${name} to listen`, 20_000, () => accepts(socket));
    return socket;
  };
  const started = start();
  running.set(name, started);
  return started;
}

function accepts(socket: string): Promise<true | null> {
  return new Promise((resolve) => {
    const probe = net.connect(socket);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(null));
  });
}

interface Peer {
  readonly needs: readonly string[];
  readonly command: readonly string[];
  readonly options?: ConnectOptions;
  readonly expect: {
    readonly structured: boolean;
    readonly extended?: boolean;
    readonly entered: 'go' | 'exportName';
  };
}

const NBDKIT = ['nbdkit', '-f', '-U', '{socket}', '-e', 'disk'];
const OURS = ['node', holdfast, 'serve', 'memory:16M', '--export', 'disk', '-U', '{socket}'];

const PEERS: Readonly<Record<string, Peer>> = {
  'qemu-nbd': {
    needs: ['qemu-nbd'],
    command: ['qemu-nbd', '-k', '{socket}', '-f', 'raw', '-x', 'disk', '-t', '-e', '50', image],
    expect: { structured: true, entered: 'go' },
  },
  nbdkit: {
    needs: ['nbdkit'],
    command: [...NBDKIT, 'memory', '16M'],
    expect: { structured: true, entered: 'go' },
  },
  'nbdkit with simple replies': {
    needs: ['nbdkit'],
    command: [...NBDKIT, '--no-sr', 'memory', '16M'],
    expect: { structured: false, entered: 'go' },
  },
  'nbdkit without fixed newstyle': {
    needs: ['nbdkit'],
    command: [...NBDKIT, '--mask-handshake=0', 'memory', '16M'],
    expect: { structured: false, entered: 'exportName' },
  },
  'holdfast with extended headers': {
    needs: [],
    command: OURS,
    expect: { structured: false, extended: true, entered: 'go' },
  },
  'holdfast with structured replies': {
    needs: [],
    command: OURS,
    options: { extendedHeaders: false },
    expect: { structured: true, entered: 'go' },
  },
  'holdfast with simple replies': {
    needs: [],
    command: OURS,
    options: { extendedHeaders: false, structuredReplies: false },
    expect: { structured: false, entered: 'go' },
  },
  'holdfast by EXPORT_NAME': {
    needs: [],
    command: OURS,
    options: { enter: 'exportName' },
    expect: { structured: true, entered: 'exportName' },
  },
};

async function reactorOf(kind: 'portable' | 'io_uring'): Promise<Reactor | string> {
  try {
    const { reactor } = await openReactor(kind, { bridgeTls, pageLimit: 64 });
    reactors.push(reactor);
    return reactor;
  } catch (error) {
    return String(error);
  }
}

function uriOf(socket: string, exportName = 'disk'): string {
  return `nbd+unix:///${exportName}?socket=${socket}`;
}

function peerTests(reactor: Reactor, name: string, peer: Peer, whole: boolean): void {
  const { skip } = requires(...peer.needs);
  if (skip !== false) {
    test(name, { skip }, () => undefined);
    return;
  }
  const connect = async (): Promise<NbdClient> => {
    // Our own servers are one and the same; what differs is what the client asks for.
    const socket = await serve(peer.command === OURS ? 'holdfast' : name, peer.command);
    return connectNbd(reactor, uriOf(socket), peer.options ?? {});
  };
  if (whole) conformance(name, async () => ({ device: await connect() }), { steps: 60 });

  test(`${name} is entered as expected`, async () => {
    const client = await connect();
    const { structured, extended, entered, sizeBytes } = client.negotiated;
    assert.deepEqual(
      { structured, extended, entered, sizeBytes },
      { extended: false, ...peer.expect, sizeBytes: 16 * MiB },
    );
    assert.equal(client.lost, null);
    await client.close();
  });

  test(`${name}: data, holes and zeroes are where they were put`, async () => {
    const client = await connect();
    const data = new Uint8Array(MiB).map((_, i) => 1 + (i % 251));
    await writeZeroes(client, 0, 16 * MiB);
    await write(client, 2 * MiB, data, FLAG.FUA);
    await flush(client);
    assert.deepEqual(await read(client, 2 * MiB, MiB), data);
    const map = await extents(client, MiB, 4 * MiB);
    let at = MiB;
    for (let i = 0; i < map.count; i += 1) {
      const end = at + (map.lengths[i] as number);
      const holdsData = at < 3 * MiB && end > 2 * MiB;
      if (holdsData) assert.equal((map.flags[i] as number) & 2, 0);
      at = end;
    }
    assert.ok(at > MiB);
    await client.close();
  });
}

/** One line that says what, where and what to do. */
async function refusal(promise: Promise<unknown>): Promise<ConfigError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.ok(!error.message.includes('\n'));
    assert.ok(error.hint.length > 0);
    return error;
  }
  return assert.fail('there was no refusal');
}

function mistakeTests(reactor: Reactor): void {
  test('an export that is not there', requires('nbdkit'), async () => {
    const limited = await serve('nbdkit with a folder', [
      ...NBDKIT.slice(0, 4),
      'file',
      `dir=${folder}`,
    ]);
    const error = await refusal(connectNbd(reactor, uriOf(limited, 'nothing')));
    assert.match(error.message, /nothing\?socket=.*NBD_OPT_GO/);
    const names = (await listNbdExports(reactor, uriOf(limited))).map((each) => each.name);
    assert.ok(names.includes('disk.img') && names.includes('keys.psk'));
  });

  test('nobody listens', async () => {
    const error = await refusal(connectNbd(reactor, uriOf(join(folder, 'nobody'))));
    assert.match(error.message, /cannot connect/);
  });

  test('somebody listens who says nothing, or closes, or speaks something else', async () => {
    for (const [greeting, message] of [
      ['', /no answer within 300 ms/],
      [null, /closed the connection/],
      ['SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n', /not an NBD server: it said 'SSH-2.0/],
    ] as const) {
      const connections: net.Socket[] = [];
      const server = net.createServer((socket) => {
        connections.push(socket);
        if (greeting === null) socket.end();
        else socket.write(greeting);
      });
      const path = join(folder, `${(sockets += 1)}.sock`);
      await new Promise<void>((resolve) => {
        server.listen(path, resolve);
      });
      const error = await refusal(connectNbd(reactor, uriOf(path), { timeoutMs: 300 }));
      assert.match(error.message, message);
      for (const socket of connections) socket.destroy();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    }
  });

  test('a server that dies fails what is pending and what comes', requires('nbdkit'), async () => {
    const socket = await serve('nbdkit to be killed', [
      ...NBDKIT,
      '--filter=delay',
      'memory',
      '1M',
      'rdelay=10',
    ]);
    const child = children.at(-1) as ChildProcess;
    const client = await connectNbd(reactor, uriOf(socket));
    const pending = read(client, 0, 4096);
    const failing = assert.rejects(pending, { code: 'EIO' });
    await write(client, 0, new Uint8Array(512));
    child.kill('SIGKILL');
    await failing;
    await assert.rejects(read(client, 0, 4096), { code: 'EIO' });
    assert.match(client.lost ?? '', /closed|broke/);
    await client.close();
    running.delete('nbdkit to be killed');
  });

  test('TLS with a key shared beforehand', requires('nbdkit'), async () => {
    const keys = join(folder, 'keys.psk');
    const socket = await serve('nbdkit with TLS', [
      ...NBDKIT,
      '--tls=require',
      `--tls-psk=${keys}`,
      'memory',
      '1M',
    ]);
    const error = await refusal(connectNbd(reactor, uriOf(socket)));
    assert.match(error.message, /NBD_REP_ERR_TLS_REQD/);
    assert.match(error.hint, /nbds/);
    const uri = `nbds+unix://alice@/disk?socket=${socket}&tls-type=psk&tls-psk-file=${keys}`;
    const client = await connectNbd(reactor, uri);
    assert.equal(client.negotiated.tls, true);
    const data = new Uint8Array(MiB).map((_, i) => i * 7);
    await write(client, 0, data);
    assert.deepEqual(await read(client, 0, MiB), data);
    assert.equal((await client.list()).length, 1);
    await client.close();
    const wrong = join(folder, 'wrong.psk');
    writeFileSync(wrong, 'alice:ffff456789abcdef0123456789abcdef\n');
    const refused = await refusal(connectNbd(reactor, uri.replace(keys, wrong)));
    assert.match(refused.message, /TLS/);
  });
}

const kinds = [];
for (const kind of ['io_uring', 'portable'] as const) {
  kinds.push({ kind, reactor: await reactorOf(kind) });
}
// The conformance suite takes seconds for each peer: with all of them on one reactor, with two on the other.
const thorough = kinds.find(({ reactor }) => typeof reactor !== 'string')?.kind;
const THOROUGH_EVERYWHERE = ['qemu-nbd', 'holdfast with extended headers'];

for (const { kind, reactor } of kinds) {
  const skip = typeof reactor === 'string' ? reactor : false;
  describe(`NBD client on the ${kind} reactor`, { skip }, () => {
    if (typeof reactor === 'string') return;
    for (const [name, peer] of Object.entries(PEERS)) {
      peerTests(reactor, name, peer, kind === thorough || THOROUGH_EVERYWHERE.includes(name));
    }
    mistakeTests(reactor);
  });
}
