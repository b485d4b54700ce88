import type { Verdict } from '../check/types.ts';
import type { Decide } from '../explore/types.ts';
import type { CrashModel, CutView, Rule, StateSpec } from '../model/types.ts';
import { ddmin } from './ddmin.ts';

// The smallest states that fail as a given one does.

/** What was found: a failing state and what of it cannot be spared. */
export interface Smallest {
  readonly state: StateSpec;
  /** Requests that must be lost, wholly or in part; ascending. */
  readonly lost: readonly number[];
  /** Open requests that must be there, wholly or in part; ascending. */
  readonly kept: readonly number[];
  /** Units that must hold something else than the newest; empty where whole requests say it. */
  readonly units: readonly number[];
  readonly minimal: boolean;
  readonly statesTried: number;
}

type Found = Omit<Smallest, 'minimal' | 'statesTried'>;

/** A piece of a state that can be set back: a whole request, or one unit with the version it holds. */
type Piece = number | readonly [unit: number, version: number];

/** How many earlier cuts are tried, at most. */
const MOST_EARLIER_CUTS = 64;

export class Search {
  readonly #model: CrashModel;
  readonly #decide: Decide;
  readonly #verdict: Verdict;
  readonly #mostStates: number;
  #tried = 0;

  /** `verdict`: what counts as the same failure, by outcome, axis and class. */
  constructor(model: CrashModel, decide: Decide, verdict: Verdict, mostStates: number) {
    this.#model = model;
    this.#decide = decide;
    this.#verdict = verdict;
    this.#mostStates = mostStates;
  }

  get exhausted(): boolean {
    return this.#tried >= this.#mostStates;
  }

  async smallest(state: StateSpec): Promise<Smallest> {
    const found =
      this.#model.options.model === 'M0'
        ? await this.#shortestPrefix(state)
        : await this.#fewestPieces(state);
    return { ...found, minimal: !this.exhausted, statesTried: this.#tried };
  }

  async #fails(state: StateSpec): Promise<boolean> {
    this.#tried += 1;
    const verdict = await this.#decide(state);
    const { outcome, axis, class: kind } = this.#verdict;
    return verdict.outcome === outcome && verdict.axis === axis && verdict.class === kind;
  }

  /** Under M0 a state is a number: the largest that fails says what must be lost, the smallest what must be there. */
  async #shortestPrefix(state: StateSpec): Promise<Found> {
    const { requests } = this.#model.view(state.cut);
    const prefix = (count: number): StateSpec => ({
      cut: state.cut,
      rule: { kind: 'prefix', order: 'issued', count },
    });
    const failing: number[] = [];
    for (let count = 0; count <= requests.length && !this.exhausted; count += 1) {
      if (this.#model.whyIllegal(prefix(count)) !== null) continue;
      if (await this.#fails(prefix(count))) failing.push(count);
    }
    const [least, most] = [failing[0], failing.at(-1)];
    if (least === undefined || most === undefined) {
      return { state, lost: [], kept: [], units: [] };
    }
    return {
      state: prefix(least),
      lost: [...requests.subarray(most, most + 1)],
      kept: [...requests.subarray(0, least)].slice(-1),
      units: [],
    };
  }

  /** Makes it small, moves it to the earliest cut where that fails, and makes that small: other requests are open there. */
  async #fewestPieces(state: StateSpec): Promise<Found> {
    const found = await this.#fewestAt(state);
    const early = await this.#earliest(found.state);
    return early === null ? found : this.#fewestAt(early);
  }

  async #fewestAt(state: StateSpec): Promise<Found> {
    const view = this.#model.view(state.cut);
    const chosen = new Int32Array(view.units.length);
    this.#model.choose(view, state.rule, chosen);
    const { lost, whole } = await this.#leastLost(view, state, chosen);
    const kept = await this.#leastKept(view, chosen, lost);
    return {
      state: kept?.state ?? whole,
      lost: requestsOf(this.#model, view, lost, 'lost'),
      kept: requestsOf(this.#model, view, kept?.pieces ?? [], 'kept'),
      units: lost.flatMap((piece) => (typeof piece === 'number' ? [] : [piece[0]])),
    };
  }

  /** All but these lost: the fewest that fail. Whole requests if they do, units otherwise. */
  async #leastLost(
    view: CutView,
    state: StateSpec,
    chosen: Int32Array,
  ): Promise<{ lost: readonly Piece[]; whole: StateSpec }> {
    const lostRule = (pieces: readonly Piece[]): StateSpec => ({
      cut: state.cut,
      rule: ruleOf('all', pieces),
    });
    const requests: Piece[] = openNotShown(this.#model, view, chosen);
    const pieces = (await this.#fails(lostRule(requests)))
      ? requests
      : changedUnits(view, chosen, 0);
    // A failure that needs more than what is open (a checker that is not deterministic) stays as it is.
    if (typeof pieces[0] !== 'number' && !(await this.#fails(lostRule(pieces)))) {
      return { lost: pieces, whole: state };
    }
    const lost = await ddmin(
      pieces,
      (part) => this.#fails(lostRule(part)),
      () => this.exhausted,
    );
    return { lost, whole: lostRule(lost) };
  }

  /** Only these kept, of what is open: the fewest that fail. Null: it does not fail that way. */
  async #leastKept(
    view: CutView,
    chosen: Int32Array,
    lost: readonly Piece[],
  ): Promise<{ pieces: readonly Piece[]; state: StateSpec } | null> {
    const keptRule = (pieces: readonly Piece[]): StateSpec => ({
      cut: view.cut.index,
      rule: ruleOf('floor', pieces),
    });
    const byRequest = lost.every((piece) => typeof piece === 'number');
    const dropped = new Set<Piece>(lost);
    const pieces: readonly Piece[] = byRequest
      ? [...view.requests].filter((request) => !dropped.has(request))
      : changedUnits(view, chosen, 1);
    if (!(await this.#fails(keptRule(pieces)))) return null;
    const fewest = await ddmin(
      pieces,
      (part) => this.#fails(keptRule(part)),
      () => this.exhausted,
    );
    return { pieces: fewest, state: keptRule(fewest) };
  }

  /** The same rule at the earliest cut where it is legal and still fails; null: at none before. */
  async #earliest(state: StateSpec): Promise<StateSpec | null> {
    const first = Math.max(0, state.cut - MOST_EARLIER_CUTS);
    for (let cut = first; cut < state.cut && !this.exhausted; cut += 1) {
      const earlier = { cut, rule: state.rule };
      if (!isExpressible(this.#model.view(cut), state.rule)) continue;
      if (this.#model.whyIllegal(earlier) !== null) continue;
      if (await this.#fails(earlier)) return earlier;
    }
    return null;
  }
}

/** Whether all that a rule names is open at that cut: else it would say something else there. */
function isExpressible(view: CutView, rule: Rule): boolean {
  if (rule.kind !== 'lost' && rule.kind !== 'kept') return rule.kind === 'floor';
  return rule.requests.every((request) => view.requests.includes(request));
}

function ruleOf(others: 'all' | 'floor', pieces: readonly Piece[]): Rule {
  if (pieces.length === 0) return { kind: others };
  const requests = pieces.filter((piece) => typeof piece === 'number');
  if (requests.length === pieces.length) {
    return { kind: others === 'all' ? 'lost' : 'kept', requests };
  }
  return { kind: 'units', others, pairs: pieces.flatMap((piece) => piece) };
}

/** Open requests of which something is not shown, though nothing newer hides it. */
function openNotShown(model: CrashModel, view: CutView, chosen: Int32Array): number[] {
  const found = new Set<number>();
  for (let i = 0; i < view.units.length; i += 1) {
    for (let at = view.first[i] as number; view.versions[at] !== chosen[i]; at += 1) {
      found.add(model.requestOf(view.versions[at] as number));
    }
  }
  return [...found].toSorted((a, b) => a - b);
}

/** Units that hold something else than their newest (end 0) or their floor (end 1), with what they hold. */
function changedUnits(view: CutView, chosen: Int32Array, end: 0 | 1): Piece[] {
  const found: Piece[] = [];
  for (let i = 0; i < view.units.length; i += 1) {
    const at = end === 0 ? view.first[i] : (view.first[i + 1] as number) - 1;
    const version = chosen[i] as number;
    if (view.versions[at as number] !== version) found.push([view.units[i] as number, version]);
  }
  return found;
}

/** The requests that pieces speak of: of a lost unit, the newest writer that is not shown; of a kept one, the shown. */
function requestsOf(
  model: CrashModel,
  view: CutView,
  pieces: readonly Piece[],
  what: 'lost' | 'kept',
): number[] {
  const found = new Set<number>();
  for (const piece of pieces) {
    if (typeof piece === 'number') {
      found.add(piece);
    } else {
      const [unit, version] = piece;
      const newest = view.versions[view.first[view.units.indexOf(unit)] as number] as number;
      found.add(model.requestOf(what === 'lost' ? newest : version));
    }
  }
  return [...found].toSorted((a, b) => a - b);
}
