import { Prng } from '../../src/base/prng.ts';

export const SECTOR_BYTES = 512;

/** What one request wrote into one sector: the request's number, 0 for the blank disk. */
export interface Version {
  readonly op: number;
  /** The sector reads as zeroes. */
  readonly zero: boolean;
  /** The order in which versions were applied, over the whole disk. */
  readonly order: number;
  /** A sync that was to make it stable failed: no later sync will. */
  lost: boolean;
}

const BLANK: Version = { op: 0, zero: true, order: 0, lost: false };

export type SyncEnd = 'done' | 'failed' | 'lied';

/**
 * A host's page cache over a drive, sector by sector: what reads see, what a power cut leaves, and every version in between,
 * each of which a power cut may leave too. It outlives server processes, and in `crash` the host.
 */
export class Media {
  readonly sectors: number;
  readonly #prng: Prng;
  readonly #cached: Version[];
  readonly #stable: Version[];
  /** Who made each sector zero last. */
  readonly #zeroedBy: number[];
  /** Versions newer than the stable one, oldest first; only of sectors that have some. */
  readonly #unstable = new Map<number, Version[]>();
  #order = 0;

  constructor(sectors: number, prng: Prng) {
    this.sectors = sectors;
    this.#prng = prng;
    this.#cached = Array.from({ length: sectors }, () => BLANK);
    this.#stable = Array.from({ length: sectors }, () => BLANK);
    this.#zeroedBy = Array.from({ length: sectors }, () => BLANK.op);
  }

  /** What a read sees. */
  cached(sector: number): Version {
    return this.#cached[sector] as Version;
  }

  stable(sector: number): Version {
    return this.#stable[sector] as Version;
  }

  /** Whose zeroes the last ones of a sector were. */
  zeroedBy(sector: number): number {
    return this.#zeroedBy[sector] as number;
  }

  /** The order of the newest version, which a sync started now covers. */
  get order(): number {
    return this.#order;
  }

  write(op: number, sector: number, zero: boolean): Version {
    this.#order += 1;
    const version = { op, zero, order: this.#order, lost: false };
    this.#cached[sector] = version;
    if (zero) this.#zeroedBy[sector] = op;
    const list = this.#unstable.get(sector);
    if (list === undefined) this.#unstable.set(sector, [version]);
    else list.push(version);
    return version;
  }

  /** Makes `version` stable, and whatever is older in its sector obsolete. */
  settle(sector: number, version: Version): void {
    const stable = this.#stable[sector] as Version;
    if (version.order > stable.order) this.#stable[sector] = version;
    const list = this.#unstable.get(sector);
    if (list === undefined) return;
    const newer = list.filter((each) => each.order > version.order);
    if (newer.length === 0) this.#unstable.delete(sector);
    else this.#unstable.set(sector, newer);
  }

  /** The end of a sync that covered everything up to `covers`. */
  endSync(covers: number, end: SyncEnd): void {
    if (end === 'lied') return;
    const drops = end === 'failed' && this.#prng.chance(0.5);
    for (const [sector, list] of this.#unstable) {
      const covered = list.filter((each) => each.order <= covers && !each.lost);
      const newest = covered.at(-1);
      if (newest === undefined) continue;
      // A failed sync has written some of it.
      if (end === 'done' || this.#prng.chance(0.3)) this.settle(sector, newest);
      else {
        for (const each of covered) each.lost = true;
        // The pages are clean now. Memory pressure may drop them, and reads see the drive's content again.
        if (drops && this.#cached[sector] === newest) this.#revert(sector);
      }
    }
  }

  #revert(sector: number): void {
    this.#cached[sector] = this.#stable[sector] as Version;
    this.#unstable.delete(sector);
  }

  /** The host loses power: of each sector any version that may have reached the drive is left. */
  crash(): void {
    const kind = this.#prng.below(4);
    for (const [sector, list] of this.#unstable) {
      const stable = this.#stable[sector] as Version;
      const choices = [stable, ...list];
      let left: Version;
      // All of it lost, all of it there, or anything: the extremes find mistakes that mixtures hide.
      if (kind === 0) left = stable;
      else if (kind === 1) left = choices.at(-1) as Version;
      else left = this.#prng.pick(choices);
      this.#stable[sector] = left;
    }
    this.#unstable.clear();
    for (let sector = 0; sector < this.sectors; sector += 1) {
      const stable = this.#stable[sector] as Version;
      this.#cached[sector] = stable;
      this.#zeroedBy[sector] = stable.zero ? stable.op : BLANK.op;
    }
  }

  get unstableSectors(): number {
    return this.#unstable.size;
  }
}

/** The bytes of one sector written by request `op`: 64 times its number and the sector's. */
export function fillSector(bytes: Buffer, at: number, op: number, sector: number): void {
  PATTERN.writeUInt32BE(op, 0);
  PATTERN.writeUInt32BE(sector, 4);
  bytes.fill(PATTERN, at, at + SECTOR_BYTES);
}

/** In place of a sector's number. */
export const ANY_SECTOR = 0xffffffff;

const PATTERN = Buffer.alloc(8);
const EXPECTED = Buffer.alloc(SECTOR_BYTES);
const ZEROES = Buffer.alloc(SECTOR_BYTES);

/** Whose write these 512 bytes are: the request's number, 0 for zeroes, -1 for bytes that nobody wrote there. */
export function readSector(bytes: Buffer, at: number, sector: number): number {
  const there = bytes.subarray(at, at + SECTOR_BYTES);
  if (there.equals(ZEROES)) return 0;
  const op = there.readUInt32BE(0);
  // One block for many sectors (WRITE SAME) cannot say where it is.
  const anywhere = there.readUInt32BE(4) === ANY_SECTOR;
  fillSector(EXPECTED, 0, op, anywhere ? ANY_SECTOR : sector);
  return there.equals(EXPECTED) ? op : -1;
}

export function makePrng(seed: number, stream: number): Prng {
  return new Prng(seed + stream * 2 ** 32);
}
