import { ConfigError } from '../../base/errors.ts';
import type { Page, PagePool } from '../../reactor/page-pool.ts';
import { SMALL_ANSWER_BYTES } from './limits.ts';
import type { FuseRequest } from './request.ts';
import { OUT_HEADER_BYTES, writeOutHeader } from './wire.ts';

/** How requests are answered. Small answers have their places in one page, so that they never lack memory. */
export class Answers {
  readonly #page: Page;
  readonly #send: (request: FuseRequest) => void;

  /** Throws a ConfigError when not even one page of memory is left. */
  constructor(pool: PagePool, send: (request: FuseRequest) => void) {
    const page = pool.take();
    if (page === null) {
      throw new ConfigError(
        'no payload memory is left for another mount',
        'mount while there is less load',
      );
    }
    this.#page = page;
    this.#send = send;
  }

  /** How many requests have a place. */
  get places(): number {
    return Math.floor(this.#page.sizeBytes / SMALL_ANSWER_BYTES);
  }

  get view(): DataView {
    return this.#page.region.view;
  }

  /** Where the body of the small answer belongs. */
  bodyOf(request: FuseRequest): number {
    return request.start + OUT_HEADER_BYTES;
  }

  /** `errno` positive. */
  fail(request: FuseRequest, errno: number): void {
    this.#small(request, 0, errno);
  }

  /** The body's bytes are in their place. */
  small(request: FuseRequest, bytes: number): void {
    this.#small(request, bytes, 0);
  }

  #small(request: FuseRequest, bytes: number, errno: number): void {
    const { region } = this.#page;
    this.header(request, region.view, request.start, bytes, errno);
    request.answer.clear();
    request.answer.push(region, request.start, OUT_HEADER_BYTES + bytes);
    this.#send(request);
  }

  /** Writes the header in front of `bytes` of body. */
  header(request: FuseRequest, view: DataView, at: number, bytes: number, errno: number): void {
    const { uniqueLow, uniqueHigh } = request;
    writeOutHeader(view, at, OUT_HEADER_BYTES + bytes, errno, uniqueLow, uniqueHigh);
  }

  /** `request.answer` has a header and all that belongs to it. */
  send(request: FuseRequest): void {
    this.#send(request);
  }

  dispose(): void {
    this.#page.release();
  }
}
