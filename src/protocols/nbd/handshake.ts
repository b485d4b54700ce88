import type { DeviceInfo } from '../../block/device.ts';
import { decodeText, viewOf, Writer } from './bytes.ts';
import {
  DEFAULT_CLIENT_BLOCK_BYTES,
  MAX_HANDSHAKE_BYTES,
  MAX_MINIMUM_BLOCK_BYTES,
  MAX_OPTION_BYTES,
  MAX_OPTIONS,
  MAX_PAYLOAD_BYTES,
  MAX_STRING_BYTES,
} from './limits.ts';
import {
  type BlockSizes,
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeOptionHeader,
  encodeExport,
  encodeGreeting,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoText,
  encodeMetaContext,
  encodeServerReply,
  type InfoRequest,
  nameOfOption,
  NBD_BASE_ALLOCATION,
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
  type NbdRepErr,
  writeOptionReply,
} from './wire.ts';

/** What the handshake tells a client of an export. */
export interface ExportInfo {
  /** The canonical name; '' is the default export. */
  readonly name: string;
  readonly description: string;
  /** Read when a client asks, so it may change between two questions. */
  readonly info: DeviceInfo;
  /** Flushes and FUA of one connection cover what any other was told is written. */
  readonly multiConn: boolean;
}

/** Why a client does not get its export, now. */
export interface Refusal {
  readonly reply: NbdRepErr;
  /** For a person at the client. */
  readonly message: string;
}

/** What the client and the server agreed on. */
export interface HandshakeResult {
  readonly exportName: string;
  /** Replies come in chunks: structured ones, or extended ones when `extended`. */
  readonly structured: boolean;
  /** Requests and replies have the 32 byte headers. */
  readonly extended: boolean;
  /** The id of base:allocation in BLOCK_STATUS replies; null: the client may not ask. */
  readonly baseAllocationId: number | null;
  readonly noZeroes: boolean;
  /** The client asked for the size constraints with GO and so promised to keep them. */
  readonly blockSizeNegotiated: boolean;
  readonly tls: boolean;
  /** NBD_FLAG bits as the client saw them. */
  readonly transmissionFlags: number;
}

/** What the handshake needs of its connection. */
export interface HandshakeHost {
  /** Everything one option is answered with; the bytes are the host's. */
  send(bytes: Uint8Array): void;
  /** Begins TLS once all that was sent is out, then calls `tlsStarted`. A failure ends the connection. */
  startTls(): void;
  lookup(name: string): ExportInfo | null;
  /** All exports, for NBD_OPT_LIST. */
  list(): Iterable<ExportInfo>;
  /**
   * Prepares an export that `lookup` found for this connection. `ready` is called once, perhaps at once: null, or why
   * not. From null on the export's session is this connection's to close.
   */
  open(name: string, ready: (refused: Refusal | null) => void): void;
  /**
   * The handshake is over; what `receive` does not consume are requests. Can be called inside `receive`, so act on
   * those only after it has returned.
   */
  negotiated(result: HandshakeResult): void;
  /** Ends the connection after what was sent. Nothing is called afterwards. */
  close(reason: string): void;
}

/**
 * `off`: NOTLS. `on`: SELECTIVETLS without exports that insist on it. `require`: FORCEDTLS [NBD proto "TLS support"].
 */
export type TlsMode = 'off' | 'on' | 'require';

/** `opening` and `tls`: waits for the host. `done` and `closed` are final. */
export type HandshakeState = 'negotiating' | 'opening' | 'tls' | 'done' | 'closed';

const BASE_ALLOCATION_ID = 1;
const EMPTY = new Uint8Array(0);
const SHUTDOWN: Refusal = { reply: NBD_REP_ERR.SHUTDOWN, message: 'the server is shutting down' };
const NO_EXPORT: Refusal = { reply: NBD_REP_ERR.UNKNOWN, message: 'no such export' };
const MALFORMED: Refusal = {
  reply: NBD_REP_ERR.INVALID,
  message: 'the data of the option is malformed',
};
const NO_DATA: Refusal = { reply: NBD_REP_ERR.INVALID, message: 'the option takes no data' };
const NAME_TOO_LONG: Refusal = {
  reply: NBD_REP_ERR.TOO_BIG,
  message: `a name has at most ${MAX_STRING_BYTES} bytes`,
};

/**
 * The server's side of the fixed newstyle negotiation [NBD proto "Handshake"], without sockets and timers. Whatever
 * arrives, it answers, or closes; it never throws, and keeps at most one option's data.
 *
 * The owner calls `start`, then `receive` for as long as `state` is 'negotiating'.
 */
export class ServerHandshake {
  readonly #host: HandshakeHost;
  readonly #tlsMode: TlsMode;
  #state: HandshakeState = 'negotiating';
  #phase: 'clientFlags' | 'header' | 'data' = 'clientFlags';

  // What is being collected: `need` bytes, of which `have` are there. Skipped data is counted only.
  #buffer = new Uint8Array(256);
  #need: number = NBD_HEADER.CLIENT_FLAGS;
  #have = 0;
  #skip = false;

  #option = 0;
  #options = 0;
  #totalBytes = 0;
  #answered = false;
  #shuttingDown = false;

  #fixedNewstyle = false;
  #noZeroes = false;
  #tls = false;
  #structured = false;
  #extended = false;
  /** The export name of the last successful SET_META_CONTEXT that selected base:allocation. */
  #allocationFor: string | null = null;

  constructor(host: HandshakeHost, tlsMode: TlsMode) {
    this.#host = host;
    this.#tlsMode = tlsMode;
  }

  get state(): HandshakeState {
    return this.#state;
  }

  /** Sends the greeting. Call once, first. */
  start(): void {
    this.#host.send(encodeGreeting(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
  }

  /**
   * Consumes bytes of the client, in any pieces, and returns how many. It stops after each option that it answered, so
   * that the owner can send the answer before it offers the rest: the cost of a client that does not read is one
   * answer. It consumes nothing unless `state` is 'negotiating'.
   */
  receive(bytes: Uint8Array): number {
    let used = 0;
    this.#answered = false;
    while (this.#state === 'negotiating' && !this.#answered) {
      const take = Math.min(bytes.length - used, this.#need - this.#have);
      if (!this.#skip) this.#buffer.set(bytes.subarray(used, used + take), this.#have);
      used += take;
      this.#have += take;
      if (this.#have < this.#need) break;
      this.#step();
    }
    // Bytes in the clear behind STARTTLS would be taken for the client's, though anyone could have put them there.
    if (this.#state === 'tls' && used < bytes.length) {
      this.#close('data in the clear after NBD_OPT_STARTTLS');
    }
    return used;
  }

  /** The host has TLS: what was negotiated in the clear is void [NBD proto "NBD_OPT_STARTTLS"]. */
  tlsStarted(): void {
    if (this.#state !== 'tls') return;
    this.#state = 'negotiating';
    this.#tls = true;
    this.#structured = false;
    this.#extended = false;
    this.#allocationFor = null;
  }

  /** From now on every option but ABORT is refused [NBD proto "Termination of the session"]. */
  shutdown(): void {
    this.#shuttingDown = true;
  }

  /** The connection is gone: nothing more is sent, and an `open` that is still under way has no effect. */
  abandon(): void {
    if (this.#state !== 'done') this.#state = 'closed';
  }

  #close(reason: string): void {
    this.#state = 'closed';
    this.#host.close(reason);
  }

  #expect(phase: 'header' | 'data', bytes: number, skip: boolean): void {
    this.#phase = phase;
    this.#need = bytes;
    this.#have = 0;
    this.#skip = skip;
    if (!skip && bytes > this.#buffer.length) this.#buffer = new Uint8Array(bytes);
  }

  #step(): void {
    switch (this.#phase) {
      case 'clientFlags':
        return this.#clientFlags(viewOf(this.#buffer).getUint32(0));
      case 'header':
        return this.#header();
      case 'data': {
        const data = this.#skip ? null : this.#buffer.subarray(0, this.#need);
        this.#expect('header', NBD_HEADER.OPTION, false);
        this.#answered = true;
        return this.#handle(this.#option, data);
      }
    }
  }

  #clientFlags(flags: number): void {
    const known = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
    // "the server MUST drop the TCP connection if the client sets an unknown flag" [NBD proto "Client flags"]
    if ((flags & ~known) !== 0) return this.#close('unknown client flags');
    this.#fixedNewstyle = (flags & NBD_FLAG_C_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0;
    this.#expect('header', NBD_HEADER.OPTION, false);
  }

  #header(): void {
    const header = decodeOptionHeader(this.#buffer.subarray(0, NBD_HEADER.OPTION));
    if (header === null) return this.#close('an option without its magic number');
    this.#options += 1;
    this.#totalBytes += NBD_HEADER.OPTION + header.length;
    if (this.#options > MAX_OPTIONS) return this.#close('too many options');
    if (this.#totalBytes > MAX_HANDSHAKE_BYTES) return this.#close('too much data in options');
    this.#option = header.option;
    this.#expect('data', header.length, header.length > MAX_OPTION_BYTES);
  }

  /** `data` is null when it was longer than any option's may be. */
  #handle(option: number, data: Uint8Array | null): void {
    if (option === NBD_OPT.EXPORT_NAME) return this.#exportName(data);
    // "This is the only valid option in nonfixed newstyle negotiation" [NBD proto "NBD_OPT_EXPORT_NAME"]
    if (!this.#fixedNewstyle) return this.#close(`${nameOfOption(option)} without fixed newstyle`);
    if (option === NBD_OPT.ABORT) {
      this.#reply(NBD_REP.ACK);
      return this.#close('the client ended the negotiation');
    }
    if (this.#tlsMode === 'require' && !this.#tls && option !== NBD_OPT.STARTTLS) {
      return this.#refuse({ reply: NBD_REP_ERR.TLS_REQD, message: 'this server requires TLS' });
    }
    if (this.#shuttingDown) return this.#refuse(SHUTDOWN);
    if (data === null) {
      return this.#refuse({ reply: NBD_REP_ERR.TOO_BIG, message: 'the option is too long' });
    }
    switch (option) {
      case NBD_OPT.LIST:
        return data.length === 0 ? this.#list() : this.#refuse(NO_DATA);
      case NBD_OPT.STARTTLS:
        return data.length === 0 ? this.#startTls() : this.#refuse(NO_DATA);
      case NBD_OPT.STRUCTURED_REPLY:
        return data.length === 0 ? this.#structuredReply() : this.#refuse(NO_DATA);
      case NBD_OPT.EXTENDED_HEADERS:
        return data.length === 0 ? this.#extendedHeaders() : this.#refuse(NO_DATA);
      case NBD_OPT.INFO:
      case NBD_OPT.GO:
        return this.#info(data);
      case NBD_OPT.LIST_META_CONTEXT:
      case NBD_OPT.SET_META_CONTEXT:
        return this.#metaContext(data);
      default:
        return this.#refuse({ reply: NBD_REP_ERR.UNSUP, message: 'unknown option' });
    }
  }

  #reply(type: number, payload: Uint8Array = EMPTY): void {
    const out = new Writer();
    writeOptionReply(out, this.#option, type, payload);
    this.#host.send(out.finish());
  }

  #refuse(refusal: Refusal): void {
    const out = new Writer();
    this.#writeRefusal(out, refusal);
    this.#host.send(out.finish());
  }

  #writeRefusal(out: Writer, refusal: Refusal): void {
    writeOptionReply(out, this.#option, refusal.reply, Buffer.from(refusal.message));
  }

  /** This option cannot be answered with an error: what it does not get ends the connection. */
  #exportName(data: Uint8Array | null): void {
    const name = data === null || data.length > MAX_STRING_BYTES ? null : decodeText(data);
    if (name === null) return this.#close('a malformed export name');
    if (this.#tlsMode === 'require' && !this.#tls) return this.#close('TLS is required');
    if (this.#shuttingDown) return this.#close(SHUTDOWN.message);
    // "Once extended headers are successfully requested, a client MUST NOT use NBD_OPT_EXPORT_NAME"
    // [NBD proto extension-ext-header "NBD_OPT_EXTENDED_HEADERS"]
    if (this.#extended) return this.#close('NBD_OPT_EXPORT_NAME after extended headers');
    const found = this.#host.lookup(name);
    if (found === null) return this.#close('no such export');
    if (needsBlockSize(found.info)) return this.#close('the client cannot learn the block size');
    this.#open(name, found, (refused) => {
      if (refused !== null) return this.#close(refused.message);
      const flags = this.#transmissionFlags(name, found);
      this.#host.send(encodeExport(found.info.sizeBytes, flags, this.#noZeroes));
      return this.#done(name, found, flags, false);
    });
  }

  #open(name: string, found: ExportInfo, ready: (refused: Refusal | null) => void): void {
    this.#state = 'opening';
    this.#host.open(found.name, (refused) => {
      if (this.#state !== 'opening') return;
      this.#state = 'negotiating';
      ready(refused);
    });
  }

  #done(name: string, found: ExportInfo, flags: number, blockSizeNegotiated: boolean): void {
    this.#state = 'done';
    this.#buffer = EMPTY;
    this.#host.negotiated({
      exportName: found.name,
      structured: this.#structured || this.#extended,
      extended: this.#extended,
      baseAllocationId: this.#allocationFor === name ? BASE_ALLOCATION_ID : null,
      noZeroes: this.#noZeroes,
      blockSizeNegotiated,
      tls: this.#tls,
      transmissionFlags: flags,
    });
  }

  #list(): void {
    const out = new Writer();
    for (const each of this.#host.list()) {
      const payload = encodeServerReply(each.name, each.description);
      writeOptionReply(out, this.#option, NBD_REP.SERVER, payload);
    }
    writeOptionReply(out, this.#option, NBD_REP.ACK, EMPTY);
    this.#host.send(out.finish());
  }

  #startTls(): void {
    if (this.#tls) {
      return this.#refuse({ reply: NBD_REP_ERR.INVALID, message: 'TLS is already in use' });
    }
    if (this.#tlsMode === 'off') {
      return this.#refuse({ reply: NBD_REP_ERR.POLICY, message: 'this server has no TLS' });
    }
    this.#reply(NBD_REP.ACK);
    this.#state = 'tls';
    return this.#host.startTls();
  }

  #structuredReply(): void {
    // Extended headers take precedence [NBD proto extension-ext-header "NBD_OPT_STRUCTURED_REPLY"]
    if (this.#extended) {
      return this.#refuse({
        reply: NBD_REP_ERR.EXT_HEADER_REQD,
        message: 'extended headers are already negotiated',
      });
    }
    this.#structured = true;
    return this.#reply(NBD_REP.ACK);
  }

  #extendedHeaders(): void {
    this.#extended = true;
    this.#reply(NBD_REP.ACK);
  }

  #info(data: Uint8Array): void {
    const request = decodeInfoRequest(data);
    if (request === null) return this.#refuse(MALFORMED);
    if (request.nameBytes > MAX_STRING_BYTES) return this.#refuse(NAME_TOO_LONG);
    const found = this.#host.lookup(request.name);
    if (found === null) return this.#refuse(NO_EXPORT);
    const asksSizes = request.information.includes(NBD_INFO.BLOCK_SIZE);
    if (needsBlockSize(found.info) && !asksSizes) return this.#requireBlockSize(found);
    if (this.#option === NBD_OPT.INFO) {
      const out = new Writer();
      this.#writeInfo(out, request, found);
      this.#host.send(out.finish());
      return;
    }
    this.#open(request.name, found, (refused) => {
      if (refused !== null) return this.#refuse(refused);
      const out = new Writer();
      const flags = this.#writeInfo(out, request, found);
      this.#host.send(out.finish());
      return this.#done(request.name, found, flags, asksSizes);
    });
  }

  #requireBlockSize(found: ExportInfo): void {
    const out = new Writer();
    const sizes = encodeInfoBlockSize(blockSizes(found.info));
    writeOptionReply(out, this.#option, NBD_REP.INFO, sizes);
    this.#writeRefusal(out, {
      reply: NBD_REP_ERR.BLOCK_SIZE_REQD,
      message: `this export has blocks of ${found.info.blockBytes} bytes: ask for NBD_INFO_BLOCK_SIZE`,
    });
    this.#host.send(out.finish());
  }

  /** The replies of a successful INFO or GO. Returns the transmission flags that it told. */
  #writeInfo(out: Writer, request: InfoRequest, found: ExportInfo): number {
    const { info } = found;
    const flags = this.#transmissionFlags(request.name, found);
    const payloads = [encodeInfoExport(info.sizeBytes, flags)];
    const asks = (type: number): boolean => request.information.includes(type);
    if (asks(NBD_INFO.NAME)) payloads.push(encodeInfoText(NBD_INFO.NAME, found.name));
    if (asks(NBD_INFO.DESCRIPTION) && found.description !== '') {
      payloads.push(encodeInfoText(NBD_INFO.DESCRIPTION, found.description));
    }
    if (asks(NBD_INFO.BLOCK_SIZE)) payloads.push(encodeInfoBlockSize(blockSizes(info)));
    for (const payload of payloads) writeOptionReply(out, this.#option, NBD_REP.INFO, payload);
    writeOptionReply(out, this.#option, NBD_REP.ACK, EMPTY);
    return flags;
  }

  #metaContext(data: Uint8Array): void {
    const set = this.#option === NBD_OPT.SET_META_CONTEXT;
    // "replaces all previously-set metadata contexts (including when this command fails)"
    // [NBD proto "NBD_OPT_SET_META_CONTEXT"]
    if (set) this.#allocationFor = null;
    if (set && !this.#structured && !this.#extended) {
      return this.#refuse({
        reply: NBD_REP_ERR.INVALID,
        message: 'metadata contexts need structured replies',
      });
    }
    const request = decodeMetaContextRequest(data);
    if (request === null) return this.#refuse(MALFORMED);
    if (request.nameBytes > MAX_STRING_BYTES) return this.#refuse(NAME_TOO_LONG);
    if (this.#host.lookup(request.name) === null) return this.#refuse(NO_EXPORT);
    const { queries } = request;
    // Listing: no query asks for everything, 'base:' for all of its namespace. Neither selects anything.
    const listed = !set && (queries.length === 0 || queries.includes('base:'));
    const out = new Writer();
    if (listed || queries.includes(NBD_BASE_ALLOCATION)) {
      if (set) this.#allocationFor = request.name;
      const payload = encodeMetaContext(set ? BASE_ALLOCATION_ID : 0, NBD_BASE_ALLOCATION);
      writeOptionReply(out, this.#option, NBD_REP.META_CONTEXT, payload);
    }
    writeOptionReply(out, this.#option, NBD_REP.ACK, EMPTY);
    this.#host.send(out.finish());
  }

  #transmissionFlags(name: string, found: ExportInfo): number {
    let flags = exportFlags(found);
    if (this.#structured || this.#extended) flags |= NBD_FLAG.SEND_DF;
    if (this.#extended && this.#allocationFor === name) flags |= NBD_FLAG.BLOCK_STATUS_PAYLOAD;
    return flags;
  }
}

/** The NBD_FLAG bits that follow from the export alone. */
export function exportFlags(found: ExportInfo): number {
  const { info } = found;
  let flags = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FUA | NBD_FLAG.SEND_CACHE;
  // Clients take this flag for WCE: Linux shows a "write back" cache exactly when it is set. Without it, every write
  // is stable when it completes.
  if (info.writeCache) flags |= NBD_FLAG.SEND_FLUSH;
  if (info.rotational) flags |= NBD_FLAG.ROTATIONAL;
  if (found.multiConn) flags |= NBD_FLAG.CAN_MULTI_CONN;
  if (info.readOnly) return flags | NBD_FLAG.READ_ONLY;
  flags |= NBD_FLAG.SEND_WRITE_ZEROES;
  if (info.discard) flags |= NBD_FLAG.SEND_TRIM;
  if (info.fastZero) flags |= NBD_FLAG.SEND_FAST_ZERO;
  return flags;
}

/** The size constraints that an export is served with. */
export function blockSizes(info: DeviceInfo): BlockSizes {
  const minimum = Math.min(info.blockBytes, MAX_MINIMUM_BLOCK_BYTES);
  // "at least as large as the maximum of the minimum block size and 2^9" [NBD proto "Size constraints"]
  const preferred = Math.max(info.preferredBytes, minimum, DEFAULT_CLIENT_BLOCK_BYTES);
  return { minimum, preferred, maximumPayload: MAX_PAYLOAD_BYTES };
}

/** Whether a client that knows only the defaults would send requests that the export must refuse. */
function needsBlockSize(info: DeviceInfo): boolean {
  return info.blockBytes > DEFAULT_CLIENT_BLOCK_BYTES;
}
