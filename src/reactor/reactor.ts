import type { Timers } from '../base/clock.ts';
import type { Region, Segments } from '../block/memory.ts';
import type { PagePool } from './page-pool.ts';
import type { Sharing } from './sharing.ts';

/**
 * One system request in flight, embedded in whoever waits for it and reused: no allocation per request. A Completion
 * is in flight at most once at a time.
 */
export abstract class Completion {
  /** The reactor's place for it, given at first use. */
  slot = -1;
  /** The result as the kernel gives it: 0 or a count, or a negated errno. */
  abstract complete(result: number): void;
}

/** How the reactor may do a file's requests; found by probing the file once (`Reactor.probeFile`). */
export interface FileTraits {
  /** A read cannot wait for a drive (memory file systems): do it at once. */
  readonly inlineRead: boolean;
  /** A write cannot wait for a drive (memory file systems): do it at once. */
  readonly inlineWrite: boolean;
  /** RWF_DSYNC works: one write can be made stable by itself. */
  readonly dsync: boolean;
}

export const FALLOCATE = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 16 } as const;

/** Requests on open files. Offsets and lengths in bytes. All complete with a count or -errno; reads can be short. */
export interface Files {
  probeFile(fd: number): FileTraits;
  /** Fills `segments` from byte `skip` of them on, from the file's byte `offset`. */
  read(
    done: Completion,
    fd: number,
    traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
  ): void;
  /** `dsync`: stable on completion (RWF_DSYNC); only where traits.dsync. */
  write(
    done: Completion,
    fd: number,
    traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
    dsync: boolean,
  ): void;
  /** fdatasync(2). */
  datasync(done: Completion, fd: number): void;
  /** fallocate(2) with a mode of FALLOCATE bits; -EOPNOTSUPP where the host has none. */
  allocate(done: Completion, fd: number, mode: number, offset: number, length: number): void;
  /** posix_fadvise(POSIX_FADV_WILLNEED): starts reading ahead, waits for nothing. */
  willNeed(done: Completion, fd: number, offset: number, length: number): void;
  /** lseek(2) SEEK_DATA: the next byte with data at or after `offset`, -ENXIO (-6) when there is none. */
  seekData(fd: number, offset: number): number;
  /** lseek(2) SEEK_HOLE. */
  seekHole(fd: number, offset: number): number;
}

/** What a stream tells its owner. One receive and one send can be outstanding. */
export interface StreamOwner {
  /** `count` bytes arrived where `receive` said; 0: the peer closed; negative: -errno. */
  received(count: number): void;
  /** All of the segments handed to `send` are with the kernel; the memory is the owner's again. Or -errno. */
  sent(result: number): void;
}

/** A connected byte stream: TCP or Unix. */
export interface Stream {
  /** Set before the first receive or send. */
  owner: StreamOwner;
  /** For messages: "tcp 127.0.0.1:4711", "unix /run/x.sock". */
  readonly peer: string;
  /** Takes what has arrived, at least one byte, at most `length`, into `region` at `start`. */
  receive(region: Region, start: number, length: number): void;
  /** Sends all segments in order. They and their memory stay untouched until `sent`. */
  send(segments: Segments): void;
  /** This end of a TCP connection, "192.0.2.1:3260" or "[2001:db8::1]:3260"; null where there is no such name. */
  local?(): string | null;
  /** Whether the peer is already gone, though bytes it sent may still wait (POLLRDHUP). */
  peerGone(): boolean;
  /**
   * Ends the connection both ways. An outstanding receive or send still completes (with 0 or an error), then `closed`
   * is called; from then on nothing of the stream touches memory.
   */
  close(closed: () => void): void;
  /**
   * Hands the raw descriptor over to TLS: from the next receive on, bytes are the plain text. Called between a
   * completed send and the next receive; `ready` gets null, or why the handshake failed.
   */
  startTls(settings: TlsSettings, ready: (error: string | null) => void): void;
}

/** Keys and certificates as PEM text, or keys shared beforehand: one of the two (src/reactor/tls-credentials.ts). */
export interface TlsSettings {
  readonly x509?: {
    /** With its chain. A server needs both, a client may have none: ''. */
    readonly certPem: string;
    readonly keyPem: string;
    /** Absent: the authorities that Node trusts. */
    readonly caPem?: string;
    /** Revoked certificates. */
    readonly crlPem?: string;
    /** A peer without a certificate signed by the CA is refused; a client checks the host name too. */
    readonly verifyPeer: boolean;
  };
  /** User name to key. A client uses the first entry. */
  readonly psk?: ReadonlyMap<string, Uint8Array>;
  /** Present: this end is the client, and `hostname` is who the server's certificate must name. */
  readonly client?: { readonly hostname: string };
}

export type SocketAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  /** Already bound and listening: socket activation. */
  | { readonly kind: 'fd'; readonly fd: number };

export interface Listener {
  /** Where it listens: port 0 is replaced by what the kernel chose. */
  readonly address: SocketAddress;
  close(): Promise<void>;
}

/** Waits until a descriptor that is neither file nor socket can be read: /dev/fuse. */
export interface ReadableWatch {
  /** Calls back once, later, when there is something to read or the descriptor is broken. Harmless when armed already. */
  arm(): void;
  /** No call-back follows. Once `stopped` was called the descriptor may be closed. */
  stop(stopped: () => void): void;
}

/** The kernel as Holdfast sees it. One per data-plane thread; two implementations, chosen by `openReactor`. */
export interface Reactor extends Timers {
  readonly kind: 'io_uring' | 'portable';
  readonly files: Files;
  /** Page-aligned memory for payloads. */
  readonly pool: PagePool;
  /** Memory and descriptors shared with other processes; null where that cannot be had (the portable reactor). */
  readonly sharing: Sharing | null;
  listen(address: SocketAddress, accepted: (stream: Stream) => void): Promise<Listener>;
  connect(address: SocketAddress): Promise<Stream>;
  /** `fd` stays the caller's, and is non-blocking. What is read from it goes through `files`. */
  watchReadable(fd: number, readable: () => void): ReadableWatch;
  /** Runs `callback` after the current batch: how a part avoids reacting inside another's call. */
  defer(callback: () => void): void;
  /** Frees the rings and memory. Everything opened through it is closed first. */
  close(): Promise<void>;
}
