import { Buffer } from 'node:buffer';
import { unreachable } from '../../src/base/assert.ts';
import type { Prng } from '../../src/base/prng.ts';
import { chapResponse } from '../../src/protocols/iscsi/chap.ts';
import { FIELD, ISCSI_OP } from '../../src/protocols/iscsi/wire.ts';
import { noise } from './iscsi-cdbs.ts';
import { sealed } from './iscsi-pdu.ts';
import { fail } from './target.ts';

// The login phase from the initiator's side: as it should be, with the wrong secret, or any text at all.

export const USER = 'alice';
export const SECRET = 'secretsecret1';

export type LoginKind = 'good' | 'discovery' | 'chap' | 'wrong-chap' | 'mutated' | 'wild';

export interface LoginPlan {
  readonly kind: LoginKind;
  readonly initiator: string;
  readonly isid: number;
  readonly target: string;
  /** Whether this initiator may get in at all, with the right secret if one is asked for. */
  readonly allowed: boolean;
  /** Digests, bursts and the like as this initiator likes them. */
  readonly keys: readonly string[];
}

const NO_DIGESTS = { header: false, data: false };
const NO_BYTES = Buffer.alloc(0);
const SECURITY = 0;
const OPERATIONAL = 1;
const FULL_FEATURE = 3;

/** Keys of the standard, with values right and wrong. */
const KEYS: readonly (readonly [string, readonly string[]])[] = [
  ['HeaderDigest', ['None', 'CRC32C', 'CRC32C,None', 'None,CRC32C', 'MD5', '']],
  ['DataDigest', ['None', 'CRC32C', 'CRC32C,None', ',', 'x'.repeat(2100)]],
  ['MaxConnections', ['1', '0', '65535', '65536', '-1', '0x10']],
  ['InitialR2T', ['Yes', 'No', 'Maybe', '']],
  ['ImmediateData', ['Yes', 'No', 'no']],
  ['MaxRecvDataSegmentLength', ['512', '511', '0', '16777215', '16777216', '0xfff', '99999999999']],
  ['MaxBurstLength', ['512', '262144', '16777215', '1', '0x', 'Reject']],
  ['FirstBurstLength', ['512', '65536', '16777215', 'NotUnderstood']],
  ['MaxOutstandingR2T', ['1', '65535', '0']],
  ['DefaultTime2Wait', ['0', '3600', '3601']],
  ['DefaultTime2Retain', ['0', '3600', '99999']],
  ['ErrorRecoveryLevel', ['0', '1', '2', '3']],
  ['DataPDUInOrder', ['Yes', 'No']],
  ['DataSequenceInOrder', ['Yes', 'No', '1']],
  ['iSCSIProtocolLevel', ['0', '1', '2', '31', '32', 'x']],
  ['TaskReporting', ['RFC3720', 'FastAbort', 'ResponseFence,FastAbort']],
  ['SessionType', ['Normal', 'Discovery', 'Other', '']],
  ['InitiatorName', ['iqn.2026-11.fuzz:a', '', 'a b', 'x'.repeat(300), '\u202e']],
  ['TargetName', ['iqn.2026-11.fuzz:open', 'iqn.2026-11.fuzz:chap', 'nobody', '']],
  ['InitiatorAlias', ['host', '\u{1f4be}', '']],
  ['SendTargets', ['All']],
  ['AuthMethod', ['None', 'CHAP', 'CHAP,None', 'KRB5', 'None,None']],
  ['CHAP_A', ['5', '7', '8', '5,7', '0', 'x', '0x05']],
  ['CHAP_I', ['1', '255', '256', '-1', '0x1']],
  ['CHAP_C', ['0x00', `0x${'ab'.repeat(1024)}`, `0x${'ab'.repeat(1025)}`, '0bAAAA', '0b=', '0x']],
  ['CHAP_N', [USER, 'bob', '']],
  ['CHAP_R', [`0x${'00'.repeat(16)}`, '0x1', '0b', `0x${'ff'.repeat(32)}`]],
  ['X#vendor', ['1', 'y']],
  ['OFMarker', ['Yes']],
];

export class LoginScript {
  /** Its frames are damaged. */
  broken = false;
  readonly #prng: Prng;
  readonly #plan: LoginPlan;
  readonly #cmdSn: number;
  readonly #parts: Buffer[] = [];
  readonly #itt: number;
  #proved = false;
  #left: number;

  constructor(prng: Prng, plan: LoginPlan, cmdSn: number) {
    this.#prng = prng;
    this.#plan = plan;
    this.#cmdSn = cmdSn;
    this.#itt = prng.uint32();
    this.#left = prng.below(12);
  }

  /** What is sent without having heard anything. */
  first(): Buffer[] {
    const { kind } = this.#plan;
    switch (kind) {
      case 'good':
      case 'discovery':
        return [this.#pdu(OPERATIONAL, FULL_FEATURE, this.#identity() + this.#keys())];
      case 'chap':
      case 'wrong-chap':
        return [this.#pdu(SECURITY, -1, `${this.#identity()}AuthMethod=CHAP,None\0`)];
      case 'mutated':
        return [this.#mutated()];
      case 'wild': {
        const count = 1 + this.#prng.below(3);
        return Array.from({ length: count }, (_, i) => this.#wild(i === 0));
      }
      default:
        return unreachable(kind);
    }
  }

  /** A login response that is not the last. */
  next(header: Buffer, data: Buffer): Buffer[] {
    this.note(data);
    const { kind } = this.#plan;
    if (kind === 'chap' || kind === 'wrong-chap') return [this.#chap(header)];
    if (this.#left <= 0) return [];
    this.#left -= 1;
    if (this.#prng.chance(0.3)) return [this.#pdu(OPERATIONAL, FULL_FEATURE, '')];
    return [this.#wild(false)];
  }

  /** The target says that the login is done: it must not be, for some. */
  judge(): void {
    const { allowed, kind, target } = this.#plan;
    if (kind === 'mutated' || kind === 'wild') return;
    if (!allowed) fail(`${kind} login at ${target} succeeded, and must not`);
    if (target.endsWith(':chap') && kind !== 'discovery' && !this.#proved) {
      fail('a login without the secret succeeded');
    }
  }

  /** Text of the target's. */
  note(data: Buffer): void {
    this.#parts.push(data);
  }

  /** The target's answer to a key. */
  agreed(key: string): string | undefined {
    const pairs = Buffer.concat(this.#parts).toString().split('\0');
    return pairs.find((pair) => pair.startsWith(`${key}=`))?.slice(key.length + 1);
  }

  #identity(): string {
    const { kind, initiator, target } = this.#plan;
    const who = `InitiatorName=${initiator}\0`;
    return kind === 'discovery'
      ? `${who}SessionType=Discovery\0`
      : `${who}SessionType=Normal\0TargetName=${target}\0`;
  }

  #keys(): string {
    return this.#plan.keys.map((key) => `${key}\0`).join('');
  }

  #chap(header: Buffer): Buffer {
    const challenge = this.agreed('CHAP_C');
    if (((header[1] as number) & 0x8c) === 0x80 || this.#proved) {
      return this.#pdu(OPERATIONAL, FULL_FEATURE, this.#keys());
    }
    if (challenge === undefined) return this.#pdu(SECURITY, -1, 'CHAP_A=7,5\0');
    const right = this.#plan.kind === 'chap';
    const secret = right ? SECRET : this.#prng.pick(['', 'secretsecret2', 'SECRETSECRET1', 'x']);
    const user = right || this.#prng.chance(0.7) ? USER : 'mallory';
    this.#proved = right;
    const answer = chapResponse(
      Number(this.agreed('CHAP_A')),
      Number(this.agreed('CHAP_I')),
      Buffer.from(secret),
      Buffer.from(challenge.slice(2), 'hex'),
    );
    const hex = Buffer.from(answer).toString('hex');
    return this.#pdu(SECURITY, OPERATIONAL, `CHAP_N=${user}\0CHAP_R=0x${hex}\0`);
  }

  /** As it should be, but for a few bytes. */
  #mutated(): Buffer {
    const prng = this.#prng;
    const bytes = this.#pdu(OPERATIONAL, FULL_FEATURE, this.#identity() + this.#keys());
    const count = 1 + prng.below(4);
    for (let i = 0; i < count; i += 1) {
      const at = prng.below(prng.chance(0.5) ? 48 : bytes.length);
      if (at >= 4 && at < 8) this.broken = true;
      bytes[at] = prng.below(256);
    }
    return bytes;
  }

  #wild(begins: boolean): Buffer {
    const prng = this.#prng;
    let text = begins && prng.chance(0.8) ? this.#identity() : '';
    const count = prng.below(prng.chance(0.05) ? 200 : 12);
    for (let i = 0; i < count; i += 1) {
      const [key, values] = prng.pick(KEYS);
      text += `${prng.chance(0.05) ? `${key}x` : key}=${prng.pick(values)}\0`;
    }
    if (prng.chance(0.1)) text = text.slice(0, prng.below(text.length + 1));
    const csg = prng.chance(0.9) ? prng.below(2) : prng.below(4);
    const nsg = prng.chance(0.5) ? -1 : prng.below(4);
    let data: Buffer = Buffer.from(text);
    if (prng.chance(0.1)) data = noise(prng, prng.below(600));
    if (prng.chance(0.02)) data = noise(prng, prng.pick([8191, 8192, 8193, 70_000]));
    const opcode = prng.chance(0.05) ? prng.below(64) : ISCSI_OP.LOGIN_REQUEST;
    const continues = nsg < 0 || prng.chance(0.1) ? prng.chance(0.3) : false;
    return this.#raw(opcode, flagsOf(csg, nsg) | (continues ? 0x40 : 0), data);
  }

  #pdu(csg: number, nsg: number, text: string): Buffer {
    return this.#raw(ISCSI_OP.LOGIN_REQUEST, flagsOf(csg, nsg), Buffer.from(text));
  }

  #raw(opcode: number, flags: number, data: Buffer): Buffer {
    const { isid } = this.#plan;
    const header = Buffer.alloc(48);
    header[0] = opcode | 0x40;
    header[1] = flags;
    header.writeUInt32BE(0x8000_0000 + isid, FIELD.ISID);
    header.writeUInt32BE(this.#itt, FIELD.INITIATOR_TASK_TAG);
    header.writeUInt32BE(this.#cmdSn, FIELD.CMD_SN);
    return sealed(header, NO_BYTES, data, NO_DIGESTS, {});
  }
}

/** `nsg` below 0: it stays in the stage. */
function flagsOf(csg: number, nsg: number): number {
  return nsg < 0 ? csg << 2 : 0x80 | (csg << 2) | nsg;
}

/** Sound wishes of an initiator, different for each. */
export function soundKeys(prng: Prng): string[] {
  const keys: string[] = [];
  const some = (key: string, values: readonly (string | number)[]): void => {
    if (prng.chance(0.6)) keys.push(`${key}=${prng.pick(values)}`);
  };
  some('HeaderDigest', ['None', 'None', 'CRC32C', 'CRC32C,None']);
  some('DataDigest', ['None', 'None', 'CRC32C', 'CRC32C,None']);
  some('InitialR2T', ['Yes', 'No']);
  some('ImmediateData', ['Yes', 'No']);
  some('MaxRecvDataSegmentLength', [512, 1024, 1500, 8192, 65_536, 262_144]);
  some('MaxBurstLength', [1024, 8192, 65_536, 262_144]);
  some('FirstBurstLength', [512, 1024, 8192, 65_536]);
  some('MaxOutstandingR2T', [1, 4, 8]);
  some('iSCSIProtocolLevel', [1, 2]);
  return keys;
}
