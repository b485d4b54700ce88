import { ProtocolError } from '../../base/errors.ts';
import { MAX_PAYLOAD_BYTES } from './limits.ts';
import {
  decodeHeader,
  type Header,
  SIZE,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
} from './wire.ts';

/** One whole message, and the descriptors that came with its bytes: the receiver's to close. */
export interface Message {
  readonly header: Header;
  readonly payload: Uint8Array;
  readonly descriptors: readonly number[];
}

/** What arrives from a back-end, in any pieces, as messages. Control traffic: it copies. */
export class MessageReader {
  #bytes = new Uint8Array(0);
  #descriptors: number[] = [];

  push(bytes: Uint8Array, descriptors: readonly number[]): void {
    const both = new Uint8Array(this.#bytes.length + bytes.length);
    both.set(this.#bytes);
    both.set(bytes, this.#bytes.length);
    this.#bytes = both;
    this.#descriptors.push(...descriptors);
  }

  /**
   * The next message, or null while it is not whole. Descriptors belong to the message that is whole first after they
   * came: a back-end sends one only with an answer, and answers come one at a time. Throws a ProtocolError for what is
   * no message.
   */
  next(): Message | null {
    if (this.#bytes.length < SIZE.HEADER) return null;
    const header = decodeHeader(this.#bytes);
    if ((header.flags & VHOST_USER_VERSION_MASK) !== VHOST_USER_VERSION) {
      throw new ProtocolError(
        `a message with flags 0x${header.flags.toString(16)}`,
        'vhost-user "Header"',
      );
    }
    if (header.size > MAX_PAYLOAD_BYTES) {
      throw new ProtocolError(`a message of ${header.size} bytes`, 'vhost-user "Header"');
    }
    const end = SIZE.HEADER + header.size;
    if (this.#bytes.length < end) return null;
    const payload = this.#bytes.slice(SIZE.HEADER, end);
    this.#bytes = this.#bytes.slice(end);
    const descriptors = this.#descriptors;
    this.#descriptors = [];
    return { header, payload, descriptors };
  }

  /** Descriptors that no message took: to be closed when the connection is over. */
  takeDescriptors(): number[] {
    const descriptors = this.#descriptors;
    this.#descriptors = [];
    return descriptors;
  }
}
