import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import {
  ALL_PROTOCOL_FEATURES,
  FakeDevice,
  Guest,
  PACKED_FEATURES,
  Rig,
  SPLIT_FEATURES,
} from './test-rig.ts';
import type { GuestQueue } from './test-rig.ts';
import { FakeSharing } from './testing.ts';
import {
  encodeConfig,
  encodeInflight,
  encodeMemoryTable,
  encodeMessage,
  encodeSingleRegion,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  VHOST_USER,
  VHOST_USER_NEED_REPLY_MASK,
} from './wire.ts';

interface Sent {
  readonly request: number;
  readonly payload: Uint8Array;
  readonly descriptors: readonly number[];
}

const NOTHING = new Uint8Array(0);

/** A front-end's whole life, as messages. */
function conversation(rig: Rig, guest: Guest, queue: GuestQueue, features: bigint): Sent[] {
  const { index } = queue;
  const say = (
    request: number,
    payload: Uint8Array = NOTHING,
    descriptors: readonly number[] = [],
  ): Sent => ({ request, payload, descriptors });
  const state = (num: number): Uint8Array => encodeVringState({ index, num });
  const named = encodeVringDescriptor(queue.named());
  const memory = rig.own(rig.sharing.memory(1 << 16));
  const inflight = { mmapSize: 4096, mmapOffset: 0, numQueues: 2, queueSize: 8 };
  const more = { guestAddress: 0, sizeBytes: 1 << 16, userAddress: 4096, mmapOffset: 0 };
  return [
    say(VHOST_USER.SET_OWNER),
    say(VHOST_USER.GET_FEATURES),
    say(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(ALL_PROTOCOL_FEATURES)),
    say(VHOST_USER.GET_QUEUE_NUM),
    say(VHOST_USER.SET_FEATURES, encodeU64(features)),
    say(VHOST_USER.GET_CONFIG, encodeConfig(0, 0, new Uint8Array(60))),
    say(VHOST_USER.SET_BACKEND_REQ_FD, NOTHING, [rig.channel().fd]),
    say(VHOST_USER.GET_INFLIGHT_FD, encodeInflight(inflight)),
    say(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable([guest.region]), [guest.fd]),
    say(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(inflight), [memory]),
    say(VHOST_USER.SET_VRING_NUM, state(8)),
    say(VHOST_USER.SET_VRING_BASE, state(0)),
    say(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(queue.address())),
    say(VHOST_USER.SET_VRING_KICK, named, [queue.kick]),
    say(VHOST_USER.SET_VRING_CALL, named, [queue.call]),
    say(VHOST_USER.SET_VRING_ERR, named, [queue.err]),
    say(VHOST_USER.SET_VRING_ENABLE, state(1)),
    say(VHOST_USER.SET_STATUS, encodeU64(15)),
    say(VHOST_USER.SET_CONFIG, encodeConfig(32, 0, new Uint8Array([1]))),
    say(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(more), [memory]),
    say(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor(queue.named(true))),
    say(VHOST_USER.REM_MEM_REG, encodeSingleRegion(more)),
    say(VHOST_USER.GET_VRING_BASE, state(0)),
    say(VHOST_USER.SET_VRING_KICK, named, [queue.kick]),
    say(VHOST_USER.SET_STATUS, encodeU64(0)),
    say(VHOST_USER.RESET_DEVICE),
  ];
}

/** Changes a conversation a little: order, bytes, lengths, descriptors. */
function mutate(prng: Prng, messages: Sent[]): void {
  for (let left = 1 + prng.below(4); left > 0; left -= 1) {
    const at = prng.below(messages.length);
    const chosen = messages[at] as Sent;
    const payload = chosen.payload.slice();
    switch (prng.below(7)) {
      case 0:
        messages.splice(prng.below(messages.length), 0, chosen);
        break;
      case 1:
        messages.splice(at, 1);
        if (messages.length === 0) messages.push(chosen);
        break;
      case 2:
        messages[at] = { ...chosen, request: prng.below(45) };
        break;
      case 3:
        if (payload.length > 0) payload[prng.below(payload.length)] = prng.below(256);
        messages[at] = { ...chosen, payload };
        break;
      case 4:
        messages[at] = { ...chosen, payload: payload.subarray(0, prng.below(payload.length + 1)) };
        break;
      case 5: {
        const other = (messages[prng.below(messages.length)] as Sent).descriptors;
        messages[at] = { ...chosen, descriptors: [...chosen.descriptors, ...other] };
        break;
      }
      default:
        messages[at] = { ...chosen, descriptors: chosen.descriptors.slice(1) };
    }
  }
}

/** The front-end goes; whatever it has said, nothing of it stays. */
function leave(rig: Rig): void {
  rig.device.hold = false;
  rig.device.slow = false;
  rig.device.slowWrites = false;
  rig.device.release();
  rig.device.finishWrite();
  rig.sharing.run();
  rig.closeOwned();
  rig.sharing.run();
  rig.device.release();
  rig.leave();
}

function converse(prng: Prng): { ended: boolean; executed: number } {
  const sharing = new FakeSharing();
  const rig = new Rig(new FakeDevice(), sharing);
  const features = prng.chance(0.5) ? SPLIT_FEATURES : PACKED_FEATURES;
  const guest = new Guest(rig, features);
  const queue = guest.queue(0, 8);
  const messages = conversation(rig, guest, queue, features);
  if (prng.chance(0.9)) mutate(prng, messages);
  if (prng.chance(0.5)) sharing.pieceBytes = () => 1 + prng.below(40);
  rig.device.slow = prng.chance(0.2);
  rig.device.slowWrites = prng.chance(0.2);
  const flags = prng.chance(0.5) ? VHOST_USER_NEED_REPLY_MASK : 0;
  const hurried = prng.chance(0.3);
  for (const { request, payload, descriptors } of messages) {
    const bytes = encodeMessage(request, flags, payload);
    if (hurried) rig.rawLater(bytes, descriptors);
    else rig.raw(bytes, descriptors);
    rig.device.hold = prng.chance(0.3);
    if (prng.chance(0.3) && queue.driver.inFlight < 4) queue.submit(prng.below(1000));
    if (prng.chance(0.3)) rig.device.release();
    if (prng.chance(0.2)) rig.device.becomeReady();
    if (prng.chance(0.2)) rig.device.finishWrite();
    if (prng.chance(0.1)) rig.device.onConfigChange?.();
    if (prng.chance(0.01)) rig.backend.shutdown();
  }
  sharing.run();
  const { closed } = rig;
  leave(rig);
  return { ended: closed, executed: rig.device.executed.length };
}

test('four thousand conversations that went wrong: they end or go on, and nothing is left of them', () => {
  const prng = new Prng(20261123);
  let ended = 0;
  let executed = 0;
  for (let i = 0; i < 4000; i += 1) {
    const outcome = converse(prng);
    ended += outcome.ended ? 1 : 0;
    executed += outcome.executed;
  }
  // The test is worth nothing if one of the two never happens.
  assert.ok(ended > 400 && ended < 3600, `${ended} ended`);
  assert.ok(executed > 400, `${executed} chains were executed`);
});

test('random bytes with random descriptors end every connection, with one line', () => {
  const prng = new Prng(7);
  for (let i = 0; i < 2000; i += 1) {
    const rig = new Rig();
    for (let piece = 0; piece < 20 && !rig.closed; piece += 1) {
      const bytes = new Uint8Array(1 + prng.below(300));
      prng.fill(bytes);
      const descriptors = prng.chance(0.1) ? [rig.own(rig.sharing.eventfd())] : [];
      rig.raw(bytes, descriptors);
    }
    assert.ok(rig.closed);
    assert.equal(rig.logged.length, 1);
    rig.leave();
  }
});
