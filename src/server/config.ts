import type { DiskTally } from '../durability/disk-counters.ts';
import type { CacheMode, SyncErrorPolicy } from '../durability/modes.ts';
import type { SocketAddress, TlsSettings } from '../reactor/reactor.ts';

/** One disk to serve, as the command line or an embedder describes it. */
export interface DiskConfig {
  /** A raw image file or a block device; `memory:SIZE` for a disk in memory. */
  readonly disk: string;
  /** The NBD export name; '' is the default export. */
  readonly exportName: string;
  readonly description: string;
  readonly cache: CacheMode;
  readonly readOnly: boolean;
  readonly onSyncError: SyncErrorPolicy;
  /**
   * The disk gets a simulated volatile write cache of so many bytes, and `Server.cutPower` can lose what is in it. Absent:
   * no such thing.
   */
  readonly volatileCacheBytes?: number;
}

/** A place where all disks are served over NBD. */
export interface NbdListen {
  readonly protocol: 'nbd';
  readonly address: SocketAddress;
}

/** A place where one disk is a virtio-blk device over vhost-user. Needs the io_uring reactor. */
export interface VhostUserBlkListen {
  readonly protocol: 'vhost-user-blk';
  /** A path, or a descriptor that is connected to a front-end already. */
  readonly address: Exclude<SocketAddress, { readonly kind: 'tcp' }>;
  /** The export name of the disk. */
  readonly exportName: string;
  /** The most queues, also what `num_queues` says: 1 to MAX_QUEUES; absent: DEFAULT_QUEUES. */
  readonly queues?: number;
  /** What GET_ID answers: at most 20 bytes of printable ASCII. Absent: made of the disk's name. */
  readonly serial?: string;
  /** Offers VIRTIO_BLK_F_REQ_FLAGS, which is not yet in a published specification. */
  readonly offerFua?: boolean;
  /** The front-end listens at the path; Holdfast connects, and connects again when it is gone. */
  readonly connect?: boolean;
}

/** One logical unit of a target. */
export interface IscsiLun {
  /** 0 to 16383 [SAM-5 4.7.5.1 flat space addressing]. */
  readonly lun: number;
  /** The export name of the disk. */
  readonly exportName: string;
  /** RMB: initiators may eject the medium. */
  readonly removable?: boolean;
  /** LBPME: UNMAP is offered. Absent: as the disk can give space back. */
  readonly thin?: boolean;
  /** Unit serial number, printable ASCII. Absent: made of the disk, as its NAA designator. */
  readonly serial?: string;
}

/** A name and a secret of CHAP. Never shown or logged. */
export interface IscsiAccount {
  readonly user: string;
  readonly secret: Uint8Array;
}

/** What there is to say of one target, whatever portals it has. */
export interface IscsiTargetConfig {
  /** [RFC 7143 4.2.7] an iqn., eui. or naa. name, lower case. */
  readonly name: string;
  readonly alias: string;
  readonly luns: readonly IscsiLun[];
  /** What initiators prove to know; absent: nothing. */
  readonly chap?: IscsiAccount;
  /** What the target proves to know, to initiators that ask. Another secret than theirs. */
  readonly mutualChap?: IscsiAccount;
  /** The initiators that may log in; absent: all. */
  readonly initiators?: readonly string[];
}

/**
 * A portal: a place where one target is reached over iSCSI. Several targets may share an address, and a target may have
 * several portals: each has the same `target` then.
 */
export interface IscsiListen {
  readonly protocol: 'iscsi';
  readonly address: Extract<SocketAddress, { readonly kind: 'tcp' }>;
  readonly target: IscsiTargetConfig;
}

/** A place where one disk is a plain file (FUSE). Linux; as root, or with fusermount3. */
export interface FuseListen {
  readonly protocol: 'fuse';
  /** A regular file, hidden as long as the server runs; made when missing. */
  readonly path: string;
  /** The export name of the disk. */
  readonly exportName: string;
  /** Nobody can open it for writing, though the disk can be written elsewhere. */
  readonly readOnly?: boolean;
  /** The kernel keeps pages of what was read: for disks that nobody changes through another place. */
  readonly pageCache?: boolean;
}

export type ListenConfig = NbdListen | VhostUserBlkListen | IscsiListen | FuseListen;

/**
 * The most queues of a device that nobody has said more about. QEMU wants one for each virtual processor and does not
 * start with fewer, so it is more than most guests have processors; queues that nobody sets up cost nothing.
 */
export const DEFAULT_QUEUES = 64;
/** One place where a running server is reached. */
export interface Served {
  readonly protocol: ListenConfig['protocol'];
  /** With the port the kernel chose; of a file its path. */
  readonly address: SocketAddress;
  /**
   * What clients are pointed at: NBD URIs, one for each disk; `vhost-user-blk:PATH`; iSCSI URLs, one for each logical unit;
   * the path of a file. None for a descriptor.
   */
  readonly names: readonly string[];
}

/** What a recording says the disks held when it began. */
export type RecordBase =
  /** A copy is made beside the trace, unless the disk is read-only or in memory. */
  | 'copy'
  /** Nothing but zeroes; whoever says so has made the disk. */
  | 'zeroes'
  /** What this image holds, which stays as it is; with one disk only. */
  | { readonly image: string };

/** All that is asked of the disks is written to a trace (src/trace). */
export interface RecordConfig {
  /** The trace file, which must not be there yet. */
  readonly path: string;
  /** Default: copy. */
  readonly base?: RecordBase;
  /** Also records that READs were asked for. Default: no. */
  readonly reads?: boolean;
  /** When the trace cannot be written any more: go on unrecorded, or fail what changes the disks. Default: go on. */
  readonly onError?: 'go-on' | 'fail';
}

export interface ServerConfig {
  readonly disks: readonly DiskConfig[];
  readonly listen: readonly ListenConfig[];
  readonly tls?: TlsSettings;
  /** TLS is offered and refused otherwise ('require'), or optional ('on'), or not there ('off'). */
  readonly tlsMode: 'off' | 'on' | 'require';
  readonly maxConnections: number;
  readonly reactor: 'auto' | 'io_uring' | 'portable';
  readonly record?: RecordConfig;
}

/** One disk's counters since the start: the JSON line of SIGUSR2 and of the exit. Bytes are payload. */
export interface DiskCounters extends DiskTally {
  readonly disk: string;
  readonly export: string;
  readonly cache: CacheMode;
  /** Only of a disk that loses unflushed data when it is told to: how much there is now. */
  readonly unflushedBytes?: number;
}
