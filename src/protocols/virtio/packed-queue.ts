import { assert } from '../../base/assert.ts';
import { ProtocolError } from '../../base/errors.ts';
import { ChainReader } from './chain-reader.ts';
import type { Place } from './guest-memory.ts';
import { PackedInflight } from './inflight-packed.ts';
import { MAX_QUEUE_SIZE, MAX_USED_LENGTH } from './limits.ts';
import {
  DESCRIPTOR_BYTES,
  RING_EVENT_FLAGS,
  VIRTQ_DESC_F,
  VIRTQ_PACKED_DESC_F as OWNER,
} from './virtio.ts';
import { Chain } from './virtqueue.ts';
import type { QueueOptions, Virtqueue } from './virtqueue.ts';

const OWNERS = OWNER.AVAIL | OWNER.USED;

/** Words of 32 and of 16 bits in a descriptor, and the places of fields among the latter [virtio 2.8.13]. */
const WORDS = DESCRIPTOR_BYTES / 4;
const HALVES = DESCRIPTOR_BYTES / 2;
const ID = 6;
const FLAGS = 7;

/** Ring alignment in bytes [virtio 2.8.10.1]. */
export const PACKED_ALIGNMENT = { descriptors: 16, eventSuppression: 4 } as const;

/** Bytes of the event suppression structure [virtio 2.8.14]. */
export const EVENT_SUPPRESSION_BYTES = 4;

/**
 * The device's side of a packed virtqueue [virtio 2.8]. One ring for both directions: whose a descriptor is, its flags
 * AVAIL and USED say together with a wrap counter that changes with every round.
 *
 * The slots from the used index to the available index are the device's; used descriptors overwrite them from the front.
 * Of a batch, the first one's flags are stored last: the driver looks nowhere else, so it sees the batch whole.
 */
export class PackedQueue implements Virtqueue {
  readonly size: number;
  inFlight = 0;
  readonly #reader: ChainReader;
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;
  /** Event suppression structures as one word: offset and wrap counter below, flags above. */
  readonly #driverEvent: Int32Array;
  readonly #deviceEvent: Int32Array;
  readonly #eventIdx: boolean;
  readonly #inflight: PackedInflight | null;

  /** The next descriptor to take, and the owner flags that it has when it is available. */
  #avail: number;
  #available: number;
  /** Slots that the driver may have made available: neither taken nor, if given back, unpublished. */
  #free: number;
  /** Where the next used descriptor is written, and the device's ring wrap counter. */
  #used: number;
  #usedWrap: number;

  /** The batch that is not published yet: its first descriptor, that one's flags, its slots, its in-flight entries. */
  #first: number;
  #firstWrap: number;
  #firstFlags = 0;
  #moved = 0;
  readonly #batch: Uint16Array;
  #batchLength = 0;

  /** Entries of chains that an earlier process left, newest first. */
  readonly #left: number[];
  /** Slots of the ring that they take. */
  #leftSlots: number;
  readonly #pool: Chain[] = [];

  /** Throws a ProtocolError when the queue cannot be served as it is set up. */
  constructor(options: QueueOptions) {
    const { size, base } = options;
    if (!Number.isInteger(size) || size < 1 || size > MAX_QUEUE_SIZE) {
      throw new ProtocolError(`a packed queue of ${size} entries`, 'virtio 2.8');
    }
    this.size = size;
    this.#reader = new ChainReader(options.memory, size, options.indirect);
    const ring = options.descriptors;
    const { buffer } = ring.region.bytes;
    const start = checked(ring, size * DESCRIPTOR_BYTES, PACKED_ALIGNMENT.descriptors);
    this.#words = new Uint32Array(buffer, start, size * WORDS);
    this.#halves = new Uint16Array(buffer, start, size * HALVES);
    this.#driverEvent = eventOf(options.driver);
    this.#deviceEvent = eventOf(options.device);
    this.#eventIdx = options.eventIdx;

    // [vhost-user "SET_VRING_BASE"]
    this.#avail = base & 0x7fff;
    let availWrap = (base >>> 15) & 1;
    this.#used = (base >>> 16) & 0x7fff;
    this.#usedWrap = (base >>> 31) & 1;
    if (this.#avail >= size || this.#used >= size) {
      throw new ProtocolError('the base lies outside of the ring', 'vhost-user "SET_VRING_BASE"');
    }
    let taken = this.#distance(this.#used, this.#usedWrap, this.#avail, availWrap);
    this.#inflight = null;
    this.#left = [];
    this.#leftSlots = 0;
    if (options.inflight !== null) {
      const { inflight } = options;
      const left = new PackedInflight(inflight, size, this.#halves, this.#used, this.#usedWrap);
      this.#inflight = left;
      this.#left = left.left.toReversed();
      taken = left.leftSlots;
      this.#leftSlots = taken;
      this.#used = left.usedIndex;
      this.#usedWrap = left.usedWrap;
      this.#avail = (this.#used + taken) % size;
      availWrap = this.#used + taken < size ? this.#usedWrap : this.#usedWrap ^ 1;
    }
    if (taken > size) {
      throw new ProtocolError('the base lies beyond a full ring', 'vhost-user "SET_VRING_BASE"');
    }
    this.#available = availWrap === 1 ? OWNER.AVAIL : OWNER.USED;
    this.#free = size - taken;
    this.#first = this.#used;
    this.#firstWrap = this.#usedWrap;
    this.#batch = new Uint16Array(this.#inflight === null ? 0 : size);
    if (this.#inflight !== null) this.#unmark(taken);
  }

  get ready(): boolean {
    if (this.#left.length > 0) return true;
    const flags = Atomics.load(this.#halves, this.#avail * HALVES + FLAGS);
    return (flags & OWNERS) === this.#available;
  }

  get base(): number {
    const availWrap = this.#available === OWNER.AVAIL ? 1 : 0;
    const avail = this.#avail | (availWrap << 15);
    return (avail | (this.#used << 16) | (this.#usedWrap << 31)) >>> 0;
  }

  take(): Chain | null {
    if (this.#left.length > 0) return this.#takeLeft();
    // Before anything else of the chain: the driver stores these flags last [virtio 2.8.6, 2.8.21.1].
    const flags = Atomics.load(this.#halves, this.#avail * HALVES + FLAGS);
    if ((flags & OWNERS) !== this.#available) return null;
    if (this.#free === 0) throw broken('a descriptor is available in a full ring', '2.8.16');
    const chain = this.#pool.pop() ?? new Chain();
    this.#reader.begin(chain);
    chain.tag = this.#inflight === null ? 0 : this.#inflight.begin();
    this.#readChain(chain, flags);
    this.inFlight += 1;
    return chain;
  }

  give(chain: Chain, written: number): void {
    assert(this.inFlight > 0, 'a chain given back twice');
    assert(written <= chain.writable.totalBytes, 'more written than there was room');
    this.inFlight -= 1;
    const slot = this.#used;
    const half = slot * HALVES;
    this.#words[slot * WORDS + 2] = Math.min(written, MAX_USED_LENGTH);
    this.#halves[half + ID] = chain.id;
    // AVAIL and USED both as the wrap counter [virtio 2.8.1]; WRITE: the length counts [virtio 2.8.3].
    let flags = this.#usedWrap === 1 ? OWNERS : 0;
    if (written > 0) flags |= VIRTQ_DESC_F.WRITE;
    if (this.#moved === 0) this.#firstFlags = flags;
    else this.#halves[half + FLAGS] = flags;
    if (this.#inflight !== null) {
      this.#batch[this.#batchLength] = chain.tag;
      this.#batchLength += 1;
    }
    // The driver skips as many slots as the chain has taken [virtio 2.8.6].
    this.#moved += chain.slots;
    let next = slot + chain.slots;
    if (next >= this.size) {
      next -= this.size;
      this.#usedWrap ^= 1;
    }
    this.#used = next;
    this.#pool.push(chain);
  }

  publish(): boolean {
    const moved = this.#moved;
    if (moved === 0) return false;
    const first = this.#first;
    const at = first * HALVES + FLAGS;
    if (this.#inflight === null) Atomics.store(this.#halves, at, this.#firstFlags);
    else this.#publishTracked(this.#inflight, at);
    this.#free += moved;
    this.#moved = 0;
    const interrupt = this.#interruptWanted(first, this.#firstWrap, moved);
    this.#first = this.#used;
    this.#firstWrap = this.#usedWrap;
    return interrupt;
  }

  enableNotify(): boolean {
    let event: number = RING_EVENT_FLAGS.ENABLE << 16;
    if (this.#eventIdx) {
      const wrap = this.#available === OWNER.AVAIL ? 1 : 0;
      event = (RING_EVENT_FLAGS.DESC << 16) | (wrap << 15) | this.#avail;
    }
    // A full fence: the driver sees this, or we see what it made available before it looked.
    Atomics.store(this.#deviceEvent, 0, event);
    return this.ready;
  }

  disableNotify(): void {
    // Only a hint, so plain.
    this.#deviceEvent[0] = RING_EVENT_FLAGS.DISABLE << 16;
  }

  /** Copies a chain out of the ring, from its head whose flags are given; `#avail` moves on when all of it is sound. */
  #readChain(chain: Chain, headFlags: number): void {
    const words = this.#words;
    const halves = this.#halves;
    const inflight = this.#inflight;
    let slot = this.#avail;
    let available = this.#available;
    let flags = headFlags;
    let count = 0;
    for (;;) {
      const word = slot * WORDS;
      const low = words[word] as number;
      const high = words[word + 1] as number;
      const length = words[word + 2] as number;
      const id = halves[slot * HALVES + ID] as number;
      const last = (flags & VIRTQ_DESC_F.NEXT) === 0;
      count += 1;
      this.#addBuffers(chain, low, high, length, flags, count);
      if (inflight !== null) inflight.add(low, high, length, id, flags, last);
      slot += 1;
      if (slot === this.size) {
        slot = 0;
        available ^= OWNERS;
      }
      if (last) {
        // The last descriptor has the buffer id [virtio 2.8.6].
        chain.id = id;
        break;
      }
      if (count === this.#free) throw broken('a chain has no end within the ring', '2.8.17');
      flags = halves[slot * HALVES + FLAGS] as number;
      // Every descriptor must have been seen to change [virtio 2.8.15], and a chain is complete when its head is
      // available [virtio 2.8.17].
      if ((flags & OWNERS) !== available) throw broken('a chain is not all available', '2.8.17');
    }
    chain.slots = count;
    this.#free -= count;
    this.#avail = slot;
    this.#available = available;
  }

  /** Adds the buffers of one descriptor of the ring, the `count`th of its chain. */
  #addBuffers(
    chain: Chain,
    low: number,
    high: number,
    length: number,
    flags: number,
    count: number,
  ): void {
    if ((flags & VIRTQ_DESC_F.INDIRECT) === 0) {
      this.#reader.buffer(chain, low, high, length, flags);
      return;
    }
    if (count > 1 || (flags & VIRTQ_DESC_F.NEXT) !== 0) {
      throw broken('an indirect table is linked to other descriptors', '2.8.19');
    }
    this.#reader.packedTable(chain, low, high, length);
  }

  /** Takes the oldest chain that an earlier process has left, from where that saved its descriptors. */
  #takeLeft(): Chain {
    const inflight = this.#inflight as PackedInflight;
    let entry = this.#left.at(-1) as number;
    const chain = this.#pool.pop() ?? new Chain();
    this.#reader.begin(chain);
    chain.tag = entry;
    chain.slots = inflight.num(entry);
    // They were checked at the start, but the region is the front-end's too.
    if (chain.slots < 1 || chain.slots > this.#leftSlots) throw changed();
    for (let count = 1; count <= chain.slots; count += 1) {
      if (count > 1) entry = inflight.next(entry);
      if (entry >= this.size) throw changed();
      const low = inflight.low(entry);
      const high = inflight.high(entry);
      this.#addBuffers(chain, low, high, inflight.length(entry), inflight.flags(entry), count);
    }
    chain.id = inflight.id(entry);
    this.#leftSlots -= chain.slots;
    this.#left.pop();
    this.inFlight += 1;
    return chain;
  }

  /** Publishes a batch by the steps of [vhost-user "Inflight I/O tracking"]. `at`: where the flags go. */
  #publishTracked(inflight: PackedInflight, at: number): void {
    const batch = this.#batch;
    const length = this.#batchLength;
    inflight.beginBatch();
    for (let i = 0; i < length; i += 1) inflight.free(batch[i] as number);
    inflight.advance(this.#used, this.#usedWrap);
    Atomics.store(this.#halves, at, this.#firstFlags);
    for (let i = 0; i < length; i += 1) inflight.clear(batch[i] as number);
    inflight.settle();
    this.#batchLength = 0;
  }

  /**
   * Whether the driver asked to be told of used descriptors in the `moved` slots from `first` on [virtio 2.8.10]. Called
   * after the atomic store that published them, which is the fence between the two. When in doubt, it did.
   */
  #interruptWanted(first: number, firstWrap: number, moved: number): boolean {
    const event = Atomics.load(this.#driverEvent, 0);
    const flags = (event >>> 16) & 3;
    if (flags === RING_EVENT_FLAGS.DISABLE) return false;
    if (flags !== RING_EVENT_FLAGS.DESC || !this.#eventIdx) return true;
    const offset = event & 0x7fff;
    if (offset >= this.size) return true;
    return this.#distance(first, firstWrap, offset, (event >>> 15) & 1) < moved;
  }

  /** Slots from one position to another, in a round of twice the ring: with the wrap counters no two are alike. */
  #distance(from: number, fromWrap: number, to: number, toWrap: number): number {
    const distance = to - from + (fromWrap === toWrap ? 0 : this.size);
    return distance < 0 ? distance + 2 * this.size : distance;
  }

  /**
   * A process that died while it published a batch has marked descriptors behind the batch's first one as used. The driver
   * would come across them later, after the first one is used by itself; so they are marked as available again.
   */
  #unmark(taken: number): void {
    let slot = this.#used;
    let used = this.#usedWrap === 1 ? OWNERS : 0;
    for (let i = 0; i < taken; i += 1) {
      const at = slot * HALVES + FLAGS;
      const flags = this.#halves[at] as number;
      if ((flags & OWNERS) === used) this.#halves[at] = flags ^ OWNER.USED;
      slot += 1;
      if (slot === this.size) {
        slot = 0;
        used ^= OWNERS;
      }
    }
  }
}

/** Byte offset of a place in its buffer. Throws a ProtocolError when it is not aligned [virtio 2.8.10.1]. */
function checked(place: Place, length: number, alignment: number): number {
  const { bytes } = place.region;
  assert(place.start + length <= bytes.length, 'a ring reaches out of its region');
  const start = bytes.byteOffset + place.start;
  if (start % alignment !== 0) {
    throw new ProtocolError('a part of the queue is not aligned', 'virtio 2.8.10.1');
  }
  return start;
}

function eventOf(place: Place): Int32Array {
  const start = checked(place, EVENT_SUPPRESSION_BYTES, PACKED_ALIGNMENT.eventSuppression);
  return new Int32Array(place.region.bytes.buffer, start, 1);
}

function changed(): ProtocolError {
  const spec = 'vhost-user "Inflight I/O tracking"';
  return new ProtocolError('the in-flight region has changed since it was checked', spec);
}

function broken(message: string, section: string): ProtocolError {
  return new ProtocolError(message, `virtio ${section}`);
}
