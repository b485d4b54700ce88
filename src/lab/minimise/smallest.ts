import type { Verdict } from '../check/types.ts';
import type { Decide } from '../explore/types.ts';
import { firstCut } from '../explore/coverage.ts';
import { canBeStable } from '../model/requests.ts';
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
    // Parts of a legal state need not be one: where requests come whole, units do not stand for themselves.
    if (this.#model.whyIllegal(state) !== null) return false;
    this.#tried += 1;
    const verdict = await this.#decide(state);
    const { outcome, axis, class: kind } = this.#verdict;
    return verdict.outcome === outcome && verdict.axis === axis && verdict.class === kind;
  }

  /**
   * Under M0 each disk has a prefix, and what no order binds is there or not by itself: all others as they were, the
   * longest prefix that fails says what must be lost, the shortest what must be there.
   */
  async #shortestPrefix(state: StateSpec): Promise<Found> {
    const view = this.#model.view(state.cut);
    const chosen = new Int32Array(view.units.length);
    this.#model.choose(view, state.rule, chosen);
    const missing = openNotShown(this.#model, view, chosen);
    const chains = chainsOf(this.#model, view, missing);
    const now = (): StateSpec => ({ cut: state.cut, rule: ruleOf('all', lostOf(chains)) });
    if (!(await this.#fails(now()))) return { state, lost: missing, kept: [], units: [] };
    await this.#shift(chains, now, (chain) => chain.requests.length);
    const lost = chains.flatMap(({ requests, there }) => requests.slice(there, there + 1));
    await this.#shift(chains, now, () => 0);
    const kept = chains.flatMap(({ requests, there }) =>
      requests.slice(Math.max(0, there - 1), there),
    );
    return { state: now(), lost: ascending(lost), kept: ascending(kept), units: [] };
  }

  /** Brings each chain as near to an end as it fails. */
  async #shift(
    chains: readonly Chain[],
    now: () => StateSpec,
    end: (chain: Chain) => number,
  ): Promise<void> {
    for (const chain of chains) {
      const known = chain.there;
      const step = end(chain) > known ? -1 : 1;
      for (chain.there = end(chain); chain.there !== known; chain.there += step) {
        if (this.exhausted) chain.there = known;
        if (chain.there === known || (await this.#fails(now()))) break;
      }
    }
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
    if (lost.length === 0) return { state: whole, lost: [], kept: [], units: [] };
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
      : changedUnits(view, chosen, this.#held(view, 'all'));
    // A failure that needs more than what is open (a checker that is not deterministic) stays as it is.
    if (typeof pieces[0] !== 'number' && !(await this.#fails(lostRule(pieces)))) {
      return { lost: pieces, whole: state };
    }
    const least = (of: readonly Piece[]): Promise<readonly Piece[]> =>
      ddmin(
        of,
        (part) => this.#fails(lostRule(part)),
        () => this.exhausted,
      );
    let lost = await least(pieces);
    // Of what few units hold, whole requests may say it after all.
    const writers = requestsOf(this.#model, view, lost, 'lost');
    const isOfUnits = lost.some((piece) => typeof piece !== 'number');
    if (isOfUnits && (await this.#fails(lostRule(writers)))) lost = await least(writers);
    return { lost, whole: lostRule(lost) };
  }

  /** What units hold in one of the two ends. */
  #held(view: CutView, kind: 'all' | 'floor'): Int32Array {
    const held = new Int32Array(view.units.length);
    this.#model.choose(view, { kind }, held);
    return held;
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
      : changedUnits(view, chosen, this.#held(view, 'floor'));
    if (!(await this.#fails(keptRule(pieces)))) return null;
    const fewest = await ddmin(
      pieces,
      (part) => this.#fails(keptRule(part)),
      () => this.exhausted,
    );
    return { pieces: fewest, state: keptRule(fewest) };
  }

  /** The same rule at the earliest cut where it is legal and still fails; null: at none before. Preparation is left out. */
  async #earliest(state: StateSpec): Promise<StateSpec | null> {
    const first = Math.max(firstCut(this.#model), state.cut - MOST_EARLIER_CUTS);
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
  if (rule.kind !== 'lost' && rule.kind !== 'kept')
    return rule.kind === 'floor' || rule.kind === 'all';
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
  return ascending(found);
}

/** Units that hold something else than in `other`, with what they hold. */
function changedUnits(view: CutView, chosen: Int32Array, other: Int32Array): Piece[] {
  const found: Piece[] = [];
  for (let i = 0; i < view.units.length; i += 1) {
    const version = chosen[i] as number;
    if (other[i] !== version) found.push([view.units[i] as number, version]);
  }
  return found;
}

/** Requests that are there up to one, and lost from it on. */
interface Chain {
  readonly requests: readonly number[];
  there: number;
}

/** M0: the open requests of each disk, up to the first that is missing; and each that no order binds. */
function chainsOf(model: CrashModel, view: CutView, missing: readonly number[]): Chain[] {
  const isMissing = new Set(missing);
  const ofDisks = new Map<number, number[]>();
  const alone: number[][] = [];
  for (const request of view.requests) {
    const disk = model.trace.requests.disk[request] as number;
    const chain = ofDisks.get(disk);
    if (!canBeStable(model.trace, request)) alone.push([request]);
    else if (chain === undefined) ofDisks.set(disk, [request]);
    else chain.push(request);
  }
  return [...ofDisks.values(), ...alone].map((requests) => {
    const first = requests.findIndex((request) => isMissing.has(request));
    return { requests, there: first < 0 ? requests.length : first };
  });
}

function lostOf(chains: readonly Chain[]): number[] {
  return ascending(chains.flatMap(({ requests, there }) => requests.slice(there)));
}

function ascending(numbers: Iterable<number>): number[] {
  return [...numbers].toSorted((a, b) => a - b);
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
  return ascending(found);
}
