import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { BlkRig, features, header, MODERN, ranges, Sent } from '../../../test/virtio/blk-rig.ts';
import type { MemoryStore } from '../../stores/memory/memory-store.ts';
import { VIRTIO_BLK_F, VIRTIO_BLK_S, VIRTIO_BLK_T } from './blk.ts';
import { BlkRequest, blkRules } from './blk-request.ts';

// What a driver gets for its requests: every MUST and SHOULD of [virtio 5.2.6] for the device, but the write cache's.

const { OK, IOERR, UNSUPP } = VIRTIO_BLK_S;
const SECTORS = 8192;

function bytes(length: number, seed = 1): Uint8Array {
  return new Uint8Array(length).map((_, i) => (i * 7 + seed * 31 + (i >> 8)) & 0xff);
}

function memoryRig(options: Parameters<typeof BlkRig.memory>[0] = {}): BlkRig {
  return BlkRig.memory(options).start();
}

test('5.2.6 IN returns what OUT wrote, and the used length covers data and status', () => {
  const at = memoryRig();
  const written = at.request(VIRTIO_BLK_T.OUT, 3, bytes(1024));
  assert.deepEqual([written.status, written.written], [OK, 1]);
  const read = at.request(VIRTIO_BLK_T.IN, 3, 1024);
  assert.deepEqual([read.status, read.written], [OK, 1025]);
  assert.deepEqual(read.data, bytes(1024));
  assert.deepEqual(at.request(VIRTIO_BLK_T.IN, 5, 512).data, new Uint8Array(512));
});

test('2.7.4.1, 5.2.6 however a driver cuts a request into buffers, it means the same', () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 12 });
  fc.assert(
    fc.property(cuts, cuts, fc.integer({ min: 0, max: 20 }), (readCuts, writeCuts, sector) => {
      const at = memoryRig();
      const data = bytes(1536, sector);
      const out = new Uint8Array([...header(VIRTIO_BLK_T.OUT, sector), ...data]);
      const written = at.send(pieces(out, readCuts), [1]);
      assert.deepEqual([written.status, written.written], [OK, 1]);
      const lengths = pieces(new Uint8Array(1537), writeCuts).map((piece) => piece.length);
      const read = at.send(pieces(header(VIRTIO_BLK_T.IN, sector), readCuts), lengths);
      assert.equal(read.status, OK);
      assert.deepEqual(read.data, data);
    }),
    { numRuns: 200 },
  );
});

function pieces(all: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const found: Uint8Array[] = [];
  let at = 0;
  for (const cut of cuts) {
    if (at >= all.length) break;
    found.push(all.subarray(at, at + cut));
    at += cut;
  }
  if (at < all.length) found.push(all.subarray(at));
  return found;
}

test('a request without a whole header, or without room for its status, breaks the ring', () => {
  const request = new BlkRequest();
  const { info } = memoryRig().disk;
  const rules = blkRules(MODERN);
  const short = new Sent([header(VIRTIO_BLK_T.IN).subarray(0, 15)], [513]);
  assert.throws(() => request.parse(short.chain, info, rules), { spec: 'virtio 5.2.6' });
  const statusless = new Sent([header(VIRTIO_BLK_T.OUT), bytes(512)], []);
  assert.throws(() => request.parse(statusless.chain, info, rules), { spec: 'virtio 5.2.6' });
  const empty = new Sent([], []);
  assert.throws(() => request.parse(empty.chain, info, rules), { spec: 'virtio 5.2.6' });
});

test('5.2.6.1 data that are not whole sectors get IOERR and change nothing', () => {
  const at = memoryRig();
  for (const length of [1, 511, 513]) {
    assert.equal(at.request(VIRTIO_BLK_T.OUT, 0, bytes(length)).status, IOERR);
    assert.equal(at.request(VIRTIO_BLK_T.IN, 0, length).status, IOERR);
  }
  assert.deepEqual(at.request(VIRTIO_BLK_T.IN, 0, 1024).data, new Uint8Array(1024));
});

test('5.2.6.1 a request beyond capacity gets IOERR, however large its sector is', () => {
  const at = memoryRig();
  assert.equal(at.request(VIRTIO_BLK_T.IN, SECTORS - 1, 512).status, OK);
  for (const sector of [SECTORS, SECTORS + 1, 2 ** 32, 2 ** 53]) {
    assert.equal(at.request(VIRTIO_BLK_T.IN, sector, 512).status, IOERR);
    assert.equal(at.request(VIRTIO_BLK_T.OUT, sector, bytes(512)).status, IOERR);
  }
  assert.equal(at.request(VIRTIO_BLK_T.IN, SECTORS - 1, 1024).status, IOERR);
  const head = header(VIRTIO_BLK_T.IN).fill(0xff, 8);
  assert.equal(at.send([head], [512, 1]).status, IOERR);
});

test('a read that fails leaves zeroes, and says no more than was written', () => {
  const at = memoryRig();
  const failed = at.request(VIRTIO_BLK_T.IN, SECTORS, 1024);
  assert.deepEqual([failed.status, failed.written], [IOERR, 1025]);
  assert.deepEqual(failed.data, new Uint8Array(1024));
  const huge = at.request(VIRTIO_BLK_T.IN, SECTORS, 2 ** 21);
  assert.deepEqual([huge.status, huge.written], [IOERR, 0]);
});

test('a request for nothing succeeds', () => {
  const at = memoryRig();
  assert.equal(at.request(VIRTIO_BLK_T.IN, 0, 0).status, OK);
  assert.equal(at.request(VIRTIO_BLK_T.OUT, 0, new Uint8Array(0)).status, OK);
});

test('room that a request has no use for is not said to be written', () => {
  const at = memoryRig();
  const written = at.send([header(VIRTIO_BLK_T.OUT), bytes(512)], [100, 1]);
  assert.deepEqual([written.status, written.written], [OK, 0]);
  const flushed = at.send([header(VIRTIO_BLK_T.FLUSH, 77), bytes(512)], [100, 1]);
  assert.deepEqual([flushed.status, flushed.written], [OK, 0]);
});

test('blocks of 4096 bytes: what is not aligned to them gets IOERR', () => {
  const at = memoryRig({ blockBytes: 4096 });
  assert.equal(at.request(VIRTIO_BLK_T.OUT, 8, bytes(4096)).status, OK);
  assert.deepEqual(at.request(VIRTIO_BLK_T.IN, 8, 4096).data, bytes(4096));
  for (const [sector, length] of [
    [1, 4096],
    [0, 512],
    [8, 4608],
  ] as const) {
    assert.equal(at.request(VIRTIO_BLK_T.IN, sector, length).status, IOERR);
    assert.equal(at.request(VIRTIO_BLK_T.OUT, sector, bytes(length)).status, IOERR);
  }
  assert.equal(at.request(VIRTIO_BLK_T.DISCARD, 0, ranges([4, 8])).status, IOERR);
  assert.equal(at.request(VIRTIO_BLK_T.WRITE_ZEROES, 0, ranges([8, 4])).status, IOERR);
});

test('5.2.6.2 RO: every request that would write gets IOERR and writes nothing', () => {
  const at = memoryRig({ readOnly: true });
  assert.equal(at.request(VIRTIO_BLK_T.OUT, 0, bytes(512)).status, IOERR);
  assert.equal(at.request(VIRTIO_BLK_T.OUT, 0, new Uint8Array(0)).status, IOERR);
  assert.equal(at.request(VIRTIO_BLK_T.DISCARD, 0, ranges([0, 1])).status, IOERR);
  assert.equal(at.request(VIRTIO_BLK_T.WRITE_ZEROES, 0, ranges([0, 1])).status, IOERR);
  assert.equal(at.request(VIRTIO_BLK_T.IN, 0, 512).status, OK);
  assert.equal(at.flush().status, OK);
  const plain = BlkRig.memory({ readOnly: true }).start(features(VIRTIO_BLK_F.FLUSH));
  assert.equal(plain.request(VIRTIO_BLK_T.DISCARD, 0, ranges([0, 1])).status, IOERR);
  assert.equal(plain.request(VIRTIO_BLK_T.WRITE_ZEROES, 0, ranges([0, 1, 2])).status, UNSUPP);
});

test('5.2.6 GET_ID fills 20 bytes, padded with NUL, and no NUL after 20', () => {
  const short = memoryRig({ serial: 'disk-7' });
  const read = short.request(VIRTIO_BLK_T.GET_ID, 0, 20);
  assert.deepEqual([read.status, read.written], [OK, 21]);
  assert.equal(Buffer.from(read.data).toString('latin1'), 'disk-7'.padEnd(20, '\0'));
  const long = memoryRig({ serial: '01234567890123456789' });
  const twenty = long.request(VIRTIO_BLK_T.GET_ID, 0, 20);
  assert.equal(Buffer.from(twenty.data).toString('latin1'), '01234567890123456789');
  const small = long.request(VIRTIO_BLK_T.GET_ID, 0, 4);
  assert.deepEqual([small.status, small.written, small.data.length], [OK, 5, 4]);
  const large = long.request(VIRTIO_BLK_T.GET_ID, 0, 30);
  assert.deepEqual([large.status, large.written], [OK, 20]);
  assert.ok(large.data.subarray(20).every((byte) => byte === 0xee));
});

test('5.2.6.2 what is not offered gets UNSUPP: zones, secure erase, lifetime, SCSI, unknown types', () => {
  const at = memoryRig();
  const T = VIRTIO_BLK_T;
  const types: number[] = [
    T.SCSI_CMD,
    T.SCSI_CMD_OUT,
    T.GET_LIFETIME,
    T.SECURE_ERASE,
    T.ZONE_APPEND,
  ];
  types.push(T.ZONE_REPORT, T.ZONE_OPEN, T.ZONE_CLOSE, T.ZONE_FINISH, T.ZONE_RESET);
  types.push(T.ZONE_RESET_ALL, 6, 7, 9, 12, 100, 0x7fffffff);
  for (const type of types) {
    const answered = at.request(type, 0, 512);
    assert.equal(answered.status, UNSUPP, `type ${type}`);
    assert.equal(answered.written, 513);
  }
});

test('5.2.6.3 FLUSH_OUT is FLUSH', () => {
  const at = new BlkRig().start();
  const { block } = at.write();
  at.store.finish();
  const flush = at.request(VIRTIO_BLK_T.FLUSH_OUT, 0, 0);
  assert.ok(at.store.syncing && !flush.visible);
  at.store.finishSync();
  at.turn();
  assert.equal(flush.status, OK);
  assert.ok(at.store.isBlockStable(block));
});

test('5.2.6 DISCARD and WRITE_ZEROES work on every one of several segments', () => {
  for (const type of [VIRTIO_BLK_T.DISCARD, VIRTIO_BLK_T.WRITE_ZEROES]) {
    const at = memoryRig();
    at.request(VIRTIO_BLK_T.OUT, 0, bytes(64 * 512));
    const all = Array.from({ length: 9 }, (_, i) => [i * 7, i % 3] as const);
    assert.equal(at.request(type, 0, ranges(...all)).status, OK);
    const expected = bytes(64 * 512);
    for (const [sector, count] of all) expected.fill(0, sector * 512, (sector + count) * 512);
    assert.deepEqual(at.request(VIRTIO_BLK_T.IN, 0, 64 * 512).data, expected);
  }
});

test('5.2.6.2 an unknown flag in any segment gets UNSUPP, and so does unmap on DISCARD; nothing is done', () => {
  const at = memoryRig();
  at.request(VIRTIO_BLK_T.OUT, 0, bytes(512));
  const { DISCARD, WRITE_ZEROES } = VIRTIO_BLK_T;
  assert.equal(at.request(DISCARD, 0, ranges([0, 1], [1, 1, 1])).status, UNSUPP);
  for (const flags of [2, 3, 0x80000000]) {
    assert.equal(at.request(DISCARD, 0, ranges([0, 1], [1, 1, flags])).status, UNSUPP);
    assert.equal(at.request(WRITE_ZEROES, 0, ranges([0, 1], [1, 1, flags])).status, UNSUPP);
  }
  // Also where a range is wrong besides: the flag is a MUST, the range only an error.
  assert.equal(at.request(DISCARD, 0, ranges([SECTORS, 1], [1, 1, 1])).status, UNSUPP);
  assert.deepEqual(at.request(VIRTIO_BLK_T.IN, 0, 512).data, bytes(512));
});

test('5.2.6.2 WRITE_ZEROES reads as zeroes with unmap and without; only with it is space given back', () => {
  const at = memoryRig();
  const { WRITE_ZEROES } = VIRTIO_BLK_T;
  const store = at.disk.store as MemoryStore;
  at.request(VIRTIO_BLK_T.OUT, 0, bytes(2 ** 18));
  const before = store.allocatedBytes;
  assert.equal(at.request(WRITE_ZEROES, 0, ranges([0, 256])).status, OK);
  assert.equal(store.allocatedBytes, before);
  assert.equal(at.request(WRITE_ZEROES, 0, ranges([256, 256, 1])).status, OK);
  assert.ok(store.allocatedBytes < before);
  const read = at.request(VIRTIO_BLK_T.IN, 0, 2 ** 18);
  assert.deepEqual(read.data, new Uint8Array(2 ** 18));
});

test('5.2.6.1 segments beyond the limits or the disk, half ones and none get IOERR, and nothing is done', () => {
  const at = memoryRig();
  at.request(VIRTIO_BLK_T.OUT, 0, bytes(512));
  for (const type of [VIRTIO_BLK_T.DISCARD, VIRTIO_BLK_T.WRITE_ZEROES]) {
    const many = Array.from({ length: 257 }, () => [0, 1] as const);
    assert.equal(at.request(type, 0, ranges(...many)).status, IOERR);
    assert.equal(at.request(type, 0, ranges([0, 1], [SECTORS, 1])).status, IOERR);
    assert.equal(at.request(type, 0, ranges([0, 1], [0, 2 ** 22 + 1])).status, IOERR);
    assert.equal(at.request(type, 0, ranges([0, 1]).subarray(0, 15)).status, IOERR);
    assert.equal(at.request(type, 0, new Uint8Array(0)).status, IOERR);
  }
  assert.deepEqual(at.request(VIRTIO_BLK_T.IN, 0, 512).data, bytes(512));
});

test('DISCARD and WRITE_ZEROES that were not negotiated get UNSUPP', () => {
  const at = BlkRig.memory().start(features(VIRTIO_BLK_F.FLUSH));
  assert.equal(at.request(VIRTIO_BLK_T.DISCARD, 0, ranges([0, 1])).status, UNSUPP);
  assert.equal(at.request(VIRTIO_BLK_T.WRITE_ZEROES, 0, ranges([0, 1])).status, UNSUPP);
});

test('5.2.6 the reserved word means nothing without REQ_FLAGS', () => {
  const at = new BlkRig().start(features(VIRTIO_BLK_F.FLUSH));
  const { sent, block } = at.write(VIRTIO_BLK_T.OUT, 0xffffffff);
  at.store.finish();
  at.turn();
  assert.equal(sent.status, OK);
  assert.ok(!at.store.isBlockStable(block));
});

test('issue 237: with REQ_FLAGS_OUT_FUA a flagged write is stable when it completes (P2), and no other is', () => {
  const { REQ_FLAGS, REQ_FLAGS_OUT_FUA, FLUSH } = VIRTIO_BLK_F;
  const at = new BlkRig({ offerFua: true }).start(features(FLUSH, REQ_FLAGS, REQ_FLAGS_OUT_FUA));
  const plain = at.write();
  const fua = at.write(VIRTIO_BLK_T.OUT, 1);
  at.store.finishAll();
  at.turn();
  assert.equal(plain.sent.status, OK);
  assert.ok(!fua.sent.visible && at.store.syncing);
  at.store.finishSync();
  at.turn();
  assert.equal(fua.sent.status, OK);
  assert.ok(at.store.isBlockStable(fua.block));
});

test('issue 237: flags that mean nothing to a request, or were not negotiated, get UNSUPP', () => {
  const { REQ_FLAGS, REQ_FLAGS_OUT_FUA, FLUSH } = VIRTIO_BLK_F;
  const both = new BlkRig({ offerFua: true }).start(features(FLUSH, REQ_FLAGS, REQ_FLAGS_OUT_FUA));
  assert.equal(both.request(VIRTIO_BLK_T.OUT, 0, bytes(512), 2).status, UNSUPP);
  assert.equal(both.request(VIRTIO_BLK_T.OUT, 0, bytes(512), 0x80000001).status, UNSUPP);
  assert.equal(both.request(VIRTIO_BLK_T.IN, 0, 512, 1).status, UNSUPP);
  const one = new BlkRig({ offerFua: true }).start(features(FLUSH, REQ_FLAGS));
  assert.equal(one.request(VIRTIO_BLK_T.OUT, 0, bytes(512), 1).status, UNSUPP);
  const neither = new BlkRig({ offerFua: true, auto: true }).start(
    features(FLUSH, REQ_FLAGS_OUT_FUA),
  );
  assert.equal(neither.request(VIRTIO_BLK_T.OUT, 0, bytes(512), 1).status, OK);
});
