import { ConfigError, messageOf } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { formatSize } from '../../base/units.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { Io } from '../../block/io.ts';
import { MAX_DISK_BYTES, MAX_TRANSFER_BYTES } from '../../block/limits.ts';
import type { Reactor, SocketAddress, Stream, TlsSettings } from '../../reactor/reactor.ts';
import { loadClientCertificates, loadPskOfUser } from '../../reactor/tls-credentials.ts';
import {
  ClientHandshake,
  type ClientHandshakeHost,
  type ClientOptions,
  NbdOptionError,
  type NegotiatedExport,
} from './client-handshake.ts';
import { ClientLink, type LinkUser } from './client-link.ts';
import { ClientSession, type ClientSessionHost } from './client-session.ts';
import { DEFAULT_CLIENT_BLOCK_BYTES } from './limits.ts';
import { formatNbdUri, type NbdUri, parseNbdUri } from './uri.ts';
import { type ListedExport, NBD_FLAG, NBD_REP_ERR } from './wire.ts';

export interface ConnectOptions extends Omit<ClientOptions, 'exportName' | 'tls'> {
  /** Instead of what the URI says (`loadClientCertificates`, `loadPskOfUser`). With nbds: URIs only. */
  readonly tls?: TlsSettings;
  /** For connection and handshake together. Default 10 seconds. */
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 10_000;

/**
 * Connects to an NBD export. The URI is text or parsed. Rejects with a ConfigError that names the URI and says what
 * went wrong; with a UsageError for a text that is no URI.
 */
export async function connectNbd(
  reactor: Reactor,
  target: string | NbdUri,
  options: ConnectOptions = {},
): Promise<NbdClient> {
  const uri = typeof target === 'string' ? parseNbdUri(target) : target;
  const { link, outcome } = await negotiate(reactor, uri, options, (host) =>
    ClientHandshake.enter(host, {
      ...options,
      exportName: uri.exportName,
      tls: uri.tls !== null,
    }),
  );
  try {
    return new NbdClient(reactor, uri, options, link, outcome, describeExport(uri, outcome));
  } catch (error) {
    await link.abort();
    throw error;
  }
}

/** The exports that a server lists, in its order. The URI's export name does not matter. Rejects like `connectNbd`. */
export async function listNbdExports(
  reactor: Reactor,
  target: string | NbdUri,
  options: ConnectOptions = {},
): Promise<readonly ListedExport[]> {
  const uri = typeof target === 'string' ? parseNbdUri(target) : target;
  const { link, outcome } = await negotiate(reactor, uri, options, (host) =>
    ClientHandshake.list(host, uri.tls !== null),
  );
  await link.close();
  return outcome;
}

/** An export of another server, as a device. Its requests travel pipelined; a lost connection is not made again. */
export class NbdClient implements BlockDevice {
  readonly info: DeviceInfo;
  /** What the server said and what was agreed. */
  readonly negotiated: NegotiatedExport;
  readonly uri: NbdUri;
  readonly #reactor: Reactor;
  readonly #options: ConnectOptions;
  readonly #link: ClientLink;
  readonly #session: ClientSession;
  #lostWhy: string | null = null;
  #closing: Promise<void> | null = null;
  #drained: (() => void) | null = null;

  /** Use `connectNbd`. */
  constructor(
    reactor: Reactor,
    uri: NbdUri,
    options: ConnectOptions,
    link: ClientLink,
    negotiated: NegotiatedExport,
    info: DeviceInfo,
  ) {
    this.info = info;
    this.negotiated = negotiated;
    this.uri = uri;
    this.#reactor = reactor;
    this.#options = options;
    this.#link = link;
    const host: ClientSessionHost = {
      wake: () => this.#link.wake(),
      broken: (reason) => this.#lost(`the server broke the protocol: ${reason}`),
    };
    this.#session = new ClientSession(negotiated, info, host);
    const user: LinkUser = {
      fill: (target) => this.#fill(target),
      receive: (bytes) => this.#receive(bytes),
      lost: (reason) => this.#lost(reason),
    };
    link.passTo(user);
  }

  /** Why there is no connection any more, or null. Requests fail with EIO from then on. */
  get lost(): string | null {
    return this.#lostWhy;
  }

  submit(io: Io): void {
    this.#session.submit(io);
  }

  /** Asks the server for its exports, over a connection of its own. */
  list(): Promise<readonly ListedExport[]> {
    return listNbdExports(this.#reactor, this.uri, this.#options);
  }

  /** Waits for what is in flight, says goodbye and ends the connection. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#session.disconnect();
    if (!this.#session.disconnected) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    await this.#link.close();
  }

  #fill(target: Uint8Array): number {
    const length = this.#session.fill(target);
    this.#noteProgress();
    return length;
  }

  #receive(bytes: Uint8Array): void {
    this.#session.receive(bytes);
    this.#noteProgress();
  }

  #lost(reason: string): void {
    this.#lostWhy ??= reason;
    this.#session.fail();
    this.#noteProgress();
  }

  #noteProgress(): void {
    if (this.#drained === null || !this.#session.disconnected) return;
    this.#drained();
    this.#drained = null;
    letEventLoopRun();
  }
}

/** What the export is as a device. Throws a ConfigError for a size that no device can have. */
export function describeExport(uri: NbdUri, negotiated: NegotiatedExport): DeviceInfo {
  const { sizeBytes, transmissionFlags, blockSizes } = negotiated;
  const name = formatNbdUri(uri);
  const has = (flag: number): boolean => (transmissionFlags & flag) !== 0;
  const blockBytes = blockSizes?.minimum ?? defaultBlock(sizeBytes);
  // The last bytes of a size that is no multiple cannot be reached [NBD proto "Size constraints"].
  const usableBytes = sizeBytes - (sizeBytes % blockBytes);
  if (!(usableBytes <= MAX_DISK_BYTES) || usableBytes === 0) {
    throw new ConfigError(
      `${name}: the export has ${sizeBytes} bytes`,
      `a disk has at least one block and at most ${formatSize(MAX_DISK_BYTES)}`,
    );
  }
  const maximum = Math.min(MAX_TRANSFER_BYTES, blockSizes?.maximumPayload ?? Infinity);
  return Object.freeze({
    name,
    sizeBytes: usableBytes,
    blockBytes,
    preferredBytes: Math.max(blockBytes, blockSizes?.preferred ?? 4096),
    maxTransferBytes: maximum - (maximum % blockBytes),
    readOnly: has(NBD_FLAG.READ_ONLY),
    writeCache: has(NBD_FLAG.SEND_FLUSH),
    ignoresFlush: false,
    fua: has(NBD_FLAG.SEND_FUA) || !has(NBD_FLAG.SEND_FLUSH) ? 'native' : 'emulated',
    discard: has(NBD_FLAG.SEND_TRIM),
    fastZero: has(NBD_FLAG.SEND_FAST_ZERO) && has(NBD_FLAG.SEND_WRITE_ZEROES),
    extents: negotiated.baseAllocationId !== null,
    rotational: has(NBD_FLAG.ROTATIONAL),
    memoryAlignment: 1,
  } satisfies DeviceInfo);
}

/** Without constraints from the server, 512 is what every server takes; odd sizes need single bytes. */
function defaultBlock(sizeBytes: number): number {
  return sizeBytes % DEFAULT_CLIENT_BLOCK_BYTES === 0 ? DEFAULT_CLIENT_BLOCK_BYTES : 1;
}

/** Connects and runs one negotiation to its end. */
async function negotiate<T>(
  reactor: Reactor,
  uri: NbdUri,
  options: ConnectOptions,
  begin: (host: ClientHandshakeHost) => ClientHandshake<T>,
): Promise<{ link: ClientLink; outcome: T }> {
  const where = formatNbdUri(uri);
  const tls = uri.tls === null ? null : (options.tls ?? (await tlsOf(uri)));
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const before = reactor.nowMs();
  let stream;
  try {
    stream = await connectWithin(reactor, uri.address, timeoutMs);
  } catch (error) {
    const why = messageOf(error);
    const hint = 'is the server running there?';
    throw new ConfigError(`${where}: cannot connect: ${why}`, hint, { cause: error });
  }
  const user = new HandshakeUser(begin, tls);
  const link = await ClientLink.open(reactor, stream, user);
  const leftMs = Math.max(0, before + timeoutMs - reactor.nowMs());
  const timer = reactor.after(leftMs, () => user.lost(`no answer within ${timeoutMs} ms`));
  try {
    return { link, outcome: await user.run(link) };
  } catch (error) {
    await link.abort();
    throw new ConfigError(`${where}: ${messageOf(error)}`, hintFor(error), { cause: error });
  } finally {
    timer.cancel();
  }
}

/** Like `Reactor.connect`, which waits for as long as the host's TCP does. */
function connectWithin(
  reactor: Reactor,
  address: SocketAddress,
  timeoutMs: number,
): Promise<Stream> {
  return new Promise((resolve, reject) => {
    let timedOut = false;
    const timer = reactor.after(timeoutMs, () => {
      timedOut = true;
      reject(new Error(`no answer within ${timeoutMs} ms`));
      letEventLoopRun();
    });
    reactor.connect(address).then(
      (stream) => {
        timer.cancel();
        if (timedOut) stream.close(() => undefined);
        else resolve(stream);
      },
      (error: unknown) => {
        timer.cancel();
        reject(error);
      },
    );
  });
}

function hintFor(error: unknown): string {
  const reply = error instanceof NbdOptionError ? error.reply : 0;
  if (reply === NBD_REP_ERR.UNKNOWN)
    return 'ask the server for its exports: holdfast info URI --list';
  if (reply === NBD_REP_ERR.TLS_REQD) return 'use nbds: or nbds+unix: in the URI';
  if (reply === NBD_REP_ERR.POLICY || reply === NBD_REP_ERR.UNSUP) return 'the server decides that';
  return 'look at what the server logged';
}

/** The credentials that the URI itself names. */
function tlsOf(uri: NbdUri): Promise<TlsSettings> {
  const { tls, address } = uri;
  if (tls?.pskFile !== undefined) return loadPskOfUser(tls.pskFile, tls.username ?? null);
  if (tls?.type === 'psk' || tls?.type === 'anon') {
    throw new ConfigError(
      `${formatNbdUri(uri)}: tls-type=${tls.type} without a key`,
      'name a file of keys with tls-psk-file=FILE',
    );
  }
  const hostname = tls?.hostname ?? (address.kind === 'tcp' ? address.host : 'localhost');
  const verifyPeer = tls?.verifyPeer ?? true;
  return loadClientCertificates(tls?.certificates ?? null, { hostname, verifyPeer });
}

/** A handshake on a link. */
class HandshakeUser<T> implements LinkUser {
  readonly #begin: (host: ClientHandshakeHost) => ClientHandshake<T>;
  readonly #tls: TlsSettings | null;
  readonly #out: Uint8Array[] = [];
  #handshake: ClientHandshake<T> | null = null;
  #lost: Error | null = null;
  #finished: (() => void) | null = null;

  constructor(begin: (host: ClientHandshakeHost) => ClientHandshake<T>, tls: TlsSettings | null) {
    this.#begin = begin;
    this.#tls = tls;
  }

  async run(link: ClientLink): Promise<T> {
    const handshake = this.#begin({
      send: (bytes) => {
        this.#out.push(bytes);
        link.wake();
      },
      startTls: () => this.#startTls(link),
    });
    this.#handshake = handshake;
    const finished = new Promise<void>((resolve) => {
      this.#finished = resolve;
    });
    if (this.#lost !== null) handshake.fail(this.#lost);
    link.start();
    this.#check();
    await finished;
    // What went wrong in the handshake itself says more than that there was more to come.
    const { outcome } = handshake;
    if (this.#lost !== null) throw this.#lost;
    return outcome;
  }

  #startTls(link: ClientLink): void {
    link.startTls(this.#tls as TlsSettings, (error) => {
      if (error === null) this.#handshake?.tlsStarted();
      else this.#handshake?.fail(new Error(error));
      this.#check();
    });
  }

  fill(target: Uint8Array): number {
    let at = 0;
    for (let next = this.#out[0]; next !== undefined; next = this.#out[0]) {
      if (next.length > target.length - at) break;
      target.set(next, at);
      at += next.length;
      this.#out.shift();
    }
    return at;
  }

  receive(bytes: Uint8Array): void {
    if (this.#finished === null) return;
    const used = this.#handshake?.receive(bytes) ?? 0;
    // After the handshake the client speaks first.
    if (used < bytes.length) this.#lost ??= new Error('the server said more than was asked');
    this.#check();
  }

  lost(reason: string): void {
    if (this.#handshake?.finished === true) return;
    this.#lost ??= new Error(reason);
    this.#handshake?.fail(this.#lost);
    this.#check();
  }

  #check(): void {
    if (this.#handshake?.finished !== true || this.#finished === null) return;
    this.#finished();
    this.#finished = null;
    letEventLoopRun();
  }
}
