import { isUtf8 } from 'node:buffer';

const TWO_32 = 2 ** 32;
const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * A 64-bit big-endian field as a number. Above 2^53 the value is rounded, and so still larger than any size, offset or
 * length there is: it fails the range check that follows every use.
 */
export function readU64(view: DataView, at: number): number {
  return view.getUint32(at) * TWO_32 + view.getUint32(at + 4);
}

/** Writes an exact non-negative integer below 2^53. */
export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / TWO_32));
  view.setUint32(at + 4, value % TWO_32);
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function encodeText(text: string): Uint8Array {
  return utf8Encoder.encode(text);
}

/** The text, or null: a string is UTF-8 without NUL [NBD proto "Conventions"]. */
export function decodeText(bytes: Uint8Array): string | null {
  if (!isUtf8(bytes) || bytes.includes(0)) return null;
  return utf8Decoder.decode(bytes);
}

/** What a peer says of itself, fit for a log or a terminal: one line, no control characters, bounded. */
export function printable(bytes: Uint8Array, limit = 200): string {
  const text = utf8Decoder.decode(bytes.subarray(0, limit));
  return text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').trim();
}

/**
 * Reads big-endian fields in order and never past the end. A field that is not there reads as nothing and sets
 * `failed`, so a decoder looks at the outcome once, at its end.
 */
export class Reader {
  failed = false;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  /** Every field was there and nothing is left. */
  get complete(): boolean {
    return !this.failed && this.remaining === 0;
  }

  u16(): number {
    return this.#has(2) ? this.#view.getUint16(this.#skip(2)) : 0;
  }

  u32(): number {
    return this.#has(4) ? this.#view.getUint32(this.#skip(4)) : 0;
  }

  u64(): number {
    return this.#has(8) ? readU64(this.#view, this.#skip(8)) : 0;
  }

  /** The next `length` bytes, not copied. */
  bytes(length: number): Uint8Array {
    if (!this.#has(length)) return this.#bytes.subarray(0, 0);
    const start = this.#skip(length);
    return this.#bytes.subarray(start, start + length);
  }

  text(length: number): string {
    const text = decodeText(this.bytes(length));
    if (text === null) this.failed = true;
    return text ?? '';
  }

  #has(length: number): boolean {
    if (length > this.remaining) this.failed = true;
    return !this.failed;
  }

  #skip(length: number): number {
    const start = this.#at;
    this.#at += length;
    return start;
  }
}

/** Builds a message of big-endian fields. For cold paths: it grows by copying. */
export class Writer {
  #bytes = new Uint8Array(256);
  #view = viewOf(this.#bytes);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  u16(value: number): this {
    const at = this.#grow(2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    const at = this.#grow(4);
    this.#view.setUint32(at, value);
    return this;
  }

  u64(value: number): this {
    const at = this.#grow(8);
    writeU64(this.#view, at, value);
    return this;
  }

  bytes(bytes: Uint8Array): this {
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  zeroes(count: number): this {
    this.#grow(count);
    return this;
  }

  /** A 32-bit length in bytes, then the text: how most strings go over the wire. */
  text32(text: string): this {
    const bytes = encodeText(text);
    return this.u32(bytes.length).bytes(bytes);
  }

  /** What has been written. The writer is not used again. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Makes room at the end and returns where. Called before the memory is looked at: it may move. */
  #grow(count: number): number {
    const start = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = viewOf(larger);
    }
    return start;
  }
}
