import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { FLAG, OP } from '../../block/io.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';
import { builtModel } from './built-model.ts';
import { openCrashModel } from './crash-model.ts';
import { enumerateStates } from './enumerate-states.ts';
import { ImageKeys } from './image-key.ts';
import {
  type CrashModel,
  type ModelName,
  type ModelOptions,
  type Rule,
  type StateSpec,
  TEAR_SHAPES,
} from './types.ts';

// The model against its definition: what a power cut may leave at each instant, written down as slowly and plainly as
// possible, for thousands of small random traces. See docs/concepts/crash-model.md.

const SECTOR = 512;
const SECTORS = 4;

/** Whatever a trace is made of, by request. */
interface Facts {
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

function factsOf(trace: Trace, options: ModelOptions): Facts {
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
function imagesAt(facts: Facts, t: number): ReadonlySet<string> {
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

function randomTrace(prng: Prng): Trace {
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

function randomOptions(prng: Prng): ModelOptions {
  return {
    model: prng.pick<ModelName>(['M0', 'M1', 'M1', 'M2', 'M2', 'M3', 'M3', 'L']),
    unitBytes: prng.pick([512, 512, 1024]),
    overlap: prng.pick(['issued', 'issued', 'any'] as const),
    poison: prng.chance(0.25),
  };
}

// The model's side.

function imageOf(model: CrashModel, state: StateSpec): string {
  const { contents } = builtModel(model);
  const byte = new Uint8Array(1);
  let image = '';
  for (const { number } of model.trace.disks) {
    for (let sector = 0; sector < SECTORS; sector += 1) {
      const unit = model.unitAt(number, sector * SECTOR);
      let content = '0';
      if (unit >= 0) {
        const version = model.versionIn(state, unit);
        model.readVersion(version, sector * SECTOR - model.place(unit).offset, byte);
        content = contents.isGarbage(version) ? `g${model.requestOf(version)}` : String(byte[0]);
      }
      image += `${content},`;
    }
  }
  return image;
}

function randomRule(prng: Prng, model: CrashModel, cut: number): Rule {
  const { requests, units, first, versions } = model.view(cut);
  const some = [...requests].filter(() => prng.chance(0.5));
  const seed = prng.uint32();
  switch (prng.below(9)) {
    case 0:
      return { kind: 'floor' };
    case 1: {
      const order = prng.pick(['issued', 'completed'] as const);
      return { kind: 'prefix', order, count: prng.below(requests.length + 1) };
    }
    case 2:
      return { kind: prng.pick(['lost', 'kept'] as const), requests: some };
    case 3:
      if (requests.length === 0) return { kind: 'all' };
      return { kind: 'pairs', row: prng.below(2), flip: prng.chance(0.5) };
    case 4: {
      if (requests.length === 0) return { kind: 'all' };
      const shape = prng.pick(TEAR_SHAPES);
      const others = prng.pick(['lost', 'kept'] as const);
      return { kind: 'tear', request: prng.pick([...requests]), shape, others };
    }
    case 5:
      return { kind: 'stale', back: prng.below(3) };
    case 6:
      return { kind: 'random', by: 'request', seed, keep: prng.below(257) };
    case 7:
      return { kind: 'random', by: 'unit', seed, keep: prng.below(257) };
    default: {
      const pairs: number[] = [];
      for (let at = 0; at < units.length; at += 1) {
        if (prng.chance(0.5)) continue;
        const from = first[at] as number;
        const place = from + prng.below((first[at + 1] as number) - from);
        pairs.push(units[at] as number, versions[place] as number);
      }
      return { kind: 'units', others: prng.pick(['all', 'floor'] as const), pairs };
    }
  }
}

function checkTrace(seed: number): void {
  const prng = new Prng(seed);
  const trace = randomTrace(prng);
  const options = randomOptions(prng);
  const facts = factsOf(trace, options);
  const what = `seed ${seed}, ${JSON.stringify(options)}`;
  const model = openCrashModel(trace, options);
  const keys = new ImageKeys(model);
  const byKey = new Map<string, string>();
  const [atCuts, canonical] = [new Set<string>(), new Set<string>()];
  const owed = new Map<string, number>();
  for (const { index, event } of model.cuts) {
    const expected = imagesAt(facts, event);
    const found = new Set<string>();
    let states = 0;
    for (const state of enumerateStates(model, index)) {
      const image = imageOf(model, state);
      states += 1;
      found.add(image);
      atCuts.add(image);
      owed.set(image, model.cuts[index]?.marks as number);
      assert.equal(model.whyIllegal(state), null, what);
      const key = keys.key(state);
      assert.equal(byKey.get(key) ?? image, image, `${what}: one key, two images`);
      byKey.set(key, image);
    }
    assert.deepEqual([...found].toSorted(), [...expected].toSorted(), `${what}, cut ${index}`);
    assert.equal(states, found.size, `${what}, cut ${index}: a state came twice`);
    if (!['M0', 'M1'].includes(options.model)) {
      assert.equal(model.view(index).plainCount, BigInt(found.size), what);
    }
    for (const state of enumerateStates(model, index, { canonical: true })) {
      canonical.add(imageOf(model, state));
    }
    for (let i = 0; i < 6; i += 1) checkRule(prng, model, index, expected, what);
  }
  const ever = new Set<string>();
  const owedInTruth = new Map<string, number>();
  for (let t = 0; t <= trace.events; t += 1) {
    const marks = trace.marks.filter(({ event }) => event < t).length;
    for (const one of imagesAt(facts, t)) {
      ever.add(one);
      owedInTruth.set(one, marks);
    }
  }
  assert.deepEqual([...atCuts].toSorted(), [...ever].toSorted(), `${what}: all instants`);
  for (const image of ever) {
    assert.equal(owed.get(image), owedInTruth.get(image), `${what}: owed with ${image}`);
  }
  assert.equal(canonical.size, ever.size, `${what}: canonical states`);
  assert.equal(byKey.size, ever.size, `${what}: keys`);
  assert.equal(model.countStates(100_000), BigInt(ever.size), `${what}: countStates`);
}

/** A rule that is legal leaves one of the images; of one that is not, no set of requests leaves the image. */
function checkRule(
  prng: Prng,
  model: CrashModel,
  cut: number,
  expected: ReadonlySet<string>,
  what: string,
): void {
  const rule = randomRule(prng, model, cut);
  const state = { cut, rule };
  const image = imageOf(model, state);
  const why = model.whyIllegal(state);
  const ofUnits =
    ['tear', 'stale'].includes(rule.kind) || (rule.kind === 'random' && rule.by === 'unit');
  const byRequest = ['M0', 'M1'].includes(model.options.model);
  const isLegal = expected.has(image) && !(byRequest && ofUnits);
  assert.equal(why === null, isLegal, `${what}, cut ${cut}, ${JSON.stringify(rule)}: ${why}`);
  const { units } = model.view(cut);
  const chosen = new Int32Array(units.length);
  model.choose(model.view(cut), rule, chosen);
  const alone = Int32Array.from(units, (unit) => model.versionIn({ cut, rule: { ...rule } }, unit));
  assert.deepEqual(alone, chosen, `${what}: one by one as all together`);
}

// S16. The seeds are apart so that the parts run in reasonable pieces.
for (let part = 0; part < 8; part += 1) {
  test(`S16: 1,250 random traces have the states of the definition (${part + 1} of 8)`, () => {
    for (let i = 0; i < 1250; i += 1) checkTrace(1 + part * 1250 + i);
  });
}
