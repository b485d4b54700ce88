import { createHash } from 'node:crypto';
import type { Verdict } from '../check/types.ts';
import { parseAcks } from './acks.ts';
import type { OracleOption, Settings } from './types.ts';
import { fail, pass } from './verdict.ts';

// What oracles of key-value stores have in common.

/** What a store holds, or why it cannot be read. */
export type Store =
  | { readonly entries: ReadonlyMap<string, Buffer> }
  | { readonly missing: true }
  | { readonly damaged: string };

export const KEY_VALUE_OPTIONS: readonly OracleOption[] = [
  {
    name: 'database',
    type: 'text',
    required: true,
    description: 'The database, from the root of the file system.',
  },
  {
    name: 'values',
    type: 'text',
    choices: ['any', 'sealed'],
    default: 'any',
    description:
      'What is known of each value. sealed: it begins with the SHA-256 of the rest, in hex, and a line feed; one that does ' +
      'not is torn.',
  },
];

export const KEY_VALUE_DETAILS: string =
  'The store must open and can be read from one end to the other (integrity); with values=sealed each value is whole ' +
  '(atomicity); what was acknowledged with `ACK {"key":"k","sha256":"…"}` is there (durability): the sha256, of the ' +
  'value, may be left out where the key is enough. Good states besides the plain one: `absent` and `empty`.';

const SEAL_LENGTH = 64;

/** A value that tells whether it is whole. */
export function seal(text: string): string {
  return `${sha256(Buffer.from(text))}\n${text}`;
}

function isSealed(value: Buffer): boolean {
  const hash = value.subarray(0, SEAL_LENGTH).toString('latin1');
  return value[SEAL_LENGTH] === 10 && sha256(value.subarray(SEAL_LENGTH + 1)) === hash;
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export function judgeStore(store: Store, settings: Settings, texts: readonly string[]): Verdict {
  const acks = parseAcks(texts, 'key');
  if ('damaged' in store) return fail('integrity', store.damaged, store.damaged);
  if ('missing' in store) {
    if (acks.length === 0) return pass('absent');
    return fail('durability', 'database missing', `${acks.length} keys acknowledged`);
  }
  const { entries } = store;
  if (settings['values'] === 'sealed') {
    for (const [key, value] of entries) {
      if (!isSealed(value)) return fail('atomicity', 'value not whole', `${key}: ${value.length}`);
    }
  }
  // Of a key that was put several times the last one counts.
  const last = new Map(acks.map((ack) => [String(ack['key']), ack['sha256']]));
  for (const [key, hash] of last) {
    const value = entries.get(key);
    if (value === undefined) return fail('durability', 'acknowledged key missing', key);
    if (typeof hash === 'string' && sha256(value) !== hash) {
      return fail('durability', 'acknowledged value missing', key);
    }
  }
  return pass(entries.size === 0 ? 'empty' : '');
}
