import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError, messageOf } from '../../base/errors.ts';
import type { Axis, CheckerSpec } from '../check/types.ts';
import type { ExploreOptions } from '../explore/types.ts';
import { investigate, type Investigation } from '../investigate.ts';
import type { CrashModel } from '../model/types.ts';
import { record } from '../record/record.ts';
import { renderReport } from '../report/report.ts';
import type { Row, RowResult, WorkloadRow } from './types.ts';
import { findWorkload, workloadCommand, workloadSettings } from './workloads/registry.ts';

export interface CalibrateOptions {
  /** For the exploration of one row. */
  readonly budgetMs: number;
  readonly jobs: number;
  /** Traces and reports are kept there; null: nowhere. */
  readonly keep: string | null;
  readonly version: string;
  readonly signal: AbortSignal;
  readonly remark: (line: string) => void;
}

const TIMEOUT_MS = 20_000;
const MOST_CAUSES = 4;
const STATES_FOR_CAUSE = 200;
const AXES: readonly Axis[] = ['integrity', 'atomicity', 'durability'];

/** Runs one row. What keeps it from running is its result; only bugs are thrown. */
export async function runRow(row: Row, options: CalibrateOptions): Promise<RowResult> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  if (row.kind === 'count') {
    const { counted, known } = row.run();
    return { ...blank(row), ...countResult(counted, known), seconds: seconds() };
  }
  try {
    const result = await runWorkloadRow(row, options);
    return { ...result, seconds: seconds() };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { ...blank(row), outcome: 'cannot', found: messageOf(error), seconds: seconds() };
  }
}

function countResult(counted: string, known: string): Partial<RowResult> {
  return {
    expected: known,
    found: counted,
    outcome: counted === known ? 'as-known' : 'other',
  };
}

function blank(row: Row): RowResult {
  return {
    id: row.id,
    title: row.title,
    kind: row.kind,
    outcome: 'other',
    expected: row.kind === 'workload' ? wordsOf(row.expected) : '',
    found: '',
    breaks: row.kind === 'workload' ? axesOf(row, 'breaks').length : 0,
    breaksFound: 0,
    sound: row.kind === 'workload' && axesOf(row, 'breaks').length === 0,
    falseAlarm: false,
    statesDecided: 0,
    checkerRuns: 0,
    cutsExact: 0,
    cuts: 0,
    seconds: 0,
  };
}

function axesOf({ expected }: WorkloadRow, which: 'holds' | 'breaks'): Axis[] {
  return AXES.filter((axis) => expected[axis] === which);
}

function wordsOf(expected: WorkloadRow['expected']): string {
  return AXES.filter((axis) => expected[axis] !== undefined)
    .map((axis) => `${axis} ${expected[axis]}`)
    .join(', ');
}

async function runWorkloadRow(row: WorkloadRow, options: CalibrateOptions): Promise<RowResult> {
  const work = mkdtempSync(join(tmpdir(), 'holdfast-calibrate-'));
  try {
    const folder = options.keep ?? work;
    mkdirSync(folder, { recursive: true });
    const trace = join(folder, `${row.id}.trace`);
    const checker = prepareChecker(row, work);
    await recordRow(row, trace, options);
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

/** The oracle of the workload, or that of the disk; what the workload declares is in a file beside it. */
function prepareChecker(row: WorkloadRow, work: string): CheckerSpec {
  if (row.oracle !== null) return { kind: row.oracle, options: {}, timeoutMs: TIMEOUT_MS };
  const workload = findWorkload(row.workload);
  const settings = workloadSettings(workload, row.options);
  const manifest = join(work, 'manifest.json');
  writeFileSync(manifest, JSON.stringify(workload.manifest(settings)));
  const { kind, options } = workload.judged(settings, manifest);
  return {
    kind,
    options: { ...options, fs: row.fs, 'mount-options': row.mountOptions },
    timeoutMs: TIMEOUT_MS,
  };
}

async function recordRow(row: WorkloadRow, out: string, options: CalibrateOptions): Promise<void> {
  const workload = findWorkload(row.workload);
  const command = (step: 'prepare' | 'run'): readonly string[] =>
    workloadCommand(workload, step, '{mount}', row.options);
  const code = await record(
    {
      image: null,
      sizeBytes: row.sizeBytes,
      face: 'fuse',
      cache: row.cache,
      out,
      command: command('run'),
      fileSystem: { type: row.fs, make: row.make, mountOptions: row.mountOptions },
      prepare: command('prepare'),
      ackPattern: /^ACK (.*)/,
      signal: options.signal,
    },
    { line: () => {}, warn: options.remark, serving: () => Promise.resolve(() => {}) },
  );
  if (code !== 0) {
    throw new ConfigError(`the workload ${row.workload} ended with ${code}`, 'see what it said');
  }
}

function exploreOptions(
  row: WorkloadRow,
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
  row: WorkloadRow,
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

function judge(row: WorkloadRow, { exploration, causes }: Investigation): RowResult {
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
    falseAlarm: wrong.length > 0,
    statesDecided: exploration.statesDecided,
    checkerRuns: exploration.checkerRuns,
    cutsExact: counted.filter(({ reached }) => reached === 'exact').length,
    cuts: counted.length,
  };
}
