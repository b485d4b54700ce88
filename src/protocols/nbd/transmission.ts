import { checkRange } from '../../block/check.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { FLAG, type Io, type IoOwner, OP, type Op } from '../../block/io.ts';
import type { Inbox } from '../../reactor/inbox.ts';
import type { Outbox } from '../../reactor/outbox.ts';
import type { Page, PagePool } from '../../reactor/page-pool.ts';
import type { HandshakeResult } from './handshake.ts';
import {
  CHUNK_BYTES,
  MAX_PAYLOAD_BYTES,
  MAX_REQUESTS_IN_FLIGHT,
  MAX_STATUS_EXTENTS,
  MAX_STATUS_PAYLOAD_BYTES,
} from './limits.ts';
import { REPLY_FORMS, type ReplyForm, statusBytes, writeStatus } from './reply.ts';
import { Chunk, NbdRequest, Recycler } from './request.ts';
import {
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_HEADER,
  NBD_REQUEST_MAGIC,
  nbdErrno,
  readU64,
} from './wire.ts';

/** What the transmission phase tells its connection. Both calls may come inside `advance` or at any completion. */
export interface TransmissionHost {
  /** An answer has been said, or what `advance` waited for may be there now. */
  progress(): void;
  /** Nothing more will be understood: the client said goodbye (null), or broke the protocol in this way. */
  over(reason: string | null): void;
}

/** What `advance` lacks: bytes from the client, room (memory, or requests that must end first), or nothing ever. */
export type Lack = 'bytes' | 'room' | 'nothing';

/** The command flags a command may carry besides FUA [NBD proto "Command flags"]; null: no such command. */
const FLAGS_OF_COMMAND: readonly (number | null)[] = [
  NBD_CMD_FLAG.DF,
  NBD_CMD_FLAG.PAYLOAD_LEN,
  0,
  0,
  0,
  0,
  NBD_CMD_FLAG.NO_HOLE | NBD_CMD_FLAG.FAST_ZERO,
  NBD_CMD_FLAG.REQ_ONE | NBD_CMD_FLAG.PAYLOAD_LEN,
];

const OP_OF_COMMAND: readonly Op[] = [
  OP.READ,
  OP.WRITE,
  OP.FLUSH,
  OP.FLUSH,
  OP.DISCARD,
  OP.CACHE,
  OP.WRITE_ZEROES,
  OP.EXTENTS,
];

/**
 * The server's side of the transmission phase [NBD proto "Transmission"], without sockets and timers. It understands
 * requests where they arrived, hands them to the device in chunks, and says the answers when the device is done, in
 * whatever order that is.
 *
 * Room for an answer is reserved before a request is taken out of the inbox; without room the request stays there.
 */
export class Transmission implements IoOwner {
  readonly #device: BlockDevice;
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  readonly #pool: PagePool;
  readonly #host: TransmissionHost;
  readonly #extended: boolean;
  readonly #headerBytes: number;
  readonly #magic: number;
  readonly #contextId: number | null;
  /** See `#answerForm`. */
  readonly #form: ReplyForm;
  readonly #shortForm: ReplyForm;
  readonly #chunkBytes: number;
  readonly #requests = new Recycler(() => new NbdRequest());
  readonly #chunks = new Recycler(() => new Chunk());
  /** Reads whose next chunk found no room. */
  readonly #starved: NbdRequest[] = [];
  #inFlight = 0;
  /** Room reserved for data that is being read. */
  #readingBytes = 0;
  /** The request whose payload is arriving, and how much of it is to come. */
  #receiving: NbdRequest | null = null;
  #payloadLeft = 0;
  #filling: Chunk | null = null;
  readonly #statusPayload = new Uint8Array(MAX_STATUS_PAYLOAD_BYTES);
  #statusHave = 0;
  /** A READ in several chunks of which the client cannot tell the parts: only one at a time. */
  #longRead: NbdRequest | null = null;
  #over = false;
  /** The connection has ended: there is nobody to answer. */
  #gone = false;

  constructor(
    device: BlockDevice,
    result: HandshakeResult,
    inbox: Inbox,
    outbox: Outbox,
    pool: PagePool,
    host: TransmissionHost,
  ) {
    this.#device = device;
    this.#inbox = inbox;
    this.#outbox = outbox;
    this.#pool = pool;
    this.#host = host;
    this.#extended = result.extended;
    this.#headerBytes = result.extended ? NBD_HEADER.EXTENDED_REQUEST : NBD_HEADER.REQUEST;
    this.#magic = result.extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC;
    this.#contextId = result.baseAllocationId;
    const form = result.structured ? REPLY_FORMS.structured : REPLY_FORMS.simple;
    this.#form = result.extended ? REPLY_FORMS.extended : form;
    this.#shortForm = result.extended ? REPLY_FORMS.extended : REPLY_FORMS.simple;
    this.#chunkBytes = chunkBytes(device.info, pool.pageBytes);
  }

  /** Requests taken and not yet answered. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Understands all it can of what has arrived. */
  advance(): Lack {
    while (this.#starved.length > 0) {
      if (!this.#readOn(this.#starved[0] as NbdRequest)) return 'room';
      this.#starved.shift();
    }
    const inbox = this.#inbox;
    for (;;) {
      if (this.#over) return 'nothing';
      if (this.#receiving !== null) {
        if (!this.#takePayload(this.#receiving)) return 'bytes';
      } else if (inbox.end - inbox.start < this.#headerBytes) return 'bytes';
      else if (!this.#mayBegin() || !this.#begin()) return 'room';
    }
  }

  /** Who asks and does not take the answers must not cost others their memory. */
  #mayBegin(): boolean {
    return (
      this.#inFlight < MAX_REQUESTS_IN_FLIGHT && this.#outbox.heldBytes <= this.#pool.shareBytes
    );
  }

  /** Takes nothing more. What is in flight is answered as ever. */
  stop(): void {
    this.#over = true;
  }

  /**
   * The connection is gone: gives back the memory of a payload that will not arrive. What the device still has gives
   * its own back when it is done.
   */
  dispose(): void {
    this.#over = true;
    this.#gone = true;
    this.#dropFilling();
    if (this.#receiving !== null && this.#receiving.pending === 0) this.#forget(this.#receiving);
    this.#receiving = null;
    for (const request of this.#starved.splice(0)) this.#forget(request);
  }

  #end(reason: string | null): true {
    this.#over = true;
    this.#host.over(reason);
    return true;
  }

  /** Takes one request out of the inbox. False: there is no room for its answer yet. */
  #begin(): boolean {
    const inbox = this.#inbox;
    const { view } = (inbox.page as Page).region;
    const at = inbox.start;
    if (view.getUint32(at) !== this.#magic) return this.#end('a request without its magic number');
    const flags = view.getUint16(at + 4);
    const type = view.getUint16(at + 6);
    if (type === NBD_CMD.DISC) return this.#end(null);
    const offset = readU64(view, at + 16);
    const length = this.#extended ? readU64(view, at + 24) : view.getUint32(at + 24);
    // [NBD proto "Request message"] With extended headers the flag says whether `length` bytes follow.
    const hasPayload = this.#extended
      ? (flags & NBD_CMD_FLAG.PAYLOAD_LEN) !== 0
      : type === NBD_CMD.WRITE;
    if (this.#extended && !hasPayload && type === NBD_CMD.WRITE) {
      return this.#end('a write that does not announce its payload');
    }
    if (hasPayload && length > MAX_PAYLOAD_BYTES) return this.#end('a payload over 32 MiB');
    const request = this.#requests.take();
    request.cookieHigh = view.getUint32(at + 8);
    request.cookieLow = view.getUint32(at + 12);
    request.offsetHigh = view.getUint32(at + 16);
    request.offsetLow = view.getUint32(at + 20);
    request.type = type;
    request.flags = flags;
    request.offset = offset;
    request.length = length;
    request.issued = 0;
    request.pending = 0;
    request.begun = false;
    request.complete = !hasPayload;
    request.error = 0;
    const refused = this.#refuse(request);
    if (refused === 0 && type === NBD_CMD.READ && length > 0) {
      if (!this.#beginRead(request)) return false;
    } else {
      if (!this.#reserveReply(request)) return false;
      this.#beginOther(request, hasPayload, refused);
    }
    return true;
  }

  #accept(): void {
    this.#inbox.start += this.#headerBytes;
    this.#inFlight += 1;
  }

  /** An NBD error for what the device need not even see, or 0. */
  #refuse(request: NbdRequest): number {
    const known = FLAGS_OF_COMMAND[request.type];
    if (known === undefined || known === null) return NBD_ERROR.EINVAL;
    const allowed = known | NBD_CMD_FLAG.FUA;
    const { PAYLOAD_LEN, DF } = NBD_CMD_FLAG;
    if ((request.flags & ~allowed) !== 0) return NBD_ERROR.EINVAL;
    if (!this.#extended && (request.flags & PAYLOAD_LEN) !== 0) return NBD_ERROR.EINVAL;
    if (request.type === NBD_CMD.READ) {
      if (request.length > MAX_PAYLOAD_BYTES) return NBD_ERROR.EOVERFLOW;
      if ((request.flags & DF) !== 0) {
        if (!this.#form.chunked) return NBD_ERROR.EINVAL;
        // [NBD proto "NBD_CMD_READ"] up to 64 KiB must go unfragmented; one chunk of ours is larger.
        if (request.length > this.#chunkBytes) return NBD_ERROR.EOVERFLOW;
      }
    }
    if (request.type === NBD_CMD.BLOCK_STATUS) {
      if (this.#contextId === null) return NBD_ERROR.EINVAL;
      if (request.length === 0) return NBD_ERROR.EINVAL;
      if (!request.complete)
        return request.length > MAX_STATUS_PAYLOAD_BYTES ? NBD_ERROR.EINVAL : 0;
    }
    const op = OP_OF_COMMAND[request.type] as Op;
    const code = checkRange(op, request.offset, request.length, this.#device.info);
    return code === null ? 0 : nbdErrno[code];
  }

  #reserveReply(request: NbdRequest): boolean {
    const start = this.#outbox.reserve(this.#answerForm(request).headerBytes);
    if (start < 0) {
      this.#requests.give(request);
      return false;
    }
    this.#outbox.page.hold();
    request.replyPage = this.#outbox.page;
    request.replyStart = start;
    return true;
  }

  #beginOther(request: NbdRequest, hasPayload: boolean, refused: number): void {
    this.#accept();
    if (hasPayload && request.length > 0) {
      // A refused request is answered once its payload is out of the way.
      request.error = refused;
      this.#receiving = request;
      this.#payloadLeft = request.length;
      this.#statusHave = 0;
    } else if (refused !== 0) {
      this.#answer(request, refused);
    } else if (request.length === 0 && request.type !== NBD_CMD.FLUSH) {
      // [NBD proto] "the behavior of a server on such a request is unspecified": nothing was asked, nothing failed.
      this.#answer(request, 0);
    } else {
      this.#issueWhole(request);
    }
  }

  /** FLUSH, TRIM, CACHE, WRITE_ZEROES and BLOCK_STATUS: one Io whatever their length. */
  #issueWhole(request: NbdRequest): void {
    const chunk = this.#chunks.take();
    const isFlush = request.type === NBD_CMD.FLUSH;
    chunk.request = request;
    chunk.io.reset(
      OP_OF_COMMAND[request.type] as Op,
      isFlush ? 0 : request.offset,
      isFlush ? 0 : request.length,
      ioFlags(request),
    );
    request.pending = 1;
    this.#submit(chunk);
  }

  #submit(chunk: Chunk): void {
    chunk.io.push(this);
    this.#device.submit(chunk.io);
  }

  // WRITE

  /** Moves what has arrived of a payload to where it belongs. False: more must arrive. */
  #takePayload(request: NbdRequest): boolean {
    const inbox = this.#inbox;
    let dropped = false;
    while (this.#payloadLeft > 0) {
      const there = Math.min(inbox.end - inbox.start, this.#payloadLeft);
      if (there === 0) return false;
      dropped = request.error !== 0;
      // What belongs to a request that has already failed only has to be out of the way.
      const taken = dropped ? there : this.#take(request, inbox.page as Page, inbox.start, there);
      inbox.start += taken;
      this.#payloadLeft -= taken;
    }
    // From here on a write whose last chunk was taken may be answered and its record be another's.
    this.#receiving = null;
    if (dropped) {
      this.#dropFilling();
      request.complete = true;
      if (request.pending === 0) this.#answer(request, request.error);
    } else if (this.#statusHave > 0) {
      this.#statusWithPayload(request);
    }
    return true;
  }

  #take(request: NbdRequest, page: Page, start: number, length: number): number {
    if (request.type === NBD_CMD.BLOCK_STATUS) {
      this.#statusPayload.set(page.region.bytes.subarray(start, start + length), this.#statusHave);
      this.#statusHave += length;
      return length;
    }
    const chunk = (this.#filling ??= this.#newWriteChunk(request));
    const { segments } = chunk.io;
    const taken = Math.min(length, chunk.io.length - segments.totalBytes);
    segments.push(page.region, start, taken);
    chunk.hold(page);
    if (segments.totalBytes === chunk.io.length) {
      this.#filling = null;
      request.pending += 1;
      request.complete = request.issued === request.length;
      this.#submit(chunk);
    }
    return taken;
  }

  #dropFilling(): void {
    if (this.#filling === null) return;
    this.#filling.release();
    this.#chunks.give(this.#filling);
    this.#filling = null;
  }

  #newWriteChunk(request: NbdRequest): Chunk {
    const chunk = this.#chunks.take();
    const length = Math.min(request.length - request.issued, this.#chunkBytes);
    chunk.request = request;
    chunk.io.reset(OP.WRITE, request.offset + request.issued, length, ioFlags(request));
    request.issued += length;
    return chunk;
  }

  // READ

  #beginRead(request: NbdRequest): boolean {
    const long = request.length > this.#chunkBytes && !this.#form.chunked;
    const busy = this.#readingBytes + this.#outbox.heldBytes;
    if (
      (long && this.#longRead !== null) ||
      (busy > 0 && busy + request.length > this.#pool.shareBytes)
    ) {
      this.#requests.give(request);
      return false;
    }
    const chunk = this.#newReadChunk(request);
    if (chunk === null) {
      this.#requests.give(request);
      return false;
    }
    if (long) this.#longRead = request;
    this.#accept();
    this.#submit(chunk);
    return true;
  }

  /**
   * The next chunk of a long read. False: there is no memory, or the client has yet to take what was read before: a read of
   * 32 MiB by a client that takes nothing must not cost others their memory.
   */
  #readOn(request: NbdRequest): boolean {
    const busy = this.#readingBytes + this.#outbox.unsentBytes;
    if (busy > 0 && busy + this.#chunkBytes > this.#pool.shareBytes) return false;
    const chunk = this.#newReadChunk(request);
    if (chunk === null) return false;
    this.#submit(chunk);
    return true;
  }

  #newReadChunk(request: NbdRequest): Chunk | null {
    const length = Math.min(request.length - request.issued, this.#chunkBytes);
    const head = this.#form.dataHeaderBytes;
    const alignment = this.#device.info.memoryAlignment;
    const start = this.#outbox.reserve(head + length, head, alignment);
    if (start < 0) return null;
    const { page } = this.#outbox;
    const chunk = this.#chunks.take();
    chunk.request = request;
    chunk.start = start;
    chunk.hold(page);
    chunk.io.reset(OP.READ, request.offset + request.issued, length, 0);
    chunk.io.segments.push(page.region, start + head, length);
    request.issued += length;
    request.pending = 1;
    this.#readingBytes += length;
    return chunk;
  }

  #readDone(chunk: Chunk): void {
    const { request, io, start } = chunk;
    const page = chunk.pages[0] as Page;
    const { view } = page.region;
    const head = this.#form.dataHeaderBytes;
    const last = request.issued === request.length;
    this.#readingBytes -= io.length;
    if (io.error !== null) {
      // [NBD proto "NBD_CMD_READ"] an error after a simple reply's header leaves only a hard disconnect.
      if (request.begun && !this.#form.chunked)
        this.#end('a read failed half-way through its reply');
      else this.#outbox.say(page, start, this.#form.done(view, start, request, nbdErrno[io.error]));
      this.#forget(request);
      return;
    }
    if (this.#form.chunked) {
      this.#form.data(view, start, request, io.offset, io.length, last);
      this.#outbox.say(page, start, head + io.length);
    } else if (last && !request.begun) {
      this.#form.data(view, start, request, io.offset, io.length, true);
      this.#outbox.say(page, start, head + io.length);
    } else {
      if (!request.begun) this.#form.data(view, start, request, io.offset, io.length, last);
      const skip = request.begun ? head : 0;
      this.#outbox.sayLong(page, start + skip, head + io.length - skip);
      if (last) this.#outbox.endLong();
    }
    request.begun = true;
    if (last) this.#forget(request);
    else if (this.#starved.length > 0 || !this.#readOn(request)) this.#starved.push(request);
  }

  // BLOCK_STATUS

  /** [NBD proto "NBD_CMD_BLOCK_STATUS"] The payload: the effect length, then the contexts that are asked for. */
  #statusWithPayload(request: NbdRequest): void {
    const payload = new DataView(this.#statusPayload.buffer, 0, this.#statusHave);
    const ids = (this.#statusHave - 8) / 4;
    let valid = ids > 0 && Number.isInteger(ids);
    for (let i = 0; valid && i < ids; i += 1) {
      valid = payload.getUint32(8 + 4 * i) === this.#contextId && i === 0;
    }
    if (!valid) {
      this.#answer(request, NBD_ERROR.EINVAL);
      return;
    }
    request.length = readU64(payload, 0);
    const code = checkRange(OP.EXTENTS, request.offset, request.length, this.#device.info);
    if (code !== null || request.length === 0) this.#answer(request, NBD_ERROR.EINVAL);
    else this.#issueWhole(request);
  }

  /** The answer can be long, so its room is taken now; without room the short one says ENOMEM. */
  #statusDone(chunk: Chunk): void {
    const { request, io } = chunk;
    const most = (request.flags & NBD_CMD_FLAG.REQ_ONE) !== 0 ? 1 : MAX_STATUS_EXTENTS;
    const bytes = statusBytes(this.#extended, Math.min(most, io.extents.count));
    const start = io.error === null ? this.#outbox.reserve(bytes) : -1;
    if (io.error !== null || start < 0) {
      this.#answer(request, io.error === null ? NBD_ERROR.ENOMEM : nbdErrno[io.error]);
      return;
    }
    const { page } = this.#outbox;
    const id = this.#contextId as number;
    writeStatus(page.region.view, start, request, this.#extended, id, io.extents, most);
    this.#outbox.say(page, start, bytes);
    this.#forget(request);
  }

  // Completion

  ioDone(io: Io): void {
    const chunk = io.context as Chunk;
    const { request } = chunk;
    request.pending -= 1;
    if (this.#gone) {
      if (request.pending === 0) this.#forget(request);
    } else if (request.type === NBD_CMD.READ) this.#readDone(chunk);
    else if (request.type === NBD_CMD.BLOCK_STATUS) this.#statusDone(chunk);
    else {
      if (io.error !== null) request.error = nbdErrno[io.error];
      if (request.pending === 0 && request.complete) this.#answer(request, request.error);
    }
    chunk.release();
    this.#chunks.give(chunk);
    this.#host.progress();
  }

  /** READ and BLOCK_STATUS must be answered in the negotiated form; for the others the simple one is shorter. */
  #answerForm(request: NbdRequest): ReplyForm {
    const negotiated = request.type === NBD_CMD.READ || request.type === NBD_CMD.BLOCK_STATUS;
    return negotiated ? this.#form : this.#shortForm;
  }

  /** Says a reply without data and is done with the request. */
  #answer(request: NbdRequest, error: number): void {
    const form = this.#answerForm(request);
    const page = request.replyPage as Page;
    const start = request.replyStart;
    const length = form.done(page.region.view, start, request, error);
    this.#outbox.trim(page, start + form.headerBytes, start + length);
    this.#outbox.say(page, start, length);
    this.#forget(request);
    this.#host.progress();
  }

  #forget(request: NbdRequest): void {
    request.replyPage?.release();
    request.replyPage = null;
    if (this.#longRead === request) this.#longRead = null;
    this.#inFlight -= 1;
    this.#requests.give(request);
  }
}

/** A chunk fits into a page behind its header, also where its data have to be aligned (O_DIRECT). */
function chunkBytes(info: DeviceInfo, pageBytes: number): number {
  const alignment = info.memoryAlignment;
  const header = REPLY_FORMS.extended.dataHeaderBytes;
  const room = pageBytes - Math.ceil(header / alignment) * alignment;
  const unit = Math.max(alignment, info.blockBytes);
  return Math.min(CHUNK_BYTES, info.maxTransferBytes, Math.floor(room / unit) * unit);
}

function ioFlags(request: NbdRequest): number {
  const { flags, type } = request;
  let io = 0;
  const mutates = type === NBD_CMD.WRITE || type === NBD_CMD.TRIM || type === NBD_CMD.WRITE_ZEROES;
  if ((flags & NBD_CMD_FLAG.FUA) !== 0 && mutates) io |= FLAG.FUA;
  if ((flags & NBD_CMD_FLAG.NO_HOLE) !== 0) io |= FLAG.NO_HOLE;
  if ((flags & NBD_CMD_FLAG.FAST_ZERO) !== 0) io |= FLAG.FAST;
  if ((flags & NBD_CMD_FLAG.REQ_ONE) !== 0) io |= FLAG.ONE;
  return io;
}
