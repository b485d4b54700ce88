import { unreachable } from '../../base/assert.ts';
import type { Trace } from '../../trace/trace.ts';
import type { Contents } from './contents.ts';
import type { OpenView } from './open-view.ts';
import { placeOf } from './chooser.ts';
import { pairRows } from './pair-rows.ts';
import { canBeStable } from './requests.ts';
import type { ModelTables } from './tables.ts';
import type { ModelOptions, Rule } from './types.ts';

/**
 * M0 and M1 choose among whole requests, so that not every choice of units is a state. An image is one if there is a set
 * of lost requests that leaves it. The smallest such set is found by need: a request that would hide what a unit holds
 * must be lost; under M0, so must all that were issued after it.
 */
export class Legality {
  readonly #trace: Trace;
  readonly #options: ModelOptions;
  readonly #tables: ModelTables;
  readonly #contents: Contents;
  /** 1: open at the view at hand. 2: open and lost. */
  readonly #marks: Uint8Array;

  constructor(trace: Trace, options: ModelOptions, tables: ModelTables, contents: Contents) {
    this.#trace = trace;
    this.#options = options;
    this.#tables = tables;
    this.#contents = contents;
    this.#marks = new Uint8Array(trace.requests.count);
  }

  /** Whether requests can fare so that `view.units[i]` holds chosen[i]. */
  isImage(view: OpenView, chosen: Int32Array): boolean {
    if (this.#options.model !== 'M0' && this.#options.model !== 'M1') return true;
    for (const request of view.requests) this.#marks[request] = 1;
    const answer = this.#solve(view, chosen);
    for (const request of view.requests) this.#marks[request] = 0;
    return answer;
  }

  #solve(view: OpenView, chosen: Int32Array): boolean {
    for (let isSettled = false; !isSettled;) {
      isSettled = true;
      for (let at = 0; at < view.units.length; at += 1) {
        const lost = this.#hideOthers(view, at, chosen[at] as number);
        if (lost === null) return false;
        if (lost) isSettled = false;
      }
    }
    return true;
  }

  /** Loses what would hide a unit's version: whether there was anything, or null if it cannot be lost. */
  #hideOthers(view: OpenView, at: number, chosen: number): boolean | null {
    const best = this.#bestWriter(view, at, chosen);
    if (best < 0) return null;
    const { writer } = this.#tables.versions;
    let found = false;
    const end = view.writtenFirst[at + 1] as number;
    for (let i = view.writtenFirst[at] as number; i < end; i += 1) {
      const version = view.written[i] as number;
      if (version === best || !this.#isAfter(version, best)) continue;
      const request = writer[version] as number;
      if (this.#marks[request] === 2) continue;
      if (this.#marks[request] === 0) return null;
      this.#lose(view, request);
      found = true;
    }
    return found;
  }

  /** Of the versions that hold what is chosen and are not lost, the one that the fewest others hide; or -1. */
  #bestWriter(view: OpenView, at: number, chosen: number): number {
    const { writer } = this.#tables.versions;
    const wanted = this.#contents.isGarbage(chosen) ? chosen - this.#contents.versionCount : chosen;
    const mayBeEqual = wanted === chosen;
    let best = -1;
    const end = view.writtenFirst[at + 1] as number;
    for (let i = view.writtenFirst[at] as number; i < end; i += 1) {
      const version = view.written[i] as number;
      if (mayBeEqual ? view.writtenAs[i] !== wanted : version !== wanted) continue;
      const request = writer[version] as number;
      if (request >= 0 && this.#marks[request] === 2) continue;
      if (best < 0 || this.#endOf(version) > this.#endOf(best)) best = version;
    }
    return best;
  }

  /** Grows with the versions that one hides. */
  #endOf(version: number): number {
    const request = this.#tables.versions.writer[version] as number;
    if (request < 0) return -1;
    return this.#options.overlap === 'issued'
      ? request
      : (this.#trace.requests.done[request] as number);
  }

  #isAfter(version: number, other: number): boolean {
    if (this.#options.overlap === 'issued') return version > other;
    const { writer } = this.#tables.versions;
    const request = writer[version] as number;
    if (request < 0) return false;
    return (this.#tables.requests.startedAt[request] as number) > this.#endOf(other);
  }

  /** Under M0 with all that was issued later. Nothing of that is stable, or this one would be. */
  #lose(view: OpenView, request: number): void {
    this.#marks[request] = 2;
    if (this.#options.model !== 'M0' || !canBeStable(this.#trace, request)) return;
    const { disk } = this.#trace.requests;
    for (let i = placeOf(view.requests, request) + 1; i < view.requests.length; i += 1) {
      const later = view.requests[i] as number;
      if (disk[later] === disk[request] && canBeStable(this.#trace, later)) this.#marks[later] = 2;
    }
  }
}

/** Null, or what is wrong with a rule at a cut, whatever the model: it names what is not there. */
export function whyNoRule(view: OpenView, rule: Rule): string | null {
  switch (rule.kind) {
    case 'all':
    case 'floor':
      return null;
    case 'prefix':
      return isWhole(rule.count, view.requests.length)
        ? null
        : `there is no prefix of ${rule.count}: ${view.requests.length} requests are open`;
    case 'lost':
    case 'kept':
      return whyNotOpen(view, rule.requests);
    case 'pairs':
      return isWhole(rule.row, pairRows(view.requests.length) - 1)
        ? null
        : `there is no row ${rule.row}: ${view.requests.length} open requests need ${pairRows(view.requests.length)}`;
    case 'tear':
      return whyNotOpen(view, [rule.request]);
    case 'stale':
      return isWhole(rule.back, Infinity) ? null : `${rule.back} places older is no number`;
    case 'random':
      return isWhole(rule.keep, 256) ? null : `keep ${rule.keep} is not in 256ths`;
    case 'units':
      return whyNoUnits(view, rule.pairs);
    default:
      return unreachable(rule);
  }
}

function whyNotOpen(view: OpenView, requests: readonly number[]): string | null {
  const wrong = requests.find((request) => placeOf(view.requests, request) < 0);
  return wrong === undefined ? null : `request ${wrong} is not open at cut ${view.cut.index}`;
}

function whyNoUnits(view: OpenView, pairs: readonly number[]): string | null {
  if (pairs.length % 2 !== 0) return 'a unit stands without its version';
  for (let i = 0; i < pairs.length; i += 2) {
    const [unit, version] = [pairs[i] as number, pairs[i + 1] as number];
    const at = placeOf(view.units, unit);
    if (at < 0) return `unit ${unit} is not open at cut ${view.cut.index}`;
    const isMerged = view.versions.subarray(view.first[at], view.first[at + 1]).includes(version);
    const isWritten = view.written
      .subarray(view.writtenFirst[at], view.writtenFirst[at + 1])
      .includes(version);
    if (!isMerged && !isWritten) {
      return `unit ${unit} cannot hold version ${version} at cut ${view.cut.index}`;
    }
  }
  return null;
}

function isWhole(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= most;
}
