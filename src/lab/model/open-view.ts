import { assert } from '../../base/assert.ts';
import type { Trace } from '../../trace/trace.ts';
import type { Contents } from './contents.ts';
import { leavesAnything } from './requests.ts';
import { FOREVER, type ModelTables } from './tables.ts';
import type { Cut, CutView, ModelOptions } from './types.ts';

/** A view with what choosing needs beside the contract. */
export interface OpenView extends CutView {
  /** Requests that may make a unit open here; the next view begins with them. */
  readonly active: Int32Array;
  /**
   * All candidates that were written or are the base, equal ones too: of `units[i]` from written[writtenFirst[i]] on,
   * newest first.
   */
  readonly writtenFirst: Int32Array;
  readonly written: Int32Array;
  /** For each of them the one in `versions` that stands for it. */
  readonly writtenAs: Int32Array;
}

/** A view of the contract, which a caller may have held for long, as what it is. */
export function openView(view: CutView): OpenView {
  assert('writtenAs' in view, 'a view that no model made');
  return view as OpenView;
}

/** Numbers of unknown count, appended. */
class IntList {
  #ints = new Int32Array(256);
  length = 0;

  push(value: number): void {
    if (this.length === this.#ints.length) {
      const longer = new Int32Array(2 * this.length);
      longer.set(this.#ints);
      this.#ints = longer;
    }
    this.#ints[this.length] = value;
    this.length += 1;
  }

  at(index: number): number {
    return this.#ints[index] as number;
  }

  toArray(): Int32Array {
    return this.#ints.slice(0, this.length);
  }
}

/** Makes views of cuts. What is a candidate where is a question to the tables alone, so any cut can be viewed at once. */
export class ViewMaker {
  readonly #trace: Trace;
  readonly #options: ModelOptions;
  readonly #tables: ModelTables;
  readonly #contents: Contents;

  constructor(trace: Trace, options: ModelOptions, tables: ModelTables, contents: Contents) {
    this.#trace = trace;
    this.#options = options;
    this.#tables = tables;
    this.#contents = contents;
  }

  /** The view of a cut. The view of the cut before it makes it cheaper. */
  make(cut: Cut, before: OpenView | null): OpenView {
    const active = before === null ? this.#activeAt(cut.index) : this.#activeAfter(before);
    const requests = active.filter((request) => this.isOpen(request, cut.index));
    const lists = {
      units: new IntList(),
      first: new IntList(),
      versions: new IntList(),
      writtenFirst: new IntList(),
      written: new IntList(),
      writtenAs: new IntList(),
    };
    this.#eachUnit(active, (unit) => this.#addUnit(unit, cut, lists));
    lists.first.push(lists.versions.length);
    lists.writtenFirst.push(lists.written.length);
    const first = lists.first.toArray();
    return {
      cut,
      active,
      requests,
      units: lists.units.toArray(),
      first,
      versions: lists.versions.toArray(),
      plainCount: productOf(first),
      writtenFirst: lists.writtenFirst.toArray(),
      written: lists.written.toArray(),
      writtenAs: lists.writtenAs.toArray(),
    };
  }

  /** Issued, not stable, and not wholly overwritten by what is. */
  isOpen(request: number, cut: number): boolean {
    const { bornAt, stableFrom, aliveTo } = this.#tables.requests;
    return (
      (bornAt[request] as number) <= cut &&
      (stableFrom[request] as number) > cut &&
      (aliveTo[request] as number) >= cut
    );
  }

  /** Whether a version, not of garbage, may be there at a cut. */
  isCandidate(version: number, cut: number): boolean {
    const { lastCut, writer } = this.#tables.versions;
    if ((lastCut[version] as number) < cut) return false;
    const request = writer[version] as number;
    return request < 0 || (this.#tables.requests.bornAt[request] as number) <= cut;
  }

  /** Whether garbage may stand there instead of a version that may. */
  hasGarbage(version: number, cut: Cut): boolean {
    const request = this.#tables.versions.writer[version] as number;
    if (request < 0) return false;
    const inFlight = (this.#trace.requests.done[request] as number) >= cut.event;
    if (this.#options.model === 'M3' && inFlight) return true;
    return this.#options.poison && leavesAnything(this.#trace, request);
  }

  /** The newest version of a unit that may be there. */
  newest(unit: number, cut: number): number {
    const { firstOf } = this.#tables.versions;
    let version = (firstOf[unit + 1] as number) - 1;
    while (!this.isCandidate(version, cut)) version -= 1;
    return version;
  }

  #isActive(request: number, cut: number): boolean {
    const { bornAt, openTo } = this.#tables.requests;
    if ((bornAt[request] as number) > cut) return false;
    return (openTo[request] as number) >= cut || this.isOpen(request, cut);
  }

  #activeAt(cut: number): Int32Array {
    const { bornAt } = this.#tables.requests;
    const found = new IntList();
    for (let request = 0; request < bornAt.length; request += 1) {
      if (bornAt[request] !== FOREVER && this.#isActive(request, cut)) found.push(request);
    }
    return found.toArray();
  }

  #activeAfter(before: OpenView): Int32Array {
    const { born, bornFirst } = this.#tables.requests;
    const cut = before.cut.index + 1;
    const found = new IntList();
    for (const request of before.active) if (this.#isActive(request, cut)) found.push(request);
    for (let at = bornFirst[cut] as number; at < (bornFirst[cut + 1] as number); at += 1) {
      const request = born[at] as number;
      if (this.#isActive(request, cut)) found.push(request);
    }
    // A barrier is born after requests that were issued after it.
    return found.toArray().toSorted();
  }

  /** Shows the units of some requests, ascending, each once. */
  #eachUnit(requests: Int32Array, show: (unit: number) => void): void {
    const { unitFrom, unitTo } = this.#tables.requests;
    const order = requests.toSorted((a, b) => (unitFrom[a] as number) - (unitFrom[b] as number));
    let next = 0;
    for (const request of order) {
      const end = unitTo[request] as number;
      for (let unit = Math.max(next, unitFrom[request] as number); unit < end; unit += 1)
        show(unit);
      next = Math.max(next, end);
    }
  }

  #addUnit(
    unit: number,
    cut: Cut,
    { units, first, versions, writtenFirst, written, writtenAs }: Record<keyof Lists, IntList>,
  ): void {
    const { firstOf } = this.#tables.versions;
    const [startVersions, startWritten] = [versions.length, written.length];
    const oldest = firstOf[unit] as number;
    for (let version = (firstOf[unit + 1] as number) - 1; version >= oldest; version -= 1) {
      if (!this.isCandidate(version, cut.index)) continue;
      const as = this.#representative(version, versions, startVersions);
      if (as === version) versions.push(version);
      written.push(version);
      writtenAs.push(as);
    }
    this.#addGarbage(cut, written, startWritten, versions, startVersions);
    if (versions.length - startVersions < 2) {
      versions.length = startVersions;
      written.length = startWritten;
      writtenAs.length = startWritten;
      return;
    }
    units.push(unit);
    first.push(startVersions);
    writtenFirst.push(startWritten);
  }

  /** The newer candidate with the same content, or the version itself. */
  #representative(version: number, versions: IntList, from: number): number {
    const content = this.#contents.contentOf(version);
    for (let at = from; at < versions.length; at += 1) {
      if (this.#contents.contentOf(versions.at(at)) === content) return versions.at(at);
    }
    return version;
  }

  /** Garbage stands before the oldest, which stays last, unless that is the newest too. */
  #addGarbage(cut: Cut, written: IntList, from: number, versions: IntList, start: number): void {
    if (this.#options.model !== 'M3' && !this.#options.poison) return;
    const oldest = versions.at(versions.length - 1);
    const isAlone = versions.length - start === 1;
    if (!isAlone) versions.length -= 1;
    for (let at = from; at < written.length; at += 1) {
      const version = written.at(at);
      if (this.hasGarbage(version, cut)) versions.push(this.#contents.garbageOf(version));
    }
    if (!isAlone) versions.push(oldest);
  }
}

interface Lists {
  readonly units: IntList;
  readonly first: IntList;
  readonly versions: IntList;
  readonly writtenFirst: IntList;
  readonly written: IntList;
  readonly writtenAs: IntList;
}

/** Of the number of candidates of all units; there may be millions, of few sizes. */
function productOf(first: Int32Array): bigint {
  const unitsOf = new Map<number, number>();
  for (let i = 0; i + 1 < first.length; i += 1) {
    const size = (first[i + 1] as number) - (first[i] as number);
    unitsOf.set(size, (unitsOf.get(size) ?? 0) + 1);
  }
  let product = 1n;
  for (const [size, units] of unitsOf) product *= BigInt(size) ** BigInt(units);
  return product;
}
