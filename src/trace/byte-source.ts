import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { KiB } from '../base/units.ts';

/** Where a trace's bytes are. */
export interface ByteSource {
  /** When it was opened: what is added later is not there. */
  readonly sizeBytes: number;
  /** Reads into `into` from byte `at` on; fewer bytes than asked only at the end. */
  read(at: number, into: Uint8Array): number;
  close(): void;
}

const CACHED_BYTES = 64 * KiB;
const CACHED_BLOCKS = 32;

interface Block {
  at: number;
  length: number;
  readonly bytes: Uint8Array;
}

/**
 * A file read by pread(2). Small reads go through a cache of 2 MiB, for those who read a trace unit by unit; which block
 * is replaced is decided by its place alone.
 */
export class FileSource implements ByteSource {
  readonly sizeBytes: number;
  #fd: number;
  readonly #blocks: (Block | undefined)[] = [];

  constructor(path: string) {
    this.#fd = openSync(path, 'r');
    this.sizeBytes = fstatSync(this.#fd).size;
  }

  read(at: number, into: Uint8Array): number {
    const wanted = Math.max(0, Math.min(into.length, this.sizeBytes - at));
    if (wanted >= CACHED_BYTES) return this.#direct(at, into.subarray(0, wanted));
    let count = 0;
    while (count < wanted) {
      const block = this.#block(at + count);
      const inside = at + count - block.at;
      const take = Math.min(wanted - count, block.length - inside);
      if (take <= 0) break;
      into.set(block.bytes.subarray(inside, inside + take), count);
      count += take;
    }
    return count;
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #block(at: number): Block {
    const number = Math.floor(at / CACHED_BYTES);
    const place = number % CACHED_BLOCKS;
    const found = this.#blocks[place] ?? { at: -1, length: 0, bytes: new Uint8Array(CACHED_BYTES) };
    this.#blocks[place] = found;
    if (found.at !== number * CACHED_BYTES) {
      found.at = -1;
      found.length = this.#direct(number * CACHED_BYTES, found.bytes);
      found.at = number * CACHED_BYTES;
    }
    return found;
  }

  #direct(at: number, into: Uint8Array): number {
    let count = 0;
    while (count < into.length) {
      const took = readSync(this.#fd, into, count, into.length - count, at + count);
      if (took === 0) break;
      count += took;
    }
    return count;
  }
}

/** Bytes in memory, which threads may share. */
export class MemorySource implements ByteSource {
  readonly sizeBytes: number;
  readonly buffer: SharedArrayBuffer;
  readonly #bytes: Uint8Array;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#bytes = new Uint8Array(buffer);
    this.sizeBytes = buffer.byteLength;
  }

  /** A copy of these bytes. */
  static of(bytes: Uint8Array): MemorySource {
    const buffer = new SharedArrayBuffer(bytes.length);
    new Uint8Array(buffer).set(bytes);
    return new MemorySource(buffer);
  }

  read(at: number, into: Uint8Array): number {
    const part = this.#bytes.subarray(at, at + into.length);
    into.set(part);
    return part.length;
  }

  close(): void {}
}
