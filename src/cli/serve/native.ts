import koffi from 'koffi';

// The few system calls of the server's process life that Node has no API for. Linux numbers.

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const PR_SET_PDEATHSIG = 1;
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;
/** [unix(7)] sun_path. */
const SUN_PATH_BYTES = 108;

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const sendto = libc.func(
  'int64_t sendto(int fd, const uint8_t *bytes, size_t length, int flags, const uint8_t *address, int addressLength)',
);
const close = libc.func('int close(int fd)');
// Variadic in C; a variadic int travels like a plain one on the ABIs that Node runs on under Linux.
const fcntl = libc.func('int fcntl(int fd, int command, int argument)');
const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int option, _Out_ int *value, _Inout_ int *length)',
);
const prctl = libc.func('int prctl(int option, unsigned long argument)');

/** Sends one datagram to a Unix socket; a leading @ names an abstract one. Returns 0 or the errno. */
export function sendDatagram(path: string, text: string): number {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  if (name.length >= SUN_PATH_BYTES) return 36; // ENAMETOOLONG
  const address = Buffer.alloc(2 + name.length + (name[0] === 0 ? 0 : 1));
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  const fd = socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0) as number;
  if (fd < 0) return koffi.errno();
  const bytes = Buffer.from(text);
  const sent: unknown = sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, address.length);
  const errno = Number(sent) < 0 ? koffi.errno() : 0;
  close(fd);
  return errno;
}

/** Whether a descriptor is a socket on which connections are accepted. [socket(7) SO_ACCEPTCONN] */
export function isListening(fd: number): boolean {
  const value: number[] = [0];
  const result: unknown = getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, value, [4]);
  return result === 0 && value[0] === 1;
}

/** Whether a descriptor is open, and is a socket. */
export function isSocket(fd: number): boolean {
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, [0], [4]) === 0;
}

/** Keeps a descriptor that is open out of the programs that this process starts. */
export function closeOnExec(fd: number): void {
  fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/** The kernel will send `signal` when the parent ends. [PR_SET_PDEATHSIG(2const)] Returns 0 or the errno. */
export function signalOnParentDeath(signal: number): number {
  return (prctl(PR_SET_PDEATHSIG, signal) as number) < 0 ? koffi.errno() : 0;
}
