import type { Axis, Verdict } from '../check/types.ts';

/** The longest class, in characters: it stands in tables. */
const CLASS_LIMIT = 90;
const DETAIL_LINES = 6;
const DETAIL_LIMIT = 1000;

/** Nothing is wrong. `name`: a named good state, or ''. */
export function pass(name = '', detail = ''): Verdict {
  return { outcome: 'pass', axis: null, class: name, detail: shorten(detail) };
}

/** A promise is broken. */
export function fail(axis: Axis, name: string, detail: string): Verdict {
  return { outcome: 'fail', axis, class: classOf(name), detail: shorten(detail) };
}

/** It could not be judged. */
export function doubt(name: string, detail: string): Verdict {
  return { outcome: 'checker-error', axis: null, class: classOf(name), detail: shorten(detail) };
}

/** The first line, with numbers, addresses and quoted names taken out: the same for the same kind of finding. */
export function classOf(text: string): string {
  const line = text.trim().split('\n', 1)[0] ?? '';
  return line
    .replaceAll(/'[^']*'|"[^"]*"/g, '…')
    .replaceAll(/0x[0-9a-f]+/gi, '#')
    .replaceAll(/\d+/g, '#')
    .replaceAll(/[-+(]*#[-+#)]*(?:\s+[-+(]*#[-+#)]*)*/g, '#')
    .replaceAll(/\s+/g, ' ')
    .slice(0, CLASS_LIMIT)
    .trim();
}

function shorten(text: string): string {
  const lines = text
    .trim()
    .split('\n')
    .filter((line) => line.trim() !== '');
  const kept = lines.slice(0, DETAIL_LINES).join('\n');
  const cut = kept.length > DETAIL_LIMIT || lines.length > DETAIL_LINES;
  return cut ? `${kept.slice(0, DETAIL_LIMIT)}…` : kept;
}
