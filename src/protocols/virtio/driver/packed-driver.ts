import { assert } from '../../../base/assert.ts';
import { ProtocolError } from '../../../base/errors.ts';
import type { Place } from '../guest-memory.ts';
import { EVENT_SUPPRESSION_BYTES, PACKED_ALIGNMENT } from '../packed-queue.ts';
import {
  DESCRIPTOR_BYTES,
  RING_EVENT_FLAGS,
  VIRTQ_DESC_F,
  VIRTQ_PACKED_DESC_F as OWNER,
} from '../virtio.ts';
import type { DriverMemory } from './driver-memory.ts';
import type { Buffer, DriverQueue, Used } from './driver-queue.ts';

/** Where the parts of a packed queue lie [virtio 2.8.10.1]. */
export interface PackedPlaces {
  readonly descriptors: Place;
  /** Driver event suppression. */
  readonly driver: Place;
  /** Device event suppression. */
  readonly device: Place;
}

export interface PackedDriverOptions {
  readonly memory: DriverMemory;
  /** Entries, any number up to 32768. */
  readonly size: number;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** The most buffers of a chain in an indirect table; 0, the default, without VIRTIO_F_INDIRECT_DESC. */
  readonly tableEntries?: number;
  /** Where the parts lie, zeroed. Allocated in `memory` unless given. */
  readonly places?: PackedPlaces;
}

const WORD = 2 ** 32;
const OWNERS = OWNER.AVAIL | OWNER.USED;
/** Of a descriptor, in words of 32 and of 16 bits. */
const WORDS = DESCRIPTOR_BYTES / 4;
const HALVES = DESCRIPTOR_BYTES / 2;
const ID = 6;
const FLAGS = 7;

/**
 * The driver's side of a packed virtqueue [virtio 2.8]. Tokens are buffer ids. Nothing is allocated per chain: what `take`
 * returns is the same object each time.
 */
export class PackedDriver implements DriverQueue {
  readonly size: number;
  /** Where the parts lie, for the device's QueueOptions. */
  readonly places: PackedPlaces;
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;
  readonly #driverEvent: Int32Array;
  readonly #deviceEvent: Int32Array;
  readonly #eventIdx: boolean;
  readonly #tableEntries: number;
  /** The guest address of the first indirect table, one for each buffer id, and where it lies. */
  readonly #tables: number;
  readonly #tablesStart: number;
  readonly #view: DataView;

  /** The next slot to fill, and the driver ring wrap counter. */
  #avail = 0;
  #availWrap = 1;
  /** The batch that is not published yet: its first slot, that one's flags, its slots. */
  #first = 0;
  #firstWrap = 1;
  #firstFlags = 0;
  #moved = 0;
  /** Where the device writes next, and its wrap counter there. */
  #used = 0;
  #usedWrap = 1;
  #freeSlots: number;
  /** A stack of buffer ids. */
  readonly #freeIds: Uint16Array;
  #freeIdCount: number;
  /** By id: slots of the chain, 0 when there is none; and how many bytes the device may write. */
  readonly #slots: Uint16Array;
  readonly #writable: Float64Array;
  readonly #result = { token: 0, written: 0 };
  #inFlight = 0;

  constructor(options: PackedDriverOptions) {
    const { memory, size, eventIdx } = options;
    this.places = options.places ?? layOut(memory, size);
    this.size = size;
    const { region, start } = this.places.descriptors;
    const { buffer, byteOffset } = region.bytes;
    this.#words = new Uint32Array(buffer, byteOffset + start, size * WORDS);
    this.#halves = new Uint16Array(buffer, byteOffset + start, size * HALVES);
    this.#driverEvent = eventOf(this.places.driver);
    this.#deviceEvent = eventOf(this.places.device);
    this.#eventIdx = eventIdx;
    this.#tableEntries = options.tableEntries ?? 0;
    const tableBytes = size * this.#tableEntries * DESCRIPTOR_BYTES;
    this.#tables = tableBytes === 0 ? memory.guestAddress : memory.allocate(tableBytes).address;
    this.#tablesStart = memory.placeOf(this.#tables).start;
    this.#view = memory.region.view;
    this.#freeSlots = size;
    this.#freeIds = new Uint16Array(size).map((_, index) => size - 1 - index);
    this.#freeIdCount = size;
    this.#slots = new Uint16Array(size);
    this.#writable = new Float64Array(size);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  add(readable: readonly Buffer[], writable: readonly Buffer[], indirect: boolean): number {
    const count = readable.length + writable.length;
    assert(count > 0, 'a chain has at least one buffer');
    assert(count <= (indirect ? this.#tableEntries : this.size), 'a chain has too many buffers');
    const slots = indirect ? 1 : count;
    if (slots > this.#freeSlots) return -1;
    this.#freeIdCount -= 1;
    const id = this.#freeIds[this.#freeIdCount] as number;
    if (indirect) this.#addTable(id, readable, writable);
    else this.#addDirect(id, readable, writable);
    let room = 0;
    for (const { length } of writable) room += length;
    this.#writable[id] = room;
    this.#slots[id] = slots;
    this.#freeSlots -= slots;
    this.#inFlight += 1;
    return id;
  }

  publish(): boolean {
    const moved = this.#moved;
    if (moved === 0) return false;
    const first = this.#first;
    // The device polls this one descriptor and sees the whole batch with it [virtio 2.8.2]. A full fence on both sides
    // [virtio 2.8.21.1.1, 2.8.21.3.1].
    Atomics.store(this.#halves, first * HALVES + FLAGS, this.#firstFlags);
    this.#moved = 0;
    const event = Atomics.load(this.#deviceEvent, 0);
    const flags = (event >>> 16) & 3;
    if (flags !== RING_EVENT_FLAGS.DESC) return flags !== RING_EVENT_FLAGS.DISABLE;
    let distance = (event & 0x7fff) - first;
    if (((event >>> 15) & 1) !== this.#firstWrap) distance += this.size;
    if (distance < 0) distance += 2 * this.size;
    return distance < moved;
  }

  /** Throws a ProtocolError when the device gives back what it does not have, or has written more than there is. */
  take(): Used | null {
    if (!this.#isUsed()) return null;
    const half = this.#used * HALVES;
    const id = this.#halves[half + ID] as number;
    const slots = this.#slots[id] ?? 0;
    if (slots === 0) {
      throw new ProtocolError('the device gave back a chain that it does not have', 'virtio 2.8.6');
    }
    // The length counts only with WRITE [virtio 2.8.4].
    const wrote = ((this.#halves[half + FLAGS] as number) & VIRTQ_DESC_F.WRITE) !== 0;
    const written = wrote ? (this.#words[this.#used * WORDS + 2] as number) : 0;
    if (written > (this.#writable[id] as number)) {
      throw new ProtocolError('the device wrote more than there was room for', 'virtio 2.8.4');
    }
    this.#slots[id] = 0;
    this.#freeIds[this.#freeIdCount] = id;
    this.#freeIdCount += 1;
    this.#freeSlots += slots;
    this.#inFlight -= 1;
    this.#used += slots;
    if (this.#used >= this.size) {
      this.#used -= this.size;
      this.#usedWrap ^= 1;
    }
    this.#result.token = id;
    this.#result.written = written;
    return this.#result;
  }

  enableInterrupts(): boolean {
    let event: number = RING_EVENT_FLAGS.ENABLE << 16;
    if (this.#eventIdx) {
      event = (RING_EVENT_FLAGS.DESC << 16) | (this.#usedWrap << 15) | this.#used;
    }
    Atomics.store(this.#driverEvent, 0, event);
    return this.#isUsed();
  }

  disableInterrupts(): void {
    this.#driverEvent[0] = RING_EVENT_FLAGS.DISABLE << 16;
  }

  #isUsed(): boolean {
    // A slot in flight changes owner once. What is not in flight may look as it likes.
    if (this.#inFlight === 0) return false;
    const flags = Atomics.load(this.#halves, this.#used * HALVES + FLAGS);
    return (flags & OWNERS) === (this.#usedWrap === 1 ? OWNERS : 0);
  }

  /** Fills slots; all have the id, though only the last one's counts [virtio 2.8.6]. */
  #addDirect(id: number, readable: readonly Buffer[], writable: readonly Buffer[]): void {
    const count = readable.length + writable.length;
    for (let i = 0; i < count; i += 1) {
      const isReadable = i < readable.length;
      const buffer = (isReadable ? readable[i] : writable[i - readable.length]) as Buffer;
      let flags = isReadable ? 0 : VIRTQ_DESC_F.WRITE;
      if (i + 1 < count) flags |= VIRTQ_DESC_F.NEXT;
      this.#fill(id, buffer.address, buffer.length, flags);
    }
  }

  /** Fills the indirect table of a buffer id, and a slot [virtio 2.8.7]. */
  #addTable(id: number, readable: readonly Buffer[], writable: readonly Buffer[]): void {
    const view = this.#view;
    const count = readable.length + writable.length;
    const skipped = id * this.#tableEntries * DESCRIPTOR_BYTES;
    let at = this.#tablesStart + skipped;
    for (let i = 0; i < count; i += 1) {
      const isReadable = i < readable.length;
      const buffer = (isReadable ? readable[i] : writable[i - readable.length]) as Buffer;
      view.setUint32(at, buffer.address % WORD, true);
      view.setUint32(at + 4, Math.floor(buffer.address / WORD), true);
      view.setUint32(at + 8, buffer.length, true);
      view.setUint16(at + 12, 0, true);
      view.setUint16(at + 14, isReadable ? 0 : VIRTQ_DESC_F.WRITE, true);
      at += DESCRIPTOR_BYTES;
    }
    this.#fill(id, this.#tables + skipped, count * DESCRIPTOR_BYTES, VIRTQ_DESC_F.INDIRECT);
  }

  /** Fills the next slot, all but the flags if it is the first of a batch. */
  #fill(id: number, address: number, length: number, flags: number): void {
    const slot = this.#avail;
    const word = slot * WORDS;
    this.#words[word] = address % WORD;
    this.#words[word + 1] = Math.floor(address / WORD);
    this.#words[word + 2] = length;
    this.#halves[slot * HALVES + ID] = id;
    const all = flags | (this.#availWrap === 1 ? OWNER.AVAIL : OWNER.USED);
    if (this.#moved === 0) {
      this.#first = slot;
      this.#firstWrap = this.#availWrap;
      this.#firstFlags = all;
    } else {
      this.#halves[slot * HALVES + FLAGS] = all;
    }
    this.#moved += 1;
    this.#avail = slot + 1;
    if (this.#avail === this.size) {
      this.#avail = 0;
      this.#availWrap ^= 1;
    }
  }
}

/** Takes zeroed memory for the parts [virtio 2.8.13]. */
function layOut(memory: DriverMemory, size: number): PackedPlaces {
  const place = (bytes: number, alignment: number) => {
    const buffer = memory.allocate(bytes, alignment);
    memory.bytes(buffer).fill(0);
    return memory.placeOf(buffer.address);
  };
  const { descriptors, eventSuppression } = PACKED_ALIGNMENT;
  return {
    descriptors: place(size * DESCRIPTOR_BYTES, descriptors),
    driver: place(EVENT_SUPPRESSION_BYTES, eventSuppression),
    device: place(EVENT_SUPPRESSION_BYTES, eventSuppression),
  };
}

function eventOf({ region, start }: Place): Int32Array {
  return new Int32Array(region.bytes.buffer, region.bytes.byteOffset + start, 1);
}
