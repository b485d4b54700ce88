import type { Region, Segments } from '../../block/memory.ts';
import { MAX_ADDRESS } from './limits.ts';

/** A stretch of guest memory, mapped here. Addresses and sizes in bytes, as doubles: all are below 2^53. */
export interface MemoryRegion {
  /** Where the driver sees it. */
  readonly guestAddress: number;
  /** Where the front-end's own process sees it; rings are named by it in vhost-user. */
  readonly userAddress: number;
  readonly sizeBytes: number;
  /** Byte 0 of it is the region's first byte; at least `sizeBytes` long. */
  readonly region: Region;
}

/** A byte in mapped memory. */
export interface Place {
  readonly region: Region;
  readonly start: number;
}

/**
 * All guest memory that a device may touch. Whatever an address in a descriptor says, nothing outside these regions is
 * read or written. Immutable: a change of the table is a new one, and queues are set up anew on it.
 */
export class GuestMemory {
  /** By guest address. */
  readonly regions: readonly MemoryRegion[];
  /** Where the last address was found: descriptors of one guest mostly lie in one region. */
  #last: MemoryRegion | undefined;

  /** Throws a RangeError when two regions overlap in the guest's addresses, or one ends above 2^53. */
  constructor(regions: readonly MemoryRegion[]) {
    this.regions = regions.toSorted((a, b) => a.guestAddress - b.guestAddress);
    for (const { guestAddress, sizeBytes, region } of this.regions) {
      if (guestAddress + sizeBytes > MAX_ADDRESS || sizeBytes > region.bytes.length) {
        throw new RangeError('a memory region is too large');
      }
    }
    for (let i = 1; i < this.regions.length; i += 1) {
      const before = this.regions[i - 1] as MemoryRegion;
      if (before.guestAddress + before.sizeBytes > (this.regions[i] as MemoryRegion).guestAddress) {
        throw new RangeError('memory regions overlap');
      }
    }
    this.#last = this.regions[0];
  }

  /**
   * Appends the bytes at a guest address to `segments`, in several pieces where they cross from one region into the
   * next. False when any of them is outside, and `segments` is then not to be used.
   */
  push(segments: Segments, address: number, length: number): boolean {
    let at = address;
    let left = length;
    while (left > 0) {
      const found = this.find(at);
      if (found === undefined) return false;
      const start = at - found.guestAddress;
      const piece = Math.min(left, found.sizeBytes - start);
      segments.push(found.region, start, piece);
      at += piece;
      left -= piece;
    }
    return true;
  }

  /** Where `length` bytes at a guest address lie in one piece; null when they do not. */
  place(address: number, length: number): Place | null {
    const found = this.find(address);
    if (found === undefined) return null;
    const start = address - found.guestAddress;
    return start + length <= found.sizeBytes ? { region: found.region, start } : null;
  }

  /** The same, of an address in the front-end's process. Rings only: a linear search. */
  placeOfUser(address: number, length: number): Place | null {
    for (const { userAddress, sizeBytes, region } of this.regions) {
      const start = address - userAddress;
      if (start >= 0 && start + length <= sizeBytes) return { region, start };
    }
    return null;
  }

  /** The region that a guest address lies in. */
  find(address: number): MemoryRegion | undefined {
    const last = this.#last;
    if (last !== undefined && inside(last, address)) return last;
    // A handful of regions; hundreds only with that many hotplugged memory devices.
    for (const region of this.regions) {
      if (inside(region, address)) {
        this.#last = region;
        return region;
      }
    }
    return undefined;
  }
}

function inside({ guestAddress, sizeBytes }: MemoryRegion, address: number): boolean {
  return address >= guestAddress && address < guestAddress + sizeBytes;
}
