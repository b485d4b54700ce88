import { assert } from '../base/assert.ts';
import { type Region, Segments } from '../block/memory.ts';
import type { Page, PagePool } from './page-pool.ts';
import type { Stream } from './reactor.ts';

const MEMORY_PAGE_BYTES = 4096;

/** Answers from this size on are worth the room that laying them in step with the kernel's pages costs. */
const LARGE_BYTES = 32 * 1024;

/** Segments on their way, with the pages that hold them. */
class Batch {
  readonly segments: Segments = new Segments();
  readonly pages: Page[] = [];
  pageCount = 0;

  push(page: Page, start: number, length: number): void {
    this.segments.push(page.region, start, length);
    page.hold();
    this.pages[this.pageCount] = page;
    this.pageCount += 1;
  }

  /** Takes over what another batch holds. */
  append(other: Batch): void {
    const { regions, starts, lengths, count } = other.segments;
    for (let i = 0; i < count; i += 1) {
      this.segments.push(regions[i] as Region, starts[i] as number, lengths[i] as number);
    }
    for (let i = 0; i < other.pageCount; i += 1) {
      this.pages[this.pageCount] = other.pages[i] as Page;
      this.pageCount += 1;
    }
    other.pageCount = 0;
    other.segments.clear();
  }

  release(): void {
    for (let i = 0; i < this.pageCount; i += 1) (this.pages[i] as Page).release();
    this.pageCount = 0;
    this.segments.clear();
  }
}

/**
 * What a connection is going to say. Room for an answer is taken from a page when its request is read, so an answer
 * never lacks memory; answers that lie side by side leave as one segment. One batch is with the kernel while the next
 * one gathers.
 */
export class Outbox {
  readonly #pool: PagePool;
  #filling: Batch = new Batch();
  #sending: Batch = new Batch();
  readonly #later: Batch = new Batch();
  #interrupted = false;
  #busy = false;
  #page: Page | null = null;
  #used = 0;
  /** The page of the last `reserve`. */
  page!: Page;

  constructor(pool: PagePool) {
    this.#pool = pool;
  }

  /**
   * Room for `bytes` side by side, the byte at `alignAt` of it on a multiple of `alignment`: returns where in
   * `this.page` it starts, or -1 when the pool is empty. The caller holds the page for as long as it needs it.
   */
  reserve(bytes: number, alignAt = 0, alignment = 1): number {
    const lead = Math.ceil(alignAt / alignment) * alignment - alignAt;
    assert(lead + bytes <= this.#pool.pageBytes, 'an answer larger than a page');
    for (;;) {
      if (this.#page !== null) {
        if (this.#page.exclusive) this.#used = 0;
        const start =
          alignment === 1 && bytes >= LARGE_BYTES
            ? this.#inStep(this.#used)
            : Math.ceil((this.#used + alignAt) / alignment) * alignment - alignAt;
        if (start + bytes <= this.#page.sizeBytes) {
          this.#used = start + bytes;
          this.page = this.#page;
          return start;
        }
        this.#page.release();
      }
      this.#page = this.#pool.take();
      this.#used = 0;
      if (this.#page === null) return -1;
    }
  }

  /**
   * The first place from `used` on that lies in its memory page as the answer will lie in the kernel's, when it is said
   * next: copies between memory that is out of step take longer (docs/benchmarks.md).
   */
  #inStep(used: number): number {
    return used + ((this.#filling.segments.totalBytes - used) & (MEMORY_PAGE_BYTES - 1));
  }

  /** Gives back the end of the last reservation, [to, from), when nothing has been reserved behind it. */
  trim(page: Page, from: number, to: number): void {
    if (page === this.#page && this.#used === from) this.#used = to;
  }

  /** Says `length` bytes of `page`, after all that was said before. Holds the page until they are sent. */
  say(page: Page, start: number, length: number): void {
    (this.#interrupted ? this.#later : this.#filling).push(page, start, length);
  }

  /** Begins or goes on with a message in several parts: until `endLong`, what `say` says comes after it. */
  sayLong(page: Page, start: number, length: number): void {
    this.#interrupted = true;
    this.#filling.push(page, start, length);
  }

  endLong(): void {
    this.#interrupted = false;
    this.#filling.append(this.#later);
  }

  /** Copies and says as many of the bytes as there is memory for. Returns how many. */
  sayCopy(bytes: Uint8Array): number {
    const piece = this.#pool.pageBytes >> 1;
    for (let done = 0; done < bytes.length; done += piece) {
      const part = bytes.subarray(done, done + piece);
      const start = this.reserve(part.length);
      if (start < 0) return done;
      this.page.region.bytes.set(part, start);
      this.say(this.page, start, part.length);
    }
    return bytes.length;
  }

  /** Hands the gathered batch to the stream unless one is still on its way. */
  pump(stream: Stream): void {
    if (this.#busy || this.#filling.segments.count === 0) return;
    const batch = this.#filling;
    this.#filling = this.#sending;
    this.#sending = batch;
    this.#busy = true;
    stream.send(batch.segments);
  }

  /** The stream's `sent`: the batch's memory is free again. */
  sent(): void {
    this.#busy = false;
    this.#sending.release();
  }

  /** Said and not yet with the kernel. */
  get unsentBytes(): number {
    return this.#filling.segments.totalBytes + this.#sending.segments.totalBytes;
  }

  /** The same, and what has to wait for the end of a long message. */
  get heldBytes(): number {
    return this.unsentBytes + this.#later.segments.totalBytes;
  }

  /** Everything said is with the kernel. */
  get empty(): boolean {
    return !this.#busy && this.#filling.segments.count === 0;
  }

  /** After the stream has closed: gives back all memory. */
  dispose(): void {
    this.#sending.release();
    this.#filling.release();
    this.#later.release();
    this.#page?.release();
    this.#page = null;
  }
}
