import net from 'node:net';
import type tls from 'node:tls';
import { assert } from '../base/assert.ts';
import { messageOf } from '../base/errors.ts';
import { libcOrNull, type Libc } from './portable/libc.ts';
import type { TlsSettings } from './reactor.ts';
import { startTls } from './tls.ts';

// TLS for the ring: Node does it on an event loop, on the same thread or on another, and the ring gets a socket that
// carries the plain text. Descriptors belong to the process, so a number is all that travels between threads.

/** How long the last bytes may take to leave after one side has closed. */
const LINGER_MS = 10_000;

const open = new Set<net.Socket>();

/**
 * Does the handshake on the connected socket `fd` and resolves with a new descriptor that carries the plain text.
 * `fd` itself stays the caller's: it closes it once this has settled, and may shut it down to break the handshake off.
 * The new descriptor is the caller's too. Rejects with one line that says why.
 *
 * When the peer ends, the plain side reads its end; when the peer breaks, the plain side does. When the plain side is
 * closed, what was written still goes out, then the connection ends. Neither side is read faster than the other takes.
 */
export async function bridgeTls(fd: number, settings: TlsSettings): Promise<number> {
  const libc = libcOrNull();
  assert(libc !== null, 'the TLS bridge needs what the ring needs');
  const raw = adopt(libc, libc.duplicate(fd));
  let secured: tls.TLSSocket;
  try {
    secured = await startTls(raw, settings);
  } catch (error) {
    raw.destroy();
    throw error;
  }
  let pair: readonly [number, number];
  try {
    pair = libc.socketpair();
  } catch (error) {
    secured.destroy();
    throw error;
  }
  join(secured, adopt(libc, pair[0]));
  return pair[1];
}

/** Breaks all bridges of this thread: their plain sides read an end or an error. */
export function closeTlsBridges(): void {
  for (const socket of open) socket.destroy();
}

function adopt(libc: Libc, fd: number): net.Socket {
  try {
    return new net.Socket({ fd, allowHalfOpen: true, readable: true, writable: true }).setNoDelay();
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

function join(secured: tls.TLSSocket, plain: net.Socket): void {
  open.add(secured);
  let linger: NodeJS.Timeout | undefined;
  // What still comes is read and dropped: closing over unread bytes would reset the peer before it has read all.
  const finish = (): void => {
    if (secured.closed) return;
    secured.resume();
    secured.end();
    linger ??= setTimeout(() => {
      secured.destroy();
      plain.destroy();
    }, LINGER_MS);
  };
  secured.on('error', () => plain.destroy());
  plain.on('error', ignore);
  // `pipe` pauses the source while the target is full, and ends the target with the source.
  secured.pipe(plain);
  plain.pipe(secured);
  // The ring has closed its side: it wants nothing more.
  plain.once('end', () => {
    secured.unpipe(plain);
    finish();
  });
  plain.once('close', finish);
  secured.once('close', () => {
    clearTimeout(linger);
    open.delete(secured);
    // What the peer sent last is still for the ring to read.
    plain.destroySoon();
  });
}

function ignore(): void {}

/** From the data plane to the thread that does TLS. */
export type TlsRequest =
  | {
      readonly type: 'tls-start';
      readonly id: number;
      readonly fd: number;
      readonly settings: TlsSettings;
    }
  | { readonly type: 'tls-close' };

/** And back. */
export type TlsReply =
  | { readonly type: 'tls-ready'; readonly id: number; readonly fd: number }
  | { readonly type: 'tls-failed'; readonly id: number; readonly message: string };

/** The end that does TLS for another thread. Give it the messages; it posts its replies. */
export class TlsBridge {
  readonly #post: (reply: TlsReply) => void;

  constructor(post: (reply: TlsReply) => void) {
    this.#post = post;
  }

  /** True when the message was for the bridge. */
  handle(message: unknown): boolean {
    if (!isMessage(message)) return false;
    if (message.type === 'tls-close') closeTlsBridges();
    else if (message.type === 'tls-start')
      this.#start(message as TlsRequest & { type: 'tls-start' });
    else return false;
    return true;
  }

  #start({ id, fd, settings }: TlsRequest & { type: 'tls-start' }): void {
    bridgeTls(fd, settings).then(
      (plain) => this.#post({ type: 'tls-ready', id, fd: plain }),
      (error: unknown) => this.#post({ type: 'tls-failed', id, message: messageOf(error) }),
    );
  }
}

interface Waiting {
  resolve(fd: number): void;
  reject(error: Error): void;
}

/** The data plane's end: `bridgeTls` for `openReactor`. Give it the messages that come back. */
export class TlsBridgeClient {
  readonly #post: (request: TlsRequest) => void;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;

  constructor(post: (request: TlsRequest) => void) {
    this.#post = post;
  }

  /** As the function `bridgeTls`, done by the other thread. */
  readonly bridgeTls = (fd: number, settings: TlsSettings): Promise<number> => {
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#post({ type: 'tls-start', id, fd, settings });
    });
  };

  /** True when the message was for the bridge. */
  handle(message: unknown): boolean {
    if (!isMessage(message)) return false;
    if (message.type !== 'tls-ready' && message.type !== 'tls-failed') return false;
    const reply = message as TlsReply;
    const waiting = this.#waiting.get(reply.id);
    assert(waiting !== undefined, 'a TLS reply without a request');
    this.#waiting.delete(reply.id);
    if (reply.type === 'tls-ready') waiting.resolve(reply.fd);
    else waiting.reject(new Error(reply.message));
    return true;
  }
}

function isMessage(message: unknown): message is { readonly type: string } {
  return typeof message === 'object' && message !== null && 'type' in message;
}
