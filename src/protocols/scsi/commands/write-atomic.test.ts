import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../../block/io.ts';
import { TMF } from '../scsi.ts';
import { be16, be32, be64, bench, filled, senseOf, write10 } from '../testing.ts';

function atomic(lba: bigint | number, blocks: number, flags = 0, boundary = 0): number[] {
  return [0x9c, flags, ...be64(lba), ...be16(boundary), ...be16(blocks), 0, 0];
}

test('WRITE ATOMIC: as many blocks as the Block Limits page says, in one request', () => {
  const at = bench({ unit: { atomicBlocks: 256 } });
  const from = at.initiator();
  const limits = new DataView(from.good([0x12, 1, 0xb0, 0, 64, 0]).slice().buffer);
  // What one request of this disk takes.
  assert.equal(limits.getUint32(44), 16);
  from.good(atomic(496, 16), { dataOut: filled(3, 16) });
  assert.deepEqual(at.store.bytes.slice(496 * 512), filled(3, 16));
  assert.equal(at.store.syncs, 0);
  from.good(atomic(0, 1, 0x18), { dataOut: filled(4) });
  assert.deepEqual(at.store.stable.slice(0, 512), filled(4));
  from.good(atomic(0, 0));
  // The range is looked at first, as libiscsi's suite wants it.
  for (const [lba, blocks] of [
    [512, 1],
    [511, 2],
    [513, 0],
    [400, 200],
    [2n ** 63n, 1],
    [2n ** 64n - 1n, 0],
  ] as const) {
    assert.equal(from.refused(atomic(lba, blocks), { dataOut: filled(1) }), '5 2100');
  }
  assert.equal(from.refused(atomic(0, 17), { dataOut: filled(1, 17) }), '5 2400 C12');
  assert.equal(from.refused(atomic(0, 1, 0, 1), { dataOut: filled(1) }), '5 2400 C10');
  assert.equal(from.refused(atomic(0, 1, 0x20), { dataOut: filled(1) }), '5 2400 C1.5');
});

test('WRITE ATOMIC: cut off, aborted or failed, it changes nothing; others’ writes are not mixed with it', () => {
  const at = bench({ unit: { atomicBlocks: 256 } });
  const from = at.initiator();
  assert.equal(from.refused(atomic(0, 4), { dataOut: filled(1, 3) }), '5 2400 C12');
  const late = from.send(atomic(0, 4), { dataOut: filled(1, 4), late: true });
  at.target.manage(from.nexus, TMF.ABORT_TASK, 0, late.task.tag, () => {});
  assert.ok(late.done && late.task.aborted);
  at.store.failures.set(OP.WRITE, 'EIO');
  assert.equal(from.refused(atomic(0, 4), { dataOut: filled(1, 4) }), '3 0c00');
  assert.ok(at.store.bytes.every((byte) => byte === 0));
  at.store.holds = true;
  const first = from.send(atomic(0, 4), { dataOut: filled(1, 4) });
  const second = from.send(write10(2, 4), { dataOut: filled(2, 4) });
  assert.ok(first.ready && !second.ready);
  assert.equal(at.store.pending.length, 1);
  at.store.settle();
  assert.equal(senseOf(first), 'GOOD');
  assert.equal(senseOf(second), 'GOOD');
});

test('WRITE ATOMIC is not offered where nothing is promised', () => {
  const from = bench().initiator();
  assert.equal(from.refused(atomic(0, 1), { dataOut: filled(1) }), '5 2000');
  assert.equal(from.good([0x12, 1, 0xb0, 0, 64, 0])[47], 0);
});

test('READ DEFECT DATA: empty lists in the format that was asked for', () => {
  const from = bench().initiator();
  assert.deepEqual([...from.good([0x37, 0, 0x1d, 0, 0, 0, 0, 0, 32, 0])], [0, 0x1d, 0, 0]);
  assert.deepEqual([...from.good([0x37, 0, 0x08, 0, 0, 0, 0, 0, 2, 0])], [0, 0x08]);
  const twelve = [0xb7, 0x10, 0, 0, 0, 0, ...be32(32), 0, 0];
  assert.deepEqual([...from.good(twelve)], [0, 0x10, 0, 0, 0, 0, 0, 0]);
  assert.equal(from.refused([0x37, 0, 7, 0, 0, 0, 0, 0, 32, 0]), '5 2400 C2.2');
  assert.equal(from.refused([0xb7, 7, 0, 0, 0, 0, ...be32(32), 0, 0]), '5 2400 C1.2');
  const read = from.send([0x37, 0, 0x20, 0, 0, 0, 0, 0, 32, 0]);
  assert.equal(senseOf(read), '5 2400 C2.5');
});
