import koffi from 'koffi';

/**
 * The few system calls the load client makes, called directly: one send(2) carries many requests and one recv(2)
 * many replies, so that the client costs less than the servers it measures. Addresses are doubles.
 */
const libc = koffi.load('libc.so.6');

const mmap = libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)');
const socket = libc.func('int socket(int, int, int)');
const connectCall = libc.func('int connect(int, const void *, uint32_t)');
const sendCall = libc.func('int64_t send(int, uintptr_t, size_t, int)');
const recvCall = libc.func('int64_t recv(int, uintptr_t, size_t, int)');
const pollCall = libc.func('int poll(uintptr_t, uint64_t, int)');
const setsockopt = libc.func('int setsockopt(int, int, int, const void *, uint32_t)');
const closeCall = libc.func('int close(int)');

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MSG_NOSIGNAL = 0x4000;
const AF_UNIX = 1;
const AF_INET = 2;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000;
const EINTR = 4;

/** Memory that the kernel and TypeScript both reach. */
export class Memory {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(byteLength: number) {
    this.address = Number(mmap(0, byteLength, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0));
    if (this.address < 0) throw new Error(`no memory: ${byteLength} bytes`);
    const buffer = koffi.view(this.address, byteLength);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
  }
}

function fail(call: string): never {
  throw new Error(`${call} failed: errno ${koffi.errno()}`);
}

/** A connected, blocking Unix stream socket. */
export function connectUnix(path: string): number {
  const fd = Number(socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0));
  if (fd < 0) fail('socket');
  const name = Buffer.from(path);
  if (name.length > 107) throw new Error(`socket path too long (107 bytes at most): ${path}`);
  const address = Buffer.alloc(2 + 108);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  if (Number(connectCall(fd, address, address.length)) < 0) fail(`connect to ${path}`);
  return fd;
}

/** A connected, blocking TCP socket to this machine's 127.0.0.1; nothing waits for more before it is sent. */
export function connectTcp(port: number): number {
  const fd = Number(socket(AF_INET, SOCK_STREAM_CLOEXEC, 0));
  if (fd < 0) fail('socket');
  const on = Buffer.alloc(4);
  on.writeInt32LE(1);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, on, on.length);
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt16BE(port, 2);
  address.set([127, 0, 0, 1], 4);
  if (Number(connectCall(fd, address, address.length)) < 0) fail(`connect to port ${port}`);
  return fd;
}

/** Sends all of it, however long that takes. */
export function sendAll(fd: number, address: number, length: number): void {
  let done = 0;
  while (done < length) {
    const count = Number(sendCall(fd, address + done, length - done, MSG_NOSIGNAL));
    if (count > 0) done += count;
    else if (koffi.errno() !== EINTR) fail('send');
  }
}

/** Receives at least one byte. The server closing the connection is an error here. */
export function receive(fd: number, address: number, length: number): number {
  for (;;) {
    const count = Number(recvCall(fd, address, length, 0));
    if (count > 0) return count;
    if (count === 0) throw new Error('the server closed the connection');
    if (koffi.errno() !== EINTR) fail('recv');
  }
}

/** poll(2) without a time limit; `address` is an array of struct pollfd. Returns how many are ready. */
export function poll(address: number, count: number, timeoutMs: number): number {
  for (;;) {
    const ready = Number(pollCall(address, count, timeoutMs));
    if (ready >= 0) return ready;
    if (koffi.errno() !== EINTR) fail('poll');
  }
}

export function closeFd(fd: number): void {
  closeCall(fd);
}
