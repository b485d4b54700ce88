import type { Page, PagePool } from './page-pool.ts';
import type { Stream } from './reactor.ts';

/** A receive smaller than this would cost more calls than it saves memory: a fresh page is taken. */
const LEAST_RECEIVE_BYTES = 16 * 1024;

const MEMORY_PAGE_BYTES = 4096;

/**
 * What a connection has heard and not yet understood: a range of one page. Payloads stay where they arrived; whoever
 * needs them holds the page. When a page is full the unread rest (a piece of one header) moves to a new one.
 */
export class Inbox {
  readonly #pool: PagePool;
  readonly #first: number;
  page: Page | null = null;
  /** The unread bytes are [start, end) of `page`. */
  start = 0;
  end = 0;

  /**
   * `headerBytes`: what precedes a payload. A page is filled from where the payload of a first message is page-aligned, as
   * the file's pages are: the copy between them is quicker.
   */
  constructor(pool: PagePool, headerBytes: number) {
    this.#pool = pool;
    this.#first = MEMORY_PAGE_BYTES - headerBytes;
  }

  /** Starts a receive. False when there is no memory: try again when the pool has some. */
  receive(stream: Stream): boolean {
    if (!this.#makeRoom()) return false;
    const page = this.page as Page;
    stream.receive(page.region, this.end, page.sizeBytes - this.end);
    return true;
  }

  #makeRoom(): boolean {
    const page = this.page;
    if (page !== null) {
      if (page.exclusive && this.start === this.end) {
        this.start = this.#first;
        this.end = this.#first;
      }
      if (page.sizeBytes - this.end >= LEAST_RECEIVE_BYTES) return true;
    }
    const next = this.#pool.take();
    if (next === null) return false;
    const rest = this.end - this.start;
    if (page !== null) {
      next.region.bytes.set(page.region.bytes.subarray(this.start, this.end), this.#first);
      page.release();
    }
    this.page = next;
    this.start = this.#first;
    this.end = this.#first + rest;
    return true;
  }

  dispose(): void {
    this.page?.release();
    this.page = null;
    this.start = 0;
    this.end = 0;
  }
}
