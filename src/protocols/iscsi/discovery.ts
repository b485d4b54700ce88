import { ProtocolError } from '../../base/errors.ts';
import { MAX_TEXT_BYTES } from './limits.ts';
import { SECURITY_KEYS } from './login-security.ts';
import { isOperationalKey, parseSegmentLength } from './negotiation.ts';
import { type IscsiNode, type IscsiTarget, type LoginResult, PORTAL_GROUP_TAG } from './node.ts';
import { encodeText, type KeyValue, parseText, TEXT, TextCollector, TextPieces } from './text.ts';
import {
  FLAG_CONTINUE,
  FLAG_FINAL,
  flagsOf,
  initiatorTaskTag,
  REJECT,
  RESERVED_TAG,
  targetTransferTag,
} from './wire.ts';

/** What a Text Response says [RFC 7143 11.11]: `writeTextResponse` takes it. */
export interface TextAnswer {
  readonly flags: number;
  readonly ttt: number;
  readonly data: Uint8Array;
}

/** Keys that only state something [RFC 7143 13.5 to 13.7, 13.24]. */
const STATEMENTS: ReadonlySet<string> = new Set([
  'InitiatorAlias',
  'InitiatorName',
  'TargetName',
  'SessionType',
  'X#NodeArchitecture',
]);

const NO_DATA = new Uint8Array(0);

/**
 * Text requests of one connection in the full feature phase [RFC 7143 11.10]: SendTargets [RFC 7143 appendix C], and what little
 * else may be said there. One negotiation at a time; it keeps a bounded amount and never throws.
 */
export class TextResponder {
  readonly #node: IscsiNode;
  readonly #login: Pick<LoginResult, 'type' | 'initiatorName' | 'target'>;
  readonly #local: string;
  readonly #text = new TextCollector();
  readonly #answer = new TextPieces();
  /** The tags of a negotiation that goes on; RESERVED_TAG: there is none. */
  #ttt: number = RESERVED_TAG;
  #itt: number = RESERVED_TAG;
  #lastTtt = 0;
  /**
   * MaxRecvDataSegmentLength of the initiator, which it may declare anew at any time [RFC 7143 13.12]: the most data in one
   * PDU to it from here on.
   */
  sendSegmentBytes: number;

  /** `local`: where the initiator has come, for `IscsiNode.portals`. */
  constructor(
    node: IscsiNode,
    login: Pick<LoginResult, 'type' | 'initiatorName' | 'target' | 'parameters'>,
    local: string,
  ) {
    this.#node = node;
    this.#login = login;
    this.#local = local;
    this.sendSegmentBytes = login.parameters.sendSegmentBytes;
  }

  /** What a Text Request is answered with: text, or the reason of a Reject. `data` is not kept. */
  request(header: DataView, data: Uint8Array): TextAnswer | number {
    const answer = this.#request(header, data);
    if (typeof answer === 'number') this.#reset();
    return answer;
  }

  #request(header: DataView, data: Uint8Array): TextAnswer | number {
    const flags = flagsOf(header, 0);
    const [ttt, itt] = [targetTransferTag(header, 0), initiatorTaskTag(header, 0)];
    // A new negotiation ends one that has been left open [RFC 7143 11.10.4].
    if (ttt === RESERVED_TAG) this.#reset();
    else if (ttt !== this.#ttt || itt !== this.#itt) return REJECT.INVALID_PDU_FIELD;
    this.#itt = itt;
    const continues = (flags & FLAG_CONTINUE) !== 0;
    const final = (flags & FLAG_FINAL) !== 0;
    if (continues && final) return REJECT.PROTOCOL_ERROR;
    if (this.#answer.more) {
      // The rest of ours is asked for, with no text [RFC 7143 6.2].
      if (data.length > 0 || continues) return REJECT.PROTOCOL_ERROR;
      return this.#piece(final);
    }
    if (!this.#text.add(data)) return REJECT.PROTOCOL_ERROR;
    if (continues) return { flags: 0, ttt: this.#goOn(), data: NO_DATA };
    const pairs = parseText(this.#text.take());
    if (typeof pairs === 'string') return REJECT.PROTOCOL_ERROR;
    // [RFC 7143 6.2] A key is offered once; a list of all targets for each time would be a lot of memory for a few bytes.
    if (new Set(pairs.map(({ key }) => key)).size < pairs.length) return REJECT.PROTOCOL_ERROR;
    const answers: KeyValue[] = [];
    try {
      for (const pair of pairs) answers.push(...this.#answerTo(pair));
    } catch (error) {
      if (error instanceof ProtocolError) return REJECT.PROTOCOL_ERROR;
      throw error;
    }
    this.#answer.set(encodeText(answers));
    return this.#piece(final);
  }

  #piece(final: boolean): TextAnswer {
    const data = this.#answer.next(Math.min(this.sendSegmentBytes, MAX_TEXT_BYTES));
    if (this.#answer.more) return { flags: FLAG_CONTINUE, ttt: this.#goOn(), data };
    // Without its F bit the initiator has more to say [RFC 7143 11.11.1].
    if (!final) return { flags: 0, ttt: this.#goOn(), data };
    this.#reset();
    return { flags: FLAG_FINAL, ttt: RESERVED_TAG, data };
  }

  #goOn(): number {
    this.#lastTtt = (this.#lastTtt + 1) & 0x7fffffff;
    this.#ttt = this.#lastTtt;
    return this.#ttt;
  }

  #reset(): void {
    this.#text.clear();
    this.#answer.set(NO_DATA);
    this.#ttt = RESERVED_TAG;
    this.#itt = RESERVED_TAG;
  }

  #answerTo({ key, value }: KeyValue): readonly KeyValue[] {
    if (key === 'SendTargets') {
      const targets = this.#targetsFor(value);
      if (targets === null) return [{ key, value: TEXT.REJECT }];
      return targets.flatMap((target) => this.#addresses(target));
    }
    if (key === 'MaxRecvDataSegmentLength') {
      this.sendSegmentBytes = parseSegmentLength(value);
      return [];
    }
    if (STATEMENTS.has(key) || value === TEXT.NOT_UNDERSTOOD) return [];
    const known = isOperationalKey(key) || SECURITY_KEYS.has(key);
    return [{ key, value: known ? TEXT.REJECT : TEXT.NOT_UNDERSTOOD }];
  }

  /** Which targets are asked for; null when that may not be asked [RFC 7143 13.3, appendix C]. */
  #targetsFor(value: string): readonly IscsiTarget[] | null {
    const { type, target } = this.#login;
    if (type === 'Normal') {
      // "MUST NOT return targets other than the one to which the session is logged in".
      if (value === 'All' || target === null) return null;
      return value === '' || value.toLowerCase() === target.name ? [target] : [];
    }
    if (value === '') return null;
    if (value === 'All') return [...this.#node.targets.values()].filter((t) => this.#maySee(t));
    const named = this.#node.targets.get(value.toLowerCase());
    return named !== undefined && this.#maySee(named) ? [named] : [];
  }

  #maySee(target: IscsiTarget): boolean {
    return target.initiators === null || target.initiators.has(this.#login.initiatorName);
  }

  #addresses(target: IscsiTarget): readonly KeyValue[] {
    const portals = this.#node.portals(this.#local, target);
    return [
      { key: 'TargetName', value: target.name },
      ...portals.map((portal) => ({
        key: 'TargetAddress',
        value: `${portal},${PORTAL_GROUP_TAG}`,
      })),
    ];
  }
}
