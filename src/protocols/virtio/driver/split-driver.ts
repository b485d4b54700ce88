import { assert } from '../../../base/assert.ts';
import { ProtocolError } from '../../../base/errors.ts';
import { availableRingBytes, descriptorTableBytes, SPLIT_ALIGNMENT } from '../limits.ts';
import { usedRingBytes } from '../limits.ts';
import {
  passes,
  RING,
  splitRing,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../split-ring.ts';
import type { SplitPlaces, SplitRing } from '../split-ring.ts';
import { DESCRIPTOR_BYTES, VIRTQ_DESC_F } from '../virtio.ts';
import type { DriverMemory } from './driver-memory.ts';
import type { Buffer, DriverQueue, Used } from './driver-queue.ts';

export interface SplitDriverOptions {
  readonly memory: DriverMemory;
  /** Entries, a power of two. */
  readonly size: number;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** The most buffers of a chain in an indirect table; 0, the default, without VIRTIO_F_INDIRECT_DESC. */
  readonly tableEntries?: number;
  /** Where the rings lie, zeroed. Allocated in `memory` unless given. */
  readonly places?: SplitPlaces;
}

const WORD = 2 ** 32;
/** A descriptor that no chain uses, and the end of the list of those. */
const NONE = 0xffff;

/**
 * The driver's side of a split virtqueue [virtio 2.7]. Tokens are the heads of chains. Nothing is allocated per chain:
 * what `take` returns is the same object each time.
 */
export class SplitDriver implements DriverQueue {
  readonly size: number;
  /** Where the rings lie, for the device's QueueOptions. */
  readonly places: SplitPlaces;
  readonly #ring: SplitRing;
  readonly #eventIdx: boolean;
  readonly #mask: number;
  readonly #tableEntries: number;
  /** The guest address of the first indirect table, one for each descriptor, and where it lies. */
  readonly #tables: number;
  readonly #tablesStart: number;
  readonly #view: DataView;
  /** The links of all descriptors. The table's own are never read: the device may have changed them. */
  readonly #links: Uint16Array;
  #free = 0;
  #freeCount: number;
  /** By head: descriptors of the chain, 0 when there is none; and how many bytes the device may write. */
  readonly #lengths: Uint16Array;
  readonly #writable: Float64Array;
  /** The available ring's index with and without what is not yet published. */
  #added = 0;
  #published = 0;
  #seen = 0;
  readonly #used = { token: 0, written: 0 };
  #inFlight = 0;

  constructor(options: SplitDriverOptions) {
    const { memory, size, eventIdx } = options;
    this.places = options.places ?? layOut(memory, size, eventIdx);
    this.#ring = splitRing(size, this.places, eventIdx);
    this.size = size;
    this.#eventIdx = eventIdx;
    this.#mask = size - 1;
    this.#tableEntries = options.tableEntries ?? 0;
    const tableBytes = size * this.#tableEntries * DESCRIPTOR_BYTES;
    this.#tables = tableBytes === 0 ? memory.guestAddress : memory.allocate(tableBytes).address;
    this.#tablesStart = memory.placeOf(this.#tables).start;
    this.#view = memory.region.view;
    this.#links = new Uint16Array(size).map((_, index) => (index + 1 === size ? NONE : index + 1));
    this.#freeCount = size;
    this.#lengths = new Uint16Array(size);
    this.#writable = new Float64Array(size);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  add(readable: readonly Buffer[], writable: readonly Buffer[], indirect: boolean): number {
    const count = readable.length + writable.length;
    assert(count > 0, 'a chain has at least one buffer');
    assert(count <= (indirect ? this.#tableEntries : this.size), 'a chain has too many buffers');
    if ((indirect ? 1 : count) > this.#freeCount) return -1;
    const head = this.#free;
    if (indirect) this.#addTable(head, readable, writable);
    else this.#addDirect(readable, writable);
    let room = 0;
    for (const { length } of writable) room += length;
    this.#writable[head] = room;
    this.#lengths[head] = indirect ? 1 : count;
    this.#freeCount -= indirect ? 1 : count;
    this.#inFlight += 1;
    this.#ring.available[RING.entries + (this.#added & this.#mask)] = head;
    this.#added = (this.#added + 1) & 0xffff;
    return head;
  }

  publish(): boolean {
    const { available, used, availEvent } = this.#ring;
    const before = this.#published;
    const after = this.#added;
    if (after === before) return false;
    // A full fence on both sides [virtio 2.7.13.3.1, 2.7.13.4.1].
    Atomics.store(available, RING.idx, after);
    this.#published = after;
    if (this.#eventIdx) return passes(Atomics.load(used, availEvent), before, after);
    return (Atomics.load(used, RING.flags) & VIRTQ_USED_F_NO_NOTIFY) === 0;
  }

  /** Throws a ProtocolError when the device gives back what it does not have, or has written more than there is. */
  take(): Used | null {
    const { used, usedWords } = this.#ring;
    if (Atomics.load(used, RING.idx) === this.#seen) return null;
    const at = 1 + 2 * (this.#seen & this.#mask);
    const head = usedWords[at] as number;
    const written = usedWords[at + 1] as number;
    if (head >= this.size || this.#lengths[head] === 0) {
      throw new ProtocolError('the device gave back a chain that it does not have', 'virtio 2.7.8');
    }
    if (written > (this.#writable[head] as number)) {
      throw new ProtocolError('the device wrote more than there was room for', 'virtio 2.7.8.2');
    }
    this.#release(head);
    this.#seen = (this.#seen + 1) & 0xffff;
    this.#used.token = head;
    this.#used.written = written;
    return this.#used;
  }

  enableInterrupts(): boolean {
    const { available, used, usedEvent } = this.#ring;
    if (this.#eventIdx) Atomics.store(available, usedEvent, this.#seen);
    else Atomics.store(available, RING.flags, 0);
    return Atomics.load(used, RING.idx) !== this.#seen;
  }

  /** With event indices there is nothing to do: the device interrupts once for each `used_event`. */
  disableInterrupts(): void {
    if (this.#eventIdx) return;
    Atomics.store(this.#ring.available, RING.flags, VIRTQ_AVAIL_F_NO_INTERRUPT);
  }

  /** Fills free descriptors, which are linked in the order of the free list. */
  #addDirect(readable: readonly Buffer[], writable: readonly Buffer[]): void {
    const { descriptors } = this.#ring;
    const count = readable.length + writable.length;
    for (let i = 0; i < count; i += 1) {
      const isReadable = i < readable.length;
      const buffer = (isReadable ? readable[i] : writable[i - readable.length]) as Buffer;
      const index = this.#free;
      this.#free = this.#links[index] as number;
      let flags = isReadable ? 0 : VIRTQ_DESC_F.WRITE;
      if (i + 1 < count) flags |= VIRTQ_DESC_F.NEXT | (this.#free << 16);
      const at = index * 4;
      descriptors[at] = buffer.address % WORD;
      descriptors[at + 1] = Math.floor(buffer.address / WORD);
      descriptors[at + 2] = buffer.length;
      descriptors[at + 3] = flags;
    }
  }

  /** Fills the indirect table of descriptor `head`, and the descriptor [virtio 2.7.5.3]. */
  #addTable(head: number, readable: readonly Buffer[], writable: readonly Buffer[]): void {
    const view = this.#view;
    const count = readable.length + writable.length;
    const skipped = head * this.#tableEntries * DESCRIPTOR_BYTES;
    let at = this.#tablesStart + skipped;
    for (let i = 0; i < count; i += 1) {
      const isReadable = i < readable.length;
      const buffer = (isReadable ? readable[i] : writable[i - readable.length]) as Buffer;
      const flags = isReadable ? 0 : VIRTQ_DESC_F.WRITE;
      const last = i + 1 === count;
      view.setUint32(at, buffer.address % WORD, true);
      view.setUint32(at + 4, Math.floor(buffer.address / WORD), true);
      view.setUint32(at + 8, buffer.length, true);
      view.setUint16(at + 12, last ? flags : flags | VIRTQ_DESC_F.NEXT, true);
      view.setUint16(at + 14, last ? 0 : i + 1, true);
      at += DESCRIPTOR_BYTES;
    }
    const { descriptors } = this.#ring;
    const address = this.#tables + skipped;
    this.#free = this.#links[head] as number;
    descriptors[head * 4] = address % WORD;
    descriptors[head * 4 + 1] = Math.floor(address / WORD);
    descriptors[head * 4 + 2] = count * DESCRIPTOR_BYTES;
    descriptors[head * 4 + 3] = VIRTQ_DESC_F.INDIRECT;
  }

  /** Puts a chain's descriptors in front of the free list. */
  #release(head: number): void {
    const count = this.#lengths[head] as number;
    let last = head;
    for (let i = 1; i < count; i += 1) last = this.#links[last] as number;
    this.#links[last] = this.#free;
    this.#free = head;
    this.#freeCount += count;
    this.#lengths[head] = 0;
    this.#inFlight -= 1;
  }
}

/** Takes zeroed memory for the rings. */
function layOut(memory: DriverMemory, size: number, eventIdx: boolean): SplitPlaces {
  const place = (bytes: number, alignment: number) => {
    const buffer = memory.allocate(bytes, alignment);
    memory.bytes(buffer).fill(0);
    return memory.placeOf(buffer.address);
  };
  return {
    descriptors: place(descriptorTableBytes(size), SPLIT_ALIGNMENT.descriptors),
    driver: place(availableRingBytes(size, eventIdx), SPLIT_ALIGNMENT.available),
    device: place(usedRingBytes(size, eventIdx), SPLIT_ALIGNMENT.used),
  };
}
