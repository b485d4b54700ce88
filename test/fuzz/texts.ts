import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { ConfigError, UsageError } from '../../src/base/errors.ts';
import { Prng } from '../../src/base/prng.ts';
import {
  readStateFile,
  type StateRecord,
  writeStateFile,
} from '../../src/durability/state-file.ts';
import { formatNbdUri, parseNbdUri } from '../../src/protocols/nbd/uri.ts';
import { fail, type FuzzTarget } from './target.ts';

const URIS = [
  'nbd://host:10809/export',
  'nbd+unix:///export?socket=/run/x.sock',
  'nbds://user@[2001:db8::1]:4711/a%20b?tls-type=x509&tls-verify-peer=1',
  'nbds+unix:///?socket=%00abstract&tls-psk-file=/etc/keys',
  'NBD://',
  'nbd:///%c3%a4%2f%23',
];
const PIECES = [
  '%',
  '%00',
  '%zz',
  '%ff',
  '/',
  '//',
  '?',
  '#',
  '&',
  ';',
  '@',
  ':',
  '[',
  ']',
  '=',
  '\0',
];
const MORE = ['socket=', 'tls-hostname=', '\u{1F4BE}', '99999', ' ', '\n', 'nbd:', '::', '..', "'"];

/** Text with pieces put in, taken out, doubled and cut off. */
function mangle(prng: Prng, original: string, pieces: readonly string[]): string {
  let text = original;
  for (let left = prng.below(6); left > 0; left -= 1) {
    const at = prng.below(text.length + 1);
    const to = Math.min(text.length, at + prng.below(8));
    const [before, range, after] = [text.slice(0, at), text.slice(at, to), text.slice(to)];
    switch (prng.below(5)) {
      case 0:
        text = before + prng.pick(pieces) + range + after;
        break;
      case 1:
        text = before + after;
        break;
      case 2:
        text = before + range + range + after;
        break;
      case 3:
        text = before + String.fromCharCode(prng.below(256)) + after;
        break;
      default:
        text = prng.chance(0.2) ? before : text + prng.pick(pieces).repeat(1 + prng.below(3));
    }
  }
  return text;
}

/** A URI is refused with one line, or means the same after it was written out again. */
export const fuzzUri: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const text = mangle(prng, prng.pick(URIS), [...PIECES, ...MORE]);
  let uri;
  try {
    uri = parseNbdUri(text);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return;
  }
  const again = formatNbdUri(uri);
  const same = parseNbdUri(again);
  if (!isDeepStrictEqual(uri, same)) {
    fail(
      `${JSON.stringify(text)}: ${JSON.stringify(uri)} became ${again}, ${JSON.stringify(same)}`,
    );
  }
};

const RECORDS: readonly StateRecord[] = [
  { version: 1, bootId: 'b', clean: true, poisoned: null, hostCrash: null },
  {
    version: 1,
    bootId: '8a7d',
    clean: false,
    poisoned: { error: 'EIO', when: '2026-01-02T03:04:05.000Z' },
    hostCrash: { when: '2026-01-02T03:04:05.000Z', told: ['10.0.0.1', '2001:db8::7'] },
  },
];
const JSON_PIECES = [
  'null',
  '{}',
  '[]',
  '"',
  ',',
  ':',
  'true',
  '1e999',
  '-',
  '\\u0000',
  '"told":7',
  '2',
];

const directory = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

/** A state file is trusted whole or not at all; what is trusted has the right shape, and is written as it was read. */
export const fuzzStateFile: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const path = join(directory, 'state');
  writeFileSync(path, mangle(prng, JSON.stringify(prng.pick(RECORDS)), JSON_PIECES));
  let record;
  try {
    record = readStateFile(path);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return;
  }
  if (record === null) fail('a file that is there was not seen');
  if (typeof record.clean !== 'boolean' || typeof record.bootId !== 'string') {
    fail(`a record without its fields: ${readFileSync(path, 'utf8')}`);
  }
  const told = record.hostCrash?.told ?? [];
  if (!told.every((peer) => typeof peer === 'string')) fail('a peer that is no text');
  // A failed sync that is on record must never be overlooked.
  if (record.poisoned !== null && typeof record.poisoned.error !== 'string') fail('half a poison');
  if (seed % 16 > 0) return;
  writeStateFile(path, record);
  if (!isDeepStrictEqual(readStateFile(path), record)) fail('written, it reads otherwise');
};
