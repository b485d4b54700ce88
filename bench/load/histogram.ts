const SUB_BUCKETS = 32;
const SUB_BITS = 5;

/** Latencies in log-linear buckets (3 % wide), microseconds in and out. Adding allocates nothing. */
export class Histogram {
  readonly #counts = new Uint32Array(32 * SUB_BUCKETS);
  total = 0;

  add(microseconds: number): void {
    // Tenths of a microsecond as an integer: the finest bucket.
    const value = (microseconds * 10) | 0;
    const top = 31 - Math.clz32(value | 1);
    const index =
      top < SUB_BITS
        ? value
        : ((top - SUB_BITS + 1) << SUB_BITS) + ((value >>> (top - SUB_BITS)) & 31);
    this.#counts[index] = (this.#counts[index] as number) + 1;
    this.total += 1;
  }

  clear(): void {
    this.#counts.fill(0);
    this.total = 0;
  }

  /** The lower edge of the bucket in which the `quantile` (0 to 1) lies, in microseconds; 0 when empty. */
  quantile(quantile: number): number {
    const wanted = Math.max(1, Math.ceil(this.total * quantile));
    let seen = 0;
    for (let index = 0; index < this.#counts.length; index += 1) {
      seen += this.#counts[index] as number;
      if (seen >= wanted) return edge(index);
    }
    return 0;
  }
}

function edge(index: number): number {
  if (index < SUB_BUCKETS) return index / 10;
  const shift = (index >>> SUB_BITS) - 1;
  return ((SUB_BUCKETS + (index & 31)) * 2 ** shift) / 10;
}
