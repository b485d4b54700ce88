import assert from 'node:assert/strict';
import test from 'node:test';
import { VIRTIO_CONFIG_S, VIRTIO_F } from '../virtio/virtio.ts';
import { MAX_MEMORY_SLOTS, MAX_REFUSALS, MAX_WAITING_BYTES } from './limits.ts';
import { ALL_PROTOCOL_FEATURES, bit, FakeDevice, Guest, Rig, SPLIT_FEATURES } from './test-rig.ts';
import {
  decodeConfig,
  encodeConfig,
  encodeMessage,
  encodeU64,
  encodeVringDescriptor,
  encodeVringState,
  VHOST_USER,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_PROTOCOL_F,
} from './wire.ts';

const IDLE = new Uint8Array(0);
const state = (index: number, num: number): Uint8Array => encodeVringState({ index, num });

test('what is offered: the device’s own bits, the rings’, and protocol features', () => {
  const rig = new Rig();
  const expected =
    0x1001n |
    bit(VIRTIO_F.ANY_LAYOUT) |
    bit(VIRTIO_F.INDIRECT_DESC) |
    bit(VIRTIO_F.EVENT_IDX) |
    bit(VHOST_USER_F_PROTOCOL_FEATURES) |
    bit(VIRTIO_F.VERSION_1) |
    bit(VIRTIO_F.RING_PACKED);
  assert.equal(rig.u64(VHOST_USER.GET_FEATURES), expected);
  assert.equal(rig.u64(VHOST_USER.GET_PROTOCOL_FEATURES), ALL_PROTOCOL_FEATURES);
  assert.equal(rig.u64(VHOST_USER.GET_QUEUE_NUM), 2n);
  assert.equal(rig.u64(VHOST_USER.GET_MAX_MEM_SLOTS), BigInt(MAX_MEMORY_SLOTS));
  rig.leave();
  assert.deepEqual(rig.logged, []);
});

test('acknowledgements come when they are asked for and REPLY_ACK is in use', () => {
  const rig = new Rig();
  const flag = VHOST_USER_NEED_REPLY_MASK;
  // Before it is negotiated the flag means nothing.
  assert.deepEqual(rig.send(VHOST_USER.SET_OWNER, IDLE, [], flag), []);
  const all = encodeU64(ALL_PROTOCOL_FEATURES);
  assert.equal(rig.send(VHOST_USER.SET_PROTOCOL_FEATURES, all, [], flag).length, 1);
  assert.deepEqual(rig.send(VHOST_USER.SET_OWNER), []);
  rig.ok(VHOST_USER.SET_OWNER);
  rig.ok(VHOST_USER.RESET_OWNER);
  // "For the message types that already solicit a reply ... no behavioural change"
  const replies = rig.send(VHOST_USER.GET_QUEUE_NUM, IDLE, [], flag);
  assert.deepEqual(
    replies.map(({ payload }) => payload),
    [encodeU64(2)],
  );
  rig.leave();
});

test('unknown requests: not zero where an answer was asked for, the end of the connection otherwise', () => {
  const unknown = [
    VHOST_USER.SET_LOG_BASE,
    VHOST_USER.SET_LOG_FD,
    VHOST_USER.SEND_RARP,
    VHOST_USER.IOTLB_MSG,
    VHOST_USER.SET_VRING_ENDIAN,
    VHOST_USER.POSTCOPY_ADVISE,
    VHOST_USER.VRING_KICK,
    VHOST_USER.SET_DEVICE_STATE_FD,
    0,
    99,
  ];
  const rig = new Rig();
  rig.negotiate();
  for (const request of unknown) {
    const fd = rig.own(rig.sharing.eventfd());
    assert.equal(rig.ack(request, new Uint8Array(16), [fd]), 1n);
  }
  assert.equal(rig.logged[0], 'unix /run/x.sock: front-end: SET_LOG_BASE: is not offered');
  assert.equal(rig.logged.length, unknown.length);
  rig.send(VHOST_USER.SET_LOG_FD);
  assert.ok(rig.closed);
  rig.leave();

  const silent = new Rig();
  silent.send(VHOST_USER.SEND_RARP, encodeU64(0));
  assert.ok(silent.closed);
  assert.deepEqual(silent.logged, ['unix /run/x.sock: front-end: SEND_RARP: is not offered']);
  silent.leave();

  // The flag means nothing without REPLY_ACK.
  const early = new Rig();
  assert.deepEqual(early.send(99, IDLE, [], VHOST_USER_NEED_REPLY_MASK), []);
  assert.ok(early.closed);
  early.leave();
});

test('a front-end that is refused again and again is sent away', () => {
  const rig = new Rig();
  rig.negotiate();
  for (let i = 0; i < MAX_REFUSALS - 1; i += 1) assert.equal(rig.ack(99), 1n);
  assert.ok(!rig.closed);
  assert.equal(rig.ack(99), 1n);
  assert.ok(rig.closed);
  assert.equal(rig.logged.length, MAX_REFUSALS);
  rig.leave();
});

test('feature bits that were not offered end the connection, with a line', () => {
  const features: [number, bigint, RegExp][] = [
    [VHOST_USER.SET_FEATURES, bit(VIRTIO_F.ACCESS_PLATFORM), /not offered: 33$/],
    [VHOST_USER.SET_FEATURES, bit(1) | bit(26), /SET_FEATURES: .*not offered: 1, 26$/],
    [VHOST_USER.SET_PROTOCOL_FEATURES, bit(14), /SET_PROTOCOL_FEATURES: .*not offered: 14$/],
    [VHOST_USER.SET_PROTOCOL_FEATURES, bit(63), /not offered: 63$/],
  ];
  for (const [request, value, line] of features) {
    const rig = new Rig();
    rig.negotiate();
    assert.equal(rig.ack(request, encodeU64(value)), 1n);
    assert.ok(rig.closed);
    assert.equal(rig.logged.length, 1);
    assert.match(rig.logged[0] as string, line);
    rig.leave();
  }
});

test('malformed payloads end the connection with one line, whether an answer was asked for or not', () => {
  for (let request = 1; request <= VHOST_USER.GET_STATUS; request += 1) {
    for (const flags of [0, VHOST_USER_NEED_REPLY_MASK]) {
      const rig = new Rig();
      rig.negotiate();
      // No message of the protocol has three bytes; those without payload that ask nothing do not look at it.
      rig.send(request, new Uint8Array(3), [], flags);
      const ignoring: number[] = [
        VHOST_USER.SET_OWNER,
        VHOST_USER.RESET_OWNER,
        VHOST_USER.RESET_DEVICE,
      ];
      if (!ignoring.includes(request)) assert.equal(rig.logged.length, 1, `request ${request}`);
      rig.leave();
    }
  }
});

test('the configuration space is read as it is asked for, and zeroes lie behind it', () => {
  const rig = new Rig();
  rig.negotiate();
  const read = (offset: number, size: number): Uint8Array | undefined => {
    const question = encodeConfig(offset, 1, new Uint8Array(size));
    const [reply] = rig.send(VHOST_USER.GET_CONFIG, question);
    const config = decodeConfig(reply?.payload as Uint8Array);
    assert.equal(config?.offset, offset);
    assert.equal(config.flags, 1);
    return config.payload;
  };
  assert.deepEqual(read(0, 60), rig.device.config);
  assert.deepEqual(read(32, 1), new Uint8Array([32]));
  assert.deepEqual(read(58, 6), new Uint8Array([58, 59, 0, 0, 0, 0]));
  assert.deepEqual(read(0, 256)?.subarray(60), new Uint8Array(196));
  assert.deepEqual(read(2 ** 32 - 1, 4), new Uint8Array(4));
  assert.deepEqual(read(0, 0), IDLE);
  rig.leave();
});

test('a configuration write is answered when it holds, and holds the next message back', () => {
  const rig = new Rig();
  rig.negotiate();
  rig.device.slowWrites = true;
  const write = encodeConfig(32, 0, new Uint8Array([1]));
  assert.deepEqual(rig.send(VHOST_USER.SET_CONFIG, write, [], VHOST_USER_NEED_REPLY_MASK), []);
  assert.deepEqual(rig.send(VHOST_USER.GET_QUEUE_NUM), []);
  assert.equal(rig.device.config[32], 32);
  // Nothing more is received meanwhile: else all this would be too much.
  for (let i = 0; i < MAX_WAITING_BYTES / 1024; i += 1) {
    rig.rawLater(encodeMessage(VHOST_USER.SET_OWNER, 0, new Uint8Array(2048)), []);
  }
  rig.sharing.run();
  rig.device.finishWrite();
  assert.equal(rig.device.config[32], 1);
  rig.sharing.pieceBytes = () => 4096;
  rig.sharing.run();
  assert.deepEqual(
    rig.replies.map(({ request }) => request),
    [VHOST_USER.SET_CONFIG, VHOST_USER.GET_QUEUE_NUM],
  );
  rig.leave();
});

test('a configuration write that the device refuses is no breach of the protocol', () => {
  const rig = new Rig();
  rig.negotiate();
  const readOnly = encodeConfig(0, 0, new Uint8Array([1]));
  assert.equal(rig.ack(VHOST_USER.SET_CONFIG, readOnly), 1n);
  assert.deepEqual(rig.send(VHOST_USER.SET_CONFIG, readOnly), []);
  // "back-ends MUST NOT accept SET_CONFIG for read-only configuration space fields unless the live migration bit is set"
  assert.equal(rig.ack(VHOST_USER.SET_CONFIG, encodeConfig(0, 1, new Uint8Array([1]))), 1n);
  assert.ok(!rig.closed);
  assert.deepEqual(rig.logged, []);
  assert.equal(rig.ack(VHOST_USER.SET_CONFIG, encodeConfig(32, 2, new Uint8Array([1]))), 1n);
  assert.equal(rig.ack(VHOST_USER.SET_CONFIG, encodeConfig(59, 0, new Uint8Array(2))), 1n);
  assert.equal(rig.logged.length, 2);
  rig.leave();
});

test('the status is kept, and 0 resets the device', () => {
  const rig = new Rig();
  rig.negotiate();
  assert.equal(rig.u64(VHOST_USER.GET_STATUS), 0n);
  const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DEVICE_NEEDS_RESET } = VIRTIO_CONFIG_S;
  rig.ok(VHOST_USER.SET_STATUS, encodeU64(ACKNOWLEDGE | DRIVER | FEATURES_OK));
  assert.equal(rig.u64(VHOST_USER.GET_STATUS), 11n);
  // Only the device sets it [virtio 2.1.2].
  rig.ok(VHOST_USER.SET_STATUS, encodeU64(11 | DEVICE_NEEDS_RESET));
  assert.equal(rig.u64(VHOST_USER.GET_STATUS), 11n);
  rig.ok(VHOST_USER.SET_STATUS, encodeU64(0));
  assert.equal(rig.u64(VHOST_USER.GET_STATUS), 0n);
  assert.deepEqual(rig.device.calls, ['reset']);
  rig.leave();
});

test('configuration changes are told between messages, while the device runs', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  const [channel, far] = rig.sharing.pair();
  let told: string[] = [];
  channel.owner = {
    received: (bytes) => told.push(Buffer.from(bytes).toString('hex')),
    ended: () => told.push('ended'),
  };
  rig.ok(VHOST_USER.SET_BACKEND_REQ_FD, IDLE, [rig.own(far)]);
  const notified = ['020000000100000000000000'];

  // QEMU throws the news away while the device does not run.
  rig.device.onConfigChange?.();
  rig.sharing.run();
  assert.deepEqual(told, []);
  guest.share();
  guest.queue().start();
  rig.sharing.run();
  assert.deepEqual(told, notified);

  told = [];
  rig.device.slowWrites = true;
  rig.send(VHOST_USER.SET_CONFIG, encodeConfig(32, 0, new Uint8Array([1])));
  rig.device.onConfigChange?.();
  rig.device.onConfigChange?.();
  rig.sharing.run();
  assert.deepEqual(told, [], 'a message is being worked on');
  rig.device.finishWrite();
  rig.sharing.run();
  assert.deepEqual(told, notified);

  // Answers nobody asked for, and what comes beside them.
  const fd = rig.own(rig.sharing.eventfd());
  channel.send(encodeMessage(2, 0, encodeU64(0)), [fd]);
  rig.sharing.run();
  // Another channel takes the place of the first.
  const [second, secondFar] = rig.sharing.pair();
  second.owner = channel.owner;
  rig.ok(VHOST_USER.SET_BACKEND_REQ_FD, IDLE, [rig.own(secondFar)]);
  rig.closeOwned();
  rig.sharing.run();
  assert.deepEqual(told, [...notified, 'ended', 'ended']);
  assert.equal(rig.device.onConfigChange, null);
  rig.leave();
});

test('without its channel a configuration change is kept for the next one', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  guest.queue().start();
  const channels = [rig.channel(), rig.channel()] as const;
  rig.ok(VHOST_USER.SET_BACKEND_REQ_FD, IDLE, [channels[0].fd]);
  channels[0].close();
  rig.sharing.run();
  rig.device.onConfigChange?.();
  rig.sharing.run();
  rig.ok(VHOST_USER.SET_BACKEND_REQ_FD, IDLE, [channels[1].fd]);
  rig.sharing.run();
  assert.deepEqual(channels[1].told, ['020000000100000000000000']);
  rig.leave();
});

test('a configuration change waits for the device to become ready, whatever the front-end says or not', () => {
  const device = new FakeDevice();
  device.slow = true;
  const rig = new Rig(device);
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  const { fd, told } = rig.channel();
  rig.ok(VHOST_USER.SET_BACKEND_REQ_FD, IDLE, [fd]);
  guest.queue().start();
  device.onConfigChange?.();
  rig.sharing.run();
  assert.deepEqual(told, []);
  device.becomeReady();
  rig.sharing.run();
  assert.deepEqual(told, ['020000000100000000000000']);
  rig.leave();
});

test('messages with the wrong number of descriptors end the connection', () => {
  const cases: [number, Uint8Array, number][] = [
    [VHOST_USER.SET_VRING_KICK, encodeVringDescriptor({ index: 0, absent: false }), 0],
    [VHOST_USER.SET_VRING_CALL, encodeVringDescriptor({ index: 0, absent: true }), 1],
    [VHOST_USER.SET_VRING_ERR, encodeVringDescriptor({ index: 0, absent: false }), 2],
    [VHOST_USER.SET_BACKEND_REQ_FD, IDLE, 0],
    [VHOST_USER.ADD_MEM_REG, new Uint8Array(40), 0],
    [VHOST_USER.GET_FEATURES, IDLE, 1],
  ];
  for (const [request, payload, count] of cases) {
    const rig = new Rig();
    rig.negotiate();
    const descriptors = Array.from({ length: count }, () => rig.own(rig.sharing.eventfd()));
    rig.send(request, payload, descriptors, VHOST_USER_NEED_REPLY_MASK);
    assert.ok(rig.closed, `request ${request}`);
    assert.equal(rig.logged.length, 1);
    rig.leave();
  }
});

test('rings that there are not, sizes and states that cannot be, are refused', () => {
  const rig = new Rig();
  rig.negotiate();
  assert.equal(rig.ack(VHOST_USER.SET_VRING_NUM, state(2, 8)), 1n);
  assert.equal(rig.ack(VHOST_USER.SET_VRING_NUM, state(2 ** 32 - 1, 8)), 1n);
  assert.equal(rig.ack(VHOST_USER.SET_VRING_NUM, state(0, 0)), 1n);
  assert.equal(rig.ack(VHOST_USER.SET_VRING_NUM, state(0, 32769)), 1n);
  assert.equal(rig.ack(VHOST_USER.SET_VRING_BASE, state(7, 0)), 1n);
  assert.equal(rig.ack(VHOST_USER.GET_VRING_BASE, state(7, 0)), 1n);
  assert.equal(rig.ack(VHOST_USER.SET_VRING_ENABLE, state(0, 2)), 1n);
  const fd = rig.own(rig.sharing.eventfd());
  const kick = encodeVringDescriptor({ index: 200, absent: false });
  assert.equal(rig.ack(VHOST_USER.SET_VRING_KICK, kick, [fd]), 1n);
  assert.equal(rig.logged.length, 8);
  assert.ok(rig.logged.every((line) => line.startsWith('unix /run/x.sock: front-end: ')));
  // A ring that never ran has a base too.
  assert.equal(rig.base(1), 0);
  rig.leave();
});

test('the server stops: what is in flight is done and seen, then the socket is closed', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  const queue = guest.queue();
  queue.start();
  rig.device.hold = true;
  const token = queue.submit(7);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, [7]);
  rig.backend.shutdown();
  rig.backend.shutdown();
  // Somebody may have kept it back until now.
  rig.backend.received(encodeMessage(99, 0), [rig.sharing.eventfd()]);
  queue.submit(8);
  rig.sharing.run();
  assert.equal(rig.ended, 0);
  assert.ok(!rig.closed);
  rig.device.release();
  rig.sharing.run();
  assert.deepEqual(queue.used(), [token]);
  assert.equal(rig.sharing.rings(queue.call), 1);
  assert.deepEqual(rig.device.executed, [7]);
  assert.ok(rig.closed);
  rig.leave();
  assert.deepEqual(rig.logged, []);
});

test('the front-end goes while a message waits: the end waits for what is in flight', () => {
  const rig = new Rig();
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  const queue = guest.queue();
  queue.start();
  rig.device.hold = true;
  queue.submit(1);
  rig.sharing.run();
  rig.send(VHOST_USER.GET_VRING_BASE, encodeVringState({ index: 0, num: 0 }));
  const fd = rig.own(rig.sharing.eventfd());
  rig.send(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor({ index: 0, absent: false }), [fd]);
  rig.closeOwned();
  rig.sharing.run();
  assert.equal(rig.ended, 0);
  rig.device.release();
  rig.leave();
});

test('a device that is not ready yet keeps its rings waiting, not its front-end', () => {
  const device = new FakeDevice();
  device.slow = true;
  const rig = new Rig(device);
  rig.negotiate();
  const guest = new Guest(rig);
  guest.share();
  const queue = guest.queue();
  queue.start();
  queue.submit(3);
  rig.sharing.run();
  assert.deepEqual(device.executed, []);
  const start = `start ${(SPLIT_FEATURES & ~bit(30)).toString(16)}`;
  assert.deepEqual(device.calls, [start]);
  device.becomeReady();
  rig.sharing.run();
  assert.deepEqual(device.executed, [3]);

  // Reset meanwhile: what becomes ready then is of no use any more.
  rig.ok(VHOST_USER.RESET_DEVICE);
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(SPLIT_FEATURES));
  const second = guest.queue();
  second.start();
  rig.ok(VHOST_USER.RESET_DEVICE);
  device.becomeReady();
  rig.sharing.run();
  assert.deepEqual(device.calls.slice(1), ['attach 0', 'detach 0', 'reset', start, 'reset']);
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(SPLIT_FEATURES));
  guest.queue().start();
  assert.equal(device.calls.at(-1), start);
  rig.leave();
});

test('protocol features that a front-end does not use are not needed', () => {
  const rig = new Rig();
  rig.send(VHOST_USER.SET_OWNER);
  const features = SPLIT_FEATURES & ~bit(VHOST_USER_F_PROTOCOL_FEATURES);
  rig.send(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(bit(VHOST_USER_PROTOCOL_F.REPLY_ACK)));
  rig.ok(VHOST_USER.SET_FEATURES, encodeU64(features));
  const guest = new Guest(rig, features);
  guest.share();
  const queue = guest.queue();
  queue.describe();
  rig.ok(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor(queue.named()), [queue.call]);
  queue.submit(9);
  rig.sharing.run();
  assert.deepEqual(rig.device.executed, []);
  // "the ring starts directly in the enabled state"
  rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(queue.named()), [queue.kick]);
  assert.deepEqual(rig.device.executed, [9]);
  rig.leave();
});
