import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { Prng } from '../../base/prng.ts';
import { KiB, MiB } from '../../base/units.ts';
import { Segments } from '../../block/memory.ts';
import { eventually, pause, randomSegments, steady, type Bench, type End } from './harness.ts';

const ECONNRESET = 104;

/** Sends random segments until `total` bytes are out; returns what was sent. */
async function talk(bench: Bench, end: End, seed: number, total: number): Promise<Buffer> {
  const prng = new Prng(seed);
  const regions = [bench.region(), bench.region()];
  const said: Buffer[] = [];
  let done = 0;
  while (done < total) {
    for (const region of regions) prng.fill(region.bytes.subarray(0, 4096));
    const segments = randomSegments(prng, regions, prng.pick([1, 60, 5000, 60_000]));
    for (let i = 0; i < segments.count; i += 1) said.push(Buffer.from(segments.bytesAt(i)));
    done += segments.totalBytes;
    assert.equal(await end.send(segments), 0);
    // The memory is ours again: whatever is done to it must not reach the peer.
    for (const region of regions) region.bytes.fill(0xee, 0, 4096);
  }
  return Buffer.concat(said);
}

/** Receives in random pieces until the peer ends. */
async function hear(end: End, seed: number): Promise<Buffer> {
  const prng = new Prng(seed);
  const heard: Buffer[] = [];
  for (;;) {
    const start = prng.below(1000);
    const count = await end.receive(start, 1 + prng.below(prng.pick([10, 4 * KiB, 200 * KiB])));
    if (count === 0) return Buffer.concat(heard);
    assert.ok(count > 0, `receive failed: ${count}`);
    heard.push(Buffer.from(end.region.bytes.subarray(start, start + count)));
  }
}

async function echo(end: End): Promise<void> {
  for (;;) {
    const count = await end.receive();
    if (count <= 0) return;
    const segments = new Segments();
    const half = count >> 1;
    if (half > 0) segments.push(end.region, 0, half);
    segments.push(end.region, half, count - half);
    assert.equal(await end.send(segments), 0);
  }
}

export function streamTests(get: () => Bench): void {
  dataTests(get);
  endTests(get);
  pressureTests(get);
}

function dataTests(get: () => Bench): void {
  for (const kind of ['tcp', 'unix'] as const) {
    test(`${kind}: an echo of megabytes is the same bytes`, async () => {
      const bench = get();
      const [near, far] = await bench.pair(kind);
      const echoing = echo(far);
      const total = 3 * MiB;
      const said = talk(bench, near, 1, total);
      const heard: Buffer[] = [];
      const prng = new Prng(2);
      let count = 0;
      let expected = total;
      while (count < expected) {
        const got = await near.receive(0, 1 + prng.below(prng.pick([10, 4 * KiB, 200 * KiB])));
        heard.push(Buffer.from(near.region.bytes.subarray(0, got)));
        count += got;
        if (count >= total) expected = (await said).length;
      }
      assert.ok(Buffer.concat(heard).equals(await said));
      await near.close();
      await echoing;
      await far.close();
    });

    test(`${kind}: both directions at once`, async () => {
      const bench = get();
      const [near, far] = await bench.pair(kind);
      const [nearSaid, farSaid, nearHeard, farHeard] = await Promise.all([
        talk(bench, near, 3, MiB),
        talk(bench, far, 4, MiB),
        receiveAtLeast(near, MiB),
        receiveAtLeast(far, MiB),
      ]);
      // Each talks a little more than asked for: the rest follows.
      const nearRest = await near.receiveExactly(farSaid.length - nearHeard.length);
      const farRest = await far.receiveExactly(nearSaid.length - farHeard.length);
      assert.ok(Buffer.concat([nearHeard, nearRest]).equals(farSaid));
      assert.ok(Buffer.concat([farHeard, farRest]).equals(nearSaid));
      await Promise.all([near.close(), far.close()]);
    });
  }

  test('200 connections', async () => {
    const bench = get();
    const far: End[] = [];
    const listener = await bench.listen({ kind: 'unix', path: bench.path() }, (end) => {
      far.push(end);
      void echo(end);
    });
    const near = await Promise.all(
      Array.from({ length: 200 }, () => bench.connect(listener.address)),
    );
    await Promise.all(
      near.map(async (end, index) => {
        const message = new Uint8Array(1000).fill(index);
        assert.equal(await end.sendBytes(message, 2000), 0);
        assert.deepEqual(await end.receiveExactly(message.length), Buffer.from(message));
      }),
    );
    await Promise.all(near.map((end) => end.close()));
    await eventually(
      bench.reactor,
      () => far.every((end) => end.events.includes('received 0')),
      'ends',
    );
    assert.equal(far.length, 200);
    await Promise.all(far.map((end) => end.close()));
    await listener.close();
  });

  test('peer says who it is', async () => {
    const [tcp] = await get().withPeer('tcp');
    assert.match(tcp.stream.peer, /^tcp 127\.0\.0\.1:\d+$/);
    const [unix] = await get().withPeer('unix');
    assert.match(unix.stream.peer, /^unix/);
    await Promise.all([tcp.close(), unix.close()]);
  });
}

async function receiveAtLeast(end: End, total: number): Promise<Buffer> {
  const heard: Buffer[] = [];
  for (let done = 0; done < total;) {
    const count = await end.receive();
    assert.ok(count > 0, `receive failed: ${count}`);
    heard.push(Buffer.from(end.region.bytes.subarray(0, count)));
    done += count;
  }
  return Buffer.concat(heard);
}

function endTests(get: () => Bench): void {
  test('a peer that has ended its side still gets what is sent', async () => {
    for (const kind of ['tcp', 'unix'] as const) {
      const [end, peer] = await get().withPeer(kind);
      peer.end('last words');
      assert.equal(String(await hear(end, 5)), 'last words');
      assert.equal(await end.receive(), 0, 'the end stays the end');
      assert.equal(await end.sendBytes(Buffer.from('understood')), 0);
      assert.equal(String((await once(peer, 'data'))[0]), 'understood');
      await end.close();
    }
  });

  test('a reset is -ECONNRESET, and a send after it fails', async () => {
    const [end, peer] = await get().withPeer('tcp');
    peer.write('x');
    assert.equal(await end.receive(), 1);
    const receiving = end.receive();
    peer.resetAndDestroy();
    assert.equal(await receiving, -ECONNRESET);
    assert.ok((await end.sendBytes(Buffer.from('anybody?'))) < 0);
    await end.close();
  });

  test('peerGone is seen before the bytes that the peer left are read', async () => {
    for (const kind of ['tcp', 'unix'] as const) {
      const bench = get();
      const [end, peer] = await bench.withPeer(kind);
      peer.write('unread');
      await pause(bench.reactor, 20);
      assert.equal(end.stream.peerGone(), false);
      peer.destroy();
      await eventually(bench.reactor, () => end.stream.peerGone(), 'peerGone');
      assert.equal(String(await hear(end, 6)), 'unread');
      assert.equal(end.stream.peerGone(), true);
      await end.close();
    }
  });

  test('close completes an outstanding receive once, then is done, and nothing is received later', async () => {
    for (const kind of ['tcp', 'unix'] as const) {
      const bench = get();
      const [end, peer] = await bench.withPeer(kind);
      end.region.bytes.fill(7);
      const receiving = end.receive();
      const closing = end.close();
      peer.write('too late');
      assert.ok((await receiving) <= 0);
      await closing;
      peer.write('much too late');
      await pause(bench.reactor, 30);
      assert.equal(end.events.length, 2);
      assert.equal(end.events[1], 'closed');
      assert.ok(end.region.bytes.every((byte) => byte === 7));
    }
  });

  test('close completes an outstanding send once, and its memory is free', async () => {
    for (const kind of ['tcp', 'unix'] as const) {
      const bench = get();
      const [end, peer] = await bench.withPeer(kind);
      peer.pause();
      const segments = bigSegments(bench, 1);
      const sending = end.send(segments);
      const receiving = end.receive();
      await pause(bench.reactor, 20);
      assert.deepEqual(end.events, [], 'nothing can be done yet');
      await end.close();
      assert.ok((await receiving) <= 0);
      await sending;
      assert.equal(end.events.length, 3);
      segments.fill(0xee);
      for (const chunk of await drain(peer)) {
        assert.ok(
          chunk.every((byte) => byte === 1),
          'memory was read after closed',
        );
      }
    }
  });

  test('close of an idle stream, and of one whose peer is long gone', async () => {
    const bench = get();
    const [idle] = await bench.withPeer('unix');
    await idle.close();
    assert.deepEqual(idle.events, ['closed']);
    const [left, peer] = await bench.withPeer('tcp');
    peer.resetAndDestroy();
    await pause(bench.reactor, 20);
    await left.close();
    assert.deepEqual(left.events, ['closed']);
  });
}

function bigSegments(bench: Bench, value: number): Segments {
  const segments = new Segments();
  const region = bench.region();
  region.bytes.fill(value);
  // The same memory many times over, with a gap so that the ranges are not joined: more than any socket buffer takes.
  for (let i = 0; i < 64; i += 1) segments.push(region, i % 2, region.bytes.length - 2);
  return segments;
}

async function drain(peer: net.Socket): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  peer.on('data', (chunk: Uint8Array) => chunks.push(chunk));
  peer.resume();
  if (!peer.closed) {
    peer.once('end', () => peer.destroy());
    await once(peer, 'close');
  }
  return chunks;
}

function pressureTests(get: () => Bench): void {
  test('a peer that reads nothing holds the send up, and gets it all in the end', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('unix');
    peer.pause();
    const segments = bigSegments(bench, 3);
    const sending = end.send(segments);
    await pause(bench.reactor, 50);
    assert.deepEqual(end.events, []);
    let count = 0;
    peer.on('data', (chunk: Uint8Array) => {
      count += chunk.length;
    });
    peer.resume();
    assert.equal(await sending, 0);
    await eventually(bench.reactor, () => count === segments.totalBytes, 'everything arrives');
    await end.close();
  });

  test('a peer that floods is held up while nobody receives', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('unix');
    const chunk = Buffer.alloc(64 * KiB, 5);
    let taken = 0;
    const flood = (): void => {
      peer.write(chunk, (error) => {
        letEventLoopRun();
        if (error) return;
        taken += chunk.length;
        flood();
      });
    };
    flood();
    const before = await steady(bench.reactor, () => taken);
    assert.ok(taken < 2 * MiB, `${taken} bytes were taken from a peer that nobody listens to`);
    // And it goes on as soon as somebody does.
    await end.receiveExactly(taken + MiB);
    assert.ok(taken > before);
    await end.close();
  });

  test('single bytes cost bounded memory too', async () => {
    const bench = get();
    const [end, peer] = await bench.withPeer('tcp');
    peer.setNoDelay();
    for (let i = 0; i < 2000; i += 1) peer.write(Buffer.of(i));
    const heard = await end.receiveExactly(2000);
    assert.ok(heard.every((byte, i) => byte === (i & 255)));
    await end.close();
  });
}
