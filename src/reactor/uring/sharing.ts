import { fstatSync, readlinkSync, type Stats } from 'node:fs';
import { ConfigError, messageOf, ProtocolError } from '../../base/errors.ts';
import type { Region } from '../../block/memory.ts';
import { Completion, type Listener } from '../reactor.ts';
import type { DescriptorSocket, Poller, SharedMemory, Sharing } from '../sharing.ts';
import * as sys from '../sys.ts';
import { acceptOn, connectTo, type SocketContext } from './acceptor.ts';
import { DescriptorMessages } from './descriptor-messages.ts';
import { UringDescriptorSocket, type DescriptorContext } from './descriptor-socket.ts';
import { PollRequest } from './poll-request.ts';
import type { Pollers } from './pollers.ts';
import { IORING_OP, type Ring } from './ring.ts';

const POLLIN = 1;
const POLLOUT = 4;
const POLLHUP = 0x10;
const POLLRDHUP = 0x2000;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
const O_NONBLOCK = 0o4000;
// [memfd_create(2)]
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
// [fcntl(2)]
const F_GETFL = 3;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;
// [statfs(2)]
const HUGETLBFS_MAGIC = 0x958458f6;
const ENOMEM = 12;
const ENFILE = 23;
const EMFILE = 24;

/** How an eventfd is written to; asked once per descriptor. */
const BELL = { NONE: 0, PLAIN: 1, CAREFUL: 2 } as const;
type Bell = (typeof BELL)[keyof typeof BELL];

class Readable extends Completion {
  readonly #readable: () => void;

  constructor(readable: () => void) {
    super();
    this.#readable = readable;
  }

  override complete(): void {
    this.#readable();
  }
}

/** What sharing needs of its reactor. */
export interface SharingContext extends SocketContext {
  readonly pollers: Pollers;
  defer(callback: () => void): void;
}

/** Sharing with other processes, on the ring. */
export class UringSharing implements Sharing, DescriptorContext {
  readonly ring: Ring;
  readonly messages: DescriptorMessages = new DescriptorMessages();
  readonly #context: SharingContext;
  /** Eight bytes that say 1, for eventfds; then memory for direct calls. */
  readonly #one: Region = sys.mapMemory(4096);
  readonly #bells = new Map<number, Bell>();

  constructor(context: SharingContext) {
    this.#context = context;
    this.ring = context.ring;
    this.#one.view.setBigUint64(0, 1n, true);
  }

  defer(callback: () => void): void {
    this.#context.defer(callback);
  }

  hungUp(fd: number): boolean {
    const events = sys.pollNow(fd, POLLRDHUP, this.#context.scratch.region);
    return (events & (POLLRDHUP | POLLHUP)) !== 0;
  }

  arrived(fd: number): void {
    this.#bells.delete(fd);
  }

  listen(path: string, accepted: (socket: DescriptorSocket) => void): Promise<Listener> {
    return acceptOn(this.#context, { kind: 'unix', path }, (fd) =>
      accepted(this.adopt(fd, `unix ${path}`)),
    );
  }

  async connect(path: string): Promise<DescriptorSocket> {
    return this.adopt(await connectTo(this.#context, { kind: 'unix', path }), `unix ${path}`);
  }

  adopt(fd: number, peer: string): DescriptorSocket {
    this.arrived(fd);
    return new UringDescriptorSocket(this, fd, peer);
  }

  pair(): [DescriptorSocket, number] {
    const { region } = this.#context.scratch;
    granted(sys.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, region), 'a socket pair');
    const far = region.view.getInt32(4, true);
    this.arrived(far);
    return [this.adopt(region.view.getInt32(0, true), 'unix pair'), far];
  }

  map(fd: number, lengthBytes: number, offsetBytes: number): SharedMemory {
    const refuse = (why: string): never => {
      const what = `cannot map ${lengthBytes} bytes of a descriptor at ${offsetBytes}`;
      throw new ProtocolError(`${what}: ${why}`, 'mmap(2)');
    };
    const endBytes = offsetBytes + lengthBytes;
    const whole = Number.isSafeInteger(lengthBytes) && Number.isSafeInteger(offsetBytes);
    if (!(whole && lengthBytes > 0 && offsetBytes >= 0 && Number.isSafeInteger(endBytes))) {
      refuse('not a range of a file');
    }
    const stats = statsOf(fd);
    if (stats === null) return refuse('it is not open');
    if (!stats.isFile()) refuse('it is not a file or memory (memfd)');
    if (endBytes > stats.size) refuse(`it has only ${stats.size}`);
    // A file of huge pages is mapped and unmapped in those [mmap(2)]; they are its block size.
    const huge = sys.fileSystemMagic(fd, this.#context.scratch.region) === HUGETLBFS_MAGIC;
    const unit = huge ? stats.blksize : sys.PAGE_BYTES;
    const startBytes = Math.floor(offsetBytes / unit) * unit;
    const mappedBytes = Math.ceil((endBytes - startBytes) / unit) * unit;
    const address = sys.mapRange(fd, mappedBytes, startBytes);
    if (address < 0) refuse(`errno ${-address}`);
    const unmap = (): void => sys.unmapRange(address, mappedBytes);
    try {
      const region = sys.regionAt(address + (offsetBytes - startBytes), lengthBytes);
      return { region, unmap };
    } catch (error) {
      unmap();
      return refuse(messageOf(error));
    }
  }

  create(name: string, lengthBytes: number): { fd: number; memory: SharedMemory } {
    const fd = granted(sys.memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'shared memory');
    try {
      granted(sys.ftruncate(fd, lengthBytes), 'shared memory');
      granted(sys.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW), 'a seal');
      this.arrived(fd);
      return { fd, memory: this.map(fd, lengthBytes, 0) };
    } catch (error) {
      sys.close(fd);
      throw error;
    }
  }

  eventfd(): number {
    const fd = granted(sys.eventfd(EFD_CLOEXEC | EFD_NONBLOCK), 'an eventfd');
    this.#bells.set(fd, BELL.PLAIN);
    return fd;
  }

  /**
   * A plain call: on the ring it costs more, since nothing is waited for (1.2 against 0.7 us), and 30 us for an eventfd
   * that is not O_NONBLOCK. A peer that lets an eventfd's counter run full must not stop us in write(2), though: where
   * the descriptor may wait, poll(2) is asked first.
   */
  signal(fd: number): void {
    const bell = this.#bells.get(fd) ?? this.#bellOf(fd);
    if (bell === BELL.NONE) return;
    if (bell === BELL.CAREFUL) {
      const events = sys.pollNow(fd, POLLOUT, this.#context.scratch.region);
      if ((events & POLLOUT) === 0) return;
    }
    sys.write(fd, this.#one.address, 8);
  }

  #bellOf(fd: number): Bell {
    const flags = sys.fcntl(fd, F_GETFL, 0);
    let bell: Bell = BELL.NONE;
    if (flags >= 0 && isEventfd(fd)) bell = (flags & O_NONBLOCK) === 0 ? BELL.CAREFUL : BELL.PLAIN;
    this.#bells.set(fd, bell);
    return bell;
  }

  /**
   * One multishot poll, which completes at each write, whether the counter was read meanwhile or not: several writes
   * between two turns are one completion, none is lost, and a kick costs no read(2). It ends by itself when the
   * completion queue has overflowed, or when the write came from a ring; armed again it tells at once of a counter
   * above 0. What cannot be polled, a file or /dev/null, would end at once each time: so only eventfds are watched.
   */
  watch(fd: number, rung: () => void): { stop(stopped: () => void): void } {
    if (!isEventfd(fd)) {
      throw new ProtocolError('a descriptor to be rung by is not an eventfd', 'eventfd(2)');
    }
    const poll = new PollRequest(this.ring, fd, POLLIN, true, (result) => {
      // A failed poll would fail again; the kernel gives none for an eventfd that is open.
      if (!poll.armed && result >= 0) poll.arm();
      rung();
    });
    poll.arm();
    return { stop: (stopped) => poll.stop(stopped) };
  }

  whenReadable(fd: number, readable: () => void): void {
    const wait = new Readable(() => {
      this.ring.forget(wait);
      readable();
    });
    this.ring.prepare(wait, IORING_OP.POLL_ADD, fd, 0, 0, 0, POLLIN);
  }

  poll(poller: Poller): () => void {
    return this.#context.pollers.add(poller);
  }

  closeDescriptor(fd: number): void {
    this.#bells.delete(fd);
    sys.close(fd);
  }

  /** Frees what the sockets used. All of them are closed. */
  free(): void {
    this.messages.free();
    sys.unmap(this.#one);
  }
}

/** The result of a call that fails only when the host is out of something. */
function granted(result: number, what: string): number {
  if (result >= 0) return result;
  const errno = -result;
  if (errno === EMFILE || errno === ENFILE) {
    throw new ConfigError(`cannot have ${what}: too many open files`, 'raise ulimit -n');
  }
  const why = errno === ENOMEM ? 'out of memory' : `errno ${errno}`;
  throw new ConfigError(`cannot have ${what}: ${why}`, 'see the limits of this host');
}

function statsOf(fd: number): Stats | null {
  try {
    return fstatSync(fd);
  } catch {
    return null;
  }
}

/** No system call says so; [proc_pid_fd(5)] does. */
function isEventfd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return false;
  }
}
