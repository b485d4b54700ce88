import { OP } from '../../block/io.ts';
import type { CrashModel, CutView, Rule } from '../model/types.ts';
import { type Writers, writersOf } from './writers.ts';

// The states of a cut as a tree of decisions. A chain of decisions stands for all states in which they hold; the one that
// is run has everything else as it was issued. What a run reads then splits the chain: one part for each content that a
// unit it read could have had instead. The parts are disjoint, and with the states that read the same they are all
// states of the chain: nothing is left out and nothing comes twice.

/** That a unit holds a version, or that a request (1) is there or (0) is not; after the earlier ones. */
export interface Decision {
  readonly before: Decision | null;
  readonly about: number;
  readonly value: number;
}

export interface DecisionTree {
  /** The state in which a chain holds and all else is as issued. */
  rule(chain: Decision | null): Rule;
  /** The chains of states that read something else, after a run in the chain's state read these units. */
  split(chain: Decision | null, reads: Int32Array, found: (chain: Decision) => void): void;
}

/** Decides units: for models in which each unit stands for itself. */
export class UnitTree implements DecisionTree {
  readonly #view: CutView;
  readonly #placeOf: Int32Array;
  /** Of each open unit: its version if all issued is there. */
  readonly #newest: Int32Array;
  readonly #stamp: Int32Array;
  #now = 0;

  /** `placeOf` is that of CutImages at this cut. */
  constructor(model: CrashModel, view: CutView, placeOf: Int32Array) {
    this.#view = view;
    this.#placeOf = placeOf;
    this.#newest = new Int32Array(view.units.length);
    model.choose(view, { kind: 'all' }, this.#newest);
    this.#stamp = new Int32Array(view.units.length);
  }

  rule(chain: Decision | null): Rule {
    const pairs: number[] = [];
    for (let at = chain; at !== null; at = at.before) {
      const place = (this.#placeOf[at.about] as number) - 1;
      if (at.value !== this.#newest[place]) pairs.push(at.about, at.value);
    }
    return { kind: 'units', others: 'all', pairs };
  }

  split(chain: Decision | null, reads: Int32Array, found: (chain: Decision) => void): void {
    this.#now += 1;
    for (let at = chain; at !== null; at = at.before) {
      this.#stamp[(this.#placeOf[at.about] as number) - 1] = this.#now;
    }
    let before = chain;
    for (const unit of reads) {
      const place = (this.#placeOf[unit] as number) - 1;
      if (place < 0 || this.#stamp[place] === this.#now) continue;
      const newest = this.#newest[place] as number;
      const end = this.#view.first[place + 1] as number;
      for (let at = this.#view.first[place] as number; at < end; at += 1) {
        const version = this.#view.versions[at] as number;
        if (version !== newest) found({ before, about: unit, value: version });
      }
      before = { before, about: unit, value: newest };
    }
  }
}

/** Decides requests: for M1. A unit asks its writers, from the newest on, until one is there. */
export class RequestTree implements DecisionTree {
  readonly #writers: Writers;
  readonly #placeOf: Int32Array;
  readonly #hides: (request: number) => boolean;
  readonly #decided = new Map<number, number>();

  constructor(model: CrashModel, view: CutView, placeOf: Int32Array) {
    this.#writers = writersOf(model, view);
    this.#placeOf = placeOf;
    const { op } = model.trace.requests;
    // After a discard what was there before may still be read.
    this.#hides = (request) => op[request] !== OP.DISCARD;
  }

  rule(chain: Decision | null): Rule {
    const requests: number[] = [];
    for (let at = chain; at !== null; at = at.before) if (at.value === 0) requests.push(at.about);
    return { kind: 'lost', requests: requests.toSorted((a, b) => a - b) };
  }

  split(chain: Decision | null, reads: Int32Array, found: (chain: Decision) => void): void {
    const decided = this.#decided;
    decided.clear();
    for (let at = chain; at !== null; at = at.before) decided.set(at.about, at.value);
    const { first, requests } = this.#writers;
    let before = chain;
    for (const unit of reads) {
      const place = (this.#placeOf[unit] as number) - 1;
      if (place < 0) continue;
      for (let at = first[place] as number; at < (first[place + 1] as number); at += 1) {
        const request = requests[at] as number;
        let isThere = decided.get(request);
        if (isThere === undefined) {
          found({ before, about: request, value: 0 });
          before = { before, about: request, value: 1 };
          decided.set(request, 1);
          isThere = 1;
        }
        if (isThere === 1 && this.#hides(request)) break;
      }
    }
  }
}

/** Every state of a cut once, as rules: the tree of a checker that reads all. Null: there are more than `limit`. */
export function listStates(tree: DecisionTree, view: CutView, limit: number): Rule[] | null {
  const rules: Rule[] = [];
  const waiting: (Decision | null)[] = [null];
  while (waiting.length > 0) {
    const chain = waiting.pop() ?? null;
    if (rules.length + waiting.length >= limit) return null;
    rules.push(tree.rule(chain));
    tree.split(chain, view.units, (other) => waiting.push(other));
  }
  return rules;
}
