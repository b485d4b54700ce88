import assert from 'node:assert/strict';
import test from 'node:test';
import { FLAG, Io, OP, type Op } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { VIRTIO_BLK_S, VIRTIO_BLK_T } from '../virtio/blk.ts';
import { BlkRequest, type BlkTerms } from './blk-client-request.ts';

const GUEST = 0x10_0000;
const PLACE = { header: 0, range: 16, status: 32, data: 4096 };
const MEMORY_ADDRESS = 0x7000_0000;

const PLAIN = {
  flush: true,
  fua: false,
  discardBytes: 1 << 20,
  zeroesBytes: 1 << 20,
  zeroesMayUnmap: true,
  maxTransferBytes: 65536,
  sizeMax: Infinity,
  dataBuffers: 16,
  writeBack: true,
};

/** Starts in memory, and lengths. */
function pairs(buffers: readonly { address: number; length: number }[]): number[][] {
  return buffers.map(({ address, length }) => [address - GUEST, length]);
}

/** One request over memory of its own, whose device is the test. */
class Rig {
  readonly memory = new Region(MEMORY_ADDRESS, new ArrayBuffer(1 << 18));
  readonly request: BlkRequest;
  readonly terms: BlkTerms;

  constructor(change: Partial<BlkTerms> = {}) {
    this.terms = { ...PLAIN, memory: this.memory, guestAddress: GUEST, ...change };
    this.request = new BlkRequest(0, this.terms, PLACE);
  }

  begin(op: Op, offset: number, length: number, flags = 0, ...regions: Region[]): Io {
    const io = new Io();
    io.reset(op, offset, length, flags);
    for (const region of regions) io.segments.push(region, 0, region.bytes.length);
    this.request.begin(io);
    return io;
  }

  /** The chain as the device sees it: type, flags, sector; data buffers from the start of memory; the way they go. */
  chain(): { type: number; flags: number; sector: number; out: number[][]; in: number[][] } {
    const { readable, writable } = this.request;
    const [header, ...out] = pairs(readable);
    const status = pairs(writable).at(-1);
    assert.deepEqual(header, [PLACE.header, 16]);
    assert.deepEqual(status, [PLACE.status, 1]);
    const { view } = this.memory;
    assert.equal(view.getUint32(12, true), 0);
    return {
      type: view.getUint32(0, true),
      flags: view.getUint32(4, true),
      sector: view.getUint32(8, true),
      out,
      in: pairs(writable).slice(0, -1),
    };
  }

  /** The types of all chains of the Io, each answered with success. */
  types(): number[] {
    const types: number[] = [];
    while (this.request.next()) {
      types.push(this.chain().type);
      this.finish(VIRTIO_BLK_S.OK);
    }
    return types;
  }

  finish(status: number, written?: number): void {
    this.memory.bytes[PLACE.status] = status;
    const room = this.request.writable.reduce((sum, { length }) => sum + length, 0);
    this.request.finish(written ?? room);
  }
}

const { IN, OUT, FLUSH, DISCARD, WRITE_ZEROES } = VIRTIO_BLK_T;

test('data outside shared memory is copied, on the way out and back', () => {
  const rig = new Rig();
  const bytes = new Uint8Array(1024).map((_, i) => i & 0xff);
  const [one, other] = [Region.plain(bytes.slice(0, 100)), Region.plain(bytes.slice(100))];
  rig.begin(OP.WRITE, 5120, 1024, 0, one, other);
  assert.ok(rig.request.next());
  assert.deepEqual(rig.chain(), { type: OUT, flags: 0, sector: 10, out: [[4096, 1024]], in: [] });
  assert.deepEqual(rig.memory.bytes.slice(4096, 5120), bytes);
  rig.finish(VIRTIO_BLK_S.OK);
  assert.ok(!rig.request.next());
  one.bytes.fill(0);
  other.bytes.fill(0);
  rig.begin(OP.READ, 0, 1024, 0, one, other);
  assert.ok(rig.request.next());
  assert.deepEqual(rig.chain(), { type: IN, flags: 0, sector: 0, out: [], in: [[4096, 1024]] });
  rig.finish(VIRTIO_BLK_S.OK);
  assert.ok(!rig.request.next());
  assert.equal(rig.request.error, null);
  assert.deepEqual(Buffer.concat([one.bytes, other.bytes]), Buffer.from(bytes));
});

test('data in shared memory is named where it is, cut as the device wants it', () => {
  const rig = new Rig({ sizeMax: 1024 });
  const inside = new Region(MEMORY_ADDRESS + 65536, rig.memory.bytes.buffer, 65536, 1536);
  const more = new Region(MEMORY_ADDRESS + 131072, rig.memory.bytes.buffer, 131072, 512);
  rig.begin(OP.READ, 0, 2048, 0, inside, more);
  assert.ok(rig.request.next());
  assert.deepEqual(rig.chain().in, [
    [65536, 1024],
    [66560, 512],
    [131072, 512],
  ]);
  // One segment elsewhere, or more buffers than the device takes: all of it is copied.
  rig.begin(OP.READ, 0, 2048, 0, inside, Region.plain(512));
  assert.ok(rig.request.next());
  assert.deepEqual(rig.chain().in, [
    [4096, 1024],
    [5120, 1024],
  ]);
  const few = new Rig({ sizeMax: 1024, dataBuffers: 2 });
  few.begin(OP.READ, 0, 2048, 0, inside, more);
  assert.ok(few.request.next());
  assert.deepEqual(few.chain().in, [
    [4096, 1024],
    [5120, 1024],
  ]);
});

test('FUA is in the request, or a flush after it, or nothing where writes are stable anyway', () => {
  const write = (rig: Rig): number[] => {
    rig.begin(OP.WRITE, 0, 512, FLAG.FUA, Region.plain(512));
    return rig.types();
  };
  assert.deepEqual(write(new Rig()), [OUT, FLUSH]);
  assert.deepEqual(write(new Rig({ fua: true })), [OUT]);
  assert.deepEqual(write(new Rig({ writeBack: false })), [OUT]);
  const rig = new Rig({ fua: true });
  rig.begin(OP.WRITE, 0, 512, FLAG.FUA, Region.plain(512));
  assert.ok(rig.request.next());
  assert.equal(rig.chain().flags, 1);
  // The bit belongs to writes alone.
  rig.begin(OP.WRITE_ZEROES, 0, 512, FLAG.FUA);
  assert.deepEqual(rig.types(), [WRITE_ZEROES, FLUSH]);
  rig.begin(OP.DISCARD, 0, 512, FLAG.FUA);
  assert.deepEqual(rig.types(), [DISCARD, FLUSH]);
});

test('the stricter setting of submission and completion decides about FUA', () => {
  for (const [before, later] of [
    [true, false],
    [false, true],
  ] as const) {
    const rig = new Rig({ writeBack: before });
    rig.begin(OP.WRITE, 0, 512, FLAG.FUA, Region.plain(512));
    assert.ok(rig.request.next());
    rig.terms.writeBack = later;
    rig.finish(VIRTIO_BLK_S.OK);
    assert.deepEqual(rig.types(), [FLUSH]);
  }
});

test('a barrier is a flush, the request, a flush', () => {
  const rig = new Rig();
  rig.begin(OP.WRITE, 0, 512, FLAG.BARRIER, Region.plain(512));
  assert.deepEqual(rig.types(), [FLUSH, OUT, FLUSH]);
});

test('discards and zeroes go in pieces, and unmap only where it may', () => {
  const rig = new Rig({ discardBytes: 1024, zeroesBytes: 1024 });
  const ranges = (): number[][] => {
    const found: number[][] = [];
    while (rig.request.next()) {
      const { out, sector } = rig.chain();
      assert.deepEqual(out, [[PLACE.range, 16]]);
      assert.equal(sector, 0);
      const { view } = rig.memory;
      found.push([16, 24, 28].map((at) => view.getUint32(at, true)));
      rig.finish(VIRTIO_BLK_S.OK);
    }
    return found;
  };
  rig.begin(OP.DISCARD, 512, 2560);
  // "The unmap bit MUST be zero for discard commands" [virtio 5.2.6.1].
  assert.deepEqual(ranges(), [
    [1, 2, 0],
    [3, 2, 0],
    [5, 1, 0],
  ]);
  rig.begin(OP.WRITE_ZEROES, 0, 1024);
  assert.deepEqual(ranges(), [[0, 2, 1]]);
  rig.begin(OP.WRITE_ZEROES, 0, 1024, FLAG.NO_HOLE);
  assert.deepEqual(ranges(), [[0, 2, 0]]);
  rig.begin(OP.WRITE_ZEROES, 0, 1024, FLAG.FAST);
  assert.deepEqual(rig.types(), []);
  assert.equal(rig.request.error, 'EOPNOTSUPP');
});

test('without WRITE_ZEROES zeroes are written', () => {
  const rig = new Rig({ zeroesBytes: 0, maxTransferBytes: 1024 });
  rig.memory.bytes.fill(7, 4096, 8192);
  rig.begin(OP.WRITE_ZEROES, 0, 1536);
  assert.ok(rig.request.next());
  assert.deepEqual(rig.chain(), { type: OUT, flags: 0, sector: 0, out: [[4096, 1024]], in: [] });
  assert.ok(rig.memory.bytes.subarray(4096, 5120).every((byte) => byte === 0));
  rig.finish(VIRTIO_BLK_S.OK);
  assert.ok(rig.request.next());
  assert.deepEqual(rig.chain(), { type: OUT, flags: 0, sector: 2, out: [[4096, 512]], in: [] });
});

/** How a READ ends. */
function outcome(status: number, written?: number): string | null {
  const rig = new Rig();
  rig.begin(OP.READ, 0, 512, 0, Region.plain(512));
  assert.ok(rig.request.next());
  rig.finish(status, written);
  assert.ok(!rig.request.next());
  return rig.request.error;
}

test('what the device answers is what the Io gets', () => {
  assert.equal(outcome(VIRTIO_BLK_S.OK), null);
  assert.equal(outcome(VIRTIO_BLK_S.IOERR), 'EIO');
  assert.equal(outcome(VIRTIO_BLK_S.UNSUPP), 'EOPNOTSUPP');
  // A status that was never written, and data that was not [virtio 2.7.8.2].
  assert.equal(outcome(0xff), 'EIO');
  assert.equal(outcome(VIRTIO_BLK_S.OK, 1), 'EIO');
});

test('a failed piece is the end of its Io, and only syncs count as failed syncs', () => {
  const rig = new Rig();
  rig.begin(OP.WRITE, 0, 512, FLAG.FUA, Region.plain(512));
  assert.ok(rig.request.next());
  rig.finish(VIRTIO_BLK_S.OK);
  assert.ok(rig.request.next());
  rig.finish(VIRTIO_BLK_S.IOERR);
  assert.ok(rig.request.failedSync);
  assert.ok(!rig.request.next());
  rig.begin(OP.WRITE, 0, 512, 0, Region.plain(512));
  assert.ok(rig.request.next());
  rig.finish(VIRTIO_BLK_S.IOERR);
  assert.ok(!rig.request.failedSync);
});
