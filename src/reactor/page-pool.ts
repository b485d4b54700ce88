import { assert } from '../base/assert.ts';
import type { Region } from '../block/memory.ts';

/**
 * A piece of page-aligned memory, shared by counting: whoever needs its bytes to stay holds it. A receive buffer, for
 * example, is held by the connection and by every write whose payload lies in it.
 */
export class Page {
  readonly region: Region;
  readonly sizeBytes: number;
  readonly #pool: PagePool;
  #holders = 0;

  constructor(pool: PagePool, region: Region) {
    this.#pool = pool;
    this.region = region;
    this.sizeBytes = region.bytes.length;
  }

  /** Only one holder is left: the caller, who may use the page from its start again. */
  get exclusive(): boolean {
    return this.#holders === 1;
  }

  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    assert(this.#holders > 0, 'a page is released more often than held');
    this.#holders -= 1;
    if (this.#holders === 0) this.#pool.give(this);
  }
}

/**
 * All payload memory of one data plane: pages of one size, made on demand up to a limit, never given back to the
 * kernel. When none is left, connections stop receiving and wait: a flood of requests costs a bounded amount.
 */
export class PagePool {
  readonly pageBytes: number;
  readonly limit: number;
  readonly #allocate: (bytes: number) => Region;
  readonly #free: Page[] = [];
  readonly #waiting: (() => void)[] = [];
  #made = 0;
  #users = 0;

  constructor(pageBytes: number, limit: number, allocate: (bytes: number) => Region) {
    this.pageBytes = pageBytes;
    this.limit = limit;
    this.#allocate = allocate;
  }

  /** Another pool of the same kind of memory, with a limit of its own: for who must not wait for connections. */
  apart(pageBytes: number, limit: number): PagePool {
    return new PagePool(pageBytes, limit, this.#allocate);
  }

  /** A page held once by the caller, or null when the limit is reached (then see `whenFree`). */
  take(): Page | null {
    let page = this.#free.pop();
    if (page === undefined) {
      if (this.#made === this.limit) return null;
      page = new Page(this, this.#allocate(this.pageBytes));
      this.#made += 1;
    }
    page.hold();
    return page;
  }

  /** Calls back once when a page has been given back; another waiter may be quicker, so be ready to wait again. */
  whenFree(callback: () => void): void {
    this.#waiting.push(callback);
  }

  /** For Page only. */
  give(page: Page): void {
    this.#free.push(page);
    if (this.#waiting.length > 0) for (const callback of this.#waiting.splice(0)) callback();
  }

  /** A connection begins or ends: the pool is divided among those that are. */
  join(): void {
    this.#users += 1;
  }

  leave(): void {
    this.#users -= 1;
  }

  /** What one user may tie up for answers: half of the pool, divided. The other half is for what arrives. */
  get shareBytes(): number {
    return (this.limit * this.pageBytes) / 2 / Math.max(1, this.#users);
  }

  /** Pages that could be taken now. */
  get left(): number {
    return this.limit - this.inUse;
  }

  get inUse(): number {
    return this.#made - this.#free.length;
  }
}
