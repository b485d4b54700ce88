/**
 * Text: the key=value pairs of Login and Text PDUs [RFC 7143 6.1]. Each pair ends with a NUL; with the C bit a list goes on in
 * the next PDU, at any byte.
 */
import { isUtf8 } from 'node:buffer';
import { MAX_KEY_BYTES, MAX_KEYS, MAX_TEXT_BYTES, MAX_VALUE_BYTES } from './limits.ts';

export interface KeyValue {
  readonly key: string;
  readonly value: string;
}

/** Answers that every key may get [RFC 7143 6.2]. */
export const TEXT = {
  NONE: 'None',
  YES: 'Yes',
  NO: 'No',
  REJECT: 'Reject',
  IRRELEVANT: 'Irrelevant',
  NOT_UNDERSTOOD: 'NotUnderstood',
} as const;

const EMPTY = new Uint8Array(0);
const EQUALS = 0x3d;
// Letters, digits and a few signs [RFC 7143 6.1]. Private keys ("X#...") have '#' too, and iSCSIProtocolLevel begins with
// a small letter.
const KEY = /^[A-Za-z][A-Za-z0-9.\-+@_#]*$/;
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * The pairs, in order, or one line that says what is wrong with them. Padding and more than one NUL between pairs are
 * skipped: libiscsi pads its text to words and counts that as data.
 */
export function parseText(bytes: Uint8Array): readonly KeyValue[] | string {
  const pairs: KeyValue[] = [];
  for (let start = 0; start < bytes.length;) {
    let end = bytes.indexOf(0, start);
    if (end < 0) end = bytes.length;
    if (end > start) {
      const pair = parsePair(bytes.subarray(start, end));
      if (typeof pair === 'string') return pair;
      pairs.push(pair);
      if (pairs.length > MAX_KEYS) return `more than ${MAX_KEYS} keys`;
    }
    start = end + 1;
  }
  return pairs;
}

function parsePair(bytes: Uint8Array): KeyValue | string {
  const equals = bytes.subarray(0, MAX_KEY_BYTES + 1).indexOf(EQUALS);
  if (equals < 0) return `text without a key of at most ${MAX_KEY_BYTES} bytes`;
  const key = decoder.decode(bytes.subarray(0, equals));
  if (!KEY.test(key)) return 'a key with characters that are not allowed';
  const value = bytes.subarray(equals + 1);
  if (value.length > MAX_VALUE_BYTES) return `a value of ${key} with ${value.length} bytes`;
  if (!isUtf8(value)) return `a value of ${key} that is not UTF-8`;
  return { key, value: decoder.decode(value) };
}

export function encodeText(pairs: readonly KeyValue[]): Uint8Array {
  if (pairs.length === 0) return EMPTY;
  return encoder.encode(pairs.map(({ key, value }) => `${key}=${value}\0`).join(''));
}

/** Puts a list together that comes in several PDUs. Bounded. */
export class TextCollector {
  #parts: Uint8Array[] = [];
  #bytes = 0;

  get empty(): boolean {
    return this.#bytes === 0;
  }

  /** Copies the bytes. False: they are more than one list may have. */
  add(bytes: Uint8Array): boolean {
    if (this.#bytes + bytes.length > MAX_TEXT_BYTES) return false;
    if (bytes.length > 0) this.#parts.push(bytes.slice());
    this.#bytes += bytes.length;
    return true;
  }

  /** Everything that was added; it is empty afterwards. */
  take(): Uint8Array {
    const all = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    this.clear();
    return all;
  }

  clear(): void {
    this.#parts = [];
    this.#bytes = 0;
  }
}

/** Hands out a list in pieces that fit the other end's PDUs. */
export class TextPieces {
  #rest: Uint8Array = EMPTY;

  set(bytes: Uint8Array): void {
    this.#rest = bytes;
  }

  /** Something is left: the piece before has the C bit. */
  get more(): boolean {
    return this.#rest.length > 0;
  }

  next(limit: number): Uint8Array {
    const piece = this.#rest.subarray(0, limit);
    this.#rest = this.#rest.subarray(piece.length);
    return piece;
  }
}

// Values.

/** A number in decimal or hexadecimal digits [RFC 7143 6.1], up to 2^32 - 1; null for anything else. */
export function parseNumber(text: string): number | null {
  if (!/^(?:0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})$/.test(text)) return null;
  const value = Number(text);
  return value <= 0xffffffff ? value : null;
}

/** A binary value: hexadecimal with 0x, base64 with 0b [RFC 7143 6.1]; null for anything else. */
export function parseBinary(text: string): Uint8Array | null {
  if (/^0[xX](?:[0-9a-fA-F]{2})+$/.test(text))
    return Uint8Array.from(Buffer.from(text.slice(2), 'hex'));
  // An odd count of digits: the first one stands alone.
  if (/^0[xX][0-9a-fA-F]+$/.test(text)) return parseBinary(`0x0${text.slice(2)}`);
  if (!/^0[bB][A-Za-z0-9+/]+={0,2}$/.test(text) || text.length % 4 !== 2) return null;
  return Uint8Array.from(Buffer.from(text.slice(2), 'base64'));
}

export function formatBinary(bytes: Uint8Array): string {
  return `0x${Buffer.from(bytes).toString('hex')}`;
}

/** What a peer says of itself, fit for a log: one line, no control characters, bounded. */
export function printable(text: string, limit = 230): string {
  const line = text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').trim();
  return line.length > limit ? `${line.slice(0, limit)}...` : line;
}
