import { CONTRADICTED } from './coverage.ts';
import type { Decision, DecisionTree } from './decisions.ts';
import type { Judge } from './judge.ts';
import { LEAST_GUIDED_RUNS, MAX_FRONTIER } from './limits.ts';

// All states of a cut, by what the checker reads of them: states that differ only in what it never reads, or reads only
// after it has overwritten it, are one. Jaaru's idea (ASPLOS 2021), for disks.

export interface GuidedOutcome {
  /** Every state of the cut is judged. */
  readonly exact: boolean;
  /** Why it is not. */
  readonly note: string | null;
}

export interface GuidedLimits {
  readonly jobs: number;
  /** True: the exploration as a whole has to end. */
  stopped(): boolean;
  /** True: this cut has had its share of the budget. */
  spent(): boolean;
  /** Room for others: progress, signals. */
  pace(): Promise<void>;
}

/** The images of `judge` must be at the cut that `tree` is of. */
export async function exploreReads(
  judge: Judge,
  tree: DecisionTree,
  limits: GuidedLimits,
): Promise<GuidedOutcome> {
  const { images } = judge;
  const { cut } = images;
  const frontier: (Decision | null)[] = [null];
  let [asked, answered, note] = [0, 0, null as string | null];

  while (frontier.length > 0 || answered < asked) {
    if (limits.stopped()) return gaveUp('read-guided: the exploration ended before it was done');
    if (note !== null) return gaveUp(note);
    if (frontier.length > MAX_FRONTIER) {
      return gaveUp(`read-guided: given up with ${frontier.length} decisions waiting`);
    }
    if (asked > LEAST_GUIDED_RUNS && limits.spent()) {
      return gaveUp(`read-guided: its share of the budget was used up after ${answered} states`);
    }
    if (frontier.length === 0 || judge.full) {
      if (frontier.length === 0) judge.flush();
      await judge.next();
      continue;
    }
    await limits.pace();
    // Few decisions are spread over all workers.
    judge.batchSize = Math.ceil(frontier.length / limits.jobs);
    const chain = frontier.pop() ?? null;
    images.moveTo(cut);
    const rule = tree.rule(chain);
    images.apply(rule);
    asked += 1;
    judge.ask(rule, 'read-guided', (reads, kind) => {
      answered += 1;
      const { outcome } = judge.book.kind(kind).verdict;
      if (reads === null) note = 'read-guided: a run did not tell what it read';
      else if (!judge.book.isJudged(kind)) note = `read-guided: given up at a verdict '${outcome}'`;
      else tree.split(chain, reads, (other) => frontier.push(other));
    });
  }
  if (note !== null) return gaveUp(note);
  if (judge.tally.totals.contradictions > 0) return gaveUp(CONTRADICTED);
  const { unjudged } = judge.tally.cut(cut);
  if (unjudged > 0) return gaveUp(`read-guided: ${unjudged} states got neither pass nor fail`);
  return { exact: true, note: null };
}

function gaveUp(note: string): GuidedOutcome {
  return { exact: false, note };
}
