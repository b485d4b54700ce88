import { unreachable } from '../../base/assert.ts';
import type { Trace } from '../../trace/trace.ts';
import { mixPair } from './mix.ts';
import type { OpenView } from './open-view.ts';
import { pairColumns } from './pair-rows.ts';
import type { RequestTables, VersionTables } from './tables.ts';
import type { Rule, TearShape } from './types.ts';

/** How units find their version under the rule at hand. */
type Mode = 'newest' | 'requests' | 'tear' | 'stale' | 'random' | 'units';

/**
 * Says what each open unit holds under a rule. A rule is prepared once, at the cost of the open requests; then each unit
 * is asked by itself. A unit holds its newest version whose request is there.
 */
export class Chooser {
  readonly #trace: Trace;
  readonly #requests: RequestTables;
  readonly #versions: VersionTables;
  /** 0: this open request is lost. Requests that are not open are there. */
  readonly #isThere: Uint8Array;
  #view: OpenView | null = null;
  #rule: Rule | null = null;
  #mode: Mode = 'newest';
  /** Units of a 'units' rule. */
  #pairs = new Map<number, number>();
  /** Columns of the covering array for as many requests as were last asked about. */
  #columns: Int32Array = new Int32Array(0);

  constructor(trace: Trace, requests: RequestTables, versions: VersionTables) {
    this.#trace = trace;
    this.#requests = requests;
    this.#versions = versions;
    this.#isThere = new Uint8Array(trace.requests.count).fill(1);
  }

  /** The rule to choose by from now on. The rule itself must not change. */
  prepare(view: OpenView, rule: Rule): void {
    if (view === this.#view && rule === this.#rule) return;
    if (this.#mode !== 'newest' && this.#view !== null) this.#setAll(this.#view, 1);
    this.#view = view;
    this.#rule = rule;
    this.#mode = this.#apply(view, rule);
  }

  /** The version that `view.units[at]` holds. */
  versionAt(at: number): number {
    const view = this.#view as OpenView;
    switch (this.#mode) {
      case 'newest':
        return view.versions[view.first[at] as number] as number;
      case 'requests':
        return this.#byRequests(view, at);
      case 'tear':
        return this.#torn(view, at);
      case 'stale':
        return this.#stale(view, at);
      case 'random':
        return this.#random(view, at);
      case 'units':
        return this.#pairs.get(view.units[at] as number) ?? this.#byRequests(view, at);
      default:
        return unreachable(this.#mode);
    }
  }

  /** Whether an open request is there under the rule, where the rule speaks of requests. */
  isThere(request: number): boolean {
    return this.#isThere[request] === 1;
  }

  #apply(view: OpenView, rule: Rule): Mode {
    switch (rule.kind) {
      case 'all':
        return 'newest';
      case 'floor':
        this.#setAll(view, 0);
        return 'requests';
      case 'prefix':
        this.#setAll(view, 0);
        for (const request of this.#inOrder(view, rule.order).subarray(0, rule.count)) {
          this.#isThere[request] = 1;
        }
        return 'requests';
      case 'lost':
      case 'kept':
        this.#setAll(view, rule.kind === 'lost' ? 1 : 0);
        for (const request of rule.requests) {
          // What is not open is there or gone for good, whatever a rule says (`whyIllegal` complains).
          if (placeOf(view.requests, request) < 0) continue;
          this.#isThere[request] = rule.kind === 'lost' ? 0 : 1;
        }
        return 'requests';
      case 'pairs':
        this.#setPairs(view, rule.row, rule.flip);
        return 'requests';
      case 'tear':
        this.#setAll(view, rule.others === 'lost' ? 0 : 1);
        return 'tear';
      case 'stale':
        return 'stale';
      case 'random':
        if (rule.by === 'unit') return 'random';
        for (const request of view.requests) {
          this.#isThere[request] = isTaken(rule.seed, request, rule.keep) ? 1 : 0;
        }
        return 'requests';
      case 'units':
        this.#setAll(view, rule.others === 'all' ? 1 : 0);
        this.#setUnits(view, rule.pairs);
        return 'units';
      default:
        return unreachable(rule);
    }
  }

  #setAll(view: OpenView, there: 0 | 1): void {
    for (const request of view.requests) this.#isThere[request] = there;
  }

  #setPairs(view: OpenView, row: number, flip: boolean): void {
    const { requests } = view;
    if (this.#columns.length !== requests.length) this.#columns = pairColumns(requests.length);
    for (let i = 0; i < requests.length; i += 1) {
      const bit = ((this.#columns[i] as number) >>> row) & 1;
      this.#isThere[requests[i] as number] = flip ? 1 - bit : bit;
    }
  }

  /** Versions are kept as the view has them, so that equal states are equal arrays. */
  #setUnits(view: OpenView, pairs: readonly number[]): void {
    this.#pairs = new Map();
    for (let i = 0; i + 1 < pairs.length; i += 2) {
      const [unit, version] = [pairs[i] as number, pairs[i + 1] as number];
      const at = placeOf(view.units, unit);
      if (at < 0) continue;
      const end = view.writtenFirst[at + 1] as number;
      let as = version;
      for (let written = view.writtenFirst[at] as number; written < end; written += 1) {
        if (view.written[written] === version) as = view.writtenAs[written] as number;
      }
      this.#pairs.set(unit, as);
    }
  }

  #inOrder(view: OpenView, order: 'issued' | 'completed'): Int32Array {
    if (order === 'issued') return view.requests;
    const { done } = this.#trace.requests;
    return view.requests.toSorted((a, b) => (done[a] as number) - (done[b] as number) || a - b);
  }

  #byRequests(view: OpenView, at: number): number {
    const { writer } = this.#versions;
    const last = (view.writtenFirst[at + 1] as number) - 1;
    let written = view.writtenFirst[at] as number;
    while (written < last) {
      const request = writer[view.written[written] as number] as number;
      if (request < 0 || this.#isThere[request] === 1) break;
      written += 1;
    }
    return view.writtenAs[written] as number;
  }

  #torn(view: OpenView, at: number): number {
    const rule = this.#rule as Extract<Rule, { kind: 'tear' }>;
    const from = this.#requests.unitFrom[rule.request] as number;
    const units = (this.#requests.unitTo[rule.request] as number) - from;
    const within = (view.units[at] as number) - from;
    if (within < 0 || within >= units) return this.#byRequests(view, at);
    const there = this.#isThere[rule.request] as number;
    this.#isThere[rule.request] = isKept(rule.shape, within, units) ? 1 : 0;
    const version = this.#byRequests(view, at);
    this.#isThere[rule.request] = there;
    return version;
  }

  #stale(view: OpenView, at: number): number {
    const { back } = this.#rule as Extract<Rule, { kind: 'stale' }>;
    const first = view.first[at] as number;
    const place = first + back;
    return view.versions[place < (view.first[at + 1] as number) ? place : first] as number;
  }

  #random(view: OpenView, at: number): number {
    const { seed, keep } = this.#rule as Extract<Rule, { kind: 'random' }>;
    const last = (view.first[at + 1] as number) - 1;
    let place = view.first[at] as number;
    while (place < last && !isTaken(seed, view.versions[place] as number, keep)) place += 1;
    return view.versions[place] as number;
  }
}

/** A throw of a coin that depends on nothing but its arguments, so that any unit can be asked alone. */
function isTaken(seed: number, of: number, keep: number): boolean {
  return (mixPair(seed, of) & 255) < keep;
}

/** Which of the units of a torn request are there. */
export function isKept(shape: TearShape, unit: number, units: number): boolean {
  switch (shape) {
    case 'head':
      return 2 * unit < units;
    case 'tail':
      return 2 * unit >= units;
    case 'middle':
      return 4 * unit >= units && 4 * unit < 3 * units;
    case 'alternating':
      return unit % 2 === 0;
    case 'first':
      return unit === 0;
    case 'last':
      return unit === units - 1;
    case 'not-first':
      return unit !== 0;
    case 'not-last':
      return unit !== units - 1;
    default:
      return unreachable(shape);
  }
}

/** The place of a unit in an ascending list, or -1. */
export function placeOf(units: Int32Array, unit: number): number {
  let low = 0;
  let high = units.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((units[middle] as number) < unit) low = middle + 1;
    else high = middle;
  }
  return units[low] === unit ? low : -1;
}
