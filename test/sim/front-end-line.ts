import type { Prng } from '../../src/base/prng.ts';
import {
  decodeHeader,
  decodeU64,
  encodeMessage,
  requestName,
  SIZE,
  VHOST_USER,
  VHOST_USER_BACKEND,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_REPLY_MASK,
} from '../../src/protocols/vhost-user/wire.ts';
import { SimEnd, type Thing } from './shared.ts';

export interface Reply {
  readonly payload: Uint8Array;
  readonly things: readonly Thing[];
}

/** What a front-end does next. */
export type Step =
  /** Sends a message that is not answered. */
  | {
      readonly kind: 'send';
      readonly request: number;
      readonly payload?: Uint8Array;
      readonly things?: readonly Thing[];
    }
  /** Sends one and waits for its answer. `told` is called when the server has said it, before it arrives. */
  | {
      readonly kind: 'ask';
      readonly request: number;
      readonly flags: number;
      readonly payload: Uint8Array;
      readonly things: readonly Thing[];
      readonly told: (payload: Uint8Array) => void;
    }
  | { readonly kind: 'pause'; readonly ms: number }
  /** Until somebody calls `wake`. */
  | { readonly kind: 'idle' };

/** What a front-end does, step by step; an answer is what `yield` of an `ask` gives. */
export type Script<T> = Generator<Step, T, Reply>;

export interface LineHost {
  readonly prng: Prng;
  readonly delayMs: number;
  later(ms: number, callback: () => void): void;
  fail(text: string): never;
  /** The server has closed. */
  lost(): void;
  configChanged(): void;
}

const NOTHING: Reply = { payload: new Uint8Array(0), things: [] };
const EMPTY = new Uint8Array(0);

export function u64Of({ payload }: Reply): bigint {
  return decodeU64(payload) as bigint;
}

/** A front-end's connection: it runs a script over it, one message at a time. */
export class FrontEndLine {
  /** Anything has ever come back. */
  answered = false;
  readonly #end: SimEnd;
  readonly #host: LineHost;
  #script: Script<void> | null = null;
  #asked: (Step & { kind: 'ask' }) | null = null;
  #idle = false;
  #due = false;
  #over = false;
  #channel: SimEnd | null = null;

  constructor(end: SimEnd, host: LineHost) {
    this.#end = end;
    this.#host = host;
    end.arrived = () => this.#soon();
    end.told = (unit) => this.#told(unit.bytes);
  }

  run(script: Script<void>): void {
    this.#script = script;
    this.#goOn(NOTHING);
  }

  wake(): void {
    if (!this.#idle) return;
    this.#idle = false;
    this.#later(() => this.#goOn(NOTHING));
  }

  close(): void {
    this.#over = true;
    this.#end.close();
    this.#channel?.close();
  }

  // For scripts.

  /** A request that has an answer of its own. */
  *ask(
    request: number,
    payload: Uint8Array = EMPTY,
    told: (payload: Uint8Array) => void = () => {},
  ): Script<Reply> {
    return yield { kind: 'ask', request, flags: 0, payload, things: [], told };
  }

  /** A request that is acknowledged: with what. */
  *acknowledged(
    request: number,
    payload: Uint8Array = EMPTY,
    things: readonly Thing[] = [],
    told: (payload: Uint8Array) => void = () => {},
  ): Script<bigint> {
    const flags = VHOST_USER_NEED_REPLY_MASK;
    return u64Of(yield { kind: 'ask', request, flags, payload, things, told });
  }

  /** A request that has to succeed. */
  *must(
    request: number,
    payload: Uint8Array = EMPTY,
    things: readonly Thing[] = [],
    told: (payload: Uint8Array) => void = () => {},
  ): Script<void> {
    const value = yield* this.acknowledged(request, payload, things, told);
    if (value !== 0n) this.#host.fail(`${requestName(request)} was answered with ${value}`);
  }

  *openChannel(): Script<void> {
    this.#channel?.close();
    const [near, far] = SimEnd.pair(null);
    this.#channel = near;
    let due = false;
    near.arrived = () => {
      if (due || this.#over) return;
      due = true;
      this.#later(() => {
        due = false;
        for (const { bytes } of near.inbox.splice(0)) {
          const { request } = decodeHeader(bytes);
          if (request !== VHOST_USER_BACKEND.CONFIG_CHANGE_MSG) {
            this.#host.fail(`the server asks its front-end for ${request}`);
          }
          this.#host.configChanged();
        }
      });
    };
    yield* this.must(VHOST_USER.SET_BACKEND_REQ_FD, EMPTY, [far]);
  }

  #goOn(reply: Reply): void {
    let given = reply;
    while (!this.#over) {
      const { done, value } = (this.#script as Script<void>).next(given);
      given = NOTHING;
      if (done === true || this.#over) return;
      if (value.kind === 'idle') {
        this.#idle = true;
        return;
      }
      if (value.kind === 'pause') {
        this.#host.later(value.ms, () => this.#goOn(NOTHING));
        return;
      }
      const { request, payload = EMPTY, things = [] } = value;
      if (value.kind === 'ask') {
        this.#asked = value;
        this.#end.send(encodeMessage(request, value.flags, payload), things);
        return;
      }
      this.#end.send(encodeMessage(request, 0, payload), things);
    }
  }

  #told(bytes: Uint8Array): void {
    if (this.#over) return;
    const { request, flags } = decodeHeader(bytes);
    const asked = this.#asked;
    if (asked === null || asked.request !== request || (flags & VHOST_USER_REPLY_MASK) === 0) {
      this.#host.fail(`an answer to ${requestName(request)}, which nobody has asked`);
    }
    asked.told(bytes.slice(SIZE.HEADER));
  }

  #later(callback: () => void): void {
    const { prng, delayMs } = this.#host;
    this.#host.later(prng.chance(0.3) ? 0 : prng.float() * delayMs, () => {
      if (!this.#over) callback();
    });
  }

  #soon(): void {
    if (this.#due) return;
    this.#due = true;
    this.#later(() => {
      this.#due = false;
      this.#receive();
    });
  }

  #receive(): void {
    const unit = this.#end.inbox.shift();
    if (unit === undefined) {
      if (!this.#end.peerClosed) return;
      this.close();
      this.#host.lost();
      return;
    }
    this.answered = true;
    this.#asked = null;
    if (this.#end.inbox.length > 0 || this.#end.peerClosed) this.#soon();
    this.#goOn({ payload: unit.bytes.slice(SIZE.HEADER), things: unit.things });
  }
}
