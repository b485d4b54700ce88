/** Ranges of bytes, ascending, with gaps between them. Adding is cheap while there are few, finding always. */
export class RangeSet {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  get count(): number {
    return this.#starts.length;
  }

  startOf(index: number): number {
    return this.#starts[index] as number;
  }

  endOf(index: number): number {
    return this.#ends[index] as number;
  }

  clear(): void {
    this.#starts.length = 0;
    this.#ends.length = 0;
  }

  /** The first range that ends after `offset`; `count` when there is none. */
  after(offset: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ends[middle] as number) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Adds [start, end), which is not empty. What touches it becomes one range with it. */
  add(start: number, end: number): void {
    // Ends are whole numbers, so a range that ends at `start` is found too.
    const first = this.after(start - 1);
    let next = first;
    let [from, to] = [start, end];
    while (next < this.count && this.startOf(next) <= end) {
      from = Math.min(from, this.startOf(next));
      to = Math.max(to, this.endOf(next));
      next += 1;
    }
    if (next === first + 1) {
      this.#starts[first] = from;
      this.#ends[first] = to;
    } else {
      this.#starts.splice(first, next - first, from);
      this.#ends.splice(first, next - first, to);
    }
  }
}
