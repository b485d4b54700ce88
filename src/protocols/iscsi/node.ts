import type { ScsiTarget } from '../scsi/target.ts';
import type { SessionParameters } from './parameters.ts';

/** A CHAP identity and its secret [RFC 7143 12.1.3, RFC 1994]. */
export interface ChapAccount {
  readonly user: string;
  readonly secret: Uint8Array;
}

/** One target by name, and who may use it. */
export interface IscsiTarget {
  /** [RFC 7143 4.2.7] iqn., eui. or naa. name. */
  readonly name: string;
  readonly alias: string;
  readonly scsi: ScsiTarget;
  /** What initiators prove to know; null: anybody may log in. */
  readonly chap: ChapAccount | null;
  /** What the target proves to know in turn, to initiators that ask (mutual CHAP). */
  readonly mutualChap: ChapAccount | null;
  /** Initiator names that may log in; null: all. */
  readonly initiators: ReadonlySet<string> | null;
}

/** Who logs in: an end of a session [RFC 7143 3.4]. */
export interface LoginResult {
  readonly type: 'Normal' | 'Discovery';
  readonly initiatorName: string;
  readonly initiatorAlias: string;
  /** Six bytes; with the initiator's name it is the SCSI initiator port's name [RFC 7143 3.4.2]. */
  readonly isid: Uint8Array;
  readonly cid: number;
  /** The session's handle that the initiator named: 0 for a new session. */
  readonly tsih: number;
  /** Null for discovery. */
  readonly target: IscsiTarget | null;
  readonly parameters: SessionParameters;
  /** The CmdSN of the first command in the full feature phase, and our next StatSN. */
  readonly cmdSn: number;
  readonly statSn: number;
}

/** All targets of one network entity, as far as one portal offers them. One portal group, with tag 1. */
export interface IscsiNode {
  readonly targets: ReadonlyMap<string, IscsiTarget>;
  /**
   * "192.0.2.1:3260": where the target is reached, for SendTargets; `local` is where this initiator has come, '' where
   * that is not known. None: where it was asked [RFC 7143 appendix C].
   */
  portals(local: string, target: IscsiTarget): readonly string[];
}

export const PORTAL_GROUP_TAG = 1;
