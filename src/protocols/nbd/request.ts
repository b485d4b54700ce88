import { Io } from '../../block/io.ts';
import type { Page } from '../../reactor/page-pool.ts';

/** One request of a client, from its header to its reply. Pooled. */
export class NbdRequest {
  cookieHigh = 0;
  cookieLow = 0;
  /** The offset as it came: extended replies give it back unchanged. */
  offsetHigh = 0;
  offsetLow = 0;
  type = 0;
  flags = 0;
  /** Bytes, as the client asked. */
  offset = 0;
  length = 0;
  /** How much of it has been handed to the device. */
  issued = 0;
  /** Chunks with the device. */
  pending = 0;
  /** All of the payload has arrived (or there is none). */
  complete = false;
  /** The NBD error of its first failure, or 0. */
  error = 0;
  /** Room for the reply's header, held. */
  replyPage: Page | null = null;
  replyStart = 0;
  /** A read without structured replies that leaves in several chunks has begun to. */
  begun = false;
}

/** One Io of a request, with the pages its data lies in. Pooled. */
export class Chunk {
  readonly io: Io = new Io();
  request!: NbdRequest;
  readonly pages: Page[] = [];
  pageCount = 0;
  /** READ: where in pages[0] the header and the data behind it begin. */
  start = 0;

  constructor() {
    this.io.context = this;
  }

  hold(page: Page): void {
    page.hold();
    this.pages[this.pageCount] = page;
    this.pageCount += 1;
  }

  release(): void {
    for (let i = 0; i < this.pageCount; i += 1) (this.pages[i] as Page).release();
    this.pageCount = 0;
  }
}

/** Free lists of one connection, no longer than its limit of requests. */
export class Recycler<T> {
  readonly #free: T[] = [];
  readonly #make: () => T;

  constructor(make: () => T) {
    this.#make = make;
  }

  take(): T {
    return this.#free.pop() ?? this.#make();
  }

  give(item: T): void {
    this.#free.push(item);
  }
}
