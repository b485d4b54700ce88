import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { Disk } from '../../src/durability/disk.ts';
import { NbdConnection } from '../../src/protocols/nbd/connection.ts';
import { NbdExport } from '../../src/protocols/nbd/export.ts';
import {
  encodeInfoRequest,
  encodeOption,
  NBD_CMD,
  NBD_OPT,
  writeRequest,
} from '../../src/protocols/nbd/wire.ts';
import { openMemoryStore } from '../../src/stores/memory/memory-store.ts';
import { PoisoningPool, SimClock, SimReactor } from './clock.ts';
import { SimStream, type StreamPeer } from './stream.ts';

const MiB = 1024 * 1024;
const PAGE_BYTES = 132 * 1024;
const PAGES = 64;
const READ_BYTES = 32 * MiB;

/** A server with a disk in memory, which is always quicker than its clients. */
class Bench {
  readonly pool = new PoisoningPool(PAGE_BYTES, PAGES);
  readonly clock = new SimClock(new Prng(1));
  readonly ended: NbdConnection[] = [];
  readonly #reactor = new SimReactor(this.clock, this.pool);
  readonly #export = new NbdExport(
    '',
    '',
    new Disk({
      store: openMemoryStore({ name: 'memory', sizeBytes: READ_BYTES }),
      mode: 'writeback',
    }),
  );

  connect(): { stream: SimStream; heard: () => number } {
    let heard = 0;
    const peer: StreamPeer = {
      told: () => {},
      heard: (count) => {
        heard += count;
      },
      taken: () => {},
      hungUp: () => {},
    };
    const network = { pieceBytes: MiB, delayMs: 0.1, windowBytes: MiB };
    const stream = new SimStream(this.#reactor, new Prng(2), network, 'unix', peer);
    const connection = new NbdConnection(
      {
        reactor: this.#reactor,
        exports: new Map([['', this.#export]]),
        tlsMode: 'off',
        log: () => {},
        ended: (done) => this.ended.push(done),
      },
      stream,
    );
    assert.ok(connection.peer === 'unix');
    return { stream, heard: () => heard };
  }

  until(ms: number): void {
    const end = this.clock.nowMs() + ms;
    // An event of its own, so that time goes by also where nothing else happens.
    this.clock.after(ms, () => {});
    while (this.clock.nowMs() < end && this.clock.step());
  }
}

function negotiation(structured: boolean): Uint8Array[] {
  const none = new Uint8Array(0);
  return [
    Buffer.from([0, 0, 0, 3]),
    ...(structured ? [encodeOption(NBD_OPT.STRUCTURED_REPLY, none)] : []),
    encodeOption(NBD_OPT.GO, encodeInfoRequest('', [])),
  ];
}

function request(type: number, length: number): Buffer {
  const bytes = Buffer.alloc(28);
  writeRequest(new DataView(bytes.buffer, bytes.byteOffset, 28), false, 0, type, 1, 2, 0, length);
  return bytes;
}

for (const form of ['simple', 'structured'] as const) {
  test(`a client that takes no answers holds its share and no more: 32 MiB, ${form} replies`, () => {
    const bench = new Bench();
    const greedy = [bench.connect(), bench.connect(), bench.connect()];
    for (const { stream } of greedy) {
      for (const bytes of negotiation(form === 'structured')) stream.write(bytes);
    }
    bench.until(20);
    for (const { stream } of greedy) {
      stream.stall(1000);
      stream.write(request(NBD_CMD.READ, READ_BYTES));
      // The goodbye behind it does not cut the answer off.
      stream.write(request(NBD_CMD.DISC, 0));
    }
    bench.until(500);
    const { mostInUse, shareBytes } = bench.pool;
    const held = bench.pool.inUse * PAGE_BYTES;
    // For each: its share, a page that is being filled, one that is received into, and one for replies.
    assert.ok(held <= 3 * (shareBytes + 3 * PAGE_BYTES), `${held} bytes held, ${mostInUse} pages`);

    const sane = bench.connect();
    for (const bytes of negotiation(false)) sane.stream.write(bytes);
    bench.until(20);
    const before = sane.heard();
    sane.stream.write(request(NBD_CMD.READ, 4096));
    bench.until(20);
    assert.equal(sane.heard() - before, 16 + 4096, 'another client is served meanwhile');

    bench.until(4000);
    for (const { heard } of greedy) assert.ok(heard() > READ_BYTES, `${heard()} bytes came`);
    assert.equal(bench.ended.length, 3, 'and then the connections end');
    sane.stream.cut(false);
    bench.until(100);
    assert.equal(bench.pool.inUse, 0);
  });
}

test('a client that comes when there is no memory waits for its greeting, and is served', () => {
  const bench = new Bench();
  const taken = Array.from({ length: PAGES }, () => bench.pool.take());
  assert.equal(bench.pool.take(), null);
  const { stream, heard } = bench.connect();
  for (const bytes of negotiation(true)) stream.write(bytes);
  bench.until(50);
  assert.equal(heard(), 0);
  assert.equal(bench.ended.length, 0, 'it is not sent away');
  for (const page of taken) page?.release();
  bench.until(50);
  const before = heard();
  assert.ok(before > 18, `the greeting and the answers: ${before} bytes`);
  stream.write(request(NBD_CMD.READ, 4096));
  bench.until(50);
  assert.equal(heard() - before, 28 + 4096);
  stream.cut(false);
  bench.until(100);
  assert.equal(bench.pool.inUse, 0);
});
