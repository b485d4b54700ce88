import assert from 'node:assert/strict';
import test from 'node:test';
import { Io, OP } from '../block/io.ts';
import { DiskBench } from '../../test/durability/disk-bench.ts';

// What a client takes the write cache for, beside what it is. The rest of DiskSession is tested with Disk.

test('a client that takes the cache for off gets stable writes, whatever the disk says, and flushing changes nothing', () => {
  const at = new DiskBench();
  at.session.cacheBelief = 'off';
  const first = at.client.write(1);
  at.store.finish(first.io);
  assert.ok(!first.done && at.store.syncing);
  at.store.finishSync();
  assert.ok(first.succeeded && at.store.isStable(first));
  at.client.flush();
  const second = at.written(2);
  assert.ok(!second.done);
  at.store.finishSync();
  assert.ok(second.succeeded && at.store.isStable(second));
  assert.equal(at.session.info.writeCache, true, 'the disk is as it was');
});

test('a client whose view is doubtful gets stable writes until a flush shows that it flushes', () => {
  const at = new DiskBench();
  at.session.cacheBelief = 'doubtful';
  const first = at.written(1);
  assert.ok(!first.done);
  at.store.finishSync();
  assert.ok(first.succeeded && at.store.isStable(first));
  at.client.flush();
  assert.equal(at.session.cacheBelief, 'on');
  const second = at.written(2);
  assert.ok(second.succeeded && !at.store.isStable(second));
});

test('P3: a write in flight when its client is told that the cache is off is held back until it is stable', () => {
  const at = new DiskBench();
  const write = at.client.write(1);
  at.session.cacheBelief = 'off';
  at.store.finish(write.io);
  assert.ok(!write.done && at.store.syncing);
  at.store.finishSync();
  assert.ok(write.succeeded && at.store.isStable(write));
});

test('what one client believes costs the others nothing', () => {
  const at = new DiskBench();
  at.open().cacheBelief = 'off';
  assert.ok(at.written(1).succeeded);
  assert.equal(at.store.syncs, 0);
});

test('unsafe promises nothing to anybody', () => {
  const at = new DiskBench('unsafe');
  at.session.cacheBelief = 'off';
  assert.ok(at.written(1).succeeded);
  assert.equal(at.store.syncs, 0);
});

test('a flush that is implied by something else covers, and does not show that the client flushes', () => {
  const at = new DiskBench();
  at.session.cacheBelief = 'doubtful';
  const io = new Io();
  io.reset(OP.FLUSH, 0, 0, 0);
  let done = false;
  io.push({ ioDone: () => (done = true) });
  at.session.submitImplied(io);
  assert.ok(done);
  assert.equal(at.session.cacheBelief, 'doubtful');
});

test('requests say which session they came through, and a reused Io nothing', () => {
  const at = new DiskBench();
  const other = at.open();
  const [a, b] = [new Io(), new Io()];
  for (const [io, session] of [
    [a, at.session],
    [b, other],
  ] as const) {
    io.reset(OP.FLUSH, 0, 0, 0);
    io.push({ ioDone: () => {} });
    session.submit(io);
  }
  assert.ok(a.source > 0 && b.source > 0 && a.source !== b.source);
  a.reset(OP.FLUSH, 0, 0, 0);
  assert.equal(a.source, 0);
});
