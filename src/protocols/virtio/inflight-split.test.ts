import assert from 'node:assert/strict';
import test from 'node:test';
import { ProtocolError } from '../../base/errors.ts';
import { Prng } from '../../base/prng.ts';
import { Region } from '../../block/memory.ts';
import type { Place } from './guest-memory.ts';
import { splitRegionBytes } from './inflight-split.ts';
import { RING } from './split-ring.ts';
import type { SplitQueue } from './split-queue.ts';
import { assertBreaks, assertInside, SplitRig } from './split-test-rig.ts';
import type { Chain } from './virtqueue.ts';

const SPEC = 'vhost-user "Inflight I/O tracking"';

/** Thrown out of a store: the process has ended right after it. */
class Killed extends Error {}

/** Sees every store to the log and every Atomics.store while it is armed, and ends the process after one of them. */
class Stores {
  /** "name at offset = value" of each. */
  readonly seen: string[] = [];
  armed = false;
  killAfter = Infinity;
  #count = 0;

  note(what: string): void {
    if (!this.armed) return;
    this.seen.push(what);
    this.#count += 1;
    if (this.#count === this.killAfter) throw new Killed();
  }

  /** Runs `step` with stores watched. True: it was killed. */
  run(step: () => void): boolean {
    const { store } = Atomics;
    Atomics.store = ((array: Uint16Array, index: number, value: number) => {
      store(array, index, value);
      this.note(`ring ${index} = ${value}`);
      return value;
    }) as typeof store;
    this.armed = true;
    try {
      step();
      return false;
    } catch (error) {
      if (error instanceof Killed) return true;
      throw error;
    } finally {
      this.armed = false;
      Atomics.store = store;
    }
  }
}

/** A log's memory whose stores are watched. */
function watchedLog(bytes: number, stores: Stores): Place {
  const region = Region.plain(bytes);
  const { view } = region;
  const plain = new DataView(view.buffer);
  view.setUint8 = (at, value) => {
    plain.setUint8(at, value);
    stores.note(`log ${at} = ${value}`);
  };
  view.setUint16 = (at, value, littleEndian) => {
    plain.setUint16(at, value, littleEndian);
    stores.note(`log ${at} = ${value}`);
  };
  view.setUint32 = (at, value, littleEndian) => {
    plain.setUint32(at, value, littleEndian);
    stores.note(`log ${at} = ${value}`);
  };
  return { region, start: 0 };
}

function plainLog(size: number): Place {
  return { region: Region.plain(splitRegionBytes(size)), start: 0 };
}

/** Where a head's entry begins. */
function entry(head: number): number {
  return 16 + head * 16;
}

/** Adds chains of one buffer each and takes them. */
function takeSome(rig: SplitRig, queue: SplitQueue, count: number): Chain[] {
  const buffer = { address: rig.memory.guestAddress, length: 16 };
  for (let i = 0; i < count; i += 1) rig.driver.add([], [buffer], false);
  rig.driver.publish();
  return Array.from({ length: count }, () => {
    const chain = queue.take();
    assert.ok(chain !== null);
    return chain;
  });
}

test('[vhost-user "Inflight I/O tracking"] parts are as long as those of libvhost-user', () => {
  const known = { 1: 64, 2: 64, 4: 128, 64: 1088, 128: 2112, 256: 4160, 1024: 16448 };
  for (const [size, bytes] of Object.entries(known)) {
    assert.equal(splitRegionBytes(Number(size)), bytes);
  }
  const rig = new SplitRig();
  const inflight = { region: Region.plain(splitRegionBytes(8) - 1), start: 0 };
  assertBreaks(() => rig.queue({ inflight }), /too short/, SPEC);
});

test('[vhost-user "Inflight I/O tracking"] what is stored, where and in which order', () => {
  const stores = new Stores();
  const rig = new SplitRig({ size: 4 });
  const inflight = watchedLog(splitRegionBytes(4), stores);
  inflight.region.bytes.fill(0xee);
  inflight.region.view.setUint16(8, 0, true);
  let queue = rig.queue();
  stores.run(() => {
    queue = rig.queue({ inflight });
  });
  // desc_num, used_idx, and version last.
  assert.deepEqual(stores.seen.splice(0), ['log 10 = 4', 'log 14 = 0', 'log 8 = 1']);
  let chains: Chain[] = [];
  const armedTake = (): void => {
    chains = takeSome(rig, queue, 3);
  };
  stores.run(armedTake);
  assert.deepEqual(
    stores.seen.splice(0).filter((what) => what.startsWith('log')),
    [0, 1, 2].flatMap((head) => [
      `log ${entry(head) + 8} = ${head}`,
      `log ${entry(head) + 12} = 0`,
      `log ${entry(head)} = 1`,
    ]),
  );
  stores.run(() => {
    queue.give(chains[2] as Chain, 0);
    queue.give(chains[0] as Chain, 0);
    queue.publish();
  });
  assert.deepEqual(stores.seen.splice(0), [
    `log ${entry(2) + 6} = 0`,
    'log 12 = 2',
    `log ${entry(0) + 6} = 2`,
    'log 12 = 0',
    `ring ${RING.idx} = 2`,
    `log ${entry(2)} = 0`,
    `log ${entry(0)} = 0`,
    'log 14 = 2',
  ]);
});

test('[vhost-user "Inflight I/O tracking"] the unfinished come first, oldest first, then the ring', () => {
  const rig = new SplitRig({ size: 16 });
  const inflight = plainLog(16);
  const first = rig.queue({ inflight });
  const chains = takeSome(rig, first, 6);
  for (const index of [4, 1, 3]) first.give(chains[index] as Chain, 0);
  first.publish();
  while (rig.driver.take() !== null);
  // Heads are used again, so that their order is not that of taking; and one is given but not published.
  takeSome(rig, first, 2);
  first.give(chains[0] as Chain, 0);
  const buffer = { address: rig.memory.guestAddress, length: 16 };
  const waiting = rig.driver.add([], [buffer], false);
  rig.driver.publish();

  const second = rig.queue({ inflight, base: rig.usedIndex });
  assert.equal(second.ready, true);
  assert.equal(second.enableNotify(), true);
  const taken: number[] = [];
  for (let chain = second.take(); chain !== null; chain = second.take()) taken.push(chain.id);
  assert.deepEqual(taken, [0, 2, 5, 3, 1, waiting]);
  assert.equal(second.inFlight, 6);
  assert.equal(second.ready, false);

  // A third one finds the same.
  const third = rig.queue({ inflight, base: 0 });
  const again: number[] = [];
  for (let chain = third.take(); chain !== null; chain = third.take()) {
    again.push(chain.id);
    third.give(chain, 0);
  }
  assert.deepEqual(again, taken);
  third.publish();
  assert.equal(third.base, 9);
  assert.equal(rig.queue({ inflight, base: 9 }).ready, false);
});

test('[vhost-user "Inflight I/O tracking"] a log that does not exist yet begins at the base', () => {
  const rig = new SplitRig();
  const first = rig.queue();
  for (const chain of takeSome(rig, first, 3)) first.give(chain, 0);
  first.publish();
  const second = rig.queue({ base: 3, inflight: plainLog(8) });
  assert.equal(second.ready, false);
  assert.equal(second.base, 3);
});

/** One life of a queue: everything it does follows from the seed, except where it is killed. */
class Life {
  readonly #prng: Prng;
  readonly #stores: Stores;
  readonly #kills: number[];
  readonly #rig: SplitRig;
  readonly #inflight: Place;
  /** What the driver has made available and not got back, in that order. */
  readonly #pending: number[] = [];
  /** What of it this process takes next. */
  #next = 0;
  #chains: Chain[] = [];
  #queue!: SplitQueue;
  #added = 0;
  #finished = 0;

  /** `kills`: after how many stores a process ends, each counted from the start of that process. */
  constructor(seed: number, stores: Stores, kills: number[]) {
    this.#prng = new Prng(seed);
    const size = 2 ** this.#prng.below(4);
    const eventIdx = this.#prng.chance(0.5);
    this.#rig = new SplitRig({ size, eventIdx, memoryBytes: 1 << 15 });
    this.#inflight = watchedLog(splitRegionBytes(size), stores);
    this.#stores = stores;
    this.#kills = kills;
    stores.killAfter = kills.shift() ?? Infinity;
  }

  live(): void {
    this.#run(this.#begin);
    for (let i = 0; i < 40; i += 1) {
      const op = this.#prng.below(8);
      if (op < 2) this.#add();
      else if (op < 4) this.#run(this.#take);
      else if (op < 6) this.#run(this.#give);
      else if (op === 6) this.#run(this.#publish);
      else this.#collect();
    }
    while (this.#pending.length > 0) {
      while (this.#next < this.#pending.length) this.#run(this.#take);
      while (this.#chains.length > 0) this.#run(this.#give);
      this.#run(this.#publish);
      this.#collect();
    }
    assert.equal(this.#finished, this.#added);
    assert.equal(this.#queue.take(), null);
    assert.equal(this.#queue.base, this.#rig.usedIndex);
  }

  /** Runs a step; when it is killed, a new process begins, which may be killed as well. */
  #run(step: () => void): void {
    for (let todo = step; this.#stores.run(todo); todo = this.#begin) {
      this.#stores.killAfter = this.#stores.seen.length + (this.#kills.shift() ?? Infinity);
      this.#collect();
      this.#next = 0;
      this.#chains = [];
    }
  }

  #add(): void {
    const buffer = { address: this.#rig.memory.guestAddress, length: 16 };
    const token = this.#rig.driver.add([], [buffer], this.#prng.chance(0.3));
    this.#rig.driver.publish();
    if (token === -1) return;
    this.#pending.push(token);
    this.#added += 1;
  }

  #collect(): void {
    const { driver } = this.#rig;
    for (let used = driver.take(); used !== null; used = driver.take()) {
      const index = this.#pending.indexOf(used.token);
      assert.ok(index !== -1 && index < this.#next, 'given back before it was executed');
      this.#pending.splice(index, 1);
      this.#next -= 1;
      this.#finished += 1;
    }
  }

  readonly #begin = (): void => {
    this.#queue = this.#rig.queue({ inflight: this.#inflight, base: this.#rig.usedIndex });
  };

  readonly #take = (): void => {
    const chain = this.#queue.take();
    if (chain === null) {
      assert.equal(this.#next, this.#pending.length, 'a chain was lost');
      return;
    }
    assert.equal(chain.id, this.#pending[this.#next], 'out of order');
    this.#next += 1;
    this.#chains.push(chain);
  };

  readonly #give = (): void => {
    const chain = this.#chains.splice(this.#prng.below(this.#chains.length), 1)[0];
    if (chain !== undefined) this.#queue.give(chain, 0);
  };

  readonly #publish = (): void => {
    this.#queue.publish();
  };
}

test('[vhost-user "Inflight I/O tracking"] killed after any store, nothing is lost, doubled or reordered', () => {
  let lives = 0;
  for (let seed = 1; seed <= 30; seed += 1) {
    const whole = new Stores();
    new Life(seed, whole, []).live();
    const prng = new Prng(seed * 1000);
    for (let kill = 1; kill <= whole.seen.length; kill += 1) {
      const kills = [kill, 1 + prng.below(6), 1 + prng.below(6), 1 + prng.below(40)];
      try {
        new Life(seed, new Stores(), kills.slice(0, 1 + prng.below(4))).live();
      } catch (error) {
        throw new Error(`seed ${seed}, killed after ${kills.join(', ')}`, { cause: error });
      }
      lives += 1;
    }
  }
  assert.ok(lives > 1000, `${lives} lives`);
});

/** A log with a batch that is visible but not noted, of heads 0 to 2, and heads 3 and 4 unfinished. */
function interrupted(): { rig: SplitRig; inflight: Place } {
  const rig = new SplitRig();
  const stores = new Stores();
  const inflight = watchedLog(splitRegionBytes(8), stores);
  const queue = rig.queue({ inflight });
  const chains = takeSome(rig, queue, 5);
  for (const chain of chains.slice(0, 3)) queue.give(chain, 0);
  stores.killAfter = 1;
  assert.equal(
    stores.run(() => queue.publish()),
    true,
  );
  return { rig, inflight: { region: new Region(0, inflight.region.bytes.buffer), start: 0 } };
}

test('[vhost-user "Inflight I/O tracking"] a region of somebody else is refused', () => {
  const strangers: [RegExp, (view: DataView) => void][] = [
    [/version 2/, (view) => view.setUint16(8, 2, true)],
    [/queue of 16, not 8/, (view) => view.setUint16(10, 16, true)],
    [/queue of 0, not 8/, (view) => view.setUint16(10, 0, true)],
    [/unknown features/, (view) => view.setUint8(7, 1)],
    [/not of this used ring/, (view) => view.setUint16(14, 10, true)],
    [/not of this used ring/, (view) => view.setUint16(14, 0xfff0, true)],
    [/last batch/, (view) => view.setUint16(12, 8, true)],
    [/last batch/, (view) => view.setUint16(16 + 2 * 16 + 6, 9, true)],
    [/last batch/, (view) => view.setUint16(16 + 1 * 16 + 6, 2, true)],
    [/entry/, (view) => view.setUint8(16 + 3 * 16, 2)],
    [/entry/, (view) => view.setUint32(16 + 3 * 16 + 12, 2 ** 21, true)],
  ];
  for (const [message, change] of strangers) {
    const { rig, inflight } = interrupted();
    change(inflight.region.view);
    assertBreaks(() => rig.queue({ inflight, base: 3 }), message, SPEC);
  }
  const { rig, inflight } = interrupted();
  const queue = rig.queue({ inflight, base: 3 });
  assert.deepEqual([queue.take()?.id, queue.take()?.id, queue.take()], [3, 4, null]);
});

test('random bytes in a log end in a ProtocolError or in chains inside of guest memory', () => {
  let refused = 0;
  const rounds = 3000;
  for (let seed = 1; seed <= rounds; seed += 1) {
    const prng = new Prng(seed);
    const { rig, inflight } = interrupted();
    const { bytes } = inflight.region;
    for (let i = prng.below(6); i >= 0; i -= 1) {
      bytes[prng.below(prng.chance(0.5) ? 16 : bytes.length)] = prng.below(prng.pick([4, 256]));
    }
    try {
      const queue = rig.queue({ inflight, base: 3 });
      for (let chain = queue.take(); chain !== null; chain = queue.take()) {
        assertInside(rig.memory.memory, chain);
        queue.give(chain, 0);
        queue.publish();
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw new Error(`seed ${seed}`, { cause: error });
      refused += 1;
    }
  }
  assert.ok(refused > rounds / 4 && refused < rounds, `${refused} refused`);
});
