import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import net from 'node:net';
import test from 'node:test';
import type tls from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import { KiB } from '../base/units.ts';
import { libcOrNull, type Libc } from './portable/libc.ts';
import type { TlsSettings } from './reactor.ts';
import { bridgeTls, closeTlsBridges, TlsBridge, TlsBridgeClient } from './tls-bridge.ts';
import { startTls } from './tls.ts';

const KEY = new Uint8Array(32).fill(3);
const SERVER: TlsSettings = { psk: new Map([['alice', KEY]]) };
const CLIENT: TlsSettings = { ...SERVER, client: { hostname: '' } };

const libc = libcOrNull() as Libc;
const linux = { skip: libcOrNull() === null ? 'the bridge is for Linux' : false };

function socketOf(fd: number): net.Socket {
  const socket = new net.Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
  return socket.on('error', () => {});
}

/** How many descriptors are open, once what is closing has closed. */
async function settledDescriptors(): Promise<number> {
  for (let before = -1; ;) {
    const count = readdirSync('/proc/self/fd').length;
    if (count === before) return count;
    before = count;
    await sleep(80);
  }
}

interface Bridged {
  /** The client's end, in TLS. */
  readonly outer: tls.TLSSocket;
  /** What the ring would have. */
  readonly plain: net.Socket;
}

/** A client in TLS on one end, and the bridge's plain side on the other. */
async function bridged(bridge: typeof bridgeTls): Promise<Bridged> {
  const [near, far] = libc.socketpair();
  const [outer, plain] = await Promise.all([startTls(socketOf(near), CLIENT), bridge(far, SERVER)]);
  libc.close(far);
  return { outer, plain: socketOf(plain) };
}

async function assertClosed(socket: net.Socket): Promise<void> {
  socket.resume();
  if (!socket.closed) await once(socket, 'close');
}

test(
  'bridge: bytes both ways, the end of one side ends the other, no descriptor is left',
  linux,
  async () => {
    await bridged(bridgeTls).then(async ({ outer, plain }) => {
      outer.destroy();
      plain.destroy();
      await sleep(20);
    });
    const before = await settledDescriptors();
    for (let i = 0; i < 5; i += 1) {
      const { outer, plain } = await bridged(bridgeTls);
      outer.write('request');
      assert.equal(String((await once(plain, 'data'))[0]), 'request');
      plain.write('reply');
      assert.equal(String((await once(outer, 'data'))[0]), 'reply');
      const [first, second] = i % 2 === 0 ? [outer, plain] : [plain, outer];
      first.end('last');
      assert.equal(String((await once(second, 'data'))[0]), 'last');
      second.resume();
      if (!second.readableEnded) await once(second, 'end');
      second.end();
      await Promise.all([assertClosed(first), assertClosed(second)]);
    }
    await sleep(20);
    assert.equal(await settledDescriptors(), before);
  },
);

test('bridge: what is broken off on one side breaks the other', linux, async () => {
  const one = await bridged(bridgeTls);
  one.outer.destroy();
  await once(one.plain.resume(), 'end');
  one.plain.destroy();

  const two = await bridged(bridgeTls);
  two.plain.destroy();
  await once(two.outer.resume(), 'end');
  two.outer.destroy();

  const three = await bridged(bridgeTls);
  closeTlsBridges();
  await Promise.all([once(three.outer.resume(), 'end'), once(three.plain.resume(), 'end')]);
  three.outer.destroy();
  three.plain.destroy();
});

test('bridge: neither side is read faster than the other takes', linux, async () => {
  const { outer, plain } = await bridged(bridgeTls);
  for (const [from, to] of [
    [outer, plain],
    [plain, outer],
  ] as const) {
    let taken = 0;
    const chunk = Buffer.alloc(64 * KiB, 1);
    const flood = (): void => {
      from.write(chunk, (error) => {
        if (error) return;
        taken += chunk.length;
        flood();
      });
    };
    to.pause();
    flood();
    for (let before = -1; before !== taken; await sleep(50)) before = taken;
    assert.ok(taken < 4096 * KiB, `${taken} bytes are on their way`);
  }
  outer.destroy();
  plain.destroy();
});

test(
  'bridge: a failed handshake leaves the caller its descriptor and no other',
  linux,
  async () => {
    const before = await settledDescriptors();
    const [near, far] = libc.socketpair();
    const peer = socketOf(near);
    peer.end('neither TLS nor anything else');
    await assert.rejects(bridgeTls(far, SERVER), /^Error: TLS handshake failed: /);
    libc.close(far);
    await assertClosed(peer);
    await sleep(10);
    assert.equal(await settledDescriptors(), before);
  },
);

test('bridge: over messages, as between the data plane and the main thread', linux, async () => {
  const { port1, port2 } = new MessageChannel();
  const main = new TlsBridge((reply) => port1.postMessage(reply));
  const ring = new TlsBridgeClient((message) => port2.postMessage(message));
  port1.on('message', (message) => assert.equal(main.handle(message), true));
  port2.on('message', (message) => assert.equal(ring.handle(message), true));
  assert.equal(main.handle({ type: 'something else' }), false);
  assert.equal(ring.handle(null), false);

  const several = await Promise.all([bridged(ring.bridgeTls), bridged(ring.bridgeTls)]);
  for (const [index, { outer, plain }] of several.entries()) {
    outer.write(`hello ${index}`);
    assert.equal(String((await once(plain, 'data'))[0]), `hello ${index}`);
    outer.destroy();
    plain.destroy();
  }

  const [near, far] = libc.socketpair();
  const peer = socketOf(near);
  peer.end();
  await assert.rejects(ring.bridgeTls(far, SERVER), /TLS handshake failed/);
  libc.close(far);
  peer.destroy();
  port1.close();
});
