import { messageOf } from '../../base/errors.ts';
import type { DescriptorSocket, DescriptorSocketOwner, Sharing } from '../../reactor/sharing.ts';
import { type Message, MessageReader } from './frontend-messages.ts';
import {
  encodeMessage,
  encodeU64,
  VHOST_USER_BACKEND,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_REPLY_MASK,
} from './wire.ts';

/** What the back-end asks the front-end for. */
export interface ChannelHost {
  /** The configuration space has changed by itself. */
  configChanged(): void;
  /** The channel is of no more use: why. The connection itself may be. */
  broken(reason: string): void;
}

/**
 * The front-end's end of the channel on which the back-end makes requests [vhost-user "Back-end communication"]. What it
 * cannot do it refuses, where an answer is asked for.
 */
export class BackendChannel implements DescriptorSocketOwner {
  readonly #sharing: Sharing;
  readonly #socket: DescriptorSocket;
  readonly #host: ChannelHost;
  readonly #replyAck: boolean;
  readonly #reader: MessageReader = new MessageReader();

  constructor(sharing: Sharing, socket: DescriptorSocket, host: ChannelHost, replyAck: boolean) {
    this.#sharing = sharing;
    this.#socket = socket;
    this.#host = host;
    this.#replyAck = replyAck;
    socket.owner = this;
  }

  received(bytes: Uint8Array, descriptors: readonly number[]): void {
    this.#reader.push(bytes, descriptors);
    try {
      for (let next = this.#reader.next(); next !== null; next = this.#reader.next()) {
        this.#take(next);
      }
    } catch (error) {
      this.close();
      this.#host.broken(`the back-end's channel: ${messageOf(error)}`);
    }
  }

  ended(): void {
    this.close();
  }

  close(): void {
    for (const fd of this.#reader.takeDescriptors()) this.#sharing.closeDescriptor(fd);
    this.#socket.close();
  }

  #take({ header, descriptors }: Message): void {
    for (const fd of descriptors) this.#sharing.closeDescriptor(fd);
    const known = header.request === VHOST_USER_BACKEND.CONFIG_CHANGE_MSG;
    const wantsReply = (header.flags & VHOST_USER_NEED_REPLY_MASK) !== 0;
    // [vhost-user "VHOST_USER_PROTOCOL_F_REPLY_ACK"]: zero for success.
    if (wantsReply && this.#replyAck) {
      const payload = encodeU64(known ? 0 : 1);
      this.#socket.send(encodeMessage(header.request, VHOST_USER_REPLY_MASK, payload));
    }
    if (known) this.#host.configChanged();
  }
}
