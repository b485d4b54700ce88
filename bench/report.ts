import { short } from './statistics.ts';

/** One measured value of one subject: the median over the rounds, and every round. */
export interface Row {
  readonly suite: string;
  readonly workload: string;
  readonly subject: string;
  readonly metric: string;
  readonly unit: string;
  readonly median: number;
  readonly rounds: readonly number[];
}

/** Ours against the best of the others in one workload; above 1 we lead. */
export interface Ratio {
  readonly workload: string;
  readonly ours: number;
  readonly best: number;
  readonly bestSubject: string;
  readonly ratio: number;
}

export interface Report {
  readonly rows: readonly Row[];
  readonly ratios: readonly Ratio[];
}

/** The metrics that say how fast, as opposed to at what cost. */
export const RATE_METRICS: ReadonlySet<string> = new Set([
  'IOPS',
  'throughput',
  'commits',
  'runs',
  'states',
]);

/** `peers`: the subjects that are not ours. */
export function ratiosOf(rows: readonly Row[], ours: string, peers: ReadonlySet<string>): Ratio[] {
  const ratios: Ratio[] = [];
  for (const mine of rows) {
    if (mine.subject !== ours || !RATE_METRICS.has(mine.metric)) continue;
    const others = rows.filter(
      (row) =>
        row.workload === mine.workload && row.metric === mine.metric && peers.has(row.subject),
    );
    const best = others.toSorted((a, b) => b.median - a.median)[0];
    if (best === undefined) continue;
    ratios.push({
      workload: mine.workload,
      ours: mine.median,
      best: best.median,
      bestSubject: best.subject,
      ratio: mine.median / best.median,
    });
  }
  return ratios;
}

/** The rows as a grid: a line for each workload, a column for each subject. */
export function grid(report: Report): { header: string[]; lines: string[][] } {
  const rates = report.rows.filter((row) => RATE_METRICS.has(row.metric));
  const workloads = [...new Set(rates.map((row) => row.workload))];
  const subjects = [...new Set(rates.map((row) => row.subject))];
  const find = (workload: string, subject: string, metric: string): Row | undefined =>
    report.rows.find(
      (row) => row.workload === workload && row.subject === subject && row.metric === metric,
    );
  const lines = workloads.map((workload) => {
    const cells = subjects.map((subject) =>
      short(
        rates.find((row) => row.workload === workload && row.subject === subject)?.median ??
          Number.NaN,
      ),
    );
    const unit = rates.find((row) => row.workload === workload)?.unit ?? '';
    const ratio = report.ratios.find((entry) => entry.workload === workload);
    const cpu = (subject: string | undefined, metric: string): string =>
      short(find(workload, subject ?? '', metric)?.median ?? Number.NaN);
    const first = subjects[0];
    const second = ratio?.bestSubject ?? subjects[1];
    const shared = find(workload, first ?? '', 'flushes per sync')?.median ?? Number.NaN;
    return [
      workload,
      unit,
      ...cells,
      ratio === undefined ? '-' : `${ratio.ratio.toFixed(2)}x ${ratio.bestSubject}`,
      `${cpu(first, 'client CPU')} / ${cpu(second, 'client CPU')}`,
      `${cpu(first, 'server CPU')} / ${cpu(second, 'server CPU')}`,
      short(shared),
    ];
  });
  const header = ['workload', 'unit', ...subjects, `${subjects[0] ?? ''} : best peer`];
  return {
    header: [...header, 'client CPU % (first / best)', 'server CPU %', 'flushes per sync'],
    lines,
  };
}

/** For a terminal: columns padded with blanks. */
export function asText(report: Report): string {
  const { header, lines } = grid(report);
  const widths = header.map((title, i) =>
    Math.max(title.length, ...lines.map((line) => line[i]?.length ?? 0)),
  );
  const pad = (line: readonly string[]): string =>
    line
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ');
  return [pad(header), ...lines.map(pad)].join('\n');
}

export function asMarkdown(report: Report, notes: readonly string[]): string {
  const { header, lines } = grid(report);
  const rule = header.map((_, i) => (i === 0 ? '---' : '---:'));
  const table = [header, rule, ...lines].map((cells) => `| ${cells.join(' | ')} |`);
  return [...notes.map((note) => `- ${note}`), '', ...table, ''].join('\n');
}
