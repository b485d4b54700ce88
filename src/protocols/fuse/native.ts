import koffi from 'koffi';

// The system calls of a mount that Node does not have. Linux numbers; failed calls give -errno. They run on the thread pool:
// unmounting waits for what is still to be written, and that goes through the thread that asks for it.

interface Func {
  (...args: unknown[]): number;
  async(...args: unknown[]): void;
}

interface Calls {
  readonly mount: Func;
  readonly umount: Func;
  readonly recvmsg: Func;
  readonly socketpair: Func;
  readonly fcntl: Func;
  readonly open: Func;
  readonly close: Func;
  readonly poll: Func;
}

let loaded: Calls | null = null;

function calls(): Calls {
  if (loaded !== null) return loaded;
  const libc = koffi.load(null);
  loaded = {
    mount: libc.func(
      'int mount(str source, str target, str type, unsigned long flags, str data)',
    ) as unknown as Func,
    umount: libc.func('int umount2(str target, int flags)') as unknown as Func,
    recvmsg: libc.func('int64_t recvmsg(int fd, uint8_t *message, int flags)') as unknown as Func,
    socketpair: libc.func(
      'int socketpair(int domain, int type, int protocol, _Out_ int *fds)',
    ) as unknown as Func,
    // fcntl and open are variadic in C; a variadic int travels like a plain one on the ABIs that Node runs on under Linux.
    open: libc.func('int open(str path, int flags)') as unknown as Func,
    close: libc.func('int close(int fd)') as unknown as Func,
    poll: libc.func(
      'int poll(uint8_t *descriptors, unsigned long count, int timeout)',
    ) as unknown as Func,
    fcntl: libc.func('int fcntl(int fd, int command, int argument)') as unknown as Func,
  };
  return loaded;
}

/** [mount(2)] */
export const MS = { RDONLY: 1, NOSUID: 2, NODEV: 4, NOEXEC: 8 } as const;
/** [umount2(2)] */
export const UMOUNT = { DETACH: 2, NOFOLLOW: 8 } as const;

/** [mount(2)] 0 or -errno. */
export function mount(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string,
): Promise<number> {
  return call(calls().mount, source, target, type, flags, data);
}

/** [umount2(2)] 0 or -errno. */
export function unmount(target: string, flags: number): Promise<number> {
  return call(calls().umount, target, flags);
}

function call(func: Func, ...args: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    func.async(...args, (error: Error | null, result: number) => {
      if (error !== null) reject(error);
      // koffi gives the calling thread the errno of the thread that did the call.
      else resolve(result < 0 ? -koffi.errno() : result);
    });
  });
}

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0o2000001;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const F_SETFL = 4;
const POLLERR = 8;
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

// Descriptors that were not opened by node:fs are not closed by it: a worker keeps account of its own.

/** Opens a device for reading and writing that does not wait: the descriptor, or -errno. */
export function openDevice(path: string): number {
  const fd = calls().open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  return fd < 0 ? -koffi.errno() : fd;
}

/** [close(2)] Of a descriptor that came through this file. */
export function close(fd: number): void {
  calls().close(fd);
}

/** Whether nothing can be read or written there any more [poll(2) POLLERR]: of /dev/fuse, the mount is no more. */
export function isBroken(fd: number): boolean {
  // struct pollfd: fd, events, revents.
  const descriptor = Buffer.alloc(8);
  descriptor.writeInt32LE(fd, 0);
  calls().poll(descriptor, 1, 0);
  return (descriptor.readInt16LE(6) & POLLERR) !== 0;
}

/** Two connected Unix stream sockets. Throws an Error. */
export function socketPair(): readonly [number, number] {
  const fds = [0, 0];
  if (calls().socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, fds) < 0) {
    throw new Error(`socketpair failed: errno ${koffi.errno()}`);
  }
  return fds as unknown as readonly [number, number];
}

/** Reads of `fd` do not wait any more [fcntl(2)]. */
export function setNonBlocking(fd: number): void {
  calls().fcntl(fd, F_SETFL, O_NONBLOCK);
}

/** Waits for one message with one descriptor beside it [unix(7) SCM_RIGHTS]. Null: the socket was closed without. */
export async function receiveDescriptor(socket: number): Promise<number | null> {
  // struct msghdr with one iovec of one byte, and room for one cmsghdr with one descriptor [recvmsg(2)].
  const memory = Buffer.alloc(128);
  const address = koffi.address(memory);
  const IOVEC = 56;
  const BYTE = 72;
  const CONTROL = 80;
  memory.writeBigUInt64LE(address + BigInt(IOVEC), 16);
  memory.writeBigUInt64LE(1n, 24);
  memory.writeBigUInt64LE(address + BigInt(CONTROL), 32);
  memory.writeBigUInt64LE(24n, 40);
  memory.writeBigUInt64LE(address + BigInt(BYTE), IOVEC);
  memory.writeBigUInt64LE(1n, IOVEC + 8);
  const received = await call(calls().recvmsg, socket, memory, MSG_CMSG_CLOEXEC);
  const controlBytes = memory.readBigUInt64LE(40);
  if (received < 1 || controlBytes < 20n) return null;
  const level = memory.readInt32LE(CONTROL + 8);
  const type = memory.readInt32LE(CONTROL + 12);
  return level === SOL_SOCKET && type === SCM_RIGHTS ? memory.readInt32LE(CONTROL + 16) : null;
}
