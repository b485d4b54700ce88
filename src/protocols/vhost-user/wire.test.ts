import assert from 'node:assert/strict';
import test from 'node:test';
import * as wire from './wire.ts';

/** Bytes as the text lays them out, written by hand. */
function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
}

test('a message: request, flags with version 1, size, payload [vhost-user "Header"]', () => {
  const bytes = wire.encodeMessage(
    wire.VHOST_USER.SET_FEATURES,
    wire.VHOST_USER_NEED_REPLY_MASK,
    wire.encodeU64(0x1_7000_0a60n),
  );
  assert.deepEqual(bytes, hex('02000000 09000000 08000000 600a0070 01000000'));
  assert.deepEqual(wire.decodeHeader(bytes), { request: 2, flags: 9, size: 8 });
  assert.deepEqual(wire.decodeHeader(hex('ffff 25000000 05000000 00100000'), 2), {
    request: 37,
    flags: 5,
    size: 4096,
  });
  assert.deepEqual(wire.encodeMessage(3, 0), hex('03000000 01000000 00000000'));
});

test('a vring state: index, num', () => {
  const bytes = hex('02000000 00010000');
  assert.deepEqual(wire.decodeVringState(bytes), { index: 2, num: 256 });
  assert.deepEqual(wire.encodeVringState({ index: 2, num: 256 }), bytes);
});

test('a vring address: index, flags, descriptor, used, available, log', () => {
  const bytes = hex(`01000000 00000000 0010000000 7f0000 0030000000 7f0000 0020000000 7f0000
    0000000000000000`);
  const address = {
    index: 1,
    flags: 0,
    descriptor: 0x7f0000001000,
    used: 0x7f0000003000,
    available: 0x7f0000002000,
  };
  assert.deepEqual(wire.decodeVringAddress(bytes), address);
  assert.deepEqual(wire.encodeVringAddress(address), bytes);
  // Whatever is said of the log, it is not looked at.
  bytes.fill(0xff, 32);
  assert.deepEqual(wire.decodeVringAddress(bytes), address);
});

test('a memory table: count, padding, and of each region guest address, size, user address, offset', () => {
  const low = hex('0000000000000000 0000008000000000 000000c0ff7f0000 0000000000000000');
  const high = hex('0000000001000000 0000004000000000 00000040ff7f0000 0000008000000000');
  const bytes = new Uint8Array([...hex('02000000 00000000'), ...low, ...high]);
  const regions = [
    { guestAddress: 0, sizeBytes: 2 ** 31, userAddress: 0x7fffc0000000, mmapOffset: 0 },
    {
      guestAddress: 2 ** 32,
      sizeBytes: 2 ** 30,
      userAddress: 0x7fff40000000,
      mmapOffset: 2 ** 31,
    },
  ];
  assert.deepEqual(wire.decodeMemoryTable(bytes), regions);
  assert.deepEqual(wire.encodeMemoryTable(regions), bytes);
  // All eight places are sent by some.
  assert.deepEqual(
    wire.decodeMemoryTable(new Uint8Array([...bytes, ...new Uint8Array(192)])),
    regions,
  );

  const single = new Uint8Array([...hex('0000000000000000'), ...high]);
  assert.deepEqual(wire.decodeSingleRegion(single), regions[1]);
  assert.deepEqual(wire.encodeSingleRegion(regions[1] as wire.RegionDescription), single);
});

test('configuration space: offset, size, flags, bytes', () => {
  const bytes = hex('20000000 01000000 00000000 01');
  assert.deepEqual(wire.decodeConfig(bytes), {
    offset: 32,
    size: 1,
    flags: 0,
    payload: new Uint8Array([1]),
  });
  assert.deepEqual(wire.encodeConfig(32, 0, new Uint8Array([1])), bytes);
});

test('an in-flight region: size, offset, queues, queue size; with the padding of the C struct and without', () => {
  const inflight = { mmapSize: 0x2040, mmapOffset: 0, numQueues: 2, queueSize: 256 };
  const bytes = hex('4020000000000000 0000000000000000 0200 0001');
  assert.deepEqual(wire.decodeInflight(bytes), inflight);
  assert.deepEqual(wire.decodeInflight(new Uint8Array([...bytes, 1, 2, 3, 4])), inflight);
  assert.deepEqual(wire.encodeInflight(inflight, wire.SIZE.INFLIGHT), bytes);
  assert.deepEqual(wire.encodeInflight(inflight), new Uint8Array([...bytes, 0, 0, 0, 0]));
});

test('the ring of a descriptor: eight bits, and bit 8 when none comes', () => {
  assert.deepEqual(wire.decodeVringDescriptor(hex('0300000000000000')), {
    index: 3,
    absent: false,
  });
  assert.deepEqual(wire.decodeVringDescriptor(hex('ff01000000000000')), {
    index: 255,
    absent: true,
  });
  assert.deepEqual(wire.encodeVringDescriptor({ index: 3, absent: true }), hex('0301000000000000'));
});

test('payloads of every other length, and addresses of 2^53 and more, are malformed', () => {
  const decoders: [string, (payload: Uint8Array) => unknown, readonly number[]][] = [
    ['u64', wire.decodeU64, [8]],
    ['vring state', wire.decodeVringState, [8]],
    ['vring address', wire.decodeVringAddress, [40]],
    ['vring descriptor', wire.decodeVringDescriptor, [8]],
    ['single region', wire.decodeSingleRegion, [40]],
    ['in-flight', wire.decodeInflight, [20, 24]],
    ['config', wire.decodeConfig, [12]],
  ];
  for (const [name, decode, lengths] of decoders) {
    for (let length = 0; length < 64; length += 1) {
      const decoded = decode(new Uint8Array(length));
      assert.equal(decoded !== null, lengths.includes(length), `${name} of ${length}`);
    }
  }
  assert.equal(wire.decodeMemoryTable(hex('01000000 00000000')), null);
  assert.equal(wire.decodeMemoryTable(new Uint8Array([9, ...new Uint8Array(300)])), null);
  assert.equal(wire.decodeConfig(hex('00000000 02000000 00000000 01')), null);
  assert.equal(
    wire.decodeConfig(new Uint8Array([0, 0, 0, 0, 1, 1, 0, 0, ...new Uint8Array(261)])),
    null,
  );

  const address = new Uint8Array(40);
  address[8 + 6] = 0x20;
  assert.equal(wire.decodeVringAddress(address), null);
  assert.equal(wire.decodeSingleRegion(address), null);
  address[8 + 6] = 0x1f;
  assert.notEqual(wire.decodeVringAddress(address), null);
});

test('requests have names', () => {
  assert.equal(wire.requestName(5), 'SET_MEM_TABLE');
  assert.equal(wire.requestName(99), 'request 99');
});
