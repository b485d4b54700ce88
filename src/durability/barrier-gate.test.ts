import assert from 'node:assert/strict';
import test from 'node:test';
import { DiskBench } from '../../test/durability/disk-bench.ts';
import { Asked, Client } from '../../test/durability/volatile-store.ts';
import { FLAG, OP } from '../block/io.ts';

test('a barrier drains, flushes, goes alone and is stable; nothing passes it', () => {
  const at = new DiskBench();
  const { store, client } = at;
  const before = at.written(1);
  const inFlight = client.write(2);
  const barrier = client.write(3, FLAG.BARRIER);
  const after = [client.write(4), client.flush(), client.read(1)];
  assert.equal(store.pending.length, 1, 'it waits for what is in flight');
  store.finish(inFlight.io);
  assert.deepEqual([store.syncing, store.pending.length], [true, 0], 'it flushes');
  store.finishSync();
  assert.ok(store.isStable(before) && store.isStable(inFlight));
  assert.equal(store.pending.length, 1, 'it goes alone');
  store.finish();
  assert.ok(!barrier.done);
  store.finishSync();
  assert.ok(barrier.succeeded && store.isStable(barrier));
  assert.equal(barrier.io.flags, FLAG.BARRIER);
  at.settle();
  assert.ok(after.every((asked) => asked.succeeded));
  assert.deepEqual(store.log, ['write', 'write', 'flush', 'write+fua', 'write', 'flush', 'read']);
});

test('a barrier whose flush fails changes nothing, and what waits behind it goes on', () => {
  const at = new DiskBench();
  at.written(1);
  const barrier = at.client.write(2, FLAG.BARRIER);
  const read = at.client.read(1);
  at.store.finishSync('EIO');
  assert.equal(barrier.error, 'EIO');
  at.settle();
  assert.ok(read.succeeded);
  assert.ok(!at.store.log.includes('write+fua'));
});

test('two barriers in a row, and a barrier from another session, keep their order', () => {
  const at = new DiskBench();
  const other = new Client(at.open());
  const first = at.client.write(1, FLAG.BARRIER);
  const second = other.write(2, FLAG.BARRIER);
  const third = at.client.write(3);
  const order: number[] = [];
  for (const asked of [first, second, third]) asked.onDone = () => order.push(asked.block);
  at.settle();
  assert.deepEqual(order, [1, 2, 3]);
});

test('unsafe keeps the order of a barrier and does not flush for it', () => {
  const at = new DiskBench('unsafe');
  const slow = at.client.write(1);
  const barrier = at.client.write(2, FLAG.BARRIER);
  at.client.write(3);
  assert.equal(at.store.pending.length, 1);
  at.store.finish(slow.io);
  assert.equal(at.store.pending.length, 1);
  at.store.finish();
  assert.ok(barrier.succeeded);
  at.settle();
  assert.equal(at.store.syncs, 0);
});

test('a flush is no barrier: it goes past writes in flight', () => {
  const at = new DiskBench();
  at.client.write(1);
  at.client.flush();
  at.client.write(2);
  assert.equal(at.store.pending.length, 2);
});

test('a store that completes at once: barriers and queues in one call', () => {
  const at = new DiskBench('writethrough', { store: { auto: true } });
  const all = [
    at.client.write(1),
    at.client.write(2, FLAG.BARRIER),
    at.client.flush(),
    at.client.write(3),
  ];
  assert.ok(all.every((asked) => asked.succeeded));
});

test('a barrier on a read: everything before it is done, it goes alone, and nothing is flushed', () => {
  const at = new DiskBench();
  const { store, client } = at;
  const before = client.write(1);
  const barrier = client.submit(new Asked(OP.READ, 1, FLAG.BARRIER));
  const after = client.write(2);
  assert.equal(store.pending.length, 1, 'it waits for what is in flight');
  store.finish(before.io);
  assert.deepEqual(store.pending, [barrier.io], 'it goes alone');
  assert.equal(store.syncs, 0);
  assert.ok((barrier.io.flags & FLAG.BARRIER) === 0, 'the store sees no barrier');
  store.finish(barrier.io);
  assert.ok(barrier.succeeded);
  assert.equal(barrier.io.flags, FLAG.BARRIER);
  assert.deepEqual(store.pending, [after.io]);
  store.finish();
  assert.equal(store.syncs, 0);
});

test('a barrier on a flush covers what was in flight when it came, and is one flush', () => {
  const at = new DiskBench();
  const { store, client } = at;
  const before = client.write(1);
  const barrier = client.submit(new Asked(OP.FLUSH, 0, FLAG.BARRIER));
  const after = client.write(2);
  assert.equal(store.syncing, false, 'it waits for what is in flight');
  store.finish(before.io);
  assert.ok(store.syncing && store.pending.length === 0, 'it goes alone');
  store.finishSync();
  assert.ok(barrier.succeeded && store.isStable(before));
  assert.deepEqual(store.pending, [after.io]);
  store.finish();
  assert.equal(store.syncs, 1);
});

test('unsafe keeps the order of a flush that is a barrier, and does not do it', () => {
  const at = new DiskBench('unsafe');
  const before = at.client.write(1);
  const barrier = at.client.submit(new Asked(OP.FLUSH, 0, FLAG.BARRIER));
  const after = at.client.write(2);
  assert.ok(!barrier.done);
  at.store.finish(before.io);
  assert.ok(barrier.succeeded && at.store.syncs === 0);
  assert.deepEqual(at.store.pending, [after.io]);
});
