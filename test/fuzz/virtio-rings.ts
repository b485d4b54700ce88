import type { Prng } from '../../src/base/prng.ts';
import { VIRTQ_DESC_F, VIRTQ_PACKED_DESC_F } from '../../src/protocols/virtio/virtio.ts';
import { fail } from './target.ts';
import type { Arena, Piece } from './virtio-arena.ts';
import {
  type Descriptor,
  type Form,
  PACKED,
  readDescriptor,
  SPLIT,
  Walk,
  writeDescriptor,
} from './virtio-walk.ts';

const { NEXT, INDIRECT } = VIRTQ_DESC_F;
const OWNERS = VIRTQ_PACKED_DESC_F.AVAIL | VIRTQ_PACKED_DESC_F.USED;

export interface RingOptions {
  readonly arena: Arena;
  readonly size: number;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
}

export interface Given {
  readonly id: number;
  readonly written: number;
}

/** Bytes at the start of the arena's first region that rings may take. */
export const RING_BYTES: number = 8 * 1024;
/** The largest queue whose parts fit there. */
export const MOST_ENTRIES = 256;

/**
 * A driver's side of a ring, and what the device has to make of it. The driver offers whole batches, and puts in what it
 * wants; `walk` reads the batch as a device may.
 */
export interface HostileRing {
  readonly form: Form;
  readonly size: number;
  /** Descriptors that this batch may still take. */
  readonly room: number;
  /** Where descriptors of the ring lie. */
  readonly table: number;
  /** As SET_VRING_ADDR has them: places in the arena. */
  readonly places: {
    readonly descriptor: number;
    readonly used: number;
    readonly available: number;
  };
  /** Where the device is, as SET_VRING_BASE says it. With nothing in flight. */
  readonly base: number;
  /** Written by the device whenever it likes. */
  readonly deviceAreas: readonly Piece[];
  /** All zeroes, as the driver of a device that was reset makes it. */
  clear(): void;
  /** Puts a chain in the ring. Returns where its descriptors lie in the arena. */
  offer(descriptors: readonly Descriptor[]): number[];
  /** Makes the batch available; `jump`: and an index that is wrong by this. */
  publish(prng: Prng, jump: number): void;
  /** The chains that the device must find, in order, up to one that breaks the ring. */
  walk(): Walk[];
  /** What the device has given back since the last call. */
  collect(): Given[];
}

/** [virtio 2.7] */
export class HostileSplit implements HostileRing {
  readonly form = SPLIT;
  readonly size: number;
  readonly places: {
    readonly descriptor: number;
    readonly used: number;
    readonly available: number;
  };
  readonly #arena: Arena;
  readonly #indirect: boolean;
  readonly #bytes: number;
  /** Descriptors of this batch, and its heads. */
  #taken = 0;
  #shift = 0;
  readonly #heads: number[] = [];
  /** The next available index, and the used index that the driver has seen. */
  #next = 0;
  #seen = 0;

  constructor({ arena, size, indirect }: RingOptions) {
    this.#arena = arena;
    this.size = size;
    this.#indirect = indirect;
    const descriptor = (arena.regions[0]?.at ?? 0) + 64;
    const available = descriptor + 16 * size;
    const used = Math.ceil((available + 6 + 2 * size) / 64) * 64;
    this.#bytes = used + 6 + 8 * size - descriptor;
    this.places = { descriptor, used, available };
  }

  get room(): number {
    return this.size - this.#taken;
  }

  get table(): number {
    return this.places.descriptor;
  }

  get base(): number {
    return this.#next;
  }

  get deviceAreas(): readonly Piece[] {
    return [{ at: this.places.used, length: 6 + 8 * this.size }];
  }

  clear(): void {
    const { descriptor } = this.places;
    this.#arena.bytes.fill(0, descriptor, descriptor + this.#bytes);
    this.#taken = 0;
    this.#heads.length = 0;
    this.#next = 0;
    this.#seen = 0;
  }

  offer(descriptors: readonly Descriptor[]): number[] {
    if (this.#taken === 0) this.#shift = (this.#shift * 5 + 3) % this.size;
    // Scattered, so that links matter. An odd factor reaches every entry once.
    const indices = descriptors.map((_, i) => ((this.#taken + i) * 5 + this.#shift) % this.size);
    this.#taken += descriptors.length;
    indices.forEach((index, i) => {
      const next = indices[i + 1];
      const each = descriptors[i] as Descriptor;
      const linked = next === undefined ? each : { ...each, flags: each.flags | NEXT, link: next };
      writeDescriptor(this.#arena, this.#entry(index), SPLIT, linked);
    });
    this.#heads.push(indices[0] as number);
    return indices.map((index) => this.#entry(index));
  }

  publish(prng: Prng, jump: number): void {
    const { view } = this.#arena;
    const { available } = this.places;
    this.#heads.forEach((head, i) => {
      const wild = prng.chance(0.004) ? prng.pick([this.size, 0xffff, this.#heads[0] ?? 0]) : head;
      view.setUint16(available + 4 + 2 * ((this.#next + i) % this.size), wild, true);
    });
    const next = this.#next + this.#heads.length + jump;
    view.setUint16(available, prng.chance(0.5) ? 0 : prng.below(0x10000), true);
    view.setUint16(available + 2, next & 0xffff, true);
    view.setUint16(available + 4 + 2 * this.size, prng.below(0x10000), true);
    this.#heads.length = 0;
    this.#taken = 0;
  }

  walk(): Walk[] {
    const { view } = this.#arena;
    const { available } = this.places;
    const count = (view.getUint16(available + 2, true) - this.#next) & 0xffff;
    const walks: Walk[] = [];
    const heads = new Set<number>();
    for (let i = 0; i < count; i += 1) {
      const walk = new Walk();
      walks.push(walk);
      if (count > this.size) walk.breaks(`${count} chains in a queue of ${this.size}`);
      else {
        walk.id = view.getUint16(available + 4 + 2 * (this.#next % this.size), true);
        if (walk.id >= this.size) walk.breaks(`head ${walk.id}`);
        else if (heads.has(walk.id)) walk.breaks(`head ${walk.id} twice`);
        else this.#walk(walk);
        heads.add(walk.id);
      }
      if (walk.broken !== null) return walks;
      this.#next = (this.#next + 1) & 0xffff;
    }
    return walks;
  }

  #walk(walk: Walk): void {
    const visited = new Set<number>();
    for (let index = walk.id; ;) {
      if (visited.has(index)) {
        walk.breaks('a loop');
        return;
      }
      visited.add(index);
      const each = readDescriptor(this.#arena, this.#entry(index), SPLIT);
      if ((each.flags & INDIRECT) !== 0) {
        if (!this.#indirect || (each.flags & NEXT) !== 0) walk.breaks('a table that may not be');
        else walk.table(this.#arena, each, SPLIT, this.size);
        return;
      }
      if (!walk.buffer(this.#arena, each) || (each.flags & NEXT) === 0) return;
      index = each.link;
      if (index >= this.size) {
        walk.breaks('a link out of the ring');
        return;
      }
    }
  }

  collect(): Given[] {
    const { view } = this.#arena;
    const { used } = this.places;
    const count = (view.getUint16(used + 2, true) - this.#seen) & 0xffff;
    if (count > this.size) fail(`the used index moved on by ${count}`);
    return Array.from({ length: count }, () => {
      const at = used + 4 + 8 * (this.#seen % this.size);
      this.#seen = (this.#seen + 1) & 0xffff;
      return { id: view.getUint32(at, true), written: view.getUint32(at + 4, true) };
    });
  }

  #entry(index: number): number {
    return this.places.descriptor + 16 * index;
  }
}

/** [virtio 2.8] */
export class HostilePacked implements HostileRing {
  readonly form = PACKED;
  readonly size: number;
  readonly places: {
    readonly descriptor: number;
    readonly used: number;
    readonly available: number;
  };
  readonly #arena: Arena;
  readonly #indirect: boolean;
  readonly #eventIdx: boolean;
  /** Where the driver writes next, and its wrap counter. */
  #write = 0;
  #writeWrap = 1;
  #taken = 0;
  #nextId = 0;
  /** Where the device reads next. */
  #next = 0;
  #wrap = 1;
  /** Where it gives back next, as the driver expects it. */
  #used = 0;
  #usedWrap = 1;
  /** Ring slots of chains under way, by buffer id, in the order they were taken. */
  readonly #slots: { id: number; slots: number }[] = [];

  constructor({ arena, size, indirect, eventIdx }: RingOptions) {
    this.#arena = arena;
    this.size = size;
    this.#indirect = indirect;
    this.#eventIdx = eventIdx;
    const descriptor = (arena.regions[0]?.at ?? 0) + 64;
    this.places = {
      descriptor,
      available: descriptor + 16 * size,
      used: descriptor + 16 * size + 4,
    };
  }

  get room(): number {
    return this.size - this.#taken;
  }

  get table(): number {
    return this.places.descriptor;
  }

  get base(): number {
    const next = this.#next | (this.#wrap << 15);
    return (next | (next << 16)) >>> 0;
  }

  get deviceAreas(): readonly Piece[] {
    const { descriptor, used } = this.places;
    return [
      { at: descriptor, length: 16 * this.size },
      { at: used, length: 4 },
    ];
  }

  clear(): void {
    const { descriptor, used } = this.places;
    this.#arena.bytes.fill(0, descriptor, used + 4);
    this.#taken = 0;
    this.#slots.length = 0;
    this.#write = 0;
    this.#next = 0;
    this.#used = 0;
    this.#writeWrap = 1;
    this.#wrap = 1;
    this.#usedWrap = 1;
  }

  offer(descriptors: readonly Descriptor[]): number[] {
    if (this.#taken === 0) {
      // Whatever the device made of the last batch, the next one begins where it looks.
      this.#write = this.#next;
      this.#writeWrap = this.#wrap;
    }
    this.#taken += descriptors.length;
    this.#nextId = (this.#nextId + 1) & 0xffff;
    return descriptors.map((each, i) => {
      const at = this.#entry(this.#write);
      const more = i + 1 < descriptors.length ? NEXT : 0;
      const flags = each.flags | more | available(this.#writeWrap);
      writeDescriptor(this.#arena, at, PACKED, { ...each, flags, link: this.#nextId });
      this.#write += 1;
      if (this.#write === this.size) {
        this.#write = 0;
        this.#writeWrap ^= 1;
      }
      return at;
    });
  }

  publish(prng: Prng, jump: number): void {
    const { view } = this.#arena;
    if (jump !== 0) {
      // What would be an index that is wrong: an owner that is wrong.
      const at = this.#entry(prng.below(this.size)) + PACKED.flagsAt;
      view.setUint16(at, view.getUint16(at, true) ^ prng.pick([0x80, 0x8000, 0x8080]), true);
    }
    const event = this.#eventIdx ? prng.uint32() : prng.below(2) << 16;
    view.setUint32(this.places.available, event, true);
    this.#taken = 0;
  }

  walk(): Walk[] {
    const walks: Walk[] = [];
    let free = this.size;
    for (;;) {
      const head = this.#read();
      if ((head.flags & OWNERS) !== available(this.#wrap)) return walks;
      const walk = new Walk();
      walks.push(walk);
      if (free === 0) walk.breaks('more than the ring holds');
      const slots = walk.broken === null ? this.#walk(walk, free) : 0;
      if (walk.broken !== null) return walks;
      free -= slots;
      this.#slots.push({ id: walk.id, slots });
    }
  }

  /** Moves on over the slots of one chain. Returns how many there are. */
  #walk(walk: Walk, free: number): number {
    for (let count = 1; ; count += 1) {
      const each = this.#read();
      if ((each.flags & OWNERS) !== available(this.#wrap)) {
        walk.breaks('a chain that is not all there');
        return 0;
      }
      const more = (each.flags & NEXT) !== 0;
      if ((each.flags & INDIRECT) !== 0) {
        if (!this.#indirect || count > 1 || more) walk.breaks('a table that may not be');
        else walk.table(this.#arena, each, PACKED, this.size);
      } else walk.buffer(this.#arena, each);
      if (more && count === free) walk.breaks('a chain without an end');
      if (walk.broken !== null) return 0;
      this.#next += 1;
      if (this.#next === this.size) {
        this.#next = 0;
        this.#wrap ^= 1;
      }
      walk.id = each.link;
      if (!more) return count;
    }
  }

  collect(): Given[] {
    const given: Given[] = [];
    for (;;) {
      const used = readDescriptor(this.#arena, this.#entry(this.#used), PACKED);
      if ((used.flags & OWNERS) !== (this.#usedWrap === 1 ? OWNERS : 0)) break;
      const index = this.#slots.findIndex(({ id }) => id === used.link);
      // Before anything was given: a ring of zeroes looks used to who has the other wrap counter.
      if (index === -1) break;
      const [{ slots } = { slots: 0 }] = this.#slots.splice(index, 1);
      given.push({ id: used.link, written: used.length });
      this.#used += slots;
      if (this.#used >= this.size) {
        this.#used -= this.size;
        this.#usedWrap ^= 1;
      }
    }
    return given;
  }

  #read(): Descriptor {
    return readDescriptor(this.#arena, this.#entry(this.#next), PACKED);
  }

  #entry(index: number): number {
    return this.places.descriptor + 16 * index;
  }
}

function available(wrap: number): number {
  return wrap === 1 ? VIRTQ_PACKED_DESC_F.AVAIL : VIRTQ_PACKED_DESC_F.USED;
}

export function makeRing(packed: boolean, options: RingOptions): HostileRing {
  return packed ? new HostilePacked(options) : new HostileSplit(options);
}
