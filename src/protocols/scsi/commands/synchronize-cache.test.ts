import assert from 'node:assert/strict';
import test from 'node:test';
import { be32, be64, bench, filled, senseOf, sync10, write10 } from '../testing.ts';

const TUR = [0, 0, 0, 0, 0, 0];

function sync16(lba: bigint | number, blocks: number, flags = 0): number[] {
  return [0x91, flags, ...be64(lba), ...be32(blocks), 0, 0];
}

test('P1: it ends when what was written before is stable', () => {
  const at = bench();
  const from = at.initiator();
  from.good(write10(3, 2), { dataOut: filled(9, 2) });
  at.store.holdsSyncs = true;
  for (const cdb of [sync10(0, 0), sync16(3, 1)]) {
    from.good(write10(3, 1), { dataOut: filled(9) });
    const sent = from.send(cdb);
    assert.ok(!sent.done);
    at.store.finishSync();
    assert.equal(senseOf(sent), 'GOOD');
    assert.deepEqual(at.store.stable.slice(3 * 512, 5 * 512), filled(9, 2));
  }
});

test('P6: a range of which nothing is unstable costs no sync', () => {
  const at = bench();
  const from = at.initiator();
  from.good(sync10(0, 0));
  assert.equal(at.store.syncs, 0);
  from.good(write10(0, 1), { dataOut: filled(1) });
  // The disk is told apart in regions of 64 KiB.
  from.good(sync10(128, 128));
  from.good(sync16(256, 0));
  assert.equal(at.store.syncs, 0);
  assert.equal(at.store.stable[0], 0);
  from.good(sync10(0, 1));
  assert.equal(at.store.syncs, 1);
  from.good(sync10(0, 0));
  assert.equal(at.store.syncs, 1);
});

test('ranges beyond the end are refused, zero blocks reach to the last', () => {
  const at = bench();
  const from = at.initiator();
  from.good(sync10(511, 0));
  from.good(sync10(511, 1));
  assert.equal(from.refused(sync10(512, 0)), '5 2100');
  assert.equal(from.refused(sync10(511, 2)), '5 2100');
  assert.equal(from.refused(sync16(2n ** 64n - 1n, 1)), '5 2100');
  assert.equal(from.refused(sync16(2n ** 53n, 0)), '5 2100');
  from.good(write10(511, 1), { dataOut: filled(1) });
  from.good(sync10(300, 0));
  assert.equal(at.store.syncs, 1);
});

test('IMMED: GOOD at once; a failure is told with the next command of that nexus, once', () => {
  const at = bench();
  const [from, other] = [at.initiator(), at.initiator()];
  from.good(write10(0, 1), { dataOut: filled(1) });
  at.store.holdsSyncs = true;
  from.good(sync10(0, 0, 2));
  assert.ok(at.store.syncing);
  at.store.nextSync = 'EIO';
  at.store.finishSync();
  assert.match(at.lines.join(), /immediate SYNCHRONIZE CACHE failed with EIO/);
  // INQUIRY and the like do not take it away.
  from.good([0x12, 0, 0, 0, 96, 0]);
  other.good(TUR);
  assert.equal(from.refused(TUR), 'deferred 3 0c00');
  from.good(TUR);
});

test('IMMED: a success says nothing more', () => {
  const at = bench();
  const from = at.initiator();
  from.good(write10(0, 1), { dataOut: filled(1) });
  from.good(sync16(0, 0, 2));
  assert.equal(at.store.stable[0], 1);
  from.good(TUR);
});
