import { assert } from '../../base/assert.ts';
import type { Region } from '../../block/memory.ts';
import * as sys from '../sys.ts';

const MSG_PEEK = 2;
const MSG_CTRUNC = 8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

// struct msghdr, struct iovec and struct cmsghdr of 64-bit Linux [recvmsg(2), cmsg(3)].
const CMSGHDR_BYTES = 16;
const MSG_IOV = 16;
const MSG_IOVLEN = 24;
const MSG_CONTROL = 32;
const MSG_CONTROLLEN = 40;
const MSG_FLAGS = 48;

/** What one message brings at most. vhost-user sends up to 8 [vhost-user "Communication"]. */
export const RECEIVED_DESCRIPTORS_MAX = 32;
/** [unix(7)] SCM_MAX_FD. */
const SENT_DESCRIPTORS_MAX = 253;

// Where things lie in the memory of this class.
const HEADER = 0;
const IOVEC = 64;
const CONTROL = 128;
const CONTROL_BYTES = controlBytes(SENT_DESCRIPTORS_MAX);
const DATA = 4096;
/** The most that one call receives or sends. */
const DATA_BYTES = 16 * 1024;

/** recvmsg and sendmsg with descriptors beside the bytes [unix(7) SCM_RIGHTS]. One for all sockets of a thread. */
export class DescriptorMessages {
  readonly #region: Region = sys.mapMemory(DATA + DATA_BYTES);
  /** What the last `receive` brought. */
  readonly descriptors: number[] = [];
  /** The last `receive` could not bring all descriptors: more than fit, or this process may not have more. */
  truncated = false;
  /** Descriptors lie somewhere in or after what the last `peek` saw. */
  descriptorsAhead = false;

  free(): void {
    sys.unmap(this.#region);
  }

  /** How many bytes wait, at most DATA_BYTES; 0 when the peer has closed, or -errno. Takes nothing. */
  peek(fd: number): number {
    this.#header(DATA_BYTES, 0);
    const result = sys.recvmsg(fd, this.#region.address, MSG_DONTWAIT | MSG_PEEK);
    // With no room for them, waiting descriptors are not duplicated, only told of.
    this.descriptorsAhead = (this.#region.view.getInt32(MSG_FLAGS, true) & MSG_CTRUNC) !== 0;
    return result;
  }

  /** Takes up to `length` bytes, and the descriptors beside them. The count, 0 at the end, or -errno. */
  receive(fd: number, length: number): number {
    this.#header(length, controlBytes(RECEIVED_DESCRIPTORS_MAX));
    this.descriptors.length = 0;
    this.truncated = false;
    const result = sys.recvmsg(fd, this.#region.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (result < 0) return result;
    this.truncated = (this.#region.view.getInt32(MSG_FLAGS, true) & MSG_CTRUNC) !== 0;
    this.#readControl();
    return result;
  }

  /** A copy of the first bytes that the last `receive` brought. */
  bytes(count: number): Uint8Array {
    return this.#region.bytes.slice(DATA, DATA + count);
  }

  /** Sends what the socket takes now of `bytes`, at most DATA_BYTES, with all descriptors. The count, or -errno. */
  send(fd: number, bytes: Uint8Array, descriptors: readonly number[]): number {
    assert(bytes.length > 0, 'descriptors travel beside bytes');
    assert(descriptors.length <= SENT_DESCRIPTORS_MAX, 'too many descriptors for one message');
    const length = Math.min(bytes.length, DATA_BYTES);
    this.#region.bytes.set(bytes.subarray(0, length), DATA);
    this.#header(length, descriptors.length === 0 ? 0 : controlBytes(descriptors.length));
    const { view } = this.#region;
    view.setBigUint64(CONTROL, BigInt(CMSGHDR_BYTES + 4 * descriptors.length), true);
    view.setInt32(CONTROL + 8, SOL_SOCKET, true);
    view.setInt32(CONTROL + 12, SCM_RIGHTS, true);
    descriptors.forEach((descriptor, i) => {
      view.setInt32(CONTROL + CMSGHDR_BYTES + 4 * i, descriptor, true);
    });
    return sys.sendmsg(fd, this.#region.address, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  #header(dataBytes: number, controlLength: number): void {
    const { view, bytes } = this.#region;
    bytes.fill(0, 0, CONTROL + CONTROL_BYTES);
    this.#pointer(HEADER + MSG_IOV, IOVEC);
    view.setUint32(HEADER + MSG_IOVLEN, 1, true);
    this.#pointer(IOVEC, DATA);
    view.setUint32(IOVEC + 8, dataBytes, true);
    if (controlLength === 0) return;
    this.#pointer(HEADER + MSG_CONTROL, CONTROL);
    view.setUint32(HEADER + MSG_CONTROLLEN, controlLength, true);
  }

  #pointer(at: number, target: number): void {
    this.#region.view.setBigUint64(at, BigInt(this.#region.address + target), true);
  }

  #readControl(): void {
    const { view } = this.#region;
    const end = CONTROL + view.getUint32(MSG_CONTROLLEN, true);
    let at = CONTROL;
    while (at + CMSGHDR_BYTES <= end) {
      const length = view.getUint32(at, true);
      if (length < CMSGHDR_BYTES) return;
      const level = view.getInt32(at + 8, true);
      const type = view.getInt32(at + 12, true);
      if (level === SOL_SOCKET && type === SCM_RIGHTS) {
        for (let i = at + CMSGHDR_BYTES; i + 4 <= at + length; i += 4) {
          this.descriptors.push(view.getInt32(i, true));
        }
      }
      at += aligned(length);
    }
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

/** CMSG_SPACE [cmsg(3)] of so many descriptors. */
function controlBytes(descriptors: number): number {
  return CMSGHDR_BYTES + aligned(4 * descriptors);
}
