import { ProtocolError } from '../../base/errors.ts';
import {
  MAX_BURST_LENGTH,
  MAX_FIRST_BURST_LENGTH,
  MAX_OUTSTANDING_R2T,
  MAX_RECEIVE_SEGMENT_BYTES,
} from './limits.ts';
import { DEFAULT_PARAMETERS, type SessionParameters } from './parameters.ts';
import { parseNumber, TEXT } from './text.ts';

type Agreed = { -readonly [K in keyof SessionParameters]: SessionParameters[K] };

/** Takes what the initiator offers and returns the answer; null where a declaration wants none. */
type Rule = (agreed: Agreed, value: string) => string | null;

/** Lengths of data segments and bursts [RFC 7143 13.12 to 13.14]. */
const MIN_LENGTH = 512;
const MAX_LENGTH: number = 2 ** 24 - 1;

/** What was not meant to be said about a value: the answer of a responder that keeps to the rules [RFC 7143 6.2]. */
const RESERVED_VALUES: ReadonlySet<string> = new Set([
  TEXT.REJECT,
  TEXT.IRRELEVANT,
  TEXT.NOT_UNDERSTOOD,
]);

/** "Irrelevant when: SessionType=Discovery" [RFC 7143 13]. */
const IRRELEVANT_IN_DISCOVERY: ReadonlySet<string> = new Set([
  'MaxConnections',
  'InitialR2T',
  'ImmediateData',
  'MaxBurstLength',
  'FirstBurstLength',
  'MaxOutstandingR2T',
  'DataPDUInOrder',
  'DataSequenceInOrder',
]);

/** The operational keys [RFC 7143 13, RFC 7144 7.1.1]. */
const RULES: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ['HeaderDigest', (agreed, value) => digest(agreed, 'headerDigest', value)],
  ['DataDigest', (agreed, value) => digest(agreed, 'dataDigest', value)],
  ['MaxConnections', (_, value) => number(value, 1, 65_535, () => 1)],
  // Yes if one side says so; we do not.
  ['InitialR2T', (agreed, value) => boolean(agreed, 'initialR2T', value)],
  // Yes if both sides say so; we do.
  ['ImmediateData', (agreed, value) => boolean(agreed, 'immediateData', value)],
  ['MaxBurstLength', maxBurstLength],
  ['FirstBurstLength', firstBurstLength],
  ['MaxRecvDataSegmentLength', maxRecvDataSegmentLength],
  // The maximum counts; we have nothing to wait for.
  [
    'DefaultTime2Wait',
    (agreed, value) => number(value, 0, 3600, (n) => (agreed.defaultTime2Wait = n)),
  ],
  // The minimum counts; at error recovery level 0 nothing is retained.
  [
    'DefaultTime2Retain',
    (agreed, value) => number(value, 0, 3600, () => (agreed.defaultTime2Retain = 0)),
  ],
  [
    'MaxOutstandingR2T',
    (agreed, value) =>
      number(
        value,
        1,
        65_535,
        (n) => (agreed.maxOutstandingR2T = Math.min(n, MAX_OUTSTANDING_R2T)),
      ),
  ],
  ['DataPDUInOrder', alwaysYes],
  ['DataSequenceInOrder', alwaysYes],
  ['ErrorRecoveryLevel', (_, value) => number(value, 0, 2, () => 0)],
  [
    'iSCSIProtocolLevel',
    (agreed, value) => number(value, 0, 31, (n) => (agreed.protocolLevel = Math.min(n, 2))),
  ],
  // [RFC 7143 13.23] Others may be had, this is the one that we have.
  ['TaskReporting', (_, value) => (value.split(',').includes('RFC3720') ? 'RFC3720' : TEXT.REJECT)],
  // Obsolete, and not to be answered with NotUnderstood [RFC 7143 13.25].
  ['IFMarker', () => TEXT.NO],
  ['OFMarker', () => TEXT.NO],
  ['IFMarkInt', () => TEXT.REJECT],
  ['OFMarkInt', () => TEXT.REJECT],
  // Declarations that change nothing.
  ['InitiatorAlias', () => null],
  ['X#NodeArchitecture', () => null],
  // Ours to say [RFC 7143 13.6, 13.8, 13.9], or not during login [RFC 7143 13.3].
  ['TargetAlias', () => TEXT.REJECT],
  ['TargetAddress', () => TEXT.REJECT],
  ['TargetPortalGroupTag', () => TEXT.REJECT],
  ['SendTargets', () => TEXT.REJECT],
]);

/** The target's side of the operational keys: what was agreed on, with the defaults of the rest. */
export class Negotiation {
  readonly #agreed: Agreed = { ...DEFAULT_PARAMETERS };
  readonly #discovery: boolean;

  constructor(discovery: boolean) {
    this.#discovery = discovery;
  }

  /** The answer to a key, null where it wants none. Throws a ProtocolError for a declaration that is not possible. */
  offer(key: string, value: string): string | null {
    const rule = RULES.get(key);
    if (rule === undefined) return value === TEXT.NOT_UNDERSTOOD ? null : TEXT.NOT_UNDERSTOOD;
    if (RESERVED_VALUES.has(value)) return null;
    if (this.#discovery && IRRELEVANT_IN_DISCOVERY.has(key)) return TEXT.IRRELEVANT;
    return rule(this.#agreed, value);
  }

  /** We have declared MaxRecvDataSegmentLength. */
  declared(): void {
    this.#agreed.receiveSegmentBytes = MAX_RECEIVE_SEGMENT_BYTES;
  }

  get parameters(): SessionParameters {
    return { ...this.#agreed };
  }
}

/** Whether it is a key of the standards, that the login phase knows. */
export function isOperationalKey(key: string): boolean {
  return RULES.has(key);
}

/** MaxRecvDataSegmentLength as the other side declares it [RFC 7143 13.12]. Throws a ProtocolError. */
export function parseSegmentLength(value: string): number {
  const n = parseNumber(value);
  if (n === null || n < MIN_LENGTH || n > MAX_LENGTH) {
    throw new ProtocolError('MaxRecvDataSegmentLength out of range', 'RFC 7143 13.12');
  }
  return n;
}

function maxRecvDataSegmentLength(agreed: Agreed, value: string): null {
  agreed.sendSegmentBytes = parseSegmentLength(value);
  return null;
}

function maxBurstLength(agreed: Agreed, value: string): string {
  return number(
    value,
    MIN_LENGTH,
    MAX_LENGTH,
    (n) => (agreed.maxBurstLength = Math.min(n, MAX_BURST_LENGTH)),
  );
}

/** "FirstBurstLength MUST NOT exceed MaxBurstLength" [RFC 7143 13.14]: the caller has taken that one first. */
function firstBurstLength(agreed: Agreed, value: string): string {
  return number(
    value,
    MIN_LENGTH,
    MAX_LENGTH,
    (n) => (agreed.firstBurstLength = Math.min(n, MAX_FIRST_BURST_LENGTH, agreed.maxBurstLength)),
  );
}

/** In-order keys: the result is Yes if one side says so [RFC 7143 13.18, 13.19]. */
function alwaysYes(_: Agreed, value: string): string {
  return value === TEXT.YES || value === TEXT.NO ? TEXT.YES : TEXT.REJECT;
}

/** A value from the list that is the first we have [RFC 7143 6.2.1]. */
function digest(agreed: Agreed, which: 'headerDigest' | 'dataDigest', value: string): string {
  const chosen = value.split(',').find((each) => each === 'CRC32C' || each === TEXT.NONE);
  if (chosen === undefined) return TEXT.REJECT;
  agreed[which] = chosen === 'CRC32C';
  return chosen;
}

/** What the initiator says is what holds. */
function boolean(agreed: Agreed, which: 'initialR2T' | 'immediateData', value: string): string {
  if (value !== TEXT.YES && value !== TEXT.NO) return TEXT.REJECT;
  agreed[which] = value === TEXT.YES;
  return value;
}

function number(value: string, min: number, max: number, agree: (n: number) => number): string {
  const n = parseNumber(value);
  return n === null || n < min || n > max ? TEXT.REJECT : String(agree(n));
}
