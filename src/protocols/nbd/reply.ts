import type { ExtentList } from '../../block/extents.ts';
import type { NbdRequest } from './request.ts';
import {
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_HEADER,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  writeU64,
} from './wire.ts';

/** error (4) and message length (2), with no message. [NBD proto "NBD_REPLY_TYPE_ERROR"] */
const ERROR_BYTES = 6;
const OFFSET_BYTES = 8;

/**
 * Writes replies in the form a connection has negotiated. Three instances exist; `headerBytes` and `dataHeaderBytes`
 * say how much room they need, every method returns how much it used.
 */
export abstract class ReplyForm {
  /** Room for a reply without data, an error included. */
  abstract readonly headerBytes: number;
  /** What precedes the data of a READ. */
  abstract readonly dataHeaderBytes: number;
  /** READs answer with chunks that carry their own offset. */
  abstract readonly chunked: boolean;

  /** A reply without data; `error` 0 is success. */
  abstract done(view: DataView, at: number, request: NbdRequest, error: number): number;
  /** The header before `length` bytes read from `offset`; `last` ends the reply. */
  abstract data(
    view: DataView,
    at: number,
    request: NbdRequest,
    offset: number,
    length: number,
    last: boolean,
  ): number;
}

class SimpleReplies extends ReplyForm {
  override readonly headerBytes = NBD_HEADER.SIMPLE_REPLY;
  override readonly dataHeaderBytes = NBD_HEADER.SIMPLE_REPLY;
  override readonly chunked = false;

  override done(view: DataView, at: number, request: NbdRequest, error: number): number {
    view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
    view.setUint32(at + 4, error);
    view.setUint32(at + 8, request.cookieHigh);
    view.setUint32(at + 12, request.cookieLow);
    return NBD_HEADER.SIMPLE_REPLY;
  }

  override data(view: DataView, at: number, request: NbdRequest): number {
    return this.done(view, at, request, 0);
  }
}

/** Structured and extended replies differ in their header alone. */
class ChunkedReplies extends ReplyForm {
  override readonly headerBytes: number;
  override readonly dataHeaderBytes: number;
  override readonly chunked = true;
  readonly #chunkHeader: typeof structuredHeader;
  readonly #chunkHeaderBytes: number;

  constructor(chunkHeader: typeof structuredHeader, chunkHeaderBytes: number) {
    super();
    this.#chunkHeader = chunkHeader;
    this.#chunkHeaderBytes = chunkHeaderBytes;
    this.headerBytes = chunkHeaderBytes + ERROR_BYTES;
    this.dataHeaderBytes = chunkHeaderBytes + OFFSET_BYTES;
  }

  override done(view: DataView, at: number, request: NbdRequest, error: number): number {
    const type = error === 0 ? NBD_REPLY_TYPE.NONE : NBD_REPLY_TYPE.ERROR;
    const length = error === 0 ? 0 : ERROR_BYTES;
    this.#chunkHeader(view, at, request, NBD_REPLY_FLAG_DONE, type, length);
    if (error !== 0) errorPayload(view, at + this.#chunkHeaderBytes, error);
    return this.#chunkHeaderBytes + length;
  }

  override data(
    view: DataView,
    at: number,
    request: NbdRequest,
    offset: number,
    length: number,
    last: boolean,
  ): number {
    const flags = last ? NBD_REPLY_FLAG_DONE : 0;
    const bytes = OFFSET_BYTES + length;
    this.#chunkHeader(view, at, request, flags, NBD_REPLY_TYPE.OFFSET_DATA, bytes);
    writeU64(view, at + this.#chunkHeaderBytes, offset);
    return this.dataHeaderBytes;
  }
}

export const REPLY_FORMS = {
  simple: new SimpleReplies(),
  structured: new ChunkedReplies(structuredHeader, NBD_HEADER.STRUCTURED_REPLY),
  extended: new ChunkedReplies(extendedHeader, NBD_HEADER.EXTENDED_REPLY),
} as const;

// [NBD proto "Structured reply chunk message"]
function structuredHeader(
  view: DataView,
  at: number,
  request: NbdRequest,
  flags: number,
  type: number,
  length: number,
): void {
  view.setUint32(at, NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  view.setUint32(at + 16, length);
}

// [NBD proto "Extended reply chunk message"]: the request's own offset comes back in it.
function extendedHeader(
  view: DataView,
  at: number,
  request: NbdRequest,
  flags: number,
  type: number,
  length: number,
): void {
  view.setUint32(at, NBD_EXTENDED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  view.setUint32(at + 16, request.offsetHigh);
  view.setUint32(at + 20, request.offsetLow);
  writeU64(view, at + 24, length);
}

function errorPayload(view: DataView, at: number, error: number): void {
  view.setUint32(at, error);
  view.setUint16(at + 4, 0);
}

/** The room that a BLOCK_STATUS reply of `count` extents takes. */
export function statusBytes(extended: boolean, count: number): number {
  return extended
    ? NBD_HEADER.EXTENDED_REPLY + 8 + 16 * count
    : NBD_HEADER.STRUCTURED_REPLY + 4 + 8 * count;
}

/** The whole answer to BLOCK_STATUS for one context; at most `most` extents. Returns its bytes. */
export function writeStatus(
  view: DataView,
  at: number,
  request: NbdRequest,
  extended: boolean,
  contextId: number,
  extents: ExtentList,
  most: number,
): number {
  const count = Math.min(most, extents.count);
  const total = statusBytes(extended, count);
  if (extended) {
    const length = total - NBD_HEADER.EXTENDED_REPLY;
    const type = NBD_REPLY_TYPE.BLOCK_STATUS_EXT;
    extendedHeader(view, at, request, NBD_REPLY_FLAG_DONE, type, length);
    at += NBD_HEADER.EXTENDED_REPLY;
    view.setUint32(at, contextId);
    view.setUint32(at + 4, count);
    at += 8;
    for (let i = 0; i < count; i += 1, at += 16) {
      writeU64(view, at, extents.lengths[i] as number);
      writeU64(view, at + 8, extents.flags[i] as number);
    }
    return total;
  }
  const length = total - NBD_HEADER.STRUCTURED_REPLY;
  structuredHeader(view, at, request, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE.BLOCK_STATUS, length);
  at += NBD_HEADER.STRUCTURED_REPLY;
  view.setUint32(at, contextId);
  at += 4;
  for (let i = 0; i < count; i += 1, at += 8) {
    // The request's own length is below 2^32 in this form, and so is every extent within it.
    view.setUint32(at, extents.lengths[i] as number);
    view.setUint32(at + 4, extents.flags[i] as number);
  }
  return total;
}
