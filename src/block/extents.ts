import { MAX_EXTENTS } from './limits.ts';

/**
 * What an extent is: bits, because both are independent facts. The values are NBD_STATE_HOLE and NBD_STATE_ZERO
 * [NBD proto "base:allocation metadata context"], so that they travel as they are.
 */
export const EXTENT = {
  /** Nothing is allocated for it. */
  HOLE: 1,
  /** It reads as zeroes. */
  ZERO: 2,
} as const;

/** The answer to an EXTENTS request: adjacent ranges from the request's offset on. */
export class ExtentList {
  count = 0;
  totalBytes = 0;
  readonly lengths: number[] = [];
  readonly flags: number[] = [];
  /** Something was left out: what comes after it is no neighbour of the last extent. */
  #short = false;

  clear(): void {
    this.count = 0;
    this.totalBytes = 0;
    this.#short = false;
  }

  get full(): boolean {
    return this.count >= MAX_EXTENTS;
  }

  /** Appends `length` bytes; equal neighbours become one. Ignored when full: an answer may be short, never wrong. */
  push(length: number, flags: number): void {
    if (length === 0 || this.#short) return;
    if (this.count > 0 && this.flags[this.count - 1] === flags) {
      this.lengths[this.count - 1] = (this.lengths[this.count - 1] as number) + length;
    } else {
      if (this.full) {
        this.#short = true;
        return;
      }
      this.lengths[this.count] = length;
      this.flags[this.count] = flags;
      this.count += 1;
    }
    this.totalBytes += length;
  }
}
