import assert from 'node:assert/strict';
import test from 'node:test';
import { ProtocolError } from '../../base/errors.ts';
import type { Place } from './guest-memory.ts';
import { PackedQueue } from './packed-queue.ts';
import { listed, PackedRig } from './packed-test-rig.ts';
import { traceArrays } from './traced-arrays.ts';
import { RING_EVENT_FLAGS, VIRTQ_DESC_F, VIRTQ_PACKED_DESC_F } from './virtio.ts';
import type { Chain } from './virtqueue.ts';

// Section numbers are those of virtio 1.2 to 1.4.

const { NEXT, WRITE, INDIRECT } = VIRTQ_DESC_F;
const { AVAIL, USED } = VIRTQ_PACKED_DESC_F;
const { ENABLE, DISABLE, DESC } = RING_EVENT_FLAGS;

// What a device must do.

test('[2.8.1] the wrap counters change at the end of the ring, in rounds of any size', () => {
  for (const size of [1, 2, 3, 5]) {
    const rig = new PackedRig({ size });
    const buffer = rig.buffer();
    for (let i = 0; i < 4 * size; i += 1) {
      const wrap = Math.floor(i / size) % 2 === 0 ? 1 : 0;
      const id = rig.driver.add([buffer], [], false);
      rig.driver.publish();
      assert.equal(rig.flags(i % size) & (AVAIL | USED), wrap === 1 ? AVAIL : USED);
      rig.queue.give(rig.take(), 0);
      rig.queue.publish();
      assert.equal(rig.flags(i % size) & (AVAIL | USED), wrap === 1 ? AVAIL | USED : 0);
      assert.equal(rig.driver.take()?.token, id);
      assert.equal(rig.queue.take(), null);
    }
  }
});

test('[2.8.2] a batch of used descriptors is seen whole: the first one is marked last', () => {
  const rig = new PackedRig({ size: 8 });
  const buffer = rig.buffer();
  for (let i = 0; i < 4; i += 1) rig.driver.add([buffer], [], false);
  rig.driver.publish();
  const chains = [rig.take(), rig.take(), rig.take(), rig.take()];
  for (const chain of chains) rig.queue.give(chain, 0);
  assert.equal(rig.driver.take(), null);
  assert.equal(rig.flags(0), AVAIL);
  rig.queue.publish();
  for (let i = 0; i < 4; i += 1) assert.ok(rig.driver.take() !== null);
  assert.equal(rig.driver.take(), null);
});

test('[2.8.3, 2.8.4] a used descriptor has WRITE and the length when something was written', () => {
  const rig = new PackedRig();
  rig.driver.add([], [rig.buffer(4096)], false);
  rig.driver.add([rig.buffer()], [], false);
  rig.driver.publish();
  rig.queue.give(rig.take(), 4096);
  rig.queue.give(rig.take(), 0);
  rig.queue.publish();
  assert.equal(rig.flags(0), AVAIL | USED | WRITE);
  assert.equal(rig.length(0), 4096);
  assert.equal(rig.flags(1), AVAIL | USED);
  assert.equal(rig.driver.take()?.written, 4096);
  assert.equal(rig.driver.take()?.written, 0);
});

test('[2.8.6] the id is the last descriptor’s, one used descriptor stands for the list, and its slots are skipped', () => {
  const rig = new PackedRig({ size: 8 });
  const b = rig.buffer();
  rig.put(1, b, 22, NEXT | AVAIL);
  rig.put(2, b, 33, AVAIL);
  rig.put(0, b, 11, NEXT | AVAIL);
  rig.put(3, b, 44, AVAIL);
  const list = rig.take();
  assert.equal(list.id, 33);
  assert.equal(list.slots, 3);
  const single = rig.take();
  rig.queue.give(list, 0);
  rig.queue.give(single, 0);
  rig.queue.publish();
  assert.equal(rig.id(0), 33);
  assert.equal(rig.flags(0), AVAIL | USED);
  assert.equal(rig.flags(1), NEXT | AVAIL, 'skipped');
  assert.equal(rig.id(3), 44);
  assert.equal(rig.queue.base, (0x80008000 | 4 | (4 << 16)) >>> 0);
});

test('[2.8.7] of an indirect table, flags other than WRITE and ids are ignored, as is WRITE of its descriptor', () => {
  const rig = new PackedRig();
  const [a, b] = [rig.buffer(10), rig.buffer(20)];
  const odd = NEXT | INDIRECT | AVAIL | USED;
  const table = rig.table([
    { buffer: a, flags: odd, id: 7 },
    { buffer: b, flags: odd | WRITE, id: 8 },
  ]);
  rig.put(0, table, 5, INDIRECT | WRITE | AVAIL);
  const chain = rig.take();
  assert.equal(chain.id, 5);
  assert.equal(chain.slots, 1);
  assert.deepEqual(listed(chain.readable), [a]);
  assert.deepEqual(listed(chain.writable), [b]);
});

test('[2.8.12] chains are taken in the order of the ring and used in the order given', () => {
  const rig = new PackedRig({ size: 4 });
  const buffer = rig.buffer();
  const ids = [0, 1, 2, 3].map(() => rig.driver.add([buffer], [], false));
  rig.driver.publish();
  const chains = ids.map(() => rig.take());
  assert.deepEqual(
    chains.map(({ id }) => id),
    ids,
  );
  for (const i of [2, 0, 3, 1]) rig.queue.give(chains[i] as Chain, 0);
  rig.queue.publish();
  const used = [0, 1, 2, 3].map(() => rig.driver.take()?.token);
  assert.deepEqual(used, [ids[2], ids[0], ids[3], ids[1]]);
});

test('[2.8.15] a descriptor is not used before AVAIL is seen to change', () => {
  const rig = new PackedRig({ size: 2 });
  assert.equal(rig.queue.ready, false);
  assert.equal(rig.queue.take(), null, 'zeroes are not available');
  for (const flags of [USED, AVAIL | USED, NEXT, USED | NEXT, 0xffff & ~AVAIL, 0xffff]) {
    rig.put(0, rig.buffer(), 0, flags);
    assert.equal(rig.queue.ready, false);
    assert.equal(rig.queue.take(), null);
  }
  rig.put(0, rig.buffer(), 0, AVAIL);
  rig.put(1, rig.buffer(), 0, AVAIL);
  rig.queue.give(rig.take(), 0);
  rig.queue.give(rig.take(), 0);
  rig.queue.publish();
  // In the next round the other one of the flags means available.
  rig.put(0, rig.buffer(), 0, AVAIL);
  assert.equal(rig.queue.take(), null);
  rig.put(0, rig.buffer(), 0, USED);
  assert.ok(rig.queue.ready);
  rig.take();
});

test('[2.8.15] a chain whose later descriptors are not available is refused', () => {
  const rig = new PackedRig();
  rig.put(0, rig.buffer(), 0, NEXT | AVAIL);
  rig.put(1, rig.buffer(), 0, USED);
  rig.rejects(/not all available/, '2.8.17');
});

test('[2.8.15] a descriptor is not changed after it was marked as used', () => {
  const rig = new PackedRig({ size: 8 });
  const { driver, queue } = rig;
  for (let i = 0; i < 6; i += 1) driver.add([], [rig.buffer()], false);
  driver.publish();
  const chains = Array.from({ length: 6 }, () => rig.take());
  const seen: number[] = [];
  for (const count of [1, 3, 2]) {
    for (let i = 0; i < count; i += 1) queue.give(chains.pop() as Chain, 16);
    queue.publish();
    const ring = rig.ringBytes();
    assert.deepEqual(ring.slice(0, seen.length), seen);
    seen.push(...ring.slice(seen.length, (6 - chains.length) * 16));
  }
});

test('[2.8.15] readable buffers are told from writable ones', () => {
  const rig = new PackedRig();
  const [a, b, c] = [rig.buffer(), rig.buffer(1), rig.buffer()];
  rig.driver.add([a], [c], false);
  rig.driver.add([b], [], true);
  rig.driver.add([], [b], true);
  rig.driver.publish();
  const chains = [rig.take(), rig.take(), rig.take()] as const;
  assert.deepEqual([listed(chains[0].readable), listed(chains[0].writable)], [[a], [c]]);
  assert.deepEqual([listed(chains[1].readable), listed(chains[1].writable)], [[b], []]);
  assert.deepEqual([listed(chains[2].readable), listed(chains[2].writable)], [[], [b]]);
});

test('[2.8.18] buffers of a list come in the order in which they were made available, across the end of the ring', () => {
  const rig = new PackedRig({ size: 5 });
  const buffers = [0, 1, 2, 3, 4].map(() => rig.memory.allocate(8, 64));
  for (let round = 0; round < 10; round += 1) {
    rig.driver.add(buffers.slice(0, 2), buffers.slice(2, 4), false);
    rig.driver.publish();
    const chain = rig.take();
    assert.deepEqual(listed(chain.readable), buffers.slice(0, 2));
    assert.deepEqual(listed(chain.writable), buffers.slice(2, 4));
    rig.queue.give(chain, 16);
    rig.queue.publish();
    assert.equal(rig.driver.take()?.written, 16);
  }
});

test('[2.8.5] a list may be as long as the queue', () => {
  const rig = new PackedRig({ size: 7 });
  const buffers = Array.from({ length: 7 }, () => rig.memory.allocate(8, 64));
  rig.driver.add(buffers, [], false);
  rig.driver.publish();
  const chain = rig.take();
  assert.equal(chain.readable.count, 7);
  assert.equal(rig.queue.take(), null);
  rig.queue.give(chain, 0);
  rig.queue.publish();
  assert.ok(rig.driver.take() !== null);
});

test('every word of the ring is loaded once per chain, and the head’s flags first', () => {
  const rig = new PackedRig({ size: 8, indirect: false });
  const [b, c] = [rig.buffer(), rig.buffer()];
  rig.driver.add([b, c], [b], false);
  rig.driver.publish();
  const start = rig.at(0);
  const loaded: number[] = [];
  const hooks = {
    load: (byte: number, length: number) => {
      if (byte < start || byte >= start + 128) return;
      for (let i = 0; i < length; i += 1) loaded.push(byte - start + i);
    },
  };
  const queue = traceArrays(rig.memory.region.bytes.buffer, hooks, () => {
    return new PackedQueue(rig.options);
  });
  assert.equal(queue.take()?.slots, 3);
  assert.deepEqual(loaded.slice(0, 2), [14, 15]);
  assert.equal(loaded.length, 48);
  assert.equal(new Set(loaded).size, 48);
});

// Notifications.

test('[2.8.10] used buffer notifications: enabled, disabled, the reserved value', () => {
  for (const eventIdx of [false, true]) {
    for (const [flags, expected] of [
      [ENABLE, true],
      [DISABLE, false],
      [3, true],
      [ENABLE | 0xfffc, true],
      [DISABLE | 0xfffc, false],
    ] as const) {
      const rig = new PackedRig({ eventIdx });
      rig.driver.add([rig.buffer()], [], false);
      rig.driver.publish();
      rig.suppress(flags);
      assert.equal(rig.queue.publish(), false, 'nothing to tell');
      rig.queue.give(rig.take(), 0);
      assert.equal(rig.queue.publish(), expected);
    }
  }
});

test('[2.8.10] RING_EVENT_FLAGS_DESC: an interrupt exactly when that descriptor is among those used', () => {
  const size = 5;
  for (let start = 0; start < 2 * size; start += 1) {
    for (let count = 1; count <= size; count += 1) {
      for (let event = 0; event < 2 * size; event += 1) {
        const rig = new PackedRig({ size, eventIdx: true });
        const buffer = rig.buffer();
        const turn = (): boolean => {
          rig.driver.add([buffer], [], false);
          rig.driver.publish();
          rig.queue.give(rig.take(), 0);
          return rig.queue.publish();
        };
        for (let i = 0; i < start; i += 1) {
          turn();
          rig.driver.take();
        }
        rig.suppress(DESC, event % size, event < size ? 1 : 0);
        for (let i = 0; i < count; i += 1) rig.driver.add([buffer], [], false);
        rig.driver.publish();
        for (let i = 0; i < count; i += 1) rig.queue.give(rig.take(), 0);
        const passed = (event - start + 2 * size) % (2 * size) < count;
        assert.equal(rig.queue.publish(), passed, `${start} ${count} ${event}`);
      }
    }
  }
});

test('[2.8.10] RING_EVENT_FLAGS_DESC without VIRTIO_F_EVENT_IDX or out of the ring: an interrupt too many', () => {
  for (const [eventIdx, offset] of [
    [false, 7],
    [true, 8],
    [true, 0x7fff],
  ] as const) {
    const rig = new PackedRig({ eventIdx, size: 8 });
    rig.driver.add([rig.buffer()], [], false);
    rig.driver.publish();
    rig.suppress(DESC, offset);
    rig.queue.give(rig.take(), 0);
    assert.equal(rig.queue.publish(), true);
  }
});

test('[2.8.10] available buffer notifications: what the device asks for, and the second look', () => {
  const plain = new PackedRig({ eventIdx: false });
  plain.queue.disableNotify();
  assert.deepEqual(plain.deviceEvent(), { flags: DISABLE, offset: 0, wrap: 0 });
  assert.equal(plain.queue.enableNotify(), false);
  assert.equal(plain.deviceEvent().flags, ENABLE);
  plain.driver.add([plain.buffer()], [], false);
  assert.equal(plain.driver.publish(), true);
  assert.equal(plain.queue.enableNotify(), true, 'it has come meanwhile');

  const indexed = new PackedRig({ eventIdx: true, size: 2 });
  const { driver, queue } = indexed;
  const buffer = indexed.buffer();
  const serve = (): void => {
    queue.give(indexed.take(), 0);
    queue.publish();
    driver.take();
  };
  // Three descriptors in each turn, in a ring of two.
  for (let i = 0; i < 12; i += 3) {
    assert.equal(queue.enableNotify(), false);
    const expected = { flags: DESC, offset: i % 2, wrap: i % 4 < 2 ? 1 : 0 };
    assert.deepEqual(indexed.deviceEvent(), expected);
    driver.add([buffer], [], false);
    assert.equal(driver.publish(), true);
    driver.add([buffer], [], false);
    assert.equal(driver.publish(), false, 'asked for one');
    serve();
    queue.disableNotify();
    assert.equal(indexed.deviceEvent().flags, DISABLE);
    driver.add([buffer], [], false);
    assert.equal(driver.publish(), false, 'asked for none');
    serve();
    serve();
  }
});

// Setting up.

test('[2.8.10.1] parts that are not aligned, and sizes that cannot be', () => {
  const rig = new PackedRig();
  const { descriptors, driver, device } = rig.driver.places;
  for (const part of [
    { descriptors: shifted(descriptors, 8) },
    { driver: shifted(driver, 2) },
    { device: shifted(device, 1) },
    { size: 0 },
    { size: 32769 },
    { size: 1.5 },
  ]) {
    assert.throws(() => new PackedQueue({ ...rig.options, ...part }), ProtocolError);
  }
});

test('a base is refused when it lies out of the ring or further ahead than the ring is long', () => {
  const rig = new PackedRig({ size: 6 });
  const bad = [6, 6 << 16, 0x80008000 | 0x7fff, 0x80000000 | (3 << 16) | 4, 0x80008000 | (1 << 16)];
  for (const base of bad) {
    assert.throws(() => new PackedQueue({ ...rig.options, base }), ProtocolError, String(base));
  }
  for (const base of [0x80008000, 0, 0x80000000, 0x8000 | (3 << 16) | 3]) {
    const queue = new PackedQueue({ ...rig.options, base });
    assert.equal(queue.base, base >>> 0);
  }
});

// Our own driver.

test('[2.8.17, 2.8.21.1] driver: the head becomes available last, and all flags of a list are set', () => {
  const rig = new PackedRig({ size: 8 });
  const [b, c] = [rig.buffer(), rig.buffer()];
  rig.driver.add([b], [c], false);
  rig.driver.add([b], [], true);
  assert.deepEqual(
    [0, 1, 2].map((slot) => rig.flags(slot)),
    [0, WRITE | AVAIL, INDIRECT | AVAIL],
  );
  assert.equal(rig.queue.ready, false);
  rig.driver.publish();
  assert.equal(rig.flags(0), NEXT | AVAIL);
});

test('[2.8.17] driver: no list is begun that does not fit into the ring', () => {
  const rig = new PackedRig({ size: 4 });
  const b = rig.buffer();
  assert.notEqual(rig.driver.add([b, b, b], [], false), -1);
  assert.equal(rig.driver.add([b, b], [], false), -1);
  assert.notEqual(rig.driver.add([b, b], [], true), -1);
  assert.equal(rig.driver.add([b, b], [], true), -1);
  assert.equal(rig.driver.inFlight, 2);
});

test('driver: a device that gives back what it does not have, or says that it wrote too much', () => {
  const rig = new PackedRig({ size: 4 });
  const b = rig.buffer(16);
  const id = rig.driver.add([], [b], false);
  rig.driver.publish();
  assert.equal(rig.driver.take(), null);
  for (const wrong of [id + 1, 4, 0xffff]) {
    rig.put(0, { address: 0, length: 0 }, wrong, AVAIL | USED);
    assert.throws(() => rig.driver.take(), /does not have/);
  }
  rig.put(0, { address: 0, length: 17 }, id, AVAIL | USED | WRITE);
  assert.throws(() => rig.driver.take(), /more than there was room/);
  // Without WRITE the length is reserved [2.8.4].
  rig.put(0, { address: 0, length: 17 }, id, AVAIL | USED);
  assert.deepEqual(rig.driver.take(), { token: id, written: 0 });
  rig.put(1, b, id, AVAIL | USED);
  assert.equal(rig.driver.take(), null, 'nothing is in flight');
});

function shifted({ region, start }: Place, by: number): Place {
  return { region, start: start + by };
}
