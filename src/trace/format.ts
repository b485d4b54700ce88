import { ConfigError } from '../base/errors.ts';
import { crc32 } from 'node:zlib';
import type { BlockErrorCode } from '../block/errors.ts';
import { OP } from '../block/io.ts';

// The trace file: one file header, then records one after another, all little-endian; docs/reference/trace-format.md is
// written for people. A record is a header of 64 bytes and its payload, padded with zeroes to 8 bytes.

/** The last bytes find out a transfer that changes line ends. */
export const MAGIC: Uint8Array = Uint8Array.of(0x48, 0x46, 0x54, 0x52, 0x0d, 0x0a, 0x1a, 0x0a);
export const VERSION = 1;
export const HEADER_BYTES = 64;
/** "HFRC": where a record begins. */
export const SYNC_WORD = 0x43524648;

export const RECORD = {
  /** Payload: JSON of a TraceDisk. Before the first request of that disk. */
  DISK: 1,
  /** A request was submitted. Payload: the data of a WRITE. */
  ISSUE: 2,
  /** The device is done with it; its maker has not heard yet. */
  COMPLETE: 3,
  /** Payload: text. May stand later in the file than its time says. */
  MARK: 4,
  /** The recorder was closed: nothing is missing. */
  END: 5,
} as const;

/** `op` of a MARK. */
export const MARK_KIND = { ack: 1, note: 2 } as const;

/** Operations that are recorded. CACHE and EXTENTS ask for nothing that a power cut could touch. */
export const RECORDED_OPS: readonly number[] = [
  OP.READ,
  OP.WRITE,
  OP.FLUSH,
  OP.DISCARD,
  OP.WRITE_ZEROES,
];

/** All of FLAG. */
export const KNOWN_FLAGS = 31;

/** `error` of a COMPLETE; 0 is success. Numbers are never used again for something else. */
const ERROR_NUMBER: Readonly<Record<BlockErrorCode, number>> = {
  EIO: 1,
  ENOSPC: 2,
  EROFS: 3,
  EINVAL: 4,
  ERANGE: 5,
  EOPNOTSUPP: 6,
  ETIMEDOUT: 7,
  ECANCELED: 8,
  ESHUTDOWN: 9,
  EBUSY: 10,
  ENOMEM: 11,
  EPERM: 12,
  EMISCOMPARE: 13,
  ECORRUPT: 14,
};
export const MAX_ERROR_NUMBER = 14;

export function errorNumber(error: BlockErrorCode | null): number {
  return error === null ? 0 : ERROR_NUMBER[error];
}

/** A trace that cannot be read, and where: a file of the operator's that is not as it must be. */
export class TraceError extends ConfigError {
  /** Bytes from the start of the file; -1: not about one place. */
  readonly at: number;
  /** From 0; -1: not about one record. */
  readonly record: number;

  constructor(message: string, at = -1, record = -1) {
    super(message, 'take another copy of it, or record it again');
    this.at = at;
    this.record = record;
  }
}

/** Bytes of a payload in the file. */
export function paddedBytes(length: number): number {
  return length + ((8 - (length % 8)) % 8);
}

// Where the fields of a record header are.
const AT = {
  SYNC: 0,
  TYPE: 4,
  OP: 5,
  FLAGS: 6,
  DISK: 8,
  ERROR: 10,
  SOURCE: 12,
  TIME: 16,
  REQUEST: 24,
  OFFSET: 32,
  LENGTH: 40,
  PAYLOAD_BYTES: 48,
  PAYLOAD_CRC: 52,
  RESERVED: 56,
  HEADER_CRC: 60,
} as const;

/** One record's header as values, and its bytes: filled, then encoded, or the other way round. Reused. */
export class RecordHeader {
  readonly bytes: Uint8Array = new Uint8Array(HEADER_BYTES);
  type = 0;
  /** OP, or MARK_KIND. */
  op = 0;
  /** FLAG. */
  flags = 0;
  disk = 0;
  error = 0;
  source = 0;
  /** CLOCK_MONOTONIC, nanoseconds. */
  timeNs = 0;
  /** Its number: requests count from 0 in the order of their ISSUE records. END: how many there were. */
  request = 0;
  offset = 0;
  length = 0;
  payloadBytes = 0;
  payloadCrc = 0;
  headerCrc = 0;
  readonly #view = new DataView(this.bytes.buffer);
  readonly #checked = this.bytes.subarray(0, AT.HEADER_CRC);

  /** Sets all fields but these to 0. */
  reset(type: number, timeNs: number): void {
    this.type = type;
    this.timeNs = timeNs;
    this.op = 0;
    this.flags = 0;
    this.disk = 0;
    this.error = 0;
    this.source = 0;
    this.request = 0;
    this.offset = 0;
    this.length = 0;
    this.payloadBytes = 0;
    this.payloadCrc = 0;
  }

  /** Fields to bytes. */
  encode(): void {
    const view = this.#view;
    view.setUint32(AT.SYNC, SYNC_WORD, true);
    view.setUint8(AT.TYPE, this.type);
    view.setUint8(AT.OP, this.op);
    view.setUint16(AT.FLAGS, this.flags, true);
    view.setUint16(AT.DISK, this.disk, true);
    view.setUint16(AT.ERROR, this.error, true);
    view.setUint32(AT.SOURCE, this.source, true);
    this.#set64(AT.TIME, this.timeNs);
    this.#set64(AT.REQUEST, this.request);
    this.#set64(AT.OFFSET, this.offset);
    this.#set64(AT.LENGTH, this.length);
    view.setUint32(AT.PAYLOAD_BYTES, this.payloadBytes, true);
    view.setUint32(AT.PAYLOAD_CRC, this.payloadCrc, true);
    view.setUint32(AT.RESERVED, 0, true);
    this.headerCrc = crc32(this.#checked);
    view.setUint32(AT.HEADER_CRC, this.headerCrc, true);
  }

  /** Bytes to fields. Null, or what is wrong with them as bytes. */
  decode(): string | null {
    const view = this.#view;
    if (view.getUint32(AT.SYNC, true) !== SYNC_WORD) return 'no record begins here';
    this.headerCrc = view.getUint32(AT.HEADER_CRC, true);
    if (crc32(this.#checked) !== this.headerCrc) return 'the header does not match its checksum';
    this.type = view.getUint8(AT.TYPE);
    this.op = view.getUint8(AT.OP);
    this.flags = view.getUint16(AT.FLAGS, true);
    this.disk = view.getUint16(AT.DISK, true);
    this.error = view.getUint16(AT.ERROR, true);
    this.source = view.getUint32(AT.SOURCE, true);
    this.timeNs = this.#get64(AT.TIME);
    this.request = this.#get64(AT.REQUEST);
    this.offset = this.#get64(AT.OFFSET);
    this.length = this.#get64(AT.LENGTH);
    this.payloadBytes = view.getUint32(AT.PAYLOAD_BYTES, true);
    this.payloadCrc = view.getUint32(AT.PAYLOAD_CRC, true);
    return null;
  }

  /** Bytes that no field uses; 0 in this version. */
  get reserved(): number {
    return this.#view.getUint32(AT.RESERVED, true);
  }

  #set64(at: number, value: number): void {
    this.#view.setUint32(at, value % 0x1_0000_0000, true);
    this.#view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
  }

  /** Inexact above 2^53, which readers refuse. */
  #get64(at: number): number {
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 0x1_0000_0000;
  }
}

/** The first 64 bytes of every trace. */
export function fileHeader(): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC, 0);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, HEADER_BYTES, true);
  view.setUint32(AT.HEADER_CRC, crc32(bytes.subarray(0, AT.HEADER_CRC)), true);
  return bytes;
}

/** Null, or why these first bytes are of no trace that can be read. */
export function checkFileHeader(bytes: Uint8Array): string | null {
  if (bytes.length < HEADER_BYTES) return 'it is too short for a trace';
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (MAGIC.some((byte, i) => bytes[i] !== byte)) return 'it is not a trace';
  if (crc32(bytes.subarray(0, AT.HEADER_CRC)) !== view.getUint32(AT.HEADER_CRC, true)) {
    return 'its first 64 bytes are damaged';
  }
  const version = view.getUint32(8, true);
  if (version !== VERSION) return `it has version ${version}; this program reads ${VERSION}`;
  if (view.getUint32(12, true) !== HEADER_BYTES) return 'it has headers of another size';
  return null;
}
