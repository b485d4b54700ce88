import { CLASS_CHARACTERS, DETAIL_CHARACTERS, DETAIL_LINES } from './limits.ts';
import type { Axis } from './types.ts';

// From a checker's own words to the class of its verdict: the same for the same kind of finding.

/** Lines that programs print whatever they find: versions, phases, progress. */
const NOISE: readonly RegExp[] = [
  /^$/,
  /^[\w.+-]+:? (?:version )?v?\d+\.\d+(?:\.\d+)*(?: \(.*\))?$/i,
  /^(?:Pass|Phase) \d+\w?\b/,
  /^\d+(?:\.\d+)?%/,
];

// oxlint-disable-next-line no-control-regex -- what terminals take as colour begins with ESC
const COLOURS = /\u001B\[[\d;]*[A-Za-z]/g;

/** What a checker said, taken apart. */
export interface Said {
  /** From the first line that begins with the name of one, or null. */
  readonly axis: Axis | null;
  /** '' when it said nothing. */
  readonly class: string;
  readonly detail: string;
}

/** Reads a checker's output. */
export function readWords(output: string): Said {
  const lines = output
    .replaceAll(COLOURS, '')
    .split(/[\n\r]+/)
    .map((line) => line.trim());
  const detail = lines.filter((line) => line !== '').slice(0, DETAIL_LINES);
  for (const line of lines) {
    const match = /^(integrity|atomicity|durability):\s*(.*)$/.exec(line);
    if (match === null) continue;
    return {
      axis: match[1] as Axis,
      class: classOf(match[2] as string),
      detail: cutDetail(detail.join('\n')),
    };
  }
  const first = lines.find((line) => !NOISE.some((noise) => noise.test(line)));
  return { axis: null, class: classOf(first ?? ''), detail: cutDetail(detail.join('\n')) };
}

/** A line without what differs from one finding to the next of its kind: numbers, addresses, paths, times. */
export function classOf(line: string): string {
  return line
    .replaceAll(/\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b/gi, '#')
    .replaceAll(/(^|[\s'"(=:,<[])(?:\.{0,2}\/)[^\s'"():,;>\]]+/g, '$1#')
    .replaceAll(/\b0x[0-9a-f]+\b/gi, '#')
    .replaceAll(/\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b/gi, '#')
    .replaceAll(/\d+(?:[.:]\d+)*/g, '#')
    .replaceAll(/#(?:(?:\s*[,;/–-]\s*|\s+)\(?#\)?)+/g, '#')
    .replaceAll(/\s+/g, ' ')
    .trim()
    .slice(0, CLASS_CHARACTERS)
    .trim();
}

function cutDetail(detail: string): string {
  return detail.length > DETAIL_CHARACTERS ? `${detail.slice(0, DETAIL_CHARACTERS)}…` : detail;
}
