import { FLAG, OP } from '../../block/io.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';
import {
  beginOf,
  canBeStable,
  hasFlag,
  leavesAnything,
  startsOf,
  succeeded,
  writesUnits,
} from './requests.ts';
import { FOREVER, sharedInts, type RequestTables, type VersionTables } from './tables.ts';
import type { Cut, ModelOptions } from './types.ts';
import type { UnitMap } from './unit-map.ts';

/** A completion after which less may be there. */
interface Prune {
  readonly event: number;
  readonly request: number;
  /** flush: what was complete before; fua: the request itself; done: nothing is stable, but it is no longer being written. */
  readonly kind: 'flush' | 'fua' | 'done';
  /** FLUSH, and the flushes around a barrier: what was complete before this event is covered. */
  readonly covers: number;
}

/** Completed writes that a flush may make stable, in the order of completion. */
interface Waiting {
  requests: number[];
}

/**
 * Goes through the trace once, in the order of time, and says when each version stops being a candidate. A flush makes
 * stable what was complete before it was issued, FUA its own write, and what is stable removes what is older.
 */
export class Stability {
  readonly #trace: Trace;
  readonly #options: ModelOptions;
  readonly #versions: VersionTables;
  readonly #map: UnitMap;
  readonly #unitFrom: Int32Array;
  readonly #unitTo: Int32Array;
  readonly #startedAt: Int32Array;
  readonly #stableFrom: Int32Array;
  /** The first version of each unit that may still be there. */
  readonly #low: Int32Array;
  /** By disk, or by disk and source. */
  readonly #waiting = new Map<number, Waiting>();
  /** Requests of which only a part is stable: 1 for each unit that is. */
  readonly #inPart = new Map<number, Uint8Array>();
  /** M0: up to which request all of a disk is stable. */
  readonly #prefix: Int32Array;
  readonly #novelty: Uint8Array;
  readonly #cuts: Cut[] = [];
  /** M0 and M1 choose among requests, so that what is stable in one unit is stable in all. */
  readonly #byRequest: boolean;
  /** Whether the prune at hand changes what may be there. */
  #changed = false;
  /** The last request that the prune at hand made stable. */
  #newest = -1;
  #cut = 0;
  #event = 0;

  constructor(
    trace: Trace,
    options: ModelOptions,
    map: UnitMap,
    found: { unitFrom: Int32Array; unitTo: Int32Array; versions: VersionTables },
  ) {
    this.#trace = trace;
    this.#options = options;
    this.#map = map;
    this.#byRequest = options.model === 'M0' || options.model === 'M1';
    this.#versions = found.versions;
    this.#unitFrom = found.unitFrom;
    this.#unitTo = found.unitTo;
    this.#startedAt = sharedInts(trace.requests.count);
    // Under M0 the order of issue is kept anyway: what is there implies all before it.
    if (options.model === 'M0')
      this.#startedAt.set(trace.requests.issued.subarray(0, trace.requests.count));
    else startsOf(trace, this.#startedAt);
    this.#stableFrom = sharedInts(trace.requests.count, FOREVER);
    this.#low = found.versions.firstOf.slice(0, -1);
    this.#prefix = new Int32Array(trace.disks.length);
    this.#novelty = this.#noveltyOf();
  }

  /** By event: 1 where a write begins or a mark is made. */
  #noveltyOf(): Uint8Array {
    const { count } = this.#trace.requests;
    const novelty = new Uint8Array(this.#trace.events + 1);
    for (let request = 0; request < count; request += 1) {
      if (writesUnits(this.#trace, request)) novelty[this.#startedAt[request] as number] = 1;
    }
    for (const { event } of this.#trace.marks) novelty[event] = 1;
    return novelty;
  }

  run(): { cuts: readonly Cut[]; requests: RequestTables } {
    if (this.#options.model === 'L') {
      this.#believeUntilBegin();
      this.#addCut(this.#trace.events, 'end', -1);
      return { cuts: this.#cuts, requests: this.#requestTables() };
    }
    const prunes = this.#prunes();
    const { done } = this.#trace.requests;
    const completed = this.#completed();
    let next = 0;
    for (const prune of prunes) {
      for (; next < completed.length; next += 1) {
        const request = completed[next] as number;
        if ((done[request] as number) > prune.event) break;
        this.#waitingOf(request).requests.push(request);
      }
      this.#prune(prune);
    }
    this.#addCut(this.#trace.events, 'end', -1);
    return { cuts: this.#cuts, requests: this.#requestTables() };
  }

  /** L: the disk begins to lie with the workload. What was done at the note 'begin' is stable then, and nothing after it. */
  #believeUntilBegin(): void {
    const begin = beginOf(this.#trace);
    if (begin === null) return;
    this.#event = begin;
    const { done } = this.#trace.requests;
    for (const request of this.#completed()) {
      if ((done[request] as number) < begin) this.#makeStable(request);
    }
    if (this.#changed) this.#addCut(begin, 'flush', -1);
  }

  #prunes(): Prune[] {
    const trace = this.#trace;
    const { count, op, done } = trace.requests;
    const isM3 = this.#options.model === 'M3';
    const prunes: Prune[] = [];
    for (let request = 0; request < count; request += 1) {
      const event = done[request] as number;
      if (event === NEVER) continue;
      const start = this.#startedAt[request] as number;
      const isGood = succeeded(trace, request);
      if (op[request] === OP.FLUSH && isGood) {
        prunes.push({ event, request, kind: 'flush', covers: start + 1 });
      }
      if (!writesUnits(trace, request)) continue;
      const isBarrier = isGood && hasFlag(trace, request, FLAG.BARRIER);
      if (isBarrier) {
        prunes.push({ event: start, request, kind: 'flush', covers: start + 1 });
        prunes.push({ event, request, kind: 'flush', covers: event });
      }
      const isFua = hasFlag(trace, request, FLAG.FUA) && canBeStable(trace, request);
      if (isFua && !isBarrier) prunes.push({ event, request, kind: 'fua', covers: -1 });
      if (isM3) prunes.push({ event, request, kind: 'done', covers: -1 });
    }
    return prunes.toSorted((a, b) => a.event - b.event);
  }

  /** Writes that a flush can make stable, in the order of completion. */
  #completed(): number[] {
    const { count, done } = this.#trace.requests;
    const found: number[] = [];
    for (let request = 0; request < count; request += 1) {
      if (canBeStable(this.#trace, request) && done[request] !== NEVER) found.push(request);
    }
    return found.toSorted((a, b) => (done[a] as number) - (done[b] as number));
  }

  #waitingOf(request: number): Waiting {
    const { disk, source } = this.#trace.requests;
    const on = disk[request] as number;
    const bySource = this.#trace.disks[on]?.flushCovers === 'source';
    const key = on * 2 ** 32 + (bySource ? (source[request] as number) : 0);
    let waiting = this.#waiting.get(key);
    if (waiting === undefined) {
      waiting = { requests: [] };
      this.#waiting.set(key, waiting);
    }
    return waiting;
  }

  #prune({ event, request, kind, covers }: Prune): void {
    const { op, offset, length, disk, done } = this.#trace.requests;
    const last = this.#cuts.at(-1);
    // A barrier's flushes and its own completion share an instant.
    this.#cut = last?.event === event ? last.index : this.#cuts.length;
    this.#event = event;
    this.#changed = false;
    this.#newest = -1;
    const from = offset[request] as number;
    const size = length[request] as number;
    if (kind === 'done') this.#endGarbage(request);
    else if (op[request] === OP.FLUSH && size > 0) this.#flush(request, covers, from, from + size);
    else if (kind === 'flush') this.#flush(request, covers, 0, Infinity);
    const isDone = event === done[request];
    if (kind !== 'done' && isDone && canBeStable(this.#trace, request)) this.#makeStable(request);
    if (this.#options.model === 'M0') this.#completePrefix(disk[request] as number);
    if (this.#changed && this.#cut === this.#cuts.length) this.#addCut(event, kind, request);
  }

  /**
   * M3: from its completion on a write is no longer garbage. That takes states away, so it is a cut, unless all states
   * here were states at the cut before: nothing new was issued, and nothing was promised.
   */
  #endGarbage(request: number): void {
    const last = this.#cuts.at(-1)?.event ?? 0;
    this.#changed = this.#novelty.subarray(last, this.#event).includes(1) && this.#isAlive(request);
  }

  /** What waits there, was complete before the flush began, and is in the range. */
  #flush(flush: number, before: number, from: number, to: number): void {
    const { done, offset, length } = this.#trace.requests;
    const waiting = this.#waitingOf(flush);
    let complete = 0;
    const rest: number[] = [];
    for (const request of waiting.requests) {
      if ((done[request] as number) >= before) break;
      complete += 1;
      const start = offset[request] as number;
      const end = start + (length[request] as number);
      if (start < to && end > from) this.#makeStable(request, from, to);
      if (start < from || end > to) rest.push(request);
    }
    waiting.requests = rest.concat(waiting.requests.slice(complete));
  }

  /** Makes a request stable where it is within a range of its disk. */
  #makeStable(request: number, from = 0, to = Infinity): void {
    const [first, end] = this.#unitsWithin(request, from, to);
    const isNew = this.#stableFrom[request] === FOREVER;
    if (isNew && (this.#byRequest || this.#isWholeNow(request, first, end))) {
      this.#stableFrom[request] = this.#cut + 1;
    }
    if (isNew && this.#byRequest && this.#isAlive(request)) this.#changed = true;
    for (let unit = first; unit < end; unit += 1) {
      const version = this.#versionOf(unit, request);
      if (version >= 0 && !this.#isUnsettled(unit, version)) this.#removeOlder(unit, version);
    }
    this.#newest = Math.max(this.#newest, request);
  }

  /** Whether all units of a request are stable, now that these are: flushes of ranges cover one after another. */
  #isWholeNow(request: number, first: number, end: number): boolean {
    const start = this.#unitFrom[request] as number;
    const units = (this.#unitTo[request] as number) - start;
    if (end - first === units) return true;
    const covered = this.#inPart.get(request) ?? new Uint8Array(units);
    covered.fill(1, first - start, end - start);
    this.#inPart.set(request, covered);
    return !covered.includes(0);
  }

  /** M0: what is stable implies all that was issued before it on its disk. */
  #completePrefix(disk: number): void {
    const end = this.#newest;
    for (let request = this.#prefix[disk] as number; request < end; request += 1) {
      const isOpen = this.#stableFrom[request] === FOREVER && canBeStable(this.#trace, request);
      if (isOpen && this.#trace.requests.disk[request] === disk) this.#makeStable(request);
    }
    this.#prefix[disk] = Math.max(this.#prefix[disk] as number, end);
  }

  /** Units are never partly in the range of a flush. */
  #unitsWithin(request: number, from: number, to: number): [number, number] {
    const { disk, offset, length } = this.#trace.requests;
    const start = offset[request] as number;
    const end = start + (length[request] as number);
    const on = disk[request] as number;
    return [
      from <= start ? (this.#unitFrom[request] as number) : this.#map.unitAt(on, from),
      to >= end ? (this.#unitTo[request] as number) : this.#map.unitAt(on, to),
    ];
  }

  /** Whether any unit may hold what a request wrote. */
  #isAlive(request: number): boolean {
    const end = this.#unitTo[request] as number;
    for (let unit = this.#unitFrom[request] as number; unit < end; unit += 1) {
      const version = this.#versionOf(unit, request);
      if (version >= 0 && this.#versions.lastCut[version] === FOREVER) return true;
    }
    return false;
  }

  /** The version of a unit that a request wrote, or -1 when it cannot be there any more. */
  #versionOf(unit: number, request: number): number {
    const { firstOf, writer } = this.#versions;
    const end = firstOf[unit + 1] as number;
    for (let version = this.#low[unit] as number; version < end; version += 1) {
      if (writer[version] === request) return version;
    }
    return -1;
  }

  /** Whether a discard that leaves anything was issued and nothing that surely came after it is stable. */
  #isUnsettled(unit: number, version: number): boolean {
    const { firstOf, writer } = this.#versions;
    const { disk } = this.#trace.requests;
    const on = disk[writer[version] as number] as number;
    if (this.#trace.disks[on]?.discard !== 'undefined') return false;
    const end = firstOf[unit + 1] as number;
    for (let other = this.#low[unit] as number; other < end; other += 1) {
      const request = writer[other] as number;
      if (request < 0 || other === version || !leavesAnything(this.#trace, request)) continue;
      const isIssued = (this.#startedAt[request] as number) <= this.#event;
      if (isIssued && !this.#isBefore(other, version)) return true;
    }
    return false;
  }

  #removeOlder(unit: number, version: number): void {
    const { lastCut } = this.#versions;
    let low = this.#low[unit] as number;
    for (let older = low; older < version; older += 1) {
      if (lastCut[older] !== FOREVER || !this.#isBefore(older, version)) continue;
      lastCut[older] = this.#cut;
      this.#changed = true;
    }
    while (lastCut[low] !== FOREVER) low += 1;
    this.#low[unit] = low;
  }

  /** Whether one version of a unit surely came before another. */
  #isBefore(one: number, other: number): boolean {
    if (this.#options.overlap === 'issued') return one < other;
    const { writer } = this.#versions;
    const request = writer[one] as number;
    if (request < 0) return true;
    const { done } = this.#trace.requests;
    return (done[request] as number) < (this.#startedAt[writer[other] as number] as number);
  }

  #addCut(event: number, why: Cut['why'], request: number): void {
    const { marks } = this.#trace;
    let made = this.#cuts.at(-1)?.marks ?? 0;
    while (made < marks.length && (marks[made]?.event as number) < event) made += 1;
    this.#cuts.push({ index: this.#cuts.length, event, why, request, marks: made });
  }

  #requestTables(): RequestTables {
    const { count } = this.#trace.requests;
    const bornAt = this.#births();
    const aliveTo = sharedInts(count, -1);
    const openTo = sharedInts(count, -1);
    const { firstOf, writer, lastCut } = this.#versions;
    for (let unit = 0; unit + 1 < firstOf.length; unit += 1) {
      const first = firstOf[unit] as number;
      let older = lastCut[first] as number;
      for (let version = first + 1; version < (firstOf[unit + 1] as number); version += 1) {
        const request = writer[version] as number;
        const alive = lastCut[version] as number;
        aliveTo[request] = Math.max(aliveTo[request] as number, alive);
        openTo[request] = Math.max(openTo[request] as number, Math.min(older, alive));
        older = Math.max(older, alive);
      }
    }
    return {
      unitFrom: this.#unitFrom,
      unitTo: this.#unitTo,
      startedAt: this.#startedAt,
      bornAt,
      stableFrom: this.#stableFrom,
      aliveTo,
      openTo,
      ...this.#birthOrder(bornAt),
    };
  }

  #births(): Int32Array {
    const { count } = this.#trace.requests;
    const bornAt = sharedInts(count, FOREVER);
    for (let request = 0; request < count; request += 1) {
      if (!writesUnits(this.#trace, request)) continue;
      const start = this.#startedAt[request] as number;
      let low = -1;
      let high = this.#cuts.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >>> 1;
        if ((this.#cuts[middle]?.event as number) > start) high = middle;
        else low = middle;
      }
      bornAt[request] = high;
    }
    return bornAt;
  }

  #birthOrder(bornAt: Int32Array): { born: Int32Array; bornFirst: Int32Array } {
    const bornFirst = sharedInts(this.#cuts.length + 1);
    let writers = 0;
    for (const cut of bornAt) {
      if (cut === FOREVER) continue;
      bornFirst[cut + 1] = (bornFirst[cut + 1] as number) + 1;
      writers += 1;
    }
    for (let cut = 0; cut < this.#cuts.length; cut += 1) {
      bornFirst[cut + 1] = (bornFirst[cut + 1] as number) + (bornFirst[cut] as number);
    }
    const born = sharedInts(writers);
    const next = bornFirst.slice();
    for (let request = 0; request < bornAt.length; request += 1) {
      const cut = bornAt[request] as number;
      if (cut === FOREVER) continue;
      born[next[cut] as number] = request;
      next[cut] = (next[cut] as number) + 1;
    }
    return { born, bornFirst };
  }
}
