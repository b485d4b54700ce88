import { crc32 } from 'node:zlib';
import { ConfigError } from '../base/errors.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { diskToJson } from './disk-json.ts';
import {
  errorNumber,
  fileHeader,
  HEADER_BYTES,
  MARK_KIND,
  paddedBytes,
  RECORD,
  RecordHeader,
} from './format.ts';
import { MAX_TEXT_BYTES } from './limits.ts';
import type { Issued } from './trace-index.ts';
import type { Mark, TraceDisk } from './trace.ts';

/**
 * Makes the bytes of a trace, for those who have time: what it returns is to be written, in order, before the next call.
 * The recorder of a running server makes the same records without allocating (src/layers/recorder).
 */
export class TraceWriter {
  readonly #header = new RecordHeader();
  #requests = 0;
  /** Bytes returned so far: where the next record begins. */
  #at = 0;

  get at(): number {
    return this.#at;
  }

  get requestCount(): number {
    return this.#requests;
  }

  begin(): readonly Uint8Array[] {
    this.#at = HEADER_BYTES;
    return [fileHeader()];
  }

  disk(disk: TraceDisk, timeNs: number): readonly Uint8Array[] {
    this.#header.reset(RECORD.DISK, timeNs);
    this.#header.disk = disk.number;
    return this.#record(Buffer.from(diskToJson(disk)));
  }

  /** Its number is `requestCount` before the call. `data`: of a WRITE. */
  issue(request: Issued, timeNs: number, data: Uint8Array = EMPTY): readonly Uint8Array[] {
    const [header, padding] = this.issueOf(request, timeNs, data.length, crc32(data));
    return [header, data, padding];
  }

  /** The same for data that come piece by piece: what stands before them, and after. */
  issueOf(
    request: Issued,
    timeNs: number,
    dataBytes: number,
    dataCrc: number,
  ): readonly [Uint8Array, Uint8Array] {
    const header = this.#header;
    header.reset(RECORD.ISSUE, timeNs);
    header.op = request.op;
    header.flags = request.flags;
    header.disk = request.disk;
    header.source = request.source;
    header.offset = request.offset;
    header.length = request.length;
    header.request = this.#requests;
    this.#requests += 1;
    return this.#encode(dataBytes, dataCrc);
  }

  complete(
    request: number,
    disk: number,
    error: BlockErrorCode | null,
    timeNs: number,
  ): readonly Uint8Array[] {
    this.#header.reset(RECORD.COMPLETE, timeNs);
    this.#header.request = request;
    this.#header.disk = disk;
    this.#header.error = errorNumber(error);
    return this.#record();
  }

  mark(kind: Mark['kind'], text: string, timeNs: number): readonly Uint8Array[] {
    this.#header.reset(RECORD.MARK, timeNs);
    this.#header.op = MARK_KIND[kind];
    return this.#record(markBytes(text));
  }

  end(timeNs: number): readonly Uint8Array[] {
    this.#header.reset(RECORD.END, timeNs);
    this.#header.request = this.#requests;
    return this.#record();
  }

  #record(payload: Uint8Array = EMPTY): readonly Uint8Array[] {
    const [header, padding] = this.#encode(payload.length, crc32(payload));
    return [header, payload, padding];
  }

  #encode(payloadBytes: number, payloadCrc: number): readonly [Uint8Array, Uint8Array] {
    const header = this.#header;
    header.payloadBytes = payloadBytes;
    header.payloadCrc = payloadCrc;
    header.encode();
    const padded = paddedBytes(payloadBytes);
    this.#at += HEADER_BYTES + padded;
    return [header.bytes, PADDING.subarray(0, padded - payloadBytes)];
  }
}

const EMPTY = new Uint8Array(0);
const PADDING = new Uint8Array(8);

/** Throws ConfigError for a text that is too long. */
export function markBytes(text: string): Uint8Array {
  const bytes = Buffer.from(text);
  if (bytes.length <= MAX_TEXT_BYTES) return bytes;
  throw new ConfigError(
    `a mark of ${bytes.length} bytes is too long`,
    `say it in at most ${MAX_TEXT_BYTES} bytes`,
  );
}
