import assert from 'node:assert/strict';
import test from 'node:test';
import { BlkRig, header, MODERN, Sent } from '../../../test/virtio/blk-rig.ts';
import { VIRTIO_BLK_T } from './blk.ts';

// A FLUSH shows that its driver believes in a cache, but only what it believed when it asked: one that waited in a ring
// while the server was another may be older than what the front-end has told since.

const FLUSH = (): Sent => new Sent([header(VIRTIO_BLK_T.FLUSH)], [1]);

/** A front-end that reads the byte, and a driver that was there before, with a FLUSH in its ring. */
function reconnected(): { at: BlkRig; waiting: Sent } {
  const at = new BlkRig();
  assert.equal(at.readWriteback(), 1);
  const waiting = FLUSH();
  at.device.start(
    MODERN,
    () => {
      at.queue.waiting.push(waiting);
      at.worker = at.device.attach(0, at.queue, at);
    },
    false,
  );
  return { at, waiting };
}

test('P3: a FLUSH of before the connection shows nothing; one of after it shows a driver with a cache', () => {
  const { at, waiting } = reconnected();
  at.turn();
  at.store.settle();
  at.turn();
  assert.equal(waiting.status, 0);
  assert.equal(at.completesUnstable(), false);
  at.flush();
  assert.equal(at.completesUnstable(), true);
});

test('P3: a ring that stood still before its FLUSH was taken has it as old as before', () => {
  const { at } = reconnected();
  at.stop();
  at.worker = at.device.attach(0, at.queue, at);
  at.turn();
  assert.equal(at.completesUnstable(), false);
  at.flush();
  assert.equal(at.completesUnstable(), true);
});

test('a driver that had nothing in its ring shows with its first FLUSH that it believes in a cache', () => {
  const at = new BlkRig();
  at.readWriteback();
  at.start(MODERN, false);
  assert.equal(at.completesUnstable(), false);
  at.flush();
  assert.equal(at.completesUnstable(), true);
});
