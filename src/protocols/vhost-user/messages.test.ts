import assert from 'node:assert/strict';
import test from 'node:test';
import { MAX_PAYLOAD_BYTES, MAX_WAITING_BYTES, MAX_WAITING_DESCRIPTORS } from './limits.ts';
import type { Message } from './messages.ts';
import { MessageReader } from './messages.ts';
import {
  encodeMemoryTable,
  encodeMessage,
  encodeSingleRegion,
  encodeU64,
  encodeVringDescriptor,
  VHOST_USER,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_REPLY_MASK,
} from './wire.ts';

const region = { guestAddress: 0, sizeBytes: 4096, userAddress: 4096, mmapOffset: 0 };
const getFeatures = encodeMessage(VHOST_USER.GET_FEATURES, 0);
const kick = encodeMessage(
  VHOST_USER.SET_VRING_KICK,
  VHOST_USER_NEED_REPLY_MASK,
  encodeVringDescriptor({ index: 1, absent: false }),
);
const add = encodeMessage(VHOST_USER.ADD_MEM_REG, 0, encodeSingleRegion(region));
const remove = encodeMessage(VHOST_USER.REM_MEM_REG, 0, encodeSingleRegion(region));

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function all(reader: MessageReader): string[] {
  const found: string[] = [];
  for (let message = reader.next(); message !== null; message = reader.next()) {
    found.push(`${message.name} ${message.takeAll().join(',')}`.trim());
  }
  return found;
}

test('messages arrive in pieces of any size, and several at once', () => {
  for (let size = 1; size < 60; size += 1) {
    const reader = new MessageReader();
    const bytes = join(getFeatures, kick, getFeatures);
    const found: string[] = [];
    const firstOfKick = getFeatures.length;
    for (let at = 0; at < bytes.length;) {
      // As the kernel does it: descriptors come with a piece that ends no later than their message.
      const end = Math.min(
        at + size,
        bytes.length,
        at < firstOfKick + kick.length ? firstOfKick + kick.length : Infinity,
      );
      const withKick = at <= firstOfKick && firstOfKick < end;
      reader.push(bytes.subarray(at, end), withKick ? [7] : []);
      found.push(...all(reader));
      at = end;
    }
    assert.deepEqual(found, ['GET_FEATURES', 'SET_VRING_KICK 7', 'GET_FEATURES'], `${size}`);
  }
});

test('a message is what was sent', () => {
  const reader = new MessageReader();
  reader.push(kick, [7]);
  const message = reader.next() as Message;
  assert.equal(message.request, VHOST_USER.SET_VRING_KICK);
  assert.equal(message.needReply, true);
  assert.deepEqual(message.payload, encodeU64(1));
  assert.equal(message.descriptors, 1);
  assert.equal(message.take(), 7);
  assert.equal(message.take(), null);
  assert.equal(reader.next(), null);
});

test('descriptors find their message, wherever in the piece it begins', () => {
  const table = encodeMessage(VHOST_USER.SET_MEM_TABLE, 0, encodeMemoryTable([region, region]));
  const cases: [Uint8Array, number[], string[]][] = [
    [join(getFeatures, table), [3, 4], ['GET_FEATURES', 'SET_MEM_TABLE 3,4']],
    [join(table, getFeatures), [3, 4], ['SET_MEM_TABLE 3,4', 'GET_FEATURES']],
    // Is it the removal's, which may have one, or the addition's, which must?
    [join(remove, add), [5], ['REM_MEM_REG', 'ADD_MEM_REG 5']],
    [remove, [5], ['REM_MEM_REG 5']],
    [remove, [], ['REM_MEM_REG']],
    [join(kick, kick), [5, 6], ['SET_VRING_KICK 5', 'SET_VRING_KICK 6']],
  ];
  for (const [bytes, descriptors, expected] of cases) {
    const reader = new MessageReader();
    reader.push(bytes, descriptors);
    assert.deepEqual(all(reader), expected);
    assert.deepEqual(reader.takeDescriptors(), []);
  }
});

test('descriptors that no message takes are an error, and can still be closed', () => {
  const cases: [Uint8Array, number[]][] = [
    [getFeatures, [3]],
    [kick, [3, 4]],
    [
      encodeMessage(
        VHOST_USER.SET_VRING_CALL,
        0,
        encodeVringDescriptor({ index: 0, absent: true }),
      ),
      [3],
    ],
    [join(kick, getFeatures), [3, 4]],
  ];
  for (const [bytes, descriptors] of cases) {
    const reader = new MessageReader();
    reader.push(bytes, descriptors);
    const taken: number[] = [];
    assert.throws(
      () => {
        for (let message = reader.next(); message !== null; message = reader.next()) {
          taken.push(...message.takeAll());
        }
      },
      { name: 'ProtocolError', message: /with descriptors it does not take/ },
    );
    assert.deepEqual(
      [...taken, ...reader.takeDescriptors()].toSorted((a, b) => a - b),
      descriptors,
    );
  }
});

test('a missing descriptor is the message’s to miss, and one of an earlier piece is not taken for it', () => {
  const reader = new MessageReader();
  reader.push(kick, []);
  assert.equal(reader.next()?.take(), null);
});

test('what cannot be a message ends it: another version, a reply, a payload beyond all messages', () => {
  const bad: [Uint8Array, RegExp][] = [
    [new Uint8Array([1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), /message version 2/],
    [new Uint8Array(12), /message version 0/],
    [encodeMessage(1, VHOST_USER_REPLY_MASK), /a reply to a question/],
    [
      encodeMessage(25, 0, new Uint8Array(MAX_PAYLOAD_BYTES + 1)).subarray(0, 12),
      /SET_CONFIG of 4097 bytes/,
    ],
  ];
  for (const [bytes, message] of bad) {
    const reader = new MessageReader();
    reader.push(bytes, []);
    assert.throws(() => reader.next(), { name: 'ProtocolError', message });
  }
});

test('what waits is bounded, in bytes and in descriptors', () => {
  const reader = new MessageReader();
  reader.push(new Uint8Array(MAX_WAITING_BYTES), []);
  assert.throws(() => reader.push(new Uint8Array(1), []), { name: 'ProtocolError' });
  const other = new MessageReader();
  other.push(
    new Uint8Array(1),
    Array.from({ length: MAX_WAITING_DESCRIPTORS }, () => 1),
  );
  assert.throws(() => other.push(new Uint8Array(1), [2]), { name: 'ProtocolError' });
  assert.equal(other.takeDescriptors().length, MAX_WAITING_DESCRIPTORS + 1);
});
