import { randomFillSync } from 'node:crypto';
import { ProtocolError } from '../../base/errors.ts';
import {
  LOGIN_SEGMENT_BYTES,
  MAX_LOGIN_PDUS,
  MAX_NAME_BYTES,
  MAX_RECEIVE_SEGMENT_BYTES,
} from './limits.ts';
import { LoginSecurity, Refused, SECURITY_KEYS } from './login-security.ts';
import { Negotiation } from './negotiation.ts';
import { type IscsiNode, type IscsiTarget, type LoginResult, PORTAL_GROUP_TAG } from './node.ts';
import {
  encodeText,
  type KeyValue,
  parseText,
  printable,
  TextCollector,
  TextPieces,
} from './text.ts';
import {
  ahsBytes,
  BHS_BYTES,
  FIELD,
  FLAG_CONTINUE,
  FLAG_TRANSIT,
  flagsOf,
  initiatorTaskTag,
  ISCSI_OP,
  ISCSI_VERSION,
  LOGIN_STATUS,
  type LoginStatus,
  opcodeOf,
  serialAdd,
  STAGE,
  writeLoginResponse,
  writeSequence,
} from './wire.ts';

/** May it begin, and as what: asked last, when everything else is settled. */
export type Admission =
  | {
      /** Not 0: the handle of the session, new or named. */
      readonly tsih: number;
      /** Commands that the initiator may send before it hears of more [RFC 7143 4.2.2.1]. */
      readonly window: number;
    }
  | { readonly status: Exclude<LoginStatus, 0>; readonly reason: string };

/** What the login needs of its connection. */
export interface LoginHost {
  /** Says a PDU. Both are the host's to keep; `data` has no padding, and no digest goes with it [RFC 7143 13.1]. */
  send(header: Uint8Array, data: Uint8Array): void;
  /** Called once at most, before the last answer: `result.tsih` is what the initiator named. */
  admit(result: LoginResult): Admission;
  /** The last answer has been sent. What comes next is of the full feature phase. */
  done(result: LoginResult, tsih: number): void;
  /**
   * It is over: the answer that says so, if there is one, has been sent. `reason` is one line for the log, without line
   * breaks or control characters.
   */
  fail(reason: string, status: LoginStatus): void;
}

/** The ends of a login phase's PDUs are the same all the time. */
interface Identity {
  readonly itt: number;
  readonly isid: Uint8Array;
  readonly tsih: number;
  readonly cid: number;
  readonly cmdSn: number;
}

/** Who wants what, said in the first request. */
interface Purpose {
  readonly initiatorName: string;
  readonly target: IscsiTarget | null;
}

/** A refusal that has a status of its own. */
class LoginError extends Error {
  readonly status: LoginStatus;

  constructor(status: LoginStatus, reason: string) {
    super(reason);
    this.status = status;
  }
}

/** Keys that identify: said once, or again with the same value. */
const IDENTITY_KEYS: ReadonlySet<string> = new Set(['InitiatorName', 'TargetName', 'SessionType']);
/** Declarations may be made again [RFC 7143 6.2]. */
const REPEATABLE: ReadonlySet<string> = new Set(['MaxRecvDataSegmentLength', 'InitiatorAlias']);

/** The first answer's StatSN: any number will do. */
const FIRST_STAT_SN = 1;

/**
 * The target's side of the login phase [RFC 7143 6.3], without sockets and timers. Whatever arrives, it answers, is done or
 * fails; it never throws, and keeps a bounded amount. The owner calls `receive` for as long as `state` is 'negotiating'.
 */
export class LoginNegotiation {
  readonly #host: LoginHost;
  readonly #node: IscsiNode;
  readonly #random: (bytes: Uint8Array) => void;
  #state: 'negotiating' | 'done' | 'failed' = 'negotiating';
  #stage: number = STAGE.SECURITY;
  #identity: Identity | null = null;
  #purpose: Purpose | null = null;
  #security: LoginSecurity | null = null;
  #negotiation = new Negotiation(false);
  #alias = '';
  #pdus = 0;
  #statSn = FIRST_STAT_SN;
  #declared = false;
  readonly #said = new Map<string, string>();
  readonly #text = new TextCollector();
  readonly #answer = new TextPieces();

  /** `random` fills with unpredictable bytes. */
  constructor(
    host: LoginHost,
    node: IscsiNode,
    random: (bytes: Uint8Array) => void = (bytes) => void randomFillSync(bytes),
  ) {
    this.#host = host;
    this.#node = node;
    this.#random = random;
  }

  get state(): 'negotiating' | 'done' | 'failed' {
    return this.#state;
  }

  /** For whoever waits too long: who it is about, as far as that is known. */
  get who(): string {
    const name = this.#said.get('InitiatorName');
    const target = this.#said.get('TargetName');
    const initiator = name === undefined ? 'an initiator' : `initiator '${printable(name)}'`;
    return target === undefined ? initiator : `${initiator} at target '${printable(target)}'`;
  }

  /** A PDU: its 48 bytes of header and its data without padding. Neither is kept. */
  receive(header: Uint8Array, data: Uint8Array): void {
    if (this.#state !== 'negotiating') return;
    const view = new DataView(header.buffer, header.byteOffset, BHS_BYTES);
    try {
      this.#receive(view, header, data);
    } catch (error) {
      if (error instanceof LoginError) {
        this.#refuse(view, error.status, error.message);
      } else if (error instanceof ProtocolError) {
        this.#refuse(view, LOGIN_STATUS.INITIATOR_ERROR, `${error.message} [${error.spec}]`);
      } else {
        throw error;
      }
    }
  }

  #receive(view: DataView, header: Uint8Array, data: Uint8Array): void {
    if (opcodeOf(view, 0) !== ISCSI_OP.LOGIN_REQUEST) this.#otherPdu(opcodeOf(view, 0));
    this.#pdus += 1;
    if (this.#pdus > MAX_LOGIN_PDUS) throw bad('a login without end', '6.3');
    this.#checkHeader(view, header, data);
    const flags = flagsOf(view, 0);
    const transit = (flags & FLAG_TRANSIT) !== 0;
    if (!this.#text.add(data)) throw bad('too much text', '6.1');
    if ((flags & FLAG_CONTINUE) !== 0) {
      if (this.#answer.more) throw bad('text in place of a request for the rest of ours', '6.2');
      this.#reply(false, 0);
      return;
    }
    const pairs = parseText(this.#text.take());
    if (typeof pairs === 'string') throw bad(pairs, '6.1');
    if (this.#answer.more) {
      if (pairs.length > 0) throw bad('text in place of a request for the rest of ours', '6.2');
    } else {
      this.#answer.set(encodeText(this.#negotiate(pairs)));
    }
    this.#reply(transit, flags & 0x03);
  }

  /** "If the Target receives another PDU in the Login Phase": a login response if it is not the first [RFC 7143 11.13.5]. */
  #otherPdu(opcode: number): never {
    const reason = `PDU 0x${opcode.toString(16).padStart(2, '0')} before the login is complete`;
    throw new LoginError(LOGIN_STATUS.INVALID_DURING_LOGIN, reason);
  }

  #checkHeader(view: DataView, header: Uint8Array, data: Uint8Array): void {
    const flags = flagsOf(view, 0);
    const [csg, nsg] = [(flags >>> 2) & 0x03, flags & 0x03];
    // Version-min [RFC 7143 11.12.4]: there is no version but ours, so Version-max cannot be too low.
    if (view.getUint8(3) > ISCSI_VERSION) {
      throw new LoginError(
        LOGIN_STATUS.UNSUPPORTED_VERSION,
        'an iSCSI version that we do not have',
      );
    }
    if (ahsBytes(view, 0) > 0) throw bad('additional header segments', '11.12');
    if (data.length > LOGIN_SEGMENT_BYTES) throw bad('too long a data segment', '13.12');
    if ((flags & FLAG_CONTINUE) !== 0 && (flags & FLAG_TRANSIT) !== 0) {
      throw bad('T and C bits together', '11.12.2');
    }
    if (csg > STAGE.OPERATIONAL) throw bad('a stage that there is not', '11.12.3');
    if ((flags & FLAG_TRANSIT) !== 0 && (nsg <= csg || nsg === 2)) {
      throw bad('no way from this stage to that', '11.12.3');
    }
    const identity: Identity = {
      itt: initiatorTaskTag(view, 0),
      isid: header.slice(FIELD.ISID, FIELD.ISID + 6),
      tsih: view.getUint16(FIELD.TSIH),
      cid: view.getUint16(FIELD.CID),
      cmdSn: view.getUint32(FIELD.CMD_SN),
    };
    const before = this.#identity;
    if (before === null) {
      this.#identity = identity;
      this.#stage = csg;
      return;
    }
    if (csg !== this.#stage) throw bad('not the stage that we are in', '11.12.3');
    const same =
      identity.itt === before.itt &&
      identity.tsih === before.tsih &&
      identity.cid === before.cid &&
      Buffer.compare(identity.isid, before.isid) === 0;
    if (!same) throw bad('another ITT, ISID, TSIH or CID than before', '11.12');
  }

  /** Takes the keys of one complete request and returns the answers. */
  #negotiate(pairs: readonly KeyValue[]): KeyValue[] {
    const security = new Map<string, string>();
    const offers: KeyValue[] = [];
    // MaxBurstLength bounds FirstBurstLength: that one is taken last.
    const ordered = [
      ...pairs.filter(({ key }) => key !== 'FirstBurstLength'),
      ...pairs.filter(({ key }) => key === 'FirstBurstLength'),
    ];
    for (const pair of ordered) {
      this.#once(pair);
      if (SECURITY_KEYS.has(pair.key)) security.set(pair.key, pair.value);
      else if (!IDENTITY_KEYS.has(pair.key)) offers.push(pair);
    }
    const answers = this.#purpose === null ? this.#begin() : [];
    answers.push(...this.#authenticate(security));
    for (const { key, value } of offers) {
      const answer = this.#negotiation.offer(key, value);
      if (answer !== null) answers.push({ key, value: answer });
    }
    if (this.#stage === STAGE.OPERATIONAL && !this.#declared) {
      this.#declared = true;
      this.#negotiation.declared();
      answers.push({
        key: 'MaxRecvDataSegmentLength',
        value: String(MAX_RECEIVE_SEGMENT_BYTES),
      });
    }
    return answers;
  }

  /** "an attempt to renegotiate a key" ends the login [RFC 7143 6.2]; a repeated statement does no harm. */
  #once({ key, value }: KeyValue): void {
    const before = this.#said.get(key);
    const harmless = REPEATABLE.has(key) || (IDENTITY_KEYS.has(key) && before === value);
    if (before !== undefined && !harmless) throw bad(`${key} offered twice`, '6.2');
    if (this.#purpose !== null && IDENTITY_KEYS.has(key) && before === undefined) {
      throw bad(`${key} not in the first request`, '6.3');
    }
    this.#said.set(key, value);
    if (key === 'InitiatorAlias') this.#alias = value;
  }

  /** Who it is and what for [RFC 7143 6.3.1]: the first request says it. Returns what we say of ourselves. */
  #begin(): KeyValue[] {
    const name = this.#said.get('InitiatorName');
    if (name === undefined) {
      throw new LoginError(LOGIN_STATUS.MISSING_PARAMETER, 'no InitiatorName');
    }
    // Names that RFC 3722 would not allow are common among initiators: what matters is that they can be compared and shown.
    const bytes = Buffer.byteLength(name);
    if (bytes === 0 || bytes > MAX_NAME_BYTES || /[\p{Cc}\p{Cf}\s]/u.test(name)) {
      throw bad('an InitiatorName that is no name', '4.2.7');
    }
    const initiatorName = name.toLowerCase();
    const type = this.#said.get('SessionType') ?? 'Normal';
    if (type === 'Discovery') {
      this.#begun({ initiatorName, target: null });
      return [];
    }
    if (type !== 'Normal') {
      throw new LoginError(LOGIN_STATUS.SESSION_TYPE_NOT_SUPPORTED, 'an unknown SessionType');
    }
    const target = this.#findTarget(initiatorName);
    this.#begun({ initiatorName, target });
    // In the first answer of a normal session [RFC 7143 13.9].
    const answers = [{ key: 'TargetPortalGroupTag', value: String(PORTAL_GROUP_TAG) }];
    if (target.alias !== '') answers.push({ key: 'TargetAlias', value: target.alias });
    return answers;
  }

  #findTarget(initiatorName: string): IscsiTarget {
    const name = this.#said.get('TargetName');
    if (name === undefined) {
      throw new LoginError(LOGIN_STATUS.MISSING_PARAMETER, 'no TargetName');
    }
    // [RFC 3722] Names are compared in lower case, and the node has them so.
    const target = this.#node.targets.get(name.toLowerCase());
    if (target === undefined) throw new LoginError(LOGIN_STATUS.NOT_FOUND, 'no such target');
    if (target.initiators !== null && !target.initiators.has(initiatorName)) {
      throw new LoginError(LOGIN_STATUS.AUTHORIZATION_FAILURE, 'it is not among the initiators');
    }
    return target;
  }

  #begun(purpose: Purpose): void {
    this.#purpose = purpose;
    this.#security = new LoginSecurity(purpose.target, this.#random);
    this.#negotiation = new Negotiation(purpose.target === null);
    if (this.#stage !== STAGE.SECURITY && !this.#security.passed) {
      throw new LoginError(LOGIN_STATUS.AUTHENTICATION_FAILURE, 'it leaves out authentication');
    }
  }

  #authenticate(keys: ReadonlyMap<string, string>): readonly KeyValue[] {
    if (keys.size === 0 || this.#security === null) return [];
    if (this.#stage !== STAGE.SECURITY) throw bad('authentication in the wrong stage', '12');
    const answers = this.#security.answer(keys);
    if (answers instanceof Refused) {
      throw new LoginError(LOGIN_STATUS.AUTHENTICATION_FAILURE, answers.reason);
    }
    return answers;
  }

  /** Sends as much of the answer as fits, and goes on to the next stage when that is wished and possible. */
  #reply(wished: boolean, nsg: number): void {
    const data = this.#answer.next(LOGIN_SEGMENT_BYTES);
    const more = this.#answer.more;
    const transit = wished && !more && this.#mayLeave();
    let flags = this.#stage << 2;
    if (more) flags |= FLAG_CONTINUE;
    if (transit) flags |= FLAG_TRANSIT | nsg;
    if (!transit || nsg !== STAGE.FULL_FEATURE) {
      this.#send(flags, data, this.#identity?.tsih ?? 0, 1);
      if (transit) this.#stage = nsg;
      return;
    }
    const result = this.#result();
    const admission = this.#host.admit(result);
    if ('status' in admission) throw new LoginError(admission.status, admission.reason);
    this.#send(flags, data, admission.tsih, admission.window);
    this.#state = 'done';
    this.#host.done(result, admission.tsih);
  }

  /** Whether this stage is complete on our side. */
  #mayLeave(): boolean {
    if (this.#stage !== STAGE.SECURITY || this.#security === null || this.#security.passed) {
      return true;
    }
    if (this.#security.untouched) {
      throw new LoginError(LOGIN_STATUS.AUTHENTICATION_FAILURE, 'it leaves out authentication');
    }
    return false;
  }

  #result(): LoginResult {
    const { isid, cid, tsih, cmdSn } = this.#identity as Identity;
    const { initiatorName, target } = this.#purpose as Purpose;
    return {
      type: target === null ? 'Discovery' : 'Normal',
      initiatorName,
      initiatorAlias: this.#alias,
      isid,
      cid,
      tsih,
      target,
      parameters: this.#negotiation.parameters,
      cmdSn,
      statSn: serialAdd(this.#statSn, 1),
    };
  }

  #send(flags: number, data: Uint8Array, tsih: number, window: number): void {
    const { itt, isid, cmdSn } = this.#identity as Identity;
    const header = new Uint8Array(BHS_BYTES);
    const view = new DataView(header.buffer);
    writeLoginResponse(view, 0, itt, flags, tsih, LOGIN_STATUS.SUCCESS, data.length);
    header.set(isid, FIELD.ISID);
    // Login requests are for immediate delivery: the first command has the CmdSN that they have [RFC 7143 11.12.8].
    writeSequence(view, 0, this.#statSn, cmdSn, serialAdd(cmdSn, window - 1));
    this.#statSn = serialAdd(this.#statSn, 1);
    this.#host.send(header, data);
  }

  #refuse(request: DataView, status: LoginStatus, reason: string): void {
    this.#state = 'failed';
    // To something else than a login there is nothing to answer when it comes first [RFC 7143 6.3].
    const login = opcodeOf(request, 0) === ISCSI_OP.LOGIN_REQUEST;
    if (login || this.#identity !== null) {
      const header = new Uint8Array(BHS_BYTES);
      const view = new DataView(header.buffer);
      writeLoginResponse(view, 0, initiatorTaskTag(request, 0), this.#stage << 2, 0, status, 0);
      if (login) {
        for (let i = FIELD.ISID; i < FIELD.TSIH + 2; i += 1) header[i] = request.getUint8(i);
      }
      const cmdSn = this.#identity?.cmdSn ?? request.getUint32(FIELD.CMD_SN);
      writeSequence(view, 0, this.#statSn, cmdSn, cmdSn);
      this.#host.send(header, new Uint8Array(0));
    }
    const code = status.toString(16).padStart(4, '0');
    this.#host.fail(`login refused (${code}): ${this.who}: ${printable(reason)}`, status);
  }
}

function bad(what: string, section: string): ProtocolError {
  return new ProtocolError(what, `RFC 7143 ${section}`);
}
