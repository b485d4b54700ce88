/**
 * A server may store fragments of one read in any order; more separate ones than this at a time are no service but an
 * attack on our memory.
 */
const MAX_FRAGMENTS = 4096;

/**
 * Which part of a read has arrived. "The server MUST NOT send content chunks that overlap", nor outside the request,
 * and must send all of it [NBD proto "NBD_CMD_READ"]: otherwise old memory would pass for data.
 */
export class Coverage {
  #start = 0;
  #end = 0;
  /** Everything before it has arrived. */
  #next = 0;
  /** What arrived beyond, sorted and apart: starts and ends in turn. Seldom used. */
  readonly #beyond: number[] = [];

  reset(start: number, end: number): void {
    this.#start = start;
    this.#end = end;
    this.#next = start;
    this.#beyond.length = 0;
  }

  get whole(): boolean {
    return this.#next === this.#end;
  }

  /** Notes that [from, to) has arrived. Returns null, or what is wrong with that. */
  add(from: number, to: number): string | null {
    if (!(from >= this.#start && to <= this.#end && from < to)) return 'data outside the request';
    if (from === this.#next && this.#beyond.length === 0) {
      this.#next = to;
      return null;
    }
    return this.#insert(from, to);
  }

  #insert(from: number, to: number): string | null {
    const beyond = this.#beyond;
    let at = 0;
    while (at < beyond.length && (beyond[at] as number) < from) at += 2;
    const previousEnd = at === 0 ? this.#next : (beyond[at - 1] as number);
    const nextStart = at === beyond.length ? this.#end : (beyond[at] as number);
    if (from < previousEnd || to > nextStart) return 'the same data twice';
    if (beyond.length >= 2 * MAX_FRAGMENTS) return 'too many fragments';
    beyond.splice(at, 0, from, to);
    while (beyond.length > 0 && beyond[0] === this.#next) {
      this.#next = beyond[1] as number;
      beyond.splice(0, 2);
    }
    return null;
  }
}
