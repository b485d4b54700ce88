import type { Prng } from '../../src/base/prng.ts';
import { Region } from '../../src/block/memory.ts';
import type { RegionDescription } from '../../src/protocols/vhost-user/wire.ts';
import { DriverMemory } from '../../src/protocols/virtio/driver/driver-memory.ts';
import type { Buffer as GuestBuffer } from '../../src/protocols/virtio/driver/driver-queue.ts';
import { SimMemory } from './shared.ts';

/** One stick of a guest's memory: as the server may map it, and as its driver uses it. */
export class Stick {
  readonly memory: SimMemory;
  driver: DriverMemory;
  readonly description: RegionDescription;
  /** Nothing new is put here: it is about to be pulled out. */
  retiring = false;
  /** The server knows it. */
  known = true;
  /** Buffers in it. */
  held = 0;

  constructor(index: number, sizeBytes: number) {
    this.memory = new SimMemory(sizeBytes);
    const guestAddress = index * 2 ** 32;
    const userAddress = 2 ** 40 + index * 2 ** 33;
    this.description = { guestAddress, userAddress, sizeBytes, mmapOffset: 0 };
    this.driver = this.#unused();
  }

  /** Another driver begins. What the last one left is still in it. */
  reuse(): void {
    this.driver = this.#unused();
    this.held = 0;
  }

  #unused(): DriverMemory {
    const { guestAddress, userAddress } = this.description;
    return new DriverMemory(new Region(0, this.memory.buffer), guestAddress, userAddress);
  }
}

/** A buffer of a guest, and where it lies. */
export interface Piece {
  readonly stick: Stick;
  readonly buffer: GuestBuffer;
}

export function bytesOf({ stick, buffer }: Piece): Uint8Array {
  return stick.driver.bytes(buffer);
}

export function freePiece({ stick, buffer }: Piece): void {
  stick.driver.free(buffer);
  stick.held -= 1;
}

/** All sticks of a guest. The first has the rings, and stays. */
export class GuestRam {
  readonly sticks: Stick[];
  readonly #prng: Prng;
  #made = 1;

  constructor(prng: Prng, sizeBytes: number) {
    this.#prng = prng;
    this.sticks = [new Stick(1, sizeBytes)];
  }

  get first(): Stick {
    return this.sticks[0] as Stick;
  }

  plug(sizeBytes: number): Stick {
    this.#made += 1;
    const stick = new Stick(this.#made, sizeBytes);
    stick.known = false;
    this.sticks.push(stick);
    return stick;
  }

  pull(stick: Stick): void {
    this.sticks.splice(this.sticks.indexOf(stick), 1);
  }

  /** A buffer in any stick. Throws a RangeError when there is no room. */
  allocate(length: number): Piece {
    const usable = this.sticks.filter((stick) => stick.known && !stick.retiring);
    const stick = this.#prng.pick(usable);
    const piece = { stick, buffer: stick.driver.allocate(length, this.#prng.pick([1, 16, 512])) };
    stick.held += 1;
    return piece;
  }

  /** `length` bytes in at most `most` pieces, cut anywhere. Throws a RangeError. */
  allocateCut(length: number, most: number): Piece[] {
    const pieces: Piece[] = [];
    try {
      for (let left = length; left > 0;) {
        const last = pieces.length + 1 >= most || this.#prng.chance(0.5);
        const size = last ? left : 1 + this.#prng.below(left);
        pieces.push(this.allocate(size));
        left -= size;
      }
    } catch (error) {
      pieces.forEach(freePiece);
      throw error;
    }
    return pieces;
  }
}

export function fill(pieces: readonly Piece[], bytes: Uint8Array): void {
  let at = 0;
  for (const piece of pieces) {
    const target = bytesOf(piece);
    target.set(bytes.subarray(at, at + target.length));
    at += target.length;
  }
}

export function gather(pieces: readonly Piece[]): Buffer {
  return Buffer.concat(pieces.map(bytesOf));
}
