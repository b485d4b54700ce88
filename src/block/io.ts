import { assert } from '../base/assert.ts';
import type { BlockErrorCode } from './errors.ts';
import { ExtentList } from './extents.ts';
import { MAX_LAYERS } from './limits.ts';
import { Segments } from './memory.ts';

/** What a request asks for. Layers switch over all of them; `unreachable` makes a forgotten one a compile error. */
export const OP = {
  READ: 0,
  WRITE: 1,
  FLUSH: 2,
  DISCARD: 3,
  WRITE_ZEROES: 4,
  /** A hint: the range will be read soon. */
  CACHE: 5,
  /** Fills `io.extents`. */
  EXTENTS: 6,
} as const;
export type Op = (typeof OP)[keyof typeof OP];

const OP_NAMES = Object.keys(OP);

/** An op's name in OP, for messages. */
export function opName(op: number): string {
  return OP_NAMES.find((name) => OP[name as keyof typeof OP] === op) ?? `op ${op}`;
}

export const FLAG = {
  /** This request's data is stable when it completes. On WRITE, WRITE_ZEROES and DISCARD. */
  FUA: 1,
  /** WRITE_ZEROES: the range must stay allocated. */
  NO_HOLE: 2,
  /** WRITE_ZEROES: fail with EOPNOTSUPP rather than be as slow as writing. */
  FAST: 4,
  /** EXTENTS: only the first extent is wanted. */
  ONE: 8,
  /** WRITE, WRITE_ZEROES, DISCARD: drain, flush, this, flush. READ, FLUSH: drain, this. Nothing passes it. */
  BARRIER: 16,
} as const;

/** Who is told that an Io is done. Called exactly once for each place taken with `push`. */
export interface IoOwner {
  ioDone(io: Io): void;
}

/**
 * One request to a device, pooled and reused by whoever makes it. The maker fills the fields, pushes itself as owner
 * and submits. A layer that wants to see the completion pushes itself on the way down and is called on the way up.
 * Buffers belong to the device from submit to completion.
 */
export class Io {
  op: Op = OP.READ;
  flags = 0;
  /** Bytes from the start of the device. */
  offset = 0;
  /**
   * Bytes. FLUSH: 0 for everything; otherwise only [offset, offset + length) has to be stable, and a device that cannot
   * tell flushes more.
   */
  length = 0;
  /** READ: where the data goes; WRITE: where it is. The sum of the segments is `length`. */
  readonly segments: Segments = new Segments();
  /** EXTENTS: the answer. */
  readonly extents: ExtentList = new ExtentList();
  /** Which session it came through, for those who record; 0: none. */
  source = 0;
  /** The outcome, valid from completion on. */
  error: BlockErrorCode | null = null;
  /** The maker's own record of this request. */
  context: object | null = null;
  /** The number a layer stored with `push`, valid inside its `ioDone`. */
  saved = 0;

  readonly #owners: IoOwner[] = [];
  readonly #saved: number[] = [];
  #depth = 0;

  /** Sets a request up for a new use. Segments are the caller's to fill. */
  reset(op: Op, offset: number, length: number, flags: number): void {
    assert(this.#depth === 0, 'an Io is reused while in flight');
    this.op = op;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.source = 0;
    this.error = null;
    this.segments.clear();
    this.extents.clear();
  }

  /** Takes the next place among those told of completion. `saved` is given back in `io.saved`. */
  push(owner: IoOwner, saved = 0): void {
    assert(this.#depth < MAX_LAYERS, 'too many layers over one store');
    this.#owners[this.#depth] = owner;
    this.#saved[this.#depth] = saved;
    this.#depth += 1;
  }

  /** Completes towards the last owner. The outcome replaces any earlier one. */
  complete(error: BlockErrorCode | null): void {
    assert(this.#depth > 0, 'an Io completed twice');
    this.error = error;
    this.#depth -= 1;
    this.saved = this.#saved[this.#depth] as number;
    (this.#owners[this.#depth] as IoOwner).ioDone(this);
  }

  get inFlight(): boolean {
    return this.#depth > 0;
  }

  /** Whether it changes what the device holds. */
  get mutates(): boolean {
    return this.op === OP.WRITE || this.op === OP.WRITE_ZEROES || this.op === OP.DISCARD;
  }
}

/** Makes Ios once and hands them out again. `limit` bounds what is kept, not what is lent. */
export class IoPool {
  readonly #free: Io[] = [];
  readonly #limit: number;

  constructor(limit = 1024) {
    this.#limit = limit;
  }

  take(): Io {
    return this.#free.pop() ?? new Io();
  }

  give(io: Io): void {
    assert(!io.inFlight, 'an Io is given back in flight');
    io.context = null;
    if (this.#free.length < this.#limit) this.#free.push(io);
  }
}
