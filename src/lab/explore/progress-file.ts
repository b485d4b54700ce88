import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError, messageOf } from '../../base/errors.ts';
import type { Judge } from './judge.ts';
import type { KeyTableParts } from './key-table.ts';
import type { ReadTrieParts } from './read-trie.ts';
import type { CutTally, Totals } from './tally.ts';
import type { VerdictKind } from './verdict-book.ts';

// What an exploration knows, in a file: lines of JSON, arrays in base64. It is written beside its place and then renamed,
// so that there is always a whole one.

/** Rises with each change of what is in it, of how keys are made too. */
const FORMAT = 2;
/** Entries of an array in one line. */
const LINE_ENTRIES = 1 << 20;

interface Head {
  readonly holdfastExploration: number;
  /** What must be the same for it to go on. */
  readonly identity: unknown;
}

interface State {
  readonly totals: Totals;
  readonly cuts: CutTally[];
  readonly kinds: readonly VerdictKind[];
  readonly decided: number;
  readonly seen: number;
  readonly signatures: number;
  readonly children: number;
  readonly roots: ReadTrieParts['roots'];
}

/** Writes what a judge knows. Throws ConfigError when it cannot. */
export function saveProgress(
  path: string,
  identity: unknown,
  judge: Judge,
  elapsedMs: number,
): void {
  const tables = [judge.decided.parts(), judge.seen.parts(), judge.signatures.parts()] as const;
  const trie = judge.trie.parts();
  const head: Head = { holdfastExploration: FORMAT, identity };
  const state: State = {
    totals: { ...judge.tally.totals, elapsedBeforeMs: elapsedMs },
    cuts: judge.tally.cuts,
    kinds: judge.book.parts(),
    decided: tables[0].count,
    seen: tables[1].count,
    signatures: tables[2].count,
    children: trie.children.count,
    roots: trie.roots,
  };
  const arrays: readonly Int32Array[] = [
    ...tables.flatMap(({ keys, values }) => [keys, values]),
    trie.children.keys,
    trie.children.values,
    trie.start,
    trie.length,
    trie.end,
    trie.pairs,
  ];
  try {
    const file = openSync(`${path}.new`, 'w', 0o644);
    try {
      writeSync(file, `${JSON.stringify(head)}\n${JSON.stringify(state)}\n`);
      for (const array of arrays) writeArray(file, array);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(`${path}.new`, path);
    syncFolder(dirname(path));
  } catch (error) {
    throw new ConfigError(
      `cannot keep the progress in ${path}: ${messageOf(error)}`,
      'name another file for the progress, or none',
      { cause: error },
    );
  }
}

/** Gives a new judge what a file knows. False: there is no file. Throws ConfigError when it is of another exploration. */
export function loadProgress(path: string, identity: unknown, judge: Judge): boolean {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw new ConfigError(`cannot read ${path}: ${messageOf(error)}`, 'name another file', {
      cause: error,
    });
  }
  try {
    const lines = new Lines(bytes);
    const head = lines.next() as Head;
    if (head.holdfastExploration !== FORMAT) throw new Error('it is of another version');
    const other = difference(head.identity, identity);
    if (other !== null) {
      throw new ConfigError(
        `${path} is of another exploration: ${other} differs`,
        'start it as it was started, or remove the file to begin anew',
      );
    }
    restore(judge, lines);
    return true;
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(
      `${path} holds no progress of an exploration: ${messageOf(error)}`,
      'remove the file, or name another one',
      { cause: error },
    );
  }
}

function restore(judge: Judge, lines: Lines): void {
  const state = lines.next() as State;
  const table = (count: number): KeyTableParts => ({
    count,
    keys: lines.array(),
    values: lines.array(),
  });
  const [decided, seen] = [table(state.decided), table(state.seen)];
  const signatures = table(state.signatures);
  const children = table(state.children);
  const [start, length, end, pairs] = [lines.array(), lines.array(), lines.array(), lines.array()];
  if (state.cuts.length !== judge.tally.cuts.length) throw new Error('it has other cuts');
  judge.decided.restore(decided);
  judge.seen.restore(seen);
  judge.signatures.restore(signatures);
  judge.trie.restore({ start, length, end, pairs, children, roots: state.roots });
  judge.book.restore(state.kinds);
  judge.tally.cuts = state.cuts;
  judge.tally.totals = state.totals;
}

/** The name of the first field in which two identities differ. */
function difference(one: unknown, other: unknown): string | null {
  const [a, b] = [one as Record<string, unknown>, other as Record<string, unknown>];
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (JSON.stringify(a[name]) !== JSON.stringify(b[name])) return name;
  }
  return null;
}

function writeArray(file: number, array: Int32Array): void {
  writeSync(file, `${JSON.stringify({ entries: array.length })}\n`);
  for (let at = 0; at < array.length; at += LINE_ENTRIES) {
    const part = array.subarray(at, at + LINE_ENTRIES);
    const bytes = Buffer.from(part.buffer, part.byteOffset, part.byteLength);
    writeSync(file, `"${bytes.toString('base64')}"\n`);
  }
}

/** A rename lasts when its folder is stable. */
function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

class Lines {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  next(): unknown {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw new Error('it ends too early');
    const line = this.#bytes.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return JSON.parse(line) as unknown;
  }

  array(): Int32Array {
    const { entries } = this.next() as { entries: number };
    const array = new Int32Array(entries);
    const bytes = Buffer.from(array.buffer);
    for (let at = 0; at < bytes.length;) {
      const read = bytes.write(this.next() as string, at, 'base64');
      if (read === 0) throw new Error('it ends too early');
      at += read;
    }
    return array;
  }
}
