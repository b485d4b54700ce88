import type { Report } from './report.ts';
import { RATE_METRICS } from './report.ts';
import { short } from './statistics.ts';

const WIDTH = 920;
const LEFT = 150;
const BAR = 13;
const GAP = 16;
const TITLE = 20;
const OURS_COLOURS = ['#0b6e4f', '#4fa98a', '#7cc4ab'];
const PEER_COLOURS = ['#7a869a', '#949fb1', '#a9b2c1', '#bcc4d0', '#ccd2db', '#d9dde4'];

/**
 * A picture of the rates: a group of bars for each workload, each group on its own scale, since only ratios mean
 * anything. The same report always gives the same bytes.
 */
export function asSvg(report: Report, title: string, ours: ReadonlySet<string>): string {
  const rates = report.rows.filter((row) => RATE_METRICS.has(row.metric));
  const subjects = [...new Set(rates.map((row) => row.subject))];
  const colours = new Map<string, string>();
  for (const subject of subjects) {
    const palette = ours.has(subject) ? OURS_COLOURS : PEER_COLOURS;
    const index = [...colours.keys()].filter((name) => ours.has(name) === ours.has(subject)).length;
    colours.set(subject, palette[index % palette.length] as string);
  }
  const body: string[] = [];
  let y = 48;
  for (const workload of new Set(rates.map((row) => row.workload))) {
    const rows = rates.filter((row) => row.workload === workload);
    const most = Math.max(...rows.map((row) => row.median));
    const ratio = report.ratios.find((entry) => entry.workload === workload);
    const lead = ratio === undefined ? '' : ` · ${ratio.ratio.toFixed(2)}x ${ratio.bestSubject}`;
    body.push(text(LEFT, y, `${workload}, ${rows[0]?.unit ?? ''}${lead}`, 'group'));
    y += TITLE - BAR;
    for (const row of rows) {
      const length = Math.max(1, Math.round(((WIDTH - LEFT - 90) * row.median) / most));
      const fill = colours.get(row.subject) as string;
      body.push(text(LEFT - 8, y + BAR - 3, row.subject, 'name'));
      body.push(
        `<rect x="${LEFT}" y="${y}" width="${length}" height="${BAR - 2}" fill="${fill}"/>`,
      );
      body.push(text(LEFT + length + 6, y + BAR - 3, short(row.median), 'value'));
      y += BAR;
    }
    y += GAP + BAR;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" role="img" aria-label="${escape(title)}">`,
    '<style>text{font:11px system-ui,sans-serif;fill:#333}.title{font-size:16px;font-weight:600}',
    '.group{font-weight:600}.name{text-anchor:end}',
    '@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>',
    text(12, 24, title, 'title'),
    ...body,
    '</svg>',
    '',
  ].join('\n');
}

function text(x: number, y: number, content: string, className: string): string {
  return `<text x="${x}" y="${y}" class="${className}">${escape(content)}</text>`;
}

function escape(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
