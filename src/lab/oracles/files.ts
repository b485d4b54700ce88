import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, normalize } from 'node:path';
import type { Verdict } from '../check/types.ts';
import { AckError, parseAcks } from './acks.ts';
import type { FolderOracle, Settings } from './types.ts';
import { fail, pass } from './verdict.ts';

/**
 * A file, or a part of one, that goes from one content to the next. A workload that knows beforehand what it will write
 * declares all of them in a manifest; what it acknowledges is one of these contents.
 */
export interface DeclaredFile {
  /** From the root of the file system. */
  readonly file: string;
  /** A part: where it begins and how long it is, in bytes. The whole file where they are absent. */
  readonly at?: number;
  readonly bytes?: number;
  /** SHA-256 in hex of each content, in order; null: the file is absent. */
  readonly versions: readonly (string | null)[];
  /** Until it is acknowledged a content may be there in part: nobody promised that it is written as a whole. */
  readonly mayTear?: boolean;
}

interface Watched extends DeclaredFile {
  /** The version that was acknowledged last; -1: none. */
  readonly acked: number;
}

const SHA256 = /^[0-9a-f]{64}$/;

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** What the content of a file is of: its place in a manifest, or among the files that were acknowledged. */
function keyOf(file: string, at: unknown): string {
  return typeof at === 'number' ? `${file}@${at}` : file;
}

/** Reads a manifest: a JSON array of DeclaredFile. Throws AckError when it is none. */
export function readManifest(text: string): readonly DeclaredFile[] {
  const entries: unknown = JSON.parse(text);
  const isFine = (entry: DeclaredFile): boolean =>
    typeof entry.file === 'string' &&
    Array.isArray(entry.versions) &&
    entry.versions.every((version) => version === null || SHA256.test(version)) &&
    (entry.at === undefined) === (entry.bytes === undefined);
  if (!Array.isArray(entries) || !(entries as DeclaredFile[]).every(isFine)) {
    throw new AckError('the manifest is no list of {file, versions}');
  }
  return entries as DeclaredFile[];
}

interface FileAck {
  readonly key: string;
  readonly file: string;
  readonly sha256: string | null;
  readonly begun: boolean;
}

function fileAcks(texts: readonly string[]): FileAck[] {
  return parseAcks(texts, 'file').map((ack) => {
    const { file, sha256: hash, at, begun } = ack;
    const isHash = hash === null || (typeof hash === 'string' && SHA256.test(hash));
    if (typeof file !== 'string' || !isHash) {
      throw new AckError(`no file and sha256 in ${JSON.stringify(ack)}`);
    }
    return { key: keyOf(file, at), file, sha256: hash, begun: begun === true };
  });
}

/** What was declared, and how far it was acknowledged. */
function watch(manifest: readonly DeclaredFile[], acks: readonly FileAck[]): Watched[] {
  const entries = new Map(manifest.map((entry) => [keyOf(entry.file, entry.at), entry]));
  const acked = new Map<string, number>();
  for (const { key, sha256: hash, begun } of acks) {
    const entry = entries.get(key);
    if (entry === undefined) throw new AckError(`${key} is not in the manifest`);
    if (begun) continue;
    // In order: a content may come again.
    const version = entry.versions.indexOf(hash, (acked.get(key) ?? -1) + 1);
    if (version < 0) throw new AckError(`${key}: what was acknowledged is not in the manifest`);
    acked.set(key, version);
  }
  return [...entries].map(([key, entry]) => ({ ...entry, acked: acked.get(key) ?? -1 }));
}

/** Without a manifest: the contents that the acknowledgements themselves tell of, begun or done. */
function watchAcked(acks: readonly FileAck[]): Watched[] {
  const files = new Map<string, { file: string; versions: (string | null)[]; acked: number }>();
  for (const ack of acks) {
    if (ack.key !== ack.file) throw new AckError('parts of files need a manifest');
    const entry = files.get(ack.key) ?? { file: ack.file, versions: [null], acked: -1 };
    if (entry.versions.at(-1) !== ack.sha256) entry.versions.push(ack.sha256);
    if (!ack.begun) entry.acked = entry.versions.length - 1;
    files.set(ack.key, entry);
  }
  return [...files.values()];
}

/** The file's content, its declared part, or null where that is not there. */
function contentOf(folder: string, watched: DeclaredFile): Buffer | null {
  const path = join(folder, normalize(`/${watched.file}`));
  let all: Buffer;
  try {
    all = readFileSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw error;
  }
  if (watched.at === undefined) return all;
  const part = all.subarray(watched.at, watched.at + (watched.bytes ?? 0));
  return part.length === 0 ? null : part;
}

function nameOfTear(content: Buffer | null, of: DeclaredFile): string {
  if (content === null) return 'absent';
  if (content.length === 0) return 'empty';
  if (content.every((byte) => byte === 0)) return 'all zeroes';
  return of.bytes !== undefined && content.length < of.bytes ? 'cut short' : 'neither old nor new';
}

function judgeOne(folder: string, one: Watched, marker: string): Verdict | null {
  const key = keyOf(one.file, one.at);
  let content: Buffer | null;
  try {
    content = contentOf(folder, one);
  } catch (error) {
    // The file system is there and the file is not readable: EIO, EUCLEAN.
    return fail('integrity', `unreadable: ${(error as NodeJS.ErrnoException).code}`, String(error));
  }
  if (marker !== '' && content?.includes(marker) === true) {
    return fail('integrity', 'stale data', `${key} has what its blocks held before`);
  }
  const hash = content === null ? null : sha256(content);
  const found = one.versions.lastIndexOf(hash);
  if (found >= 0 && found >= one.acked) return null;
  const size = content === null ? 'absent' : `${content.length} bytes`;
  const wanted = `version ${one.acked} of ${key} was acknowledged`;
  if (found >= 0) {
    return fail('durability', 'acknowledged content missing', `${wanted}, ${found} is there`);
  }
  // Of a file that may tear, what was acknowledged is promised as much as anywhere.
  const tear = nameOfTear(content, one);
  if (one.mayTear === true) {
    const isLast = one.acked === one.versions.length - 1;
    return isLast ? fail('durability', `acknowledged content ${tear}`, `${wanted}: ${size}`) : null;
  }
  return fail('atomicity', tear, `${key}: ${size}; acknowledged: version ${one.acked}`);
}

const RANK = { integrity: 0, atomicity: 1, durability: 2 } as const;

function judgeFiles(settings: Settings, folder: string, texts: readonly string[]): Verdict {
  const acks = fileAcks(texts);
  const path = settings['manifest'];
  const watched =
    typeof path === 'string'
      ? watch(readManifest(readFileSync(path, 'utf8')), acks)
      : watchAcked(acks);
  const marker = String(settings['marker'] ?? '');
  const failures = watched
    .map((one) => judgeOne(folder, one, marker))
    .filter((verdict) => verdict !== null)
    .toSorted((a, b) => RANK[a.axis ?? 'integrity'] - RANK[b.axis ?? 'integrity']);
  return failures[0] ?? pass();
}

export const FILES: FolderOracle = {
  kind: 'files',
  on: 'folder',
  summary:
    'files that are replaced, appended to or overwritten: old or new, and what was acknowledged',
  details: [
    'Each file that the workload declares must hold one of its contents as a whole (atomicity), and none that is older ' +
      'than what was acknowledged (durability). The workload acknowledges with ' +
      '`ACK {"file":"a","sha256":"…"}`; a sha256 of null says that the file was removed.',
    'The contents are declared in a manifest, a JSON array of `{"file":"a","versions":[null,"SHA-256",…]}`, in order, null ' +
      'for an absent file. With `"at"` and `"bytes"` in it the entry is about a part of a file, and so is an ' +
      'acknowledgement with that `"at"`; with `"mayTear":true` only the last, acknowledged content is looked at. Without a ' +
      'manifest the workload tells of each content before it writes it: `ACK {"file":"a","sha256":"…","begun":true}`.',
    'Classes of atomicity: `absent`, `empty`, `all zeroes`, `cut short`, `neither old nor new`. Of integrity: `stale data`, ' +
      'where a file shows the marker that free blocks were filled with, and `unreadable`.',
  ],
  options: [
    { name: 'manifest', type: 'text', description: 'A JSON file with all contents.' },
    {
      name: 'marker',
      type: 'text',
      description: 'A text that free blocks were filled with and that no file holds.',
    },
  ],
  needs: () => ({ programs: [], modules: [] }),
  usesAcks: () => true,
  judge: (settings) => ({
    judge: (folder, { acks }) => Promise.resolve(judgeFiles(settings, folder, acks)),
  }),
};
