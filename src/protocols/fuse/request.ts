import { Io } from '../../block/io.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { Segments } from '../../block/memory.ts';
import type { Page } from '../../reactor/page-pool.ts';
import { Completion } from '../../reactor/reactor.ts';
import type { Change } from './change-gate.ts';
import type { FuseFile } from './source.ts';

/** One open of the file. */
export interface OpenFile {
  readonly handle: number;
  readonly file: FuseFile;
  readonly writable: boolean;
  /** Opened with O_DSYNC or O_SYNC: also fallocate(2), whose message has no flags of its own, is to be stable. */
  readonly stable: boolean;
  /** The most bytes of one READ or WRITE Io. */
  readonly chunkBytes: number;
  /** Where buffers begin: at a multiple of it. */
  readonly alignment: number;
  /** Requests in flight. */
  users: number;
  /** RELEASE has come. */
  released: boolean;
}

/** Who is told of the two things that can happen to a request while nothing else happens. */
export interface RequestOwner {
  /** Its turn at the gate of changes has come. */
  mayChange(request: FuseRequest): void;
  /** Its answer is with the kernel, or was not wanted any more (-errno). */
  answered(request: FuseRequest, result: number): void;
}

/** One request of the kernel, from its message to its answer. Made once for each place, and reused. */
export class FuseRequest extends Completion implements Change {
  /** Where its small answers are written: [start, start + SMALL_ANSWER_BYTES) of the session's page of answers. */
  readonly start: number;
  readonly #owner: RequestOwner;
  uniqueLow = 0;
  uniqueHigh = 0;
  opcode = 0;
  open: OpenFile | null = null;
  /** Bytes, as the program asked; the end is cut to the device's. */
  offset = 0;
  length = 0;
  /** Of every Io of it. */
  ioFlags = 0;
  /** FALLOCATE: the mode. LSEEK: whence. */
  mode = 0;
  /** Ios with the device. */
  pending = 0;
  error: BlockErrorCode | null = null;
  /** What leads to the answer, in order. See change.ts and walk.ts. */
  step = 0;
  /** A walk over the extents: how far it has come. */
  at = 0;
  /** The memory of its data: page and place of each chunk. All of it is held. */
  readonly pages: Page[] = [];
  readonly starts: number[] = [];
  pageCount = 0;
  /** WRITE: where the payload is, in pages[0]. A part of a block that is changed: in the last page. */
  readonly answer: Segments = new Segments();
  gateStart = 0;
  gateEnd = 0;
  gateAlone = false;
  /** It is in the gate. */
  gated = false;

  constructor(start: number, owner: RequestOwner) {
    super();
    this.start = start;
    this.#owner = owner;
  }

  hold(page: Page, start: number): void {
    page.hold();
    this.pages[this.pageCount] = page;
    this.starts[this.pageCount] = start;
    this.pageCount += 1;
  }

  releasePages(): void {
    for (let i = 0; i < this.pageCount; i += 1) (this.pages[i] as Page).release();
    this.pageCount = 0;
  }

  mayBegin(): void {
    this.#owner.mayChange(this);
  }

  override complete(result: number): void {
    this.#owner.answered(this, result);
  }
}

/** One Io of a request. Pooled. */
export class Part {
  readonly io: Io = new Io();
  request!: FuseRequest;

  constructor() {
    this.io.context = this;
  }
}
