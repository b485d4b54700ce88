import type { Verdict } from '../check/types.ts';
import type { StateSpec } from '../model/types.ts';
import { OTHER_IDS } from './limits.ts';
import type { Finding, Rung } from './types.ts';

/** One kind of verdict, with the states that came to it. */
export interface VerdictKind {
  readonly verdict: Verdict;
  /** The first state, and the rung that made it. */
  readonly state: StateSpec;
  readonly rung: Rung;
  readonly others: StateSpec[];
  count: number;
}

/** All kinds of verdicts met so far. Tables hold their numbers. */
export class VerdictBook {
  #kinds: VerdictKind[] = [];
  readonly #numbers = new Map<string, number>();

  /** The number of a verdict's kind; -1: none like it was met. */
  find(verdict: Verdict): number {
    return this.#numbers.get(kindOf(verdict)) ?? -1;
  }

  /** The number of a verdict's kind, made if need be. */
  enter(verdict: Verdict, state: StateSpec, rung: Rung): number {
    const known = this.find(verdict);
    if (known >= 0) return known;
    this.#numbers.set(kindOf(verdict), this.#kinds.length);
    this.#kinds.push({ verdict, state, rung, others: [], count: 0 });
    return this.#kinds.length - 1;
  }

  /** One more state came to this. Its rule is kept if it may be shown and is among the first. */
  count(kind: number, state: StateSpec, mayBeShown: boolean): void {
    const entry = this.kind(kind);
    entry.count += 1;
    if (!mayBeShown || entry.verdict.outcome === 'pass' || entry.state === state) return;
    if (entry.others.length < OTHER_IDS) entry.others.push(state);
  }

  kind(number: number): VerdictKind {
    return this.#kinds[number] as VerdictKind;
  }

  /** Pass or fail: the checker has judged. */
  isJudged(kind: number): boolean {
    const { outcome } = this.kind(kind).verdict;
    return outcome === 'pass' || outcome === 'fail';
  }

  isPass(kind: number): boolean {
    return this.kind(kind).verdict.outcome === 'pass';
  }

  /** Whether states of this kind are still to be shown, and so to be confirmed. */
  isShort(kind: number): boolean {
    return !this.isPass(kind) && this.kind(kind).others.length < OTHER_IDS;
  }

  findings(checker: string, idOf: (state: StateSpec) => string): Finding[] {
    const found = this.#kinds.filter(
      ({ verdict, count }) => verdict.outcome !== 'pass' && count > 0,
    );
    return found.map(({ verdict, state, rung, others, count }) => ({
      verdict,
      checker,
      state,
      id: idOf(state),
      rung,
      count,
      others: others.map((other) => idOf(other)),
    }));
  }

  passes(): Record<string, number> {
    const passes = this.#kinds.filter(
      ({ verdict, count }) => verdict.outcome === 'pass' && count > 0,
    );
    return Object.fromEntries(passes.map(({ verdict, count }) => [verdict.class, count]));
  }

  parts(): readonly VerdictKind[] {
    return this.#kinds;
  }

  restore(kinds: readonly VerdictKind[]): void {
    this.#kinds = [...kinds];
    this.#numbers.clear();
    for (const [number, { verdict }] of kinds.entries()) {
      this.#numbers.set(kindOf(verdict), number);
    }
  }
}

/** What makes two verdicts the same finding. */
export function kindOf({ outcome, axis, class: name }: Verdict): string {
  return `${outcome} ${axis ?? '-'} ${name}`;
}
