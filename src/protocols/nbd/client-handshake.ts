import { ProtocolError } from '../../base/errors.ts';
import { encodeText, printable, viewOf, Writer } from './bytes.ts';
import { MAX_CLIENT_HANDSHAKE_BYTES, MAX_OPTION_BYTES } from './limits.ts';
import {
  type BlockSizes,
  decodeExport,
  decodeGreeting,
  decodeInfoReply,
  decodeMetaContext,
  decodeOptionReplyHeader,
  decodeServerReply,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  type ListedExport,
  nameOfOption,
  nameOfReply,
  NBD_BASE_ALLOCATION,
  NBD_CLISERV_MAGIC,
  NBD_FLAG,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_HEADER,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  NBD_REP_ERR,
} from './wire.ts';

/** What a client asks for. Everything that a server does not have is gone without, except TLS and the export. */
export interface ClientOptions {
  readonly exportName: string;
  /** Ask for extended headers (default: yes). */
  readonly extendedHeaders?: boolean;
  /** Ask for structured replies where there are no extended headers (default: yes). */
  readonly structuredReplies?: boolean;
  /** Ask for base:allocation (default: yes). */
  readonly allocation?: boolean;
  /** Ask for the size constraints (default: yes). */
  readonly blockSize?: boolean;
  /** NBD_OPT_GO, or NBD_OPT_EXPORT_NAME as clients before 2016 (default: GO, and EXPORT_NAME where GO is unknown). */
  readonly enter?: 'go' | 'exportName';
  /** Insist on TLS (default: no). */
  readonly tls?: boolean;
}

/** An export as the server described it, and what was agreed. */
export interface NegotiatedExport {
  readonly sizeBytes: number;
  /** NBD_FLAG bits. */
  readonly transmissionFlags: number;
  /** The server's own name for it, null when it did not say. */
  readonly canonicalName: string | null;
  readonly description: string | null;
  /** Null when the server did not say: the defaults of [NBD proto "Size constraints"]. */
  readonly blockSizes: BlockSizes | null;
  readonly structured: boolean;
  readonly extended: boolean;
  readonly baseAllocationId: number | null;
  readonly tls: boolean;
  readonly entered: 'go' | 'exportName';
}

export interface ClientHandshakeHost {
  send(bytes: Uint8Array): void;
  /** Begins TLS once all that was sent is out, then calls `tlsStarted`. */
  startTls(): void;
}

/** The server answered an option with an error. */
export class NbdOptionError extends ProtocolError {
  readonly reply: number;

  constructor(option: number, reply: number, text: string) {
    const said = text === '' ? '' : `: ${text}`;
    super(
      `the server refused ${nameOfOption(option)} (${nameOfReply(reply)})${said}`,
      'NBD proto "Option reply types"',
    );
    this.reply = reply;
  }
}

/** A step of a negotiation: the number of bytes it needs next, or TLS. */
type Want = number | 'tls';
type Negotiation<T> = Generator<Want, T, Uint8Array>;

/** One reply of the server to an option. */
interface Reply {
  readonly type: number;
  readonly payload: Uint8Array;
}

const EMPTY = new Uint8Array(0);

/**
 * The client's side of the negotiation, without sockets and timers. The owner feeds `receive` until `finished`; then
 * `outcome` is there, or throws what went wrong. A server that breaks the protocol, or sends too much, is an error.
 */
export class ClientHandshake<T> {
  readonly #host: ClientHandshakeHost;
  readonly #negotiation: Negotiation<T>;
  #buffer: Uint8Array = EMPTY;
  #have = 0;
  #total = 0;
  #waitsForTls = false;
  #end: { readonly value: T } | { readonly error: unknown } | null = null;

  private constructor(
    host: ClientHandshakeHost,
    negotiate: (talk: Talk) => Negotiation<T>,
    tls: boolean,
  ) {
    this.#host = host;
    this.#negotiation = negotiate(new Talk(host, tls));
    this.#advance(EMPTY);
  }

  /** Asks for an export and ends with the transmission phase. */
  static enter(
    host: ClientHandshakeHost,
    options: ClientOptions,
  ): ClientHandshake<NegotiatedExport> {
    return new ClientHandshake(host, (talk) => enter(talk, options), options.tls ?? false);
  }

  /** Asks for the list of exports and ends with NBD_OPT_ABORT. */
  static list(host: ClientHandshakeHost, tls: boolean): ClientHandshake<readonly ListedExport[]> {
    return new ClientHandshake(host, list, tls);
  }

  get finished(): boolean {
    return this.#end !== null;
  }

  /** What the negotiation came to. Throws a ProtocolError, or NbdOptionError for a refusal. */
  get outcome(): T {
    const end = this.#end;
    if (end === null) throw new ProtocolError('the handshake is not over', 'NBD proto "Handshake"');
    if ('error' in end) throw end.error;
    return end.value;
  }

  /** Consumes bytes of the server and returns how many; fewer than given once it is finished or waits for TLS. */
  receive(bytes: Uint8Array): number {
    let used = 0;
    while (used < bytes.length && this.#end === null && !this.#waitsForTls) {
      const take = Math.min(bytes.length - used, this.#buffer.length - this.#have);
      this.#buffer.set(bytes.subarray(used, used + take), this.#have);
      used += take;
      this.#have += take;
      if (this.#have === this.#buffer.length) this.#advance(this.#buffer);
    }
    if (this.#waitsForTls && used < bytes.length) {
      this.fail(new ProtocolError('data in the clear after NBD_OPT_STARTTLS', 'NBD proto "TLS"'));
    }
    return used;
  }

  tlsStarted(): void {
    this.#waitsForTls = false;
    this.#advance(EMPTY);
  }

  /** Ends it from outside: the connection broke. */
  fail(error: unknown): void {
    this.#end ??= { error };
  }

  #advance(input: Uint8Array): void {
    try {
      const step = this.#negotiation.next(input);
      if (step.done === true) this.#end = { value: step.value };
      else if (step.value === 'tls') this.#beginTls();
      else this.#want(step.value);
    } catch (error) {
      this.fail(error);
    }
  }

  #beginTls(): void {
    this.#waitsForTls = true;
    this.#host.startTls();
  }

  #want(bytes: number): void {
    this.#total += bytes;
    if (this.#total > MAX_CLIENT_HANDSHAKE_BYTES) throw broken('the server sends without end');
    this.#buffer = new Uint8Array(bytes);
    this.#have = 0;
    if (bytes === 0) this.#advance(EMPTY);
  }
}

function broken(what: string): ProtocolError {
  return new ProtocolError(what, 'NBD proto "Handshake"');
}

/** The words of the negotiation. */
class Talk {
  readonly #host: ClientHandshakeHost;
  readonly #wantsTls: boolean;
  tls = false;
  fixedNewstyle = false;
  noZeroes = false;

  constructor(host: ClientHandshakeHost, tls: boolean) {
    this.#host = host;
    this.#wantsTls = tls;
  }

  send(bytes: Uint8Array): void {
    this.#host.send(bytes);
  }

  /** Reads the greeting, answers with the flags, and encrypts if that is wanted. */
  *greet(): Negotiation<void> {
    const greeting = yield NBD_HEADER.GREETING;
    const flags = decodeGreeting(greeting);
    if (flags === null) throw broken(whyNotNewstyle(greeting));
    this.fixedNewstyle = (flags & NBD_FLAG_FIXED_NEWSTYLE) !== 0;
    this.noZeroes = (flags & NBD_FLAG_NO_ZEROES) !== 0;
    const answer =
      (this.fixedNewstyle ? NBD_FLAG_C_FIXED_NEWSTYLE : 0) |
      (this.noZeroes ? NBD_FLAG_C_NO_ZEROES : 0);
    this.send(new Writer().u32(answer).finish());
    if (!this.#wantsTls) return;
    if (!this.fixedNewstyle) throw broken('the server is too old for TLS');
    const [reply] = yield* this.option(NBD_OPT.STARTTLS, EMPTY);
    if (reply.type !== NBD_REP.ACK) throw refused(NBD_OPT.STARTTLS, reply);
    yield 'tls';
    this.tls = true;
  }

  /** Sends an option and reads replies up to the final one, which comes first in the result, then the others. */
  *option(option: number, data: Uint8Array): Negotiation<[Reply, ...Reply[]]> {
    this.send(encodeOption(option, data));
    const replies: Reply[] = [];
    for (;;) {
      const header = decodeOptionReplyHeader(yield NBD_HEADER.OPTION_REPLY);
      if (header === null) throw broken('a reply without its magic number');
      if (header.option !== option) {
        throw broken(`a reply to ${nameOfOption(header.option)}, which was not asked`);
      }
      if (header.length > MAX_OPTION_BYTES) throw broken(`a reply of ${header.length} bytes`);
      const payload = yield header.length;
      const reply = { type: header.type, payload };
      if (header.type === NBD_REP.ACK || header.type >= NBD_REP_ERR_FIRST)
        return [reply, ...replies];
      replies.push(reply);
    }
  }

  /** An option without data that the server has, or has not. */
  *offer(option: number): Negotiation<boolean> {
    const [reply] = yield* this.option(option, EMPTY);
    return reply.type === NBD_REP.ACK;
  }
}

const NBD_REP_ERR_FIRST = 0x80000000;

function refused(option: number, reply: Reply): NbdOptionError {
  return new NbdOptionError(option, reply.type, printable(reply.payload));
}

function whyNotNewstyle(greeting: Uint8Array): string {
  const view = viewOf(greeting);
  const oldstyle =
    view.getUint32(8) === NBD_CLISERV_MAGIC[0] && view.getUint32(12) === NBD_CLISERV_MAGIC[1];
  return oldstyle
    ? 'the server speaks only the oldstyle protocol of before 2011'
    : `this is not an NBD server: it said '${printable(greeting)}'`;
}

function* list(talk: Talk): Negotiation<readonly ListedExport[]> {
  yield* talk.greet();
  if (!talk.fixedNewstyle) throw broken('the server is too old to list its exports');
  const [last, ...replies] = yield* talk.option(NBD_OPT.LIST, EMPTY);
  if (last.type !== NBD_REP.ACK) throw refused(NBD_OPT.LIST, last);
  const exports = replies.map((reply) => {
    const listed = reply.type === NBD_REP.SERVER ? decodeServerReply(reply.payload) : null;
    if (listed === null) throw broken('a malformed NBD_REP_SERVER');
    return listed;
  });
  talk.send(encodeOption(NBD_OPT.ABORT, EMPTY));
  return exports;
}

function* enter(talk: Talk, options: ClientOptions): Negotiation<NegotiatedExport> {
  yield* talk.greet();
  if (!talk.fixedNewstyle)
    return yield* enterByName(talk, options, { structured: false, id: null });
  const byName = options.enter === 'exportName';
  let extended = false;
  let structured = false;
  // Extended headers forbid NBD_OPT_EXPORT_NAME, and take the place of structured replies.
  if (options.extendedHeaders !== false && !byName) {
    extended = yield* talk.offer(NBD_OPT.EXTENDED_HEADERS);
  }
  if (options.structuredReplies !== false && !extended) {
    structured = yield* talk.offer(NBD_OPT.STRUCTURED_REPLY);
  }
  let id: number | null = null;
  if (options.allocation !== false && (structured || extended)) {
    id = yield* setAllocation(talk, options.exportName);
  }
  if (byName) return yield* enterByName(talk, options, { structured, id });
  return yield* go(talk, options, { structured, extended, id });
}

/** Selects base:allocation. Returns its id, or null when the server has it not for this export. */
function* setAllocation(talk: Talk, exportName: string): Negotiation<number | null> {
  const data = encodeMetaContextRequest(exportName, [NBD_BASE_ALLOCATION]);
  const [last, ...replies] = yield* talk.option(NBD_OPT.SET_META_CONTEXT, data);
  if (last.type !== NBD_REP.ACK) return null;
  for (const reply of replies) {
    const context = reply.type === NBD_REP.META_CONTEXT ? decodeMetaContext(reply.payload) : null;
    if (context === null) throw broken('a malformed NBD_REP_META_CONTEXT');
    if (context.name === NBD_BASE_ALLOCATION) return context.id;
  }
  return null;
}

interface Agreed {
  readonly structured: boolean;
  readonly extended: boolean;
  readonly id: number | null;
}

function* go(talk: Talk, options: ClientOptions, agreed: Agreed): Negotiation<NegotiatedExport> {
  const asks: number[] = [NBD_INFO.NAME, NBD_INFO.DESCRIPTION];
  if (options.blockSize !== false) asks.push(NBD_INFO.BLOCK_SIZE);
  const data = encodeInfoRequest(options.exportName, asks);
  const [last, ...replies] = yield* talk.option(NBD_OPT.GO, data);
  // "clients SHOULD be prepared to also handle NBD_REP_ERR_UNSUP by falling back to using NBD_OPT_EXPORT_NAME"
  if (last.type === NBD_REP_ERR.UNSUP && options.enter === undefined && !agreed.extended) {
    return yield* enterByName(talk, options, agreed);
  }
  if (last.type !== NBD_REP.ACK) throw refused(NBD_OPT.GO, last);
  let exported: { sizeBytes: number; transmissionFlags: number } | null = null;
  let canonicalName: string | null = null;
  let description: string | null = null;
  let blockSizes: BlockSizes | null = null;
  for (const reply of replies) {
    const info = reply.type === NBD_REP.INFO ? decodeInfoReply(reply.payload) : null;
    if (info === null) throw broken('a malformed NBD_REP_INFO');
    if (info.type === 'export') exported = info;
    else if (info.type === 'name') canonicalName = info.text;
    else if (info.type === 'description') description = info.text;
    // Sizes that were not asked for bind nobody.
    else if (info.type === 'blockSize' && options.blockSize !== false) blockSizes = info.sizes;
  }
  if (exported === null) throw broken('NBD_OPT_GO succeeded without NBD_INFO_EXPORT');
  if (blockSizes !== null) checkSizes(blockSizes);
  return {
    ...checkFlags(exported),
    canonicalName,
    description,
    blockSizes,
    structured: agreed.structured,
    extended: agreed.extended,
    baseAllocationId: agreed.id,
    tls: talk.tls,
    entered: 'go',
  };
}

function* enterByName(
  talk: Talk,
  options: ClientOptions,
  agreed: Omit<Agreed, 'extended'>,
): Negotiation<NegotiatedExport> {
  talk.send(encodeOption(NBD_OPT.EXPORT_NAME, encodeText(options.exportName)));
  const length = talk.noZeroes ? NBD_HEADER.EXPORT_NO_ZEROES : NBD_HEADER.EXPORT;
  const exported = decodeExport(yield length);
  if (exported === null) throw broken('a malformed answer to NBD_OPT_EXPORT_NAME');
  return {
    ...checkFlags(exported),
    canonicalName: null,
    description: null,
    blockSizes: null,
    structured: agreed.structured,
    extended: false,
    baseAllocationId: agreed.id,
    tls: talk.tls,
    entered: 'exportName',
  };
}

/** Takes what a server without NBD_FLAG_HAS_FLAGS says for "no flags": the bit "MUST always be 1". */
function checkFlags(exported: { sizeBytes: number; transmissionFlags: number }): {
  sizeBytes: number;
  transmissionFlags: number;
} {
  const has = (exported.transmissionFlags & NBD_FLAG.HAS_FLAGS) !== 0;
  return {
    sizeBytes: exported.sizeBytes,
    transmissionFlags: has ? exported.transmissionFlags : 0,
  };
}

/** Refuses what no server may say [NBD proto "Size constraints"]. */
function checkSizes(sizes: BlockSizes): void {
  const good =
    isPowerOfTwo(sizes.minimum) &&
    sizes.minimum <= 65536 &&
    isPowerOfTwo(sizes.preferred) &&
    sizes.preferred >= sizes.minimum &&
    sizes.maximumPayload >= sizes.minimum;
  if (!good) {
    throw broken(
      `impossible block sizes: ${sizes.minimum}, ${sizes.preferred}, ${sizes.maximumPayload}`,
    );
  }
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}
