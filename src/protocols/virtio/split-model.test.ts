import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Buffer } from './driver/driver-queue.ts';
import type { SplitQueue } from './split-queue.ts';
import { assertInside, GUEST_BASE, SplitRig } from './split-test-rig.ts';
import type { Chain } from './virtqueue.ts';

// Our driver against our device over random operations, with a model of what must come out.

const STEPS = [
  'add',
  'addIndirect',
  'publish',
  'take',
  'takeAll',
  'give',
  'tell',
  'collect',
  'sleepDevice',
  'wakeDevice',
  'sleepDriver',
  'wakeDriver',
] as const;
type Step = (typeof STEPS)[number];

const step = fc.record({
  what: fc.constantFrom(...STEPS),
  /** How many chains, how they are cut and which of them: what the step makes of it. */
  seed: fc.nat(0xffff),
});

interface Expected {
  readonly token: number;
  readonly readable: readonly Buffer[];
  readonly writable: readonly Buffer[];
}

class Model {
  readonly rig: SplitRig;
  readonly queue: SplitQueue;
  /** Added; visible to the device; with it; given back; visible to the driver. */
  readonly added: Expected[] = [];
  readonly waiting: Expected[] = [];
  readonly taken: { expected: Expected; chain: Chain }[] = [];
  readonly given: { token: number; written: number }[] = [];
  readonly visible: { token: number; written: number }[] = [];
  deviceSleeps = false;
  driverSleeps = false;
  chains = 0;

  constructor(rig: SplitRig) {
    this.rig = rig;
    this.queue = rig.queue();
  }

  run(what: Step, seed: number): void {
    if (what === 'add' || what === 'addIndirect') this.add(seed, what === 'addIndirect');
    else if (what === 'publish') this.publish();
    else if (what === 'take') this.take();
    else if (what === 'takeAll') while (this.take());
    else if (what === 'give') this.give(seed);
    else if (what === 'tell') this.tell();
    else if (what === 'collect') while (this.collect());
    else if (what === 'sleepDevice') {
      assert.equal(this.queue.enableNotify(), this.waiting.length > 0);
      this.deviceSleeps = this.waiting.length === 0;
    } else if (what === 'wakeDevice') {
      this.queue.disableNotify();
      this.deviceSleeps = false;
    } else if (what === 'sleepDriver') {
      assert.equal(this.rig.driver.enableInterrupts(), this.visible.length > 0);
      this.driverSleeps = this.visible.length === 0;
    } else {
      this.rig.driver.disableInterrupts();
      this.driverSleeps = false;
    }
    assert.equal(this.queue.ready, this.waiting.length > 0);
    assert.equal(this.queue.inFlight, this.taken.length);
  }

  /** A burst of chains, cut by the seed. */
  add(seed: number, indirect: boolean): void {
    for (let i = 0; i <= seed % 40; i += 1) {
      const most = indirect ? 16 : Math.min(16, this.rig.size);
      const count = 1 + ((seed + i) % most);
      const buffers = Array.from({ length: count }, (_, k) => ({
        address: GUEST_BASE + ((seed * 31 + i * 7 + k * 1024) & 0x3fff),
        length: (seed + i * 13 + k) % 512,
      }));
      const cut = (seed + i) % (count + 1);
      const readable = buffers.slice(0, cut);
      const writable = buffers.slice(cut);
      const token = this.rig.driver.add(readable, writable, indirect);
      if (token === -1) return;
      this.added.push({ token, readable, writable });
      this.chains += 1;
    }
  }

  publish(): void {
    const count = this.added.length;
    const notified = this.rig.driver.publish();
    if (count > 0 && this.deviceSleeps) assert.ok(notified, 'the device is never woken');
    if (count === 0) assert.equal(notified, false);
    this.waiting.push(...this.added.splice(0));
    if (notified) this.deviceSleeps = false;
  }

  take(): boolean {
    const chain = this.queue.take();
    const expected = this.waiting.shift();
    assert.equal(chain === null, expected === undefined);
    if (chain === null || expected === undefined) return false;
    assert.equal(chain.id, expected.token);
    assertInside(this.rig.memory.memory, chain);
    assert.deepEqual(pieces(chain.readable), joined(expected.readable));
    assert.deepEqual(pieces(chain.writable), joined(expected.writable));
    this.taken.push({ expected, chain });
    return true;
  }

  /** Gives a few back, in any order. */
  give(seed: number): void {
    for (let i = seed % 32; i >= 0; i -= 1) this.giveOne(seed + i * 7);
  }

  giveOne(seed: number): void {
    const found = this.taken.splice(seed % Math.max(1, this.taken.length), 1)[0];
    if (found === undefined) return;
    const written = seed % (found.chain.writable.totalBytes + 1);
    this.given.push({ token: found.expected.token, written });
    this.queue.give(found.chain, written);
  }

  tell(): void {
    const count = this.given.length;
    const interrupted = this.queue.publish();
    if (count > 0 && this.driverSleeps) assert.ok(interrupted, 'the driver is never woken');
    if (count === 0) assert.equal(interrupted, false);
    this.visible.push(...this.given.splice(0));
    if (interrupted) this.driverSleeps = false;
  }

  collect(): boolean {
    const used = this.rig.driver.take();
    assert.deepEqual(used, this.visible.shift() ?? null);
    return used !== null;
  }

  /** Turns the rings until their indices are at `index`. */
  wind(index: number): void {
    const buffer = { address: GUEST_BASE, length: 1 };
    for (let i = 0; i < index; i += 1) {
      this.rig.driver.add([buffer], [], false);
      this.rig.driver.publish();
      this.queue.give(this.queue.take() as Chain, 0);
      this.queue.publish();
      this.rig.driver.take();
    }
  }

  finish(): void {
    for (const what of ['publish', 'takeAll'] as const) this.run(what, 0);
    while (this.taken.length > 0) this.giveOne(0);
    for (const what of ['tell', 'collect'] as const) this.run(what, 0);
    assert.equal(this.rig.driver.inFlight, 0);
    assert.equal(this.queue.base, this.rig.available);
  }
}

/** Segments as [guest address, length]. */
function pieces(segments: Chain['readable']): [number, number][] {
  return Array.from({ length: segments.count }, (_, i) => [
    GUEST_BASE + (segments.starts[i] as number),
    segments.lengths[i] as number,
  ]);
}

/** Buffers as segments hold them: without empty ones, neighbours in one. */
function joined(buffers: readonly Buffer[]): [number, number][] {
  const result: [number, number][] = [];
  for (const { address, length } of buffers) {
    if (length === 0) continue;
    const last = result.at(-1);
    if (last !== undefined && last[0] + last[1] === address) last[1] += length;
    else result.push([address, length]);
  }
  return result;
}

for (const eventIdx of [false, true]) {
  test(`[virtio 2.7] device and driver agree over random operations, event indices ${eventIdx ? 'on' : 'off'}`, () => {
    let chains = 0;
    fc.assert(
      fc.property(
        fc.nat(10),
        fc.constantFrom(0, 0, 0, 32_760, 65_530),
        fc.array(step, { minLength: 40, maxLength: 400, size: 'max' }),
        (log2, start, steps) => {
          const rig = new SplitRig({ size: 2 ** log2, eventIdx });
          const model = new Model(rig);
          model.wind(start);
          for (const { what, seed } of steps) model.run(what, seed);
          model.finish();
          chains += model.chains;
        },
      ),
      { numRuns: 200, seed: 1 },
    );
    assert.ok(chains > 10_000, `${chains} chains`);
  });
}
