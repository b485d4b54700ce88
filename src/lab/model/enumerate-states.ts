import { type BuiltModel, builtModel } from './built-model.ts';
import type { OpenView } from './open-view.ts';
import { canBeStable } from './requests.ts';
import type { CrashModel, Rule, StateSpec } from './types.ts';

export interface EnumerateOptions {
  /** Only states that are not states at the next cut too, so that each comes once: at the last cut where it may be. */
  readonly canonical?: boolean;
}

/**
 * All different states of one cut, each once, in an order in which neighbours differ in one unit (M2, M3, L), one
 * request (M1) or one step of a prefix (M0). The first one has all that was issued. As many as they are: count them
 * first (`view.plainCount` is a bound).
 */
export function* enumerateStates(
  model: CrashModel,
  cut: number,
  { canonical = false }: EnumerateOptions = {},
): Generator<StateSpec, void, void> {
  const built = builtModel(model);
  const { model: name } = model.options;
  const rules =
    name === 'M0' || name === 'M1' ? imagesOfRequests(built, cut) : productOfUnits(built, cut);
  const lasts = canonical && cut + 1 < model.cuts.length ? endsHere(built, cut) : null;
  for (const rule of rules) {
    const state = { cut, rule };
    if (lasts === null || lasts(state)) yield state;
  }
}

/** For each candidate of a view: 1 if its content is a candidate of its unit at the next cut too. */
export function survivors(model: BuiltModel, cut: number): Uint8Array {
  const { units, first, versions } = model.view(cut);
  const next = model.view(cut + 1);
  const found = new Uint8Array(versions.length);
  let beside = 0;
  for (let at = 0; at < units.length; at += 1) {
    const unit = units[at] as number;
    while (beside < next.units.length && (next.units[beside] as number) < unit) beside += 1;
    const later = new Set<number>();
    if (next.units[beside] === unit) {
      const end = next.first[beside + 1] as number;
      for (let i = next.first[beside] as number; i < end; i += 1) {
        later.add(model.contentOf(next.versions[i] as number));
      }
    } else {
      later.add(model.contentOf(model.maker.newest(unit, cut + 1)));
    }
    for (let i = first[at] as number; i < (first[at + 1] as number); i += 1) {
      if (later.has(model.contentOf(versions[i] as number))) found[i] = 1;
    }
  }
  return found;
}

/** All combinations of digits below their radices; each differs from the one before in one digit, by one. */
export function* grayCodes(radices: readonly number[]): Generator<Int32Array, void, void> {
  const digits = new Int32Array(radices.length);
  const steps = new Int32Array(radices.length).fill(1);
  for (;;) {
    yield digits;
    let at = 0;
    for (; at < digits.length; at += 1) {
      const moved = (digits[at] as number) + (steps[at] as number);
      if (moved >= 0 && moved < (radices[at] as number)) break;
      steps[at] = -(steps[at] as number);
    }
    if (at === digits.length) return;
    digits[at] = (digits[at] as number) + (steps[at] as number);
  }
}

/** M2, M3 and L: every unit by itself. */
function* productOfUnits(model: BuiltModel, cut: number): Generator<Rule, void, void> {
  const { units, first, versions } = model.view(cut);
  const radices = Array.from(units, (_, at) => (first[at + 1] as number) - (first[at] as number));
  for (const digits of grayCodes(radices)) {
    const pairs: number[] = [];
    for (let at = 0; at < units.length; at += 1) {
      const digit = digits[at] as number;
      if (digit === 0) continue;
      pairs.push(units[at] as number, versions[(first[at] as number) + digit] as number);
    }
    yield pairs.length === 0 ? { kind: 'all' } : { kind: 'units', others: 'all', pairs };
  }
}

/** M0 and M1: what each legal set of lost requests leaves, each image once. */
function* imagesOfRequests(model: BuiltModel, cut: number): Generator<Rule, void, void> {
  const view = model.view(cut);
  const seen = new Set<string>();
  const chosen = new Int32Array(view.units.length);
  const isPlain = model.options.overlap === 'issued' && !model.options.poison;
  for (const requests of lostSets(model, view)) {
    const lost: Rule = requests.length === 0 ? { kind: 'all' } : { kind: 'lost', requests };
    const rules = isPlain ? [lost] : waysToShow(model, view, requests);
    for (const rule of rules) {
      model.choose(view, rule, chosen);
      // Within one cut, equal contents are the same version.
      const image = chosen.join();
      if (seen.has(image)) continue;
      seen.add(image);
      yield rule;
    }
  }
}

/** Sets of requests that may be lost together: any under M1; all from one on, on each disk, under M0. */
function* lostSets(model: BuiltModel, view: OpenView): Generator<number[], void, void> {
  // One digit says how many of a list are lost, from its end.
  const lists: number[][] = [];
  const ordered = new Map<number, number[]>();
  for (const request of view.requests) {
    const disk = model.trace.requests.disk[request] as number;
    let list = ordered.get(disk);
    // What never becomes stable is there or not by itself, whatever the order.
    if (model.options.model !== 'M0' || !canBeStable(model.trace, request)) {
      lists.push([request]);
    } else if (list === undefined) {
      list = [request];
      ordered.set(disk, list);
      lists.push(list);
    } else {
      list.push(request);
    }
  }
  for (const digits of grayCodes(lists.map((list) => list.length + 1))) {
    const lost = lists.flatMap((list, at) => list.slice(list.length - (digits[at] as number)));
    yield lost.toSorted((a, b) => a - b);
  }
}

/**
 * What units may show when these requests are lost: where writes were in flight together in any order, each that no
 * other one came after; of a discard, zeroes or garbage.
 */
function* waysToShow(
  model: BuiltModel,
  view: OpenView,
  lost: readonly number[],
): Generator<Rule, void, void> {
  const isLost = new Set(lost);
  const { units } = view;
  const ways = Array.from(units, (_, at) => shownOf(model, view, at, isLost));
  for (const digits of grayCodes(ways.map((way) => way.length))) {
    const pairs = Array.from(units, (unit, at) => [
      unit,
      (ways[at] as number[])[digits[at] as number] as number,
    ]).flat();
    yield { kind: 'units', others: 'all', pairs };
  }
}

function shownOf(
  model: BuiltModel,
  view: OpenView,
  at: number,
  isLost: ReadonlySet<number>,
): number[] {
  const { overlap } = model.options;
  const { writer } = model.tables.versions;
  const there = [...view.written.subarray(view.writtenFirst[at], view.writtenFirst[at + 1])].filter(
    (version) => !isLost.has(writer[version] as number),
  );
  const shown =
    overlap === 'issued'
      ? there.slice(0, 1)
      : there.filter((version) => !there.some((other) => cameAfter(model, other, version)));
  return shown.flatMap((version) =>
    model.maker.hasGarbage(version, view.cut)
      ? [version, model.contents.garbageOf(version)]
      : [version],
  );
}

/** Whether a version was issued after another one was done. */
function cameAfter(model: BuiltModel, version: number, other: number): boolean {
  const { writer } = model.tables.versions;
  const [request, before] = [writer[version] as number, writer[other] as number];
  if (request < 0) return false;
  if (before < 0) return true;
  const started = model.tables.requests.startedAt[request] as number;
  return (model.trace.requests.done[before] as number) < started;
}

/** Whether a state at a cut is none at the next one. */
function endsHere(model: BuiltModel, cut: number): (state: StateSpec) => boolean {
  const view = model.view(cut);
  const next = model.view(cut + 1);
  const stays = survivors(model, cut);
  const chosen = new Int32Array(view.units.length);
  const byRequest = model.options.model === 'M0' || model.options.model === 'M1';
  return ({ rule }) => {
    model.choose(view, rule, chosen);
    for (let at = 0; at < chosen.length; at += 1) {
      const end = view.first[at + 1] as number;
      let slot = view.first[at] as number;
      while (slot < end && view.versions[slot] !== chosen[at]) slot += 1;
      if (stays[slot] === 0) return true;
    }
    if (!byRequest) return false;
    const pairs = sameImage(model, cut, rule, next);
    return (
      model.whyIllegal({ cut: cut + 1, rule: { kind: 'units', others: 'all', pairs } }) !== null
    );
  };
}

/** The image of a state, in the versions of another view that has all its contents. */
function sameImage(model: BuiltModel, cut: number, rule: Rule, view: OpenView): number[] {
  const pairs: number[] = [];
  for (let at = 0; at < view.units.length; at += 1) {
    const unit = view.units[at] as number;
    const content = model.contentOf(model.versionIn({ cut, rule }, unit));
    const candidates = view.versions.subarray(view.first[at], view.first[at + 1]);
    const same = candidates.find((version) => model.contentOf(version) === content);
    pairs.push(unit, same ?? (candidates[0] as number));
  }
  return pairs;
}
