import assert from 'node:assert/strict';
import test from 'node:test';
import { BlkRig, features, MODERN, type BlkRigOptions } from '../../../test/virtio/blk-rig.ts';
import { CACHE_MODES, type CacheMode } from '../../durability/modes.ts';
import { VIRTIO_BLK_F, VIRTIO_BLK_S } from './blk.ts';
import { VIRTIO_F } from './virtio.ts';

// The write cache as a driver sees it, and whether it is so: peers' bugs T5, T6, T7 and T12.

const { FLUSH, CONFIG_WCE } = VIRTIO_BLK_F;
const { VERSION_1 } = VIRTIO_F;
const BOTH = features(VERSION_1, FLUSH, CONFIG_WCE);
const MODES = Object.keys(CACHE_MODES) as CacheMode[];
const WRITE_BACK = ['writeback', 'none'];
const WRITE_THROUGH = ['writethrough', 'directsync'];

/** A front-end that reads the configuration when it starts, then resets the device for its first driver. */
function booted(negotiated: bigint, options: BlkRigOptions = {}): BlkRig {
  const at = new BlkRig(options);
  at.readWriteback();
  at.reset();
  return at.start(negotiated);
}

/** Takes over what it reads when the configuration has changed, and is the driver's own eyes. */
function attentive(at: BlkRig): BlkRig {
  at.onConfigChange = () => at.readWriteback();
  at.turn();
  return at;
}

function flushed(at: BlkRig): void {
  const sent = at.flush();
  at.store.settle();
  at.turn();
  assert.equal(sent.status, VIRTIO_BLK_S.OK);
}

for (const mode of MODES) {
  test(`T12 ${mode}: neither FLUSH nor CONFIG_WCE: every write is stable (P9, 5.2.6.2 case 1)`, () => {
    const at = booted(features(VERSION_1), { mode });
    assert.equal(at.completesUnstable(), mode === 'unsafe');
    // A flush that nobody has announced is done, and changes nothing.
    flushed(at);
    assert.equal(at.completesUnstable(), mode === 'unsafe');
    const next = mode === 'unsafe' || CACHE_MODES[mode].writeCache ? 1 : 0;
    assert.equal(at.readWriteback(), next, 'the byte is for the driver after this one');
    assert.equal(at.configChanges, 0);
  });

  if (mode === 'unsafe') continue;

  test(`T12 ${mode}: FLUSH alone: a driver that assumes a cache gets what the mode says`, () => {
    const at = booted(features(VERSION_1, FLUSH), { mode });
    assert.equal(at.completesUnstable(), WRITE_BACK.includes(mode));
    flushed(at);
    assert.equal(at.completesUnstable(), !WRITE_THROUGH.includes(mode));
  });

  test(`T12 ${mode}: CONFIG_WCE without FLUSH: writeback is 0, and so it is (5.2.5.2)`, () => {
    const at = booted(features(VERSION_1, CONFIG_WCE), { mode });
    assert.equal(at.completesUnstable(), false, 'whatever the front-end says from its copy');
    const told = CACHE_MODES[mode].writeCache ? 1 : 0;
    attentive(at);
    assert.equal(at.configChanges, told, 'a front-end that has a 1 is told');
    assert.equal(at.readWriteback(), 0);
    flushed(at);
    assert.equal(at.completesUnstable(), false);
    assert.deepEqual(at.writeWriteback(1), { done: true, accepted: false }, 'no cache to be had');
    assert.equal(at.readWriteback(), 0);
    assert.equal(at.completesUnstable(), false);
  });

  test(`T12 ${mode}: both: writeback is what is true`, () => {
    const at = booted(BOTH, { mode });
    const byte = at.readWriteback();
    assert.equal(byte, WRITE_THROUGH.includes(mode) ? 0 : 1);
    assert.equal(at.completesUnstable(), WRITE_BACK.includes(mode));
    flushed(at);
    assert.equal(at.completesUnstable(), byte === 1, 'until-flush: from the first flush on');
    assert.equal(at.configChanges, 0);
  });

  test(`T12 ${mode}: both: what the driver switches is so from the answer on, and back again`, () => {
    const at = booted(BOTH, { mode });
    flushed(at);
    for (const value of [0, 1, 0, 0, 1, 1]) {
      const outcome = at.writeWriteback(value);
      at.store.settle();
      assert.deepEqual(outcome, { done: true, accepted: true });
      assert.equal(at.readWriteback(), value);
      assert.equal(at.completesUnstable(), value === 1);
    }
    at.turn();
    assert.equal(at.configChanges, 0, 'it knows');
  });

  test(`T12 ${mode}, read-only: the byte is the mode's, writes fail, flushes work`, () => {
    const subsets: number[][] = [[], [FLUSH], [CONFIG_WCE], [FLUSH, CONFIG_WCE]];
    for (const bits of subsets) {
      const at = attentive(booted(features(VERSION_1, ...bits), { mode, readOnly: true }));
      const fixed = bits.length === 1 && bits.includes(CONFIG_WCE);
      const shown: boolean = !fixed && CACHE_MODES[mode].writeCache;
      assert.equal(at.readWriteback(), shown ? 1 : 0);
      assert.equal(at.write().sent.status, VIRTIO_BLK_S.IOERR);
      flushed(at);
    }
  });
}

test('P8: unsafe cannot be switched off, and its flushes are not done', () => {
  const at = booted(BOTH, { mode: 'unsafe' });
  assert.deepEqual(at.writeWriteback(0), { done: true, accepted: false });
  assert.deepEqual(at.writeWriteback(1), { done: true, accepted: false });
  assert.equal(at.readWriteback(), 1);
  flushed(at);
  assert.equal(at.completesUnstable(), true);
  assert.equal(at.store.syncs, 0);
});

test('T5, P3, P4: switching off with writes in flight: what is answered after the switch is stable', () => {
  const at = booted(BOTH);
  const before = at.write();
  at.store.finish();
  at.turn();
  assert.equal(before.sent.status, VIRTIO_BLK_S.OK);
  const inFlight = [1, 2, 3, 4].map(() => at.write());
  const outcome = at.writeWriteback(0);
  assert.ok(!outcome.done && at.store.syncing);
  assert.equal(at.readWriteback(), 1, 'not before it is true');
  // A write that completes while the flush of the switch is under way is not covered by it.
  at.store.finish();
  at.turn();
  assert.ok(!inFlight[0]?.sent.visible);
  const later = at.write();
  at.store.finishSync();
  assert.deepEqual(outcome, { done: true, accepted: true });
  assert.ok(at.store.isBlockStable(before.block));
  assert.equal(at.readWriteback(), 0);
  for (const { sent, block } of [...inFlight, later]) {
    while (!sent.visible) {
      if (at.store.syncing) at.store.finishSync();
      else at.store.finish();
      at.turn();
      for (const each of [...inFlight, later]) {
        if (each.sent.visible) assert.ok(at.store.isBlockStable(each.block));
      }
    }
    assert.equal(sent.status, VIRTIO_BLK_S.OK);
    assert.ok(at.store.isBlockStable(block));
  }
});

test('T6, P4: a switch whose flush fails is refused, the byte says 1, and writes are strict', () => {
  const at = booted(BOTH);
  at.write();
  at.store.finish();
  const outcome = at.writeWriteback(0);
  at.store.finishSync('EIO');
  assert.deepEqual(outcome, { done: true, accepted: false });
  assert.equal(at.readWriteback(), 1);
  assert.match(at.lines.join('\n'), /stays on/);
  const { sent } = at.write();
  while (at.store.pending.length > 0) at.store.finish();
  at.turn();
  // P5: the domain is poisoned, so that a write that has to be stable fails rather than be a lie.
  assert.equal(sent.status, VIRTIO_BLK_S.IOERR);
  // Another face switches on: this driver may not have noticed that it was refused.
  at.disk.setWriteCache(true, () => {});
  assert.equal(at.completesStrictly(), true);
});

test('a switch that is overtaken by the opposite one', () => {
  const at = booted(BOTH);
  at.write();
  at.store.finish();
  const off = at.writeWriteback(0);
  const on = at.writeWriteback(1);
  assert.deepEqual([off.done, on.accepted], [false, true]);
  at.store.finishSync();
  assert.deepEqual(off, { done: true, accepted: false });
  assert.equal(at.readWriteback(), 1);
  assert.equal(at.completesUnstable(), true);
});

test('a switch that another face overtakes: a driver that may not have noticed stays strict until it flushes', () => {
  const at = booted(BOTH);
  at.write();
  at.store.finish();
  const off = at.writeWriteback(0);
  at.disk.setWriteCache(true, () => {});
  assert.equal(at.completesStrictly(), true, 'it may believe in its 0 already');
  at.store.finishSync();
  assert.deepEqual(off, { done: true, accepted: false });
  at.store.settle();
  assert.equal(at.completesUnstable(), false);
  flushed(at);
  assert.equal(at.completesUnstable(), true);
});

test('a driver that has not negotiated CONFIG_WCE cannot switch while it is at work', () => {
  const at = booted(features(VERSION_1, FLUSH));
  assert.deepEqual(at.writeWriteback(0), { done: true, accepted: false });
  assert.equal(at.disk.info.writeCache, true);
});

test('5.2.5.3 a legacy driver may write before its features are known, and they change nothing', () => {
  const at = new BlkRig();
  at.readWriteback();
  at.reset();
  assert.deepEqual(at.writeWriteback(0), { done: true, accepted: true });
  at.start(features(FLUSH, CONFIG_WCE));
  assert.equal(at.readWriteback(), 0);
  assert.equal(at.completesUnstable(), false);
  at.reset();
  at.writeWriteback(1);
  at.start(features(CONFIG_WCE));
  assert.equal(at.readWriteback(), 1, 'no FLUSH, but it is not for the device to change the byte');
  assert.equal(at.completesUnstable(), false, 'P9 all the same');
});

test('T7: a reset brings the configured mode back, and front-ends are told', () => {
  const at = attentive(booted(BOTH));
  at.writeWriteback(0);
  at.store.settle();
  assert.equal(at.readWriteback(), 0);
  at.reset();
  assert.equal(at.configChanges, 1);
  assert.equal(at.disk.info.writeCache, true);
  at.start(BOTH);
  assert.equal(at.readWriteback(), 1);
  // It may yet see the 0 in the front-end's copy, until it flushes.
  assert.equal(at.completesUnstable(), false);
  flushed(at);
  assert.equal(at.completesUnstable(), true);
});

test('T7: SeaBIOS, then Linux: the boot loader’s driver leaves nothing behind', () => {
  const at = booted(features(VERSION_1));
  assert.equal(at.completesUnstable(), false);
  at.reset();
  at.start(BOTH);
  assert.equal(at.readWriteback(), 1);
  assert.equal(at.completesUnstable(), true);
  assert.equal(at.configChanges, 0);
});

test('T7: a writethrough disk that a guest switched on is write-through again after a reset', () => {
  const at = booted(BOTH, { mode: 'writethrough' });
  at.writeWriteback(1);
  assert.equal(at.completesUnstable(), true);
  const { sent, block } = at.write();
  at.store.finish();
  at.turn();
  assert.ok(sent.visible && !at.store.isBlockStable(block));
  at.reset();
  assert.ok(at.store.isBlockStable(block), 'flushed by the switch (P4)');
  assert.equal(at.readWriteback(), 0);
  at.start(features(VERSION_1, FLUSH));
  assert.equal(at.completesUnstable(), false);
});

test('a new driver shows in its features, where the transport does not tell of resets', () => {
  const at = booted(BOTH);
  at.writeWriteback(0);
  at.store.settle();
  at.stop();
  at.start(BOTH);
  assert.equal(at.disk.info.writeCache, false, 'the same driver goes on');
  at.stop();
  at.start(features(VERSION_1, FLUSH));
  assert.equal(at.disk.info.writeCache, true);
  assert.equal(at.completesUnstable(), true);
});

test('what a driver wrote before it began is its own: the one after it gets the configured mode', () => {
  const at = booted(features(VERSION_1));
  at.stop();
  at.writeWriteback(0);
  at.start(features(FLUSH, CONFIG_WCE));
  assert.equal(at.disk.info.writeCache, false);
  at.stop();
  at.start(BOTH);
  assert.equal(at.disk.info.writeCache, true);
});

test('the first driver after a boot loader’s is a new one, without a reset too', () => {
  const at = new BlkRig();
  at.readWriteback();
  at.start(features(VERSION_1));
  at.stop();
  at.start(BOTH);
  assert.equal(at.completesUnstable(), true);
});

test('a device that has ended listens to its disk no more', () => {
  const at = booted(BOTH);
  let listeners = 0;
  const { disk } = at;
  const onInfoChange = disk.onInfoChange.bind(disk);
  disk.onInfoChange = (listener) => {
    const stop = onInfoChange(listener);
    listeners += 1;
    return () => {
      listeners -= 1;
      stop();
    };
  };
  const other = booted(BOTH, { disk });
  assert.equal(listeners, 1);
  other.stop();
  other.device.end();
  assert.equal(listeners, 0);
  disk.setWriteCache(false, () => {});
  at.store.settle();
  other.turn();
  assert.equal(other.configChanges, 0);
});

test('a connection that ends takes the setting of its driver with it, and nobody else’s', () => {
  const first = booted(BOTH);
  const { disk } = first;
  first.writeWriteback(0);
  first.store.settle();
  first.stop();
  first.device.end();
  assert.equal(disk.info.writeCache, true);
  disk.setWriteCache(false, () => {});
  first.store.settle();
  new BlkRig({ disk }).device.end();
  assert.equal(disk.info.writeCache, false);
});

test('a connection that ends while its driver’s switch still flushes takes that with it, too', () => {
  const at = booted(BOTH);
  at.write();
  at.store.finish();
  at.turn();
  const off = at.writeWriteback(0);
  assert.ok(!off.done && at.store.syncing);
  at.worker?.detach(() => {});
  at.device.end();
  at.store.settle();
  assert.deepEqual(off, { done: true, accepted: false });
  assert.equal(at.disk.info.writeCache, true);
  assert.equal(at.disk.strict, false);
});

test('another face switches off: the front-end is told, and until it reads again all is as strict', () => {
  const at = booted(BOTH);
  assert.equal(at.completesUnstable(), true);
  at.disk.setWriteCache(false, () => {});
  at.store.settle();
  assert.equal(at.configChanges, 0, 'not inside the call that changed it');
  at.turn();
  assert.equal(at.configChanges, 1);
  assert.equal(at.completesUnstable(), false);
  assert.equal(at.readWriteback(), 0);
  at.turn();
  assert.equal(at.configChanges, 1);
});

test('another face switches on: who was told 0 stays strict until it has read 1 and flushes', () => {
  const at = booted(BOTH);
  at.disk.setWriteCache(false, () => {});
  at.store.settle();
  at.turn();
  assert.equal(at.readWriteback(), 0);
  at.disk.setWriteCache(true, () => {});
  at.turn();
  assert.equal(at.configChanges, 2);
  flushed(at);
  assert.equal(at.completesUnstable(), false, 'it has not read the byte: the flush says nothing');
  assert.equal(at.readWriteback(), 1);
  assert.equal(at.completesUnstable(), false, 'QEMU reads, and shows its guest the 0 it has');
  flushed(at);
  assert.equal(at.completesUnstable(), true);
  assert.equal(at.readWriteback(), 1);
  assert.equal(at.completesUnstable(), true, 'the same reading raises no new doubt');
});

test('a driver that was there before us may believe in a 0 of our predecessor’s: strict until it flushes', () => {
  const at = new BlkRig().start(BOTH);
  assert.equal(at.completesUnstable(), false);
  flushed(at);
  assert.equal(at.completesUnstable(), false, 'the front-end has not read yet');
  assert.equal(at.configChanges, 1, 'it is asked to');
  assert.equal(at.readWriteback(), 1);
  assert.equal(at.completesUnstable(), false);
  flushed(at);
  assert.equal(at.completesUnstable(), true);
});

test('a driver whose rings begin was not there before us: what it was told on this connection is what it believes', () => {
  const told = new BlkRig();
  assert.equal(told.readWriteback(), 1);
  assert.equal(told.start(BOTH, true).completesUnstable(), true);
  const untold = new BlkRig().start(BOTH, true);
  assert.equal(untold.completesUnstable(), false, 'nobody has told it that there is a cache');
  const off = new BlkRig();
  off.writeWriteback(0);
  off.store.settle();
  assert.equal(
    off.start(BOTH, true).completesUnstable(),
    false,
    'a legacy driver has switched it off',
  );
});

test('until-flush begins anew with every driver (P9)', () => {
  const at = booted(MODERN, { mode: 'until-flush' });
  assert.equal(at.completesUnstable(), false);
  flushed(at);
  assert.equal(at.completesUnstable(), true);
  at.reset();
  at.start(MODERN);
  assert.equal(at.completesUnstable(), false);
  flushed(at);
  assert.equal(at.completesUnstable(), true);
});

test('two front-ends of one disk: what one switches, the other is told; each is as strict as it believes', () => {
  const one = booted(BOTH);
  const other = attentive(booted(BOTH, { disk: one.disk }));
  one.writeWriteback(0);
  one.store.settle();
  other.turn();
  assert.equal(other.configChanges, 1);
  assert.equal(other.completesUnstable(), false);
  other.writeWriteback(1);
  assert.equal(other.completesUnstable(), true);
  assert.equal(one.completesUnstable(), false, 'it has written 0 and knows of nothing else');
  one.turn();
  assert.equal(one.configChanges, 1);
});
