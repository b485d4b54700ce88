import { leavesAnything } from '../model/requests.ts';
import type { BuiltModel } from '../model/built-model.ts';
import type { VersionTables } from '../model/tables.ts';

/** Tells by a unit's bytes which of its versions they may be. 64 bits of each version's content are compared. */
export class UnitVersions {
  readonly #tables: VersionTables;
  readonly #a: Int32Array;
  readonly #b: Int32Array;
  #hashA = 0;
  #hashB = 0;
  /** After `match`: the oldest and the newest version with these bytes. */
  oldest = -1;
  newest = -1;

  constructor(tables: VersionTables) {
    this.#tables = tables;
    this.#a = new Int32Array(tables.writer.length);
    this.#b = new Int32Array(tables.writer.length);
  }

  /** The unit's first version: its base. That of the next unit is behind its last. */
  first(unit: number): number {
    return this.#tables.firstOf[unit] as number;
  }

  /** The request that wrote a version; -1: the base. */
  writer(version: number): number {
    return this.#tables.writer[version] as number;
  }

  /** Takes in what the versions of a unit hold. */
  learn(unit: number, bytesOf: (version: number) => Uint8Array): void {
    for (let version = this.first(unit); version < this.first(unit + 1); version += 1) {
      const bytes = bytesOf(version);
      this.#hash(bytes, 0, bytes.length);
      this.#a[version] = this.#hashA;
      this.#b[version] = this.#hashB;
    }
  }

  /** Whether `length` bytes at `at` are one of the unit's versions, and which: `oldest`, `newest`. */
  match(unit: number, bytes: Uint8Array, at: number, length: number): boolean {
    this.#hash(bytes, at, length);
    this.oldest = -1;
    this.newest = -1;
    for (let version = this.first(unit); version < this.first(unit + 1); version += 1) {
      if (this.#a[version] !== this.#hashA || this.#b[version] !== this.#hashB) continue;
      if (this.oldest < 0) this.oldest = version;
      this.newest = version;
    }
    return this.newest >= 0;
  }

  /** Units are whole sectors, at multiples of a sector of the buffer. */
  #hash(bytes: Uint8Array, at: number, length: number): void {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, length / 4);
    let a = 0x9e37_79b1;
    let b = 0x7f4a_7c15;
    for (let i = 0; i < words.length; i += 1) {
      const word = words[i] as number;
      a = Math.imul(a ^ word, 0x85eb_ca6b);
      a ^= a >>> 15;
      b = Math.imul(b + word, 0xc2b2_ae35);
      b ^= b >>> 13;
    }
    this.#hashA = a | 0;
    this.#hashB = b | 0;
  }
}

/** A discard after which anything may be read has touched it: nothing can be asked of it. */
export function mayHoldAnything(model: BuiltModel, unit: number): boolean {
  const { firstOf, writer } = model.tables.versions;
  const end = firstOf[unit + 1] as number;
  for (let version = (firstOf[unit] as number) + 1; version < end; version += 1) {
    if (leavesAnything(model.trace, writer[version] as number)) return true;
  }
  return false;
}
