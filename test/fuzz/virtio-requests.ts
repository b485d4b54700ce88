import type { Prng } from '../../src/base/prng.ts';
import { SECTOR_BYTES, VIRTIO_BLK_T } from '../../src/protocols/virtio/blk.ts';
import { VIRTQ_DESC_F } from '../../src/protocols/virtio/virtio.ts';
import { type Arena, GUEST } from './virtio-arena.ts';
import { type HostileRing, RING_BYTES } from './virtio-rings.ts';
import { type Descriptor, type Form, writeDescriptor } from './virtio-walk.ts';

const { NEXT, WRITE, INDIRECT } = VIRTQ_DESC_F;

/** One chain's own stretch of guest memory and of the disk, so that chains of a batch do not meet unless they mean to. */
export interface Slot {
  readonly address: number;
  readonly bytes: number;
  readonly sector: number;
  readonly sectors: number;
}

/** What is known of the victim. */
export interface Target {
  readonly arena: Arena;
  readonly ring: HostileRing;
  readonly indirect: boolean;
  readonly capacity: number;
  readonly blockSectors: number;
  /** How likely each thing is to be wrong. 0: nothing is. */
  malice: number;
}

/** Chains of one batch at most. */
const SLOTS = 8;
const SLOT_BYTES = 9 * 1024;

/**
 * Divides guest memory behind the rings, and a disk. The last part has the border between two regions in it, if they are
 * joined.
 */
export function slotsOf(arena: Arena, capacity: number): Slot[] {
  const sectors = Math.floor(capacity / SLOTS);
  return Array.from({ length: SLOTS }, (_, i) => ({
    address: GUEST + RING_BYTES + i * SLOT_BYTES,
    bytes: i + 1 < SLOTS ? SLOT_BYTES : arena.end - GUEST - RING_BYTES - i * SLOT_BYTES,
    sector: i * sectors,
    sectors: Math.min(sectors, 16),
  })).filter(({ bytes }) => bytes >= SLOT_BYTES - 1024);
}

interface Request {
  readonly readable: Uint8Array;
  /** Device-writable bytes, the status among them. */
  readonly room: number;
}

const TYPES: readonly number[] = [
  ...Array.from({ length: 6 }, () => VIRTIO_BLK_T.IN),
  ...Array.from({ length: 6 }, () => VIRTIO_BLK_T.OUT),
  VIRTIO_BLK_T.FLUSH,
  VIRTIO_BLK_T.FLUSH_OUT,
  VIRTIO_BLK_T.GET_ID,
  VIRTIO_BLK_T.DISCARD,
  VIRTIO_BLK_T.DISCARD,
  VIRTIO_BLK_T.WRITE_ZEROES,
  VIRTIO_BLK_T.WRITE_ZEROES,
];
/** Where indirect tables lie in a slot, from its end. */
const TABLE_BYTES = 512;
const MOST_TABLE_ENTRIES = 12;

/** Puts one chain into the ring: mostly sound, with one thing or several wrong. False: the ring is full. */
export function offerChain(prng: Prng, target: Target, slot: Slot): boolean {
  const { ring, indirect } = target;
  if (ring.room === 0) return false;
  const table = indirect && prng.chance(0.5);
  const most = table ? MOST_TABLE_ENTRIES : Math.min(ring.room, 8);
  // Header and status are two buffers at least, unless the chain is broken anyway.
  if (most < 2) return false;
  const request = makeRequest(prng, target, slot);
  const descriptors = cut(prng, target, slot, request, most);
  if (!table) {
    const places = ring.offer(descriptors);
    if (prng.chance(target.malice)) spoil(prng, target, prng.pick(places), ring.form);
    return true;
  }
  const address = slot.address + slot.bytes - TABLE_BYTES;
  writeTable(target, address, descriptors);
  const named = {
    address: BigInt(address),
    length: 16 * descriptors.length,
    flags: INDIRECT | (prng.chance(0.2) ? WRITE : 0),
    link: 0,
  };
  const places = ring.offer([named]);
  if (prng.chance(target.malice)) {
    const inside = prng.below(descriptors.length);
    const at = prng.chance(0.3) ? (places[0] as number) : target.arena.at(address + 16 * inside);
    spoil(prng, target, at, ring.form);
  }
  return true;
}

function writeTable(
  { arena, ring }: Target,
  address: number,
  entries: readonly Descriptor[],
): void {
  const { form } = ring;
  for (const [i, each] of entries.entries()) {
    const more = i + 1 < entries.length && !form.packed;
    const linked = more ? { ...each, flags: each.flags | NEXT, link: i + 1 } : each;
    writeDescriptor(arena, arena.at(address + 16 * i), form, linked);
  }
}

function makeRequest(prng: Prng, target: Target, slot: Slot): Request {
  const wild = prng.chance(target.malice);
  let type = wild && prng.chance(0.2) ? wildType(prng) : prng.pick(TYPES);
  const range = type === VIRTIO_BLK_T.DISCARD || type === VIRTIO_BLK_T.WRITE_ZEROES;
  const payload = range
    ? makeRanges(prng, target, slot, wild)
    : type === VIRTIO_BLK_T.OUT
      ? noise(prng, dataBytes(prng, target, wild))
      : new Uint8Array(prng.chance(0.03) ? prng.below(700) : 0);
  let room = 1;
  if (type === VIRTIO_BLK_T.IN) room += dataBytes(prng, target, wild);
  else if (type === VIRTIO_BLK_T.GET_ID) room += prng.pick([20, 20, 19, 0, 64]);
  else if (prng.chance(0.05)) room += prng.below(600);
  if (prng.chance(0.05)) type = (type | VIRTIO_BLK_T.BARRIER) >>> 0;
  const readable = new Uint8Array(16 + payload.length);
  const view = new DataView(readable.buffer);
  view.setUint32(0, type, true);
  if (prng.chance(0.1)) view.setUint32(4, prng.chance(0.8) ? 1 : prng.uint32(), true);
  view.setBigUint64(
    8,
    wild ? wildSector(prng, target) : BigInt(sectorIn(prng, target, slot)),
    true,
  );
  readable.set(payload, 16);
  return wild && prng.chance(0.1)
    ? { readable: readable.subarray(0, prng.below(20)), room: prng.below(2) * room }
    : { readable, room };
}

function sectorIn(prng: Prng, { blockSectors }: Target, slot: Slot): number {
  const first = slot.sector + prng.below(slot.sectors / 2);
  return first - (first % blockSectors);
}

function dataBytes(prng: Prng, { blockSectors }: Target, wild: boolean): number {
  const blocks = prng.pick([1, 1, 1, 2, blockSectors === 1 ? 5 : 1]);
  const bytes = blocks * blockSectors * SECTOR_BYTES;
  return wild && prng.chance(0.3) ? prng.pick([0, 1, 511, 513, bytes - 1, 512]) : bytes;
}

function wildType(prng: Prng): number {
  return prng.pick([2, 3, 6, 7, 9, 10, 12, 14, 15, 16, 18, 26, 0x7fffffff, prng.uint32()]);
}

function wildSector(prng: Prng, { capacity }: Target): bigint {
  const top = 2n ** 64n;
  return prng.pick([
    BigInt(capacity),
    BigInt(capacity - 1),
    BigInt(capacity + 1),
    top - 1n,
    top - BigInt(prng.below(64)),
    2n ** BigInt(prng.below(64)),
    // Times 512, these come back to the beginning if somebody counts in 64 or 53 bits.
    2n ** 55n + BigInt(prng.below(8)),
    2n ** 44n,
    BigInt(prng.below(capacity)),
  ]);
}

function makeRanges(prng: Prng, target: Target, slot: Slot, wild: boolean): Uint8Array {
  const count = wild ? prng.pick([0, 1, 2, 30]) : prng.pick([1, 1, 1, 2, 3]);
  const bytes = new Uint8Array(16 * count + (wild && prng.chance(0.2) ? prng.below(16) : 0));
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i += 1) {
    const odd = wild && prng.chance(0.3);
    const sector = odd ? wildSector(prng, target) : BigInt(sectorIn(prng, target, slot));
    const sectors = prng.pick([1, 1, 2, 0]) * target.blockSectors;
    view.setBigUint64(16 * i, sector, true);
    view.setUint32(
      16 * i + 8,
      odd ? prng.pick([sectors, 0, 2 ** 32 - 1, 2 ** 22 + 8]) : sectors,
      true,
    );
    view.setUint32(16 * i + 12, prng.chance(0.3) ? 1 : wild && prng.chance(0.2) ? 2 : 0, true);
  }
  return bytes;
}

/** Cuts a request into at most `most` buffers, anywhere, and lays them out in the slot. */
function cut(
  prng: Prng,
  { arena, malice }: Target,
  slot: Slot,
  { readable, room }: Request,
  most: number,
): Descriptor[] {
  const descriptors: Descriptor[] = [];
  let at = slot.address;
  const add = (length: number, flags: number): void => {
    // Without a gap buffers are joined; with one they are not.
    if (prng.chance(0.5)) at += 1 + prng.below(24);
    descriptors.push({ address: BigInt(at), length, flags, link: 0 });
    at += length;
  };
  const readablePieces = pieces(prng, readable.length, Math.max(1, Math.floor(most / 2)));
  let done = 0;
  for (const length of readablePieces) {
    add(length, 0);
    arena.write(at - length, readable.subarray(done, done + length));
    done += length;
  }
  for (const length of pieces(prng, room, Math.max(1, most - readablePieces.length))) {
    add(length, WRITE);
  }
  if (prng.chance(malice / 8) && descriptors.length > 1) descriptors.reverse();
  return descriptors;
}

/** A length as a sum of a few, zeroes among them. */
function pieces(prng: Prng, total: number, most: number): number[] {
  const lengths: number[] = [];
  let left = total;
  for (let more = prng.below(Math.min(most, 5)); more > 0; more -= 1) {
    const part = prng.chance(0.15) ? prng.below(2) : prng.below(left + 1);
    const length = Math.min(part, left);
    lengths.push(length);
    left -= length;
  }
  lengths.push(left);
  return lengths;
}

/** Breaks one descriptor, wherever it lies. */
export function spoil(prng: Prng, { arena, ring }: Target, at: number, form: Form): void {
  const { view } = arena;
  const length = view.getUint32(at + 8, true);
  switch (prng.below(5)) {
    case 0:
      view.setBigUint64(at, wildAddress(prng, arena, view.getBigUint64(at, true)), true);
      break;
    case 1:
      view.setUint32(at + 8, wildLength(prng, length) >>> 0, true);
      break;
    case 2: {
      const flags = view.getUint16(at + form.flagsAt, true);
      view.setUint16(at + form.flagsAt, flags ^ (1 << prng.below(prng.chance(0.8) ? 3 : 16)), true);
      break;
    }
    case 3:
      view.setUint16(
        at + form.linkAt,
        prng.pick([
          prng.below(ring.size),
          ring.size,
          0xffff,
          0,
          view.getUint16(at + form.linkAt, true),
        ]),
        true,
      );
      break;
    default:
      for (let i = 0; i < 16; i += 1) if (prng.chance(0.3)) arena.bytes[at + i] = prng.below(256);
  }
}

/** Changes something that a device may just be reading: descriptors, indices, tables, headers, anything. */
export function rewrite(prng: Prng, target: Target, slots: readonly Slot[]): void {
  const { arena, ring } = target;
  const first = arena.regions[0]?.at ?? 0;
  const among = (): number => first + 16 * prng.below(RING_BYTES / 16);
  switch (prng.below(6)) {
    case 0:
      spoil(prng, target, ring.table + 16 * prng.below(ring.size), ring.form);
      break;
    case 1: {
      const slot = prng.pick(slots);
      spoil(prng, target, arena.at(slot.address + 16 * prng.below(slot.bytes / 32)), ring.form);
      break;
    }
    case 2:
      arena.view.setUint16(ring.places.available + 2 * prng.below(4), prng.below(300), true);
      break;
    case 3: {
      // What was there once fits better than noise.
      const from = among();
      arena.bytes.copyWithin(among(), from, from + 16);
      break;
    }
    case 4: {
      const slot = prng.pick(slots);
      const at = arena.at(
        slot.address + slot.bytes - TABLE_BYTES + 16 * prng.below(MOST_TABLE_ENTRIES),
      );
      spoil(prng, target, at, ring.form);
      break;
    }
    default:
      arena.bytes[first + prng.below(arena.regions[0]?.sizeBytes ?? 1)] = prng.below(256);
  }
}

function wildLength(prng: Prng, length: number): number {
  return prng.pick([
    0,
    2 ** 32 - 1,
    2 ** 31,
    length - 1,
    length + 1,
    length + 512,
    16,
    8,
    2 ** 20 + 1,
  ]);
}

function wildAddress(prng: Prng, arena: Arena, address: bigint): bigint {
  const [first, second] = arena.regions;
  const end = BigInt(arena.end);
  return prng.pick([
    0n,
    BigInt(GUEST) - 1n,
    BigInt(GUEST),
    end,
    end - BigInt(1 + prng.below(20)),
    BigInt((first?.guestAddress ?? 0) + (first?.sizeBytes ?? 0) - prng.below(20)),
    BigInt(second?.guestAddress ?? 0),
    BigInt(first?.userAddress ?? 0),
    2n ** 64n - BigInt(1 + prng.below(1024)),
    (2n ** 63n) | address,
    (2n ** 53n) | address,
    2n ** 53n - 8n,
    address + 1n,
    address - 1n,
    address + 2n ** 32n,
    2n ** BigInt(prng.below(64)),
  ]);
}

function noise(prng: Prng, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  // Enough of it to tell one write from another.
  const step = prng.uint32() | 1;
  let value = prng.uint32();
  for (let i = 0; i < length; i += 1) {
    bytes[i] = value >>> 24;
    value = (value + step) >>> 0;
  }
  return bytes;
}
