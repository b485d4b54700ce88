import { PagePool, type Page } from '../../reactor/page-pool.ts';
import { Region } from '../../block/memory.ts';
import { KiB } from '../../base/units.ts';
import type { FuseRequest } from './request.ts';
import { FuseSession, type SessionHost, type SessionSettings } from './session.ts';
import {
  FUSE_INIT_FLAG,
  FUSE_OP,
  FUSE_ROOT_ID,
  IN_HEADER_BYTES,
  O_DSYNC,
  OUT_HEADER_BYTES,
  readU32,
  readU64,
  writeU64,
} from './wire.ts';

// The other end of a session, for tests: what the kernel says, and what it makes of the answers.

/** Where connections put messages: the payload of a WRITE begins a page of memory. */
const START = 4096 - 80;

export const O_RDWR = 2;

/** An answer as the kernel reads it. */
export interface Answer {
  /** Positive, or 0. */
  readonly errno: number;
  readonly body: Uint8Array;
  readonly view: DataView;
}

export interface KernelOptions {
  readonly settings: Partial<SessionSettings> & Pick<SessionSettings, 'source'>;
  readonly pageBytes?: number;
  readonly pageLimit?: number;
  /** Answers arrive when `deliver` is called, not at once. */
  readonly slow?: boolean;
}

interface Message {
  readonly bytes: Uint8Array;
  readonly page: Page;
}

/** A kernel with one mount. */
export class FakeKernel implements SessionHost {
  readonly session: FuseSession;
  readonly pool: PagePool;
  readonly #slow: boolean;
  readonly #asked = new Map<number, (answer: Answer) => void>();
  readonly #waiting: Message[] = [];
  readonly #sent: FuseRequest[] = [];
  #unique = 2;
  isReady = false;
  /** Why the session is over; null: it said goodbye; undefined: it is not. */
  overWith: string | null | undefined;

  constructor({ settings, pageBytes = 272 * KiB, pageLimit = 64, slow = false }: KernelOptions) {
    this.#slow = slow;
    this.pool = new PagePool(pageBytes, pageLimit, (bytes) => Region.plain(bytes));
    const whole: SessionSettings = {
      readOnly: false,
      directIo: true,
      maxReadahead: null,
      mode: 0o600,
      uid: 7,
      gid: 8,
      now: () => 1_700_000_000.5,
      ...settings,
    };
    this.session = new FuseSession(whole, this.pool, this);
  }

  /** One with INIT behind it. */
  static async mounted(options: KernelOptions): Promise<FakeKernel> {
    const kernel = new FakeKernel(options);
    await kernel.init();
    return kernel;
  }

  init(major = 7, minor = 45, flags = 0xffffffff, flags2 = 0xffffffff): Promise<Answer> {
    const body = new DataView(new ArrayBuffer(64));
    body.setUint32(0, major, true);
    body.setUint32(4, minor, true);
    body.setUint32(8, 131_072, true);
    body.setUint32(12, flags, true);
    if ((flags & FUSE_INIT_FLAG.INIT_EXT) !== 0) body.setUint32(16, flags2, true);
    return this.ask(FUSE_OP.INIT, new Uint8Array(body.buffer));
  }

  /** The handle. Throws when the open fails. */
  async open(flags = O_RDWR): Promise<number> {
    const { errno, view } = await this.ask(FUSE_OP.OPEN, words(flags, 0));
    if (errno !== 0) throw new Error(`open: errno ${errno}`);
    return readU64(view, 0);
  }

  release(handle: number): Promise<Answer> {
    return this.ask(FUSE_OP.RELEASE, fields(24, [0, handle]));
  }

  read(handle: number, offset: number, length: number): Promise<Answer> {
    const body = fields(40, [0, handle], [8, offset]);
    viewOf(body).setUint32(16, length, true);
    return this.ask(FUSE_OP.READ, body);
  }

  write(handle: number, offset: number, payload: Uint8Array, flags = O_RDWR): Promise<Answer> {
    const body = fields(40 + payload.length, [0, handle], [8, offset]);
    viewOf(body).setUint32(16, payload.length, true);
    viewOf(body).setUint32(32, flags, true);
    body.set(payload, 40);
    return this.ask(FUSE_OP.WRITE, body);
  }

  writeStable(handle: number, offset: number, payload: Uint8Array): Promise<Answer> {
    return this.write(handle, offset, payload, O_RDWR | O_DSYNC);
  }

  fsync(handle: number): Promise<Answer> {
    return this.ask(FUSE_OP.FSYNC, fields(16, [0, handle]));
  }

  fallocate(handle: number, mode: number, offset: number, length: number): Promise<Answer> {
    const body = fields(32, [0, handle], [8, offset], [16, length]);
    viewOf(body).setUint32(24, mode, true);
    return this.ask(FUSE_OP.FALLOCATE, body);
  }

  seek(handle: number, offset: number, whence: number): Promise<Answer> {
    const body = fields(24, [0, handle], [8, offset]);
    viewOf(body).setUint32(16, whence, true);
    return this.ask(FUSE_OP.LSEEK, body);
  }

  /** SETATTR of one field, 32 bits or the 64 of the size. */
  setattr(valid: number, at: number, value: number): Promise<Answer> {
    const body = new Uint8Array(88);
    viewOf(body).setUint32(0, valid, true);
    if (at === 16) writeU64(viewOf(body), at, value);
    else viewOf(body).setUint32(at, value, true);
    return this.ask(FUSE_OP.SETATTR, body);
  }

  /** Sends a message and resolves with its answer. */
  ask(opcode: number, body: Uint8Array, node = FUSE_ROOT_ID): Promise<Answer> {
    const unique = this.#unique;
    this.#unique += 2;
    return new Promise((resolve) => {
      this.#asked.set(unique, resolve);
      this.say(message(opcode, unique, node, body));
    });
  }

  /** Sends bytes as they are. */
  say(bytes: Uint8Array): void {
    const page = this.pool.take();
    if (page === null) throw new Error('the test needs more pages');
    page.region.bytes.set(bytes, START);
    this.#waiting.push({ bytes, page });
    this.#push();
  }

  /** Messages that found no room. */
  get waiting(): number {
    return this.#waiting.length;
  }

  get unanswered(): number {
    return this.#asked.size;
  }

  /** The answers that are under way arrive, where the kernel is slow. */
  deliver(result?: number): void {
    for (const request of this.#sent.splice(0)) this.#take(request, result);
  }

  // SessionHost

  send(request: FuseRequest): void {
    this.#sent.push(request);
    if (!this.#slow) queueMicrotask(() => this.deliver());
  }

  progress(): void {
    if (this.#waiting.length > 0) queueMicrotask(() => this.#push());
  }

  ready(): void {
    this.isReady = true;
  }

  over(reason: string | null): void {
    this.overWith = reason;
  }

  #push(): void {
    for (;;) {
      const next = this.#waiting[0];
      if (next === undefined) return;
      const { page, bytes } = next;
      if (!this.session.receive(page, START, bytes.length)) return;
      this.#waiting.shift();
      page.release();
    }
  }

  #take(request: FuseRequest, result?: number): void {
    const { answer } = request;
    const bytes = new Uint8Array(answer.totalBytes);
    answer.copyTo(bytes);
    const view = viewOf(bytes);
    if (readU32(view, 0) !== bytes.length) throw new Error('an answer of another length');
    const unique = readU64(view, 8);
    const resolve = this.#asked.get(unique);
    if (resolve === undefined) throw new Error(`an answer to nothing: ${unique}`);
    this.#asked.delete(unique);
    request.complete(result ?? bytes.length);
    const body = bytes.subarray(OUT_HEADER_BYTES);
    resolve({ errno: Math.abs(view.getInt32(4, true)), body, view: viewOf(body) });
  }
}

export function message(
  opcode: number,
  unique: number,
  node: number,
  body: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(IN_HEADER_BYTES + body.length);
  const view = viewOf(bytes);
  view.setUint32(0, bytes.length, true);
  view.setUint32(4, opcode, true);
  writeU64(view, 8, unique);
  writeU64(view, 16, node);
  bytes.set(body, IN_HEADER_BYTES);
  return bytes;
}

/** A body with fields of 64 bits. */
export function fields(
  bytes: number,
  ...values: readonly [at: number, value: number][]
): Uint8Array {
  const body = new Uint8Array(bytes);
  for (const [at, value] of values) writeU64(viewOf(body), at, value);
  return body;
}

/** A body of 32 bit fields. */
export function words(...values: readonly number[]): Uint8Array {
  const body = new Uint8Array(4 * values.length);
  values.forEach((value, i) => viewOf(body).setUint32(4 * i, value, true));
  return body;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
