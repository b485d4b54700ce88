import { formatSize } from '../../base/units.ts';
import { FLAG, OP } from '../../block/io.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';
import { element, escape, hint, px } from './html.ts';

// The map of a recording: where on the disk (up), when (right). Time is counted in events, so that a burst and a pause are
// equally wide.

export interface MapOptions {
  readonly title: string;
  /** Events shown: [from, to). */
  readonly from: number;
  readonly to: number;
  /** Drawn as lost, and as the ones that were there. */
  readonly lost: ReadonlySet<number>;
  readonly kept: ReadonlySet<number>;
  /** The instant of the cut; -1: none. */
  readonly cut: number;
}

const WIDTH = 960;
const LEFT = 88;
const RIGHT = 12;
const TOP = 10;
const BAND_HEIGHT = 220;
const ACKS_HEIGHT = 34;
/** More than these make a picture that no browser likes and nobody can read: the rest is merged. */
const MOST_MARKS = 6000;
const LEAST_PIXELS = 2;

/** One SVG with a band for each disk, flush lines, the cut, and the acknowledgements below. */
export function drawMap(trace: Trace, options: MapOptions): string {
  const bands = trace.disks.map(({ number }) => new Band(trace, number, options));
  const height = TOP + bands.length * (BAND_HEIGHT + 14) + ACKS_HEIGHT;
  const parts: string[] = [];
  let top = TOP;
  for (const band of bands) {
    parts.push(band.draw(top));
    top += BAND_HEIGHT + 14;
  }
  parts.push(drawAcks(trace, options, top));
  if (options.cut >= 0) parts.push(drawCut(options, height));
  return element(
    'svg',
    {
      viewBox: `0 0 ${WIDTH} ${height}`,
      role: 'img',
      'aria-label': options.title,
      class: 'map',
    },
    hint(options.title) + parts.join('\n'),
  );
}

function xOf(event: number, { from, to }: MapOptions): number {
  const share = (Math.min(Math.max(event, from), to) - from) / Math.max(1, to - from);
  return LEFT + share * (WIDTH - LEFT - RIGHT);
}

function drawCut(options: MapOptions, height: number): string {
  const x = px(xOf(options.cut, options));
  return (
    element(
      'line',
      { x1: x, x2: x, y1: 0, y2: height, class: 'cut' },
      hint('the power fails here'),
    ) +
    element(
      'text',
      { x, y: height - 2, class: 'label cut-label', 'text-anchor': 'end' },
      'power cut ',
    )
  );
}

function drawAcks(trace: Trace, options: MapOptions, top: number): string {
  const y = top + 8;
  const line = element('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y, class: 'axis' });
  const label = element(
    'text',
    { x: LEFT - 6, y: y + 4, class: 'label', 'text-anchor': 'end' },
    'acks',
  );
  const marks = trace.marks.filter(({ event }) => event >= options.from && event < options.to);
  const every = Math.max(1, Math.ceil(marks.length / 1000));
  const dots = marks
    .filter((_, i) => i % every === 0)
    .map(({ kind, text, event }) =>
      element(
        'circle',
        { cx: px(xOf(event, options)), cy: y, r: 4, class: kind === 'ack' ? 'ack' : 'note' },
        hint(`${kind === 'ack' ? 'acknowledged' : 'note'}: ${text}`),
      ),
    );
  return line + label + dots.join('');
}

/** What of one disk is drawn: only places that are written, in order, with the gaps left out. */
class Band {
  readonly #trace: Trace;
  readonly #disk: number;
  readonly #options: MapOptions;
  readonly #requests: number[] = [];
  readonly #flushes: number[] = [];
  /** Written places, joined: [start, end) in bytes, and where each begins in the picture's own bytes. */
  readonly #places: { start: number; end: number; at: number }[] = [];
  #total = 0;

  constructor(trace: Trace, disk: number, options: MapOptions) {
    this.#trace = trace;
    this.#disk = disk;
    this.#options = options;
    this.#collect();
    this.#joinPlaces();
  }

  draw(top: number): string {
    const name = this.#trace.disks[this.#disk]?.name ?? '';
    const frame = element('rect', {
      x: LEFT,
      y: top,
      width: WIDTH - LEFT - RIGHT,
      height: BAND_HEIGHT,
      class: 'frame',
    });
    return [frame, this.#labels(top, name), this.#drawFlushes(top), this.#drawRequests(top)].join(
      '\n',
    );
  }

  #collect(): void {
    const { count, op, disk, issued, done, length } = this.#trace.requests;
    const { from, to } = this.#options;
    for (let r = 0; r < count; r += 1) {
      if (disk[r] !== this.#disk || (issued[r] as number) >= to || (done[r] as number) < from)
        continue;
      if (op[r] === OP.FLUSH) this.#flushes.push(r);
      else if (op[r] !== OP.READ && (length[r] as number) > 0) this.#requests.push(r);
    }
  }

  #joinPlaces(): void {
    const { offset, length } = this.#trace.requests;
    const ranges = this.#requests
      .map((r) => [offset[r] as number, (offset[r] as number) + (length[r] as number)] as const)
      .toSorted((a, b) => a[0] - b[0]);
    for (const [start, end] of ranges) {
      const last = this.#places.at(-1);
      if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
      else this.#places.push({ start, end, at: 0 });
    }
    // A discard of everything must not press all else flat: the picture grows with the logarithm of a place.
    for (const place of this.#places) {
      place.at = this.#total;
      this.#total += weight(place.end - place.start);
    }
  }

  #y(byte: number, top: number): number {
    let low = 0;
    let high = this.#places.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#places[middle]?.start ?? 0) <= byte) low = middle;
      else high = middle - 1;
    }
    const place = this.#places[low];
    if (place === undefined) return top + BAND_HEIGHT;
    const inside = Math.min(1, (byte - place.start) / (place.end - place.start));
    const at = place.at + inside * weight(place.end - place.start);
    return top + BAND_HEIGHT - (at / this.#total) * BAND_HEIGHT;
  }

  #labels(top: number, name: string): string {
    const first = this.#places[0];
    const last = this.#places.at(-1);
    if (first === undefined || last === undefined) {
      return element(
        'text',
        { x: LEFT + 8, y: top + 20, class: 'label' },
        'nothing is written here',
      );
    }
    const label = (y: number, text: string): string =>
      element('text', { x: LEFT - 6, y, class: 'label', 'text-anchor': 'end' }, escape(text));
    return (
      label(top + 10, formatSize(last.end)) +
      label(top + BAND_HEIGHT / 2, name.split('/').at(-1)?.slice(0, 12) ?? '') +
      label(top + BAND_HEIGHT, formatSize(first.start))
    );
  }

  #drawFlushes(top: number): string {
    const { issued, done, failed } = this.#trace.requests;
    const every = Math.max(1, Math.ceil(this.#flushes.length / MOST_MARKS));
    return this.#flushes
      .filter((_, i) => i % every === 0)
      .map((r) => {
        const [from, to] = this.#span(issued[r] as number, done[r] as number, 1.5);
        const bad = failed[r] === 1 || done[r] === NEVER;
        return element(
          'rect',
          {
            x: px(from),
            y: top,
            width: px(to - from),
            height: BAND_HEIGHT,
            class: bad ? 'flush bad' : 'flush',
          },
          hint(
            `#${r} FLUSH${failed[r] === 1 ? ', failed' : done[r] === NEVER ? ', never done' : ''}`,
          ),
        );
      })
      .join('');
  }

  #span(issued: number, done: number, least: number): readonly [number, number] {
    const from = xOf(issued, this.#options);
    return [from, Math.max(from + least, xOf(done, this.#options))];
  }

  #drawRequests(top: number): string {
    const { lost, kept } = this.#options;
    const named = (r: number): boolean => lost.has(r) || kept.has(r);
    const every = Math.max(1, Math.ceil(this.#requests.length / MOST_MARKS));
    const shown = this.#requests.filter((r, i) => i % every === 0 || named(r));
    // What matters lies on top.
    return shown
      .toSorted((a, b) => Number(named(a)) - Number(named(b)))
      .map((r) => this.#drawRequest(r, top))
      .join('');
  }

  #drawRequest(r: number, top: number): string {
    const { issued, done, offset, length, op, flags, failed } = this.#trace.requests;
    const { lost, kept } = this.#options;
    const [from, to] = this.#span(issued[r] as number, done[r] as number, LEAST_PIXELS);
    const [start, bytes] = [offset[r] as number, length[r] as number];
    const low = this.#y(start, top);
    const high = Math.min(this.#y(start + bytes - 1, top), low - LEAST_PIXELS);
    const fua = ((flags[r] as number) & FLAG.FUA) === 0 ? '' : ' fua';
    const fate = lost.has(r) ? ' lost' : kept.has(r) ? ' kept' : '';
    const kind = op[r] === OP.WRITE ? 'write' : 'zeroes';
    const name = op[r] === OP.WRITE ? 'WRITE' : op[r] === OP.DISCARD ? 'DISCARD' : 'WRITE_ZEROES';
    const end = failed[r] === 1 ? ', failed' : done[r] === NEVER ? ', never done' : '';
    return element(
      'rect',
      {
        x: px(from),
        y: px(high),
        width: px(to - from),
        height: px(low - high),
        class: `${kind}${fua}${fate}`,
      },
      hint(
        `#${r} ${name}${fua === '' ? '' : ' FUA'} ${formatSize(bytes)} at ${start}${fate && `,${fate}`}${end}`,
      ),
    );
  }
}

function weight(bytes: number): number {
  return Math.log2(1 + bytes / 512);
}
