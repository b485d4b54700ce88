import type { Trace } from '../../trace/trace.ts';
import { element, escape, hint, px } from './html.ts';
import { Band } from './map-band.ts';
import {
  BAND_HEIGHT,
  beginOf,
  LEFT,
  type MapOptions,
  RIGHT,
  timeLabel,
  WIDTH,
  xOf,
} from './map-scale.ts';

// The map of a recording: where on the disk (up), when (right). A band for each disk, the acknowledgements below, the cuts
// through all of it.

/** Room for the names of cuts, for the name above each band, for acknowledgements, for times. */
const TOP = 16;
const NAME_HEIGHT = 20;
const ACKS_HEIGHT = 46;
const TIMES_HEIGHT = 20;

const MOST_DOTS = 1000;
const TICKS = 6;
const MOST_LETTERS = 40;

/** One SVG. It may be wider than a narrow screen: then it is for scrolling. */
export function drawMap(trace: Trace, options: MapOptions): string {
  const parts: string[] = [];
  let top = TOP;
  for (const { number } of trace.disks) {
    parts.push(new Band(trace, number, options).draw(top + NAME_HEIGHT));
    top += NAME_HEIGHT + BAND_HEIGHT;
  }
  parts.push(drawAcks(trace, options, top + 16));
  top += ACKS_HEIGHT;
  parts.push(...options.cuts.map((cut) => drawCut(cut, options, top)));
  parts.push(drawTimes(trace, options, top));
  const svg = element(
    'svg',
    {
      viewBox: `0 0 ${WIDTH} ${top + TIMES_HEIGHT}`,
      role: 'img',
      'aria-label': options.title,
      class: 'map',
    },
    hint(options.title) + parts.join('\n'),
  );
  return `<div class="scroll">${svg}</div>`;
}

/** Where a text of this many letters may stand so that nothing of it is cut off. */
function anchor(x: number, letters: number): { x: string; 'text-anchor': string } {
  const half = letters * 3.2;
  if (x - half < 0) return { x: px(2), 'text-anchor': 'start' };
  if (x + half > WIDTH) return { x: px(WIDTH - 2), 'text-anchor': 'end' };
  return { x: px(x), 'text-anchor': 'middle' };
}

function drawCut(
  { event, label }: MapOptions['cuts'][number],
  options: MapOptions,
  height: number,
): string {
  const x = xOf(event, options);
  const line = { x1: px(x), x2: px(x), y1: TOP - 2, y2: height, class: 'cut' };
  const text = { ...anchor(x, label.length), y: TOP - 5, class: 'label cut-label' };
  return element('line', line, hint('the power fails here')) + element('text', text, escape(label));
}

/** What was promised, and when. */
function drawAcks(trace: Trace, options: MapOptions, y: number): string {
  const line = element('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y, class: 'axis' });
  const at = { x: LEFT - 6, y: y + 4, class: 'label', 'text-anchor': 'end' };
  const label = element('text', at, 'promised');
  const marks = trace.marks.filter(({ event }) => event >= options.from && event < options.to);
  const every = Math.max(1, Math.ceil(marks.length / MOST_DOTS));
  const dots = marks
    .filter(({ event }, i) => i % every === 0 || event === options.broken)
    .toSorted((a, b) => Number(a.event === options.broken) - Number(b.event === options.broken))
    .map(({ kind, text, event }) => {
      const x = xOf(event, options);
      const short = text.length > MOST_LETTERS ? `${text.slice(0, MOST_LETTERS)}…` : text;
      const under = (name: string): string =>
        element('text', { ...anchor(x, short.length), y: y + 22, class: name }, escape(short));
      const words = hint(`${kind === 'ack' ? 'acknowledged' : 'note'}: ${text}`);
      if (kind === 'note') {
        const tick = { x1: px(x), x2: px(x), y1: y - 7, y2: y + 7, class: 'note' };
        return element('line', tick, words);
      }
      const isBroken = event === options.broken;
      const name = isBroken ? 'ack broken' : event >= options.future ? 'ack after' : 'ack';
      const dot = element('circle', { cx: px(x), cy: y, r: isBroken ? 6 : 4, class: name }, words);
      return isBroken ? dot + under('label cut-label') : dot;
    });
  return line + label + dots.join('');
}

/** When some of the events were: they are not evenly spread. */
function drawTimes(trace: Trace, options: MapOptions, top: number): string {
  const zero = beginOf(trace);
  const parts = [element('text', { x: 2, y: top + 14, class: 'label' }, 'time')];
  for (let i = 0; i <= TICKS; i += 1) {
    const event = Math.round(options.from + ((options.to - options.from) * i) / TICKS);
    const x = xOf(event, options);
    const text = timeLabel(trace, event, zero);
    const tick = { x1: px(x), x2: px(x), y1: top, y2: top + 4, class: 'axis' };
    parts.push(
      element('line', tick),
      element('text', { ...anchor(x, text.length), y: top + 14, class: 'label' }, escape(text)),
    );
  }
  return parts.join('');
}
