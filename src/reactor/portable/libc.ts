import { createRequire } from 'node:module';

// The few system calls that Node does not offer, through koffi where it loads (Linux). Everything here is an extra: the
// portable reactor runs without it, and says so by its answers (-EOPNOTSUPP, no alignment, "all data").

/** Linux system calls. Results are counts or -errno. */
export interface Libc {
  /** [lseek(2)] */
  lseek(fd: number, offset: number, whence: number): number;
  /** [fallocate(2)], on the thread pool. */
  fallocate(fd: number, mode: number, offset: number, length: number, done: Result): void;
  /** [posix_fadvise(2)], on the thread pool. */
  fadvise(fd: number, offset: number, length: number, advice: number, done: Result): void;
  /** [poll(2)] of one descriptor without waiting: revents. */
  pollNow(fd: number, events: number): number;
  /** [poll(2)] Waits, blocking the thread, until one of two descriptors can be read or is broken. */
  waitReadable(fd: number, other: number): void;
  /** [socketpair(2)]: two connected Unix stream sockets, close-on-exec. Throws. */
  socketpair(): readonly [number, number];
  /** [fcntl(2)] F_DUPFD_CLOEXEC: another descriptor of the same open file. Throws. */
  duplicate(fd: number): number;
  /** [close(2)] */
  close(fd: number): void;
  /** Where the kernel sees byte 0 of an array. */
  addressOf(bytes: Uint8Array): number;
}

export type Result = (result: number) => void;

interface Func {
  (...args: unknown[]): number;
  async(...args: unknown[]): void;
}

interface Koffi {
  load(path: string | null): { func(prototype: string): Func };
  errno(): number;
  address(value: Uint8Array): bigint;
}

/** What is available, or null: another system, or no koffi. Looked up once. */
export function libcOrNull(): Libc | null {
  loaded ??= { libc: load() };
  return loaded.libc;
}

let loaded: { readonly libc: Libc | null } | undefined;

function load(): Libc | null {
  if (process.platform !== 'linux') return null;
  let koffi: Koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi') as Koffi;
  } catch {
    return null;
  }
  return bind(koffi);
}

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0o2000001;
const F_DUPFD_CLOEXEC = 1030;
const POLLIN = 1;

function bind(koffi: Koffi): Libc {
  const libc = koffi.load(null);
  const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
  const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
  const fadvise = libc.func(
    'int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)',
  );
  const poll = libc.func('int poll(void *fds, size_t count, int timeout)');
  const socketpair = libc.func('int socketpair(int domain, int type, int protocol, void *fds)');
  const fcntl = libc.func('int fcntl(int fd, int command, int argument)');
  const close = libc.func('int close(int fd)');
  const calls = new AsyncCalls();
  const pollfd = Buffer.alloc(8);
  const checked = (result: number): number => (result < 0 ? -koffi.errno() : result);
  return {
    lseek: (fd, offset, whence) => checked(lseek(fd, offset, whence)),
    fallocate: (fd, mode, offset, length, done) => {
      // koffi gives the calling thread the errno of the thread that did the call.
      calls.run(fallocate, [fd, mode, offset, length], (result) => done(checked(result)));
    },
    fadvise: (fd, offset, length, advice, done) => {
      // posix_fadvise returns the error itself, positive.
      calls.run(fadvise, [fd, offset, length, advice], (result) =>
        done(result === 0 ? 0 : -result),
      );
    },
    pollNow: (fd, events) => {
      pollfd.writeInt32LE(fd, 0);
      pollfd.writeInt16LE(events, 4);
      pollfd.writeInt16LE(0, 6);
      return poll(pollfd, 1, 0) <= 0 ? 0 : pollfd.readInt16LE(6);
    },
    waitReadable: (fd, other) => {
      const fds = Buffer.alloc(16);
      fds.writeInt32LE(fd, 0);
      fds.writeInt16LE(POLLIN, 4);
      fds.writeInt32LE(other, 8);
      fds.writeInt16LE(POLLIN, 12);
      // A signal ends it early, which is one look in vain.
      poll(fds, 2, -1);
    },
    socketpair: () => {
      const fds = Buffer.alloc(8);
      const result = checked(socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, fds));
      if (result < 0) throw new Error(`socketpair failed: errno ${-result}`);
      return [fds.readInt32LE(0), fds.readInt32LE(4)];
    },
    duplicate: (fd) => {
      const result = checked(fcntl(fd, F_DUPFD_CLOEXEC, 0));
      if (result < 0) throw new Error(`a descriptor cannot be duplicated: errno ${-result}`);
      return result;
    },
    close: (fd) => void close(fd),
    addressOf: (bytes) => Number(koffi.address(bytes)),
  };
}

/** koffi refuses more than 256 asynchronous calls at once, and libuv's pool has four threads: the rest waits here. */
class AsyncCalls {
  static readonly #LIMIT = 8;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  run(func: Func, args: readonly number[], done: Result): void {
    const start = (): void => {
      this.#running += 1;
      func.async(...args, (error: Error | null, result: number) => {
        this.#running -= 1;
        this.#waiting.shift()?.();
        if (error !== null) throw error;
        done(result);
      });
    };
    if (this.#running < AsyncCalls.#LIMIT) start();
    else this.#waiting.push(start);
  }
}
