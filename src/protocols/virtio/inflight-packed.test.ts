import fc from 'fast-check';
import assert from 'node:assert/strict';
import test from 'node:test';
import { ProtocolError } from '../../base/errors.ts';
import { Prng } from '../../base/prng.ts';
import type { Buffer } from './driver/driver-queue.ts';
import type { Place } from './guest-memory.ts';
import { packedRegionBytes } from './inflight-packed.ts';
import { PackedQueue } from './packed-queue.ts';
import { GUEST_ADDRESS, INITIAL_BASE, listed, PackedRig } from './packed-test-rig.ts';
import { traceArrays } from './traced-arrays.ts';
import { VIRTQ_DESC_F, VIRTQ_PACKED_DESC_F } from './virtio.ts';
import type { Chain } from './virtqueue.ts';

const { NEXT, WRITE } = VIRTQ_DESC_F;
const { AVAIL, USED } = VIRTQ_PACKED_DESC_F;

/** A queue with an in-flight region, which each call of `start` goes on with as a new process would. */
class Tracked {
  readonly rig: PackedRig;
  readonly place: Place;

  constructor(size: number, indirect = false) {
    this.rig = new PackedRig({ size, indirect, eventIdx: true });
    const region = this.rig.memory.allocate(packedRegionBytes(size), 64);
    this.place = this.rig.memory.placeOf(region.address);
  }

  /** A new process. The base is what QEMU says after a crash: nothing new. */
  start(base = INITIAL_BASE): PackedQueue {
    return new PackedQueue({ ...this.rig.options, inflight: this.place, base });
  }

  u8(offset: number): number {
    return this.place.region.view.getUint8(this.place.start + offset);
  }

  u16(offset: number): number {
    return this.place.region.view.getUint16(this.place.start + offset, true);
  }

  u32(offset: number): number {
    return this.place.region.view.getUint32(this.place.start + offset, true);
  }

  u64(offset: number): bigint {
    return this.place.region.view.getBigUint64(this.place.start + offset, true);
  }

  set16(offset: number, value: number): void {
    this.place.region.view.setUint16(this.place.start + offset, value, true);
  }

  /** Adds chains of these lengths and lets the device see them. */
  offer(...lengths: number[]): number[] {
    const ids = lengths.map((length) => {
      const buffers = Array.from({ length }, () => this.rig.buffer());
      return this.rig.driver.add(buffers.slice(1), buffers.slice(0, 1), false);
    });
    this.rig.driver.publish();
    return ids;
  }

  header(): Record<string, number> {
    return {
      version: this.u16(8),
      desc_num: this.u16(10),
      free_head: this.u16(12),
      old_free_head: this.u16(14),
      used_idx: this.u16(16),
      old_used_idx: this.u16(18),
      used_wrap_counter: this.u8(20),
      old_used_wrap_counter: this.u8(21),
    };
  }

  entry(index: number): Record<string, number | bigint> {
    const at = 32 + 32 * index;
    return {
      inflight: this.u8(at),
      next: this.u16(at + 2),
      last: this.u16(at + 4),
      num: this.u16(at + 6),
      counter: this.u64(at + 8),
      id: this.u16(at + 16),
      flags: this.u16(at + 18),
      len: this.u32(at + 20),
      addr: this.u64(at + 24),
    };
  }
}

function takeAll(queue: PackedQueue): Chain[] {
  const chains: Chain[] = [];
  for (let chain = queue.take(); chain !== null; chain = queue.take()) chains.push(chain);
  return chains;
}

test('the region: 32 bytes and 32 for each entry, up to a multiple of 64', () => {
  assert.equal(packedRegionBytes(1), 64);
  assert.equal(packedRegionBytes(2), 128);
  assert.equal(packedRegionBytes(128), 64 * 65);
  assert.equal(packedRegionBytes(32768), 32 * 32770);
});

test('an uninitialized region becomes a list of free entries at the base’s used index', () => {
  const tracked = new Tracked(4);
  const base = (1 | (1 << 16) | (1 << 31)) >>> 0;
  tracked.start((base | 0x8000) >>> 0);
  assert.deepEqual(tracked.header(), {
    version: 1,
    desc_num: 4,
    free_head: 0,
    old_free_head: 0,
    used_idx: 1,
    old_used_idx: 1,
    used_wrap_counter: 1,
    old_used_wrap_counter: 1,
  });
  assert.equal(tracked.u64(0), 0n);
  const links = [0, 1, 2, 3].map((index) => tracked.entry(index)['next']);
  assert.deepEqual(links, [1, 2, 3, 4]);
});

test('a chain is recorded as the ring has it, and freed when it is published', () => {
  const tracked = new Tracked(4);
  const { rig } = tracked;
  const queue = tracked.start();
  const [a, b, c] = [rig.buffer(100), rig.buffer(200), rig.buffer(300)];
  rig.put(1, b, 66, WRITE | AVAIL);
  rig.put(0, a, 55, NEXT | AVAIL);
  rig.put(2, c, 77, AVAIL);
  const chain = queue.take() as Chain;
  const one = { inflight: 1, next: 1, last: 1, num: 2, counter: 0n, id: 55 };
  assert.deepEqual(tracked.entry(0), {
    ...one,
    flags: NEXT | AVAIL,
    len: 100,
    addr: BigInt(a.address),
  });
  const two = { inflight: 0, next: 2, last: 0, num: 0, counter: 0n, id: 66 };
  assert.deepEqual(tracked.entry(1), {
    ...two,
    flags: WRITE | AVAIL,
    len: 200,
    addr: BigInt(b.address),
  });
  takeAll(queue);
  assert.equal(tracked.entry(2)['counter'], 1n);
  assert.equal(tracked.header()['free_head'], 3);
  assert.equal(tracked.header()['old_free_head'], 3);
  queue.give(chain, 0);
  assert.equal(tracked.entry(0)['inflight'], 1);
  queue.publish();
  assert.equal(tracked.entry(0)['inflight'], 0);
  assert.equal(tracked.entry(1)['next'], 3);
  assert.deepEqual(tracked.header(), {
    version: 1,
    desc_num: 4,
    free_head: 0,
    old_free_head: 0,
    used_idx: 2,
    old_used_idx: 2,
    used_wrap_counter: 1,
    old_used_wrap_counter: 1,
  });
});

test('chains left behind are taken again, oldest first, though their slots were overwritten', () => {
  const tracked = new Tracked(6);
  const ids = tracked.offer(1, 2, 1, 1);
  const first = tracked.start();
  const chains = takeAll(first);
  const before = chains.map(({ readable, writable }) => [listed(readable), listed(writable)]);
  // The second and the last are used: over the slots of the first and the second.
  first.give(chains[1] as Chain, 0);
  first.give(chains[3] as Chain, 0);
  first.publish();
  const [later] = tracked.offer(1) as [number];

  const second = tracked.start();
  assert.ok(second.ready);
  const again = takeAll(second);
  assert.deepEqual(
    again.map(({ id }) => id),
    [ids[0], ids[2], later],
  );
  const after = again.map(({ readable, writable }) => [listed(readable), listed(writable)]);
  assert.deepEqual(after.slice(0, 2), [before[0], before[2]]);
  for (const chain of again) second.give(chain, 1);
  second.publish();
  const { driver } = tracked.rig;
  const used = [0, 1, 2, 3, 4].map(() => driver.take()?.token);
  assert.deepEqual(used, [ids[1], ids[3], ids[0], ids[2], later]);
  assert.equal(driver.inFlight, 0);
});

test('indirect chains are left behind as their one descriptor', () => {
  const tracked = new Tracked(3, true);
  const { rig } = tracked;
  const [a, b] = [rig.buffer(10), rig.buffer(20)];
  rig.driver.add([a], [b], true);
  rig.driver.publish();
  takeAll(tracked.start());
  const [again] = takeAll(tracked.start());
  assert.deepEqual(listed((again as Chain).readable), [a]);
  assert.deepEqual(listed((again as Chain).writable), [b]);
});

test('a chain that broke the protocol half-way leaves no trace in the region', () => {
  const tracked = new Tracked(4);
  const { rig } = tracked;
  rig.put(0, rig.buffer(), 1, AVAIL);
  rig.put(1, rig.buffer(), 2, NEXT | AVAIL);
  rig.put(2, rig.buffer(), 3, USED);
  const queue = tracked.start();
  const chain = queue.take() as Chain;
  assert.throws(() => queue.take(), ProtocolError);
  queue.give(chain, 0);
  queue.publish();
  assert.equal(tracked.header()['free_head'], 0);
  assert.equal(tracked.entry(0)['next'], 1);
  const successor = tracked.start();
  assert.throws(() => successor.take(), /not all available/);
});

test('a region that is damaged or not this queue’s is refused', () => {
  const cases: [RegExp, (tracked: Tracked) => void][] = [
    [/version 2/, (tracked) => tracked.set16(8, 2)],
    [/queue of 5, not 4/, (tracked) => tracked.set16(10, 5)],
    [/unknown features/, (tracked) => tracked.set16(6, 1)],
    [/index out of range/, (tracked) => tracked.set16(16, 4)],
    [/index out of range/, (tracked) => tracked.set16(18, 4)],
    [/wrap counter/, (tracked) => tracked.set16(20, 0x0002)],
    [/wrap counter/, (tracked) => tracked.set16(20, 0x0200)],
    [/lost entries/, (tracked) => tracked.set16(14, 4)],
    [/loop/, (tracked) => tracked.set16(32 + 32 * 3 + 2, 3)],
    [/two chains/, (tracked) => tracked.set16(32 + 2, 3)],
    [/two chains/, (tracked) => tracked.set16(32 + 2, 9)],
    [/without its end/, (tracked) => tracked.set16(32 + 4, 2)],
    [/without its end/, (tracked) => tracked.set16(32 + 6, 0)],
    [/lost entries/, (tracked) => tracked.set16(32, 0)],
  ];
  for (const [message, damage] of cases) {
    const tracked = new Tracked(4);
    tracked.offer(2);
    takeAll(tracked.start());
    damage(tracked);
    assert.throws(
      () => tracked.start(),
      (error) => error instanceof ProtocolError && message.test(error.message),
      String(message),
    );
  }
  const tracked = new Tracked(4);
  const { region, start } = tracked.place;
  const inflight = { region, start: start + 4 };
  assert.throws(() => new PackedQueue({ ...tracked.rig.options, inflight }), /misplaced/);
});

test('random damage of the region is refused or harmless', () => {
  let refused = 0;
  for (let seed = 1; seed <= 2000; seed += 1) {
    const random = new Prng(seed);
    const tracked = new Tracked(5);
    tracked.offer(2, 1, 2);
    const queue = tracked.start();
    const chains = takeAll(queue);
    queue.give(chains[random.below(3)] as Chain, 0);
    queue.publish();
    const { region, start } = tracked.place;
    for (let i = random.below(4); i >= 0; i -= 1) {
      const at = start + random.below(packedRegionBytes(5));
      region.bytes[at] = random.chance(0.5) ? random.uint32() : random.below(6);
    }
    try {
      for (const { readable, writable } of takeAll(tracked.start())) {
        for (const { address, length } of [...listed(readable), ...listed(writable)]) {
          assert.ok(address >= GUEST_ADDRESS);
          assert.ok(address + length <= GUEST_ADDRESS + region.bytes.length);
        }
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      refused += 1;
    }
  }
  assert.ok(refused > 300 && refused < 1900, `${refused} refused`);
});

// The process dies between any two stores.

class Crash extends Error {}

/** Which hands a chain is in, as the driver and the oracle see it. */
type State = 'offered' | 'taken' | 'given';

interface Offered {
  readonly sequence: number;
  state: State;
}

/**
 * A driver that is always alive, and a device that dies at the stores it is told to. The oracle: the driver gets every
 * chain back once, not before the device has given it; and a successor takes chains in the order of the ring.
 */
class CrashWorld {
  readonly #tracked: Tracked;
  readonly #random: Prng;
  readonly #size: number;
  /** Chains that the driver has not got back: by buffer id, which it knows; and by address, which the device sees. */
  readonly #byId = new Map<number, Offered>();
  readonly #byAddress = new Map<number, Offered>();
  readonly #addresses = new Map<number, number>();
  #queue: PackedQueue | null = null;
  #held: { chain: Chain; offered: Offered }[] = [];
  #lastTaken = -1;
  #sequence = 0;
  /** Counts stores. The device dies before those for which `dies` is true. */
  stores = 0;
  readonly #dies: (store: number) => boolean;
  crashes = 0;
  /** No more crashes. */
  #calm = false;

  constructor(size: number, seed: number, dies: (store: number) => boolean) {
    this.#size = size;
    this.#random = new Prng(seed);
    this.#dies = dies;
    this.#tracked = new Tracked(size, true);
  }

  run(steps: number): void {
    for (let i = 0; i < steps; i += 1) this.#step();
    this.#settle();
  }

  #step(): void {
    const random = this.#random;
    const choice = random.below(7);
    if (choice === 0) this.#offer();
    else if (choice === 1) this.#collect();
    else this.#alive((queue) => this.#work(queue, choice));
  }

  #work(queue: PackedQueue, choice: number): void {
    if (choice <= 3) this.#take(queue);
    else if (choice <= 5) this.#give(queue);
    else queue.publish();
  }

  /** Lets the device do something; a new one, if the last has died. */
  #alive(work: (queue: PackedQueue) => void): void {
    try {
      this.#queue ??= this.#start();
      work(this.#queue);
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      this.crashes += 1;
      this.#queue = null;
      this.#held = [];
      this.#lastTaken = -1;
    }
  }

  #start(): PackedQueue {
    const hooks = {
      store: () => {
        this.stores += 1;
        if (!this.#calm && this.#dies(this.stores)) throw new Crash();
      },
    };
    const { buffer } = this.#tracked.place.region.bytes;
    return traceArrays(buffer, hooks, () => this.#tracked.start());
  }

  #offer(): void {
    const { driver } = this.#tracked.rig;
    const random = this.#random;
    for (let i = random.below(3); i >= 0; i -= 1) {
      const sequence = this.#sequence;
      const address = GUEST_ADDRESS + 2 ** 16 + 64 * (sequence % 512);
      const count = 1 + random.below(Math.min(3, this.#size));
      const buffers: Buffer[] = Array.from({ length: count }, (_, k) => ({
        address: address + 16 * k,
        length: 8,
      }));
      const id = driver.add(buffers.slice(0, -1), buffers.slice(-1), random.chance(0.3));
      if (id === -1) break;
      this.#sequence += 1;
      const offered: Offered = { sequence, state: 'offered' };
      this.#byId.set(id, offered);
      this.#byAddress.set(address, offered);
      this.#addresses.set(id, address);
    }
    driver.publish();
  }

  #collect(): void {
    for (;;) {
      // Throws when the driver does not know the id (any more).
      const used = this.#tracked.rig.driver.take();
      if (used === null) return;
      const offered = this.#byId.get(used.token) as Offered;
      assert.equal(offered.state, 'given', 'the driver sees a chain that was not given');
      this.#byId.delete(used.token);
      this.#byAddress.delete(this.#addresses.get(used.token) as number);
    }
  }

  #take(queue: PackedQueue): void {
    const chain = queue.take();
    if (chain === null) return;
    const [first] = [...listed(chain.readable), ...listed(chain.writable)];
    const offered = this.#byAddress.get((first as Buffer).address);
    assert.ok(offered !== undefined, 'a chain that the driver has got back is taken again');
    assert.equal(this.#byId.get(chain.id), offered);
    assert.ok(
      this.#held.every((held) => held.offered !== offered),
      'a chain is taken twice',
    );
    assert.ok(offered.sequence > this.#lastTaken, 'chains are taken in order');
    this.#lastTaken = offered.sequence;
    offered.state = 'taken';
    this.#held.push({ chain, offered });
  }

  #give(queue: PackedQueue): void {
    if (this.#held.length === 0) return;
    const [{ chain, offered }] = this.#held.splice(this.#random.below(this.#held.length), 1) as [
      { chain: Chain; offered: Offered },
    ];
    // From here on it may become visible: when the process dies now, or with a later batch.
    offered.state = 'given';
    queue.give(chain, chain.writable.totalBytes);
  }

  /** Everything comes back, whatever has happened. */
  #settle(): void {
    const { driver } = this.#tracked.rig;
    for (let i = 0; driver.inFlight > 0; i += 1) {
      assert.ok(i < 1000, `${driver.inFlight} chains are lost`);
      this.#calm = i > 300;
      this.#alive((queue) => {
        this.#take(queue);
        this.#give(queue);
        queue.publish();
      });
      this.#collect();
    }
    assert.equal(this.#byId.size, 0);
  }
}

test('a crash between any two stores loses no chain and shows none to the driver twice', () => {
  let crashes = 0;
  for (const [size, seed] of [
    [1, 1],
    [2, 2],
    [3, 3],
    [4, 4],
    [5, 5],
    [7, 6],
  ] as const) {
    const steps = 120;
    const whole = new CrashWorld(size, seed, () => false);
    whole.run(steps);
    assert.ok(whole.stores > 40);
    for (let at = 1; at <= whole.stores; at += 1) {
      const world = new CrashWorld(size, seed, (store) => store === at);
      world.run(steps);
      crashes += world.crashes;
    }
  }
  assert.ok(crashes > 1000, `${crashes} crashes`);
});

test('a crash while a batch across the end of the ring is published: index and wrap counter change together', () => {
  for (let at = 1, crashed = true; crashed; at += 1) {
    const tracked = new Tracked(3);
    const { driver } = tracked.rig;
    let stores = -Infinity;
    const hooks = {
      store: () => {
        stores += 1;
        if (stores === at) throw new Crash();
      },
    };
    const { buffer } = tracked.place.region.bytes;
    const queue = traceArrays(buffer, hooks, () => tracked.start());
    // Slot 1 stays as the driver has written it in the first round, and is where the next one ends.
    for (let i = 0; i < 2; i += 1) {
      tracked.offer(2);
      queue.give(queue.take() as Chain, 0);
      if (i === 1) stores = 0;
      try {
        queue.publish();
        crashed = false;
      } catch (error) {
        if (!(error instanceof Crash)) throw error;
        crashed = true;
      }
      if (i === 0) assert.ok(driver.take() !== null);
    }
    const successor = tracked.start();
    const again = takeAll(successor);
    assert.equal(again.length, driver.take() === null ? 1 : 0);
    const [next] = tracked.offer(1) as [number];
    const chains = [...again, ...takeAll(successor)];
    assert.equal(chains.at(-1)?.id, next);
    for (const chain of chains) successor.give(chain, 0);
    successor.publish();
    for (const { id } of chains) assert.equal(driver.take()?.token, id);
    assert.equal(driver.inFlight, 0);
  }
});

test('crashes one after the other, also while a successor recovers', () => {
  let crashes = 0;
  const property = fc.property(
    fc.integer({ min: 1, max: 9 }),
    fc.integer({ min: 0, max: 2 ** 31 }),
    fc.integer({ min: 5, max: 80 }),
    (size, seed, apart) => {
      const random = new Prng(seed);
      const world = new CrashWorld(size, seed, () => random.chance(1 / apart));
      world.run(150);
      crashes += world.crashes;
    },
  );
  fc.assert(property, { numRuns: 300, seed: 31 });
  assert.ok(crashes > 2000, `${crashes} crashes`);
});

test('a front-end that changes the region after it was checked breaks the queue, and nothing is read elsewhere', () => {
  const NUM = 32 + 6;
  const FIRST_NEXT = 32 + 2;
  for (const [offset, value] of [
    [NUM, 0xffff],
    [NUM, 0],
    [NUM, 4],
    [FIRST_NEXT, 4],
    [FIRST_NEXT, 0xffff],
  ] as const) {
    const tracked = new Tracked(4);
    tracked.offer(2, 1);
    takeAll(tracked.start());
    const successor = tracked.start();
    assert.ok(successor.ready);
    tracked.set16(offset, value);
    assert.throws(
      () => successor.take(),
      (error) => error instanceof ProtocolError && /has changed since/.test(error.message),
    );
  }
});
