import type { Prng } from '../../base/prng.ts';
import { FLAG, OP } from '../../block/io.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';
import type { ModelOptions } from './types.ts';

// The definition of the model for tests: what a power cut may leave at each instant, written down as slowly and plainly as
// possible, for small random traces. See docs/concepts/crash-model.md.

export const SECTOR = 512;
export const SECTORS = 4;

/** Whatever a trace is made of, by request. */
export interface Facts {
  readonly trace: Trace;
  readonly options: ModelOptions;
  /** Requests that write. */
  readonly writers: readonly number[];
  /** Sectors between which nothing tears, by disk. */
  readonly cells: readonly (readonly number[][])[];
  /** Images that were asked for before, by instant. */
  readonly known: Map<number, ReadonlySet<string>>;
}

/** A version of a cell: a request or -1 for the base. */
type Version = number;

function isWriter({ requests }: Trace, r: number): boolean {
  const op = requests.op[r];
  return op === OP.WRITE || op === OP.DISCARD || op === OP.WRITE_ZEROES;
}

function isOk({ requests }: Trace, r: number): boolean {
  return requests.failed[r] === 0 && requests.done[r] !== NEVER;
}

function isVague({ requests, disks }: Trace, r: number): boolean {
  return (
    requests.op[r] === OP.DISCARD && disks[requests.disk[r] as number]?.discard === 'undefined'
  );
}

function has({ requests }: Trace, r: number, flag: number): boolean {
  return ((requests.flags[r] as number) & flag) !== 0;
}

export function factsOf(trace: Trace, options: ModelOptions): Facts {
  const { requests, disks } = trace;
  const all = Array.from({ length: requests.count }, (_, r) => r);
  const cells = disks.map(({ number }) => {
    const edges = new Set<number>();
    for (const r of all) {
      const length = requests.length[r] as number;
      if (requests.disk[r] !== number || length === 0) continue;
      if (!isWriter(trace, r) && requests.op[r] !== OP.FLUSH) continue;
      edges.add(requests.offset[r] as number).add((requests.offset[r] as number) + length);
    }
    const groups: number[][] = [];
    for (let sector = 0; sector < SECTORS; sector += 1) {
      const at = sector * SECTOR;
      if (at % options.unitBytes === 0 || edges.has(at)) groups.push([]);
      groups.at(-1)?.push(sector);
    }
    return groups;
  });
  return {
    trace,
    options,
    writers: all.filter((r) => isWriter(trace, r)),
    cells,
    known: new Map(),
  };
}

/** When a request begins to work: a barrier waits for what was issued before it. M0 needs no waiting to keep an order. */
function startOf({ trace, writers, options }: Facts, r: number): number {
  const { issued, done, disk } = trace.requests;
  let start = issued[r] as number;
  if (options.model === 'M0') return start;
  if (!has(trace, r, FLAG.BARRIER) || !isOk(trace, r)) return start;
  const end = done[r] as number;
  const others = writers.filter((other) => disk[other] === disk[r]);
  for (const other of others) {
    const otherDone = done[other] as number;
    if (other < r && otherDone > start && otherDone < end) start = otherDone;
  }
  for (const other of others) if (other > r) start = Math.min(start, (done[other] as number) - 1);
  return start;
}

/** Whether what a request wrote in a cell is stable when all events before `t` have happened. */
function isStable(facts: Facts, r: number, cell: readonly number[], t: number): boolean {
  const { trace, options } = facts;
  const { count, done, disk, source, op, offset, length } = trace.requests;
  if (!isOk(trace, r) || isVague(trace, r)) return false;
  if (options.model === 'L') {
    const begin = trace.marks.find(({ text }) => text === 'begin')?.event ?? 0;
    return (done[r] as number) < begin && begin < t;
  }
  if ((done[r] as number) >= t) return false;
  if (has(trace, r, FLAG.FUA | FLAG.BARRIER)) return true;
  for (let f = 0; f < count; f += 1) {
    if (!isOk(trace, f) || disk[f] !== disk[r]) continue;
    const bySource = trace.disks[disk[f] as number]?.flushCovers === 'source';
    if (bySource && source[f] !== source[r]) continue;
    const before = done[r] as number;
    if (op[f] === OP.FLUSH) {
      const from = (offset[f] as number) / SECTOR;
      const to = from + (length[f] as number) / SECTOR;
      if (from !== to && !cell.every((sector) => sector >= from && sector < to)) continue;
      if ((done[f] as number) < t && before <= startOf(facts, f)) return true;
    } else if (isWriter(trace, f) && has(trace, f, FLAG.BARRIER)) {
      if (startOf(facts, f) < t && before <= startOf(facts, f)) return true;
      if ((done[f] as number) < t && before < (done[f] as number)) return true;
    }
  }
  return false;
}

function isBefore(facts: Facts, one: Version, other: Version): boolean {
  if (other < 0) return false;
  if (one < 0 || facts.options.overlap === 'issued') return one < other;
  return (facts.trace.requests.done[one] as number) < startOf(facts, other);
}

function versionsOf({ trace, writers }: Facts, disk: number, cell: readonly number[]): Version[] {
  const { requests } = trace;
  const at = (cell[0] as number) * SECTOR;
  const here = writers.filter(
    (r) =>
      requests.disk[r] === disk &&
      (requests.offset[r] as number) <= at &&
      (requests.offset[r] as number) + (requests.length[r] as number) > at,
  );
  return [-1, ...here];
}

/** What one cell holds, with whom. */
function contentOf({ trace }: Facts, version: Version): string {
  if (version < 0 || trace.requests.op[version] !== OP.WRITE) return '0';
  const byte = new Uint8Array(1);
  trace.readData(trace.requests.dataAt[version] as number, byte);
  return String(byte[0]);
}

function mayBeGarbage({ trace, options }: Facts, version: Version, t: number): boolean {
  if (version < 0) return false;
  if (options.model === 'M3' && (trace.requests.done[version] as number) >= t) return true;
  return options.poison && isVague(trace, version);
}

function contentsOf(facts: Facts, versions: readonly Version[], t: number): string[] {
  const found = new Set<string>();
  for (const version of versions) {
    found.add(contentOf(facts, version));
    if (mayBeGarbage(facts, version, t)) found.add(`g${version}`);
  }
  return [...found];
}

/** Versions of a cell that are gone: something stable came after them, and no discard has made all vague since. */
function isGone(
  facts: Facts,
  cell: readonly number[],
  all: readonly Version[],
  version: Version,
  t: number,
): boolean {
  for (let then = 0; then <= t; then += 1) {
    for (const other of all) {
      if (other < 0 || !isBefore(facts, version, other)) continue;
      if (!isStable(facts, other, cell, then)) continue;
      const unsettled = all.some(
        (d) =>
          d >= 0 &&
          d !== other &&
          isVague(facts.trace, d) &&
          startOf(facts, d) < then &&
          !isBefore(facts, d, other),
      );
      if (!unsettled) return true;
    }
  }
  return false;
}

/** Every combination of one from each. */
function product(choices: readonly (readonly string[])[]): string[] {
  let found = [''];
  for (const some of choices) {
    found = found.flatMap((before) => some.map((one) => `${before}${one},`));
  }
  return found;
}

/** The images at an instant: contents of all sectors of all disks. */
export function imagesAt(facts: Facts, t: number): ReadonlySet<string> {
  const { options, known } = facts;
  const byRequest = options.model === 'M0' || options.model === 'M1';
  const images = known.get(t) ?? (byRequest ? imagesOfSets(facts, t) : imagesOfUnits(facts, t));
  known.set(t, images);
  return images;
}

function eachSector(
  facts: Facts,
  ofCell: (disk: number, cell: readonly number[]) => string[],
): string[] {
  const cells: { choices: string[]; size: number }[] = [];
  for (const [disk, groups] of facts.cells.entries()) {
    for (const cell of groups) cells.push({ choices: ofCell(disk, cell), size: cell.length });
  }
  return product(
    cells.map(({ choices, size }) => choices.map((one) => Array(size).fill(one).join(','))),
  );
}

function imagesOfUnits(facts: Facts, t: number): Set<string> {
  const images = eachSector(facts, (disk, cell) => {
    const all = versionsOf(facts, disk, cell);
    const there = all.filter(
      (version) =>
        (version < 0 || startOf(facts, version) < t) && !isGone(facts, cell, all, version, t),
    );
    return contentsOf(facts, there, t);
  });
  return new Set(images);
}

function imagesOfSets(facts: Facts, t: number): Set<string> {
  const { trace, options, cells } = facts;
  const { requests } = trace;
  const started = facts.writers.filter((r) => startOf(facts, r) < t);
  const forced = new Set(
    started.filter((r) =>
      (cells[requests.disk[r] as number] ?? []).some(
        (cell) =>
          versionsOf(facts, requests.disk[r] as number, cell).includes(r) &&
          isStable(facts, r, cell, t),
      ),
    ),
  );
  const images = new Set<string>();
  for (let bits = 0; bits < 2 ** started.length; bits += 1) {
    const present = new Set(started.filter((_, i) => (bits >> i) % 2 === 1));
    if (![...forced].every((r) => present.has(r))) continue;
    if (options.model === 'M0' && !isPrefix(facts, started, present)) continue;
    const some = eachSector(facts, (disk, cell) => {
      const there = versionsOf(facts, disk, cell).filter((v) => v < 0 || present.has(v));
      const shown = there.filter((v) => !there.some((other) => isBefore(facts, v, other)));
      return contentsOf(facts, shown, t);
    });
    for (const image of some) images.add(image);
  }
  return images;
}

/** On each disk, of the writes that may become stable, none is lost before one that is there. */
function isPrefix(
  { trace }: Facts,
  started: readonly number[],
  present: ReadonlySet<number>,
): boolean {
  const { disk, failed } = trace.requests;
  const ordered = started.filter((r) => failed[r] === 0 && !isVague(trace, r));
  return ordered.every(
    (r) => present.has(r) || !ordered.some((s) => s > r && disk[s] === disk[r] && present.has(s)),
  );
}

// Random traces.

export function randomTrace(prng: Prng): Trace {
  const disks = Array.from({ length: prng.chance(0.25) ? 2 : 1 }, () => ({
    sizeBytes: SECTORS * SECTOR,
    discard: prng.pick(['zeroes', 'undefined'] as const),
    flushCovers: prng.pick(['everyone', 'everyone', 'source'] as const),
  }));
  const builder = new TraceBuilder({ disks });
  const inFlight: number[] = [];
  const most = 2 + prng.below(6);
  for (let issued = 0; issued < most || inFlight.length > 0;) {
    if (issued < most && prng.chance(inFlight.length === 0 ? 1 : 0.5)) {
      inFlight.push(issueOne(prng, builder, disks.length));
      issued += 1;
    } else {
      const [request] = inFlight.splice(prng.below(inFlight.length), 1);
      if (prng.chance(0.08)) builder.failed(request as number);
      else builder.done(request as number);
      if (prng.chance(0.1)) builder.mark('ack', 'x');
      if (prng.chance(0.1)) builder.mark('note', 'begin');
    }
    if (prng.chance(0.04)) break;
  }
  return builder.trace();
}

function issueOne(prng: Prng, builder: TraceBuilder, disks: number): number {
  const first = prng.below(SECTORS);
  const sectors = 1 + prng.below(Math.min(prng.pick([1, 2, 2, 4]), SECTORS - first));
  const where = {
    disk: prng.below(disks),
    source: prng.below(2),
    offset: first * SECTOR,
    length: sectors * SECTOR,
  };
  const fua = prng.chance(0.2);
  const flags = prng.chance(0.06) ? FLAG.BARRIER : 0;
  const dice = prng.float();
  if (dice < 0.6) return builder.write({ ...where, data: 1 + prng.below(3), fua, flags });
  if (dice < 0.72) return builder.trim({ ...where, fua, flags });
  if (dice < 0.78) return builder.zeroes({ ...where, fua, flags });
  if (prng.chance(0.3)) return builder.flush({ ...where, flags });
  return builder.flush({ disk: where.disk, source: where.source, flags });
}
