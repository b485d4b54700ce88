import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type Asked, Client, VolatileStore } from '../../test/durability/volatile-store.ts';
import { unreachable } from '../base/assert.ts';
import { FLAG } from '../block/io.ts';
import { Disk } from './disk.ts';
import type { DiskSession } from './disk-session.ts';
import { FlushDomain } from './flush-domain.ts';
import { CACHE_MODES, type CacheMode } from './modes.ts';

const STEPS = [
  'write',
  'fua',
  'barrier',
  'flush',
  'oldest',
  'newest',
  'synced',
  'on',
  'off',
  'change',
  'reconnect',
] as const;
type Step = (typeof STEPS)[number] | 'unsynced';

/**
 * The oracle of a disk: two clients over one, any schedule of requests, WCE switches, syncs and reconnects. It judges
 * at every completion from outside: what the info said, what was acknowledged, and what a power cut would leave.
 */
class Judge {
  readonly #store = new VolatileStore((target) => new FlushDomain({ target }));
  readonly #disk: Disk;
  readonly #clients: ({ session: DiskSession; client: Client } | null)[] = [];
  readonly #all: Asked[] = [];
  readonly #acknowledged: Asked[] = [];
  #turn = 0;
  #block = 0;
  #wrong: string | null = null;

  constructor(mode: CacheMode) {
    const domain = this.#store.flusher as FlushDomain;
    this.#disk = new Disk({ store: this.#store, mode, domain });
    this.#connect(0);
    this.#connect(1);
  }

  /** Returns the first promise that was broken, or null. In the end the host does all it has been given. */
  run(schedule: readonly Step[]): string | null {
    for (const step of schedule) {
      this.#step(step);
      if (this.#wrong !== null) return this.#wrong;
    }
    for (;;) {
      if (this.#store.pending.length > 0) this.#store.finish();
      else if (this.#store.syncing) this.#store.finishSync();
      else break;
    }
    if (this.#all.some((asked) => !asked.done)) return 'a request was never answered';
    return this.#wrong;
  }

  #step(step: Step): void {
    switch (step) {
      case 'write':
        this.#write(0);
        return;
      case 'fua':
        this.#write(FLAG.FUA);
        return;
      case 'barrier':
        this.#write(FLAG.BARRIER);
        return;
      case 'flush':
        this.#flush();
        return;
      case 'oldest':
      case 'newest': {
        const io = this.#store.pending.at(step === 'oldest' ? 0 : -1);
        if (io !== undefined) this.#store.finish(io);
        return;
      }
      case 'synced':
      case 'unsynced':
        if (this.#store.syncing) this.#store.finishSync(step === 'synced' ? null : 'EIO');
        return;
      case 'on':
        this.#disk.setWriteCache(true, (error) => this.#check(error === null, 'on failed'));
        return;
      case 'off':
        this.#switchOff();
        return;
      case 'change':
        this.#turn = 1 - this.#turn;
        return;
      case 'reconnect':
        this.#reconnect();
        return;
      default:
        unreachable(step);
    }
  }

  #check(holds: boolean, otherwise: string): void {
    if (!holds) this.#wrong ??= otherwise;
  }

  #stable(writes: readonly Asked[]): boolean {
    return this.#disk.mode.ignoreFlush || writes.every((write) => this.#store.isStable(write));
  }

  /** The place of a client is empty while its session waits for its predecessors. */
  #connect(place: number): void {
    this.#disk.openSession({ flushes: true }, (session) => {
      this.#clients[place] = { session, client: new Client(session) };
    });
  }

  #reconnect(): void {
    const place = this.#turn;
    const old = this.#clients[place];
    if (old === undefined || old === null) return;
    const before = old.client.all.filter((asked) => !asked.done);
    old.session.end();
    this.#clients[place] = null;
    this.#disk.openSession({ flushes: true }, (session) => {
      this.#check(
        before.every((asked) => asked.done),
        'P11: served before its predecessor was finished',
      );
      this.#clients[place] = { session, client: new Client(session) };
    });
  }

  #write(flags: number): void {
    const at = this.#clients[this.#turn];
    if (at === undefined || at === null) return;
    this.#block = (this.#block + 1) % 1000;
    const { session, client } = at;
    const writeThrough = !session.info.writeCache;
    const barrier = flags === FLAG.BARRIER;
    const earlier = [...this.#all];
    const asked = client.write(this.#block, flags);
    this.#all.push(asked);
    const judge = (): void => {
      this.#check(asked.io.flags === flags, 'the flags have changed');
      if (asked.error !== null) return;
      const must = writeThrough || !session.info.writeCache || flags !== 0;
      if (must) this.#check(this.#stable([asked]), 'P2, P3: acknowledged before it was stable');
      if (barrier) this.#judgeBarrier(asked, earlier);
      this.#acknowledged.push(asked);
    };
    if (asked.done) judge();
    else asked.onDone = judge;
  }

  #judgeBarrier(asked: Asked, earlier: readonly Asked[]): void {
    this.#check(
      earlier.every((other) => other.done),
      'a barrier passed an earlier request',
    );
    const later = this.#all.slice(this.#all.indexOf(asked) + 1);
    this.#check(
      later.every((other) => !other.done),
      'a barrier was passed',
    );
    const writes = earlier.filter((other) => other.io.mutates && other.error === null);
    this.#check(this.#stable(writes), 'a barrier did not flush what was before it');
  }

  #flush(): void {
    const at = this.#clients[this.#turn];
    if (at === undefined || at === null) return;
    const covers = [...this.#acknowledged];
    const asked = at.client.flush();
    this.#all.push(asked);
    const judge = (): void => {
      if (asked.error === null) this.#check(this.#stable(covers), 'P1: flushed write lost');
    };
    if (asked.done) judge();
    else asked.onDone = judge;
  }

  #switchOff(): void {
    const covers = [...this.#acknowledged];
    this.#disk.setWriteCache(false, (error) => {
      if (error !== null) return;
      this.#check(this.#stable(covers), 'P4: switched off before what came before was stable');
      this.#check(!this.#disk.info.writeCache, 'P4: switched off, and the info says on');
    });
  }
}

for (const mode of Object.keys(CACHE_MODES) as CacheMode[]) {
  test(`any schedule of a disk in mode ${mode} keeps its promises`, () => {
    const schedules = fc.array(fc.constantFrom(...STEPS), { maxLength: 60, size: 'max' });
    fc.assert(
      fc.property(schedules, (schedule) => {
        assert.equal(new Judge(mode).run(schedule), null);
      }),
      { numRuns: 500, seed: 3 },
    );
  });
}

test('the same with a sync that fails', () => {
  const schedules = fc.array(
    fc.oneof(
      { weight: 30, arbitrary: fc.constantFrom<Step>(...STEPS) },
      { weight: 1, arbitrary: fc.constant<Step>('unsynced') },
    ),
    { maxLength: 60, size: 'max' },
  );
  fc.assert(
    fc.property(
      schedules,
      fc.constantFrom<CacheMode>('writeback', 'until-flush'),
      (schedule, mode) => {
        assert.equal(new Judge(mode).run(schedule), null);
      },
    ),
    { numRuns: 1000, seed: 4 },
  );
});
