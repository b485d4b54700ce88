import fc from 'fast-check';
import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import type { Buffer } from './driver/driver-queue.ts';
import { PackedQueue } from './packed-queue.ts';
import { GUEST_ADDRESS, listed, PackedRig } from './packed-test-rig.ts';
import type { Chain } from './virtqueue.ts';

// Device against driver, with a model between them.

const ACTIONS = [
  'add',
  'add',
  'offer',
  'take',
  'take',
  'give',
  'publish',
  'collect',
  'driverSleeps',
  'deviceSleeps',
  'handOver',
] as const;

interface Expected {
  readonly id: number;
  readonly readable: readonly Buffer[];
  readonly writable: readonly Buffer[];
  readonly slots: number;
  written: number;
}

interface Held {
  readonly chain: Chain;
  readonly expected: Expected;
}

/** What must have happened, one queue for each place where a chain can be. */
class Model {
  readonly rig: PackedRig;
  readonly #random: Prng;
  readonly #added: Expected[] = [];
  readonly #offered: Expected[] = [];
  readonly #held: Held[] = [];
  readonly #given: Expected[] = [];
  readonly #used: Expected[] = [];
  /** Asleep: whatever becomes visible to that side must be told to it. */
  #driverAsleep = false;
  #deviceAsleep = false;
  #queue: PackedQueue;
  #slots = 0;

  constructor(rig: PackedRig, seed: number) {
    this.rig = rig;
    this.#queue = rig.queue;
    this.#random = new Prng(seed);
  }

  /** Chains that the driver has not got back. */
  get inFlight(): number {
    const places = [this.#added, this.#offered, this.#held, this.#given, this.#used];
    return places.reduce((sum, { length }) => sum + length, 0);
  }

  act(action: (typeof ACTIONS)[number]): void {
    if (action === 'add') this.#add();
    else if (action === 'offer') this.#offer();
    else if (action === 'take') this.#take();
    else if (action === 'give') this.#give();
    else if (action === 'publish') this.#publish();
    else if (action === 'collect') this.#collect();
    else if (action === 'driverSleeps') this.#driverSleeps();
    else if (action === 'deviceSleeps') this.#deviceSleeps();
    else this.#handOver();
    assert.equal(this.#queue.inFlight, this.#held.length);
    assert.equal(this.rig.driver.inFlight, this.inFlight);
  }

  #buffers(most: number): Buffer[] {
    const random = this.#random;
    return Array.from({ length: random.below(most + 1) }, () => ({
      // Apart, so that segments are not joined.
      address: GUEST_ADDRESS + 64 * random.below(2 ** 11) + random.below(16),
      length: 1 + random.below(32),
    }));
  }

  #add(): void {
    const { driver } = this.rig;
    const random = this.#random;
    const indirect = random.chance(0.4);
    const most = indirect ? 4 : Math.min(driver.size, random.chance(0.9) ? 5 : driver.size);
    const readable = this.#buffers(most);
    const writable = this.#buffers(most - readable.length);
    if (readable.length + writable.length === 0) {
      writable.push({ address: GUEST_ADDRESS + 64, length: 3 });
    }
    const count = indirect ? 1 : readable.length + writable.length;
    const id = driver.add(readable, writable, indirect);
    assert.equal(id === -1, count > driver.size - this.#slots);
    if (id === -1) return;
    this.#slots += count;
    this.#added.push({ id, readable, writable, slots: count, written: 0 });
  }

  #offer(): void {
    const told = this.rig.driver.publish();
    if (this.#added.length === 0) assert.equal(told, false);
    else if (this.#deviceAsleep) {
      assert.equal(told, true, 'the device is told');
      this.#deviceAsleep = false;
      this.#queue.disableNotify();
    }
    this.#offered.push(...this.#added.splice(0));
  }

  #take(): void {
    assert.equal(this.#queue.ready, this.#offered.length > 0);
    const chain = this.#queue.take();
    const expected = this.#offered.shift();
    if (expected === undefined) {
      assert.equal(chain, null);
      return;
    }
    assert.ok(chain !== null);
    assert.equal(chain.id, expected.id);
    assert.equal(chain.slots, expected.slots);
    assert.deepEqual(joined(listed(chain.readable)), joined(expected.readable));
    assert.deepEqual(joined(listed(chain.writable)), joined(expected.writable));
    this.#held.push({ chain, expected });
  }

  #give(): void {
    if (this.#held.length === 0) return;
    const index = this.#random.below(this.#held.length);
    const [{ chain, expected }] = this.#held.splice(index, 1) as [Held];
    expected.written = this.#random.below(chain.writable.totalBytes + 1);
    this.#queue.give(chain, expected.written);
    this.#given.push(expected);
  }

  #publish(): void {
    const told = this.#queue.publish();
    if (this.#given.length === 0) assert.equal(told, false);
    else if (this.#driverAsleep) {
      assert.equal(told, true, 'the driver is told');
      this.#driverAsleep = false;
      this.rig.driver.disableInterrupts();
    } else {
      assert.equal(told, false, 'the driver is left alone');
    }
    this.#used.push(...this.#given.splice(0));
  }

  #collect(): void {
    const used = this.rig.driver.take();
    const expected = this.#used.shift();
    if (expected === undefined) {
      assert.equal(used, null);
      return;
    }
    assert.equal(used?.token, expected.id);
    assert.equal(used.written, expected.written);
    this.#slots -= expected.slots;
  }

  #driverSleeps(): void {
    if (this.#driverAsleep) return;
    const waiting = this.rig.driver.enableInterrupts();
    assert.equal(waiting, this.#used.length > 0);
    if (waiting) this.rig.driver.disableInterrupts();
    else this.#driverAsleep = true;
  }

  #deviceSleeps(): void {
    if (this.#deviceAsleep) return;
    const waiting = this.#queue.enableNotify();
    assert.equal(waiting, this.#offered.length > 0);
    if (waiting) this.#queue.disableNotify();
    else this.#deviceAsleep = true;
  }

  /** A successor goes on where the queue is. */
  #handOver(): void {
    if (this.#held.length > 0 || this.#given.length > 0) return;
    this.#queue = new PackedQueue({ ...this.rig.options, base: this.#queue.base });
    this.#deviceAsleep = false;
    this.#queue.disableNotify();
  }
}

/** Segments that touch are joined. */
function joined(buffers: readonly Buffer[]): Buffer[] {
  const result: Buffer[] = [];
  for (const { address, length } of buffers) {
    const last = result.at(-1);
    if (last !== undefined && last.address + last.length === address) {
      result[result.length - 1] = { address: last.address, length: last.length + length };
    } else {
      result.push({ address, length });
    }
  }
  return result;
}

test('[2.8] device and driver agree with a model, for sizes from 1 to 1024 and around the ring many times', () => {
  const sizes = fc.oneof(
    fc.integer({ min: 1, max: 9 }),
    fc.constantFrom(16, 100, 255, 256, 257, 1000, 1023, 1024),
  );
  const property = fc.property(
    sizes,
    fc.boolean(),
    fc.integer({ min: 0, max: 2 ** 31 }),
    fc.array(fc.constantFrom(...ACTIONS), { minLength: 100, maxLength: 1000 }),
    (size, eventIdx, seed, actions) => {
      const rig = new PackedRig({ size, eventIdx });
      rig.driver.disableInterrupts();
      rig.queue.disableNotify();
      const model = new Model(rig, seed);
      for (const action of actions) model.act(action);
      for (let i = 0; i <= 2 * size && model.inFlight > 0; i += 1) {
        for (const action of ['offer', 'take', 'give', 'publish', 'collect'] as const) {
          model.act(action);
        }
      }
      assert.equal(model.inFlight, 0, 'everything came back');
    },
  );
  fc.assert(property, { numRuns: 300, seed: 28 });
});
