import type { Trace } from '../../trace/trace.ts';

/** What part of a recording a map shows, and what in it matters. */
export interface MapOptions {
  readonly title: string;
  /** Events shown: [from, to). */
  readonly from: number;
  readonly to: number;
  /** Drawn as lost, and as the ones that were there. */
  readonly lost: ReadonlySet<number>;
  readonly kept: ReadonlySet<number>;
  /** Instants at which the power fails. */
  readonly cuts: readonly { readonly event: number; readonly label: string }[];
  /** What is issued from this event on is drawn faintly: it has not happened yet. Infinity: nothing. */
  readonly future: number;
  /** The event of the acknowledgement that is not kept; -1: none. */
  readonly broken: number;
}

/** Pixels of the picture's own measure: it is drawn as wide as the page. */
export const WIDTH = 960;
export const LEFT = 84;
export const RIGHT = 14;
export const BAND_HEIGHT = 220;
/** More than these make a picture that no browser likes and nobody can read: only one of several is drawn. */
export const MOST_MARKS = 5000;

/** The x of an event. Time is counted in events, so that a burst and a pause are equally wide. */
export function xOf(event: number, { from, to }: Pick<MapOptions, 'from' | 'to'>): number {
  const share = (Math.min(Math.max(event, from), to) - from) / Math.max(1, to - from);
  return LEFT + share * (WIDTH - LEFT - RIGHT);
}

/** The event of the note that says where the workload begins; 0: there is none. */
export function beginOf(trace: Trace): number {
  return trace.marks.find(({ kind, text }) => kind === 'note' && text === 'begin')?.event ?? 0;
}

/** A time in seconds from `zero`, short. */
export function timeLabel(trace: Trace, event: number, zero: number): string {
  const at = (one: number): number => trace.timeNs[Math.min(one, trace.events - 1)] ?? 0;
  const ns = at(event) - at(zero);
  const [least, unit] =
    Math.abs(ns) >= 1e9 ? [1e9, 's'] : Math.abs(ns) >= 1e6 ? [1e6, 'ms'] : [1e3, 'µs'];
  const value = ns / least;
  return `${value.toFixed(Math.abs(value) < 10 && value !== 0 ? 1 : 0)} ${unit}`;
}
