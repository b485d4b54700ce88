import { ProtocolError } from '../../base/errors.ts';
import { MAX_PAYLOAD_BYTES, MAX_WAITING_BYTES, MAX_WAITING_DESCRIPTORS } from './limits.ts';
import {
  decodeHeader,
  decodeMemoryTable,
  decodeVringDescriptor,
  type Header,
  requestName,
  SIZE,
  VHOST_USER,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_REPLY_MASK,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
} from './wire.ts';

/** One whole message of the front-end, with the descriptors that came for it. */
export class Message {
  readonly request: number;
  readonly needReply: boolean;
  readonly payload: Uint8Array;
  #descriptors: number[];

  constructor(header: Header, payload: Uint8Array, descriptors: number[]) {
    this.request = header.request;
    this.needReply = (header.flags & VHOST_USER_NEED_REPLY_MASK) !== 0;
    this.payload = payload;
    this.#descriptors = descriptors;
  }

  get name(): string {
    return requestName(this.request);
  }

  /** How many descriptors have not been taken. */
  get descriptors(): number {
    return this.#descriptors.length;
  }

  /** The next descriptor, which is the caller's to close from now on; null when there is none. */
  take(): number | null {
    return this.#descriptors.shift() ?? null;
  }

  /** All that have not been taken. */
  takeAll(): number[] {
    const rest = this.#descriptors;
    this.#descriptors = [];
    return rest;
  }
}

/** Descriptors that came with a stretch of the stream which ends before byte `end`. */
interface Arrival {
  readonly end: number;
  readonly descriptors: number[];
}

/**
 * Cuts the stream into messages and finds each message's descriptors.
 *
 * The kernel hands out descriptors with the bytes they were sent with, but bytes sent before may be in the same piece
 * [unix(7) SCM_RIGHTS]: a piece ends where bytes with descriptors end, but does not begin where they begin. So a message
 * that needs descriptors takes the oldest, and one that needs none leaves them for a later one of the same piece.
 */
export class MessageReader {
  #bytes: Uint8Array = new Uint8Array(0);
  /** Where in the stream `#bytes` begins. */
  #start = 0;
  readonly #arrivals: Arrival[] = [];
  #descriptors = 0;

  /** The descriptors are the reader's, also when this throws a ProtocolError: too much waits. */
  push(bytes: Uint8Array, descriptors: readonly number[]): void {
    const joined = new Uint8Array(this.#bytes.length + bytes.length);
    joined.set(this.#bytes);
    joined.set(bytes, this.#bytes.length);
    this.#bytes = joined;
    if (descriptors.length > 0) {
      this.#arrivals.push({ end: this.#start + joined.length, descriptors: [...descriptors] });
      this.#descriptors += descriptors.length;
    }
    if (joined.length > MAX_WAITING_BYTES || this.#descriptors > MAX_WAITING_DESCRIPTORS) {
      throw new ProtocolError('more messages at once than any front-end sends', 'Communication');
    }
  }

  /**
   * The next whole message, or null. Throws a ProtocolError for what cannot be a message; nothing can be read after
   * that.
   */
  next(): Message | null {
    if (this.#bytes.length < SIZE.HEADER) return null;
    const header = decodeHeader(this.#bytes);
    if ((header.flags & VHOST_USER_VERSION_MASK) !== VHOST_USER_VERSION) {
      throw new ProtocolError(`message version ${header.flags & 3}, not 1`, 'Header');
    }
    if ((header.flags & VHOST_USER_REPLY_MASK) !== 0) {
      throw new ProtocolError('a reply to a question that was not asked', 'Header');
    }
    if (header.size > MAX_PAYLOAD_BYTES) {
      throw new ProtocolError(
        `${requestName(header.request)} of ${header.size} bytes is too large`,
        'Header',
      );
    }
    const length = SIZE.HEADER + header.size;
    if (this.#bytes.length < length) return null;
    const payload = this.#bytes.slice(SIZE.HEADER, length);
    this.#bytes = this.#bytes.subarray(length);
    this.#start += length;
    const message = new Message(header, payload, this.#descriptorsOf(header.request, payload));
    this.#checkNoneLeft(message);
    return message;
  }

  /** All descriptors that wait for a message: the caller's to close. */
  takeDescriptors(): number[] {
    this.#descriptors = 0;
    return this.#arrivals.splice(0).flatMap(({ descriptors }) => descriptors);
  }

  #descriptorsOf(request: number, payload: Uint8Array): number[] {
    const [least, most] = descriptorCounts(request, payload);
    const taken: number[] = [];
    while (taken.length < most) {
      const arrival = this.#arrivals[0];
      if (arrival === undefined) break;
      // More than it needs: only if no later message of the same piece may be waiting for it.
      if (taken.length >= least && arrival.end > this.#start) break;
      taken.push(arrival.descriptors.shift() as number);
      if (arrival.descriptors.length === 0) this.#arrivals.shift();
    }
    this.#descriptors -= taken.length;
    return taken;
  }

  /** Descriptors that came no later than this message's last byte and that nobody has taken. */
  #checkNoneLeft(message: Message): void {
    const oldest = this.#arrivals[0];
    if (oldest === undefined || oldest.end > this.#start) return;
    this.#arrivals.push({ end: this.#start, descriptors: message.takeAll() });
    throw new ProtocolError(`${message.name} with descriptors it does not take`, 'Communication');
  }
}

/** How many descriptors come with a message: at least, at most [vhost-user "Communication"]. */
function descriptorCounts(request: number, payload: Uint8Array): [least: number, most: number] {
  switch (request) {
    case VHOST_USER.SET_MEM_TABLE: {
      const count = decodeMemoryTable(payload)?.length ?? 0;
      return [count, count];
    }
    case VHOST_USER.SET_VRING_KICK:
    case VHOST_USER.SET_VRING_CALL:
    case VHOST_USER.SET_VRING_ERR:
      return decodeVringDescriptor(payload)?.absent === false ? [1, 1] : [0, 0];
    case VHOST_USER.ADD_MEM_REG:
    case VHOST_USER.SET_BACKEND_REQ_FD:
    case VHOST_USER.SET_INFLIGHT_FD:
      return [1, 1];
    case VHOST_USER.REM_MEM_REG:
      // "the back-end MAY accept messages with one file descriptor" [vhost-user "VHOST_USER_REM_MEM_REG"]
      return [0, 1];
    default:
      // What we do not know is answered as unknown, whatever comes with it.
      return isHandledWithout(request) ? [0, 0] : [0, MAX_WAITING_DESCRIPTORS];
  }
}

const KNOWN_WITHOUT: ReadonlySet<number> = new Set([
  VHOST_USER.GET_FEATURES,
  VHOST_USER.SET_FEATURES,
  VHOST_USER.SET_OWNER,
  VHOST_USER.RESET_OWNER,
  VHOST_USER.SET_VRING_NUM,
  VHOST_USER.SET_VRING_ADDR,
  VHOST_USER.SET_VRING_BASE,
  VHOST_USER.GET_VRING_BASE,
  VHOST_USER.GET_PROTOCOL_FEATURES,
  VHOST_USER.SET_PROTOCOL_FEATURES,
  VHOST_USER.GET_QUEUE_NUM,
  VHOST_USER.SET_VRING_ENABLE,
  VHOST_USER.GET_CONFIG,
  VHOST_USER.SET_CONFIG,
  VHOST_USER.GET_INFLIGHT_FD,
  VHOST_USER.RESET_DEVICE,
  VHOST_USER.GET_MAX_MEM_SLOTS,
  VHOST_USER.SET_STATUS,
  VHOST_USER.GET_STATUS,
]);

function isHandledWithout(request: number): boolean {
  return KNOWN_WITHOUT.has(request);
}
