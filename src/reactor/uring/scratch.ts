import type { Segments } from '../../block/memory.ts';
import type { Region } from '../../block/memory.ts';
import * as sys from '../sys.ts';
import type { Ring } from './ring.ts';

const IOVEC_BYTES = 16;
const MSGHDR_BYTES = 64;

/** [readv(2)] IOV_MAX: the most segments one call takes. */
export const IOV_MAX = 1024;

/**
 * Memory for iovecs and message headers between `prepare` and `enter`: the kernel copies them at submission
 * (IORING_FEAT_SUBMIT_STABLE), so one area is used over and over.
 */
export class Scratch {
  readonly #region: Region = sys.mapMemory(256 * 1024);
  /** Apart, because direct calls happen while iovecs of the same batch still wait for their submission. */
  readonly #direct: Region = sys.mapMemory(4096);
  readonly #ring: Ring;
  #used = 0;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** Everything prepared has been submitted. */
  reset(): void {
    this.#used = 0;
  }

  /** Memory for one direct system call or a few bytes of socket address: valid until the next direct call. */
  get region(): Region {
    return this.#direct;
  }

  /**
   * Writes an iovec array for `segments` from byte `skip` on, at most IOV_MAX entries. Returns its address; `count`
   * tells how many entries there are.
   */
  iovecs(segments: Segments, skip: number): number {
    const start = this.#reserve(IOVEC_BYTES * Math.min(IOV_MAX, segments.count));
    let at = start;
    let before = 0;
    this.count = 0;
    for (let i = 0; i < segments.count && this.count < IOV_MAX; i += 1) {
      const length = segments.lengths[i] as number;
      const inside = Math.max(0, skip - before);
      before += length;
      if (inside >= length) continue;
      const region = segments.regions[i] as Region;
      this.#pointer(at, region.address + (segments.starts[i] as number) + inside);
      this.#pointer(at + 8, length - inside);
      at += IOVEC_BYTES;
      this.count += 1;
    }
    return this.#region.address + start;
  }

  /** The entries of the last `iovecs`. */
  count = 0;

  /** Writes a struct msghdr over iovecs made by `iovecs`. Returns its address. [sendmsg(2)] */
  msghdr(iovecs: number, count: number): number {
    const at = this.#reserve(MSGHDR_BYTES);
    this.#region.bytes.fill(0, at, at + MSGHDR_BYTES);
    this.#pointer(at + 16, iovecs);
    this.#pointer(at + 24, count);
    return this.#region.address + at;
  }

  /** Makes room for an iovec array and a header after it, so that the two never straddle a submission. */
  prepareMessage(segments: Segments): void {
    this.#need(IOVEC_BYTES * Math.min(IOV_MAX, segments.count) + MSGHDR_BYTES);
  }

  #reserve(bytes: number): number {
    this.#need(bytes);
    const at = this.#used;
    this.#used += bytes;
    return at;
  }

  #need(bytes: number): void {
    if (this.#used + bytes <= this.#region.bytes.length) return;
    this.#ring.submit();
    this.#used = 0;
  }

  #pointer(at: number, value: number): void {
    this.#region.view.setUint32(at, value >>> 0, true);
    this.#region.view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
  }
}
