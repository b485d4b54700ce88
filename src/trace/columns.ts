type Numbers = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

interface NumbersType<A extends Numbers> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: SharedArrayBuffer): A;
}

/** A list of numbers that grows, in memory that threads can share. */
export class Column<A extends Numbers> {
  readonly #type: NumbersType<A>;
  #array: A;
  #count = 0;

  constructor(type: NumbersType<A>, expected = 1024) {
    this.#type = type;
    this.#array = this.#make(expected);
  }

  get count(): number {
    return this.#count;
  }

  push(value: number): void {
    if (this.#count === this.#array.length) {
      const larger = this.#make(this.#count * 2);
      larger.set(this.#array);
      this.#array = larger;
    }
    this.#array[this.#count] = value;
    this.#count += 1;
  }

  get(index: number): number {
    return this.#array[index] as number;
  }

  set(index: number, value: number): void {
    this.#array[index] = value;
  }

  /** An array of the right length. The column is not used afterwards. */
  finish(): A {
    const exact = this.#make(this.#count);
    exact.set(this.#array.subarray(0, this.#count));
    return exact;
  }

  #make(length: number): A {
    return new this.#type(new SharedArrayBuffer(length * this.#type.BYTES_PER_ELEMENT));
  }
}
