import type { Prng } from '../../src/base/prng.ts';
import type { Segments } from '../../src/block/memory.ts';
import { fields, message, viewOf, words } from '../../src/protocols/fuse/testing.ts';
import {
  ERRNO,
  FUSE_INIT_FLAG,
  FUSE_OP,
  FUSE_ROOT_ID,
  OUT_HEADER_BYTES,
  readU32,
} from '../../src/protocols/fuse/wire.ts';
import type { FuseReactor } from '../../src/protocols/fuse/connection.ts';
import type { Completion, ReadableWatch } from '../../src/reactor/reactor.ts';
import type { SimReactor } from './clock.ts';

const EAGAIN = 11;
const ENODEV = 19;
const ECONNABORTED = 103;

/** What the kernel says on behalf of a program, and what it makes of the answer. */
export interface Question {
  readonly opcode: number;
  readonly body: Uint8Array;
  /** The request's number if it is one that the oracle knows, else 0. */
  readonly op: number;
  /** The server has it. */
  readonly taken: () => void;
  /** The server has handed its answer to the kernel: it may have told the program. `errno` positive or 0. */
  readonly told: (errno: number, body: Uint8Array) => void;
  /** The program has it. Null: the mount is dead, or it was given up. */
  readonly heard: (errno: number | null) => void;
}

export interface MountOptions {
  readonly reactor: SimReactor;
  readonly prng: Prng;
  /** How long requests and answers are under way between the server and the programs. */
  readonly delayMs: number;
  /** Of the host, not of the server. */
  readonly later: (ms: number, callback: () => void) => void;
  readonly fail: (text: string) => never;
}

interface Message {
  readonly unique: number;
  readonly bytes: Uint8Array;
  readonly question: Question | null;
}

/** Uniques that are no oracle's: their high word is this, and the low one counts. */
const OWN_HIGH = 1;

/**
 * One mount as the kernel has it: a queue of requests for who reads /dev/fuse, and those that wait for an answer. It ends
 * when it is unmounted, when its connection is aborted, or when the server closes the device.
 */
export class SimMount {
  readonly #options: MountOptions;
  /** What reads of the device give. */
  readonly #queue: Message[] = [];
  readonly #pending = new Map<number, Message>();
  /** Requests so far that are not the oracle's. */
  #own = 0;
  /** What reads fail with; 0: it is alive. */
  #dead = 0;
  #readable: (() => void) | null = null;
  #closed = false;
  ready = false;

  constructor(options: MountOptions) {
    this.#options = options;
  }

  get dead(): boolean {
    return this.#dead !== 0;
  }

  // The server's end: /dev/fuse.

  get device(): FuseReactor {
    const { reactor } = this.#options;
    return {
      pool: reactor.pool,
      defer: (callback) => reactor.defer(callback),
      files: {
        read: (done, _fd, _traits, segments) => done.complete(this.#read(segments)),
        write: (done, _fd, _traits, segments) => this.#write(done, segments),
      },
      watchReadable: (_fd, readable) => this.#watch(readable),
    };
  }

  /** The device is closed: the kernel aborts what is left. */
  closed(): void {
    this.#closed = true;
    this.#end(ECONNABORTED);
  }

  #read(segments: Segments): number {
    if (this.#closed) this.#options.fail('the device is read after it was closed');
    const next = this.#queue.shift();
    if (next === undefined) return -(this.#dead === 0 ? EAGAIN : this.#dead);
    segments.copyFrom(next.bytes);
    next.question?.taken();
    return next.bytes.length;
  }

  #write(done: Completion, segments: Segments): void {
    if (this.#closed) this.#options.fail('the device is written after it was closed');
    const bytes = new Uint8Array(segments.totalBytes);
    segments.copyTo(bytes);
    const view = viewOf(bytes);
    if (readU32(view, 0) !== bytes.length) this.#options.fail('an answer of another length');
    const unique = uniqueAt(view, 8);
    const asked = this.#pending.get(unique);
    const { dead } = this;
    if (asked === undefined && !dead) this.#options.fail(`an answer to nothing: ${unique}`);
    const errno = -view.getInt32(4, true);
    this.#pending.delete(unique);
    asked?.question?.told(errno, bytes.subarray(OUT_HEADER_BYTES));
    this.#later(() => {
      const now = new Uint8Array(bytes.length);
      segments.copyTo(now);
      if (Buffer.compare(now, bytes) !== 0) {
        this.#options.fail(`the memory of answer ${unique} changed while the kernel had it`);
      }
      if (this.#closed) this.#options.fail('the device was closed while an answer was under way');
      done.complete(dead ? -ERRNO.ENOENT : bytes.length);
    });
    // The kernel has it, whatever becomes of the server.
    const { prng, delayMs, later } = this.#options;
    if (asked !== undefined) later(prng.float() * delayMs, () => asked.question?.heard(errno));
  }

  #watch(readable: () => void): ReadableWatch {
    return {
      arm: () => {
        this.#readable = readable;
        if (this.#queue.length > 0 || this.dead) this.#wake();
      },
      stop: (stopped) => {
        this.#readable = null;
        this.#later(stopped);
      },
    };
  }

  #wake(): void {
    const readable = this.#readable;
    if (readable === null) return;
    this.#later(() => {
      if (this.#readable !== readable) return;
      this.#readable = null;
      readable();
    });
  }

  /** Of the server's process: dies with it. */
  #later(callback: () => void): void {
    const { reactor, prng, delayMs } = this.#options;
    reactor.after(prng.chance(0.5) ? 0 : prng.float() * delayMs, callback);
  }

  // The programs' end.

  /** [fuse(4)] FUSE_INIT. */
  init(): void {
    const body = words(7, 45, 131_072, 0xffffffff ^ FUSE_INIT_FLAG.INIT_EXT);
    const told = (errno: number): void => {
      if (errno !== 0) this.#options.fail(`INIT failed: ${errno}`);
    };
    const heard = (): void => {
      this.ready = true;
    };
    this.ask({ opcode: FUSE_OP.INIT, body, op: 0, taken: () => {}, told, heard });
  }

  ask(question: Question): void {
    if (this.dead) {
      question.heard(null);
      return;
    }
    const { opcode, body, op } = question;
    if (op === 0) this.#own += 1;
    const unique = op === 0 ? OWN_HIGH * 2 ** 32 + this.#own : op;
    const asked = { unique, question, bytes: message(opcode, unique, FUSE_ROOT_ID, body) };
    this.#pending.set(unique, asked);
    this.#queue.push(asked);
    this.#wake();
  }

  /** A signal interrupts who waits for request `op`. [fuse.rst "Interrupting filesystem operations"] */
  interrupt(op: number): void {
    const asked = this.#pending.get(op);
    if (asked === undefined || this.dead) return;
    const at = this.#queue.indexOf(asked);
    if (at >= 0) {
      this.#queue.splice(at, 1);
      this.#pending.delete(op);
      asked.question?.heard(null);
      return;
    }
    const body = fields(8, [0, op]);
    this.#queue.push({
      unique: op,
      bytes: message(FUSE_OP.INTERRUPT, op, FUSE_ROOT_ID, body),
      question: null,
    });
    this.#wake();
  }

  /** Nobody has it open: it is unmounted. */
  unmount(): void {
    this.#end(ENODEV);
  }

  /** umount -f, or the connection's `abort`: nobody waits any more, whatever the server still does. */
  abort(): void {
    this.#end(ECONNABORTED);
  }

  #end(errno: number): void {
    if (this.dead) return;
    this.#dead = errno;
    this.#queue.length = 0;
    const left = [...this.#pending.values()];
    this.#pending.clear();
    for (const { question } of left) question?.heard(null);
    if (!this.#closed) this.#wake();
  }
}

function uniqueAt(view: DataView, at: number): number {
  return readU32(view, at + 4) * 2 ** 32 + readU32(view, at);
}

/** The bodies of what programs ask. */
export const bodies = {
  open: (flags: number): Uint8Array => words(flags, 0),
  release: (handle: number): Uint8Array => fields(24, [0, handle]),
  fsync: (handle: number): Uint8Array => fields(16, [0, handle]),
  read: (handle: number, offset: number, length: number): Uint8Array => {
    const body = fields(40, [0, handle], [8, offset]);
    viewOf(body).setUint32(16, length, true);
    return body;
  },
  write: (handle: number, offset: number, payload: Uint8Array, flags: number): Uint8Array => {
    const body = fields(40 + payload.length, [0, handle], [8, offset]);
    viewOf(body).setUint32(16, payload.length, true);
    viewOf(body).setUint32(32, flags, true);
    body.set(payload, 40);
    return body;
  },
  fallocate: (handle: number, offset: number, length: number, mode: number): Uint8Array => {
    const body = fields(32, [0, handle], [8, offset], [16, length]);
    viewOf(body).setUint32(24, mode, true);
    return body;
  },
  seek: (handle: number, offset: number, whence: number): Uint8Array => {
    const body = fields(24, [0, handle], [8, offset]);
    viewOf(body).setUint32(16, whence, true);
    return body;
  },
} as const;
