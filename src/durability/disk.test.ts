import assert from 'node:assert/strict';
import test from 'node:test';
import { type DiskClass, DiskBench } from '../../test/durability/disk-bench.ts';
import { Asked, Client, VolatileStore } from '../../test/durability/volatile-store.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG, type Io, OP } from '../block/io.ts';
import { Disk } from './disk.ts';
import type { DiskSession } from './disk-session.ts';
import { FlushDomain } from './flush-domain.ts';
import type { FlushWaiter, InternalFlushes } from './internal-flush.ts';
import { CACHE_MODES, type CacheMode } from './modes.ts';

// The promises P1 to P11 (docs/concepts/durability.md) as far as the write cache decides them, by name. P7 is the
// arrays'.

test('P1: a flush covers what was acknowledged to any session before it arrived', () => {
  const at = new DiskBench();
  const other = new Client(at.open());
  const write = at.written(1);
  const flush = other.flush();
  assert.ok(write.succeeded && !flush.done);
  at.store.finishSync();
  assert.ok(flush.succeeded && at.store.isStable(write));
});

test('P1: a flush does not wait for writes in flight', () => {
  const at = new DiskBench();
  at.written(1);
  const slow = at.client.write(2);
  const flush = at.client.flush();
  at.store.finishSync();
  assert.ok(flush.succeeded && !slow.done);
});

for (const fua of ['native', 'emulated'] as const) {
  test(`P2: FUA is kept on write, zeroes and discard (${fua})`, () => {
    const at = new DiskBench('writeback', { store: { fua } });
    const all = [OP.WRITE, OP.WRITE_ZEROES, OP.DISCARD].map((op, i) =>
      at.client.submit(new Asked(op, i, FLAG.FUA)),
    );
    at.settle();
    for (const asked of all) {
      assert.ok(asked.succeeded && at.store.isStable(asked));
      assert.equal(asked.io.flags, FLAG.FUA, 'the maker finds the flags it set');
    }
  });
}

for (const mode of ['writethrough', 'directsync'] as const) {
  test(`P3: in ${mode} every mutation is stable when it completes`, () => {
    const at = new DiskBench(mode);
    assert.equal(at.session.info.writeCache, false);
    for (const op of [OP.WRITE, OP.WRITE_ZEROES, OP.DISCARD]) {
      const asked = at.client.submit(new Asked(op, 1, 0));
      at.store.finish(asked.io);
      assert.ok(!asked.done, 'acknowledged before it is stable');
      at.store.finishSync();
      assert.ok(asked.succeeded && at.store.isStable(asked));
      assert.equal(asked.io.flags, 0);
    }
  });
}

test('P3: submitted with the cache off, completed with it on: still stable when it completes', () => {
  const at = new DiskBench('writethrough');
  const write = at.client.write(1);
  assert.equal(at.switchCache(true).error, null);
  at.store.finish(write.io);
  assert.ok(!write.done);
  at.store.finishSync();
  assert.ok(write.succeeded && at.store.isStable(write));
  const later = at.written(2);
  assert.ok(later.succeeded && !at.store.isStable(later));
});

test('P3: submitted with the cache off and queued behind a barrier: still stable', () => {
  const at = new DiskBench('writethrough');
  const slow = at.client.write(1);
  const barrier = at.client.write(2, FLAG.BARRIER);
  const queued = at.client.write(3);
  at.switchCache(true);
  at.settle();
  assert.ok(slow.succeeded && barrier.succeeded && queued.succeeded);
  assert.ok(at.store.isStable(queued));
});

/** T5: writes in flight at the switch; every one acknowledged after it must survive. Returns what went wrong. */
function toggleInFlight(make: DiskClass): string | null {
  const at = new DiskBench('writeback', { make });
  const before = at.written(1);
  const inFlight = [2, 3, 4].map((block) => at.client.write(block));
  const outcome = at.switchCache(false);
  if (outcome.done && !at.store.isStable(before)) return 'switched before the flush';
  at.store.finish(inFlight[0]?.io);
  while (at.store.syncing) at.store.finishSync();
  if (!outcome.done) return 'the switch never ends';
  if (!at.store.isStable(before)) return 'a write before the switch is lost';
  for (const write of inFlight.slice(1)) at.store.finish(write.io);
  for (const write of inFlight) {
    if (write.done && !at.store.isStable(write)) return 'acknowledged after the switch, and lost';
  }
  at.settle();
  return inFlight.every((write) => write.succeeded) ? null : 'a write was not answered';
}

// virtio-blk in QEMU, Cloud Hypervisor, tgt: the bit is flipped, nothing is flushed.
class FlipsOnly extends Disk {
  override setWriteCache(_enabled: boolean, done: (error: BlockErrorCode | null) => void): void {
    done(null);
  }
}

// NVMe in QEMU: flush, then flip; a write that completes between the two is volatile and never flushed.
class FlushThenFlip extends Disk {
  #off = false;

  override get strict(): boolean {
    return this.#off;
  }

  override setWriteCache(_enabled: boolean, done: (error: BlockErrorCode | null) => void): void {
    const flush = new Asked(OP.FLUSH, 0, 0);
    flush.onDone = () => {
      this.#off = true;
      done(flush.error);
    };
    this.store.submit(flush.io);
  }
}

// Ours without the second look, at completion: what is held back for a flush is answered without one.
class SubmissionOnly extends Disk {
  override readonly flushes = {
    flushFor: (held: Io, waiter: FlushWaiter) => waiter.flushDone(held, null),
  } as unknown as InternalFlushes;
}

test('P4: switching the cache off covers what came before and what is in flight', () => {
  assert.equal(toggleInFlight(Disk), null);
  for (const faulty of [FlipsOnly, FlushThenFlip, SubmissionOnly]) {
    assert.notEqual(toggleInFlight(faulty), null, `${faulty.name} was not noticed`);
  }
});

test('P4: the info says off when the flush is done, and listeners hear of it', () => {
  const at = new DiskBench();
  const heard: boolean[] = [];
  const stop = at.disk.onInfoChange((info) => heard.push(info.writeCache));
  at.written(1);
  const before = at.session.info;
  const outcome = at.switchCache(false);
  assert.deepEqual([outcome.done, at.session.info.writeCache], [false, true]);
  at.store.finishSync();
  assert.deepEqual([outcome.done, outcome.error], [true, null]);
  assert.equal(at.session.info.writeCache, false);
  assert.notEqual(at.session.info, before);
  assert.ok(Object.isFrozen(at.session.info));
  assert.equal(at.switchCache(false).done, true, 'already off: nothing to wait for');
  at.switchCache(true);
  assert.equal(at.session.info.writeCache, true);
  assert.deepEqual(heard, [false, true]);
  stop();
  at.switchCache(false);
  assert.deepEqual(heard, [false, true]);
});

test('P4: a failing flush fails the switch; the info says on, and writes are strict', () => {
  const at = new DiskBench();
  at.written(1);
  const outcome = at.switchCache(false);
  at.store.finishSync('EIO');
  assert.deepEqual([outcome.done, outcome.error], [true, 'EIO']);
  assert.equal(at.session.info.writeCache, true);
  assert.equal(at.disk.strict, true);
  assert.equal(at.lines.length, 1);
  at.domain.resume();
  const write = at.written(2);
  assert.ok(!write.done, 'acknowledged before it is stable');
  at.store.finishSync();
  assert.ok(write.succeeded && at.store.isStable(write));
  const again = at.switchCache(false);
  at.settle();
  assert.deepEqual([again.error, at.session.info.writeCache], [null, false]);
});

test('P4: switched on again before the flush was done', () => {
  const at = new DiskBench();
  at.written(1);
  const off = at.switchCache(false);
  const on = at.switchCache(true);
  assert.deepEqual([on.done, on.error, off.done], [true, null, false]);
  at.store.finishSync();
  assert.deepEqual([off.done, off.error], [true, 'ECANCELED']);
  assert.deepEqual([at.disk.strict, at.session.info.writeCache], [false, true]);
});

test('P4: a reset restores the write cache of the mode, whatever the last driver left', () => {
  const at = new DiskBench('writethrough');
  at.switchCache(true);
  at.written(1);
  let restored: BlockErrorCode | null | undefined;
  at.disk.restoreWriteCache((error) => (restored = error));
  assert.equal(restored, undefined);
  at.store.finishSync();
  assert.equal(restored, null);
  assert.equal(at.session.info.writeCache, false);
});

test('P5: after a failed sync every flush and FUA write of every session fails', () => {
  const at = new DiskBench();
  at.written(1);
  const flush = at.client.flush();
  at.store.finishSync('EIO');
  assert.equal(flush.error, 'EIO');
  const next = new Client(at.open());
  assert.equal(next.flush().error, 'EIO');
  assert.equal(next.write(2, FLAG.FUA).error, 'EIO');
  assert.equal(at.disk.counters.poisoned, true);
  assert.equal(at.disk.counters.failed, 3);
});

test('P6: a flush of a clean disk costs no sync, from any session', () => {
  const at = new DiskBench();
  at.written(1);
  at.client.flush();
  at.store.finishSync();
  for (let i = 0; i < 10; i += 1) assert.ok(new Client(at.open()).flush().succeeded);
  assert.equal(at.store.syncs, 1);
  assert.equal(at.disk.counters.flushesLeftOut, 10);
});

test('P8: unsafe acknowledges flushes, strips FUA, and says so', () => {
  const at = new DiskBench('unsafe');
  assert.deepEqual([at.session.info.ignoresFlush, at.session.info.writeCache], [true, true]);
  const fua = at.written(1, FLAG.FUA);
  assert.ok(fua.succeeded && at.client.flush().succeeded);
  assert.equal(fua.io.flags, FLAG.FUA);
  assert.deepEqual([at.store.syncs, at.store.log], [0, ['write']]);
  assert.equal(at.switchCache(false).error, 'EOPNOTSUPP');
  assert.equal(at.disk.counters.flushesAsked, 1);
});

test('P8: unsafe shows a poisoned domain all the same', () => {
  const store = new VolatileStore((target) => new FlushDomain({ target }));
  const domain = store.flusher as FlushDomain;
  domain.restorePoison('EIO');
  const disk = new Disk({ store, mode: 'unsafe', domain });
  assert.equal(disk.counters.poisoned, true);
});

for (const mode of Object.keys(CACHE_MODES) as CacheMode[]) {
  if (mode === 'unsafe') continue;
  test(`P8: ${mode} does not ignore flushes`, () => {
    const at = new DiskBench(mode);
    assert.equal(at.session.info.ignoresFlush, false);
    at.domain.mutated(0, 1);
    assert.ok(!at.client.flush().done);
    assert.ok(at.store.syncing);
  });
}

test('P9: a client without flush gets write-through, and its info says so', () => {
  const at = new DiskBench('writeback', { session: { flushes: false } });
  assert.equal(at.session.info.writeCache, false);
  assert.equal(at.disk.info.writeCache, true);
  const write = at.written(1);
  assert.ok(!write.done);
  at.store.finishSync();
  assert.ok(write.succeeded && at.store.isStable(write));
  const other = new Client(at.open());
  const plain = other.write(2);
  at.store.finish(plain.io);
  assert.ok(plain.succeeded, 'its neighbour flushes for itself');
});

test('P9: until-flush is strict until the first flush of each session, and after a reset', () => {
  const at = new DiskBench('until-flush');
  const strict = (session: DiskSession): boolean => {
    const write = new Client(session).write(1);
    at.store.finish(write.io);
    const held = !write.done;
    at.settle();
    assert.ok(write.succeeded);
    assert.equal(at.store.isStable(write), held);
    return held;
  };
  assert.equal(strict(at.session), true);
  at.client.flush();
  at.settle();
  assert.equal(strict(at.session), false);
  const second = at.open();
  assert.equal(strict(second), true);
  assert.equal(strict(at.session), false);
  at.session.reset();
  assert.equal(strict(at.session), true);
});

test('P10: the first flush of a resumed peer fails once, for one session of it, with a line', () => {
  const lost = new Set(['10.0.0.7']);
  const told: string[] = [];
  const at = new DiskBench('writeback', {
    disk: {
      resumeGuard: {
        hasLost: (key) => lost.has(key),
        told: (key) => {
          lost.delete(key);
          told.push(key);
        },
      },
    },
  });
  const remote = { flushes: true, peer: { resumable: true, key: '10.0.0.7' } };
  const local = { flushes: true, peer: { resumable: false, key: '10.0.0.7' } };
  const here = new Client(at.open(local));
  assert.ok(here.flush().succeeded, 'a local client went down with the host');
  const first = new Client(at.open(remote));
  const second = new Client(at.open(remote));
  const write = first.write(1);
  at.store.finish(write.io);
  assert.ok(write.succeeded, 'a plain write promises nothing');
  assert.equal(first.flush().error, 'EIO');
  assert.deepEqual([told, at.lines.length], [['10.0.0.7'], 1]);
  const rest = [first.flush(), second.flush()];
  at.settle();
  assert.ok(rest.every((flush) => flush.succeeded));
});

test('P10: a FUA write tells it too, and writes nothing', () => {
  const told: string[] = [];
  const at = new DiskBench('writeback', {
    disk: {
      resumeGuard: { hasLost: () => told.length === 0, told: (key) => told.push(key) },
    },
  });
  const client = new Client(at.open({ flushes: true, peer: { resumable: true, key: 'far' } }));
  const fua = client.write(1, FLAG.FUA);
  assert.equal(fua.error, 'EIO');
  assert.deepEqual([at.store.log, told], [[], ['far']]);
  const again = client.write(1, FLAG.FUA);
  at.settle();
  assert.ok(again.succeeded);
});

test('P10: a refused flush does not open the gate that a barrier has closed', () => {
  let told = false;
  const at = new DiskBench('writeback', {
    disk: { resumeGuard: { hasLost: () => !told, told: () => (told = true) } },
  });
  const far = new Client(at.open({ flushes: true, peer: { resumable: true, key: 'far' } }));
  const barrier = at.client.write(1, FLAG.BARRIER);
  assert.equal(far.flush().error, 'EIO');
  at.client.write(2);
  assert.equal(at.store.pending.length, 1, 'the barrier was passed');
  at.settle();
  assert.ok(barrier.succeeded);
});

test('P11: a successor is not served before the requests of the dead are finished', () => {
  const at = new DiskBench();
  const stale = at.client.write(1);
  const held = at.client.flush();
  at.session.end();
  let successor: DiskSession | null = null;
  at.disk.openSession({ flushes: true }, (session) => (successor = session));
  assert.ok(held.done && successor === null);
  const late = at.client.write(2);
  assert.equal(late.error, 'ESHUTDOWN');
  at.store.finish(stale.io);
  assert.ok(stale.succeeded);
  assert.notEqual(successor, null);
});

test('P11: a session that has left holds its successor up, and what is under way there goes on', () => {
  const at = new DiskBench();
  const first = at.client.write(1);
  at.session.leave();
  let successor: DiskSession | null = null;
  at.disk.openSession({ flushes: true }, (session) => (successor = session));
  const rest = at.client.write(2);
  at.store.finish(first.io);
  assert.ok(first.succeeded && !rest.done && successor === null);
  at.session.end();
  at.store.finish(rest.io);
  assert.ok(rest.succeeded);
  assert.notEqual(successor, null);
});

test('P11: a session that has left holds its successor up until it has ended, also between two parts of a request', () => {
  const at = new DiskBench();
  const first = at.client.write(1);
  at.session.leave();
  let ready = false;
  at.disk.openSession({ flushes: true }, () => (ready = true));
  at.store.finish(first.io);
  assert.ok(first.succeeded && !ready, 'more of it may come');
  const rest = at.client.write(2);
  at.store.finish(rest.io);
  assert.ok(rest.succeeded && !ready);
  at.session.end();
  assert.ok(ready);
});

test('P11: a disk that is closed ends who has left, too', async () => {
  const at = new DiskBench();
  at.session.leave();
  await at.disk.close();
  assert.ok(at.session.ended);
  assert.equal(at.client.write(1).error, 'ESHUTDOWN');
});

test('P11: a live neighbour keeps nobody waiting, and is kept waiting by nobody', () => {
  const at = new DiskBench();
  const busy = at.client.write(1);
  const neighbour = new Client(at.open());
  const write = neighbour.write(2);
  at.store.finish(write.io);
  assert.ok(write.succeeded && !busy.done);
});

test('P11: requests parked for the operator or queued behind a barrier hold the successor too', () => {
  const at = new DiskBench();
  at.client.write(1);
  at.client.write(2, FLAG.BARRIER);
  const queued = at.client.write(3);
  at.session.end();
  let ready = false;
  at.disk.openSession({ flushes: true }, () => (ready = true));
  assert.equal(ready, false);
  at.settle();
  assert.ok(queued.succeeded && ready);
});

test('a flush of a read-only disk succeeds', () => {
  const at = new DiskBench('writethrough', { store: { readOnly: true } });
  assert.ok(at.client.flush().succeeded);
  assert.equal(at.store.syncs, 0);
});

test('counters: what was asked, and payload that arrived', () => {
  const at = new DiskBench();
  at.written(1);
  at.store.finish(at.client.write(2).io, 'ENOSPC');
  at.client.read(1);
  for (const op of [OP.DISCARD, OP.WRITE_ZEROES, OP.CACHE, OP.EXTENTS]) {
    at.client.submit(new Asked(op, 1, 0));
  }
  at.store.finishAll();
  at.client.flush();
  at.settle();
  const { counters } = at.disk;
  assert.deepEqual(
    [counters.writes, counters.writtenBytes, counters.reads, counters.readBytes],
    [2, 512, 1, 512],
  );
  assert.deepEqual(
    [counters.discards, counters.zeroes, counters.flushesAsked, counters.failed, counters.syncs],
    [1, 1, 1, 1, 1],
  );
  assert.deepEqual([counters.unstableWrites, counters.unstableBytes], [0, 0]);
});

test('close: drains, flushes, closes the store; a submit after it fails', async () => {
  const at = new DiskBench();
  const write = at.client.write(1);
  const closing = at.disk.close();
  assert.equal(at.client.flush().error, 'ESHUTDOWN');
  at.store.auto = true;
  at.store.finishAll();
  await closing;
  assert.ok(write.succeeded && at.store.isStable(write) && at.store.closed);
  let late: DiskSession | null = null;
  at.disk.openSession({ flushes: true }, (session) => (late = session));
  assert.equal((late as DiskSession | null)?.ended, true);
});

test('close: a failing flush is said, and the store is closed even so', async () => {
  const at = new DiskBench();
  at.written(1);
  at.store.auto = true;
  at.store.nextSync = 'EIO';
  await assert.rejects(at.disk.close(), { name: 'BlockError', code: 'EIO' });
  assert.ok(at.store.closed);
});

test('close: a domain stopped for its operator fails what it has parked', async () => {
  const at = new DiskBench();
  at.domain.setPolicy('stop');
  at.written(1);
  const flush = at.client.flush();
  at.store.finishSync('EIO');
  assert.ok(!flush.done);
  await assert.rejects(at.disk.close(), { code: 'EIO' });
  assert.equal(flush.error, 'EIO');
});

test('a session closes when its last request is done', async () => {
  const at = new DiskBench();
  const write = at.client.write(1);
  let closed = false;
  const closing = at.session.close().then(() => (closed = true));
  await Promise.resolve();
  assert.equal(closed, false);
  at.store.finish(write.io);
  await closing;
  await at.session.close();
  assert.equal(at.session.inFlight, 0);
});
