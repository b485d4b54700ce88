import { Prng } from '../../src/base/prng.ts';
import {
  encodeMemoryTable,
  encodeSingleRegion,
  encodeU64,
  VHOST_USER,
} from '../../src/protocols/vhost-user/wire.ts';
import { fail, type FuzzTarget } from './target.ts';
import { overlaps, type Piece } from './virtio-arena.ts';
import type { Extent, Outcome } from './virtio-blk-model.ts';
import { chains } from './virtio-checked.ts';
import { offerChain } from './virtio-requests.ts';
import type { Walk } from './virtio-walk.ts';
import { NEEDS_RESET, World } from './virtio-world.ts';

/** Batches of one run. */
const BATCHES = 40;

/** A chain and what must come of it; null: it breaks the ring. */
interface Foretold {
  readonly walk: Walk;
  readonly outcome: Outcome | null;
}

/** A driver that means harm, on the real rings, the real device and a disk in memory. */
export const fuzzChains: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const world = new World(prng);
  world.ring.clear();
  world.begin();
  for (let i = 0; i < BATCHES; i += 1) runBatch(world);
  world.end();
};

/** One batch of chains, foretold where that can be, up to the last byte. */
export function runBatch(world: World): void {
  const { prng, ring, arena, frontend } = world;
  const count = 1 + prng.below(world.slots.length);
  let offered = 0;
  for (let i = 0; i < count; i += 1) {
    if (!offerChain(prng, world.target, world.slots[i] ?? fail('no slot'))) break;
    offered += 1;
  }
  chains.offered += offered;
  const wild = prng.chance(world.target.malice / 4);
  ring.publish(prng, wild ? prng.pick([1, -1, ring.size, ring.size + 1, 0x7fff]) : 0);
  arena.snapshot();
  const walks = ring.walk();
  if (tangledInMemory(world, walks)) {
    tangled(world);
    return;
  }
  const foretold = foretell(world, walks);
  if (world.slow && tangledOnDisk(foretold)) {
    tangled(world);
    return;
  }
  chains.foretold += 1;
  frontend.notify();
  world.sharing.run();
  const breaks = foretold.some(({ outcome }) => outcome === null);
  const disturbed = !breaks && world.store.waiting > 0 && prng.chance(0.3);
  const isReset = disturbed && disturb(world);
  world.settle();
  if (breaks) checkBroken(world, foretold);
  else checkServed(world, foretold);
  checkDisk(world);
  if (isReset) world.reset(false);
}

/** What the device must do with each chain, up to the one that breaks the ring; done to the shadow at once. */
function foretell({ model, arena }: World, walks: readonly Walk[]): Foretold[] {
  const foretold: Foretold[] = [];
  for (const walk of walks) {
    const room = walk.writable.reduce((sum, { length }) => sum + length, 0);
    const outcome = walk.broken === null ? model.request(arena.gather(walk.readable), room) : null;
    foretold.push({ walk, outcome });
    if (outcome === null) break;
    if (outcome.data !== null) arena.expect(walk.writable, outcome.data);
    const last = walk.writable.findLast(({ length }) => length > 0) ?? fail('no room for a status');
    arena.shadow[last.at + last.length - 1] = outcome.status;
  }
  return foretold;
}

/** Whether what the device writes is read by it too, or written twice: then the outcome depends on the order. */
function tangledInMemory({ ring }: World, walks: readonly Walk[]): boolean {
  const { descriptor, used, available } = ring.places;
  const end = Math.max(used + 6 + 8 * ring.size, available + 6 + 2 * ring.size);
  const read: Piece[] = [];
  const written: Piece[] = [];
  const ids = new Set<number>();
  for (const { readable, tables, writable, id } of walks) {
    read.push(...readable, ...tables);
    written.push(...writable);
    ids.add(id);
  }
  if (ids.size < walks.length || overlaps(ring.deviceAreas, read)) return true;
  read.push({ at: descriptor, length: end - descriptor });
  return overlaps(written, read);
}

/** The same on a disk that does its requests in any order. */
function tangledOnDisk(foretold: readonly Foretold[]): boolean {
  const written: Extent[] = [];
  const read: Extent[] = [];
  for (const { outcome } of foretold) {
    written.push(...(outcome?.wrote ?? []));
    read.push(...(outcome?.read ?? []));
  }
  return overlaps(written, read);
}

/** All chains are given back, and every byte of memory is as foretold. */
function checkServed(world: World, foretold: readonly Foretold[]): void {
  const { frontend, ring, arena } = world;
  if (world.sharing.rings(frontend.err) > 0) {
    fail(`a sound ring was broken: ${world.device.brokenBy}`);
  }
  const given = ring.collect().map(({ id, written }) => `${id}: ${written}`);
  const expected = foretold.map(({ walk, outcome }) => `${walk.id}: ${outcome?.written}`);
  if (given.toSorted().join() !== expected.toSorted().join()) {
    fail(`given back: ${given.join(', ')}; expected: ${expected.join(', ')}`);
  }
  arena.pardon(ring.deviceAreas);
  arena.compare();
}

/** None of the batch is given back, the front-end is told, and after a reset the device serves again. */
function checkBroken(world: World, foretold: readonly Foretold[]): void {
  const { frontend, ring, arena } = world;
  const why = foretold.at(-1)?.walk.broken ?? 'no request';
  if (world.sharing.rings(frontend.err) === 0) fail(`the ring should be broken: ${why}`);
  if ((frontend.status() & NEEDS_RESET) === 0) fail('broken, and no DEVICE_NEEDS_RESET');
  if (ring.collect().length > 0) fail('a broken ring was published');
  arena.pardon(ring.deviceAreas);
  // Chains before the one that broke it: their requests are carried out, and perhaps answered.
  for (const { walk } of foretold) arena.pardon(walk.writable);
  arena.compare();
  world.reset(true);
  chains.servedAfterReset += 1;
}

function checkDisk({ store, model }: World): void {
  const content = store.read();
  if (Buffer.compare(content, model.disk) === 0) return;
  const at = content.findIndex((byte, i) => byte !== model.disk[i]);
  fail(`byte ${at} of the disk is ${content[at]}, not ${model.disk[at]}`);
}

/** Too tangled to be foretold: it must be served or broken, and the guest's memory be all that is touched. */
function tangled(world: World): void {
  const { frontend, arena, model, store } = world;
  chains.tangled += 1;
  frontend.notify();
  world.settle();
  arena.compareGuards();
  const broken = world.sharing.rings(frontend.err) > 0;
  if (broken !== ((frontend.status() & NEEDS_RESET) !== 0)) fail('broken, or not?');
  model.disk.set(store.read());
  world.reset(true);
  if (broken) chains.servedAfterReset += 1;
}

/**
 * Something of the front-end's own while requests are in flight: all of them are done before it is. True: the device
 * is reset then.
 */
function disturb(world: World): boolean {
  const { frontend, prng, arena, ring } = world;
  const fds = arena.regions.map(() => arena.fd);
  const more = { guestAddress: 2 ** 40, sizeBytes: 4096, userAddress: 2 ** 44, mmapOffset: 0 };
  switch (prng.below(7)) {
    case 0:
      frontend.tell(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(arena.regions), fds);
      break;
    case 1:
      frontend.tell(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(more), [arena.fd]);
      frontend.tell(VHOST_USER.REM_MEM_REG, encodeSingleRegion(more));
      break;
    case 2: {
      const base = frontend.base();
      if (base !== ring.base) fail(`the ring is at ${base}, not ${ring.base}`);
      frontend.tell(VHOST_USER.SET_VRING_BASE, frontend.state(base));
      frontend.startKick();
      break;
    }
    case 3:
      frontend.tell(VHOST_USER.SET_VRING_ENABLE, frontend.state(0));
      frontend.tell(VHOST_USER.SET_VRING_ENABLE, frontend.state(1));
      break;
    case 4:
      world.reconnect();
      if (world.store.waiting > 0) fail('the connection ended with requests in flight');
      world.begin();
      break;
    case 5:
      world.frontend.backend.shutdown();
      world.settle();
      world.reconnect();
      world.begin();
      break;
    default:
      // The driver's last words before it resets the device; its requests are done, then it begins anew.
      frontend.send(VHOST_USER.SET_STATUS, encodeU64(0));
      return true;
  }
  return false;
}
