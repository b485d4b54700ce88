import { ConfigError } from '../../base/errors.ts';
import type { Region } from '../../block/memory.ts';
import type { Page } from '../../reactor/page-pool.ts';
import type { Reactor } from '../../reactor/reactor.ts';

/** Waits for a bounce page. */
export interface BounceWaiter {
  /** A page is there for it now. */
  bounceReady(page: Page): void;
}

/**
 * Page-aligned memory for transfers whose own memory the kernel cannot use: misaligned under O_DIRECT, or without an
 * address. The pages are set aside when a file is opened, so that a transfer never waits for memory that connections
 * hold, which in turn wait for transfers. One set for all files of a reactor.
 */
export class BouncePages {
  readonly #reactor: Reactor;
  readonly #free: Page[] = [];
  readonly #waiting: BounceWaiter[] = [];
  #reserved = 0;
  #zeroes: Page | null = null;

  constructor(reactor: Reactor) {
    this.#reactor = reactor;
  }

  /** Sets aside at least `count` pages in all. Throws ConfigError when the reactor has no memory left. */
  reserve(count: number): void {
    while (this.#reserved < count) {
      this.#free.push(this.#take());
      this.#reserved += 1;
    }
    if (this.#zeroes === null) {
      this.#zeroes = this.#take();
      this.#zeroes.region.bytes.fill(0);
    }
  }

  /** One page full of zeroes, read only. */
  get zeroes(): Region {
    return (this.#zeroes as Page).region;
  }

  /** A page now, or null, and `waiter.bounceReady` later. */
  take(waiter: BounceWaiter): Page | null {
    const page = this.#free.pop();
    if (page !== undefined) return page;
    this.#waiting.push(waiter);
    return null;
  }

  give(page: Page): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(page);
    else next.bounceReady(page);
  }

  #take(): Page {
    const page = this.#reactor.pool.take();
    if (page !== null) return page;
    throw new ConfigError(
      'no payload memory is left for another disk',
      'serve fewer disks, or add the disk while there is less load',
    );
  }
}

const ofReactor = new WeakMap<Reactor, BouncePages>();

/** The reactor's bounce pages; they live as long as it does. */
export function bouncePagesOf(reactor: Reactor): BouncePages {
  let pages = ofReactor.get(reactor);
  if (pages === undefined) {
    pages = new BouncePages(reactor);
    ofReactor.set(reactor, pages);
  }
  return pages;
}
