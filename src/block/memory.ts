import { assert } from '../base/assert.ts';

/**
 * A stretch of memory that both the kernel and TypeScript can reach. `address` is where the kernel sees byte 0
 * (a double: user space is below 2^47), or 0 for memory that exists for TypeScript only.
 */
export class Region {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(
    address: number,
    buffer: ArrayBufferLike,
    byteOffset = 0,
    byteLength = buffer.byteLength,
  ) {
    this.address = address;
    this.bytes = new Uint8Array(buffer, byteOffset, byteLength);
    this.view = new DataView(buffer, byteOffset, byteLength);
  }

  /** Memory for TypeScript only: tests, simulations, cold paths. */
  static plain(bytes: number | Uint8Array): Region {
    if (typeof bytes === 'number') return new Region(0, new ArrayBuffer(bytes));
    return new Region(0, bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

/**
 * A list of byte ranges in regions: where a request's data lies, or what is to be sent. Struct of arrays, reused,
 * so that filling it allocates nothing once it has grown.
 */
export class Segments {
  count = 0;
  /** The sum of all lengths. */
  totalBytes = 0;
  readonly regions: Region[] = [];
  readonly starts: number[] = [];
  readonly lengths: number[] = [];

  clear(): void {
    this.count = 0;
    this.totalBytes = 0;
  }

  /** Appends; a range that continues the last one is joined to it. */
  push(region: Region, start: number, length: number): void {
    const last = this.count - 1;
    if (last >= 0 && this.regions[last] === region && this.end(last) === start) {
      this.lengths[last] = (this.lengths[last] as number) + length;
    } else {
      this.regions[this.count] = region;
      this.starts[this.count] = start;
      this.lengths[this.count] = length;
      this.count += 1;
    }
    this.totalBytes += length;
  }

  end(index: number): number {
    return (this.starts[index] as number) + (this.lengths[index] as number);
  }

  /** The bytes of segment `index`. Allocates a view: cold paths and stores written in TypeScript. */
  bytesAt(index: number): Uint8Array {
    const start = this.starts[index] as number;
    return (this.regions[index] as Region).bytes.subarray(start, this.end(index));
  }

  /** Copies `source` over the segments from `skip` bytes on. */
  copyFrom(source: Uint8Array, skip = 0): void {
    assert(skip + source.length <= this.totalBytes, 'segments too short for the copy');
    let done = 0;
    let before = 0;
    for (let i = 0; i < this.count && done < source.length; i += 1) {
      const length = this.lengths[i] as number;
      const inside = Math.max(0, skip - before);
      before += length;
      if (inside >= length) continue;
      const take = Math.min(length - inside, source.length - done);
      const start = (this.starts[i] as number) + inside;
      (this.regions[i] as Region).bytes.set(source.subarray(done, done + take), start);
      done += take;
      skip += take;
    }
  }

  /** Copies the segments' bytes from `skip` on into `target`, filling it. */
  copyTo(target: Uint8Array, skip = 0): void {
    assert(skip + target.length <= this.totalBytes, 'segments too short for the copy');
    let done = 0;
    let before = 0;
    for (let i = 0; i < this.count && done < target.length; i += 1) {
      const length = this.lengths[i] as number;
      const inside = Math.max(0, skip - before);
      before += length;
      if (inside >= length) continue;
      const take = Math.min(length - inside, target.length - done);
      const start = (this.starts[i] as number) + inside;
      target.set((this.regions[i] as Region).bytes.subarray(start, start + take), done);
      done += take;
      skip += take;
    }
  }

  fill(value: number): void {
    for (let i = 0; i < this.count; i += 1) {
      (this.regions[i] as Region).bytes.fill(value, this.starts[i], this.end(i));
    }
  }
}
