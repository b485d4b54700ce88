import { assert } from '../../base/assert.ts';
import { OP } from '../../block/io.ts';
import { KiB } from '../../base/units.ts';
import type { Trace } from '../../trace/trace.ts';
import { type BaseImage, openBase } from '../state-device/base-image.ts';
import { HashWindow } from './hash-window.ts';
import { COMPARED_BASE_BYTES } from './limits.ts';
import { mixPair } from './mix.ts';
import type { VersionTables } from './tables.ts';
import type { UnitMap } from './unit-map.ts';

/** More than this of one unit's versions are compared by way of a map. */
const FEW_VERSIONS = 8;

const COMPARE_BYTES = 64 * KiB;

/** What versions hold: their bytes, and which of one unit hold the same. */
export class Contents {
  readonly #trace: Trace;
  readonly #map: UnitMap;
  readonly #versions: VersionTables;
  readonly #bases: (BaseImage | null)[];
  #one = new Uint8Array(COMPARE_BYTES);
  #other = new Uint8Array(COMPARE_BYTES);

  constructor(trace: Trace, map: UnitMap, versions: VersionTables) {
    this.#trace = trace;
    this.#map = map;
    this.#versions = versions;
    this.#bases = trace.disks.map(() => null);
  }

  get versionCount(): number {
    return this.#versions.writer.length;
  }

  /** The number of the version of garbage that stands beside a written version. */
  garbageOf(version: number): number {
    return version + this.versionCount;
  }

  isGarbage(version: number): boolean {
    return version >= this.versionCount;
  }

  /** The request that wrote a version or, of garbage, was writing it; -1 for the base. */
  requestOf(version: number): number {
    const written = this.isGarbage(version) ? version - this.versionCount : version;
    return this.#versions.writer[written] as number;
  }

  unitOf(version: number): number {
    const { firstOf } = this.#versions;
    const written = this.isGarbage(version) ? version - this.versionCount : version;
    assert(written >= 0 && written < this.versionCount, 'a version that does not exist');
    let low = 0;
    let high = firstOf.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((firstOf[middle] as number) <= written) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The first version of the unit with the same bytes. Garbage is like nothing else. */
  contentOf(version: number): number {
    if (this.isGarbage(version)) return version;
    const known = this.#versions.content[version] as number;
    if (known >= 0) return known;
    this.#compareUnit(this.unitOf(version));
    return this.#versions.content[version] as number;
  }

  readVersion(version: number, skip: number, into: Uint8Array): void {
    this.#read(version, this.unitOf(version), skip, into);
  }

  /** Hashes everything that was written, request by request, and what the base held there. Reads the whole trace once. */
  hashAll(unitFrom: Int32Array, unitTo: Int32Array): void {
    const { count, op } = this.#trace.requests;
    const window = new HashWindow();
    const next = this.#versions.firstOf.slice();
    for (let request = 0; request < count; request += 1) {
      const from = unitFrom[request] as number;
      const to = unitTo[request] as number;
      if (op[request] === OP.WRITE) this.#hashWrite(window, request, { from, to }, next);
      else for (let unit = from; unit < to; unit += 1) next[unit] = (next[unit] as number) + 1;
    }
    this.#hashBases(window);
  }

  close(): void {
    for (const [disk, base] of this.#bases.entries()) {
      base?.close();
      this.#bases[disk] = null;
    }
  }

  #hashWrite(
    window: HashWindow,
    request: number,
    { from, to }: { from: number; to: number },
    next: Int32Array,
  ): void {
    const { dataAt, length } = this.#trace.requests;
    const end = (dataAt[request] as number) + (length[request] as number);
    let at = dataAt[request] as number;
    let unit = from;
    window.over((offset, into) => this.#trace.readData(offset, into));
    for (const { bytes, units } of this.#pieces(from, to)) {
      for (let i = 0; i < units; i += 1) {
        const version = (next[unit] as number) + 1;
        next[unit] = version;
        this.#versions.hash[version] = window.hash(at, bytes, end);
        at += bytes;
        unit += 1;
      }
    }
  }

  #hashBases(window: HashWindow): void {
    const { firstOf, hash } = this.#versions;
    let unit = 0;
    for (const { disk, offset, bytes, units } of this.#pieces(0, this.#map.count)) {
      const base = this.#trace.disks[disk]?.base;
      if (base?.kind === 'file') {
        const end = offset + bytes * units;
        window.over((at, into) => this.#base(disk).read(at, into, 0, into.length));
        for (let i = 0; i < units; i += 1) {
          const version = firstOf[unit + i] as number;
          const start = offset + i * bytes;
          hash[version] = bytes > COMPARED_BASE_BYTES ? 1 : window.hash(start, bytes, end);
        }
      }
      unit += units;
    }
  }

  /** Units from `from` to below `to`, in stretches of one size. */
  *#pieces(
    from: number,
    to: number,
  ): Generator<{ disk: number; offset: number; bytes: number; units: number }> {
    for (let unit = from; unit < to;) {
      const { disk, offset, bytes } = this.#map.place(unit);
      const units = Math.min(to, this.#map.runEnd(unit)) - unit;
      yield { disk, offset, bytes, units };
      unit += units;
    }
  }

  #read(version: number, unit: number, skip: number, into: Uint8Array): void {
    const { disk, offset, bytes } = this.#map.place(unit);
    assert(skip >= 0 && skip + into.length <= bytes, 'more than a unit is asked for');
    if (this.isGarbage(version)) {
      fillGarbage(version, skip, into);
      return;
    }
    const request = this.#versions.writer[version] as number;
    const { op, offset: offsets, dataAt } = this.#trace.requests;
    if (request < 0) {
      this.#base(disk).read(offset + skip, into, 0, into.length);
    } else if (op[request] === OP.WRITE) {
      const within = offset - (offsets[request] as number) + skip;
      this.#trace.readData((dataAt[request] as number) + within, into);
    } else {
      into.fill(0);
    }
  }

  #base(disk: number): BaseImage {
    const base = this.#bases[disk] ?? openBase(this.#trace, this.#trace.disks[disk]!);
    this.#bases[disk] = base;
    return base;
  }

  /** Finds which versions of a unit are equal. The base's own number comes last: it says that the others are there. */
  #compareUnit(unit: number): void {
    const { firstOf, hash, content } = this.#versions;
    const first = firstOf[unit] as number;
    const end = firstOf[unit + 1] as number;
    const seen = end - first > FEW_VERSIONS ? new Map<number, number[]>() : null;
    const distinct: number[] = [];
    for (let version = first; version < end; version += 1) {
      const code = hash[version] as number;
      const alike = seen === null ? distinct : (seen.get(code) ?? []);
      const same = alike.find(
        (other) => hash[other] === code && this.#areEqual(unit, other, version),
      );
      if (same === undefined) {
        alike.push(version);
        seen?.set(code, alike);
      }
      if (version > first) content[version] = same ?? version;
    }
    content[first] = first;
  }

  #areEqual(unit: number, one: number, other: number): boolean {
    if (this.#versions.hash[one] === 0) return true;
    const { bytes } = this.#map.place(unit);
    if (bytes > COMPARED_BASE_BYTES) return false;
    for (let skip = 0; skip < bytes; skip += COMPARE_BYTES) {
      const size = Math.min(COMPARE_BYTES, bytes - skip);
      const a = this.#one.subarray(0, size);
      const b = this.#other.subarray(0, size);
      this.#read(one, unit, skip, a);
      this.#read(other, unit, skip, b);
      if (Buffer.compare(a, b) !== 0) return false;
    }
    return true;
  }
}

/** Bytes that nobody wrote, the same each time. */
function fillGarbage(version: number, skip: number, into: Uint8Array): void {
  for (let at = 0; at < into.length; at += 1) {
    const byte = skip + at;
    into[at] = mixPair(version, byte >>> 2) >>> (8 * (byte & 3));
  }
}
