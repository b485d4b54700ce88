/** A node, a host and an initiator's PDUs, for tests of the login phase and of discovery. */
import { ScsiTarget } from '../scsi/target.ts';
import { type Admission, type LoginHost, LoginNegotiation } from './login.ts';
import type { ChapAccount, IscsiNode, IscsiTarget, LoginResult } from './node.ts';
import { encodeText, type KeyValue, parseText } from './text.ts';
import { BHS_BYTES, FIELD, type LoginStatus, writeRequest, writeRequestSequence } from './wire.ts';

export const INITIATOR = 'iqn.2026-11.org.example:initiator';
export const OPEN = 'iqn.2026-11.org.example:open';
export const DISK = 'iqn.2026-11.org.example:disk';

export function account(user: string, secret: string): ChapAccount {
  return { user, secret: new TextEncoder().encode(secret) };
}

export function target(name: string, rest: Partial<IscsiTarget> = {}): IscsiTarget {
  const scsi = new ScsiTarget(name);
  return { name, alias: 'a disk', scsi, chap: null, mutualChap: null, initiators: null, ...rest };
}

export function nodeOf(...targets: readonly IscsiTarget[]): IscsiNode {
  return {
    targets: new Map(targets.map((each) => [each.name, each])),
    portals: (local) => (local === '' ? [] : [local]),
  };
}

/** One target for everybody, and one with CHAP in both directions. */
export function twoTargets(): IscsiNode {
  return nodeOf(
    target(OPEN),
    target(DISK, {
      chap: account('alice', 'secretsecret1'),
      mutualChap: account('bob', 'targetsecret1'),
    }),
  );
}

/** "Random" bytes 1, 8, 15, ... */
export function counting(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = i * 7 + 1;
}

export interface Said {
  readonly header: Uint8Array;
  readonly view: DataView;
  readonly data: Uint8Array;
}

/** What a login comes to, seen from its connection. */
export class RecordingHost implements LoginHost {
  readonly said: Said[] = [];
  readonly results: LoginResult[] = [];
  readonly failures: { reason: string; status: LoginStatus }[] = [];
  tsih = 0;
  admission: Admission = { tsih: 7, window: 32 };
  admits = 0;

  send(header: Uint8Array, data: Uint8Array): void {
    const view = new DataView(header.buffer, header.byteOffset, header.length);
    this.said.push({ header: header.slice(), view, data: data.slice() });
  }

  admit(): Admission {
    this.admits += 1;
    return this.admission;
  }

  done(result: LoginResult, tsih: number): void {
    this.results.push(result);
    this.tsih = tsih;
  }

  fail(reason: string, status: LoginStatus): void {
    this.failures.push({ reason, status });
  }
}

export interface Request {
  readonly flags: number;
  readonly text?: string | readonly string[];
  readonly opcode?: number;
  readonly tsih?: number;
  readonly cid?: number;
  readonly itt?: number;
  readonly isid?: number;
  readonly version?: number;
}

export const CMD_SN = 0xffff_fff0;

export function loginHeader(request: Request, dataBytes: number): Uint8Array {
  const header = new Uint8Array(BHS_BYTES);
  const view = new DataView(header.buffer);
  const { opcode = 0x43, flags, itt = 0x1234_5678, cid = 1 } = request;
  writeRequest(view, 0, opcode, flags, itt, cid * 0x1_0000, dataBytes);
  writeRequestSequence(view, 0, CMD_SN, 0);
  view.setUint8(3, request.version ?? 0);
  view.setUint32(FIELD.ISID, request.isid ?? 0x8000_0001);
  view.setUint16(FIELD.TSIH, request.tsih ?? 0);
  return header;
}

/** A login as a test leads it. */
export class TestLogin {
  readonly host = new RecordingHost();
  readonly login: LoginNegotiation;

  constructor(node: IscsiNode = twoTargets()) {
    this.login = new LoginNegotiation(this.host, node, counting);
  }

  /** Says it and returns what was answered: flags, status, pairs. */
  ask(flags: number, ...text: readonly string[]): Answer | null {
    return this.request({ flags, text });
  }

  request(request: Request): Answer | null {
    const { text = [] } = request;
    const data =
      typeof text === 'string'
        ? new TextEncoder().encode(text)
        : encodeText(text.map((each) => pairOf(each)));
    this.login.receive(loginHeader(request, data.length), data);
    return answerOf(this.host.said.at(-1));
  }
}

export interface Answer {
  readonly flags: number;
  readonly status: number;
  readonly tsih: number;
  readonly pairs: readonly string[];
}

function answerOf(said: Said | undefined): Answer | null {
  if (said === undefined) return null;
  const { view, data } = said;
  const pairs = parseText(data);
  return {
    flags: view.getUint8(1),
    status: view.getUint16(FIELD.LOGIN_STATUS),
    tsih: view.getUint16(FIELD.TSIH),
    pairs: typeof pairs === 'string' ? [pairs] : pairs.map(({ key, value }) => `${key}=${value}`),
  };
}

function pairOf(text: string): KeyValue {
  const equals = text.indexOf('=');
  return { key: text.slice(0, equals), value: text.slice(equals + 1) };
}
