import type { DescriptorSocket, DescriptorSocketOwner, Sharing } from '../../reactor/sharing.ts';
import { encodeMessage, VHOST_USER_BACKEND } from './wire.ts';

/**
 * The channel for our own requests [vhost-user "Back-end communication"]. Only one is ever sent: the configuration has
 * changed. It never asks for an answer: a front-end that waits for one of ours could not give it.
 */
export class BackendChannel implements DescriptorSocketOwner {
  readonly #sharing: Sharing;
  #socket: DescriptorSocket | null = null;

  constructor(sharing: Sharing) {
    this.#sharing = sharing;
  }

  get open(): boolean {
    return this.#socket !== null;
  }

  /** SET_BACKEND_REQ_FD: the descriptor is the channel's from now on; an earlier one is closed. */
  use(descriptor: number, peer: string): void {
    this.close();
    const socket = this.#sharing.adopt(descriptor, peer);
    socket.owner = this;
    this.#socket = socket;
  }

  configChanged(): void {
    this.#socket?.send(encodeMessage(VHOST_USER_BACKEND.CONFIG_CHANGE_MSG, 0));
  }

  close(): void {
    this.#socket?.close();
    this.#socket = null;
  }

  /** Nothing is asked, so whatever comes is thrown away. */
  received(_bytes: Uint8Array, descriptors: readonly number[]): void {
    for (const fd of descriptors) this.#sharing.closeDescriptor(fd);
  }

  ended(): void {
    this.close();
  }
}
