import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  type Asked,
  Client,
  type Flusher,
  VolatileStore,
} from '../../test/durability/volatile-store.ts';
import { unreachable } from '../base/assert.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG, type Io, OP } from '../block/io.ts';
import { FlushDomain, type SyncTarget } from './flush-domain.ts';

const STEPS = ['write', 'fua', 'flush', 'oldest', 'newest', 'fails', 'synced', 'unsynced'] as const;
type Step = (typeof STEPS)[number];

/**
 * The oracle. It knows nothing of counters: only who was acknowledged before whom, how many syncs have ended, and
 * what the store would hold after a power cut.
 */
class Judge {
  readonly #store: VolatileStore;
  readonly #client: Client;
  /** Who waits to be stable: flushes from their receipt, FUA writes from the end of the write. */
  #waiting: { readonly asked: Asked; readonly since: number; readonly afterFailure: boolean }[] =
    [];
  #block = 0;
  #syncsEnded = 0;
  #failed = false;
  #mutations = 0;
  /** `#mutations` when the running, and when the last successful sync started. */
  #atStart = 0;
  #atClean = -1;

  constructor(make: (target: SyncTarget) => Flusher) {
    this.#store = new VolatileStore(make);
    this.#client = new Client(this.#store);
  }

  /** Runs a schedule and returns the first promise that was broken, or null. */
  run(schedule: readonly Step[], deferred: (() => void)[] = []): string | null {
    for (const [i, step] of schedule.entries()) {
      let { syncs } = this.#store;
      // A batch of the reactor ends after every third step.
      if (i % 3 === 0) for (const callback of deferred.splice(0)) callback();
      if (this.#store.syncs > syncs) this.#atStart = this.#mutations;
      ({ syncs } = this.#store);
      const wrong = this.#step(step) ?? this.#settle();
      if (wrong !== null) return wrong;
      if (this.#store.syncs > syncs) this.#atStart = this.#mutations;
    }
    return null;
  }

  #step(step: Step): string | null {
    switch (step) {
      case 'write':
      case 'fua':
        this.#block = (this.#block + 1) % 1000;
        this.#client.write(this.#block, step === 'fua' ? FLAG.FUA : 0);
        return null;
      case 'flush':
        return this.#flush();
      case 'oldest':
      case 'newest':
      case 'fails':
        this.#finish(step);
        return null;
      case 'synced':
      case 'unsynced':
        if (!this.#store.syncing) return null;
        this.#syncsEnded += 1;
        if (step === 'synced') this.#atClean = this.#atStart;
        else this.#failed = true;
        this.#store.finishSync(step === 'synced' ? null : 'EIO');
        return null;
      default:
        return unreachable(step);
    }
  }

  #flush(): string | null {
    const clean = this.#atClean === this.#mutations && !this.#failed;
    const { syncs } = this.#store;
    const asked = this.#client.flush();
    this.#wait(asked);
    return clean && (!asked.succeeded || this.#store.syncs > syncs) ? 'P6: clean flush' : null;
  }

  #finish(step: 'oldest' | 'newest' | 'fails'): void {
    const io = this.#store.pending.at(step === 'newest' ? -1 : 0);
    if (io === undefined) return;
    this.#mutations += 1;
    if ((io.flags & FLAG.FUA) !== 0) this.#wait(io.context as Asked);
    this.#store.finish(io, step === 'fails' ? 'EIO' : null);
  }

  #wait(asked: Asked): void {
    this.#waiting.push({ asked, since: this.#syncsEnded, afterFailure: this.#failed });
  }

  #settle(): string | null {
    for (const { asked, since, afterFailure } of this.#waiting) {
      if (!asked.done && this.#syncsEnded - since >= 2) return 'waited for a third sync';
      if (!asked.succeeded) continue;
      if (afterFailure) return 'P5: success after a failed sync';
      if (asked.io.op !== OP.FLUSH && !this.#store.isStable(asked)) return 'P2: FUA write lost';
      if (asked.io.op !== OP.FLUSH) continue;
      if (asked.covers.some((write) => !this.#store.isStable(write)))
        return 'P1: flushed write lost';
    }
    this.#waiting = this.#waiting.filter(({ asked }) => !asked.done);
    return null;
  }
}

function judge(make: (target: SyncTarget) => Flusher, schedule: readonly Step[]): string | null {
  return new Judge(make).run(schedule);
}

const ours = (target: SyncTarget): Flusher => new FlushDomain({ target });
const schedules = fc.array(fc.constantFrom(...STEPS), { maxLength: 80, size: 'max' });

test('any schedule: acknowledged flushes cover, clean ones cost nothing, none waits for a third sync', () => {
  fc.assert(
    fc.property(schedules, (schedule) => {
      assert.equal(judge(ours, schedule), null);
    }),
    { numRuns: 3000, seed: 1 },
  );
});

test('the same with syncs started at the end of a batch', () => {
  fc.assert(
    fc.property(schedules, (schedule) => {
      const deferred: (() => void)[] = [];
      const defer = (callback: () => void): void => {
        deferred.push(callback);
      };
      const judge = new Judge((target) => new FlushDomain({ target, defer }));
      assert.equal(judge.run(schedule, deferred), null);
    }),
    { numRuns: 2000, seed: 2 },
  );
});

test('every schedule of five steps after a write', () => {
  const total = STEPS.length ** 5;
  const schedule: Step[] = ['write', 'oldest'];
  for (let code = 0; code < total; code += 1) {
    for (let i = 2, rest = code; i < 7; i += 1, rest = Math.floor(rest / STEPS.length)) {
      schedule[i] = STEPS[rest % STEPS.length] as Step;
    }
    const broken = judge(ours, schedule);
    if (broken !== null) assert.fail(`${broken}: ${schedule.join(' ')}`);
  }
});

/** One wrong domain with four dials: what the oracle must notice, whatever the dial. */
class Wrong implements Flusher {
  #completed = 0;
  #durable = 0;
  #covers = 0;
  #running = false;
  #waiters: { io: Io; need: number }[] = [];
  readonly #target: SyncTarget;
  readonly #dial: string;

  constructor(target: SyncTarget, dial: string) {
    this.#target = target;
    this.#dial = dial;
  }

  mutated(): number {
    this.#completed += 1;
    return this.#dial === 'need before bump' ? this.#completed - 1 : this.#completed;
  }

  flush(io: Io): void {
    this.flushTo(io, this.#completed);
  }

  flushTo(io: Io, need: number): void {
    if (this.#durable >= need && this.#dial !== 'never left out') io.complete(null);
    else this.#waiters.push({ io, need });
    this.#kick();
  }

  synced(error: BlockErrorCode | null): void {
    this.#running = false;
    const covers = this.#dial === 'covers at end' ? this.#completed : this.#covers;
    if (error === null || this.#dial === 'failure cleans') this.#durable = covers;
    const all = this.#dial === 'joins any' || error !== null;
    const told = this.#waiters.filter(({ need }) => all || need <= this.#durable);
    this.#waiters = this.#waiters.filter((waiter) => !told.includes(waiter));
    if (this.#dial === 'serves one') this.#waiters.unshift(...told.splice(1));
    for (const { io } of told) io.complete(error);
    this.#kick();
  }

  #kick(): void {
    if (this.#running || this.#waiters.length === 0) return;
    this.#running = true;
    this.#covers = this.#completed;
    this.#target.startSync();
  }
}

for (const dial of [
  'need before bump',
  'never left out',
  'covers at end',
  'failure cleans',
  'joins any',
  'serves one',
  'asks again',
]) {
  test(`the oracle notices: ${dial}`, () => {
    const result = fc.check(
      fc.property(
        schedules,
        (schedule) => judge((target) => new Wrong(target, dial), schedule) === null,
      ),
      { numRuns: 3000, seed: 1 },
    );
    assert.ok(result.failed, 'the mistake was put in and not noticed');
  });
}
