import type { CutCoverage, Exploration, Finding } from '../explore/types.ts';
import type { CrashModel } from '../model/types.ts';
import { element, escape, hint, px, table } from './html.ts';

// What was looked at, in words, as a bar and as a table; and what came of it.

const WIDTH = 960;
const BAR_HEIGHT = 26;
const MOST_ROWS = 500;
const MOST_CELLS = 480;

/** From the best to the worst. */
const RANKS = ['exact', 'pairs', 'sampled', 'nothing', 'left-out'] as const;

const REACHED: Readonly<Record<CutCoverage['reached'], string>> = {
  exact: 'every state is decided',
  pairs: 'every pair of open requests was seen in all four combinations',
  sampled: 'some states were looked at',
  nothing: 'nothing was looked at',
  'left-out': 'left out, as it lies before the workload',
};

/** One sentence that says how much of all possible states was decided. */
export function coverageSentence(coverage: readonly CutCoverage[]): string {
  const of = (reached: CutCoverage['reached']): number =>
    coverage.filter((one) => one.reached === reached).length;
  const parts = RANKS.filter((reached) => of(reached) > 0).map(
    (reached) => `${of(reached)} of ${coverage.length}: ${REACHED[reached]}`,
  );
  return `Cuts by coverage: ${parts.join('; ')}.`;
}

/** A bar with one cell for each cut, in the order of time; where they are many, for several: the worst of them counts. */
export function coverageBar(coverage: readonly CutCoverage[]): string {
  const group = Math.max(1, Math.ceil(coverage.length / MOST_CELLS));
  const count = Math.max(1, Math.ceil(coverage.length / group));
  const width = WIDTH / count;
  const cells: string[] = [];
  for (let i = 0; i < coverage.length; i += group) {
    const part = coverage.slice(i, i + group);
    const worst = part.toSorted((a, b) => RANKS.indexOf(b.reached) - RANKS.indexOf(a.reached))[0];
    if (worst === undefined) continue;
    const box = {
      x: px((i / group) * width),
      y: 0,
      width: px(Math.max(0.5, width - (width > 4 ? 1 : 0))),
      height: BAR_HEIGHT,
      class: worst.reached,
    };
    const words =
      part.length === 1
        ? `cut ${worst.cut}: ${wordsOf(worst)}`
        : `cuts ${part[0]?.cut} to ${part.at(-1)?.cut}: ${coverageSentence(part)}`;
    cells.push(element('rect', box, hint(words)));
  }
  const attributes = {
    viewBox: `0 0 ${WIDTH} ${BAR_HEIGHT}`,
    role: 'img',
    'aria-label': 'coverage of each cut',
    preserveAspectRatio: 'none',
    class: 'strip',
  };
  return element('svg', attributes, cells.join(''));
}

/** Whether every state of every cut that counts is judged. */
export function isAllDecided(coverage: readonly CutCoverage[]): boolean {
  const counted = coverage.filter(({ reached }) => reached !== 'left-out');
  return counted.length > 0 && counted.every(({ reached }) => reached === 'exact');
}

function wordsOf(one: CutCoverage): string {
  const how =
    one.how === 'read-guided'
      ? ' (by what the checker reads)'
      : one.how === 'listed'
        ? ' (one by one)'
        : '';
  return `${REACHED[one.reached]}${how}; ${one.statesDecided} decided of ${shortNumber(one.plainCount)}`;
}

/** Decimal digits, or a power of two where nobody would count them. */
export function shortNumber(digits: string): string {
  if (digits.length <= 9) return digits;
  return `about 2^${BigInt(digits).toString(2).length - 1}`;
}

/** The bar's numbers. */
export function coverageTable(model: CrashModel, coverage: readonly CutCoverage[]): string {
  const rows = coverage.slice(0, MOST_ROWS).map((one) => {
    const cut = model.cuts[one.cut];
    const why = cut === undefined || cut.why === 'end' ? 'end' : `${cut.why} #${cut.request}`;
    return [
      String(one.cut),
      why,
      String(cut?.marks ?? ''),
      String(one.openRequests),
      String(one.openUnits),
      escape(shortNumber(one.plainCount)),
      String(one.statesDecided),
      REACHED[one.reached],
      escape([one.rungs.join(', '), one.note ?? ''].filter((text) => text !== '').join('; ')),
    ];
  });
  const rest =
    coverage.length > MOST_ROWS
      ? `<p>${coverage.length - MOST_ROWS} more cuts are not listed.</p>`
      : '';
  return (
    table(
      [
        'cut',
        'before',
        'marks',
        'open requests',
        'open units',
        'states',
        'decided',
        'coverage',
        'rungs',
      ],
      rows,
    ) + rest
  );
}

/** How many states came to which verdict. */
export function histogram({ findings, passes }: Exploration): string {
  const rows: [string, number, boolean][] = [
    ...findings.map((one): [string, number, boolean] => [findingName(one), one.count, true]),
    ...Object.entries(passes).map(([name, count]): [string, number, boolean] => [
      name === '' ? 'pass' : `pass: ${name}`,
      count,
      false,
    ]),
  ];
  const most = Math.max(1, ...rows.map(([, count]) => count));
  return table(
    ['verdict', 'states', ''],
    rows.map(([name, count, bad]) => [
      escape(name),
      String(count),
      `<div class="bar${bad ? ' fail' : ''}" style="width:${px((count / most) * 360)}px"></div>`,
    ]),
  );
}

export function findingName({ verdict }: Finding): string {
  const axis = verdict.axis === null ? '' : ` of ${verdict.axis}`;
  const outcome = verdict.outcome === 'fail' ? `failure${axis}` : verdict.outcome;
  return verdict.class === '' ? outcome : `${outcome}: ${verdict.class}`;
}
