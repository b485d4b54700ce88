import { UsageError } from '../../base/errors.ts';
import type { DiskConfig, FuseListen } from '../../server/config.ts';

/** As --listen and --fuse have it: which disk it is may be left open while there is one only. */
export type FuseChoice = Omit<FuseListen, 'exportName'> & { readonly exportName: string | null };

const PREFIX = 'fuse:';
const KEYS = ['export', 'read-only', 'page-cache'];

/** Whether a text is meant as a file to be mounted, so that a mistake in it is a mistake and no file name. */
export function isFuse(text: string): boolean {
  return text.startsWith(PREFIX);
}

/**
 * Reads fuse:PATH[?KEY=VALUE[&KEY=VALUE]...]. '%', '?' and '&' in a path or a value are written as in a URI. Throws a
 * UsageError that names the mistake.
 */
export function parseFuse(text: string): FuseChoice {
  const rest = text.slice(PREFIX.length);
  const question = rest.indexOf('?');
  const keys = parseKeys(text, question < 0 ? '' : rest.slice(question + 1));
  return {
    ...fuseFile(decode(text, question < 0 ? rest : rest.slice(0, question))),
    exportName: keys.get('export') ?? null,
    readOnly: parseSwitch(text, 'read-only', keys.get('read-only')),
    pageCache: parseSwitch(text, 'page-cache', keys.get('page-cache')),
  };
}

/** A file as it is. */
export function fuseFile(path: string): FuseChoice {
  if (path === '') throw new UsageError('the file that a disk is shown as has no name');
  if (path.includes('\0')) throw new UsageError('the name of a file has no NUL');
  return { protocol: 'fuse', path, exportName: null };
}

/** Settles which disk it is. Throws a UsageError when that cannot be known. */
export function nameFuseDisk(choice: FuseChoice, disks: readonly DiskConfig[]): FuseListen {
  const names = disks.map(({ exportName }) => exportName);
  const list = names.map((name) => `'${name}'`).join(', ');
  const { exportName, path } = choice;
  if (exportName === null) {
    const [only] = names;
    if (names.length === 1 && only !== undefined) return { ...choice, exportName: only };
    throw new UsageError(
      `${path} shows one disk; write --listen '${PREFIX}${path}?export=NAME', one of ${list}`,
    );
  }
  if (names.includes(exportName)) return { ...choice, exportName };
  throw new UsageError(`${path}: no disk is named '${exportName}'; there is ${list}`);
}

function parseKeys(text: string, query: string): Map<string, string> {
  const keys = new Map<string, string>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const key = equals < 0 ? pair : pair.slice(0, equals);
    if (!KEYS.includes(key)) throw wrong(text, `'${key}' is not known (known: ${KEYS.join(', ')})`);
    if (equals < 0) throw wrong(text, `${key} needs a value`);
    if (keys.has(key)) throw wrong(text, `${key} is there twice`);
    keys.set(key, decode(text, pair.slice(equals + 1)));
  }
  return keys;
}

function parseSwitch(text: string, key: string, value: string | undefined): boolean {
  if (value === undefined || value === 'off') return false;
  if (value === 'on') return true;
  throw wrong(text, `${key} is on or off, not '${value}'`);
}

/** [RFC 3986 2.1] */
function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw wrong(text, "a '%' is written %25");
  }
}

function wrong(text: string, why: string): UsageError {
  return new UsageError(`not a file to be mounted: '${text}': ${why}`);
}
