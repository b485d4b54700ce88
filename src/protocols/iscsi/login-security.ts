import { type ChapAnswer, ChapAuthenticator, chapAlgorithmAvailable } from './chap.ts';
import type { IscsiTarget } from './node.ts';
import { formatBinary, type KeyValue, parseBinary, parseNumber, TEXT } from './text.ts';

/** The longest binary value, decoded [RFC 7143 6.1]. */
const MAX_CHALLENGE_BYTES = 1024;

/** The keys of the security stage [RFC 7143 12]. */
export const SECURITY_KEYS: ReadonlySet<string> = new Set([
  'AuthMethod',
  'CHAP_A',
  'CHAP_I',
  'CHAP_C',
  'CHAP_N',
  'CHAP_R',
]);

/** A refusal, in the words of the log. */
export class Refused {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

/**
 * The target's side of authentication [RFC 7143 6.3.2, 12.1]: None where the target is for everybody, CHAP where it has an
 * account. Every refusal is an authentication failure to the initiator.
 */
export class LoginSecurity {
  readonly #target: IscsiTarget | null;
  readonly #random: (bytes: Uint8Array) => void;
  #chap: ChapAuthenticator | null = null;
  #state: 'open' | 'chosen' | 'challenged' | 'passed' = 'open';

  /** `target`: null for discovery, which is for everybody. `random` fills with unpredictable bytes. */
  constructor(target: IscsiTarget | null, random: (bytes: Uint8Array) => void) {
    this.#target = target;
    this.#random = random;
  }

  /** The login may go on to the next stage. */
  get passed(): boolean {
    return this.#state === 'passed' || (this.#target?.chap ?? null) === null;
  }

  /** Nothing of it has been begun. */
  get untouched(): boolean {
    return this.#state === 'open';
  }

  /** Answers the security keys of one request. */
  answer(keys: ReadonlyMap<string, string>): readonly KeyValue[] | Refused {
    const answers: KeyValue[] = [];
    const method = keys.get('AuthMethod');
    if (method !== undefined) {
      const chosen = this.#choose(method.split(','));
      if (chosen instanceof Refused) return chosen;
      answers.push(chosen);
    }
    const algorithms = keys.get('CHAP_A');
    if (algorithms !== undefined) {
      const challenge = this.#challenge(algorithms.split(','));
      if (challenge instanceof Refused) return challenge;
      answers.push(...challenge);
    }
    if (['CHAP_N', 'CHAP_R', 'CHAP_I', 'CHAP_C'].some((key) => keys.has(key))) {
      const proof = this.#judge(keys);
      if (proof instanceof Refused) return proof;
      answers.push(...proof);
    }
    return answers;
  }

  #choose(offered: readonly string[]): KeyValue | Refused {
    if (this.#state !== 'open') return new Refused('it offers AuthMethod twice');
    const wanted = this.passed ? TEXT.NONE : 'CHAP';
    if (!offered.includes(wanted)) {
      return new Refused(
        wanted === TEXT.NONE
          ? 'it insists on authentication, and the target has no account'
          : 'it does not offer CHAP',
      );
    }
    this.#state = wanted === TEXT.NONE ? 'passed' : 'chosen';
    return { key: 'AuthMethod', value: wanted };
  }

  #challenge(offered: readonly string[]): readonly KeyValue[] | Refused {
    if (this.#state !== 'chosen') return new Refused('CHAP_A out of order');
    const algorithm = offered
      .map((each) => parseNumber(each))
      .find((each) => each !== null && chapAlgorithmAvailable(each));
    if (algorithm === undefined || algorithm === null) {
      return new Refused('it offers no CHAP algorithm that we have');
    }
    this.#chap = new ChapAuthenticator(algorithm, this.#random);
    this.#state = 'challenged';
    return [
      { key: 'CHAP_A', value: String(algorithm) },
      { key: 'CHAP_I', value: String(this.#chap.identifier) },
      { key: 'CHAP_C', value: formatBinary(this.#chap.challenge) },
    ];
  }

  #judge(keys: ReadonlyMap<string, string>): readonly KeyValue[] | Refused {
    const account = this.#target?.chap ?? null;
    if (this.#state !== 'challenged' || this.#chap === null || account === null) {
      return new Refused('a CHAP answer out of order');
    }
    const answer = parseAnswer(keys);
    if (answer === null) return new Refused('a malformed CHAP answer');
    const proof = this.#chap.judge(answer, account, this.#target?.mutualChap ?? null);
    if (typeof proof === 'string') return new Refused(proof);
    this.#state = 'passed';
    if (proof === null) return [];
    return [
      { key: 'CHAP_N', value: proof.user },
      { key: 'CHAP_R', value: formatBinary(proof.response) },
    ];
  }
}

function parseAnswer(keys: ReadonlyMap<string, string>): ChapAnswer | null {
  const user = keys.get('CHAP_N');
  const response = parseBinary(keys.get('CHAP_R') ?? '');
  if (user === undefined || response === null) return null;
  if (!keys.has('CHAP_I') && !keys.has('CHAP_C')) return { user, response, challenge: null };
  const identifier = parseNumber(keys.get('CHAP_I') ?? '');
  const bytes = parseBinary(keys.get('CHAP_C') ?? '');
  if (identifier === null || identifier > 255) return null;
  if (bytes === null || bytes.length > MAX_CHALLENGE_BYTES) return null;
  return { user, response, challenge: { identifier, bytes } };
}
