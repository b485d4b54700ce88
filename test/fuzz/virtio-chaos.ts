import { Prng } from '../../src/base/prng.ts';
import { FakeSharing } from '../../src/protocols/vhost-user/testing.ts';
import {
  encodeConfig,
  encodeMemoryTable,
  encodeU64,
  encodeVringAddress,
  VHOST_USER,
} from '../../src/protocols/vhost-user/wire.ts';
import { traceArrays } from '../../src/protocols/virtio/traced-arrays.ts';
import type { SharedMemory } from '../../src/reactor/sharing.ts';
import { fail, type FuzzTarget } from './target.ts';
import { runBatch } from './virtio-chains.ts';
import { chains } from './virtio-checked.ts';
import { PROTOCOL_FEATURES } from './virtio-frontend.ts';
import { offerChain, rewrite } from './virtio-requests.ts';
import { RING_BYTES } from './virtio-rings.ts';
import { NEEDS_RESET, World } from './virtio-world.ts';

const LIVES = 3;
const STEPS = 12;
/** Changes of memory per step, so that every step ends. */
const CHANGES = 150;

type Race = () => void;

/** Tells of each load from the memory that it maps: whoever races has its turn before it. */
class RacingSharing extends FakeSharing {
  race: Race = () => {};
  /** Memory that it made itself: of requests in flight. */
  readonly tracked: Uint8Array[] = [];

  override map(fd: number, lengthBytes: number, offsetBytes: number): SharedMemory {
    const shared = super.map(fd, lengthBytes, offsetBytes);
    const { view } = shared.region;
    const racing = new RacingView(view, () => this.race());
    Object.defineProperty(shared.region, 'view', { value: racing });
    return shared;
  }

  override create(name: string, lengthBytes: number): { fd: number; memory: SharedMemory } {
    const made = super.create(name, lengthBytes);
    this.tracked.push(made.memory.region.bytes);
    return made;
  }
}

class RacingView extends DataView<ArrayBufferLike> {
  readonly #race: Race;

  constructor({ buffer, byteOffset, byteLength }: DataView, race: Race) {
    super(buffer, byteOffset, byteLength);
    this.#race = race;
  }

  override getUint16(at: number, littleEndian?: boolean): number {
    this.#race();
    return super.getUint16(at, littleEndian);
  }

  override getUint32(at: number, littleEndian?: boolean): number {
    this.#race();
    return super.getUint32(at, littleEndian);
  }
}

/**
 * A guest that rewrites its memory between any two loads of the device, a front-end that says what it should not in the
 * middle of everything. Nothing can be foretold but this: only the guest's memory is touched, each chain is given back
 * once or its ring is broken, and afterwards a driver that keeps to the rules is served.
 */
export const fuzzChaos: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const sharing = new RacingSharing();
  const world = new World(prng, { sharing, malice: prng.pick([0.1, 0.5]) });
  world.ring.clear();
  world.arena.snapshot();
  const guest = new Guest(world, sharing);
  const traced = prng.chance(0.3);
  world.begin();
  for (let life = 0; life < LIVES; life += 1) {
    if (traced) trace(world, guest);
    for (let i = 0; i < STEPS; i += 1) {
      guest.step();
      if (world.frontend.closed) break;
      if (sharing.rings(world.frontend.err) === 0 || prng.chance(0.2)) continue;
      guest.calm();
      world.reset(false);
      if (traced) trace(world, guest);
    }
    recover(world, guest);
  }
  world.end();
};

/** The ring is let go of and taken again, with arrays that tell of each load. */
function trace({ arena, frontend }: World, guest: Guest): void {
  frontend.tell(VHOST_USER.SET_VRING_ENABLE, frontend.state(0));
  const enable = (): void => frontend.tell(VHOST_USER.SET_VRING_ENABLE, frontend.state(1));
  traceArrays(arena.bytes.buffer, { load: () => guest.race() }, enable);
}

class Guest {
  readonly #world: World;
  readonly #prng: Prng;
  readonly #sharing: RacingSharing;
  readonly #often: number;
  #changes = 0;

  constructor(world: World, sharing: RacingSharing) {
    this.#world = world;
    this.#prng = world.prng;
    this.#sharing = sharing;
    this.#often = this.#prng.pick([0.002, 0.02, 0.3]);
    sharing.race = () => this.race();
  }

  calm(): void {
    this.#changes = 0;
    this.#sharing.tracked.length = 0;
  }

  step(): void {
    const { frontend, ring, slots, target, arena } = this.#world;
    const prng = this.#prng;
    for (const slot of slots) {
      if (prng.chance(0.3) || !offerChain(prng, target, slot)) break;
      chains.offered += 1;
    }
    ring.publish(prng, prng.chance(0.05) ? prng.below(0x10000) : 0);
    ring.walk();
    this.#changes = CHANGES;
    frontend.notify();
    for (let left = prng.below(20); left > 0; left -= 1) this.#act();
    this.#world.settle();
    this.#changes = 0;
    arena.compareGuards();
  }

  /** Something happens while the ring is at work. */
  #act(): void {
    const { store, sharing, frontend } = this.#world;
    const prng = this.#prng;
    const kind = prng.below(10);
    if (kind < 4) this.#change();
    else if (kind < 6) store.release(prng);
    else if (kind < 8) sharing.run();
    else if (kind < 9) frontend.notify();
    else if (prng.chance(0.3)) this.#message();
  }

  /** Between two loads of the device. */
  race(): void {
    if (this.#changes > 0 && this.#prng.chance(this.#often)) this.#change();
  }

  #change(): void {
    this.#changes -= 1;
    const { target, slots } = this.#world;
    const prng = this.#prng;
    const { tracked } = this.#sharing;
    if (tracked.length > 0 && prng.chance(0.15)) {
      const bytes = prng.pick(tracked);
      bytes[prng.below(bytes.length)] = prng.below(256);
    } else rewrite(prng, target, slots);
  }

  /** What a front-end may say at any time, and what it should not. */
  #message(): void {
    const { frontend, arena, ring, features } = this.#world;
    const prng = this.#prng;
    const first = arena.regions[0]?.at ?? 0;
    const some = (): number => arena.user(first + 4 * prng.below(RING_BYTES / 4));
    const fds = arena.regions.map(() => arena.fd);
    const address = { index: 0, flags: 0, descriptor: some(), used: some(), available: some() };
    switch (prng.below(9)) {
      case 0:
        frontend.send(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(arena.regions), fds);
        break;
      case 1:
        frontend.send(
          VHOST_USER.SET_VRING_NUM,
          frontend.state(prng.pick([1, ring.size, 3, 64, 256])),
        );
        break;
      case 2:
        frontend.send(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address));
        break;
      case 3:
        frontend.send(VHOST_USER.SET_VRING_BASE, frontend.state(prng.uint32()));
        break;
      case 4:
        frontend.send(VHOST_USER.SET_VRING_ENABLE, frontend.state(prng.below(2)));
        break;
      case 5:
        frontend.send(
          VHOST_USER.SET_FEATURES,
          encodeU64(features ^ (1n << BigInt(prng.pick([9, 28, 29])))),
        );
        break;
      case 6:
        frontend.send(VHOST_USER.SET_CONFIG, encodeConfig(32, 0, new Uint8Array([prng.below(2)])));
        break;
      case 7:
        frontend.send(VHOST_USER.GET_VRING_BASE, frontend.state(0));
        break;
      default:
        frontend.send(VHOST_USER.SET_STATUS, encodeU64(prng.below(2) * 15));
    }
  }
}

/** Whatever was done to it: a driver that keeps to the rules is served again. */
function recover(world: World, guest: Guest): void {
  const { prng, sharing, frontend, arena, model, store } = world;
  guest.calm();
  const broken = world.frontend.closed || (frontend.status() & NEEDS_RESET) !== 0;
  if (world.frontend.closed || prng.chance(0.3)) {
    const kept = keepInflight(world);
    world.reconnect();
    if (kept !== null) goOn(world, kept);
    if (world.frontend.closed) world.reconnect();
    if (kept === null || !world.frontend.refusalsAllowed) {
      world.ring.clear();
      world.begin();
    } else {
      world.frontend.refusalsAllowed = false;
      world.reset(false);
    }
  } else world.reset(false);
  if (broken) chains.servedAfterReset += 1;
  model.disk.set(store.read());
  sharing.rings(world.frontend.err);
  const { malice } = world.target;
  world.target.malice = 0;
  runBatch(world);
  world.target.malice = malice;
  if (world.device.brokenBy !== null && (world.frontend.status() & NEEDS_RESET) !== 0) {
    fail(`a sound driver was not served: ${world.device.brokenBy}`);
  }
  arena.snapshot();
}

interface Kept {
  readonly payload: Uint8Array;
  readonly fd: number;
}

function keepInflight({ frontend, sharing }: World): Kept | null {
  const { inflight } = frontend;
  return inflight === null
    ? null
    : { payload: inflight.payload, fd: sharing.duplicate(inflight.fd) };
}

/** A successor finds what its predecessor left of requests in flight, after the guest or its front-end was at it. */
function goOn(world: World, { payload, fd }: Kept): void {
  const { frontend, arena, ring } = world;
  frontend.own(fd);
  frontend.refusalsAllowed = true;
  frontend.tell(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(PROTOCOL_FEATURES));
  frontend.tell(VHOST_USER.SET_FEATURES, encodeU64(world.features));
  frontend.share(arena);
  frontend.tell(VHOST_USER.SET_INFLIGHT_FD, payload, [fd]);
  frontend.startRing(arena, ring);
  frontend.notify();
  world.settle();
  arena.compareGuards();
}
