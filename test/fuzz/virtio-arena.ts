import type { Prng } from '../../src/base/prng.ts';
import type { RegionDescription } from '../../src/protocols/vhost-user/wire.ts';
import { fail } from './target.ts';

/** A stretch of the arena's buffer. */
export interface Piece {
  readonly at: number;
  readonly length: number;
}

interface GuestRegion extends RegionDescription {
  /** Where it begins in the arena's buffer. */
  readonly at: number;
}

const KiB = 1024;
const GUARD_BYTES = 4 * KiB;
const FIRST_BYTES = 72 * KiB;
const SECOND_BYTES = 12 * KiB;

export const ARENA_BYTES: number = 3 * GUARD_BYTES + FIRST_BYTES + SECOND_BYTES;

/** Addresses that need both words. */
export const GUEST = 0x1_0000_0000;
const USER = 0x7f00_0000_0000;

/**
 * Guest memory in two regions of one descriptor, with bytes before, between and after them that are not the guest's.
 * `bytes` is what the device sees. `shadow` is what it should be, after the model has done the device's work there.
 */
export class Arena {
  readonly fd: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly shadow: Uint8Array;
  readonly regions: readonly GuestRegion[];

  /**
   * ARENA_BYTES behind a descriptor. `joined`: the second region follows the first one without a gap, for the guest.
   */
  constructor(fd: number, bytes: Uint8Array, joined: boolean) {
    this.fd = fd;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const second = GUARD_BYTES + FIRST_BYTES + GUARD_BYTES;
    const gap = joined ? 0 : 64 * KiB;
    this.regions = [
      {
        guestAddress: GUEST,
        sizeBytes: FIRST_BYTES,
        userAddress: USER,
        mmapOffset: GUARD_BYTES,
        at: GUARD_BYTES,
      },
      {
        guestAddress: GUEST + FIRST_BYTES + gap,
        sizeBytes: SECOND_BYTES,
        userAddress: USER + 2 ** 24,
        mmapOffset: second,
        at: second,
      },
    ];
    this.shadow = new Uint8Array(ARENA_BYTES);
  }

  /** Fills all of it with bytes that nothing else has. */
  paint(prng: Prng): void {
    const [step, start] = [prng.uint32() | 1, prng.uint32()];
    const words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, ARENA_BYTES / 4);
    for (let i = 0; i < words.length; i += 1) words[i] = Math.imul(i, step) + start;
  }

  /** The last byte of guest memory that lies in one piece with the first. */
  get end(): number {
    const [first, second] = this.regions as [GuestRegion, GuestRegion];
    const joined = first.guestAddress + first.sizeBytes === second.guestAddress;
    return joined ? second.guestAddress + second.sizeBytes : first.guestAddress + first.sizeBytes;
  }

  /** Where the bytes at a guest address lie, in order; null when one of them is not the guest's. */
  translate(address: bigint, length: number): Piece[] | null {
    const pieces: Piece[] = [];
    let from = address;
    let left = length;
    while (left > 0) {
      const region = this.regions.find(
        ({ guestAddress, sizeBytes }) =>
          from >= BigInt(guestAddress) && from < BigInt(guestAddress + sizeBytes),
      );
      if (region === undefined) return null;
      const skipped = Number(from) - region.guestAddress;
      const taken = Math.min(left, region.sizeBytes - skipped);
      pieces.push({ at: region.at + skipped, length: taken });
      from += BigInt(taken);
      left -= taken;
    }
    return pieces;
  }

  /** Where one byte of guest memory lies, which is there. */
  at(address: number): number {
    const [piece] = this.translate(BigInt(address), 1) ?? [];
    return piece === undefined ? fail(`no guest memory at ${address}`) : piece.at;
  }

  /** The front-end's own address of a byte of the first region. */
  user(at: number): number {
    const first = this.regions[0] as GuestRegion;
    return first.userAddress + at - first.at;
  }

  /** Writes into guest memory, as the driver. */
  write(address: number, bytes: Uint8Array): void {
    let done = 0;
    for (const piece of this.translate(BigInt(address), bytes.length) ?? fail('not in memory')) {
      this.bytes.set(bytes.subarray(done, done + piece.length), piece.at);
      done += piece.length;
    }
  }

  /** The bytes of pieces, as they are now. */
  gather(pieces: readonly Piece[]): Uint8Array {
    const total = pieces.reduce((sum, { length }) => sum + length, 0);
    const out = new Uint8Array(total);
    let done = 0;
    for (const { at, length } of pieces) {
      out.set(this.bytes.subarray(at, at + length), done);
      done += length;
    }
    return out;
  }

  /** What the device should write: into the shadow. */
  expect(pieces: readonly Piece[], bytes: Uint8Array): void {
    let done = 0;
    for (const { at, length } of pieces) {
      if (done === bytes.length) return;
      const part = bytes.subarray(done, done + length);
      this.shadow.set(part, at);
      done += part.length;
    }
  }

  /** The model begins from what is there. */
  snapshot(): void {
    this.shadow.set(this.bytes);
  }

  /** Bytes that are the device's to write as it likes. */
  pardon(pieces: readonly Piece[]): void {
    for (const { at, length } of pieces) {
      this.shadow.set(this.bytes.subarray(at, at + length), at);
    }
  }

  /** Every byte, the guest's or not, is what the model says. */
  compare(): void {
    if (Buffer.compare(this.bytes, this.shadow) === 0) return;
    const at = this.bytes.findIndex((byte, i) => byte !== this.shadow[i]);
    fail(`byte ${at} of memory is ${this.bytes[at]}, not ${this.shadow[at]}: ${this.describe(at)}`);
  }

  /** The bytes that are not the guest's are as they were at `snapshot`. */
  compareGuards(): void {
    let from = 0;
    for (const { at, sizeBytes } of [...this.regions, { at: this.bytes.length, sizeBytes: 0 }]) {
      if (Buffer.compare(this.bytes.subarray(from, at), this.shadow.subarray(from, at)) !== 0) {
        fail(`bytes ${from} to ${at}, outside of guest memory, have changed`);
      }
      from = at + sizeBytes;
    }
  }

  describe(at: number): string {
    const region = this.regions.find((each) => at >= each.at && at < each.at + each.sizeBytes);
    if (region === undefined) return 'outside of guest memory';
    return `guest address ${(region.guestAddress + at - region.at).toString(16)}`;
  }
}

interface Interval extends Piece {
  readonly written: boolean;
}

/** Whether something that is written overlaps anything else. */
export function overlaps(written: readonly Piece[], others: readonly Piece[]): boolean {
  const all: Interval[] = [];
  for (const { at, length } of written) if (length > 0) all.push({ at, length, written: true });
  for (const { at, length } of others) if (length > 0) all.push({ at, length, written: false });
  all.sort((a, b) => a.at - b.at);
  let end = -1;
  let writtenEnd = -1;
  for (const { at, length, written: writes } of all) {
    if (at < (writes ? end : writtenEnd)) return true;
    end = Math.max(end, at + length);
    if (writes) writtenEnd = Math.max(writtenEnd, at + length);
  }
  return false;
}
