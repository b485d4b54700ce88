import { DETAIL_CHARACTERS, DETAIL_LINES } from '../check/limits.ts';
import type { Axis, Verdict } from '../check/types.ts';
import { classOf } from '../check/words.ts';

/** Nothing is wrong. `name`: a named good state, or ''. */
export function pass(name = '', detail = ''): Verdict {
  return { outcome: 'pass', axis: null, class: name, detail: shorten(detail) };
}

/** A promise is broken. */
export function fail(axis: Axis, name: string, detail: string): Verdict {
  return { outcome: 'fail', axis, class: nameOf(name), detail: shorten(detail) };
}

/** It could not be judged. */
export function doubt(name: string, detail: string): Verdict {
  return { outcome: 'checker-error', axis: null, class: nameOf(name), detail: shorten(detail) };
}

/** The first line, with numbers, paths and quoted names taken out: the same for the same kind of finding. */
function nameOf(text: string): string {
  const line = text.trim().split('\n', 1)[0] ?? '';
  return classOf(
    line
      .replaceAll(/'[^']*'|"[^"]*"/g, '…')
      // e2fsck's lists of blocks and inodes: -(718--733) -1170
      .replaceAll(BLOCK_LIST, '#'),
  );
}

const BLOCK_LIST = /[-+]\(?\d+(?:--\d+)?\)?(?:\s+[-+]\(?\d+(?:--\d+)?\)?)*/g;

function shorten(text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.slice(0, DETAIL_LINES).join('\n').slice(0, DETAIL_CHARACTERS);
}
