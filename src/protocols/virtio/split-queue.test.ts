import assert from 'node:assert/strict';
import test from 'node:test';
import { AssertionError } from '../../base/assert.ts';
import { Region } from '../../block/memory.ts';
import { RING } from './split-ring.ts';
import { assertBreaks, bytesOf, SplitRig } from './split-test-rig.ts';
import { VIRTQ_DESC_F } from './virtio.ts';

const { NEXT, WRITE, INDIRECT } = VIRTQ_DESC_F;

/** Adds a chain, lets the device take it, give it back and publish it; says whether the driver is interrupted. */
function turn(rig: SplitRig, queue: ReturnType<SplitRig['queue']>, count = 1): boolean {
  const buffer = { address: rig.memory.guestAddress, length: 16 };
  for (let i = 0; i < count; i += 1) rig.driver.add([], [buffer], false);
  rig.driver.publish();
  for (let i = 0; i < count; i += 1) {
    const chain = queue.take();
    assert.ok(chain !== null);
    queue.give(chain, 16);
  }
  const interrupts = queue.publish();
  for (let i = 0; i < count; i += 1) assert.notEqual(rig.driver.take(), null);
  return interrupts;
}

test('[virtio 2.7] every power of two up to 32768 is a size, and nothing else', () => {
  const region = Region.plain(2 ** 20);
  const place = (start: number) => ({ region, start });
  const places = {
    descriptors: place(0),
    driver: place(2 ** 19),
    device: place(2 ** 19 + 2 ** 17),
  };
  const rig = new SplitRig();
  for (let size = 1; size <= 32768; size *= 2) {
    assert.equal(rig.queue({ ...places, size }).size, size);
  }
  for (const size of [0, 3, 6, 1000, 65536, -1, 1.5, Number.NaN]) {
    assertBreaks(() => rig.queue({ ...places, size }), /no size of a split queue/, 'virtio 2.7');
  }
});

test('[virtio 2.7.1] parts that are misaligned or reach out of their memory are refused', () => {
  const rig = new SplitRig();
  const { region } = rig.memory;
  const end = region.bytes.length;
  for (const [part, alignment] of [
    ['descriptors', 16],
    ['driver', 2],
    ['device', 4],
  ] as const) {
    const { start } = rig.driver.places[part];
    for (let off = 1; off < alignment; off += 1) {
      assertBreaks(
        () => rig.queue({ [part]: { region, start: start + off } }),
        /is not aligned/,
        'virtio 2.7.1',
      );
    }
    for (const outside of [end - 16, end, -16]) {
      assertBreaks(
        () => rig.queue({ [part]: { region, start: outside } }),
        /does not lie in its memory/,
        'virtio 2.7',
      );
    }
  }
});

test('[virtio 2.7.6] without event indices used_event and avail_event need not exist', () => {
  const size = 4;
  const rings = Region.plain(4 + 2 * size);
  const used = Region.plain(4 + 8 * size);
  const parts = { size, driver: { region: rings, start: 0 }, device: { region: used, start: 0 } };
  const rig = new SplitRig();
  assert.equal(rig.queue(parts).size, size);
  assertBreaks(() => rig.queue({ ...parts, eventIdx: true }), /available ring/, 'virtio 2.7');
});

test('[virtio 2.7.4.1] framing carries no meaning: any cutting gives the same bytes', () => {
  const rig = new SplitRig({ size: 16 });
  const queue = rig.queue();
  const text = new TextEncoder().encode('sixteen readable');
  const buffer = rig.memory.allocate(64);
  rig.memory.bytes(buffer).set(text);
  const cut = (from: number, lengths: number[]) => {
    let address = buffer.address + from;
    return lengths.map((length) => ({ address: (address += length) - length, length }));
  };
  for (const indirect of [false, true]) {
    for (const lengths of [[16], [1, 15], [8, 8], [4, 0, 12], [3, 3, 3, 3, 4]]) {
      const token = rig.driver.add(cut(0, lengths), cut(16, lengths.toReversed()), indirect);
      rig.driver.publish();
      const chain = queue.take();
      assert.ok(chain !== null);
      assert.equal(chain.id, token);
      assert.deepEqual(bytesOf(chain.readable), text);
      chain.writable.copyFrom(text);
      assert.deepEqual(rig.memory.bytes(buffer).subarray(16, 32), text);
      queue.give(chain, 16);
      queue.publish();
      assert.deepEqual(rig.driver.take(), { token, written: 16 });
    }
  }
});

test('[virtio 2.7.5.1] the device writes to nothing but writable buffers and the used ring', () => {
  const rig = new SplitRig({ eventIdx: true });
  const queue = rig.queue();
  const buffer = rig.memory.allocate(64);
  for (let i = 0; i < 5; i += 1) rig.driver.add([buffer], [], i % 2 === 1);
  rig.driver.publish();
  const before = rig.memory.region.bytes.slice();
  const chains = Array.from({ length: 5 }, () => queue.take());
  for (const chain of chains) if (chain !== null) queue.give(chain, 0);
  queue.publish();
  queue.enableNotify();
  queue.disableNotify();
  const after = rig.memory.region.bytes;
  const { start } = rig.driver.places.device;
  const end = start + 6 + 8 * rig.size;
  assert.deepEqual(after.slice(0, start), before.slice(0, start));
  assert.deepEqual(after.slice(end), before.slice(end));
  assert.notDeepEqual(after.slice(start, end), before.slice(start, end));
});

test('[virtio 2.7.5.3.2] normal descriptors may end in an indirect one, whose WRITE flag is ignored', () => {
  const rig = new SplitRig();
  const queue = rig.queue();
  const buffer = rig.memory.allocate(100);
  const table = rig.memory.allocate(48);
  const place = rig.memory.placeOf(table.address);
  rig.describe(0, { address: buffer.address, length: 10, flags: NEXT, next: 5 });
  rig.describe(5, { address: buffer.address + 20, length: 20, flags: NEXT, next: 2 });
  rig.describe(2, { ...table, flags: INDIRECT | WRITE });
  rig.describe(0, { address: buffer.address + 50, length: 5, flags: NEXT, next: 2 }, place);
  rig.describe(2, { address: buffer.address + 60, length: 7, flags: WRITE }, place);
  rig.offer(0);
  const chain = queue.take();
  assert.ok(chain !== null);
  assert.deepEqual(chain.readable.lengths.slice(0, chain.readable.count), [10, 20, 5]);
  assert.deepEqual(chain.writable.lengths.slice(0, chain.writable.count), [7]);
});

test('[virtio 2.7.7.2] without event indices the flag decides on interrupts, used_event is ignored', () => {
  const rig = new SplitRig();
  const queue = rig.queue();
  rig.set('driver', RING.entries + rig.size, 77);
  assert.equal(turn(rig, queue), true);
  rig.driver.disableInterrupts();
  assert.equal(rig.get('driver', RING.flags), 1);
  assert.equal(turn(rig, queue), false);
  assert.equal(turn(rig, queue, 8), false);
  assert.equal(rig.driver.enableInterrupts(), false);
  assert.equal(turn(rig, queue), true);
});

test('[virtio 2.7.7.2] with event indices used_event decides on interrupts, the flag is ignored', () => {
  const rig = new SplitRig({ eventIdx: true });
  const queue = rig.queue();
  rig.set('driver', RING.flags, 1);
  const told: number[] = [];
  // used_event is 0: after the first buffer, and again after the 65537th.
  for (let i = 1; i <= 65540; i += 1) if (turn(rig, queue)) told.push(i);
  assert.deepEqual(told, [1, 65537]);
  // Somewhere in a batch counts as well.
  rig.set('driver', RING.entries + rig.size, (rig.usedIndex + 2) & 0xffff);
  assert.equal(turn(rig, queue, 2), false);
  assert.equal(turn(rig, queue, 4), true);
  assert.equal(turn(rig, queue, 4), false);
});

test('[virtio 2.7.8.2] id and len are there before idx moves, once per batch', () => {
  const rig = new SplitRig();
  const queue = rig.queue();
  const { region, start } = rig.driver.places.device;
  const buffer = rig.memory.allocate(64);
  for (let i = 0; i < 4; i += 1) rig.driver.add([], [buffer], false);
  rig.driver.publish();
  const given: [number, number][] = [];
  for (let i = 0; i < 4; i += 1) {
    const chain = queue.take();
    assert.ok(chain !== null);
    given.push([chain.id, i * 7]);
    queue.give(chain, i * 7);
    assert.equal(rig.usedIndex, 0);
    assert.equal(rig.driver.take(), null);
  }
  let stores = 0;
  const { store } = Atomics;
  Atomics.store = ((array: Uint16Array, index: number, value: number) => {
    stores += 1;
    for (const [i, [id, length]] of given.entries()) {
      assert.equal(region.view.getUint32(start + 4 + i * 8, true), id);
      assert.equal(region.view.getUint32(start + 8 + i * 8, true), length);
    }
    return store(array, index, value);
  }) as typeof store;
  try {
    assert.equal(queue.publish(), true);
  } finally {
    Atomics.store = store;
  }
  assert.equal(stores, 1);
  assert.equal(rig.usedIndex, 4);
});

test('[virtio 2.7.8.2] as many bytes as fit can be told as written, and no more than that', () => {
  const rig = new SplitRig();
  const queue = rig.queue();
  const buffer = rig.memory.allocate(64);
  rig.driver.add([], [buffer], false);
  rig.driver.publish();
  const chain = queue.take();
  assert.ok(chain !== null);
  assert.throws(() => queue.give(chain, 65), AssertionError);
  queue.give(chain, 64);
  assert.throws(() => queue.give(chain, 64), AssertionError);
});

test('[virtio 2.7.10.2] without event indices the flag is 0 or 1, and says whether to notify', () => {
  const rig = new SplitRig();
  const queue = rig.queue();
  const buffer = rig.memory.allocate(16);
  queue.disableNotify();
  assert.equal(rig.get('device', RING.flags), 1);
  rig.driver.add([buffer], [], false);
  assert.equal(rig.driver.publish(), false);
  // What came while notifications were off is found when they are turned on.
  assert.equal(queue.enableNotify(), true);
  assert.equal(rig.get('device', RING.flags), 0);
  assert.notEqual(queue.take(), null);
  assert.equal(queue.enableNotify(), false);
  rig.driver.add([buffer], [], false);
  assert.equal(rig.driver.publish(), true);
});

test('[virtio 2.7.10.2] with event indices the flag stays 0, and avail_event asks for the next entry', () => {
  const rig = new SplitRig({ eventIdx: true });
  rig.set('device', RING.flags, 1);
  const queue = rig.queue();
  const buffer = rig.memory.allocate(16);
  assert.equal(rig.get('device', RING.flags), 0);
  assert.equal(queue.enableNotify(), false);
  rig.driver.add([buffer], [], false);
  assert.equal(rig.driver.publish(), true);
  rig.driver.add([buffer], [], false);
  assert.equal(rig.driver.publish(), false);
  assert.equal(queue.enableNotify(), true);
  assert.notEqual(queue.take(), null);
  assert.equal(queue.enableNotify(), true);
  assert.notEqual(queue.take(), null);
  assert.equal(queue.enableNotify(), false);
  assert.equal(rig.get('device', RING.entries + 4 * rig.size), 2);
  queue.disableNotify();
  assert.equal(rig.get('device', RING.flags), 0);
  rig.driver.add([buffer], [], false);
  rig.driver.add([buffer], [], false);
  assert.equal(rig.driver.publish(), true);
});

test('[virtio 2.7.10.2] notifications without anything new are nothing', () => {
  const rig = new SplitRig();
  const queue = rig.queue();
  assert.equal(queue.ready, false);
  assert.equal(queue.take(), null);
  assert.equal(queue.publish(), false);
  assert.equal(rig.usedIndex, 0);
});

test('[virtio 2.7.13] indices wrap at 65536 whatever the size; chains come back in any order', () => {
  for (const size of [1, 2, 64]) {
    const rig = new SplitRig({ size });
    const queue = rig.queue();
    for (let i = 0; i < 70_000; i += size) {
      turn(rig, queue, size);
      if (i % 1024 === 0) assert.equal(queue.base, (i + size) & 0xffff);
    }
    const buffer = rig.memory.allocate(16);
    const tokens = Array.from({ length: size }, () => rig.driver.add([], [buffer], false));
    assert.equal(rig.driver.add([], [buffer], false), -1);
    rig.driver.publish();
    const chains = tokens.map(() => queue.take());
    for (const chain of chains.toReversed()) if (chain !== null) queue.give(chain, 0);
    queue.publish();
    for (const token of tokens.toReversed()) assert.equal(rig.driver.take()?.token, token);
  }
});

test('[vhost-user "SET_VRING_BASE"] a successor goes on where the queue was', () => {
  const rig = new SplitRig();
  const first = rig.queue();
  turn(rig, first, 5);
  const buffer = rig.memory.allocate(16);
  rig.driver.add([], [buffer], false);
  rig.driver.publish();
  const { base } = first;
  assert.equal(base, 5);
  const second = rig.queue({ base });
  assert.equal(second.ready, true);
  const chain = second.take();
  assert.ok(chain !== null);
  assert.equal(second.inFlight, 1);
  assert.throws(() => second.base, AssertionError);
  second.give(chain, 3);
  assert.equal(second.inFlight, 0);
  assert.throws(() => second.base, AssertionError);
  second.publish();
  assert.equal(second.base, 6);
  assert.equal(rig.driver.take()?.written, 3);
  assertBreaks(() => rig.queue({ base: 15 }), /base is not of this used ring/, 'virtio 2.7.8');
  assert.equal(rig.queue({ base: 14 }).size, 8);
});
