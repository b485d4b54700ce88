import { assert } from '../../base/assert.ts';
import type { DescriptorSocket, DescriptorSocketOwner } from '../sharing.ts';
import * as sys from '../sys.ts';
import type { DescriptorMessages } from './descriptor-messages.ts';
import { PollRequest } from './poll-request.ts';
import type { Ring } from './ring.ts';

const POLLIN = 1;
const POLLOUT = 4;
const EINTR = 4;
const EAGAIN = 11;
const EPIPE = 32;
const ECONNRESET = 104;
const F_DUPFD_CLOEXEC = 1030;

/** Calls per turn, so that a peer that never stops sending holds up nobody else: well under a millisecond. */
const RECEIVES_PER_TURN = 256;
/** A peer that does not take its answers is not asked for more questions. */
const QUEUED_BYTES_MAX = 256 * 1024;
/** A peer that takes nothing of what it did not ask for either (news, over a channel of their own) is given up. */
const UNSENT_BYTES_MAX = 1024 * 1024;

/** What a descriptor socket needs of its reactor. */
export interface DescriptorContext {
  readonly ring: Ring;
  readonly messages: DescriptorMessages;
  defer(callback: () => void): void;
  /** Whether the other end of a socket is closed. */
  hungUp(fd: number): boolean;
  /** A descriptor has come from outside: nothing that was known of this number holds any more. */
  arrived(fd: number): void;
}

interface Unsent {
  bytes: Uint8Array;
  /** Ours: duplicates. */
  descriptors: number[];
}

/**
 * A descriptor socket on the ring, which only watches it; messages are moved by plain calls that do not wait.
 *
 * A stream socket joins what was sent in several messages up to the one with descriptors, and does not say where that
 * one begins. So the receiver looks first, and when descriptors are near it takes byte after byte: they come with the
 * first byte of theirs.
 */
export class UringDescriptorSocket implements DescriptorSocket {
  owner: DescriptorSocketOwner = { received: noOwner, ended: noOwner };
  readonly peer: string;
  readonly #context: DescriptorContext;
  readonly #fd: number;
  readonly #readable: PollRequest;
  readonly #writable: PollRequest;
  #unsent: Unsent[] = [];
  #unsentBytes = 0;
  #paused = false;
  #open = true;
  /** How many bytes are to be taken one by one. */
  #singly = 0;

  constructor(context: DescriptorContext, fd: number, peer: string) {
    this.#context = context;
    this.#fd = fd;
    this.peer = peer;
    this.#readable = new PollRequest(context.ring, fd, POLLIN, false, (result) => {
      if (result < 0) this.#end(`poll failed: errno ${-result}`);
      else this.#receive();
    });
    this.#writable = new PollRequest(context.ring, fd, POLLOUT, false, () => this.#flush());
    this.#readable.arm();
  }

  pause(paused: boolean): void {
    this.#paused = paused;
    this.#listen();
  }

  peerGone(): boolean {
    return !this.#open || this.#context.hungUp(this.#fd);
  }

  get #receiving(): boolean {
    return this.#open && !this.#paused && this.#unsentBytes <= QUEUED_BYTES_MAX;
  }

  #listen(): void {
    if (this.#receiving) this.#readable.arm();
  }

  #receive(): void {
    for (let i = 0; i < RECEIVES_PER_TURN && this.#receiving; i += 1) {
      if (!this.#receiveOnce()) break;
    }
    this.#listen();
  }

  /** False: nothing more for now. */
  #receiveOnce(): boolean {
    const { messages } = this.#context;
    let length = 1;
    if (this.#singly > 0) {
      this.#singly -= 1;
    } else {
      const waiting = messages.peek(this.#fd);
      if (waiting <= 0) return this.#stop(waiting);
      if (messages.descriptorsAhead) this.#singly = waiting - 1;
      else length = waiting;
    }
    const count = messages.receive(this.#fd, length);
    if (count <= 0) return this.#stop(count);
    const descriptors = messages.descriptors.slice();
    if (messages.truncated) {
      for (const descriptor of descriptors) sys.close(descriptor);
      this.#end('more descriptors at once than are taken, or than this process may have');
      return false;
    }
    if (descriptors.length > 0) this.#singly = 0;
    for (const descriptor of descriptors) this.#context.arrived(descriptor);
    this.owner.received(messages.bytes(count), descriptors);
    return true;
  }

  /** Nothing was received: why. */
  #stop(result: number): boolean {
    if (result === -EINTR) return true;
    if (result !== -EAGAIN) this.#end(result === 0 ? null : failure('receiving', -result));
    return false;
  }

  send(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    assert(bytes.length > 0, 'descriptors travel beside bytes');
    if (!this.#open) return;
    if (this.#unsent.length === 0) {
      const sent = this.#sendSome(bytes, descriptors);
      if (sent === bytes.length || sent < 0) return;
      this.#queue(bytes.slice(sent), sent > 0 ? [] : descriptors);
    } else {
      this.#queue(bytes.slice(), descriptors);
    }
    this.#writable.arm();
  }

  #queue(bytes: Uint8Array, descriptors: readonly number[]): void {
    if (this.#unsentBytes + bytes.length > UNSENT_BYTES_MAX) {
      this.#context.defer(() => this.#end('the peer does not take what it is sent'));
      return;
    }
    const duplicates: number[] = [];
    for (const descriptor of descriptors) {
      const duplicate = sys.fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
      if (duplicate < 0) {
        for (const made of duplicates) sys.close(made);
        this.#fail(-duplicate);
        return;
      }
      duplicates.push(duplicate);
    }
    this.#unsent.push({ bytes, descriptors: duplicates });
    this.#unsentBytes += bytes.length;
  }

  /** How much of it is with the kernel; if any, so are all descriptors. Negative: it failed, and the end is near. */
  #sendSome(bytes: Uint8Array, descriptors: readonly number[]): number {
    let sent = 0;
    while (sent < bytes.length) {
      const rest = sent === 0 ? descriptors : [];
      const result = this.#context.messages.send(this.#fd, bytes.subarray(sent), rest);
      if (result > 0) sent += result;
      else if (result === -EAGAIN) return sent;
      else if (result !== -EINTR) {
        this.#fail(-result);
        return -1;
      }
    }
    return sent;
  }

  #flush(): void {
    while (this.#open && this.#unsent.length > 0) {
      const first = this.#unsent[0] as Unsent;
      const sent = this.#sendSome(first.bytes, first.descriptors);
      if (sent < 0) return;
      this.#unsentBytes -= sent;
      if (sent > 0) for (const descriptor of first.descriptors.splice(0)) sys.close(descriptor);
      if (sent < first.bytes.length) {
        first.bytes = first.bytes.subarray(sent);
        this.#writable.arm();
        break;
      }
      this.#unsent.shift();
    }
    this.#listen();
  }

  /** Sending failed. The owner is inside its own call, so it hears of it later. */
  #fail(errno: number): void {
    this.#context.defer(() => this.#end(failure('sending', errno)));
  }

  #end(error: string | null): void {
    if (!this.#open) return;
    this.close();
    this.owner.ended(error);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const { descriptors } of this.#unsent) for (const fd of descriptors) sys.close(fd);
    this.#unsent = [];
    this.#unsentBytes = 0;
    // The kernel's polls hold the socket open for a moment: the peer shall see the end now.
    sys.shutdown(this.#fd);
    this.#readable.stop(() => {});
    this.#writable.stop(() => {});
    // The number may be another file's as soon as it is closed.
    this.#context.ring.submit();
    sys.close(this.#fd);
  }
}

/** Null: the peer has closed. ECONNRESET says that it did so without reading everything. */
function failure(what: string, errno: number): string | null {
  if (errno === EPIPE || errno === ECONNRESET) return null;
  return `${what} failed: errno ${errno}`;
}

function noOwner(): void {
  assert(false, 'a descriptor socket has an owner before its first turn');
}
