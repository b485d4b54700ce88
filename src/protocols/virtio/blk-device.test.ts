import assert from 'node:assert/strict';
import test from 'node:test';
import { BlkRig, features, header, MODERN, Sent } from '../../../test/virtio/blk-rig.ts';
import { CACHE_MODES, type CacheMode } from '../../durability/modes.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { VirtioBlk } from './blk-device.ts';
import {
  TURN_BYTES,
  VIRTIO_BLK_CONFIG,
  VIRTIO_BLK_CONFIG_BYTES,
  VIRTIO_BLK_F,
  VIRTIO_BLK_T,
} from './blk.ts';
import { hasFeature } from './virtio.ts';

const F = VIRTIO_BLK_F;
const MODES = Object.keys(CACHE_MODES) as CacheMode[];

function offers(at: BlkRig, bit: number): boolean {
  return hasFeature(at.device.offered, bit);
}

test('5.2.5.2 FLUSH is always offered, and with it CONFIG_WCE; not in unsafe, which is not safe (5.2.6.2)', () => {
  for (const mode of MODES) {
    for (const readOnly of [false, true]) {
      const at = new BlkRig({ mode, readOnly });
      assert.equal(offers(at, F.FLUSH), mode !== 'unsafe');
      assert.equal(offers(at, F.CONFIG_WCE), mode !== 'unsafe');
    }
  }
});

test('5.2.3 what is offered is what the disk has', () => {
  const at = BlkRig.memory();
  for (const bit of [F.BARRIER, F.SEG_MAX, F.BLK_SIZE, F.TOPOLOGY, F.DISCARD, F.WRITE_ZEROES]) {
    assert.ok(offers(at, bit));
  }
  const never = [F.SIZE_MAX, F.GEOMETRY, F.SCSI, F.LIFETIME, F.SECURE_ERASE, F.ZONED];
  for (const bit of [...never, F.RO, F.MQ, F.REQ_FLAGS, F.REQ_FLAGS_OUT_FUA]) {
    assert.ok(!offers(at, bit));
  }
  const readOnly = BlkRig.memory({ readOnly: true });
  assert.ok(offers(readOnly, F.RO));
  assert.ok(!offers(readOnly, F.DISCARD) && !offers(readOnly, F.WRITE_ZEROES));
  assert.ok(offers(BlkRig.memory({ queues: 2 }), F.MQ));
});

test('issue 237: the FUA flag is offered if asked for, and never in unsafe', () => {
  const at = new BlkRig({ offerFua: true });
  assert.ok(offers(at, F.REQ_FLAGS) && offers(at, F.REQ_FLAGS_OUT_FUA));
  const unsafe = new BlkRig({ offerFua: true, mode: 'unsafe' });
  assert.ok(!offers(unsafe, F.REQ_FLAGS) && !offers(unsafe, F.REQ_FLAGS_OUT_FUA));
});

test('5.2.4 any part of the configuration can be read, up to the whole struct', () => {
  const { device } = BlkRig.memory({ queues: 3 });
  const whole = device.readConfig(0, VIRTIO_BLK_CONFIG_BYTES);
  assert.equal(whole.length, device.configBytes);
  for (const [offset, length] of [
    [0, 8],
    [0, 60],
    [32, 1],
    [34, 2],
    [60, 36],
    [96, 0],
  ] as const) {
    const part = device.readConfig(offset, length);
    assert.deepEqual(part, whole.subarray(offset, offset + length));
  }
  assert.equal(whole[VIRTIO_BLK_CONFIG.num_queues], 3);
  assert.throws(() => device.readConfig(90, 7), { name: 'AssertionError' });
});

test('5.2.5 only writeback can be written, and only 0 or 1', () => {
  const at = new BlkRig({ auto: true }).start();
  const refused = [
    [0, [0]],
    [VIRTIO_BLK_CONFIG.num_queues, [1, 0]],
    [VIRTIO_BLK_CONFIG.writeback, [0, 0]],
    [VIRTIO_BLK_CONFIG.writeback - 1, [0, 0]],
    [VIRTIO_BLK_CONFIG.writeback, [2]],
    [VIRTIO_BLK_CONFIG.writeback, [255]],
    [VIRTIO_BLK_CONFIG.writeback, []],
    [1000, [0]],
  ] as const;
  const before = at.device.readConfig(0, VIRTIO_BLK_CONFIG_BYTES);
  for (const [offset, bytes] of refused) {
    let accepted: boolean | null = null;
    at.device.writeConfig(offset, Uint8Array.from(bytes), (outcome) => {
      accepted = outcome;
    });
    assert.equal(accepted, false);
  }
  assert.deepEqual(at.device.readConfig(0, VIRTIO_BLK_CONFIG_BYTES), before);
});

test('P11: a driver may begin when what its predecessor left behind is finished', () => {
  const first = new BlkRig().start();
  const { sent } = first.write();
  first.worker?.detach(() => {});
  first.device.end();
  const second = new BlkRig({ disk: first.disk }).start();
  assert.equal(second.worker, null);
  first.store.finish();
  first.store.finishSync();
  assert.notEqual(second.worker, null);
  first.turn();
  assert.equal(sent.status, 0);
});

test('P11: a front-end is gone while requests are in flight: whoever comes to the disk waits for them', () => {
  const at = new BlkRig().start();
  const { sent } = at.write();
  at.device.leave();
  let served = false;
  at.disk.openSession({ flushes: true }, () => (served = true));
  assert.ok(!served && !sent.visible);
  at.store.settle();
  at.turn();
  assert.ok(!served && sent.visible);
  at.stop();
  at.device.end();
  assert.ok(served);
});

test('P11: the same between two turns of a long request, of which nothing is in flight then', () => {
  const store = openMemoryStore({ name: 'm', sizeBytes: 2 * TURN_BYTES });
  const at = new BlkRig({ store }).start();
  const sent = new Sent([header(VIRTIO_BLK_T.OUT), new Uint8Array(2 * TURN_BYTES)], [1]);
  at.queue.waiting.push(sent);
  at.worker?.poll();
  at.device.leave();
  let served = false;
  at.disk.openSession({ flushes: true }, () => (served = true));
  assert.ok(!served && !sent.visible, 'the rest of it would land on what the successor writes');
  at.turn();
  assert.ok(!served && sent.visible);
  at.stop();
  at.device.end();
  assert.ok(served);
});

test('P11: who is gone is looked for before a driver gets its session', () => {
  const { disk } = new BlkRig();
  const order: string[] = [];
  disk.openSession({ flushes: true }, (gone) => {
    const device = new VirtioBlk(disk, {
      serial: '',
      queues: 1,
      offerFua: false,
      log: () => {},
      defer: (callback) => callback(),
      fence: () => {
        order.push('fenced');
        gone.end();
      },
    });
    device.start(MODERN, () => order.push('ready'), true);
  });
  assert.deepEqual(order, ['fenced', 'ready']);
});

test('P11: who was to begin and was reset, or is gone, begins no more, and holds up nobody', () => {
  for (const how of ['reset', 'end', 'start'] as const) {
    const first = new BlkRig().start(features(F.FLUSH));
    first.write();
    first.device.end();
    const second = new BlkRig({ disk: first.disk });
    let ready = 0;
    const begin = (): void => {
      ready += 1;
    };
    second.device.start(MODERN, begin, false);
    if (how === 'reset') second.device.reset(() => {});
    else if (how === 'end') second.device.end();
    else second.device.start(MODERN, () => (ready += 10), false);
    first.store.settle();
    assert.equal(ready, how === 'start' ? 10 : 0);
    second.device.end();
    const third = new BlkRig({ disk: first.disk }).start();
    assert.notEqual(third.worker, null);
  }
});

test('requests of a driver whose session has ended get IOERR', () => {
  const at = new BlkRig().start();
  at.device.end();
  assert.equal(at.request(VIRTIO_BLK_T.IN, 0, 512).status, 1);
});

test('several queues are one driver: a flush on one covers what another has answered (P1)', () => {
  const at = new BlkRig({ queues: 2 }).start(features(F.FLUSH, F.MQ));
  const { queue, worker } = at;
  const { sent, block } = at.write();
  at.store.finish();
  at.turn();
  assert.equal(sent.status, 0);
  assert.ok(!at.store.isBlockStable(block));
  const other = new BlkRig({ disk: at.disk });
  at.queue = other.queue;
  at.worker = at.device.attach(1, other.queue, at);
  const flush = at.flush();
  at.store.finishSync();
  at.turn();
  assert.equal(flush.status, 0);
  assert.ok(at.store.isBlockStable(block));
  assert.throws(() => at.device.attach(2, queue, at), { name: 'AssertionError' });
  worker?.detach(() => {});
});

test('P10 is not asked of a guest: it did not survive the crash of its host', () => {
  const at = new BlkRig({ auto: true }).start();
  assert.equal(at.flush().status, 0);
});
