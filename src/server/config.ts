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
}

export interface ListenConfig {
  readonly protocol: 'nbd';
  readonly address: SocketAddress;
}

export interface ServerConfig {
  readonly disks: readonly DiskConfig[];
  readonly listen: readonly ListenConfig[];
  readonly tls?: TlsSettings;
  /** TLS is offered and refused otherwise ('require'), or optional ('on'), or not there ('off'). */
  readonly tlsMode: 'off' | 'on' | 'require';
  readonly maxConnections: number;
  readonly reactor: 'auto' | 'io_uring' | 'portable';
}

/** One disk's counters since the start: the JSON line of SIGUSR2 and of the exit. Bytes are payload. */
export interface DiskCounters extends DiskTally {
  readonly disk: string;
  readonly export: string;
  readonly cache: CacheMode;
}
