import { assert } from '../../base/assert.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import type { Page, PagePool } from '../../reactor/page-pool.ts';
import { Answers } from './answers.ts';
import { down } from './change.ts';
import {
  CONGESTION_THRESHOLD,
  MAX_BACKGROUND,
  MAX_CHUNK_BYTES,
  MAX_OPENS,
  MAX_PAGES,
  MAX_REQUESTS_IN_FLIGHT,
  SMALL_ANSWER_BYTES,
} from './limits.ts';
import { FuseRequest, type OpenFile, type RequestOwner } from './request.ts';
import type { FuseFile, FuseSource } from './source.ts';
import { Transfers } from './transfers.ts';
import {
  bodyBytes,
  ERRNO,
  FATTR,
  type FileAttributes,
  FOPEN,
  FUSE_INIT_FLAG,
  FUSE_INIT_FLAG2,
  FUSE_KERNEL_VERSION,
  FUSE_OP,
  FUSE_ROOT_ID,
  fuseErrno,
  IN_HEADER_BYTES,
  LEAST_MINOR_VERSION,
  MEMORY_PAGE_BYTES,
  O_ACCMODE,
  O_DSYNC,
  readInitIn,
  readU32,
  readU64,
  writeAttrOut,
  writeInitOut,
  writeStatfsOut,
  writeU64,
} from './wire.ts';

export interface SessionSettings {
  readonly source: FuseSource;
  readonly readOnly: boolean;
  readonly directIo: boolean;
  /** Bytes; null: as the kernel proposes. */
  readonly maxReadahead: number | null;
  /** Permission bits and owner, which chmod(2) and chown(2) change for as long as the mount lasts. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Wall clock, for st_mtime: seconds since 1970. */
  readonly now: () => number;
}

/** What a session tells its connection. All calls may come inside `receive` and at any completion of a device. */
export interface SessionHost {
  /** `request.answer` is to be sent as one message. `request.complete` follows when it was. */
  send(request: FuseRequest): void;
  /** What `receive` lacked may be there now, or the last request of a session that is over has ended. */
  progress(): void;
  /** The kernel knows us: programs are served from now on. */
  ready(): void;
  /** Nothing more will be understood: the kernel said goodbye (null), or speaks otherwise than we do. */
  over(reason: string | null): void;
}

/**
 * One mount's side of FUSE without a device and timers: takes messages, hands requests to the devices of their opens, and
 * gives answers, in whatever order they come.
 *
 * Room for an answer is taken before a request is accepted; without room the message is given again later.
 */
export class FuseSession implements RequestOwner {
  readonly #settings: SessionSettings;
  readonly #pool: PagePool;
  readonly #host: SessionHost;
  readonly #answers: Answers;
  readonly #transfers: Transfers;
  readonly #free: FuseRequest[] = [];
  readonly #opens = new Map<number, OpenFile>();
  /** The most bytes of a WRITE, and of one Io. */
  readonly maxWriteBytes: number;
  #made = 0;
  #inFlight = 0;
  #answering = 0;
  #nextHandle = 1;
  #initialised = false;
  #over = false;
  #gone = false;
  #mode: number;
  #uid: number;
  #gid: number;
  #modifiedSeconds: number;

  /** Throws a ConfigError when not even one page of memory is left. */
  constructor(settings: SessionSettings, pool: PagePool, host: SessionHost) {
    this.#settings = settings;
    this.#pool = pool;
    this.#host = host;
    this.#answers = new Answers(pool, (request) => this.#send(request));
    this.maxWriteBytes = Math.min(
      MAX_CHUNK_BYTES,
      down(pool.pageBytes - MEMORY_PAGE_BYTES, MEMORY_PAGE_BYTES),
    );
    this.#transfers = new Transfers(pool, this.#answers, this.maxWriteBytes, () => {
      this.#modifiedSeconds = settings.now();
    });
    this.#mode = settings.mode;
    this.#uid = settings.uid;
    this.#gid = settings.gid;
    this.#modifiedSeconds = settings.now();
    pool.join();
  }

  /** Requests taken whose answers are not yet with the kernel. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Of these, those whose answers the connection has and the kernel may not. */
  get answering(): number {
    return this.#answering;
  }

  /**
   * Understands the message of `length` bytes at `start` of `page`. A payload stays where it is and holds the page. False:
   * there is no room now; the same message is to be given again after `progress`.
   */
  receive(page: Page, start: number, length: number): boolean {
    if (this.#over) return true;
    const { view } = page.region;
    if (length < IN_HEADER_BYTES || readU32(view, start) !== length) {
      return this.#end('a message that is not as long as it says');
    }
    const opcode = readU32(view, start + 4);
    const body = length - IN_HEADER_BYTES;
    // [fuse(4)] These have no answer. All our requests end in bounded time: INTERRUPT changes nothing.
    if (
      opcode === FUSE_OP.FORGET ||
      opcode === FUSE_OP.BATCH_FORGET ||
      opcode === FUSE_OP.INTERRUPT
    ) {
      return true;
    }
    const request = this.#take();
    if (request === null) return false;
    request.uniqueLow = readU32(view, start + 8);
    request.uniqueHigh = readU32(view, start + 12);
    request.opcode = opcode;
    if (body < bodyBytes(opcode)) this.#answers.fail(request, ERRNO.EINVAL);
    else if (opcode === FUSE_OP.INIT) this.#init(request, view, start + IN_HEADER_BYTES, body);
    else if (!this.#initialised) this.#answers.fail(request, ERRNO.EIO);
    else if (opcode === FUSE_OP.DESTROY) {
      this.#answers.small(request, 0);
      this.#end(null);
    } else if (readU64(view, start + 16) !== FUSE_ROOT_ID)
      this.#answers.fail(request, ERRNO.ENOENT);
    else return this.#begin(request, page, start + IN_HEADER_BYTES, body);
    return true;
  }

  /** Takes nothing more. What is in flight is answered as ever. */
  stop(): void {
    this.#over = true;
  }

  /** There is nobody to answer any more: lets go of all opens. After the last request (`progress`) follows `dispose`. */
  disconnect(): void {
    this.#over = true;
    this.#gone = true;
    this.#closeAll();
  }

  /** Closes what is open and gives the memory back. Nothing is in flight. */
  dispose(): void {
    this.#closeAll();
    this.#transfers.dispose();
    this.#answers.dispose();
    this.#pool.leave();
  }

  #closeAll(): void {
    for (const open of this.#opens.values()) this.#closeOpen(open);
  }

  #end(reason: string | null): true {
    this.#over = true;
    this.#host.over(reason);
    return true;
  }

  #take(): FuseRequest | null {
    let request = this.#free.pop();
    if (request === undefined) {
      if (this.#made === Math.min(MAX_REQUESTS_IN_FLIGHT, this.#answers.places)) return null;
      request = new FuseRequest(this.#made * SMALL_ANSWER_BYTES, this);
      this.#made += 1;
    }
    this.#inFlight += 1;
    request.error = null;
    request.open = null;
    request.ioFlags = 0;
    return request;
  }

  /** A message that finds no room is as if it had not come. */
  #putBack(request: FuseRequest): false {
    request.releasePages();
    if (request.open !== null) request.open.users -= 1;
    this.#inFlight -= 1;
    this.#free.push(request);
    return false;
  }

  /** False: no room. */
  #begin(request: FuseRequest, page: Page, at: number, body: number): boolean {
    const { view } = page.region;
    switch (request.opcode) {
      case FUSE_OP.READ:
      case FUSE_OP.FSYNC:
      case FUSE_OP.LSEEK:
      case FUSE_OP.WRITE:
      case FUSE_OP.FALLOCATE:
        // All of them begin with the handle.
        if (!this.#find(request, readU64(view, at))) return true;
        return this.#transfers.begin(request, page, at, body) || this.#putBack(request);
      case FUSE_OP.OPEN:
        this.#openFile(request, readU32(view, at));
        return true;
      case FUSE_OP.RELEASE:
        this.#release(request, readU64(view, at));
        return true;
      case FUSE_OP.GETATTR:
        this.#answerAttributes(request);
        return true;
      case FUSE_OP.SETATTR:
        this.#setAttributes(request, view, at);
        return true;
      default:
        this.#beginOther(request);
        return true;
    }
  }

  #beginOther(request: FuseRequest): void {
    switch (request.opcode) {
      case FUSE_OP.STATFS: {
        const at = this.#answers.bodyOf(request);
        this.#answers.small(request, writeStatfsOut(this.#answers.view, at, this.#attributes));
        return;
      }
      case FUSE_OP.LOOKUP:
        // The root is a file: there is nothing below it.
        this.#answers.fail(request, ERRNO.ENOENT);
        return;
      case FUSE_OP.IOCTL:
        this.#answers.fail(request, ERRNO.ENOTTY);
        return;
      default:
        // Also FLUSH, which close(2) sends: closing is no flush, and the kernel asks only once. [fuse(4) "ENOSYS"]
        this.#answers.fail(request, ERRNO.ENOSYS);
    }
  }

  // INIT, OPEN, RELEASE, attributes

  #init(request: FuseRequest, view: DataView, at: number, body: number): void {
    const asked = readInitIn(view, at, body);
    const { major, minor } = asked;
    if (
      major < FUSE_KERNEL_VERSION ||
      (major === FUSE_KERNEL_VERSION && minor < LEAST_MINOR_VERSION)
    ) {
      this.#answers.fail(request, ERRNO.EPROTO);
      this.#end(`the kernel speaks FUSE ${major}.${minor}, and 7.${LEAST_MINOR_VERSION} is needed`);
      return;
    }
    // A newer kernel asks again, in the version that our answer names [linux/fuse.h "Version negotiation"].
    const agreed = major === FUSE_KERNEL_VERSION;
    const { maxReadahead } = this.#settings;
    const { ASYNC_READ, BIG_WRITES, ASYNC_DIO, ABORT_ERROR, MAX_PAGES: PAGES } = FUSE_INIT_FLAG;
    // Not WRITEBACK_CACHE: the kernel would complete writes before we know of them, and write them later on behalf of
    // whatever open it likes. Neither a write cache that is off nor FUA could be kept (P2, P3).
    const wanted = ASYNC_READ | BIG_WRITES | ASYNC_DIO | ABORT_ERROR | PAGES;
    const bytes = writeInitOut(this.#answers.view, this.#answers.bodyOf(request), {
      maxReadahead: Math.min(asked.maxReadahead, maxReadahead ?? asked.maxReadahead),
      flags: asked.flags & (wanted | FUSE_INIT_FLAG.INIT_EXT),
      flags2: asked.flags2 & FUSE_INIT_FLAG2.DIRECT_IO_ALLOW_MMAP,
      maxBackground: MAX_BACKGROUND,
      congestionThreshold: CONGESTION_THRESHOLD,
      maxWrite: this.maxWriteBytes,
      maxPages: MAX_PAGES,
    });
    this.#initialised = agreed;
    this.#answers.small(request, bytes);
    if (agreed) this.#host.ready();
  }

  #openFile(request: FuseRequest, flags: number): void {
    const { source } = this.#settings;
    const writable = (flags & O_ACCMODE) !== 0;
    if (writable && (this.#settings.readOnly || source.readOnly)) {
      this.#answers.fail(request, ERRNO.EROFS);
    } else if (this.#opens.size >= MAX_OPENS) {
      this.#answers.fail(request, ERRNO.ENFILE);
    } else {
      source.open(writable, (file, refused) => this.#opened(request, flags, file, refused));
    }
  }

  #opened(
    request: FuseRequest,
    flags: number,
    file: FuseFile | null,
    refused: BlockErrorCode | null,
  ): void {
    if (file === null) {
      this.#answers.fail(request, fuseErrno[refused ?? 'EIO']);
      return;
    }
    if (this.#gone) {
      file.close();
      this.#finish(request);
      return;
    }
    const { blockBytes, maxTransferBytes, memoryAlignment } = file.device.info;
    const alignment = Math.max(MEMORY_PAGE_BYTES, memoryAlignment);
    const room = Math.min(this.maxWriteBytes, maxTransferBytes, this.#pool.pageBytes - alignment);
    const chunkBytes = down(room, Math.max(blockBytes, memoryAlignment));
    assert(chunkBytes > 0, 'a device whose blocks are larger than a page of the pool');
    const handle = this.#nextHandle;
    this.#nextHandle += 1;
    this.#opens.set(handle, {
      handle,
      file,
      writable: (flags & O_ACCMODE) !== 0,
      stable: (flags & O_DSYNC) !== 0,
      chunkBytes,
      alignment,
      users: 0,
      released: false,
    });
    const { view } = this.#answers;
    const at = this.#answers.bodyOf(request);
    writeU64(view, at, handle);
    const direct = FOPEN.DIRECT_IO | FOPEN.PARALLEL_DIRECT_WRITES;
    // Never FOPEN_KEEP_CACHE: what a former open has read is not shown to this one.
    view.setUint32(at + 8, this.#settings.directIo ? direct : 0, true);
    view.setUint32(at + 12, 0, true);
    this.#answers.small(request, 16);
  }

  #release(request: FuseRequest, handle: number): void {
    const open = this.#opens.get(handle);
    if (open !== undefined) {
      open.released = true;
      if (open.users === 0) this.#closeOpen(open);
    }
    if (open === undefined) this.#answers.fail(request, ERRNO.EBADF);
    else this.#answers.small(request, 0);
  }

  #closeOpen(open: OpenFile): void {
    this.#opens.delete(open.handle);
    open.file.close();
  }

  get #attributes(): FileAttributes {
    const { source } = this.#settings;
    return {
      sizeBytes: source.sizeBytes,
      blockBytes: source.preferredBytes,
      mode: this.#mode,
      uid: this.#uid,
      gid: this.#gid,
      modifiedSeconds: this.#modifiedSeconds,
    };
  }

  #answerAttributes(request: FuseRequest): void {
    const at = this.#answers.bodyOf(request);
    this.#answers.small(request, writeAttrOut(this.#answers.view, at, this.#attributes));
  }

  #setAttributes(request: FuseRequest, view: DataView, at: number): void {
    const valid = readU32(view, at);
    const { sizeBytes } = this.#settings.source;
    if ((valid & FATTR.SIZE) !== 0) {
      const size = readU64(view, at + 16);
      // Without a handle, 0 is nearly always open(2) with O_TRUNC, as shells, cp and dd do it: on a disk that does
      // nothing. The kernel takes over the size that we answer with, so it keeps the file as it is.
      const opens = size === 0 && (valid & FATTR.FH) === 0;
      if (size !== sizeBytes && !opens) {
        this.#answers.fail(request, size < sizeBytes ? ERRNO.EPERM : ERRNO.EFBIG);
        return;
      }
    }
    // Who may do it, the kernel has checked (default_permissions).
    if ((valid & FATTR.MODE) !== 0) this.#mode = readU32(view, at + 68) & 0o777;
    if ((valid & FATTR.UID) !== 0) this.#uid = readU32(view, at + 76);
    if ((valid & FATTR.GID) !== 0) this.#gid = readU32(view, at + 80);
    this.#answerAttributes(request);
  }

  /** Sets `request.open`. False: there is no such open, or it may not do that, and that has been answered. */
  #find(request: FuseRequest, handle: number): boolean {
    const open = this.#opens.get(handle);
    const changes = request.opcode === FUSE_OP.WRITE || request.opcode === FUSE_OP.FALLOCATE;
    if (open === undefined || open.released || (changes && !open.writable)) {
      this.#answers.fail(request, ERRNO.EBADF);
      return false;
    }
    open.users += 1;
    request.open = open;
    return true;
  }

  // Answers

  #send(request: FuseRequest): void {
    if (this.#gone) this.#finish(request);
    else {
      this.#answering += 1;
      this.#host.send(request);
    }
  }

  mayChange(request: FuseRequest): void {
    this.#transfers.mayChange(request);
  }

  /** What became of the answer is the kernel's affair: a request that was given up there (ENOENT) has ended here too. */
  answered(request: FuseRequest): void {
    this.#answering -= 1;
    this.#finish(request);
  }

  #finish(request: FuseRequest): void {
    request.releasePages();
    const { open } = request;
    if (open !== null) {
      open.users -= 1;
      if (open.users === 0 && open.released && !this.#gone) this.#closeOpen(open);
    }
    this.#inFlight -= 1;
    this.#free.push(request);
    this.#host.progress();
  }
}
