import { assert } from '../../../base/assert.ts';
import type { Region } from '../../../block/memory.ts';
import { GuestMemory } from '../guest-memory.ts';
import type { Place } from '../guest-memory.ts';
import type { Buffer } from './driver-queue.ts';

/** A stretch that was given back. */
interface Hole {
  start: number;
  length: number;
}

/**
 * The memory of a driver of ours: it hands out stretches of one region, by guest address, and takes them back. Cold:
 * drivers allocate when they are set up.
 */
export class DriverMemory {
  readonly region: Region;
  /** Where the device sees the region's first byte. */
  readonly guestAddress: number;
  /** The table for the device's side. */
  readonly memory: GuestMemory;
  /** Free stretches by start, never touching each other. */
  #holes: Hole[];

  /** Addresses and sizes in bytes. `userAddress` is told in vhost-user; the guest address unless given. */
  constructor(region: Region, guestAddress = 0, userAddress = guestAddress) {
    this.region = region;
    this.guestAddress = guestAddress;
    const sizeBytes = region.bytes.length;
    this.memory = new GuestMemory([{ guestAddress, userAddress, sizeBytes, region }]);
    this.#holes = [{ start: 0, length: sizeBytes }];
  }

  /** Bytes that are free, in whatever pieces. */
  get freeBytes(): number {
    return this.#holes.reduce((sum, hole) => sum + hole.length, 0);
  }

  /**
   * `length` bytes at an address that is a multiple of `alignment`, with whatever is in them. The first hole that is
   * large enough. Throws a RangeError when there is none.
   */
  allocate(length: number, alignment = 16): Buffer {
    for (const [index, hole] of this.#holes.entries()) {
      const misplaced = (this.guestAddress + hole.start) % alignment;
      const skipped = misplaced === 0 ? 0 : alignment - misplaced;
      const left = hole.length - skipped - length;
      if (left < 0) continue;
      const start = hole.start + skipped;
      const rest: Hole[] = [];
      if (skipped > 0) rest.push({ start: hole.start, length: skipped });
      if (left > 0) rest.push({ start: start + length, length: left });
      this.#holes.splice(index, 1, ...rest);
      return { address: this.guestAddress + start, length };
    }
    throw new RangeError(`driver memory has no ${length} bytes left in one piece`);
  }

  /** Takes back what `allocate` handed out. */
  free(buffer: Buffer): void {
    if (buffer.length === 0) return;
    const start = this.#startOf(buffer.address, buffer.length);
    const found = this.#holes.findIndex((hole) => hole.start > start);
    const index = found === -1 ? this.#holes.length : found;
    const before = this.#holes[index - 1];
    const after = this.#holes[index];
    const end = start + buffer.length;
    assert(before === undefined || before.start + before.length <= start, 'freed twice');
    assert(after === undefined || end <= after.start, 'freed twice');
    const hole = { start, length: buffer.length };
    let first = index;
    let replaced = 0;
    if (before !== undefined && before.start + before.length === start) {
      hole.start = before.start;
      hole.length += before.length;
      first -= 1;
      replaced += 1;
    }
    if (after !== undefined && after.start === end) {
      hole.length += after.length;
      replaced += 1;
    }
    this.#holes.splice(first, replaced, hole);
  }

  /** Where an address lies in the region. */
  placeOf(address: number): Place {
    return { region: this.region, start: this.#startOf(address, 0) };
  }

  /** The guest address of a place in the region. */
  addressOf(place: Place): number {
    assert(place.region === this.region, 'a place in another region');
    return this.guestAddress + place.start;
  }

  /** The bytes of a buffer: a new view. */
  bytes(buffer: Buffer): Uint8Array {
    const start = this.#startOf(buffer.address, buffer.length);
    return this.region.bytes.subarray(start, start + buffer.length);
  }

  #startOf(address: number, length: number): number {
    const start = address - this.guestAddress;
    assert(start >= 0 && start + length <= this.region.bytes.length, 'outside driver memory');
    return start;
  }
}
