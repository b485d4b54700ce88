import assert from 'node:assert/strict';
import test from 'node:test';
import {
  type Asked,
  Client,
  type Flusher,
  VolatileStore,
} from '../../test/durability/volatile-store.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG, type Io } from '../block/io.ts';
import { FlushDomain, type SyncTarget } from './flush-domain.ts';

// The mistakes of others, kept as exhibits. Each scenario returns what went wrong, or null. Ours has to pass it, and
// the mistake, built as a small faulty domain, has to be caught by the same scenario: a scenario that catches nothing
// proves nothing.

type Make = (target: SyncTarget, later: (step: () => void) => void) => Flusher;
type Scenario = (make: Make) => string | null;

const ours: Make = (target) => new FlushDomain({ target });

/** A client, a store, and steps that a faulty domain puts off. */
function bench(make: Make): { store: VolatileStore; client: Client; steps: (() => void)[] } {
  const steps: (() => void)[] = [];
  const store = new VolatileStore((target) => make(target, (step) => steps.push(step)));
  return { store, client: new Client(store), steps };
}

/** P1 for one flush that was answered with success. */
function uncovered(store: VolatileStore, flush: Asked): string | null {
  if (!flush.succeeded) return null;
  const lost = flush.covers.find((write) => !store.isStable(write));
  return lost === undefined ? null : `block ${lost.block} was acknowledged, flushed, and is lost`;
}

/** What all faulty domains share: counters, waiters as plain arrays, one sync at a time. */
abstract class Faulty implements Flusher {
  protected completed = 0;
  protected durable = 0;
  protected covers = 0;
  protected running = false;
  protected waiters: { io: Io; need: number }[] = [];
  protected readonly target: SyncTarget;

  constructor(target: SyncTarget) {
    this.target = target;
  }

  mutated(_offset: number, _bytes: number): number {
    this.completed += 1;
    return this.completed;
  }

  flush(io: Io): void {
    this.flushTo(io, this.completed);
  }

  flushTo(io: Io, need: number): void {
    if (this.durable >= need) {
      io.complete(null);
      return;
    }
    this.waiters.push({ io, need });
    this.kick();
  }

  synced(error: BlockErrorCode | null): void {
    this.running = false;
    this.durable = this.covers;
    const done = this.waiters.filter(({ need }) => need <= this.durable);
    this.waiters = this.waiters.filter(({ need }) => need > this.durable);
    for (const { io } of done) io.complete(error);
    this.kick();
  }

  protected kick(): void {
    if (this.running || this.waiters.length === 0) return;
    this.running = true;
    this.covers = this.completed;
    this.target.startSync();
  }
}

function exhibit(name: string, scenario: Scenario, faulty: Make): void {
  test(name, () => {
    assert.equal(scenario(ours), null);
    assert.notEqual(scenario(faulty), null, 'the mistake was put in and not noticed');
  });
}

// QEMU before generations: guests that flush clean disks (Windows 2008) paid a sync for each flush.
class NoElimination extends Faulty {
  override flushTo(io: Io, need: number): void {
    this.waiters.push({ io, need });
    this.kick();
  }
}

exhibit(
  'QEMU 3ff2f67a7c: a flush of a clean disk costs no sync',
  (make) => {
    const { store, client } = bench(make);
    client.flush();
    client.write(1);
    store.finish();
    const first = client.flush();
    if (store.syncing) store.finishSync();
    const second = client.flush();
    if (!first.done || !second.done) return 'a flush of a clean disk waited for a sync';
    return store.syncs === 1 ? null : `${store.syncs} syncs for one write`;
  },
  (target) => new NoElimination(target),
);

// QEMU ce83ee57f6: "running" was `started !== flushed`. A flush that found nothing to do still visited the children,
// looked idle meanwhile, and overwrote `flushed` with its old generation when it came back last.
class PairOfGenerations implements Flusher {
  #writeGen = 0;
  #started = 0;
  #flushed = 0;
  #current = 0;
  #io: Io | null = null;
  #queue: Io[] = [];
  readonly #target: SyncTarget;
  readonly #later: (step: () => void) => void;

  constructor(target: SyncTarget, later: (step: () => void) => void) {
    this.#target = target;
    this.#later = later;
  }

  mutated(): number {
    this.#writeGen += 1;
    return this.#writeGen;
  }

  flush(io: Io): void {
    if (this.#started !== this.#flushed) {
      this.#queue.push(io);
      return;
    }
    const gen = this.#writeGen;
    this.#started = gen;
    if (this.#flushed === gen) {
      this.#later(() => this.#out(io, gen, null));
      return;
    }
    this.#io = io;
    this.#current = gen;
    this.#target.startSync();
  }

  flushTo(io: Io): void {
    this.flush(io);
  }

  synced(error: BlockErrorCode | null): void {
    const io = this.#io as Io;
    this.#io = null;
    this.#out(io, this.#current, error);
  }

  #out(io: Io, gen: number, error: BlockErrorCode | null): void {
    this.#flushed = gen;
    io.complete(error);
    for (const waiting of this.#queue.splice(0)) this.flush(waiting);
  }
}

exhibit(
  'QEMU ce83ee57f6: an out-of-order flush does not leave the others waiting for ever',
  (make) => {
    const { store, client, steps } = bench(make);
    const clean = client.flush();
    client.write(1);
    store.finish();
    const dirty = client.flush();
    if (store.syncing) store.finishSync();
    for (const step of steps.splice(0)) step();
    client.write(2);
    store.finish();
    const last = client.flush();
    for (let i = 0; i < 4 && store.syncing; i += 1) store.finishSync();
    for (const step of steps.splice(0)) step();
    return clean.done && dirty.done && last.done ? null : 'a flush waits and no sync is running';
  },
  (target, later) => new PairOfGenerations(target, later),
);

// QEMU 156af3ac98: all waiters were woken and raced with new flushes for the place of the active one; need is the
// generation of arrival, so a waiter that lost needed a sync of its own again.
class WakeAll extends Faulty {
  #active: Io | null = null;
  #need = 0;
  #flushed = 0;

  override flushTo(io: Io, need: number): void {
    if (this.#active !== null) {
      this.waiters.unshift({ io, need });
      return;
    }
    if (this.#flushed === need) {
      io.complete(null);
      return;
    }
    this.#active = io;
    this.#need = need;
    this.target.startSync();
  }

  override synced(error: BlockErrorCode | null): void {
    const io = this.#active as Io;
    this.#flushed = this.#need;
    this.#active = null;
    // Whoever is told first may flush anew before the woken run.
    io.complete(error);
    for (const waiter of this.waiters.splice(0)) this.flushTo(waiter.io, waiter.need);
  }
}

exhibit(
  'QEMU 156af3ac98: a new flush does not overtake those that wait',
  (make) => {
    const { store, client } = bench(make);
    let block = 1;
    const writeAndFlush = (): Asked => {
      client.write(block);
      block += 1;
      store.finish();
      const flush = client.flush();
      // A client in a closed loop: its next flush comes inside the completion of its last.
      flush.onDone = () => {
        if (block < 20) writeAndFlush();
      };
      return flush;
    };
    writeAndFlush();
    client.write(100);
    store.finish();
    const patient = client.flush();
    for (let syncs = 0; syncs < 2; syncs += 1) store.finishSync();
    return patient.done ? null : 'a waiting flush was overtaken for more than two syncs';
  },
  (target) => new WakeAll(target),
);

// QEMU e6af1e0854: the node was marked clean whatever the sync said, so the next flush succeeded and did nothing.
exhibit(
  'QEMU e6af1e0854: a failed flush does not make the disk clean',
  (make) => {
    const { store, client } = bench(make);
    client.write(1);
    store.finish();
    const failing = client.flush();
    store.finishSync('EIO');
    const again = client.flush();
    if (store.syncing) store.finishSync();
    if (failing.error !== 'EIO') return 'the failed sync was not reported';
    return uncovered(store, again);
  },
  (target) => new (class extends Faulty {})(target),
);

// Everyone who asks again after a failure (nbdkit, nbd-server, tgt, crosvm): the second fdatasync finds clean pages.
class AsksAgain extends Faulty {
  override synced(error: BlockErrorCode | null): void {
    if (error === null) {
      super.synced(null);
      return;
    }
    this.running = false;
    for (const { io } of this.waiters.splice(0)) io.complete(error);
  }
}

exhibit(
  'fsyncgate: asking again after a failed sync is not success',
  (make) => {
    const { store, client } = bench(make);
    client.write(1);
    store.finish();
    client.flush();
    store.finishSync('EIO');
    const again = client.flush();
    if (store.syncing) store.finishSync();
    return uncovered(store, again);
  },
  (target) => new AsksAgain(target),
);

// QEMU d402da1360 (10.1 to 11.1): emulated FUA flushed before its own write was counted.
class FuaBeforeItsBump extends Faulty {
  override mutated(offset: number, bytes: number): number {
    return super.mutated(offset, bytes) - 1;
  }
}

exhibit(
  'QEMU d402da1360: a FUA write right after a flush is stable when it completes',
  (make) => {
    const { store, client } = bench(make);
    client.write(1);
    store.finish();
    client.flush();
    store.finishSync();
    const fua = client.write(2, FLAG.FUA);
    store.finish();
    if (fua.done && !store.isStable(fua)) return 'the FUA write was acknowledged and is lost';
    if (store.syncing) store.finishSync();
    return fua.succeeded && store.isStable(fua) ? null : 'the FUA write never became stable';
  },
  (target) => new FuaBeforeItsBump(target),
);

// nbdkit, filters/multi-conn: a dirty flag, cleared after the flush.
class FlagClearedAfter extends Faulty {
  #dirty = false;

  override mutated(offset: number, bytes: number): number {
    this.#dirty = true;
    return super.mutated(offset, bytes);
  }

  override flushTo(io: Io, need: number): void {
    if (this.#dirty) super.flushTo(io, need);
    else io.complete(null);
  }

  override synced(error: BlockErrorCode | null): void {
    this.#dirty = false;
    super.synced(error);
  }
}

exhibit(
  'nbdkit multi-conn: a write completed during a sync needs the next one',
  (make) => {
    const { store, client } = bench(make);
    client.write(1);
    store.finish();
    client.flush();
    client.write(2);
    store.finish();
    store.finishSync();
    const second = client.flush();
    const early = uncovered(store, second);
    if (early !== null) return early;
    if (store.syncing) store.finishSync();
    return second.done ? uncovered(store, second) : 'the second flush is not answered';
  },
  (target) => new FlagClearedAfter(target),
);

// crosvm, composite disk: a flag, cleared before the sync.
class FlagClearedBefore extends Faulty {
  #dirty = false;

  override mutated(offset: number, bytes: number): number {
    this.#dirty = true;
    return super.mutated(offset, bytes);
  }

  override flush(io: Io): void {
    if (!this.#dirty) {
      io.complete(null);
      return;
    }
    this.#dirty = false;
    super.flush(io);
  }
}

exhibit(
  'crosvm composite: a second flush is not answered before the running sync has ended',
  (make) => {
    const { store, client } = bench(make);
    client.write(1);
    store.finish();
    const first = client.flush();
    const second = client.flush();
    if (first.done || second.done) return uncovered(store, second) ?? 'answered early';
    store.finishSync();
    if (!first.succeeded || !second.succeeded) return 'a covered flush is not answered';
    return store.syncs === 1 ? null : 'the second flush did not join the running sync';
  },
  (target) => new FlagClearedBefore(target),
);

// The mistake that joining invites: every flush that finds a sync running is answered by it.
class JoinsAnySync extends Faulty {
  override synced(error: BlockErrorCode | null): void {
    this.running = false;
    this.durable = this.covers;
    for (const { io } of this.waiters.splice(0)) io.complete(error);
  }
}

exhibit(
  'a running sync is joined only by those it covers',
  (make) => {
    const { store, client } = bench(make);
    client.write(1);
    store.finish();
    client.flush();
    client.write(2);
    store.finish();
    const late = client.flush();
    store.finishSync();
    return uncovered(store, late);
  },
  (target) => new JoinsAnySync(target),
);

// QEMU's weakness rather than its mistake: the generation of arrival is what a waiter's own sync marks, so flushes with
// distinct generations are synced one by one.
exhibit(
  'sixty-four flushes with writes between them cost at most two syncs',
  (make) => {
    const { store, client } = bench(make);
    const flushes: Asked[] = [];
    for (let block = 0; block < 64; block += 1) {
      client.write(block);
      store.finish();
      flushes.push(client.flush());
    }
    while (store.syncing && store.syncs <= 64) store.finishSync();
    if (!flushes.every((flush) => flush.succeeded)) return 'a flush is not answered';
    for (const flush of flushes) {
      const lost = uncovered(store, flush);
      if (lost !== null) return lost;
    }
    return store.syncs <= 2 ? null : `${store.syncs} syncs for one group`;
  },
  (target) => new WakeAll(target),
);
