import type { Region } from '../block/memory.ts';
import type { Listener } from './reactor.ts';

/** Memory of a descriptor, mapped shared: what the other side writes is seen at once, and the other way round. */
export interface SharedMemory {
  readonly region: Region;
  /** Gives the mapping back. No view of the region is touched any more, no request of the kernel's uses it. */
  unmap(): void;
}

/** What a descriptor socket tells its owner. */
export interface DescriptorSocketOwner {
  /**
   * Bytes arrived, and beside their first byte these descriptors. The bytes are the owner's to keep; every descriptor
   * is the owner's to close.
   */
  received(bytes: Uint8Array, descriptors: readonly number[]): void;
  /** The peer has closed (null), or the connection broke: why. Nothing follows. */
  ended(error: string | null): void;
}

/**
 * A connected Unix stream socket that carries descriptors beside bytes [unix(7) SCM_RIGHTS]. Control traffic: few and
 * small messages, so it allocates per message.
 */
export interface DescriptorSocket {
  /** Set before the reactor's next turn. */
  owner: DescriptorSocketOwner;
  /** For messages: "unix /run/x.sock". */
  readonly peer: string;
  /** Sends all of it, in order, waiting inside for room. The descriptors stay the caller's: they are duplicated. */
  send(bytes: Uint8Array, descriptors?: readonly number[]): void;
  /** Receives nothing for now (a message is being worked on), or again. The end is not seen meanwhile, either. */
  pause(paused: boolean): void;
  /** Whether the peer is already gone, though what it sent may still wait, or the socket be paused (POLLRDHUP). */
  peerGone(): boolean;
  /** Ends it. `ended` is not called any more. */
  close(): void;
}

/** Work that arrives in shared memory, without a system call: virtqueues. */
export interface Poller {
  /** Whether work waits. Asked often while the reactor spins: a few loads. */
  ready(): boolean;
  /** Takes the work. Called once per turn when `ready`, before the turn's requests are handed to the kernel. */
  poll(): void;
  /** The reactor is about to sleep: the other side must ring from now on. True if work has come meanwhile. */
  arm(): boolean;
  /** The reactor works again: ringing is not needed. Only after `arm`. */
  disarm(): void;
}

/**
 * What sharing memory and descriptors with another process takes: vhost-user, vfio-user. Only where the reactor has it
 * (`Reactor.sharing`): Linux with io_uring, 5.13 or later.
 */
export interface Sharing {
  /** Throws a ConfigError when the path cannot be bound, as Reactor.listen. */
  listen(path: string, accepted: (socket: DescriptorSocket) => void): Promise<Listener>;
  /** Rejects with a SocketError (`code` ENOENT, ECONNREFUSED) when nobody listens. */
  connect(path: string): Promise<DescriptorSocket>;
  /** A connected socket that somebody else made (socketpair, --fd). It is the socket's from now on. */
  adopt(fd: number, peer: string): DescriptorSocket;
  /** Both ends of a new connection. */
  pair(): [DescriptorSocket, number];
  /**
   * Maps `lengthBytes` of `fd` from `offsetBytes` (any, not only multiples of a page). Throws a ProtocolError when the
   * file is shorter (touching it would kill the process, SIGBUS) or the kernel refuses. The descriptor stays open. A
   * file that is not sealed can still be made shorter by its owner later: whose memory is mapped is trusted that far.
   */
  map(fd: number, lengthBytes: number, offsetBytes: number): SharedMemory;
  /** New zeroed memory that can be passed on: memfd_create(2), sealed against shrinking. The caller closes `fd`. */
  create(name: string, lengthBytes: number): { fd: number; memory: SharedMemory };
  /** eventfd(2), close-on-exec and non-blocking. */
  eventfd(): number;
  /**
   * Adds 1 to an eventfd: rings whoever waits for it. Errors are ignored: the other side is gone, or rung already, or
   * gave something that is no eventfd.
   */
  signal(fd: number): void;
  /**
   * Calls `rung` in a turn after every ring of the eventfd, until `stop`; several rings may be one call. The descriptor
   * stays the caller's, and may be closed once `stopped` was called.
   */
  watch(fd: number, rung: () => void): { stop(stopped: () => void): void };
  /**
   * Calls `readable` once, in a turn after a descriptor can be read (poll(2)): of a process (pidfd_open(2)), when it has
   * ended. The descriptor stays the caller's, and open until then.
   */
  whenReadable(fd: number, readable: () => void): void;
  /** Has `poller` looked at in every turn. Returns how to end that. */
  poll(poller: Poller): () => void;
  /** Closes a descriptor that came through this interface: all of them are closed this way. */
  closeDescriptor(fd: number): void;
}
