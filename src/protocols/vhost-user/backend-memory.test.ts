import assert from 'node:assert/strict';
import test from 'node:test';
import { MAX_MEMORY_SLOTS } from './limits.ts';
import {
  FakeDevice,
  Guest,
  GUEST,
  PACKED_FEATURES,
  Rig,
  SPLIT_FEATURES,
  USER,
} from './test-rig.ts';
import { FakeSharing } from './testing.ts';
import {
  decodeInflight,
  encodeInflight,
  encodeMemoryTable,
  encodeSingleRegion,
  encodeU64,
  type InflightDescription,
  type RegionDescription,
  SIZE,
  VHOST_USER,
} from './wire.ts';

const MiB = 1 << 20;

function region(at: number, sizeBytes = MiB, mmapOffset = 0): RegionDescription {
  return { guestAddress: GUEST + at, sizeBytes, userAddress: USER + at, mmapOffset };
}

test('memory is plugged and unplugged under running rings, which go on where they were', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  rig.ok(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(guest.region), [guest.fd]);
  const queue = guest.queue();
  queue.start();
  for (let i = 0; i < 5; i += 1) queue.submit(i);
  rig.sharing.run();
  rig.device.hold = true;
  queue.submit(5);
  rig.sharing.run();

  const more = rig.own(rig.sharing.memory(3 * MiB));
  rig.replies.length = 0;
  rig.send(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(region(MiB, MiB, 2 * MiB)), [more]);
  assert.equal(rig.sharing.leaks.mappings, 2);
  assert.equal(rig.device.workers.size, 1, 'in flight: the old table is in use');
  rig.device.hold = false;
  rig.device.release();
  rig.sharing.run();
  queue.submit(6);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [0, 1, 2, 3, 4, 5, 6]);
  assert.equal(queue.used().length, 7);

  // A buffer in the new memory.
  const memory = rig.sharing.map(more, MiB, 2 * MiB);
  memory.region.bytes.set([77, 0], 100);
  memory.unmap();
  queue.driver.add([{ address: GUEST + MiB + 100, length: 2 }], [], false);
  queue.driver.publish();
  rig.sharing.signal(queue.kick);
  rig.sharing.run();
  assert.equal(rig.device.executed.at(-1), 77);
  assert.equal(queue.used().length, 1);

  // One descriptor with a removal is tolerated and closed.
  rig.ok(VHOST_USER.REM_MEM_REG, encodeSingleRegion(region(MiB)), [more]);
  assert.equal(rig.sharing.leaks.mappings, 1);
  queue.submit(8);
  rig.sharing.run();
  assert.equal(rig.device.executed.at(-1), 8);
  // Once more into what is not there any more.
  queue.driver.add([{ address: GUEST + MiB + 100, length: 2 }], [], false);
  queue.driver.publish();
  rig.sharing.signal(queue.kick);
  rig.sharing.run();
  assert.match(rig.logged[0] as string, /outside guest memory/);
  rig.leave();
});

test('the ring’s own memory is taken away: the ring is broken, nothing else', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  const queue = guest.queue();
  queue.start();
  assert.equal(rig.ack(VHOST_USER.REM_MEM_REG, encodeSingleRegion(guest.region)), 1n);
  assert.equal(rig.logged.length, 1);
  assert.match(rig.logged[0] as string, /not in memory; the device needs a reset/);
  assert.equal(rig.sharing.leaks.mappings, 0);
  rig.leave();
});

test('a new table replaces the old one whole', () => {
  const rig = new Rig();
  rig.negotiate();
  const fd = rig.own(rig.sharing.memory(8 * MiB));
  const eight = Array.from({ length: 8 }, (_, i) => region(i * MiB, MiB, i * MiB));
  const descriptors = eight.map(() => fd);
  rig.ok(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(eight), descriptors);
  assert.equal(rig.sharing.leaks.mappings, 8);
  rig.ok(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(eight.slice(0, 1)), [fd]);
  assert.equal(rig.sharing.leaks.mappings, 1);
  rig.ok(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable([]));
  assert.equal(rig.sharing.leaks.mappings, 0);
  rig.leave();
});

test('tables and regions that cannot be are refused, and the table stays as it was', () => {
  const rig = new Rig();
  rig.negotiate();
  const fd = rig.own(rig.sharing.memory(2 * MiB));
  const bell = rig.own(rig.sharing.eventfd());
  rig.ok(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable([region(0)]), [fd]);
  const tables: [RegionDescription[], number[]][] = [
    [
      [region(0), region(MiB / 2)],
      [fd, fd],
    ],
    [
      [region(0), region(MiB)],
      [fd, bell],
    ],
    [[region(0, 4 * MiB)], [fd]],
    [[region(0, MiB, 2 * MiB)], [fd]],
    [[region(0, 0)], [fd]],
    [[{ ...region(0), guestAddress: 2 ** 53 - 4096 }], [fd]],
    [[{ ...region(0), userAddress: 2 ** 53 - 4096 }], [fd]],
  ];
  for (const [regions, descriptors] of tables) {
    assert.equal(rig.ack(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(regions), descriptors), 1n);
    assert.equal(rig.sharing.leaks.mappings, 1);
  }
  const add = (description: RegionDescription, descriptor: number): bigint =>
    rig.ack(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(description), [descriptor]);
  assert.equal(add(region(0), fd), 1n);
  assert.equal(add(region(MiB), bell), 1n);
  assert.equal(rig.ack(VHOST_USER.REM_MEM_REG, encodeSingleRegion(region(MiB))), 1n);
  assert.equal(rig.ack(VHOST_USER.REM_MEM_REG, encodeSingleRegion(region(0, MiB / 2))), 1n);
  assert.equal(rig.sharing.leaks.mappings, 1);
  assert.equal(rig.logged.length, tables.length + 4);
  rig.leave();
});

test('memory slots: as many as are told, and no more', () => {
  const rig = new Rig();
  rig.negotiate();
  const fd = rig.own(rig.sharing.memory(4096));
  for (let i = 0; i < MAX_MEMORY_SLOTS; i += 1) {
    rig.ok(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(region(i * 4096, 4096)), [fd]);
  }
  const last = encodeSingleRegion(region(MAX_MEMORY_SLOTS * 4096, 4096));
  assert.equal(rig.ack(VHOST_USER.ADD_MEM_REG, last, [fd]), 1n);
  rig.leave();
});

/** GET_INFLIGHT_FD: the descriptor is the rig's. */
function askInflight(
  rig: Rig,
  numQueues: number,
  queueSize: number,
  lengthBytes: number = SIZE.INFLIGHT_PADDED,
): { description: InflightDescription; fd: number } {
  const question = { mmapSize: 0, mmapOffset: 0, numQueues, queueSize };
  const [reply] = rig.send(VHOST_USER.GET_INFLIGHT_FD, encodeInflight(question, lengthBytes));
  assert.equal(reply?.payload.length, lengthBytes);
  assert.equal(reply.descriptors.length, 1);
  return {
    description: decodeInflight(reply.payload) as InflightDescription,
    fd: reply.descriptors[0] as number,
  };
}

const INFLIGHT_FORMATS: [string, bigint, number][] = [
  // 16 bytes and 16 for each entry; 40 and 32: both to a multiple of 64 [vhost-user "Inflight I/O tracking"].
  ['split', SPLIT_FEATURES, 192],
  ['packed', PACKED_FEATURES, 320],
];

for (const [format, features, partBytes] of INFLIGHT_FORMATS) {
  test(`${format}: what was in flight when the back-end died is done by its successor, once`, () => {
    const sharing = new FakeSharing();
    const first = new Rig(new FakeDevice(), sharing);
    first.negotiate(features);
    const guest = new Guest(first, features);
    guest.share();
    const { description, fd } = askInflight(first, 2, 8);
    assert.deepEqual(description, {
      mmapSize: 2 * partBytes,
      mmapOffset: 0,
      numQueues: 2,
      queueSize: 8,
    });
    first.ok(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(description), [fd]);
    const queue = guest.queue(1);
    queue.start();
    queue.submit(1);
    sharing.run();
    assert.equal(queue.used().length, 1);
    // Taken, and the back-end is killed: nothing of it happens any more. The third is not even taken.
    first.device.hold = true;
    const lost = [queue.submit(2), queue.submit(3)];
    sharing.run();
    assert.deepEqual(first.device.executed, [1, 2, 3]);

    const second = new Rig(new FakeDevice(), sharing);
    second.negotiate(features);
    assert.equal(first.device.startedFresh, true);
    second.ok(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(description), [fd]);
    second.ok(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable([guest.region]), [guest.fd]);
    // QEMU goes by the used index: split 1; packed entry 1 of the first round, for both.
    const successor = guest.follow(second, queue, format === 'split' ? 1 : 0x80018001);
    assert.equal(second.device.startedFresh, false);
    assert.deepEqual(second.device.executed, [2, 3]);
    assert.deepEqual(successor.used(), lost);
    successor.submit(4);
    sharing.run();
    assert.deepEqual(second.device.executed, [2, 3, 4]);
    second.leaveQuietly();
    assert.deepEqual(second.logged, []);
  });
}

test('an in-flight region is of the asked number and size of queues, or refused', () => {
  const rig = new Rig();
  rig.negotiate();
  askInflight(rig, 1, 128, SIZE.INFLIGHT);
  const { description, fd } = askInflight(rig, 2, 256);
  // The last one is in use until another takes its place.
  assert.equal(rig.sharing.leaks.mappings, 1);
  const wrong = [
    { ...description, numQueues: 3 },
    { ...description, numQueues: 0 },
    { ...description, queueSize: 0 },
  ];
  assert.equal(rig.ack(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(wrong[0] as never), [fd]), 1n);
  const unmappable = { ...description, mmapOffset: 4096 };
  const short = { ...description, mmapSize: description.mmapSize - 64 };
  for (const bad of [...wrong.slice(1), unmappable, short]) {
    const other = new Rig(new FakeDevice(), rig.sharing);
    other.negotiate();
    assert.equal(other.ack(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(bad), [fd]), 1n);
    assert.ok(other.closed);
    assert.equal(other.logged.length, 1);
  }
  rig.leave();
});

test('a ring beyond the queues of the in-flight region is broken, however long the memory is', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  const fd = rig.own(rig.sharing.memory(8192));
  const one = { mmapSize: 8192, mmapOffset: 0, numQueues: 1, queueSize: 8 };
  rig.ok(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(one), [fd]);
  guest.queue(1).start();
  assert.match(rig.logged[0] as string, /ring 1: the in-flight region is for 1 queues of 8/);
  rig.leave();
});

test('a reset drops the in-flight region: another driver has nothing in flight', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  askInflight(rig, 2, 8);
  assert.equal(rig.sharing.leaks.mappings, 2);
  rig.ok(VHOST_USER.RESET_DEVICE);
  assert.equal(rig.sharing.leaks.mappings, 1);
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(SPLIT_FEATURES));
  // A region that is too small for the ring.
  askInflight(rig, 1, 4);
  guest.queue(0).start();
  assert.match(rig.logged[0] as string, /in-flight region is for 1 queues of 4/);
  rig.leave();
});
