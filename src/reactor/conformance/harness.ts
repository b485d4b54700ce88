import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { Prng } from '../../base/prng.ts';
import { KiB } from '../../base/units.ts';
import { Region, Segments } from '../../block/memory.ts';
import { openReactor } from '../open.ts';
import type { Page } from '../page-pool.ts';
import { Completion, type Listener, type Reactor, type SocketAddress } from '../reactor.ts';
import type { Stream, StreamOwner } from '../reactor.ts';
import { bridgeTls } from '../tls-bridge.ts';

// For tests of any reactor: streams and files as promises, with the rules of their interfaces checked on the way.

/** Tests move up to 200 KiB at once through one page. */
const PAGE_BYTES = 256 * KiB;

export type Kind = Reactor['kind'];

/** Why a kind cannot be tested here, or false. For `skip`. */
export async function unavailable(kind: Kind): Promise<string | false> {
  if (kind === 'portable') return false;
  try {
    const { reactor } = await openReactor(kind);
    await reactor.close();
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}

/** A reactor, a directory of its own, and everything opened through it: gone at `end`. */
export class Bench {
  readonly reactor: Reactor;
  readonly directory: string = mkdtempSync(join(tmpdir(), 'holdfast-reactor-'));
  readonly #listeners: Listener[] = [];
  readonly #ends: End[] = [];
  readonly #peers: net.Socket[] = [];
  #paths = 0;

  private constructor(reactor: Reactor) {
    this.reactor = reactor;
  }

  static async open(kind: Kind): Promise<Bench> {
    const { reactor } = await openReactor(kind, {
      bridgeTls,
      pageBytes: PAGE_BYTES,
      pageLimit: 1000,
    });
    assert.equal(reactor.kind, kind);
    return new Bench(reactor);
  }

  path(): string {
    this.#paths += 1;
    return join(this.directory, `s${this.#paths}`);
  }

  /** Memory of a pool page, for as long as the bench lives. */
  region(): Region {
    const page = this.reactor.pool.take();
    assert.ok(page !== null);
    return page.region;
  }

  async listen(address: SocketAddress, accepted: (end: End) => void): Promise<Listener> {
    const listener = await this.reactor.listen(address, (stream) => {
      letEventLoopRun();
      accepted(this.#adopt(stream));
    });
    this.#listeners.push(listener);
    return listener;
  }

  async connect(address: SocketAddress): Promise<End> {
    return this.#adopt(await this.reactor.connect(address));
  }

  #adopt(stream: Stream): End {
    const page = this.reactor.pool.take();
    assert.ok(page !== null);
    const end = new End(stream, page);
    this.#ends.push(end);
    return end;
  }

  /** Two connected ends, both of this reactor. */
  async pair(kind: 'tcp' | 'unix'): Promise<[End, End]> {
    const { address, accepted } = await this.#listenOnce(kind);
    const near = await this.connect(address);
    return [near, await accepted()];
  }

  /** One end of this reactor, one of node:net. */
  async withPeer(kind: 'tcp' | 'unix'): Promise<[End, net.Socket]> {
    const { address, accepted } = await this.#listenOnce(kind);
    const peer =
      address.kind === 'unix'
        ? net.connect({ path: address.path, allowHalfOpen: true })
        : net.connect({ port: address.kind === 'tcp' ? address.port : 0, allowHalfOpen: true });
    peer.on('error', () => {});
    this.#peers.push(peer);
    return [await accepted(), peer];
  }

  async #listenOnce(
    kind: 'tcp' | 'unix',
  ): Promise<{ address: SocketAddress; accepted: () => Promise<End> }> {
    const asked: SocketAddress =
      kind === 'tcp' ? { kind, host: '127.0.0.1', port: 0 } : { kind, path: this.path() };
    const ends: End[] = [];
    const { address } = await this.listen(asked, (end) => ends.push(end));
    return {
      address,
      accepted: async () => {
        await eventually(this.reactor, () => ends.length > 0, 'the connection is accepted');
        return ends[0] as End;
      },
    };
  }

  async end(): Promise<void> {
    for (const peer of this.#peers) peer.destroy();
    await Promise.all(this.#ends.map((end) => end.close()));
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    await this.reactor.close();
    rmSync(this.directory, { recursive: true });
  }
}

/** A stream as promises. Asserts that every completion was asked for, comes once, and none comes after `closed`. */
export class End implements StreamOwner {
  readonly stream: Stream;
  /** Scratch memory of this end. */
  readonly region: Region;
  /** What happened, in order: "received N", "sent N", "closed". */
  readonly events: string[] = [];
  #receiving: ((count: number) => void) | null = null;
  #sending: ((result: number) => void) | null = null;
  #closing: Promise<void> | null = null;
  #closed = false;
  readonly #page: Page;

  constructor(stream: Stream, page: Page) {
    this.stream = stream;
    this.region = page.region;
    this.#page = page;
    stream.owner = this;
  }

  received(count: number): void {
    assert.equal(this.#closed, false, 'received after closed');
    assert.ok(this.#receiving !== null, 'received without a receive');
    this.events.push(`received ${count}`);
    const resolve = this.#receiving;
    this.#receiving = null;
    letEventLoopRun();
    resolve(count);
  }

  sent(result: number): void {
    assert.equal(this.#closed, false, 'sent after closed');
    assert.ok(this.#sending !== null, 'sent without a send');
    this.events.push(`sent ${result}`);
    const resolve = this.#sending;
    this.#sending = null;
    letEventLoopRun();
    resolve(result);
  }

  receive(start = 0, length = this.region.bytes.length - start): Promise<number> {
    return new Promise((resolve) => {
      this.#receiving = resolve;
      this.stream.receive(this.region, start, length);
    });
  }

  send(segments: Segments): Promise<number> {
    return new Promise((resolve) => {
      this.#sending = resolve;
      this.stream.send(segments);
    });
  }

  /** Sends bytes through the end's memory from `start` on. */
  sendBytes(bytes: Uint8Array, start = 0): Promise<number> {
    this.region.bytes.set(bytes, start);
    const segments = new Segments();
    segments.push(this.region, start, bytes.length);
    return this.send(segments);
  }

  /** Receives exactly `length` bytes, in pieces of at most `pieceMax`. */
  async receiveExactly(length: number, pieceMax = this.region.bytes.length): Promise<Buffer> {
    const all = Buffer.alloc(length);
    let done = 0;
    while (done < length) {
      const count = await this.receive(0, Math.min(pieceMax, length - done));
      assert.ok(count > 0, `the stream ended after ${done} of ${length} bytes: ${count}`);
      all.set(this.region.bytes.subarray(0, count), done);
      done += count;
    }
    return all;
  }

  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      this.stream.close(() => {
        assert.equal(this.#closed, false, 'closed twice');
        assert.equal(this.#receiving, null, 'closed before the receive completed');
        assert.equal(this.#sending, null, 'closed before the send completed');
        this.#closed = true;
        this.events.push('closed');
        this.#page.release();
        letEventLoopRun();
        resolve();
      });
    });
    return this.#closing;
  }

  startTls(settings: Parameters<Stream['startTls']>[0]): Promise<string | null> {
    return new Promise((resolve) => {
      this.stream.startTls(settings, (error) => {
        letEventLoopRun();
        resolve(error);
      });
    });
  }
}

/** Waits on the reactor's own timer. */
export function pause(reactor: Reactor, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    reactor.after(delayMs, () => {
      letEventLoopRun();
      resolve();
    });
  });
}

/** Waits until `condition` holds, at most two seconds. */
export async function eventually(
  reactor: Reactor,
  condition: () => boolean,
  what: string,
): Promise<void> {
  const end = reactor.nowMs() + 2000;
  while (!condition()) {
    assert.ok(reactor.nowMs() < end, `never happened: ${what}`);
    await pause(reactor, 5);
  }
}

/** Waits until `value` has not changed for 50 ms, at most two seconds, and returns it. */
export async function steady(reactor: Reactor, value: () => number): Promise<number> {
  const end = reactor.nowMs() + 2000;
  for (;;) {
    const before = value();
    await pause(reactor, 50);
    if (value() === before) return before;
    assert.ok(reactor.nowMs() < end, `still changing: ${before}, ${value()}`);
  }
}

class Once extends Completion {
  #resolve: ((result: number) => void) | null;

  constructor(resolve: (result: number) => void) {
    super();
    this.#resolve = resolve;
  }

  override complete(result: number): void {
    assert.ok(this.#resolve !== null, 'a completion completed twice');
    const resolve = this.#resolve;
    this.#resolve = null;
    letEventLoopRun();
    resolve(result);
  }
}

/** One request as a promise of its result. */
export function request(start: (done: Completion) => void): Promise<number> {
  return new Promise((resolve) => {
    start(new Once(resolve));
  });
}

/** `count` random segments over the regions, of 1 to `lengthMax` bytes each, not overlapping within a region. */
export function randomSegments(
  prng: Prng,
  regions: readonly Region[],
  lengthMax: number,
): Segments {
  const segments = new Segments();
  for (const region of regions) {
    let at = prng.below(512);
    const count = 1 + prng.below(4);
    for (let i = 0; i < count; i += 1) {
      const length = 1 + prng.below(lengthMax);
      if (at + length > region.bytes.length) break;
      segments.push(region, at, length);
      at += length + prng.below(100);
    }
  }
  return segments;
}
