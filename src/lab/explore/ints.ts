/** An Int32Array that grows. */
export class Ints {
  array: Int32Array;
  length = 0;

  constructor(array: Int32Array = new Int32Array(1024), length = 0) {
    this.array = array;
    this.length = length;
  }

  push(value: number): void {
    if (this.length === this.array.length) {
      const grown = new Int32Array(Math.max(16, this.array.length * 2));
      grown.set(this.array);
      this.array = grown;
    }
    this.array[this.length] = value;
    this.length += 1;
  }

  at(index: number): number {
    return this.array[index] as number;
  }

  /** What is in use, as a view. */
  used(): Int32Array {
    return this.array.subarray(0, this.length);
  }
}
