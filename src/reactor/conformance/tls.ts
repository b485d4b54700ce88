import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Prng } from '../../base/prng.ts';
import { MiB } from '../../base/units.ts';
import type { TlsSettings } from '../reactor.ts';
import { startTls } from '../tls.ts';
import { pause, steady, type Bench, type End } from './harness.ts';

const KEY = new Uint8Array(32).fill(0x5a);
const SERVER: TlsSettings = { psk: new Map([['alice', KEY]]) };
const CLIENT: TlsSettings = { ...SERVER, client: { hostname: '' } };

async function securePair(bench: Bench, kind: 'tcp' | 'unix'): Promise<[End, End]> {
  const [near, far] = await bench.pair(kind);
  const errors = await Promise.all([near.startTls(CLIENT), far.startTls(SERVER)]);
  assert.deepEqual(errors, [null, null]);
  return [near, far];
}

async function sendAll(end: End, bytes: Uint8Array): Promise<void> {
  const piece = end.region.bytes.length;
  for (let at = 0; at < bytes.length; at += piece) {
    assert.equal(await end.sendBytes(bytes.subarray(at, at + piece)), 0);
  }
}

export function tlsTests(get: () => Bench): void {
  for (const kind of ['tcp', 'unix'] as const) {
    test(`TLS over ${kind}: megabytes, each way, and the end`, async () => {
      const bench = get();
      const [near, far] = await securePair(bench, kind);
      const bytes = Buffer.alloc(2 * MiB);
      new Prng(21).fill(bytes);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        const [, heard] = await Promise.all([
          sendAll(from, bytes),
          to.receiveExactly(bytes.length),
        ]);
        assert.ok(heard.equals(bytes));
      }
      await near.close();
      assert.equal(await far.receive(), 0);
      await far.close();
    });
  }

  test('TLS: nothing is lost around STARTTLS, and nothing goes out in the clear', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('tcp');
    peer.write('please');
    assert.equal(String(await end.receiveExactly(6)), 'please');
    // The peer starts as soon as it sees the answer: its hello may be here before we ask for it.
    const secured = once(peer, 'data').then(() => startTls(peer, CLIENT));
    assert.equal(await end.sendBytes(Buffer.from('yes')), 0);
    await pause(bench.reactor, 30);
    assert.equal(await end.startTls(SERVER), null);
    const inner = await secured;
    inner.write('a secret');
    assert.equal(String(await end.receiveExactly(8)), 'a secret');
    await end.close();
    inner.destroy();
  });

  test('TLS: a failed handshake says why, and the stream can be closed', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('tcp');
    peer.write('this is not TLS at all, and long enough');
    assert.match((await end.startTls(SERVER)) ?? '', /^TLS handshake failed: .*not TLS/);
    await end.close();

    const [near, far] = await bench.pair('unix');
    const wrong: TlsSettings = {
      psk: new Map([['alice', new Uint8Array(32)]]),
      client: { hostname: '' },
    };
    const [, error] = await Promise.all([near.startTls(wrong), far.startTls(SERVER)]);
    assert.match(error ?? '', /^TLS handshake failed: /);
    await Promise.all([near.close(), far.close()]);
  });

  test('TLS: close during the handshake', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('unix');
    void end.startTls(SERVER);
    await pause(bench.reactor, 10);
    await end.close();
    assert.deepEqual(end.events, ['closed']);
    peer.resume();
    if (!peer.readableEnded) await once(peer, 'end');
    peer.destroy();
  });

  test('TLS: a peer that breaks off is seen', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('tcp');
    const [error, inner] = await Promise.all([end.startTls(SERVER), startTls(peer, CLIENT)]);
    assert.equal(error, null);
    const receiving = end.receive();
    peer.resetAndDestroy();
    assert.ok((await receiving) <= 0);
    await end.close();
    inner.destroy();
  });

  test('TLS: what was sent before close arrives, and a peer that floods is held up', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('unix');
    const [, inner] = await Promise.all([end.startTls(SERVER), startTls(peer, CLIENT)]);
    inner.pause();
    const chunk = Buffer.alloc(65536, 5);
    let taken = 0;
    const flood = (): void => {
      inner.write(chunk, (error) => {
        if (error) return;
        taken += chunk.length;
        flood();
      });
    };
    flood();
    await steady(bench.reactor, () => taken);
    assert.ok(taken < 4 * MiB, `${taken} bytes were taken from a peer that nobody listens to`);
    await end.close();
    inner.destroy();
    peer.destroy();

    const [near, far] = await securePair(bench, 'unix');
    assert.equal(await near.sendBytes(Buffer.from('good bye')), 0);
    await near.close();
    assert.equal(String(await far.receiveExactly(8)), 'good bye');
    assert.equal(await far.receive(), 0);
    await far.close();
  });
}
