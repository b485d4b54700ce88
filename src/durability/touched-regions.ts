/** Enough to tell apart what a file system's journal and its data need, at 128 KiB of memory. */
const MOST_REGIONS = 16_384;
const LEAST_REGION_BYTES = 64 * 1024;

/**
 * When each part of a disk was last changed: for every region the number of its latest mutation (FlushDomain.mutated). So a
 * flush of a range knows what it needs: nothing, if all that was changed there is stable.
 */
export class TouchedRegions {
  readonly #regionBytes: number;
  readonly #latest: Float64Array;

  /** `sizeBytes`: of the disk; 0 when it is not known, then the whole is one region. */
  constructor(sizeBytes: number) {
    let regionBytes = LEAST_REGION_BYTES;
    while (sizeBytes / regionBytes > MOST_REGIONS) regionBytes *= 2;
    this.#regionBytes = regionBytes;
    this.#latest = new Float64Array(Math.max(1, Math.ceil(sizeBytes / regionBytes)));
  }

  /** The bytes [offset, offset + length) were changed by mutation `number`. */
  touch(offset: number, length: number, number: number): void {
    const last = this.#regionOf(offset + Math.max(1, length) - 1);
    for (let i = this.#regionOf(offset); i <= last; i += 1) this.#latest[i] = number;
  }

  /** The latest mutation of any of these bytes, or of others in their regions; 0 when there was none. */
  latest(offset: number, length: number): number {
    const last = this.#regionOf(offset + Math.max(1, length) - 1);
    let latest = 0;
    for (let i = this.#regionOf(offset); i <= last; i += 1) {
      latest = Math.max(latest, this.#latest[i] as number);
    }
    return latest;
  }

  #regionOf(offset: number): number {
    return Math.min(Math.floor(offset / this.#regionBytes), this.#latest.length - 1);
  }
}
