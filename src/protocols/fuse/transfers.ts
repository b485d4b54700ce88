import { checkRange } from '../../block/check.ts';
import { FLAG, type Io, type IoOwner, OP } from '../../block/io.ts';
import { Outbox } from '../../reactor/outbox.ts';
import type { Page, PagePool } from '../../reactor/page-pool.ts';
import type { Answers } from './answers.ts';
import { type ChangeHost, continueChange, down, prepareChange } from './change.ts';
import { ChangeGate } from './change-gate.ts';
import { MAX_COPIED_BYTES, MAX_PAGES } from './limits.ts';
import { type FuseRequest, type OpenFile, Part } from './request.ts';
import { looked, lookOn } from './walk.ts';
import {
  ERRNO,
  FALLOC,
  FUSE_OP,
  fuseErrno,
  MEMORY_PAGE_BYTES,
  O_DSYNC,
  OUT_HEADER_BYTES,
  readU32,
  readU64,
  SEEK,
  WRITE_IN_BYTES,
  writeU64,
} from './wire.ts';

/** `request.step` of a walk: inside the submit, answered inside it and to go on, answered later, over. */
const WALK = { LOOKING: 0, ON: 1, WAITING: 2, DONE: 3 } as const;

/**
 * The requests of a session that go to a device: READ, WRITE, FALLOCATE, FSYNC and LSEEK. `request.open` is set; the body
 * of the message is as long as it must be.
 */
export class Transfers implements IoOwner, ChangeHost {
  readonly #pool: PagePool;
  readonly #answers: Answers;
  readonly #maxWriteBytes: number;
  /** Something has been changed. */
  readonly #changed: () => void;
  readonly #room: Outbox;
  readonly #gate = new ChangeGate();
  readonly #parts: Part[] = [];
  /** Bytes of data that are held for reads. */
  #readingBytes = 0;

  constructor(pool: PagePool, answers: Answers, maxWriteBytes: number, changed: () => void) {
    this.#pool = pool;
    this.#answers = answers;
    this.#maxWriteBytes = maxWriteBytes;
    this.#changed = changed;
    this.#room = new Outbox(pool);
  }

  /** The body is at `at` of `page`. False: there is no room, and nothing has been done. */
  begin(request: FuseRequest, page: Page, at: number, body: number): boolean {
    const { view } = page.region;
    switch (request.opcode) {
      case FUSE_OP.READ:
        return this.#read(request, view, at);
      case FUSE_OP.WRITE:
        return this.#write(request, page, at, body);
      case FUSE_OP.FALLOCATE:
        return this.#fallocate(request, view, at);
      case FUSE_OP.LSEEK:
        this.#seek(request, view, at);
        return true;
      default:
        this.#flush(request);
        return true;
    }
  }

  dispose(): void {
    this.#room.dispose();
  }

  // READ

  #read(request: FuseRequest, view: DataView, at: number): boolean {
    const open = request.open as OpenFile;
    const { sizeBytes, blockBytes } = open.file.device.info;
    request.offset = readU64(view, at + 8);
    request.length = Math.max(
      0,
      Math.min(readU32(view, at + 16), MAX_PAGES * MEMORY_PAGE_BYTES, sizeBytes - request.offset),
    );
    if (request.length === 0) {
      this.#answers.small(request, 0);
      return true;
    }
    const start = down(request.offset, blockBytes);
    const end = down(request.offset + request.length + blockBytes - 1, blockBytes);
    const bytes = this.#readingBytes;
    if (bytes > 0 && bytes + request.length > this.#pool.shareBytes) return false;
    // All of it or nothing: pages that were taken in vain would wake whoever waits for memory, us too, again and again.
    const chunks = Math.ceil((end - start) / open.chunkBytes);
    if (chunks > 1 && this.#pool.left < chunks) return false;
    for (let from = start; from < end; from += open.chunkBytes) {
      const length = Math.min(open.chunkBytes, end - from);
      if (!this.#hold(request, length, open.alignment)) return false;
    }
    this.#readingBytes += request.length;
    request.pending = request.pageCount;
    // A device may complete at once, and the last part ends the request.
    const count = request.pageCount;
    for (let i = 0; i < count; i += 1) {
      const from = start + i * open.chunkBytes;
      const part = this.take(request);
      const length = Math.min(open.chunkBytes, end - from);
      part.io.reset(OP.READ, from, length, 0);
      const { region } = request.pages[i] as Page;
      part.io.segments.push(region, request.starts[i] as number, length);
      this.submit(part);
    }
    return true;
  }

  #readDone(request: FuseRequest): void {
    this.#readingBytes -= request.length;
    if (request.error !== null) {
      this.#answers.fail(request, fuseErrno[request.error]);
      return;
    }
    const { file, chunkBytes } = request.open as OpenFile;
    const end = request.offset + request.length;
    let from = down(request.offset, file.device.info.blockBytes);
    request.answer.clear();
    for (let i = 0; i < request.pageCount; i += 1) {
      const { region } = request.pages[i] as Page;
      const skip = Math.max(0, request.offset - from);
      const start = (request.starts[i] as number) + skip;
      const length = Math.min(chunkBytes, end - from) - skip;
      const head = i === 0 ? OUT_HEADER_BYTES : 0;
      if (i === 0) this.#answers.header(request, region.view, start - head, request.length, 0);
      request.answer.push(region, start - head, head + length);
      from += chunkBytes;
    }
    this.#answers.send(request);
  }

  /** Takes memory of `bytes`, aligned, with room for a header before it. False: there is none. */
  #hold(request: FuseRequest, bytes: number, alignment: number): boolean {
    const start = this.#room.reserve(OUT_HEADER_BYTES + bytes, OUT_HEADER_BYTES, alignment);
    if (start < 0) return false;
    request.hold(this.#room.page, start + OUT_HEADER_BYTES);
    return true;
  }

  // WRITE, FALLOCATE

  #write(request: FuseRequest, page: Page, at: number, body: number): boolean {
    const { view } = page.region;
    const open = request.open as OpenFile;
    const { info } = open.file.device;
    const length = readU32(view, at + 16);
    request.offset = readU64(view, at + 8);
    if (length > this.#maxWriteBytes || length !== body - WRITE_IN_BYTES) {
      this.#answers.fail(request, ERRNO.EINVAL);
      return true;
    }
    // Over the end: as much as there is room for, as on a block device.
    request.length = Math.min(length, info.sizeBytes - request.offset);
    if (length === 0) {
      this.#changeDone(request);
      return true;
    }
    if (request.length <= 0) {
      this.#answers.fail(request, ERRNO.ENOSPC);
      return true;
    }
    const flags = readU32(view, at + 32);
    request.ioFlags = (flags & O_DSYNC) !== 0 ? FLAG.FUA : 0;
    if (!this.#keepPayload(request, page, at + WRITE_IN_BYTES)) return false;
    return this.#beginChange(request, open);
  }

  #keepPayload(request: FuseRequest, page: Page, start: number): boolean {
    if (request.length > MAX_COPIED_BYTES) {
      request.hold(page, start);
      return true;
    }
    const { alignment } = request.open as OpenFile;
    const to = this.#room.reserve(request.length, 0, alignment);
    if (to < 0) return false;
    const kept = this.#room.page;
    request.hold(kept, to);
    const { bytes } = page.region;
    kept.region.bytes.set(bytes.subarray(start, start + request.length), to);
    return true;
  }

  #fallocate(request: FuseRequest, view: DataView, at: number): boolean {
    const open = request.open as OpenFile;
    const { sizeBytes } = open.file.device.info;
    const mode = readU32(view, at + 24);
    const zeroes = mode & (FALLOC.PUNCH_HOLE | FALLOC.ZERO_RANGE);
    const length = readU64(view, at + 16);
    request.offset = readU64(view, at + 8);
    request.mode = mode;
    request.ioFlags = open.stable ? FLAG.FUA : 0;
    const beyond = request.offset + length > sizeBytes;
    request.length = Math.min(length, sizeBytes - request.offset);
    if ((mode & ~(FALLOC.KEEP_SIZE | FALLOC.PUNCH_HOLE | FALLOC.ZERO_RANGE)) !== 0) {
      this.#answers.fail(request, ERRNO.EOPNOTSUPP);
    } else if (beyond && (mode & FALLOC.KEEP_SIZE) === 0) {
      // A disk does not grow.
      this.#answers.fail(request, ERRNO.EFBIG);
    } else if (request.length <= 0) {
      this.#answers.small(request, 0);
    } else if (zeroes === 0) {
      this.#allocate(request, open);
    } else return this.#beginChange(request, open);
    return true;
  }

  /** Space for what has none cannot be asked of a device without writing; but where all has its space, it is done. */
  #allocate(request: FuseRequest, { file: { device } }: OpenFile): void {
    request.at = request.offset;
    if (device.info.extents) this.#walk(request);
    else this.#answers.fail(request, ERRNO.EOPNOTSUPP);
  }

  #beginChange(request: FuseRequest, open: OpenFile): boolean {
    const { info } = open.file.device;
    const partial = prepareChange(request);
    const code = checkRange(OP.WRITE, request.gateStart, request.gateEnd - request.gateStart, info);
    if (code !== null) {
      this.#answers.fail(request, fuseErrno[code]);
      return true;
    }
    if (partial && !this.#hold(request, info.blockBytes, open.alignment)) {
      return false;
    }
    // Without blocks there are no parts of blocks.
    request.gated = info.blockBytes > 1;
    if (!request.gated || this.#gate.enter(request)) this.mayChange(request);
    return true;
  }

  mayChange(request: FuseRequest): void {
    if (continueChange(request, this)) this.#changeDone(request);
  }

  #changeDone(request: FuseRequest): void {
    if (request.gated) {
      request.gated = false;
      this.#gate.leave(request);
    }
    if (request.error !== null) {
      this.#answers.fail(request, fuseErrno[request.error]);
      return;
    }
    this.#changed();
    if (request.opcode !== FUSE_OP.WRITE) {
      this.#answers.small(request, 0);
      return;
    }
    // struct fuse_write_out
    const { view } = this.#answers;
    const at = this.#answers.bodyOf(request);
    view.setUint32(at, request.length, true);
    view.setUint32(at + 4, 0, true);
    this.#answers.small(request, 8);
  }

  // FSYNC, LSEEK

  #flush(request: FuseRequest): void {
    const part = this.take(request);
    part.io.reset(OP.FLUSH, 0, 0, 0);
    request.pending = 1;
    this.submit(part);
  }

  #seek(request: FuseRequest, view: DataView, at: number): void {
    const open = request.open as OpenFile;
    const { sizeBytes } = open.file.device.info;
    request.offset = readU64(view, at + 8);
    request.mode = readU32(view, at + 16);
    request.length = sizeBytes - request.offset;
    request.at = request.offset;
    // [lseek(2)] ENXIO: beyond the end.
    if (request.mode !== SEEK.DATA && request.mode !== SEEK.HOLE)
      this.#answers.fail(request, ERRNO.EINVAL);
    else if (request.length <= 0) this.#answers.fail(request, ERRNO.ENXIO);
    else this.#walk(request);
  }

  /** One look at a time. A loop, for a device may answer at once any number of times. */
  #walk(request: FuseRequest): void {
    do {
      const part = this.take(request);
      lookOn(request, part.io);
      request.pending = 1;
      request.step = WALK.LOOKING;
      this.submit(part);
      if (request.step === WALK.LOOKING) {
        request.step = WALK.WAITING;
        return;
      }
    } while (request.step === WALK.ON);
  }

  #walked(request: FuseRequest, io: Io): void {
    const waited = request.step === WALK.WAITING;
    const state = io.error === null ? looked(request, io) : 'end';
    const stuck = state === 'on' && io.extents.totalBytes === 0;
    if (state === 'on' && !stuck) {
      request.step = WALK.ON;
      if (waited) this.#walk(request);
      return;
    }
    request.step = WALK.DONE;
    const error = stuck ? 'EIO' : io.error;
    if (error !== null) this.#answers.fail(request, fuseErrno[error]);
    else if (request.opcode === FUSE_OP.LSEEK) this.#answerSeek(request, state === 'found');
    else if (state === 'found') this.#answers.fail(request, ERRNO.EOPNOTSUPP);
    else this.#answers.small(request, 0);
  }

  #answerSeek(request: FuseRequest, found: boolean): void {
    const { offset, length } = request;
    // [lseek(2)] after the last data is a hole: the end.
    if (!found && request.mode === SEEK.DATA) {
      this.#answers.fail(request, ERRNO.ENXIO);
      return;
    }
    const at = Math.min(request.at, offset + length);
    writeU64(this.#answers.view, this.#answers.bodyOf(request), at);
    this.#answers.small(request, 8);
  }

  // Ios

  take(request: FuseRequest): Part {
    const part = this.#parts.pop() ?? new Part();
    part.request = request;
    return part;
  }

  submit(part: Part): void {
    const { device } = (part.request.open as OpenFile).file;
    part.io.push(this);
    device.submit(part.io);
  }

  ioDone(io: Io): void {
    const part = io.context as Part;
    const { request } = part;
    request.pending -= 1;
    if (io.error !== null) request.error = io.error;
    if (io.op === OP.EXTENTS) {
      this.#walked(request, io);
      this.#parts.push(part);
      return;
    }
    this.#parts.push(part);
    if (request.pending > 0) return;
    if (request.opcode === FUSE_OP.READ) this.#readDone(request);
    else if (request.opcode === FUSE_OP.FSYNC) {
      if (request.error === null) this.#answers.small(request, 0);
      else this.#answers.fail(request, fuseErrno[request.error]);
    } else if (request.error !== null) this.#changeDone(request);
    else this.mayChange(request);
  }
}
