import assert from 'node:assert/strict';
import test from 'node:test';
import { KiB } from '../../base/units.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { type Io, OP } from '../../block/io.ts';
import { Region, type Segments } from '../../block/memory.ts';
import { Inbox } from '../../reactor/inbox.ts';
import { Outbox } from '../../reactor/outbox.ts';
import { PagePool } from '../../reactor/page-pool.ts';
import type { Stream } from '../../reactor/reactor.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { CHUNK_BYTES } from './limits.ts';
import { Transmission } from './transmission.ts';
import { NBD_CMD, NBD_HEADER, writeRequest } from './wire.ts';

const PAGE_BYTES = 132 * KiB;
const DISK_BYTES = 64 * 1024 * KiB;

/** A device that keeps its READs until told; the rest it does at once. */
class SlowReads implements BlockDevice {
  readonly info: DeviceInfo;
  readonly held: Io[] = [];

  constructor(changes: Partial<DeviceInfo>) {
    const { info } = openMemoryStore({ name: 'slow', sizeBytes: DISK_BYTES });
    this.info = { ...info, ...changes };
  }

  submit(io: Io): void {
    if (io.op === OP.READ) this.held.push(io);
    else io.complete(null);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** One transmission phase with simple replies, a client that takes answers when told, and little memory. */
class Bench {
  readonly device: SlowReads;
  readonly pool: PagePool;
  readonly outbox: Outbox;
  readonly transmission: Transmission;
  /** Bytes the client has taken. */
  taken = 0;
  readonly #inbox: Inbox;
  #toCome = new Uint8Array(0);
  #sending = false;
  readonly #stream: Stream;

  constructor(pages: number, changes: Partial<DeviceInfo> = {}) {
    this.device = new SlowReads(changes);
    this.pool = new PagePool(PAGE_BYTES, pages, (bytes) => Region.plain(bytes));
    this.pool.join();
    this.#inbox = new Inbox(this.pool, NBD_HEADER.REQUEST);
    this.outbox = new Outbox(this.pool);
    const result = {
      exportName: '',
      structured: false,
      extended: false,
      baseAllocationId: null,
      noZeroes: true,
      blockSizeNegotiated: true,
      tls: false,
      transmissionFlags: 0,
    };
    const host = { progress: () => {}, over: () => {} };
    const { device, pool, outbox } = this;
    this.transmission = new Transmission(device, result, this.#inbox, outbox, pool, host);
    this.#stream = {
      owner: { received: () => {}, sent: () => {} },
      peer: 'test',
      receive: (region, start, length) => {
        const part = this.#toCome.subarray(0, length);
        region.bytes.set(part, start);
        this.#inbox.end += part.length;
        this.#toCome = this.#toCome.subarray(part.length);
      },
      send: (segments: Segments) => {
        this.taken += segments.totalBytes;
      },
      peerGone: () => false,
      close: () => {},
      startTls: () => {},
    };
  }

  /** All that the client has sent has been received. */
  get heard(): boolean {
    return this.#toCome.length === 0;
  }

  /** Sends requests and lets them be understood. */
  ask(type: number, length: number, count = 1): void {
    const bytes = new Uint8Array(count * NBD_HEADER.REQUEST);
    for (let i = 0; i < count; i += 1) {
      const view = new DataView(bytes.buffer, i * NBD_HEADER.REQUEST);
      writeRequest(view, false, 0, type, 0, i, 0, length);
    }
    assert.equal(this.#toCome.length, 0);
    this.#toCome = bytes;
    this.listen();
  }

  /** As a connection does: understands, sends one batch, and listens for more unless there is no room. */
  listen(): void {
    for (;;) {
      const lack = this.transmission.advance();
      if (!this.outbox.empty && !this.#sending) {
        this.#sending = true;
        this.outbox.pump(this.#stream);
      }
      if (lack === 'room' || lack === 'nothing') return;
      if (lack !== 'bytes') continue;
      if (this.#toCome.length === 0) return;
      assert.ok(this.#inbox.receive(this.#stream), 'no memory to receive into');
    }
  }

  /** The client takes the batch that is on its way, if there is one. */
  take(): boolean {
    if (!this.#sending) return false;
    this.#sending = false;
    this.outbox.sent();
    this.listen();
    return true;
  }

  /** Everything goes on until nothing moves. */
  settle(): void {
    for (;;) {
      const io = this.device.held.shift();
      io?.complete(null);
      if (io !== undefined) this.listen();
      if (!this.take() && io === undefined) return;
    }
  }
}

void test('a client that asks and takes no answers costs no more than its share of memory', () => {
  const bench = new Bench(8);
  // Each answer has 16 bytes: enough of them for more than all pages.
  for (let asked = 0; asked < 40 && bench.heard; asked += 1) bench.ask(NBD_CMD.FLUSH, 0, 4000);
  assert.equal(bench.heard, false, 'it is still listened to');
  assert.ok(bench.outbox.unsentBytes > bench.pool.shareBytes / 2);
  assert.ok(bench.pool.inUse < bench.pool.limit, 'it holds all memory');
  assert.equal(bench.transmission.advance(), 'room');
  while (bench.take());
  assert.equal(bench.transmission.advance(), 'bytes');
  assert.equal(bench.transmission.inFlight, 0);
});

void test('answers that wait for the end of a long read cost no more than their share either', () => {
  const bench = new Bench(8);
  const long = 3 * CHUNK_BYTES;
  bench.ask(NBD_CMD.READ, long);
  bench.device.held.shift()?.complete(null);
  bench.listen();
  while (bench.take());
  assert.equal(bench.device.held.length, 1);
  bench.ask(NBD_CMD.READ, CHUNK_BYTES, 20);
  // The short ones are done first, as when their data are in the cache.
  while (bench.device.held.length > 1) {
    for (const io of bench.device.held.splice(1)) io.complete(null);
    bench.listen();
  }
  // Half of the pool for them, the long one's chunk, and what is received: others can take the rest for good.
  assert.ok(bench.pool.inUse <= 4 + 1 + 1, `${bench.pool.inUse} pages are held`);
  while (bench.pool.inUse < 7) bench.pool.take();
  bench.settle();
  assert.equal(bench.transmission.inFlight, 0);
  assert.equal(bench.taken, long + 16 + 20 * (CHUNK_BYTES + 16));
});

for (const memoryAlignment of [1, 512, 4096, 65_536]) {
  void test(`a read of the largest size with memory aligned to ${memoryAlignment}`, () => {
    const bench = new Bench(8, { memoryAlignment, blockBytes: Math.max(512, memoryAlignment) });
    bench.ask(NBD_CMD.READ, CHUNK_BYTES);
    const { starts } = (bench.device.held[0] as Io).segments;
    assert.equal((starts[0] as number) % memoryAlignment, 0);
    bench.settle();
    assert.equal(bench.taken, CHUNK_BYTES + 16);
  });
}
