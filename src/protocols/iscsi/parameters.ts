/** What login has agreed on [RFC 7143 13], with the defaults that hold where a key was not mentioned. Lengths in bytes. */
export interface SessionParameters {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  /** MaxRecvDataSegmentLength that the initiator declared: the most data in one PDU to it. */
  readonly sendSegmentBytes: number;
  /** The same of ours: the most data in one PDU from it. */
  readonly receiveSegmentBytes: number;
  readonly maxBurstLength: number;
  readonly firstBurstLength: number;
  readonly initialR2T: boolean;
  readonly immediateData: boolean;
  readonly maxOutstandingR2T: number;
  readonly defaultTime2Wait: number;
  readonly defaultTime2Retain: number;
  /** [RFC 7144 7.1.1] 1 without the features of RFC 7144 (query functions, command priority), 2 with them. */
  readonly protocolLevel: number;
}

/** [RFC 7143 13] MaxConnections and ErrorRecoveryLevel are always answered with 1 and 0; in-order keys with Yes. */
export const DEFAULT_PARAMETERS: SessionParameters = {
  headerDigest: false,
  dataDigest: false,
  sendSegmentBytes: 8192,
  receiveSegmentBytes: 8192,
  maxBurstLength: 262_144,
  firstBurstLength: 65_536,
  initialR2T: true,
  immediateData: true,
  maxOutstandingR2T: 1,
  defaultTime2Wait: 2,
  defaultTime2Retain: 20,
  protocolLevel: 1,
};
