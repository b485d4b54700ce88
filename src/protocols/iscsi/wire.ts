/**
 * The PDUs of iSCSI [RFC 7143 11]: constants, readers and writers of the 48 byte basic header segment.
 *
 * Everything is big-endian. Functions work on a DataView and the offset where the header starts; they allocate nothing
 * and check nothing. A writer fills all 48 bytes. Those of target PDUs leave StatSN, ExpCmdSN and MaxCmdSN 0: they are
 * known only when the PDU leaves, and `writeSequence` puts them in.
 */

export { serialAdd, serialDistance, serialLess, serialLessOrEqual } from './serial.ts';

/** Basic header segment, in bytes. */
export const BHS_BYTES = 48;
export const DIGEST_BYTES = 4;

/** In a tag field: no such task or transfer [RFC 7143 11.2.1.8, 11.7.4]. */
export const RESERVED_TAG = 0xffffffff;

/** Opcodes: requests of the initiator, then PDUs of the target [RFC 7143 11.2.1.2]. */
export const ISCSI_OP = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  SCSI_TASK_MANAGEMENT_FUNCTION_REQUEST: 0x02,
  LOGIN_REQUEST: 0x03,
  TEXT_REQUEST: 0x04,
  SCSI_DATA_OUT: 0x05,
  LOGOUT_REQUEST: 0x06,
  SNACK_REQUEST: 0x10,
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  SCSI_TASK_MANAGEMENT_FUNCTION_RESPONSE: 0x22,
  LOGIN_RESPONSE: 0x23,
  TEXT_RESPONSE: 0x24,
  SCSI_DATA_IN: 0x25,
  LOGOUT_RESPONSE: 0x26,
  READY_TO_TRANSFER: 0x31,
  ASYNCHRONOUS_MESSAGE: 0x32,
  REJECT: 0x3f,
} as const;

/** Byte 0 [RFC 7143 11.2.1.1]: the request is for immediate delivery. */
export const IMMEDIATE = 0x40;

/** Byte 1. */
export const FLAG_FINAL = 0x80;
/** Text and Login: more text follows [RFC 7143 11.10.2, 11.12.2]. */
export const FLAG_CONTINUE = 0x40;

/** Byte 1 of SCSI Command [RFC 7143 11.3.1]. The task attribute is in the lower three bits. */
export const COMMAND_FLAG = { READ: 0x40, WRITE: 0x20, ATTRIBUTE: 0x07 } as const;

/** Task attributes [RFC 7143 11.3.1]. */
export const ATTRIBUTE = {
  UNTAGGED: 0,
  SIMPLE: 1,
  ORDERED: 2,
  HEAD_OF_QUEUE: 3,
  ACA: 4,
} as const;

/** Byte 1 of SCSI Response [RFC 7143 11.4.1] and of Data-In [RFC 7143 11.7.1]. */
export const RESPONSE_FLAG = {
  /** Bidirectional read residual overflow and underflow. */
  BIDI_OVERFLOW: 0x10,
  BIDI_UNDERFLOW: 0x08,
  OVERFLOW: 0x04,
  UNDERFLOW: 0x02,
} as const;

/** Byte 1 of Data-In [RFC 7143 11.7.1]: acknowledge is for error recovery levels above 0; status is in this PDU. */
export const DATA_IN_FLAG = { ACKNOWLEDGE: 0x40, STATUS: 0x01 } as const;

/** iSCSI service responses [RFC 7143 11.4.3]. */
export const RESPONSE = { COMMAND_COMPLETED: 0x00, TARGET_FAILURE: 0x01 } as const;

/** Task management functions [RFC 7143 11.5.1, RFC 7144]. */
export const TMF = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_ACA: 3,
  CLEAR_TASK_SET: 4,
  LOGICAL_UNIT_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
  TASK_REASSIGN: 8,
  // From here on with iSCSIProtocolLevel 2.
  QUERY_TASK: 9,
  QUERY_TASK_SET: 10,
  I_T_NEXUS_RESET: 11,
  QUERY_ASYNCHRONOUS_EVENT: 12,
} as const;

/** Task management responses [RFC 7143 11.6.1, RFC 7144]. */
export const TMF_RESPONSE = {
  FUNCTION_COMPLETE: 0,
  TASK_DOES_NOT_EXIST: 1,
  LUN_DOES_NOT_EXIST: 2,
  TASK_STILL_ALLEGIANT: 3,
  TASK_ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED: 4,
  FUNCTION_NOT_SUPPORTED: 5,
  FUNCTION_AUTHORIZATION_FAILED: 6,
  /** With iSCSIProtocolLevel 2: what a query function found. */
  FUNCTION_SUCCEEDED: 7,
  FUNCTION_REJECTED: 255,
} as const;

/** Asynchronous events [RFC 7143 11.9.1]. */
export const ASYNC_EVENT = {
  /** A SCSI asynchronous event, with sense data. */
  SCSI: 0,
  /** Log out within Parameter3 seconds, please. */
  LOGOUT_REQUEST: 1,
  /** The connection Parameter1 is going to be dropped. */
  CONNECTION_DROP: 2,
  /** The whole session is going to be dropped. */
  SESSION_DROP: 3,
  /** The target wishes a text negotiation. */
  NEGOTIATION_REQUEST: 4,
  /** All tasks of the LUN are being terminated [RFC 7143 4.2.3.4]. */
  TASKS_TERMINATED: 5,
  VENDOR: 255,
} as const;

/** Logout reasons [RFC 7143 11.14.1]. */
export const LOGOUT_REASON = {
  CLOSE_SESSION: 0,
  CLOSE_CONNECTION: 1,
  REMOVE_CONNECTION_FOR_RECOVERY: 2,
} as const;

/** Logout responses [RFC 7143 11.15.1]. */
export const LOGOUT_RESPONSE = {
  CLOSED: 0,
  CID_NOT_FOUND: 1,
  RECOVERY_NOT_SUPPORTED: 2,
  CLEANUP_FAILED: 3,
} as const;

/** SNACK types [RFC 7143 11.16.1]. */
export const SNACK_TYPE = { DATA_R2T: 0, STATUS: 1, DATA_ACK: 2, R_DATA: 3 } as const;

/** Reject reasons [RFC 7143 11.17.1]. */
export const REJECT = {
  DATA_DIGEST_ERROR: 0x02,
  SNACK_REJECT: 0x03,
  PROTOCOL_ERROR: 0x04,
  COMMAND_NOT_SUPPORTED: 0x05,
  /** Too many immediate commands. */
  IMMEDIATE_COMMAND_REJECT: 0x06,
  TASK_IN_PROGRESS: 0x07,
  INVALID_DATA_ACK: 0x08,
  INVALID_PDU_FIELD: 0x09,
  /** No target transfer tag is left. */
  LONG_OPERATION_REJECT: 0x0a,
  WAITING_FOR_LOGOUT: 0x0c,
} as const;

/** Login stages: CSG and NSG [RFC 7143 11.12.3]. */
export const STAGE = { SECURITY: 0, OPERATIONAL: 1, FULL_FEATURE: 3 } as const;

/** Byte 1 of Login: transit to the next stage [RFC 7143 11.12.1]. */
export const FLAG_TRANSIT = 0x80;

/** Status-Class in the upper byte, Status-Detail in the lower [RFC 7143 11.13.5]. */
export const LOGIN_STATUS = {
  SUCCESS: 0x0000,
  TARGET_MOVED_TEMPORARILY: 0x0101,
  TARGET_MOVED_PERMANENTLY: 0x0102,
  INITIATOR_ERROR: 0x0200,
  AUTHENTICATION_FAILURE: 0x0201,
  AUTHORIZATION_FAILURE: 0x0202,
  NOT_FOUND: 0x0203,
  TARGET_REMOVED: 0x0204,
  UNSUPPORTED_VERSION: 0x0205,
  TOO_MANY_CONNECTIONS: 0x0206,
  MISSING_PARAMETER: 0x0207,
  CANNOT_INCLUDE_IN_SESSION: 0x0208,
  SESSION_TYPE_NOT_SUPPORTED: 0x0209,
  SESSION_DOES_NOT_EXIST: 0x020a,
  INVALID_DURING_LOGIN: 0x020b,
  TARGET_ERROR: 0x0300,
  SERVICE_UNAVAILABLE: 0x0301,
  OUT_OF_RESOURCES: 0x0302,
} as const;
export type LoginStatus = (typeof LOGIN_STATUS)[keyof typeof LOGIN_STATUS];

/** The only version there is [RFC 7143 11.12.4]. */
export const ISCSI_VERSION = 0x00;

/** Additional header segments [RFC 7143 11.2.2.2]. */
export const AHS_TYPE = { EXTENDED_CDB: 1, BIDIRECTIONAL_READ_LENGTH: 2 } as const;

/**
 * Where fields of 16 and 32 bits lie in the header: read them with `view.getUint32(at + FIELD.CMD_SN)`. Those that only one
 * PDU has are named after it.
 */
export const FIELD = {
  /** Response, Status-Class and the like. */
  RESPONSE: 2,
  /** SCSI Response and Data-In: the SCSI status. */
  STATUS: 3,
  TOTAL_AHS_LENGTH: 4,
  LUN: 8,
  /** Login: six bytes. */
  ISID: 8,
  /** Login: 16 bits. */
  TSIH: 14,
  INITIATOR_TASK_TAG: 16,
  TARGET_TRANSFER_TAG: 20,
  EXPECTED_DATA_TRANSFER_LENGTH: 20,
  REFERENCED_TASK_TAG: 20,
  SNACK_TAG: 20,
  /** Login and Logout: 16 bits. */
  CID: 20,
  /** Requests. */
  CMD_SN: 24,
  EXP_STAT_SN: 28,
  /** Responses. */
  STAT_SN: 24,
  EXP_CMD_SN: 28,
  MAX_CMD_SN: 32,
  CDB: 32,
  REF_CMD_SN: 32,
  /** Data-Out, Data-In; R2TSN; ExpDataSN of SCSI Response and task management requests. */
  DATA_SN: 36,
  EXP_DATA_SN: 36,
  /** Login Response: Status-Class and Status-Detail together, 16 bits. */
  LOGIN_STATUS: 36,
  /** Asynchronous Message: 8 bits each, then 16 bits each. */
  ASYNC_EVENT: 36,
  ASYNC_VCODE: 37,
  ASYNC_PARAMETER_1: 38,
  ASYNC_PARAMETER_2: 40,
  ASYNC_PARAMETER_3: 42,
  BUFFER_OFFSET: 40,
  BIDIRECTIONAL_RESIDUAL: 40,
  /** Logout Response: 16 bits each. */
  TIME_TO_WAIT: 40,
  TIME_TO_RETAIN: 42,
  BEG_RUN: 40,
  RESIDUAL: 44,
  /** R2T. */
  DESIRED_DATA_TRANSFER_LENGTH: 44,
  RUN_LENGTH: 44,
} as const;

// What all headers have.

export function opcodeOf(view: DataView, at: number): number {
  return view.getUint8(at) & 0x3f;
}

export function isImmediate(view: DataView, at: number): boolean {
  return (view.getUint8(at) & IMMEDIATE) !== 0;
}

/** Byte 1: FLAG_…, COMMAND_FLAG and so on. */
export function flagsOf(view: DataView, at: number): number {
  return view.getUint8(at + 1);
}

export function isFinal(view: DataView, at: number): boolean {
  return (view.getUint8(at + 1) & FLAG_FINAL) !== 0;
}

/** Bytes of additional header segments behind the basic one: the field counts words [RFC 7143 11.2.1.5]. */
export function ahsBytes(view: DataView, at: number): number {
  return view.getUint8(at + FIELD.TOTAL_AHS_LENGTH) * 4;
}

/** DataSegmentLength, without the padding [RFC 7143 11.2.1.6]. */
export function dataSegmentLength(view: DataView, at: number): number {
  return view.getUint32(at + 4) & 0xffffff;
}

export function setDataSegmentLength(view: DataView, at: number, bytes: number): void {
  view.setUint32(at + 4, (view.getUint8(at + 4) << 24) | bytes);
}

/** Segments are padded with zeroes to whole words [RFC 7143 11.1]. */
export function padded(bytes: number): number {
  return (bytes + 3) & ~3;
}

export function initiatorTaskTag(view: DataView, at: number): number {
  return view.getUint32(at + FIELD.INITIATOR_TASK_TAG);
}

export function targetTransferTag(view: DataView, at: number): number {
  return view.getUint32(at + FIELD.TARGET_TRANSFER_TAG);
}

// Logical unit numbers [RFC 7143 11.2.1.7, SAM-5 4.7].

/**
 * A LUN field as a number: single level, peripheral device addressing (bus 0, 0 to 255) or flat space addressing
 * (0 to 16383). -1 for everything else: no such logical unit is ours.
 */
export function readLun(view: DataView, at: number): number {
  const first = view.getUint16(at + FIELD.LUN);
  if (view.getUint16(at + FIELD.LUN + 2) !== 0 || view.getUint32(at + FIELD.LUN + 4) !== 0)
    return -1;
  if (first < 0x100) return first;
  return first >>> 14 === 1 ? first & 0x3fff : -1;
}

/** As REPORT LUNS does: peripheral device addressing up to 255, flat space addressing above [SAM-5 4.7.4]. */
export function writeLun(view: DataView, at: number, lun: number): void {
  view.setUint16(at + FIELD.LUN, lun < 0x100 ? lun : 0x4000 | lun);
  view.setUint16(at + FIELD.LUN + 2, 0);
  view.setUint32(at + FIELD.LUN + 4, 0);
}

/** Puts one PDU's LUN field into another, whatever is in it. */
export function copyLun(from: DataView, fromAt: number, to: DataView, toAt: number): void {
  to.setUint32(toAt + FIELD.LUN, from.getUint32(fromAt + FIELD.LUN));
  to.setUint32(toAt + FIELD.LUN + 4, from.getUint32(fromAt + FIELD.LUN + 4));
}

// SCSI Command [RFC 7143 11.3].

export function expectedDataTransferLength(view: DataView, at: number): number {
  return view.getUint32(at + FIELD.EXPECTED_DATA_TRANSFER_LENGTH);
}

/** Copies the 16 bytes of the CDB into `cdb`. */
export function readCdb(view: DataView, at: number, cdb: Uint8Array): void {
  for (let i = 0; i < 16; i += 1) cdb[i] = view.getUint8(at + FIELD.CDB + i);
}

/**
 * Looks for an additional header segment in [at, at + bytes). Returns where it starts, -1 when it is not there, -2 when the
 * segments are malformed [RFC 7143 11.2.2.1]: its length in bytes is the 16 bit field at its start, without the 3 bytes
 * of length and type.
 */
export function findAhs(view: DataView, at: number, bytes: number, type: number): number {
  const end = at + bytes;
  let found = -1;
  for (let i = at; i < end;) {
    const length = i + 4 <= end ? view.getUint16(i) : 0;
    if (length === 0 || i + padded(3 + length) > end) return -2;
    if (view.getUint8(i + 2) === type && found < 0) found = i;
    i += padded(3 + length);
  }
  return found;
}

/** Bytes of the CDB behind its first 16, in an extended CDB segment [RFC 7143 11.2.2.3]: from `ahs` + 4 on. */
export function extendedCdbBytes(view: DataView, ahs: number): number {
  return view.getUint16(ahs) - 1;
}

/** [RFC 7143 11.2.2.4] */
export function bidirectionalReadLength(view: DataView, ahs: number): number {
  return view.getUint32(ahs + 4);
}

// Writers.

function clear(view: DataView, at: number, opcode: number, flags: number, dataBytes: number): void {
  view.setUint32(at, ((opcode << 24) | (flags << 16)) >>> 0);
  view.setUint32(at + 4, dataBytes);
  for (let i = 8; i < BHS_BYTES; i += 4) view.setUint32(at + i, 0);
}

/** The three counters that every target PDU carries [RFC 7143 4.2.2.1, 4.2.2.2]. */
export function writeSequence(
  view: DataView,
  at: number,
  statSn: number,
  expCmdSn: number,
  maxCmdSn: number,
): void {
  view.setUint32(at + FIELD.STAT_SN, statSn);
  view.setUint32(at + FIELD.EXP_CMD_SN, expCmdSn);
  view.setUint32(at + FIELD.MAX_CMD_SN, maxCmdSn);
}

/** SCSI Response [RFC 7143 11.4]. `flags`: RESPONSE_FLAG bits. `dataBytes`: sense data with its two bytes of length. */
export function writeScsiResponse(
  view: DataView,
  at: number,
  itt: number,
  flags: number,
  response: number,
  status: number,
  expDataSn: number,
  residual: number,
  dataBytes: number,
): void {
  clear(view, at, ISCSI_OP.SCSI_RESPONSE, FLAG_FINAL | flags, dataBytes);
  view.setUint8(at + FIELD.RESPONSE, response);
  view.setUint8(at + FIELD.STATUS, status);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint32(at + FIELD.EXP_DATA_SN, expDataSn);
  view.setUint32(at + FIELD.RESIDUAL, residual);
}

/**
 * Data-In [RFC 7143 11.7]. `flags`: FLAG_FINAL, and with DATA_IN_FLAG.STATUS also RESPONSE_FLAG bits; without it `status` and
 * `residual` are 0. Without STATUS the StatSN field is reserved, and `writeSequence` gets 0 for it.
 */
export function writeDataIn(
  view: DataView,
  at: number,
  itt: number,
  flags: number,
  status: number,
  dataSn: number,
  bufferOffset: number,
  residual: number,
  dataBytes: number,
): void {
  clear(view, at, ISCSI_OP.SCSI_DATA_IN, flags, dataBytes);
  view.setUint8(at + FIELD.STATUS, status);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint32(at + FIELD.TARGET_TRANSFER_TAG, RESERVED_TAG);
  view.setUint32(at + FIELD.DATA_SN, dataSn);
  view.setUint32(at + FIELD.BUFFER_OFFSET, bufferOffset);
  view.setUint32(at + FIELD.RESIDUAL, residual);
}

/** R2T [RFC 7143 11.8]. The LUN is copied behind it with `copyLun` or `writeLun`. */
export function writeR2t(
  view: DataView,
  at: number,
  itt: number,
  ttt: number,
  r2tSn: number,
  bufferOffset: number,
  desiredBytes: number,
): void {
  clear(view, at, ISCSI_OP.READY_TO_TRANSFER, FLAG_FINAL, 0);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint32(at + FIELD.TARGET_TRANSFER_TAG, ttt);
  view.setUint32(at + FIELD.DATA_SN, r2tSn);
  view.setUint32(at + FIELD.BUFFER_OFFSET, bufferOffset);
  view.setUint32(at + FIELD.DESIRED_DATA_TRANSFER_LENGTH, desiredBytes);
}

/** Task Management Function Response [RFC 7143 11.6]. */
export function writeTmfResponse(view: DataView, at: number, itt: number, response: number): void {
  clear(view, at, ISCSI_OP.SCSI_TASK_MANAGEMENT_FUNCTION_RESPONSE, FLAG_FINAL, 0);
  view.setUint8(at + FIELD.RESPONSE, response);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
}

/** NOP-In [RFC 7143 11.19]: an answer with the initiator's tag, or a ping with a target transfer tag. LUN: as for R2T. */
export function writeNopIn(
  view: DataView,
  at: number,
  itt: number,
  ttt: number,
  dataBytes: number,
): void {
  clear(view, at, ISCSI_OP.NOP_IN, FLAG_FINAL, dataBytes);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint32(at + FIELD.TARGET_TRANSFER_TAG, ttt);
}

/** Text Response [RFC 7143 11.11]. `flags`: FLAG_FINAL or FLAG_CONTINUE. */
export function writeTextResponse(
  view: DataView,
  at: number,
  itt: number,
  ttt: number,
  flags: number,
  dataBytes: number,
): void {
  clear(view, at, ISCSI_OP.TEXT_RESPONSE, flags, dataBytes);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint32(at + FIELD.TARGET_TRANSFER_TAG, ttt);
}

/** Login Response [RFC 7143 11.13]. `flags`: FLAG_TRANSIT, FLAG_CONTINUE, CSG and NSG. The ISID is the caller's to add. */
export function writeLoginResponse(
  view: DataView,
  at: number,
  itt: number,
  flags: number,
  tsih: number,
  status: number,
  dataBytes: number,
): void {
  clear(view, at, ISCSI_OP.LOGIN_RESPONSE, flags, dataBytes);
  view.setUint8(at + 2, ISCSI_VERSION);
  view.setUint8(at + 3, ISCSI_VERSION);
  view.setUint16(at + FIELD.TSIH, tsih);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint16(at + FIELD.LOGIN_STATUS, status);
}

/** Logout Response [RFC 7143 11.15]. Times in seconds. */
export function writeLogoutResponse(
  view: DataView,
  at: number,
  itt: number,
  response: number,
  timeToWait: number,
  timeToRetain: number,
): void {
  clear(view, at, ISCSI_OP.LOGOUT_RESPONSE, FLAG_FINAL, 0);
  view.setUint8(at + FIELD.RESPONSE, response);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint16(at + FIELD.TIME_TO_WAIT, timeToWait);
  view.setUint16(at + FIELD.TIME_TO_RETAIN, timeToRetain);
}

/** Asynchronous Message [RFC 7143 11.9]. The LUN, where it means something, is the caller's to add. */
export function writeAsyncMessage(
  view: DataView,
  at: number,
  event: number,
  parameter1: number,
  parameter2: number,
  parameter3: number,
  dataBytes: number,
): void {
  clear(view, at, ISCSI_OP.ASYNCHRONOUS_MESSAGE, FLAG_FINAL, dataBytes);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, RESERVED_TAG);
  view.setUint8(at + FIELD.ASYNC_EVENT, event);
  view.setUint16(at + FIELD.ASYNC_PARAMETER_1, parameter1);
  view.setUint16(at + FIELD.ASYNC_PARAMETER_2, parameter2);
  view.setUint16(at + FIELD.ASYNC_PARAMETER_3, parameter3);
}

/** Reject [RFC 7143 11.17]: its data is the rejected header, 48 bytes and what additional segments came with it. */
export function writeReject(view: DataView, at: number, reason: number, dataBytes: number): void {
  clear(view, at, ISCSI_OP.REJECT, FLAG_FINAL, dataBytes);
  view.setUint8(at + FIELD.RESPONSE, reason);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, RESERVED_TAG);
}

// The initiator's PDUs, for our client. CmdSN and ExpStatSN: `writeRequestSequence`.

/** The counters that requests carry. Data-Out and SNACK have no CmdSN: 0. */
export function writeRequestSequence(
  view: DataView,
  at: number,
  cmdSn: number,
  expStatSn: number,
): void {
  view.setUint32(at + FIELD.CMD_SN, cmdSn);
  view.setUint32(at + FIELD.EXP_STAT_SN, expStatSn);
}

/**
 * A request's header [RFC 7143 11]. `opcode`: with IMMEDIATE where that is meant; `flags`: byte 1. The LUN and what stands behind
 * byte 32 are the caller's to add, with FIELD.
 */
export function writeRequest(
  view: DataView,
  at: number,
  opcode: number,
  flags: number,
  itt: number,
  word20: number,
  dataBytes: number,
): void {
  clear(view, at, opcode, flags, dataBytes);
  view.setUint32(at + FIELD.INITIATOR_TASK_TAG, itt);
  view.setUint32(at + 20, word20);
}

/** SCSI Command [RFC 7143 11.3]. `flags`: FLAG_FINAL, COMMAND_FLAG bits, ATTRIBUTE. */
export function writeScsiCommand(
  view: DataView,
  at: number,
  itt: number,
  flags: number,
  lun: number,
  expectedBytes: number,
  cdb: Uint8Array,
  dataBytes: number,
): void {
  writeRequest(view, at, ISCSI_OP.SCSI_COMMAND, flags, itt, expectedBytes, dataBytes);
  writeLun(view, at, lun);
  for (let i = 0; i < cdb.length; i += 1) view.setUint8(at + FIELD.CDB + i, cdb[i] as number);
}

/** Data-Out [RFC 7143 11.7]. */
export function writeDataOut(
  view: DataView,
  at: number,
  itt: number,
  ttt: number,
  flags: number,
  dataSn: number,
  bufferOffset: number,
  dataBytes: number,
): void {
  writeRequest(view, at, ISCSI_OP.SCSI_DATA_OUT, flags, itt, ttt, dataBytes);
  view.setUint32(at + FIELD.DATA_SN, dataSn);
  view.setUint32(at + FIELD.BUFFER_OFFSET, bufferOffset);
}
