import { createHash, getHashes, timingSafeEqual } from 'node:crypto';
import type { ChapAccount } from './node.ts';

/** CHAP algorithms by their number [RFC 7143 12.1.3; IANA "PPP Authentication Algorithms"] and Node's name for their hash. */
export const CHAP_A: ReadonlyMap<number, { readonly hash: string; readonly bytes: number }> =
  new Map([
    [5, { hash: 'md5', bytes: 16 }],
    [6, { hash: 'sha1', bytes: 20 }],
    [7, { hash: 'sha256', bytes: 32 }],
    [8, { hash: 'sha3-256', bytes: 32 }],
  ]);

/** Whether this Node can do it: a hardened OpenSSL may lack the old hashes. */
export function chapAlgorithmAvailable(algorithm: number): boolean {
  const hash = CHAP_A.get(algorithm)?.hash;
  return hash !== undefined && getHashes().includes(hash);
}

/** The response: the hash of identifier, secret and challenge [RFC 1994 4.1]. `algorithm` is an available one. */
export function chapResponse(
  algorithm: number,
  identifier: number,
  secret: Uint8Array,
  challenge: Uint8Array,
): Uint8Array {
  const entry = CHAP_A.get(algorithm);
  if (entry === undefined) throw new RangeError(`no CHAP algorithm ${algorithm}`);
  const hash = createHash(entry.hash);
  hash.update(Uint8Array.of(identifier)).update(secret).update(challenge);
  return hash.digest();
}

/** What the initiator answers our challenge with, and asks of us in turn. */
export interface ChapAnswer {
  readonly user: string;
  readonly response: Uint8Array;
  /** Mutual CHAP: its identifier and challenge. */
  readonly challenge: { readonly identifier: number; readonly bytes: Uint8Array } | null;
}

/** What we answer its challenge with; null where it asked for nothing. */
export interface ChapProof {
  readonly user: string;
  readonly response: Uint8Array;
}

/**
 * The authenticator's half of one CHAP exchange [RFC 1994, RFC 7143 12.1.3]. `random` fills with unpredictable bytes: the
 * challenge, as long as the algorithm's hash, and the identifier.
 */
export class ChapAuthenticator {
  readonly algorithm: number;
  readonly identifier: number;
  readonly challenge: Uint8Array;

  constructor(algorithm: number, random: (bytes: Uint8Array) => void) {
    this.algorithm = algorithm;
    const bytes = new Uint8Array(1 + (CHAP_A.get(algorithm)?.bytes ?? 0));
    random(bytes);
    this.identifier = bytes[0] as number;
    this.challenge = bytes.subarray(1);
  }

  /**
   * Judges the answer. `account`: who may log in. `own`: how we prove ourselves, null when we cannot. Returns our proof, null
   * when none was asked for, or a line that says why it is refused; which of name and secret was wrong is not told apart.
   */
  judge(
    answer: ChapAnswer,
    account: ChapAccount,
    own: ChapAccount | null,
  ): ChapProof | null | string {
    const expected = chapResponse(this.algorithm, this.identifier, account.secret, this.challenge);
    // Both comparisons are always made, in a time that does not depend on what they find.
    const sameUser = equalText(answer.user, account.user);
    const sameResponse = equalBytes(answer.response, expected);
    if (!sameUser || !sameResponse) return 'wrong CHAP name or secret';
    if (answer.challenge === null) return null;
    if (own === null) return 'it asks for mutual CHAP, and no secret is set for that';
    // Reflection: whoever sends back what we asked wants us to answer our own question [RFC 7143 9.2.1].
    if (equalBytes(answer.challenge.bytes, this.challenge)) {
      return 'its CHAP challenge is a reflection of ours';
    }
    // The same over two connections works when both directions have one secret: "MUST NOT" [RFC 7143 9.2.1].
    if (equalBytes(own.secret, account.secret)) {
      return 'the CHAP secrets of both directions are the same';
    }
    const { identifier, bytes } = answer.challenge;
    return {
      user: own.user,
      response: chapResponse(this.algorithm, identifier, own.secret, bytes),
    };
  }
}

/** In a time that depends on the lengths only. */
function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

function equalText(a: string, b: string): boolean {
  return timingSafeEqual(fingerprint(a), fingerprint(b));
}

function fingerprint(text: string): Uint8Array {
  return createHash('sha256').update(text).digest();
}
