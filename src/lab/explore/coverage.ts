import { beginOf } from '../model/requests.ts';
import type { CrashModel } from '../model/types.ts';
import type { CutTally, Tally } from './tally.ts';
import type { CutCoverage } from './types.ts';

/** Why what was exact by reads is not, when the checker turns out to answer by something else. */
export const CONTRADICTED =
  'read-guided: the checker came to different verdicts after reading the same';

/** What can be said of each cut, and no more. `from`: the first cut that is not left out. */
export function coverageOf(model: CrashModel, tally: Tally, from: number): CutCoverage[] {
  return model.cuts.map(({ index }) => {
    const view = model.view(index);
    const cut = tally.cut(index);
    const isRefuted = cut.exact === 'read-guided' && tally.totals.contradictions > 0;
    const exact = isRefuted ? null : cut.exact;
    return {
      cut: index,
      plainCount: String(view.plainCount),
      reached: index < from ? 'left-out' : reachedBy(cut, exact),
      how: exact,
      rungs: cut.rungs,
      statesDecided: cut.decided,
      openRequests: view.requests.length,
      openUnits: view.units.length,
      note: exact === cut.exact ? cut.note : CONTRADICTED,
    };
  });
}

/** Finished rungs decide: a rung that was cut short has shown states, and proves nothing about the others. */
function reachedBy(cut: CutTally, exact: CutTally['exact']): CutCoverage['reached'] {
  if (exact !== null) return 'exact';
  if (cut.listed || cut.rungs.includes('pairs')) return 'pairs';
  return cut.decided > 0 ? 'sampled' : 'nothing';
}

/** The first cut after the note 'begin'; 0 without one. Before it, the disk is not yet the workload's. */
export function firstCut(model: CrashModel): number {
  const begin = beginOf(model.trace);
  if (begin === null) return 0;
  return Math.max(
    0,
    model.cuts.findIndex(({ event }) => event > begin),
  );
}
