import { openTrace } from '../trace/reader.ts';
import { openCheckerPool } from './check/pool.ts';
import type { CheckerPool } from './check/types.ts';
import { explore, type ExploreHooks } from './explore/explore.ts';
import type { Decide, Exploration, ExploreOptions, Finding } from './explore/types.ts';
import { explainFinding } from './minimise/cause.ts';
import type { Cause } from './minimise/types.ts';
import { openCrashModel } from './model/crash-model.ts';
import { stateId } from './model/state-id.ts';
import type { CrashModel } from './model/types.ts';
import { openPlaces } from './places/places.ts';

/** How an exploration is followed by the search for causes. */
export interface InvestigateOptions {
  readonly explore: ExploreOptions;
  /** The most findings that are explained, the most frequent of each axis first. */
  readonly mostCauses: number;
  /** The most states asked for each of them. */
  readonly statesForCause: number;
}

export interface InvestigateHooks extends ExploreHooks {
  /** A finding is about to be explained. */
  readonly explaining?: (finding: Finding) => void;
  /** One line that the operator should know. */
  readonly remark?: (line: string) => void;
}

export interface Investigation {
  readonly exploration: Exploration;
  readonly causes: readonly Cause[];
}

/**
 * Explores the crash states of a trace and explains what fails. `use` gets the result while trace and model are still
 * open: a report reads data.
 */
export async function investigate<T>(
  options: InvestigateOptions,
  hooks: InvestigateHooks,
  use: (model: CrashModel, found: Investigation) => T | Promise<T>,
): Promise<T> {
  const { tracePath, model: modelOptions, checker, jobs, readGuided } = options.explore;
  const trace = openTrace(tracePath);
  try {
    const model = openCrashModel(trace, modelOptions);
    const pool = await openCheckerPool({
      model,
      checker,
      jobs,
      wantReads: readGuided,
      ...(hooks.remark === undefined ? {} : { remark: hooks.remark }),
    });
    try {
      const exploration = await explore(model, pool, options.explore, hooks);
      const causes = await explainAll(model, pool, exploration, options, hooks);
      return await use(model, { exploration, causes });
    } finally {
      await pool.close();
      model.close();
    }
  } finally {
    trace.close();
  }
}

/** Failures only: of a checker that crashed or hung, the smallest state says nothing about the disk. */
async function explainAll(
  model: CrashModel,
  pool: CheckerPool,
  exploration: Exploration,
  options: InvestigateOptions,
  hooks: InvestigateHooks,
): Promise<Cause[]> {
  const failures = inTurns(
    exploration.findings
      .filter(({ verdict }) => verdict.outcome === 'fail')
      .toSorted((a, b) => b.count - a.count),
  );
  if (failures.length === 0) return [];
  const decide = decideWith(model, pool);
  const places = await openPlaces(model);
  const describe = (disk: number, offset: number): Promise<string | null> =>
    places.describe(disk, offset);
  try {
    const causes: Cause[] = [];
    for (const finding of failures.slice(0, options.mostCauses)) {
      if (hooks.interrupted.aborted) break;
      hooks.explaining?.(finding);
      const limits = { mostStates: options.statesForCause, describe };
      causes.push(await explainFinding(model, finding, decide, limits));
    }
    return causes;
  } finally {
    await places.close();
  }
}

/** Those of one axis must not keep those of another from being explained: the first of each, then the second of each. */
function inTurns(findings: readonly Finding[]): Finding[] {
  const seen = new Map<Finding['verdict']['axis'], number>();
  const places = new Map<Finding, number>();
  for (const finding of findings) {
    const { axis } = finding.verdict;
    const place = seen.get(axis) ?? 0;
    places.set(finding, place);
    seen.set(axis, place + 1);
  }
  return findings.toSorted((a, b) => (places.get(a) ?? 0) - (places.get(b) ?? 0));
}

/** Asks the pool, and remembers. */
function decideWith(model: CrashModel, pool: CheckerPool): Decide {
  const known = new Map<string, ReturnType<Decide>>();
  return (state) => {
    const id = stateId(model.trace.fingerprint, model.options, state);
    const before = known.get(id);
    if (before !== undefined) return before;
    const answer = pool.run([state]).then(([run]) => {
      if (run === undefined) throw new Error('the pool gave no verdict');
      return run.verdict;
    });
    known.set(id, answer);
    return answer;
  };
}
