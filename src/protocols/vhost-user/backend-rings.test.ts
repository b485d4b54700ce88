import assert from 'node:assert/strict';
import test from 'node:test';
import { VIRTIO_CONFIG_S } from '../virtio/virtio.ts';
import { bit, Guest, PACKED_FEATURES, Rig, SPLIT_FEATURES, USER } from './test-rig.ts';
import {
  decodeInflight,
  encodeConfig,
  encodeInflight,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  VHOST_USER,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from './wire.ts';

const FORMATS: [string, bigint][] = [
  ['split', SPLIT_FEATURES],
  ['packed', PACKED_FEATURES],
];

/** A connection whose memory is shared and whose features are set. */
function connected(features: bigint): { rig: Rig; guest: Guest } {
  const rig = new Rig();
  rig.negotiate(features);
  const guest = new Guest(rig, features);
  guest.share();
  return { rig, guest };
}

for (const [format, features] of FORMATS) {
  test(`${format}: chains are taken, given back, and the driver is called once per batch`, () => {
    const { rig, guest } = connected(features);
    const queue = guest.queue();
    queue.start();
    const withoutBit = features & ~bit(VHOST_USER_F_PROTOCOL_FEATURES);
    assert.deepEqual(rig.device.calls, [`start ${withoutBit.toString(16)}`, 'attach 0']);
    // Three before the reactor looks: one call for all of them.
    const tokens = [queue.submit(1), queue.submit(2), queue.submit(3)];
    rig.sharing.run();
    assert.deepEqual(rig.device.executed, [1, 2, 3]);
    assert.deepEqual(queue.used(), tokens);
    assert.equal(rig.sharing.rings(queue.call), 1);
    for (let i = 0; i < 100; i += 1) {
      queue.driver.enableInterrupts();
      const token = queue.submit(i);
      rig.sharing.run();
      assert.deepEqual(queue.used(), [token]);
    }
    rig.leave();
    assert.deepEqual(rig.logged, []);
  });

  test(`${format}: GET_VRING_BASE drains, stops, and says where to go on`, () => {
    const { rig, guest } = connected(features);
    const queue = guest.queue();
    queue.start();
    for (let i = 0; i < 11; i += 1) {
      queue.submit(i);
      rig.sharing.run();
      queue.used();
    }
    rig.device.hold = true;
    const token = queue.submit(11);
    rig.sharing.run();
    const question = encodeVringState({ index: 0, num: 0 });
    assert.deepEqual(rig.send(VHOST_USER.GET_VRING_BASE, question), []);
    // Taken no more, though it is available and kicked.
    queue.submit(12);
    rig.sharing.run();
    assert.deepEqual(rig.replies, []);
    rig.device.hold = false;
    rig.device.release();
    rig.sharing.run();
    assert.deepEqual(queue.used(), [token]);
    assert.equal(rig.replies.length, 1);
    assert.equal(rig.device.executed.at(-1), 11);
    const base = rig.base(0);
    // Twelve of eight entries: 12, or entry 4 in the second round for both indices.
    assert.equal(base, format === 'split' ? 12 : 0x00040004);

    // The same ring again goes on with what waited.
    rig.ok(VHOST_USER.SET_VRING_BASE, encodeVringState({ index: 0, num: base }));
    rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(queue.named()), [queue.kick]);
    rig.sharing.run();
    assert.equal(rig.device.executed.at(-1), 12);
    assert.equal(queue.used().length, 1);
    rig.leave();
  });

  test(`${format}: a disabled ring is not touched, and goes on when it is enabled`, () => {
    const { rig, guest } = connected(features);
    const queue = guest.queue();
    queue.start();
    queue.submit(1);
    rig.sharing.run();
    queue.enable(false);
    queue.submit(2);
    rig.sharing.signal(queue.kick);
    rig.sharing.run();
    assert.deepEqual(rig.device.executed, [1]);
    assert.equal(rig.sharing.leaks.pollers, 0);
    queue.enable(true);
    assert.deepEqual(rig.device.executed, [1, 2]);
    assert.equal(queue.used().length, 2);
    rig.leave();
  });

  test(`${format}: without a kick's descriptor the ring is looked at without being rung for`, () => {
    const { rig, guest } = connected(features);
    const queue = guest.queue();
    queue.describe();
    rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(queue.named(true)));
    rig.ok(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor(queue.named(true)));
    queue.enable(true);
    queue.submit(5);
    rig.sharing.turn();
    assert.deepEqual(rig.device.executed, [5]);
    assert.equal(queue.used().length, 1);
    assert.equal(rig.sharing.leaks.watches, 0);
    assert.ok(!rig.sharing.asleep);
    // With one it is rung for.
    rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(queue.named()), [queue.kick]);
    assert.ok(rig.sharing.asleep);
    rig.leave();
  });
}

test('another call descriptor while the ring runs is used from then on, and rung at once', () => {
  const { rig, guest } = connected(SPLIT_FEATURES);
  const queue = guest.queue();
  queue.start();
  rig.device.hold = true;
  queue.submit(1);
  rig.sharing.run();
  const call = rig.own(rig.sharing.eventfd());
  rig.ok(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor(queue.named()), [call]);
  // What a back-end before us made visible may not have been announced.
  assert.equal(rig.sharing.rings(call), 1);
  rig.device.release();
  assert.equal(rig.sharing.rings(call), 1);
  assert.equal(rig.sharing.rings(queue.call), 0);
  rig.leave();
});

test('what is set of a running ring takes effect after what is in flight', () => {
  const { rig, guest } = connected(SPLIT_FEATURES);
  const first = guest.queue(0, 8);
  first.start();
  rig.device.hold = true;
  first.submit(1);
  rig.sharing.run();
  // As cloud-hypervisor does when its guest reboots: disabled, never stopped, and then described anew.
  rig.send(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index: 0, num: 0 }));
  rig.device.hold = false;
  rig.device.release();
  rig.sharing.run();
  const second = guest.queue(0, 16);
  second.start();
  second.submit(2);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [1, 2]);
  assert.equal(second.used().length, 1);

  // Another kick in the middle of it all.
  const kick = rig.own(rig.sharing.eventfd());
  rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(second.named()), [kick]);
  second.submit(3);
  rig.sharing.signal(kick);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [1, 2, 3]);
  rig.leave();
});

test('other features are another driver: SeaBIOS, then Linux, on one connection', () => {
  const { rig, guest } = connected(SPLIT_FEATURES);
  const bios = guest.queue();
  bios.start();
  bios.submit(1);
  rig.sharing.run();
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(SPLIT_FEATURES));
  assert.equal(rig.device.calls.length, 2, 'the same features change nothing');
  assert.equal(rig.base(0), 1);
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(PACKED_FEATURES | 0x1000n));
  const linux = new Guest(rig, PACKED_FEATURES);
  linux.share();
  const queues = [linux.queue(0), linux.queue(1)];
  for (const queue of queues) queue.start();
  for (const queue of queues) queue.submit(2 + queue.index);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [1, 2, 3]);
  assert.deepEqual(
    rig.device.calls.map((call) => call.split(' ')[0]),
    ['start', 'attach', 'detach', 'start', 'attach', 'attach'],
  );
  rig.leave();
});

test('a reset stops all rings and forgets all but memory; QEMU 7.2 asks for the base after it', () => {
  const { rig, guest } = connected(SPLIT_FEATURES);
  const queue = guest.queue();
  queue.start();
  queue.submit(1);
  rig.sharing.run();
  rig.device.hold = true;
  queue.submit(2);
  rig.sharing.run();
  rig.send(VHOST_USER.SET_STATUS, encodeU64(0));
  assert.ok(!rig.device.calls.includes('reset'), 'not with requests in flight');
  rig.device.hold = false;
  rig.device.release();
  rig.sharing.run();
  assert.equal(rig.device.calls.at(-1), 'reset');
  queue.enable(false);
  assert.equal(rig.base(0), 2);

  // Features are to be set again before anything runs.
  queue.start(2);
  queue.submit(3);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [1, 2]);
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(SPLIT_FEATURES));
  assert.deepEqual(rig.device.executed, [1, 2, 3]);
  assert.equal(rig.device.calls.filter((call) => call.startsWith('start')).length, 2);

  rig.ok(VHOST_USER.RESET_DEVICE);
  assert.equal(rig.device.calls.at(-1), 'reset');
  // Disabled it is again, until it is enabled.
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(SPLIT_FEATURES));
  const last = guest.queue();
  last.describe();
  rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(last.named()), [last.kick]);
  last.submit(4);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [1, 2, 3]);
  last.enable(true);
  assert.deepEqual(rig.device.executed, [1, 2, 3, 4]);
  rig.leave();
});

test('a driver is fresh when its rings begin, and not when one of them goes on', () => {
  for (const [features, beginning, later] of [
    [SPLIT_FEATURES, 0, 0x10000 + 7],
    [PACKED_FEATURES, 0x80008000, 0x00038003],
    // As front-ends say it that know of 16 bits only.
    [PACKED_FEATURES, 0x8000, 0x8003],
  ] as const) {
    for (const [first, second] of [
      [beginning, beginning],
      [later, beginning],
      [beginning, later],
    ] as const) {
      const { rig, guest } = connected(features);
      guest.queue(1).describe(second);
      guest.queue(0).start(first);
      assert.equal(rig.device.startedFresh, first === beginning && second === beginning);
      rig.leave();
    }
  }
});

test('a driver that comes with the log of an earlier connection is not fresh, though it has asked for nothing', () => {
  const earlier = connected(SPLIT_FEATURES);
  const question = { mmapSize: 0, mmapOffset: 0, numQueues: 1, queueSize: 8 };
  const [reply] = earlier.rig.send(VHOST_USER.GET_INFLIGHT_FD, encodeInflight(question));
  const log = reply?.descriptors[0] as number;
  const description = encodeInflight(decodeInflight(reply?.payload as Uint8Array) as never);
  // As QEMU does with a region that was just made for it.
  earlier.rig.ok(VHOST_USER.SET_INFLIGHT_FD, description, [log]);
  earlier.guest.queue().start();
  assert.equal(earlier.rig.device.startedFresh, true);

  const rig = new Rig(undefined, earlier.rig.sharing);
  rig.negotiate(SPLIT_FEATURES);
  const guest = new Guest(rig, SPLIT_FEATURES);
  guest.share();
  const unused = rig.own(rig.sharing.memory(4096));
  rig.ok(VHOST_USER.SET_INFLIGHT_FD, description, [unused]);
  guest.queue().start();
  assert.equal(rig.device.startedFresh, false);
  rig.leaveQuietly();
  earlier.rig.leave();
});

test('a ring that its driver breaks is let go of: error descriptor, status, one line', () => {
  const { rig, guest } = connected(SPLIT_FEATURES);
  const queue = guest.queue(0);
  const other = guest.queue(1);
  queue.start();
  other.start();
  // One chain is under way when an available entry names no descriptor.
  rig.device.hold = true;
  queue.submit(1);
  rig.sharing.run();
  const { driver } = queue.driver.places;
  driver.region.view.setUint16(driver.start + 6, 200, true);
  driver.region.view.setUint16(driver.start + 2, 2, true);
  rig.sharing.signal(queue.kick);
  rig.sharing.run();
  assert.equal(rig.logged.length, 1);
  assert.match(rig.logged[0] as string, /^unix \/run\/x.sock: front-end: ring 0: .*needs a reset$/);
  assert.ok(!rig.device.calls.includes('detach 0'), 'the chain is still under way');
  rig.device.hold = false;
  rig.device.release();
  assert.equal(rig.sharing.rings(queue.err), 1);
  const needsReset = BigInt(VIRTIO_CONFIG_S.DEVICE_NEEDS_RESET);
  assert.equal(rig.u64(VHOST_USER.GET_STATUS), needsReset);
  assert.ok(rig.device.calls.includes('detach 0'));
  // Others go on.
  other.submit(4);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [1, 4]);
  queue.enable(false);
  queue.enable(true);
  assert.equal(rig.device.calls.filter((call) => call === 'attach 0').length, 1);

  rig.ok(VHOST_USER.SET_STATUS, encodeU64(0));
  assert.equal(rig.u64(VHOST_USER.GET_STATUS), 0n);
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(SPLIT_FEATURES));
  const again = guest.queue(0);
  again.start();
  again.submit(5);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [1, 4, 5]);
  rig.leave();
});

test('a ring that cannot be set up is refused where it would begin to run', () => {
  const wrong: [string, (address: Parameters<typeof encodeVringAddress>[0]) => object][] = [
    ['descriptor table is not in memory', () => ({ descriptor: USER - 16 })],
    ['used ring is not in memory', () => ({ used: USER + (1 << 20) - 8 })],
    ['available ring is not in memory', () => ({ available: 0 })],
    ['', ({ descriptor }) => ({ descriptor: descriptor + 8 })],
    ['', ({ used }) => ({ used: used + 2 })],
  ];
  for (const [line, change] of wrong) {
    const { rig, guest } = connected(SPLIT_FEATURES);
    const queue = guest.queue();
    queue.describe();
    const address = { ...queue.address(), ...change(queue.address()) };
    rig.ok(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address));
    rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(queue.named()), [queue.kick]);
    const enable = encodeVringState({ index: 0, num: 1 });
    // The first is told when the device is ready; by then the answer has been given. The second at once.
    rig.ack(VHOST_USER.SET_VRING_ENABLE, enable);
    assert.equal(rig.logged.length, 1);
    assert.ok(rig.logged[0]?.includes(line), rig.logged[0]);
    rig.leave();
  }
});

test('a kick that is no eventfd breaks the ring, not us', () => {
  const { rig, guest } = connected(SPLIT_FEATURES);
  const queue = guest.queue();
  queue.describe();
  rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(queue.named()), [guest.fd]);
  rig.ok(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor(queue.named()), [guest.fd]);
  rig.ack(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index: 0, num: 1 }));
  assert.match(rig.logged[0] as string, /ring 0: not an eventfd/);
  assert.deepEqual(rig.device.workers.size, 0);
  rig.leave();
});

test('a packed base of 16 bits, as DPDK sends it, is both indices', () => {
  const { rig, guest } = connected(PACKED_FEATURES);
  const queue = guest.queue();
  queue.start(0x8000);
  for (let i = 0; i < 20; i += 1) {
    queue.submit(i);
    rig.sharing.run();
    assert.equal(queue.used().length, 1);
  }
  rig.leave();
});

test('P11: a front-end that goes while its message waits is ended when somebody else comes, and not before it goes', () => {
  const { rig, guest } = connected(SPLIT_FEATURES);
  const queue = guest.queue();
  queue.start();
  rig.device.slowWrites = true;
  rig.send(VHOST_USER.SET_CONFIG, encodeConfig(32, 0, Uint8Array.of(1)));
  rig.backend.endIfGone();
  assert.equal(rig.device.left, false);
  rig.hangUp();
  queue.submit(1);
  assert.equal(rig.device.left, false, 'nothing is received while a message waits');
  rig.backend.endIfGone();
  assert.ok(rig.device.left);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, []);
  rig.device.finishWrite();
  rig.leave();
});
