import { UsageError } from '../../base/errors.ts';
import type { DiskConfig, FuseListen } from '../../server/config.ts';
import { PlaceText } from './place-keys.ts';

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
  const place = new PlaceText('not a file to be mounted', text);
  const keys = place.keys(question < 0 ? '' : rest.slice(question + 1), KEYS);
  return {
    ...fuseFile(place.decode(question < 0 ? rest : rest.slice(0, question))),
    exportName: keys.get('export') ?? null,
    readOnly: place.switch('read-only', keys.get('read-only')),
    pageCache: place.switch('page-cache', keys.get('page-cache')),
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
