import type { RowResult } from './types.ts';

/** What all rows come to. Shares are null where there was nothing to find, or to leave alone. */
export interface Score {
  /** Of the promises that are known to break, those for which a failing state was found, with a cause that may be. */
  readonly sensitivity: number | null;
  readonly breaks: number;
  /** Of the promises that are known to hold, those for which no failing state was found. */
  readonly specificity: number | null;
  readonly holds: number;
  readonly exactCounts: string;
  readonly asKnown: number;
  readonly rows: number;
  readonly cannot: readonly string[];
}

export function scoreOf(results: readonly RowResult[]): Score {
  const ran = results.filter(({ outcome }) => outcome !== 'cannot');
  const breaks = sum(ran.map((row) => row.breaks));
  const holds = sum(ran.map((row) => row.holds));
  const counts = ran.filter(({ kind }) => kind === 'count');
  return {
    sensitivity: breaks === 0 ? null : sum(ran.map((row) => row.breaksFound)) / breaks,
    breaks,
    specificity: holds === 0 ? null : 1 - sum(ran.map((row) => row.falseAlarms)) / holds,
    holds,
    exactCounts: `${counts.filter(isAsKnown).length} of ${counts.length}`,
    asKnown: ran.filter(isAsKnown).length,
    rows: results.length,
    cannot: results.filter(({ outcome }) => outcome === 'cannot').map(({ id }) => id),
  };
}

function isAsKnown({ outcome }: RowResult): boolean {
  return outcome === 'as-known';
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

const SIGNS = { 'as-known': '✔', other: '✘', cannot: '–' } as const;

/** One line of the table for people. */
export function rowLine(row: RowResult): string {
  const { id, title, outcome, expected, found } = row;
  const line = `${SIGNS[outcome]} ${id.padEnd(5)} ${title}: known ${expected}; found ${found}`;
  if (row.kind !== 'crash' || outcome === 'cannot') return line;
  const effort = [
    `${row.statesDecided} states`,
    `${row.checkerRuns} runs`,
    `${row.cutsExact} of ${row.cuts} cuts exact`,
    `${row.seconds.toFixed(0)} s`,
  ];
  return `${line} [${effort.join(', ')}]`;
}

/** The lines below the table. */
export function scoreLines(score: Score): string[] {
  return [
    `sensitivity: ${share(score.sensitivity, score.breaks, 'break')}`,
    `specificity: ${share(score.specificity, score.holds, 'hold')}`,
    `exact counts: ${score.exactCounts}`,
    `${score.asKnown} of ${score.rows} rows as known` +
      (score.cannot.length === 0 ? '' : `; not run here: ${score.cannot.join(', ')}`),
  ];
}

function share(value: number | null, of: number, what: string): string {
  if (value === null) return 'nothing to measure';
  return `${Math.round(value * 1000) / 10} % of ${of} promises that ${what}`;
}
