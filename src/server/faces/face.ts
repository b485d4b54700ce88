import type { Disk } from '../../durability/disk.ts';
import type { VolatileCache } from '../../layers/volatile-cache/volatile-cache.ts';
import type { Reactor, SocketAddress } from '../../reactor/reactor.ts';
import type { DiskConfig, ListenConfig, ServerConfig } from '../config.ts';

// A face is one protocol through which the disks of a server are reached. The data plane knows no more of it than this.

/** A disk that is open, and how it is to be served. */
export interface OpenDisk {
  readonly config: DiskConfig;
  readonly disk: Disk;
  /** There if the disk has a volatile cache that can be lost; it is the Disk's store. */
  readonly volatileCache?: VolatileCache;
}

/** What all faces of a server share. */
export interface FaceContext {
  readonly config: ServerConfig;
  readonly reactor: Reactor;
  /** By export name, in the order in which they were given. */
  readonly disks: ReadonlyMap<string, OpenDisk>;
  /** One line about one client; a flood of them is cut. */
  readonly log: (line: string) => void;
  /** A line that the operator must see. */
  readonly warn: (line: string) => void;
  /** A client of `disk` is about to be served: on every face, those that are gone are ended first (P11). */
  readonly fence: (disk: Disk) => void;
  /** One of the places can get no client any more. */
  readonly placeOver: () => void;
}

/** A place where a face has begun to listen. */
export interface Place {
  readonly address: SocketAddress;
  /** See Served.names. */
  readonly names: readonly string[];
}

/** All listeners and clients of one protocol. */
export interface Face {
  /** Begins to listen at one more place. Throws a ConfigError that says what is wrong with it. */
  listen(where: ListenConfig): Promise<Place>;
  /** Listens no more, answers what was asked, and lets its clients go. Takes a bounded time. */
  stop(): Promise<void>;
  /** Ends the clients of `disk` that are gone though something of theirs still waits (P11). */
  fence(disk: Disk): void;
  /**
   * A simulated power cut of `disk`: before it returns, all its clients are let go hard. Nothing that is in flight, or
   * completes later, is answered, and nothing more is taken from them. Their sessions end; new ones wait in the Disk.
   */
  cut(disk: Disk): void;
}
