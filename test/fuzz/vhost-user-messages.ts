import { Prng } from '../../src/base/prng.ts';
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
} from '../../src/protocols/vhost-user/wire.ts';
import { fail, type FuzzTarget } from './target.ts';
import { runBatch } from './virtio-chains.ts';
import { Frontend, PROTOCOL_FEATURES } from './virtio-frontend.ts';
import { World } from './virtio-world.ts';

interface Said {
  readonly request: number;
  readonly payload: Uint8Array;
  readonly descriptors: readonly number[];
}

const NOTHING = new Uint8Array(0);
const BIG = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x100, 0x8000, 0x8001, 256, 255];

/** What conversations have come to, over all runs. */
export const conversations = { held: 0, ended: 0, messages: 0 };

/**
 * A front-end whose conversation is mangled: messages lost, twice, out of order, with other payloads, with descriptors too
 * many, too few, of other kinds. Whatever comes of it: the back-end says why it ends in one line, closes every
 * descriptor, and the next front-end is served.
 */
export const fuzzMessages: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const world = new World(prng, { malice: 0 });
  world.ring.clear();
  const { sharing, arena, frontend } = world;
  const kinds = makeDescriptors(world, frontend);
  const said = conversation(world, kinds);
  const mangled = prng.pick([0, 1, 1, 2, 5]);
  for (let i = 0; i < mangled; i += 1) mangle(prng, said, kinds);
  if (prng.chance(0.5)) sharing.pieceBytes = () => 1 + prng.below(60);
  const flags = prng.chance(0.6) ? VHOST_USER_NEED_REPLY_MASK : 0;
  const hurried = prng.chance(0.4);
  for (const { request, payload, descriptors } of said) {
    const bytes = encodeMessage(request, flags | wildFlags(prng), payload);
    if (prng.chance(0.01)) new DataView(bytes.buffer).setUint32(8, prng.pick(BIG), true);
    frontend.sendBytes(bytes, descriptors);
    conversations.messages += 1;
    if (!hurried) sharing.run();
    if (prng.chance(0.2)) frontend.notify();
    if (prng.chance(0.2)) world.store.release(prng);
  }
  world.settle();
  sharing.pieceBytes = () => Infinity;
  conversations.held += 1;
  if (frontend.closed) {
    conversations.ended += 1;
    if (frontend.logged.length === 0) fail('the connection ended, and nobody said why');
  }
  if (frontend.logged.length > said.length + 1) fail(`${frontend.logged.length} lines`);
  for (const line of frontend.logged) {
    if (line.length > 300 || !/^[\x20-\x7e]*$/.test(line)) fail(`not a line for a log: ${line}`);
  }
  arena.snapshot();
  world.reconnect();
  world.ring.clear();
  world.begin();
  world.model.disk.set(world.store.read());
  runBatch(world);
  world.end();
};

/** One of each kind that can be sent. They are the front-end's to close. */
function makeDescriptors(world: World, frontend: Frontend): number[] {
  const { sharing, arena } = world;
  const [near, far] = sharing.pair();
  near.owner = { received: () => {}, ended: () => {} };
  frontend.closes(near);
  return [
    sharing.duplicate(arena.fd),
    sharing.memory(1 << 16),
    sharing.eventfd(),
    sharing.eventfd(),
    far,
  ].map((fd) => frontend.own(fd));
}

/** A front-end's whole life, as messages. */
function conversation(world: World, kinds: readonly number[]): Said[] {
  const { arena, ring, features, prng } = world;
  const [guest, memory, event, other, channel] = kinds as [number, number, number, number, number];
  const index = prng.below(2);
  const { places } = ring;
  const say = (
    request: number,
    payload: Uint8Array = NOTHING,
    descriptors: readonly number[] = [],
  ): Said => ({ request, payload, descriptors });
  const state = (num: number): Uint8Array => encodeVringState({ index, num });
  const named = encodeVringDescriptor({ index, absent: false });
  const address = {
    index,
    flags: 0,
    descriptor: arena.user(places.descriptor),
    used: arena.user(places.used),
    available: arena.user(places.available),
  };
  const inflight = { mmapSize: 65_536, mmapOffset: 0, numQueues: 2, queueSize: ring.size };
  const more = { guestAddress: 2 ** 40, sizeBytes: 4096, userAddress: 2 ** 44, mmapOffset: 512 };
  const fds = arena.regions.map(() => guest);
  return [
    say(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(PROTOCOL_FEATURES | (1n << 5n))),
    say(VHOST_USER.SET_OWNER),
    say(VHOST_USER.GET_FEATURES),
    say(VHOST_USER.SET_FEATURES, encodeU64(features)),
    say(VHOST_USER.GET_CONFIG, encodeConfig(0, 0, new Uint8Array(60))),
    say(VHOST_USER.SET_BACKEND_REQ_FD, NOTHING, [channel]),
    say(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(arena.regions), fds),
    say(VHOST_USER.GET_INFLIGHT_FD, encodeInflight(inflight)),
    say(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(inflight), [memory]),
    say(VHOST_USER.SET_VRING_NUM, state(ring.size)),
    say(VHOST_USER.SET_VRING_BASE, state(ring.base)),
    say(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address)),
    say(VHOST_USER.SET_VRING_KICK, named, [event]),
    say(VHOST_USER.SET_VRING_CALL, named, [other]),
    say(VHOST_USER.SET_VRING_ERR, named, [event]),
    say(VHOST_USER.SET_VRING_ENABLE, state(1)),
    say(VHOST_USER.SET_STATUS, encodeU64(15)),
    say(VHOST_USER.SET_CONFIG, encodeConfig(32, 0, new Uint8Array([1]))),
    say(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(more), [memory]),
    say(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(arena.regions), fds),
    say(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor({ index, absent: true })),
    say(VHOST_USER.REM_MEM_REG, encodeSingleRegion(more)),
    say(VHOST_USER.GET_VRING_BASE, state(0)),
    say(VHOST_USER.SET_VRING_KICK, named, [event]),
    say(VHOST_USER.RESET_DEVICE),
    say(VHOST_USER.SET_STATUS, encodeU64(0)),
  ];
}

/** Changes a conversation a little: order, numbers, lengths, descriptors. */
function mangle(prng: Prng, said: Said[], kinds: readonly number[]): void {
  const at = prng.below(said.length);
  const chosen = said[at];
  if (chosen === undefined) return;
  const payload = chosen.payload.slice();
  const { descriptors } = chosen;
  switch (prng.below(9)) {
    case 0:
      said.splice(prng.below(said.length), 0, chosen);
      break;
    case 1:
      said.splice(at, 1);
      break;
    case 2:
      said[at] = { ...chosen, request: prng.pick([prng.below(45), prng.uint32()]) };
      break;
    case 3:
      if (payload.length > 0) payload[prng.below(payload.length)] = prng.below(256);
      said[at] = { ...chosen, payload };
      break;
    case 4:
      if (payload.length >= 4) {
        const words = new DataView(payload.buffer);
        words.setUint32(4 * prng.below(Math.floor(payload.length / 4)), prng.pick(BIG), true);
      }
      said[at] = { ...chosen, payload };
      break;
    case 5:
      said[at] = { ...chosen, payload: resized(prng, payload) };
      break;
    case 6:
      said[at] = { ...chosen, descriptors: [...descriptors, prng.pick(kinds)] };
      break;
    case 7:
      said[at] = { ...chosen, descriptors: descriptors.map(() => prng.pick(kinds)) };
      break;
    default:
      said[at] = { ...chosen, descriptors: descriptors.slice(1) };
  }
}

function resized(prng: Prng, payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(prng.chance(0.1) ? 5000 : prng.below(payload.length + 20));
  out.set(payload.subarray(0, out.length));
  return out;
}

/** Version and reply bits that no request has. */
function wildFlags(prng: Prng): number {
  return prng.chance(0.01) ? prng.pick([2, 4, 3, 0xfffffff0]) : 0;
}
