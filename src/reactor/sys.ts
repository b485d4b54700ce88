import koffi from 'koffi';
import { Region } from '../block/memory.ts';

// System calls of Linux through koffi. Addresses are doubles (user space is below 2^47), descriptors are ints.
// A failed call returns -errno, as the kernel itself does, so that callers handle one form.

type Call = (...args: number[]) => number;

const libc = koffi.load(null);
const define = (prototype: string): Call => libc.func(prototype);

const raw = {
  mmap: define(
    'int64_t mmap(int64_t address, size_t length, int prot, int flags, int fd, int64_t offset)',
  ),
  munmap: define('int munmap(int64_t address, size_t length)'),
  // syscall(2) is variadic in C; on every Linux ABI Node runs on, integers travel in the same registers.
  syscall: define(
    'int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f)',
  ),
  pread: define('int64_t pread(int fd, int64_t address, size_t length, int64_t offset)'),
  pwrite: define('int64_t pwrite(int fd, int64_t address, size_t length, int64_t offset)'),
  preadv2: define('int64_t preadv2(int fd, int64_t iov, int count, int64_t offset, int flags)'),
  pwritev2: define('int64_t pwritev2(int fd, int64_t iov, int count, int64_t offset, int flags)'),
  lseek: define('int64_t lseek(int fd, int64_t offset, int whence)'),
  socket: define('int socket(int domain, int type, int protocol)'),
  bind: define('int bind(int fd, int64_t address, int length)'),
  listen: define('int listen(int fd, int backlog)'),
  connect: define('int connect(int fd, int64_t address, int length)'),
  getsockname: define('int getsockname(int fd, int64_t address, int64_t length)'),
  getpeername: define('int getpeername(int fd, int64_t address, int64_t length)'),
  setsockopt: define('int setsockopt(int fd, int level, int name, int64_t value, int length)'),
  shutdown: define('int shutdown(int fd, int how)'),
  poll: define('int poll(int64_t fds, int64_t count, int timeout)'),
  close: define('int close(int fd)'),
  fstatfs: define('int fstatfs(int fd, int64_t address)'),
  write: define('int64_t write(int fd, int64_t address, size_t length)'),
  recvmsg: define('int64_t recvmsg(int fd, int64_t message, int flags)'),
  sendmsg: define('int64_t sendmsg(int fd, int64_t message, int flags)'),
  socketpair: define('int socketpair(int domain, int type, int protocol, int64_t address)'),
  eventfd: define('int eventfd(uint32_t initial, int flags)'),
  ftruncate: define('int ftruncate(int fd, int64_t length)'),
  // Variadic in C, as syscall above; the argument of every command used here is an integer.
  fcntl: define('int fcntl(int fd, int command, int64_t argument)'),
  getpagesize: define('int getpagesize()'),
};

const memfdCreateRaw = libc.func('int memfd_create(const char *name, uint32_t flags)') as (
  name: string,
  flags: number,
) => number;

function checked(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_POPULATE = 0x8000;
const MAP_PRIVATE_ANONYMOUS = 0x22;

/** Maps a descriptor's memory (io_uring's rings). Throws: a ring that cannot be mapped is no ring. */
export function mapShared(fd: number, length: number, offset: number): Region {
  const address = checked(
    raw.mmap(0, length, PROT_READ_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset),
  );
  if (address < 0) throw new Error(`mmap of ${length} bytes failed: errno ${-address}`);
  return new Region(address, koffi.view(BigInt(address), length));
}

/** Page-aligned zeroed memory, never freed before the process ends. */
export function mapMemory(length: number): Region {
  const address = checked(raw.mmap(0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0));
  if (address < 0) throw new Error(`mmap of ${length} bytes failed: errno ${-address}`);
  return new Region(address, koffi.view(BigInt(address), length));
}

/** Gives a mapping back. The Region's views must not be touched any more. */
export function unmap(region: Region): void {
  unmapRange(region.address, region.bytes.length);
}

/** The unit of mappings in bytes. */
export const PAGE_BYTES: number = raw.getpagesize();

/** Maps a descriptor's memory, read-write and shared, page by page on demand. Its address, or -errno. */
export function mapRange(fd: number, length: number, offset: number): number {
  return checked(raw.mmap(0, length, PROT_READ_WRITE, MAP_SHARED, fd, offset));
}

export function unmapRange(address: number, length: number): void {
  raw.munmap(address, length);
}

/** Memory at an address, as TypeScript sees it. Throws a RangeError when it is larger than an ArrayBuffer may be. */
export function regionAt(address: number, length: number): Region {
  return new Region(address, koffi.view(BigInt(address), length));
}

// [io_uring_setup(2)], [io_uring_enter(2)]: numbers are the same on all architectures since Linux 5.1.
const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;

export function ioUringSetup(entries: number, paramsAddress: number): number {
  return checked(raw.syscall(SYS_IO_URING_SETUP, entries, paramsAddress, 0, 0, 0, 0));
}

export function ioUringEnter(
  fd: number,
  submit: number,
  wait: number,
  flags: number,
  argument: number,
  argumentBytes: number,
): number {
  return checked(raw.syscall(SYS_IO_URING_ENTER, fd, submit, wait, flags, argument, argumentBytes));
}

export function pread(fd: number, address: number, length: number, offset: number): number {
  return checked(raw.pread(fd, address, length, offset));
}

export function pwrite(fd: number, address: number, length: number, offset: number): number {
  return checked(raw.pwrite(fd, address, length, offset));
}

export function preadv2(
  fd: number,
  iov: number,
  count: number,
  offset: number,
  flags: number,
): number {
  return checked(raw.preadv2(fd, iov, count, offset, flags));
}

export function pwritev2(
  fd: number,
  iov: number,
  count: number,
  offset: number,
  flags: number,
): number {
  return checked(raw.pwritev2(fd, iov, count, offset, flags));
}

export function lseek(fd: number, offset: number, whence: number): number {
  return checked(raw.lseek(fd, offset, whence));
}

export function socket(domain: number, type: number): number {
  return checked(raw.socket(domain, type, 0));
}

export function bind(fd: number, address: Region, length: number): number {
  return checked(raw.bind(fd, address.address, length));
}

export function listen(fd: number, backlog: number): number {
  return checked(raw.listen(fd, backlog));
}

/** Fills `address` (at least 128 bytes) and returns its length. */
export function getsockname(fd: number, address: Region): number {
  return nameOf(raw.getsockname, fd, address);
}

export function getpeername(fd: number, address: Region): number {
  return nameOf(raw.getpeername, fd, address);
}

function nameOf(call: Call, fd: number, address: Region): number {
  const lengthAt = address.bytes.length - 4;
  address.view.setUint32(lengthAt, lengthAt, true);
  const result = checked(call(fd, address.address, address.address + lengthAt));
  return result < 0 ? result : address.view.getUint32(lengthAt, true);
}

/** An int option. `scratch` holds at least 4 bytes. */
export function setsockopt(
  fd: number,
  level: number,
  name: number,
  value: number,
  scratch: Region,
): number {
  scratch.view.setInt32(0, value, true);
  return checked(raw.setsockopt(fd, level, name, scratch.address, 4));
}

export function shutdown(fd: number): number {
  return checked(raw.shutdown(fd, 2));
}

/** poll(2) of one descriptor without waiting: its revents. `scratch` holds at least 8 bytes. */
export function pollNow(fd: number, events: number, scratch: Region): number {
  scratch.view.setInt32(0, fd, true);
  scratch.view.setInt16(4, events, true);
  scratch.view.setInt16(6, 0, true);
  const result = checked(raw.poll(scratch.address, 1, 0));
  return result <= 0 ? 0 : scratch.view.getInt16(6, true);
}

export function close(fd: number): number {
  return checked(raw.close(fd));
}

/** This thread's Node event loop, as far as a loop above it must know it. */
export interface EventLoop {
  /** The epoll descriptor in which it waits: readable when it has something to do. */
  readonly fd: number;
  /** Milliseconds until its next timer, -1 when there is none. */
  timeoutMs(): number;
}

/** Node-API gives the loop, libuv the rest; both are part of every Node binary's exported symbols. */
export function eventLoop(): EventLoop {
  const getLoop = libc.func('int napi_get_uv_event_loop(void *env, _Out_ int64_t *loop)');
  const loop: unknown[] = [0];
  if (getLoop(koffi.node.env, loop) !== 0) throw new Error('this thread has no event loop');
  const address = Number(loop[0]);
  const timeout = define('int uv_backend_timeout(int64_t loop)');
  return {
    fd: define('int uv_backend_fd(int64_t loop)')(address),
    timeoutMs: () => timeout(address),
  };
}

export function write(fd: number, address: number, length: number): number {
  return checked(raw.write(fd, address, length));
}

/** [recvmsg(2)] with a struct msghdr at `message`. */
export function recvmsg(fd: number, message: number, flags: number): number {
  return checked(raw.recvmsg(fd, message, flags));
}

/** [sendmsg(2)] */
export function sendmsg(fd: number, message: number, flags: number): number {
  return checked(raw.sendmsg(fd, message, flags));
}

/** Both ends go to the first 8 bytes of `scratch`. */
export function socketpair(domain: number, type: number, scratch: Region): number {
  return checked(raw.socketpair(domain, type, 0, scratch.address));
}

export function eventfd(flags: number): number {
  return checked(raw.eventfd(0, flags));
}

export function memfdCreate(name: string, flags: number): number {
  return checked(memfdCreateRaw(name, flags));
}

export function ftruncate(fd: number, length: number): number {
  return checked(raw.ftruncate(fd, length));
}

/** [fcntl(2)] with an integer argument. */
export function fcntl(fd: number, command: number, argument: number): number {
  return checked(raw.fcntl(fd, command, argument));
}

/** The file system's magic number [statfs(2)]. `scratch` holds at least 128 bytes. */
export function fileSystemMagic(fd: number, scratch: Region): number {
  const result = checked(raw.fstatfs(fd, scratch.address));
  return result < 0 ? 0 : scratch.view.getUint32(0, true);
}
