import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../../block/io.ts';
import {
  be16,
  be32,
  be64,
  bench,
  describeSense,
  filled,
  read10,
  senseOf,
  sync10,
  write10,
} from '../testing.ts';

type Form = 6 | 10 | 12 | 16;
const FORMS: readonly Form[] = [6, 10, 12, 16];
const READ = { 6: 0x08, 10: 0x28, 12: 0xa8, 16: 0x88 } as const;
const WRITE = { 6: 0x0a, 10: 0x2a, 12: 0xaa, 16: 0x8a } as const;

function cdb(
  opcode: number,
  form: Form,
  lba: number | bigint,
  blocks: number,
  flags = 0,
): number[] {
  const low = Number(BigInt.asUintN(32, BigInt(lba)));
  if (form === 6) return [opcode, (low >> 16) & 0x1f, ...be16(low), blocks & 0xff, 0];
  if (form === 10) return [opcode, flags, ...be32(low), 0, ...be16(blocks), 0];
  if (form === 12) return [opcode, flags, ...be32(low), ...be32(blocks), 0, 0];
  return [opcode, flags, ...be64(lba), ...be32(blocks), 0, 0];
}

test('READ and WRITE of each form move the blocks they name, piece by piece', () => {
  for (const form of FORMS) {
    const at = bench();
    const from = at.initiator();
    const data = Uint8Array.from({ length: 40 * 512 }, (_, i) => (i * 7 + form) & 0xff);
    from.good(cdb(WRITE[form], form, 472, 40), { dataOut: data });
    assert.deepEqual(at.store.bytes.slice(472 * 512), data);
    assert.deepEqual(from.good(cdb(READ[form], form, 472, 40)), data);
    assert.deepEqual(from.good(cdb(READ[form], form, 471, 1)), filled(0));
  }
});

test('zero blocks: 256 in the form of 6 bytes, none in the others', () => {
  const at = bench();
  const from = at.initiator();
  assert.equal(from.good(cdb(READ[6], 6, 0, 0)).length, 256 * 512);
  assert.equal(from.refused(cdb(READ[6], 6, 257, 0)), '5 2100');
  for (const form of [10, 12, 16] as const) {
    assert.equal(from.good(cdb(READ[form], form, 0, 0)).length, 0);
    from.good(cdb(WRITE[form], form, 511, 0));
    // libiscsi's suite asks for one block further than this.
    assert.equal(from.refused(cdb(READ[form], form, 512, 0)), '5 2100');
    assert.equal(from.refused(cdb(WRITE[form], form, 513, 0)), '5 2100');
  }
});

test('beyond the end, at the end of 32 bits, beyond 2^53 and at 2^64 - 1: out of range, never a crash', () => {
  const from = bench().initiator();
  for (const form of FORMS) {
    assert.equal(from.refused(cdb(READ[form], form, 511, 2)), '5 2100');
    assert.equal(from.refused(cdb(WRITE[form], form, 512, 1), { dataOut: filled(1) }), '5 2100');
  }
  for (const form of [10, 12] as const) {
    assert.equal(from.refused(cdb(READ[form], form, 0xffff_ffff, 1)), '5 2100');
  }
  for (const lba of [2n ** 53n - 1n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    for (const blocks of [0, 1, 0xffff]) {
      assert.equal(from.refused(cdb(READ[16], 16, lba, blocks)), '5 2100');
      assert.equal(from.refused(cdb(WRITE[16], 16, lba, blocks)), '5 2100');
    }
  }
});

test('more than the Block Limits page allows is refused, with the field', () => {
  const store = { sizeBytes: 64 * 1024 * 1024, maxTransferBytes: 1024 * 1024 };
  const from = bench({ store }).initiator();
  const most = 65_536;
  const page = new DataView(from.good([0x12, 1, 0xb0, 0, 64, 0]).slice().buffer);
  assert.equal(page.getUint32(8), most);
  assert.equal(from.good(cdb(READ[16], 16, 0, most)).length, most * 512);
  assert.equal(from.refused(cdb(READ[16], 16, 0, most + 1)), '5 2400 C10');
  assert.equal(from.refused(cdb(WRITE[12], 12, 0, 0xffff_ffff)), '5 2400 C6');
});

test('reserved bits are refused with a pointer to the highest of them; NACA too', () => {
  const from = bench().initiator();
  const cases: [number[], string][] = [
    [[0x28, 0x20], 'C1.5'],
    [[0x28, 0xe0], 'C1.7'],
    [[0x28, 0x01], 'C1.0'],
    [[0x28, 0, 0, 0, 0, 0, 0xc0], 'C6.7'],
    [[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0x04], 'C9.2'],
    [[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0x80], 'C9.7'],
    [[0x08, 0x20], 'C1.5'],
    [[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40], 'C14.6'],
  ];
  for (const [bytes, field] of cases) assert.equal(from.refused(bytes), `5 2400 ${field}`);
  // GROUP NUMBER and DPO are taken.
  from.good([0x28, 0x10, 0, 0, 0, 0, 0x3f, 0, 1, 0]);
  assert.equal(from.refused([0xc1]), '5 2000');
});

test('P2: a write with FUA (or FUA_NV) is stable when it ends, one without is not, and READ with FUA is', () => {
  for (const form of [10, 12, 16] as const) {
    const at = bench();
    const from = at.initiator();
    from.good(cdb(WRITE[form], form, 0, 4), { dataOut: filled(1, 4) });
    assert.ok(at.store.stable.every((byte) => byte === 0));
    for (const [flag, lba] of [
      [0x08, 8],
      [0x02, 16],
    ] as const) {
      at.store.holdsSyncs = true;
      const sent = from.send(cdb(WRITE[form], form, lba, 40, flag), { dataOut: filled(2, 40) });
      assert.ok(!sent.done);
      while (!sent.done) at.store.finishSync();
      at.store.holdsSyncs = false;
      assert.equal(senseOf(sent), 'GOOD');
      assert.deepEqual(at.store.stable.slice(lba * 512, (lba + 40) * 512), filled(2, 40));
    }
    from.good(write10(200, 1), { dataOut: filled(3) });
    assert.deepEqual(from.good(cdb(READ[form], form, 200, 1, 0x08)), filled(3));
    assert.deepEqual(at.store.stable.slice(200 * 512, 201 * 512), filled(3));
    const { syncs } = at.store;
    from.good(cdb(READ[form], form, 200, 1, 0x08));
    assert.equal(at.store.syncs, syncs);
  }
});

test('P2: a sync that fails fails the write with FUA, and all that need one after it (P5)', () => {
  const at = bench();
  const from = at.initiator();
  at.store.nextSync = 'EIO';
  assert.equal(from.refused(write10(5, 1, 0x08), { dataOut: filled(1) }), '3 0c00');
  assert.equal(from.refused(write10(5, 1, 0x08), { dataOut: filled(1) }), '3 0c00');
  assert.equal(from.refused(sync10(0, 0)), '3 0c00');
  assert.equal(from.refused(read10(5, 1, 0x08)), '3 0c00');
});

test('what the disk fails with, as sense data with the LBA', () => {
  const at = bench();
  const from = at.initiator();
  at.store.holds = true;
  const reading = from.send(read10(8, 40));
  at.store.finish();
  at.store.finish(at.store.pending[0], 'EIO');
  assert.equal(senseOf(reading), '3 1100');
  const sense = reading.task.sense as Uint8Array;
  // The second piece of 8 KiB: VALID, INFORMATION = 8 + 16.
  assert.equal(sense[0], 0xf0);
  assert.equal(new DataView(sense.buffer).getUint32(3), 24);
  at.store.holds = false;
  for (const [error, expected] of [
    ['EIO', '3 0c00'],
    ['ENOSPC', '7 2707'],
    ['EROFS', '7 2700'],
    ['ENOMEM', 'status 8'],
    ['EBUSY', 'status 8'],
    ['ESHUTDOWN', '4 4400'],
  ] as const) {
    at.store.failures.set(OP.WRITE, error);
    assert.equal(from.refused(write10(0, 1), { dataOut: filled(1) }), expected);
  }
  // A failed request is its own: the next is done.
  from.good(write10(0, 1), { dataOut: filled(1) });
});

test('read-only disks and ejected media', () => {
  const readOnly = bench({ store: { readOnly: true } }).initiator();
  assert.equal(readOnly.refused(write10(0, 1), { dataOut: filled(1) }), '7 2700');
  readOnly.good(read10(0, 1));
  const at = bench({ unit: { removable: true } });
  const from = at.initiator();
  from.good([0x1b, 0, 0, 0, 2, 0]);
  // libiscsi's suite sends the obsolete SYNC_NV with it.
  for (const each of [read10(0, 1), write10(0, 1), sync10(0, 1, 6), [0, 0, 0, 0, 0, 0]]) {
    assert.equal(from.refused(each), '2 3a00');
  }
  assert.equal(describeSense(from.good([3, 0, 0, 0, 18, 0])), '0 0000');
});
