import { formatSize } from '../../base/units.ts';
import { FLAG, OP, opName } from '../../block/io.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';
import { element, escape, hint, px } from './html.ts';
import { BAND_HEIGHT, LEFT, type MapOptions, MOST_MARKS, RIGHT, WIDTH, xOf } from './map-scale.ts';

const LEAST_PIXELS = 2.5;
const LABEL_PIXELS = 13;
/** Gaps between places are drawn while they can be told apart. */
const MOST_GAPS = 40;
/** So are epochs: from one flush to the next. */
const MOST_EPOCHS = 240;

interface Place {
  /** Bytes. */
  readonly start: number;
  end: number;
  /** Where it begins in the picture's own measure. */
  at: number;
}

/** One disk in a map. Only places that are written are there, in order, with the gaps left out. */
export class Band {
  readonly #trace: Trace;
  readonly #disk: number;
  readonly #options: MapOptions;
  readonly #requests: number[] = [];
  readonly #flushes: number[] = [];
  readonly #places: Place[] = [];
  #total = 0;

  constructor(trace: Trace, disk: number, options: MapOptions) {
    this.#trace = trace;
    this.#disk = disk;
    this.#options = options;
    this.#collect();
    this.#joinPlaces();
  }

  draw(top: number): string {
    const box = { x: LEFT, y: top, width: WIDTH - LEFT - RIGHT, height: BAND_HEIGHT };
    return [
      element('rect', { ...box, class: 'frame' }),
      this.#drawEpochs(top),
      this.#drawPlaces(top),
      this.#drawFlushes(top),
      this.#drawRequests(top),
      this.#drawName(top),
    ].join('\n');
  }

  /** Of how many requests one is drawn. */
  get every(): number {
    return Math.max(1, Math.ceil(this.#requests.length / MOST_MARKS));
  }

  #collect(): void {
    const { count, op, disk, issued, done, length } = this.#trace.requests;
    const { from, to } = this.#options;
    for (let r = 0; r < count; r += 1) {
      const isOutside = (issued[r] as number) >= to || (done[r] as number) < from;
      if (disk[r] !== this.#disk || isOutside) continue;
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

  /** Above the band: which disk, and what is not drawn. */
  #drawName(top: number): string {
    const name = this.#trace.disks[this.#disk]?.name ?? '';
    const short = (name.split('/').at(-1) ?? '').slice(-60);
    const words = [
      this.#trace.disks.length > 1 ? `disk ${this.#disk}: ${short}` : short,
      this.#requests.length === 0 ? 'nothing is written here' : '',
      this.every > 1 ? `one of ${this.every} requests is drawn` : '',
    ];
    const text = words.filter((word) => word !== '').join('; ');
    return element('text', { x: LEFT, y: top - 5, class: 'label' }, escape(text));
  }

  /** Where the places begin, as far as there is room to say so. */
  #drawPlaces(top: number): string {
    const parts: string[] = [];
    let last = Infinity;
    for (const [i, place] of this.#places.entries()) {
      const y = this.#y(place.start, top);
      if (i > 0 && this.#places.length <= MOST_GAPS) {
        const ends = { x1: LEFT, x2: WIDTH - RIGHT, y1: px(y), y2: px(y) };
        parts.push(element('line', { ...ends, class: 'gap' }));
      }
      if (last - y < LABEL_PIXELS) continue;
      last = y;
      const at = { x: LEFT - 6, y: px(y), class: 'label', 'text-anchor': 'end' };
      parts.push(
        element('text', at, escape(formatSize(place.start)) + hint(`byte ${place.start}`)),
      );
    }
    return parts.join('');
  }

  /** Every second stretch between flushes that were done. */
  #drawEpochs(top: number): string {
    const { done, failed } = this.#trace.requests;
    const { from, to } = this.#options;
    const ends = this.#flushes
      .filter((r) => failed[r] === 0 && (done[r] as number) < to)
      .map((r) => done[r] as number)
      .toSorted((a, b) => a - b);
    if (ends.length > MOST_EPOCHS) return '';
    const parts: string[] = [];
    for (const [i, end] of [...ends, to].entries()) {
      if (i % 2 === 0) continue;
      const [x1, x2] = [xOf(ends[i - 1] ?? from, this.#options), xOf(end, this.#options)];
      const box = { x: px(x1), y: top, width: px(x2 - x1), height: BAND_HEIGHT };
      parts.push(element('rect', { ...box, class: 'epoch' }));
    }
    return parts.join('');
  }

  #drawFlushes(top: number): string {
    const { issued, done, failed } = this.#trace.requests;
    const every = Math.max(1, Math.ceil(this.#flushes.length / MOST_MARKS));
    return this.#flushes
      .filter((_, i) => i % every === 0)
      .map((r) => {
        const [from, to] = this.#span(issued[r] as number, done[r] as number, 1.5);
        const bad = failed[r] === 1 || done[r] === NEVER;
        const end = failed[r] === 1 ? ', failed' : done[r] === NEVER ? ', never done' : '';
        const box = { x: px(from), y: top, width: px(to - from), height: BAND_HEIGHT };
        const kind = `flush${bad ? ' bad' : ''}${this.#after(r)}`;
        return element('rect', { ...box, class: kind }, hint(`#${r} FLUSH${end}`));
      })
      .join('');
  }

  #span(issued: number, done: number, least: number): readonly [number, number] {
    const from = Math.min(xOf(issued, this.#options), WIDTH - RIGHT - least);
    return [from, Math.max(from + least, xOf(done, this.#options))];
  }

  #after(r: number): string {
    const { issued } = this.#trace.requests;
    return (issued[r] as number) >= this.#options.future ? ' after' : '';
  }

  #drawRequests(top: number): string {
    const { lost, kept } = this.#options;
    const named = (r: number): boolean => lost.has(r) || kept.has(r);
    const { every } = this;
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
    const name = opName(op[r] as number);
    const end = failed[r] === 1 ? ', failed' : done[r] === NEVER ? ', never done' : '';
    const words = `#${r} ${name}${fua === '' ? '' : ' FUA'} ${formatSize(bytes)} at byte ${start}`;
    return element(
      'rect',
      {
        x: px(from),
        y: px(high),
        width: px(to - from),
        height: px(low - high),
        class: `${kind}${fua}${fate}${this.#after(r)}`,
      },
      hint(`${words}${fate && `,${fate}`}${end}`),
    );
  }
}

function weight(bytes: number): number {
  return Math.log2(1 + bytes / 512);
}
