import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unreachable } from '../../base/assert.ts';
import { ConfigError, messageOf } from '../../base/errors.ts';
import type { Axis, CheckerSpec } from '../check/types.ts';
import type { ExploreOptions } from '../explore/types.ts';
import { investigate, type Investigation } from '../investigate.ts';
import type { CrashModel } from '../model/types.ts';
import { renderReport } from '../report/report.ts';
import { checkerOf, recordSource } from './record-row.ts';
import type { Answer, CalibrateOptions, CrashRow, Row, RowResult } from './types.ts';

/** The most frequent finding of each axis. */
const MOST_CAUSES = 3;
/** Enough for a kind of cause; a smaller set of lost writes is no matter here. */
const STATES_FOR_CAUSE = 40;
const AXES: readonly Axis[] = ['integrity', 'atomicity', 'durability'];

/** Runs one row. What keeps it from running is its result; only bugs are thrown. */
export async function runRow(row: Row, options: CalibrateOptions): Promise<RowResult> {
  const started = performance.now();
  const result = await resultOf(row, options).catch((error: unknown) => {
    if (!(error instanceof ConfigError)) throw error;
    return { ...blank(row), outcome: 'cannot', found: messageOf(error) } as const;
  });
  return { ...result, seconds: (performance.now() - started) / 1000 };
}

async function resultOf(row: Row, options: CalibrateOptions): Promise<RowResult> {
  switch (row.kind) {
    case 'count':
      return { ...blank(row), ...compare(row.run()) };
    case 'self-test':
      return { ...blank(row), ...compare(await row.run(options)) };
    case 'crash':
      return runCrashRow(row, options);
    default:
      return unreachable(row);
  }
}

function compare({ known, found }: Answer): Partial<RowResult> {
  return { expected: known, found, outcome: known === found ? 'as-known' : 'other' };
}

function blank(row: Row): RowResult {
  const crash = row.kind === 'crash' ? row : null;
  return {
    id: row.id,
    title: row.title,
    kind: row.kind,
    outcome: 'other',
    expected: crash === null ? '' : wordsOf(crash),
    found: '',
    basis: row.kind === 'count' ? 'the definition of the model' : row.basis,
    breaks: crash === null ? 0 : axesOf(crash, 'breaks').length,
    breaksFound: 0,
    holds: crash === null ? 0 : axesOf(crash, 'holds').length,
    falseAlarms: 0,
    statesDecided: 0,
    checkerRuns: 0,
    cutsExact: 0,
    cuts: 0,
    seconds: 0,
  };
}

function axesOf({ expected }: CrashRow, which: 'holds' | 'breaks'): Axis[] {
  return AXES.filter((axis) => expected[axis] === which);
}

function wordsOf({ expected }: CrashRow): string {
  return AXES.filter((axis) => expected[axis] !== undefined)
    .map((axis) => `${axis} ${expected[axis]}`)
    .join(', ');
}

async function runCrashRow(row: CrashRow, options: CalibrateOptions): Promise<RowResult> {
  const work = mkdtempSync(join(tmpdir(), 'holdfast-calibrate-'));
  try {
    const folder = options.keep ?? work;
    mkdirSync(folder, { recursive: true });
    const trace = join(folder, `${row.id}.trace`);
    await recordSource(row, trace, options);
    const checker = checkerOf(row, work);
    return await investigate(
      {
        explore: exploreOptions(row, trace, checker, options),
        mostCauses: MOST_CAUSES,
        statesForCause: STATES_FOR_CAUSE,
      },
      { progress: () => {}, interrupted: options.signal, remark: options.remark },
      (model, found) => {
        if (options.keep !== null) keepReport(row, model, found, checker, options);
        return judge(row, found);
      },
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function exploreOptions(
  row: CrashRow,
  tracePath: string,
  checker: CheckerSpec,
  options: CalibrateOptions,
): ExploreOptions {
  return {
    tracePath,
    model: { model: row.model, unitBytes: 512, overlap: 'issued', poison: false },
    checker,
    jobs: options.jobs,
    budgetMs: options.budgetMs,
    seed: 1,
    readGuided: true,
    checkBase: false,
    progressPath: null,
  };
}

function keepReport(
  row: CrashRow,
  model: CrashModel,
  { exploration, causes }: Investigation,
  checker: CheckerSpec,
  { keep, version }: CalibrateOptions,
): void {
  const page = renderReport({
    model,
    exploration,
    causes,
    checker: checker.kind,
    replayOptions: `--trace ${row.id}.trace`,
    version,
  });
  writeFileSync(join(keep ?? '.', `${row.id}.html`), page);
}

function judge(row: CrashRow, { exploration, causes }: Investigation): RowResult {
  const { findings, coverage } = exploration;
  const failing = new Set(
    findings.filter(({ verdict }) => verdict.outcome === 'fail').map(({ verdict }) => verdict.axis),
  );
  const doubts = findings.filter(({ verdict }) => !['fail', 'skip'].includes(verdict.outcome));
  const wrong = axesOf(row, 'holds').filter((axis) => failing.has(axis));
  const named = axesOf(row, 'breaks').filter((axis) =>
    causes.some(({ finding, kind }) => finding.verdict.axis === axis && row.causes.includes(kind)),
  );
  const missed = axesOf(row, 'breaks').filter((axis) => !named.includes(axis));
  const counted = coverage.filter(({ reached }) => reached !== 'left-out');
  const told = causes.map(({ finding, kind }) => `${finding.verdict.axis ?? ''}: ${kind}`);
  const asKnown = wrong.length + missed.length + doubts.length === 0;
  return {
    ...blank(row),
    outcome: asKnown ? 'as-known' : 'other',
    found: [
      ...(told.length === 0 ? ['nothing fails'] : new Set(told)),
      ...doubts.map(({ verdict }) => `${verdict.outcome} ${verdict.class}`),
    ].join('; '),
    breaksFound: named.length,
    falseAlarms: wrong.length,
    statesDecided: exploration.statesDecided,
    checkerRuns: exploration.checkerRuns,
    cutsExact: counted.filter(({ reached }) => reached === 'exact').length,
    cuts: counted.length,
  };
}
