import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import type { SocketAddress } from '../reactor.ts';
import { eventually, type Bench, type End } from './harness.ts';

/** What cannot be listened on or connected to is the operator's to solve, and says what to do. */
async function assertRefused(work: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(work, (error: NodeJS.ErrnoException) => {
    assert.equal(error.code, code);
    assert.ok(error instanceof ConfigError, `not an operator's error: ${error.message}`);
    assert.notEqual(error.hint, '');
    return true;
  });
}

function unix(path: string): SocketAddress {
  return { kind: 'unix', path };
}

export function listenTests(get: () => Bench): void {
  const listen = (address: SocketAddress): Promise<unknown> => get().listen(address, () => {});

  test('port 0 is replaced, and a busy port is EADDRINUSE', async () => {
    const bench = get();
    const listener = await bench.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }, () => {});
    assert.ok(listener.address.kind === 'tcp' && listener.address.port > 0);
    await assertRefused(listen(listener.address), 'EADDRINUSE');
    const { address } = listener;
    await listener.close();
    const again = await bench.listen(address, () => {});
    await again.close();
  });

  test('addresses that are not there', async () => {
    await assertRefused(listen({ kind: 'tcp', host: '203.0.113.1', port: 0 }), 'EADDRNOTAVAIL');
    await assertRefused(listen(unix(join(get().directory, 'none', 's'))), 'ENOENT');
    await assertRefused(listen(unix(join(get().directory, 'x'.repeat(108)))), 'ENAMETOOLONG');
  });

  test('IPv6', async (t) => {
    const bench = get();
    const probe = net.createServer().listen(0, '::1');
    const here = await once(probe, 'listening').then(
      () => true,
      () => false,
    );
    probe.close();
    if (!here) {
      t.skip('this host has no ::1');
      return;
    }
    const listener = await bench.listen({ kind: 'tcp', host: '::1', port: 0 }, () => {});
    const end = await bench.connect(listener.address);
    assert.match(end.stream.peer, /^tcp /);
    await end.close();
    await listener.close();
  });

  test('a Unix socket of a live server is left alone', async (t) => {
    const path = get().path();
    const live = net.createServer().listen(path);
    t.after(() => live.close());
    await once(live, 'listening');
    await assertRefused(listen(unix(path)), 'EADDRINUSE');
    assert.ok(existsSync(path));
  });

  test('an unknown host name', async () => {
    const address = { kind: 'tcp', host: 'no-such-host.invalid', port: 1 } as const;
    for (const work of [() => listen(address), () => get().connect(address)]) {
      await assert.rejects(work, (error: NodeJS.ErrnoException) => {
        assert.match(error.code ?? '', /^(ENOTFOUND|EAI_AGAIN)$/);
        return error instanceof ConfigError;
      });
    }
  });

  test('a Unix socket of a dead server is replaced, and removed at close', async () => {
    const bench = get();
    const path = bench.path();
    const dead = net.createServer().listen(`${path}.old`);
    await once(dead, 'listening');
    // Node removes the name it knows at close; under another name the socket stays, as after a kill.
    renameSync(`${path}.old`, path);
    dead.close();
    const listener = await bench.listen(unix(path), () => {});
    await (await bench.connect(listener.address)).close();
    await listener.close();
    assert.equal(existsSync(path), false);
  });

  test('a file in the place of the socket is left alone', async () => {
    const path = get().path();
    writeFileSync(path, 'a disk image');
    await assertRefused(listen(unix(path)), 'ENOTSOCK');
    assert.equal(readFileSync(path, 'utf8'), 'a disk image');
  });

  test('a descriptor that is bound already, as systemd passes it', async (t) => {
    if (process.platform !== 'linux') {
      t.skip('needs the system calls of Linux');
      return;
    }
    const bench = get();
    const { fd, path } = await boundSocket(bench);
    const accepted: End[] = [];
    const listener = await bench.listen({ kind: 'fd', fd }, (end) => accepted.push(end));
    const near = await bench.connect({ kind: 'unix', path });
    assert.equal(await near.sendBytes(Buffer.from('hello')), 0);
    await eventually(bench.reactor, () => accepted.length === 1, 'accepted');
    const [far] = accepted as [End];
    assert.equal(String(await far.receiveExactly(5)), 'hello');
    await Promise.all([near.close(), far.close()]);
    await listener.close();
  });

  test('connect: nobody listens', async () => {
    const bench = get();
    await assertRefused(bench.connect(unix(bench.path())), 'ENOENT');
    const listener = await bench.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }, () => {});
    await listener.close();
    await assertRefused(bench.connect(listener.address), 'ECONNREFUSED');
  });

  test('nobody is accepted after close', async () => {
    const bench = get();
    let accepted = 0;
    const listener = await bench.listen(unix(bench.path()), () => {
      accepted += 1;
    });
    await listener.close();
    await assertRefused(bench.connect(listener.address), 'ENOENT');
    assert.equal(accepted, 0);
  });
}

/** A Unix socket bound and listening outside of any event loop. */
async function boundSocket(bench: Bench): Promise<{ fd: number; path: string }> {
  const sys = await import('../sys.ts');
  const sockets = await import('../uring/sockets.ts');
  const path = bench.path();
  const { family, region, length } = await sockets.sockAddr({ kind: 'unix', path });
  const fd = sockets.openSocket(family);
  assert.equal(sys.bind(fd, region, length), 0);
  assert.equal(sys.listen(fd, 10), 0);
  return { fd, path };
}
