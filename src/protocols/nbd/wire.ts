/**
 * The NBD protocol's constants and messages, after doc/proto.md of github.com/NetworkBlockDevice/nbd (master, and the
 * branch extension-ext-header for what EXTENDED_HEADERS adds). `NBD_OPT.GO` here is NBD_OPT_GO there.
 *
 * Everything is big-endian. Decoders look at bounded bytes, return null for what is malformed and never throw; numbers
 * of 64 bits become doubles (see `readU64`). Encoders return fresh bytes that are the caller's.
 */

import type { BlockErrorCode } from '../../block/errors.ts';
import { decodeText, encodeText, Reader, Writer, writeU64 } from './bytes.ts';
import { MAX_STATUS_DESCRIPTORS, MAX_STRING_BYTES } from './limits.ts';

export { readU64, writeU64 } from './bytes.ts';

/** The port number that IANA assigned [NBD uri "NBD URI authority"]. */
export const NBD_DEFAULT_PORT = 10809;

// Magics. Those of 64 bits are pairs of 32 bits, high half first.

/** 'NBDMAGIC', the first bytes a server sends [NBD proto "Newstyle negotiation"]. */
export const NBD_MAGIC = [0x4e42444d, 0x41474943] as const;
/** 'IHAVEOPT': newstyle, and the start of every option. */
export const NBD_OPTS_MAGIC = [0x49484156, 0x454f5054] as const;
/** Follows NBD_MAGIC in the oldstyle negotiation. */
export const NBD_CLISERV_MAGIC = [0x00004202, 0x81861253] as const;
/** Starts every reply to an option. */
export const NBD_REP_MAGIC = [0x0003e889, 0x045565a9] as const;
export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c;

/** Header lengths in bytes. */
export const NBD_HEADER = {
  GREETING: 18,
  CLIENT_FLAGS: 4,
  OPTION: 16,
  OPTION_REPLY: 20,
  /** Size, flags and reserved zeroes: the answer to NBD_OPT_EXPORT_NAME. */
  EXPORT: 134,
  EXPORT_NO_ZEROES: 10,
  REQUEST: 28,
  EXTENDED_REQUEST: 32,
  SIMPLE_REPLY: 16,
  STRUCTURED_REPLY: 20,
  EXTENDED_REPLY: 32,
} as const;

/** Handshake flags [NBD proto "Handshake flags"]. */
export const NBD_FLAG_FIXED_NEWSTYLE: number = 1 << 0;
export const NBD_FLAG_NO_ZEROES: number = 1 << 1;

/** Client flags [NBD proto "Client flags"]. */
export const NBD_FLAG_C_FIXED_NEWSTYLE: number = 1 << 0;
export const NBD_FLAG_C_NO_ZEROES: number = 1 << 1;

/** Transmission flags [NBD proto "Transmission flags"]. */
export const NBD_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_RESIZE: 1 << 9,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
  BLOCK_STATUS_PAYLOAD: 1 << 12,
} as const;

/** Option types [NBD proto "Option types"]. */
export const NBD_OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

/** Option reply types [NBD proto "Option reply types"]. */
export const NBD_REP = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
} as const;

/** Option reply types that are errors: all have bit 31 set. */
export const NBD_REP_ERR = {
  UNSUP: 0x80000001,
  POLICY: 0x80000002,
  INVALID: 0x80000003,
  PLATFORM: 0x80000004,
  TLS_REQD: 0x80000005,
  UNKNOWN: 0x80000006,
  SHUTDOWN: 0x80000007,
  BLOCK_SIZE_REQD: 0x80000008,
  TOO_BIG: 0x80000009,
  EXT_HEADER_REQD: 0x8000000a,
} as const;
export type NbdRepErr = (typeof NBD_REP_ERR)[keyof typeof NBD_REP_ERR];

/** Information types [NBD proto "NBD_REP_INFO"]. */
export const NBD_INFO = {
  EXPORT: 0,
  NAME: 1,
  DESCRIPTION: 2,
  BLOCK_SIZE: 3,
} as const;

/** Request types [NBD proto "Request types"]. */
export const NBD_CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
  RESIZE: 8,
} as const;

/** Command flags [NBD proto "Command flags"]. */
export const NBD_CMD_FLAG = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
  PAYLOAD_LEN: 1 << 5,
} as const;

/** Flags of structured and extended replies [NBD proto "Structured reply flags"]. */
export const NBD_REPLY_FLAG_DONE: number = 1 << 0;

/** Chunk types [NBD proto "Structured reply types"]. Bit 15 marks errors. */
export const NBD_REPLY_TYPE = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;
export const NBD_REPLY_TYPE_ERROR_BIT = 0x8000;

export const NBD_BASE_ALLOCATION = 'base:allocation';

/** Error values [NBD proto "Error values"]: NBD_EPERM and so on. */
export const NBD_ERROR = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export type NbdError = (typeof NBD_ERROR)[keyof typeof NBD_ERROR];

/**
 * The error value that a device's failure becomes. EPERM on a read-only export is the specification's word
 * [NBD proto "Error values"]; what NBD has no word for is an I/O error.
 */
export const nbdErrno = {
  EIO: NBD_ERROR.EIO,
  ENOSPC: NBD_ERROR.ENOSPC,
  EROFS: NBD_ERROR.EPERM,
  EINVAL: NBD_ERROR.EINVAL,
  ERANGE: NBD_ERROR.EINVAL,
  EOPNOTSUPP: NBD_ERROR.ENOTSUP,
  ETIMEDOUT: NBD_ERROR.EIO,
  ECANCELED: NBD_ERROR.EIO,
  ESHUTDOWN: NBD_ERROR.ESHUTDOWN,
  EBUSY: NBD_ERROR.EIO,
  ENOMEM: NBD_ERROR.ENOMEM,
  EPERM: NBD_ERROR.EPERM,
  EMISCOMPARE: NBD_ERROR.EIO,
  ECORRUPT: NBD_ERROR.EIO,
} as const satisfies Record<BlockErrorCode, NbdError>;

/** What a client makes of a server's error value. Unexpected ones count as EINVAL [NBD proto "Error values"]. */
export function codeOfNbdError(error: number): BlockErrorCode {
  switch (error) {
    case NBD_ERROR.EPERM:
      return 'EPERM';
    case NBD_ERROR.EIO:
      return 'EIO';
    case NBD_ERROR.ENOMEM:
      return 'ENOMEM';
    case NBD_ERROR.ENOSPC:
      return 'ENOSPC';
    case NBD_ERROR.ENOTSUP:
      return 'EOPNOTSUPP';
    case NBD_ERROR.ESHUTDOWN:
      return 'ESHUTDOWN';
    default:
      return 'EINVAL';
  }
}

/** "NBD_OPT_GO" for 7: for messages. */
export function nameOfOption(option: number): string {
  return nameIn('NBD_OPT_', NBD_OPT, option);
}

/** "NBD_REP_ERR_UNSUP" for 0x80000001. */
export function nameOfReply(type: number): string {
  return type >= 0x80000000
    ? nameIn('NBD_REP_ERR_', NBD_REP_ERR, type)
    : nameIn('NBD_REP_', NBD_REP, type);
}

function nameIn(prefix: string, table: Readonly<Record<string, number>>, value: number): string {
  const found = Object.entries(table).find(([, number]) => number === value);
  return found === undefined ? `${prefix}0x${value.toString(16)}` : prefix + found[0];
}

// Handshake, server to client.

export function encodeGreeting(handshakeFlags: number): Uint8Array {
  const [high, low] = NBD_MAGIC;
  const [optsHigh, optsLow] = NBD_OPTS_MAGIC;
  return new Writer().u32(high).u32(low).u32(optsHigh).u32(optsLow).u16(handshakeFlags).finish();
}

/** Appends one reply to an option [NBD proto "Fixed newstyle negotiation"]. */
export function writeOptionReply(
  out: Writer,
  option: number,
  type: number,
  payload: Uint8Array,
): void {
  const [high, low] = NBD_REP_MAGIC;
  out.u32(high).u32(low).u32(option).u32(type).u32(payload.length).bytes(payload);
}

/** The payload of NBD_REP_SERVER. */
export function encodeServerReply(name: string, description: string): Uint8Array {
  return new Writer().text32(name).bytes(encodeText(description)).finish();
}

export function encodeInfoExport(sizeBytes: number, transmissionFlags: number): Uint8Array {
  return new Writer().u16(NBD_INFO.EXPORT).u64(sizeBytes).u16(transmissionFlags).finish();
}

export function encodeInfoText(
  type: typeof NBD_INFO.NAME | typeof NBD_INFO.DESCRIPTION,
  text: string,
): Uint8Array {
  return new Writer().u16(type).bytes(encodeText(text)).finish();
}

/** Size constraints in bytes [NBD proto "Size constraints"]. */
export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximumPayload: number;
}

export function encodeInfoBlockSize(sizes: BlockSizes): Uint8Array {
  const out = new Writer().u16(NBD_INFO.BLOCK_SIZE).u32(sizes.minimum);
  return out.u32(sizes.preferred).u32(sizes.maximumPayload).finish();
}

/** The payload of NBD_REP_META_CONTEXT. */
export function encodeMetaContext(id: number, name: string): Uint8Array {
  return new Writer().u32(id).bytes(encodeText(name)).finish();
}

/** The answer to NBD_OPT_EXPORT_NAME. */
export function encodeExport(
  sizeBytes: number,
  transmissionFlags: number,
  noZeroes: boolean,
): Uint8Array {
  const out = new Writer().u64(sizeBytes).u16(transmissionFlags);
  return out.zeroes(noZeroes ? 0 : 124).finish();
}

// Handshake, client to server.

export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

/** Decodes the 16 bytes before an option's data; null when the magic is wrong. */
export function decodeOptionHeader(bytes: Uint8Array): OptionHeader | null {
  const reader = new Reader(bytes);
  const magic = [reader.u32(), reader.u32()];
  const header = { option: reader.u32(), length: reader.u32() };
  const matches = magic[0] === NBD_OPTS_MAGIC[0] && magic[1] === NBD_OPTS_MAGIC[1];
  return reader.complete && matches ? header : null;
}

export function encodeOption(option: number, data: Uint8Array): Uint8Array {
  const [high, low] = NBD_OPTS_MAGIC;
  return new Writer().u32(high).u32(low).u32(option).u32(data.length).bytes(data).finish();
}

/** The data of NBD_OPT_INFO and NBD_OPT_GO. */
export interface InfoRequest {
  readonly name: string;
  readonly nameBytes: number;
  readonly information: readonly number[];
}

export function decodeInfoRequest(data: Uint8Array): InfoRequest | null {
  const reader = new Reader(data);
  const nameBytes = reader.u32();
  const name = reader.text(nameBytes);
  const count = reader.u16();
  const information: number[] = [];
  for (let i = 0; i < count && !reader.failed; i += 1) information.push(reader.u16());
  return reader.complete ? { name, nameBytes, information } : null;
}

export function encodeInfoRequest(name: string, information: readonly number[]): Uint8Array {
  const out = new Writer().text32(name).u16(information.length);
  for (const type of information) out.u16(type);
  return out.finish();
}

/** The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface MetaContextRequest {
  readonly name: string;
  readonly nameBytes: number;
  readonly queries: readonly string[];
}

export function decodeMetaContextRequest(data: Uint8Array): MetaContextRequest | null {
  const reader = new Reader(data);
  const nameBytes = reader.u32();
  const name = reader.text(nameBytes);
  const count = reader.u32();
  const queries: string[] = [];
  for (let i = 0; i < count && !reader.failed; i += 1) {
    const length = reader.u32();
    if (length > MAX_STRING_BYTES) reader.failed = true;
    queries.push(reader.text(length));
  }
  return reader.complete ? { name, nameBytes, queries } : null;
}

export function encodeMetaContextRequest(name: string, queries: readonly string[]): Uint8Array {
  const out = new Writer().text32(name).u32(queries.length);
  for (const query of queries) out.text32(query);
  return out.finish();
}

// Handshake, what a client reads.

/** The handshake flags, or null when this is no newstyle server. */
export function decodeGreeting(bytes: Uint8Array): number | null {
  const reader = new Reader(bytes);
  const words = [reader.u32(), reader.u32(), reader.u32(), reader.u32()];
  const flags = reader.u16();
  const expected = [...NBD_MAGIC, ...NBD_OPTS_MAGIC];
  const matches = expected.every((word, index) => words[index] === word);
  return reader.complete && matches ? flags : null;
}

export interface OptionReplyHeader {
  readonly option: number;
  readonly type: number;
  readonly length: number;
}

export function decodeOptionReplyHeader(bytes: Uint8Array): OptionReplyHeader | null {
  const reader = new Reader(bytes);
  const magic = [reader.u32(), reader.u32()];
  const header = { option: reader.u32(), type: reader.u32(), length: reader.u32() };
  const matches = magic[0] === NBD_REP_MAGIC[0] && magic[1] === NBD_REP_MAGIC[1];
  return reader.complete && matches ? header : null;
}

export interface ListedExport {
  readonly name: string;
  readonly description: string;
}

export function decodeServerReply(payload: Uint8Array): ListedExport | null {
  const reader = new Reader(payload);
  const name = reader.text(reader.u32());
  const description = reader.text(reader.remaining);
  return reader.complete ? { name, description } : null;
}

/** The payload of NBD_REP_INFO. A type that is not known must be ignored [NBD proto "NBD_REP_INFO"]. */
export type InfoReply =
  | { readonly type: 'export'; readonly sizeBytes: number; readonly transmissionFlags: number }
  | { readonly type: 'name' | 'description'; readonly text: string }
  | { readonly type: 'blockSize'; readonly sizes: BlockSizes }
  | { readonly type: 'unknown' };

export function decodeInfoReply(payload: Uint8Array): InfoReply | null {
  const reader = new Reader(payload);
  const info = reader.u16();
  let reply: InfoReply;
  switch (info) {
    case NBD_INFO.EXPORT:
      reply = { type: 'export', sizeBytes: reader.u64(), transmissionFlags: reader.u16() };
      break;
    case NBD_INFO.NAME:
      reply = { type: 'name', text: reader.text(reader.remaining) };
      break;
    case NBD_INFO.DESCRIPTION:
      reply = { type: 'description', text: reader.text(reader.remaining) };
      break;
    case NBD_INFO.BLOCK_SIZE:
      reply = {
        type: 'blockSize',
        sizes: { minimum: reader.u32(), preferred: reader.u32(), maximumPayload: reader.u32() },
      };
      break;
    default:
      return reader.failed ? null : { type: 'unknown' };
  }
  return reader.complete ? reply : null;
}

export interface MetaContext {
  readonly id: number;
  readonly name: string;
}

export function decodeMetaContext(payload: Uint8Array): MetaContext | null {
  const reader = new Reader(payload);
  const id = reader.u32();
  const name = reader.text(reader.remaining);
  return reader.complete ? { id, name } : null;
}

/** The answer to NBD_OPT_EXPORT_NAME, without the zeroes. */
export function decodeExport(
  bytes: Uint8Array,
): { readonly sizeBytes: number; readonly transmissionFlags: number } | null {
  const reader = new Reader(bytes);
  const answer = { sizeBytes: reader.u64(), transmissionFlags: reader.u16() };
  return reader.failed ? null : answer;
}

// Transmission, the parts that are not written by hand on the hot path.

/**
 * Writes the header of a compact (28 bytes) or an extended (32 bytes) request at the start of `view`
 * [NBD proto "Request message"]. The cookie is opaque to the server.
 */
export function writeRequest(
  view: DataView,
  extended: boolean,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): void {
  view.setUint32(0, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
  view.setUint16(4, flags);
  view.setUint16(6, type);
  view.setUint32(8, cookieHigh);
  view.setUint32(12, cookieLow);
  writeU64(view, 16, offset);
  if (extended) writeU64(view, 24, length);
  else view.setUint32(24, length);
}

/** The payload of NBD_REPLY_TYPE_ERROR and the start of every error chunk's. */
export interface ErrorChunk {
  readonly error: number;
  readonly message: string;
  /** Where the error lies, for NBD_REPLY_TYPE_ERROR_OFFSET. */
  readonly offset: number | null;
}

export function decodeErrorChunk(type: number, payload: Uint8Array): ErrorChunk | null {
  const reader = new Reader(payload);
  const error = reader.u32();
  const length = reader.u16();
  // The message is for people: when it is not text, the error still counts.
  const message = decodeText(reader.bytes(length)) ?? '';
  if (length > MAX_STRING_BYTES) return null;
  const offset = type === NBD_REPLY_TYPE.ERROR_OFFSET ? reader.u64() : null;
  return reader.failed || error === 0 ? null : { error, message, offset };
}

/** The payload of NBD_REPLY_TYPE_BLOCK_STATUS (32 bit) and NBD_REPLY_TYPE_BLOCK_STATUS_EXT (64 bit). */
export interface StatusChunk {
  readonly contextId: number;
  readonly lengths: readonly number[];
  readonly flags: readonly number[];
}

export function decodeStatusChunk(type: number, payload: Uint8Array): StatusChunk | null {
  const reader = new Reader(payload);
  const extended = type === NBD_REPLY_TYPE.BLOCK_STATUS_EXT;
  const contextId = reader.u32();
  const count = extended ? reader.u32() : reader.remaining / 8;
  if (!Number.isInteger(count) || count < 1 || count > MAX_STATUS_DESCRIPTORS) return null;
  const lengths: number[] = [];
  const flags: number[] = [];
  for (let i = 0; i < count && !reader.failed; i += 1) {
    const length = extended ? reader.u64() : reader.u32();
    if (length === 0) return null;
    lengths.push(length);
    // The upper half is zero for base:allocation; its flags are the low bits in either form.
    if (extended) reader.u32();
    flags.push(reader.u32());
  }
  return reader.complete ? { contextId, lengths, flags } : null;
}
