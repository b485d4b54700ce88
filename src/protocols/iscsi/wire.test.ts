import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import * as wire from './wire.ts';
import { BHS_BYTES, FIELD, FLAG_FINAL, ISCSI_OP, RESERVED_TAG } from './wire.ts';

const AT = 8;

/** A header written over old bytes; nothing outside of it may change. */
function written(write: (view: DataView, at: number) => void): string {
  const bytes = new Uint8Array(AT + BHS_BYTES + 8).fill(0xee);
  write(new DataView(bytes.buffer), AT);
  assert.ok(bytes.subarray(0, AT).every((byte) => byte === 0xee));
  assert.ok(bytes.subarray(AT + BHS_BYTES).every((byte) => byte === 0xee));
  return Buffer.from(bytes.subarray(AT, AT + BHS_BYTES)).toString('hex');
}

/** Words of four bytes, as the RFC's figures show them. */
function words(...hex: string[]): string {
  assert.equal(hex.length, 12);
  return hex.join('');
}

const ZERO = '00000000';
const TAG = '11223344';

function start(hex: string, write: (view: DataView, at: number) => void): void {
  assert.equal(written(write).slice(0, hex.length), hex);
}

function tail(hex: string, write: (view: DataView, at: number) => void): void {
  assert.equal(written(write).slice(-hex.length), hex);
}

function lun(hex: string): number {
  const bytes = Buffer.alloc(BHS_BYTES);
  bytes.write(hex, FIELD.LUN, 'hex');
  return wire.readLun(new DataView(bytes.buffer, bytes.byteOffset, BHS_BYTES), 0);
}

function find(hex: string, type: number): number {
  const bytes = Uint8Array.from(Buffer.from(hex, 'hex'));
  return wire.findAhs(new DataView(bytes.buffer), 0, bytes.length, type);
}

test('SCSI Response [RFC 7143 11.4]', () => {
  const got = written((view, at) => {
    wire.writeScsiResponse(view, at, 0x11223344, 0x02, 0, 2, 5, 512, 0x14);
    wire.writeSequence(view, at, 7, 8, 9);
  });
  assert.equal(
    got,
    words(
      '21820002',
      '00000014',
      ZERO,
      ZERO,
      TAG,
      ZERO,
      '00000007',
      '00000008',
      '00000009',
      '00000005',
      ZERO,
      '00000200',
    ),
  );
});

test('Data-In [RFC 7143 11.7] and R2T [RFC 7143 11.8]', () => {
  const dataIn = written((view, at) => {
    wire.writeDataIn(view, at, 0x11223344, 0x81, 0, 3, 4096, 0, 0x10000);
    wire.writeSequence(view, at, 0xffffffff, 2, 3);
  });
  assert.equal(
    dataIn,
    words(
      '25810000',
      '00010000',
      ZERO,
      ZERO,
      TAG,
      'ffffffff',
      'ffffffff',
      '00000002',
      '00000003',
      '00000003',
      '00001000',
      ZERO,
    ),
  );
  const r2t = written((view, at) => {
    wire.writeR2t(view, at, 0x11223344, 0x55, 1, 65536, 262144);
    wire.writeLun(view, at, 3);
  });
  assert.equal(
    r2t,
    words(
      '31800000',
      ZERO,
      '00030000',
      ZERO,
      TAG,
      '00000055',
      ZERO,
      ZERO,
      ZERO,
      '00000001',
      '00010000',
      '00040000',
    ),
  );
});

test('the rarer PDUs of a target', () => {
  const at32 = `${ZERO}${ZERO}`;
  start(`22800500${ZERO}${at32}${TAG}`, (v, at) => wire.writeTmfResponse(v, at, 0x11223344, 5));
  start(`2080000000000009${at32}ffffffff00000077`, (v, at) =>
    wire.writeNopIn(v, at, RESERVED_TAG, 0x77, 9),
  );
  start(`2440000000000100${at32}${TAG}00000001`, (v, at) =>
    wire.writeTextResponse(v, at, 0x11223344, 1, 0x40, 256),
  );
  start(`2387000000000010${ZERO}00000102${TAG}`, (v, at) =>
    wire.writeLoginResponse(v, at, 0x11223344, 0x87, 0x0102, 0, 16),
  );
  tail(`02010000${at32}`, (v, at) => wire.writeLoginResponse(v, at, 1, 0, 0, 0x0201, 0));
  start(`26800100${ZERO}${at32}${TAG}`, (v, at) =>
    wire.writeLogoutResponse(v, at, 0x11223344, 1, 2, 20),
  );
  tail(`00020014${ZERO}`, (v, at) => wire.writeLogoutResponse(v, at, 1, 0, 2, 20));
  start(`3280000000000012${at32}ffffffff`, (v, at) =>
    wire.writeAsyncMessage(v, at, 1, 2, 3, 4, 0x12),
  );
  tail('010000020003000400000000', (v, at) => wire.writeAsyncMessage(v, at, 1, 2, 3, 4, 0));
  start(`3f80040000000030${at32}ffffffff`, (v, at) => wire.writeReject(v, at, 4, 48));
});

test('what an initiator writes, a target reads', () => {
  const view = new DataView(new ArrayBuffer(64));
  const cdb = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
  wire.writeScsiCommand(view, 4, 0xfedcba98, FLAG_FINAL | 0x21, 300, 0xfffffff0, cdb, 77);
  wire.writeRequestSequence(view, 4, 0x80000000, 5);
  assert.equal(wire.opcodeOf(view, 4), ISCSI_OP.SCSI_COMMAND);
  assert.equal(wire.isImmediate(view, 4), false);
  assert.equal(wire.isFinal(view, 4), true);
  assert.equal(wire.flagsOf(view, 4), 0xa1);
  assert.equal(wire.initiatorTaskTag(view, 4), 0xfedcba98);
  assert.equal(wire.expectedDataTransferLength(view, 4), 0xfffffff0);
  assert.equal(wire.readLun(view, 4), 300);
  assert.equal(wire.dataSegmentLength(view, 4), 77);
  assert.equal(wire.ahsBytes(view, 4), 0);
  assert.equal(view.getUint32(4 + FIELD.CMD_SN), 0x80000000);
  assert.equal(view.getUint32(4 + FIELD.EXP_STAT_SN), 5);
  const read = new Uint8Array(16);
  wire.readCdb(view, 4, read);
  assert.deepEqual(read, cdb);

  view.setUint8(4 + FIELD.TOTAL_AHS_LENGTH, 255);
  wire.setDataSegmentLength(view, 4, 0xffffff);
  assert.equal(wire.ahsBytes(view, 4), 1020);
  assert.equal(wire.dataSegmentLength(view, 4), 0xffffff);

  wire.writeDataOut(view, 0, 1, 2, FLAG_FINAL, 3, 8192, 4096);
  assert.equal(wire.targetTransferTag(view, 0), 2);
  assert.equal(view.getUint32(FIELD.DATA_SN), 3);
  assert.equal(view.getUint32(FIELD.BUFFER_OFFSET), 8192);
  wire.writeRequest(view, 0, ISCSI_OP.NOP_OUT | wire.IMMEDIATE, FLAG_FINAL, 1, RESERVED_TAG, 0);
  assert.equal(wire.isImmediate(view, 0), true);
  assert.equal(wire.opcodeOf(view, 0), ISCSI_OP.NOP_OUT);
});

test('LUN fields [SAM-5 4.7]', () => {
  assert.equal(lun('0000000000000000'), 0);
  assert.equal(lun('00ff000000000000'), 255);
  assert.equal(lun('4000000000000000'), 0);
  assert.equal(lun('4100000000000000'), 256);
  assert.equal(lun('7fff000000000000'), 16383);
  // Another bus, logical unit addressing, well-known, extended flat, a second level.
  for (const other of ['0100', '8000', 'c101', 'd200', 'ffff', '00000001', '4000000000000001']) {
    assert.equal(lun(other.padEnd(16, '0')), -1, other);
  }
  fc.assert(
    fc.property(fc.nat({ max: 16383 }), (n) => {
      const view = new DataView(new ArrayBuffer(2 * BHS_BYTES));
      wire.writeLun(view, 0, n);
      wire.copyLun(view, 0, view, BHS_BYTES);
      assert.equal(wire.readLun(view, BHS_BYTES), n);
    }),
  );
});

test('serial numbers wrap around', () => {
  assert.equal(wire.serialLess(0xffffffff, 0), true);
  assert.equal(wire.serialLess(0, 0xffffffff), false);
  assert.equal(wire.serialLess(5, 5), false);
  assert.equal(wire.serialLessOrEqual(5, 5), true);
  assert.equal(wire.serialAdd(0xfffffffe, 3), 1);
  assert.equal(wire.serialDistance(0xfffffffe, 1), 3);
  assert.equal(wire.serialDistance(1, 0xfffffffe), -3);
  fc.assert(
    fc.property(fc.nat({ max: 0xffffffff }), fc.integer({ min: 1, max: 0x7fffffff }), (a, n) => {
      const b = wire.serialAdd(a, n);
      assert.ok(wire.serialLess(a, b) && !wire.serialLess(b, a));
      assert.equal(wire.serialDistance(a, b), n);
    }),
  );
});

test('additional header segments are found, and malformed ones told apart', () => {
  // 4 bytes of CDB more, then the bidirectional read length.
  const both = '00050100aabbccdd0005020000010000';
  assert.equal(find(both, wire.AHS_TYPE.EXTENDED_CDB), 0);
  assert.equal(find(both, wire.AHS_TYPE.BIDIRECTIONAL_READ_LENGTH), 8);
  assert.equal(find(both, 3), -1);
  assert.equal(find('', 1), -1);
  for (const bad of ['00000100', '00060100aabbccdd', '0005', 'ffff0100', `${both}00`]) {
    assert.equal(find(bad, 1), -2, bad);
  }
  const view = new DataView(Uint8Array.from(Buffer.from(both, 'hex')).buffer);
  assert.equal(wire.extendedCdbBytes(view, 0), 4);
  assert.equal(wire.bidirectionalReadLength(view, 8), 0x10000);
});

test('padding to words', () => {
  assert.deepEqual([0, 1, 3, 4, 5, 48].map(wire.padded), [0, 4, 4, 4, 8, 48]);
});
