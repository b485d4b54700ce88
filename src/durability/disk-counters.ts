import { type Io, OP } from '../block/io.ts';
import type { FlushDomain } from './flush-domain.ts';

/** What clients asked of one disk since the start. */
export class RequestTally {
  reads = 0;
  readBytes = 0;
  writes = 0;
  writtenBytes = 0;
  discards = 0;
  zeroes = 0;
  flushesAsked = 0;
  failed = 0;

  /** Counts a request that is done. Bytes are payload that arrived where it should. */
  count(io: Io): void {
    const failed = io.error !== null;
    if (failed) this.failed += 1;
    switch (io.op) {
      case OP.READ:
        this.reads += 1;
        if (!failed) this.readBytes += io.length;
        break;
      case OP.WRITE:
        this.writes += 1;
        if (!failed) this.writtenBytes += io.length;
        break;
      case OP.DISCARD:
        this.discards += 1;
        break;
      case OP.WRITE_ZEROES:
        this.zeroes += 1;
        break;
      case OP.FLUSH:
      case OP.CACHE:
      case OP.EXTENTS:
        break;
    }
  }
}

/**
 * A disk's counters with those of its flush domain. The domain's are shared by all exports of one inode, and count the
 * flushes Holdfast asks of itself and the emulated FUA writes too, so `flushesAsked` need not be the sum of the others.
 */
export interface DiskTally {
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writtenBytes: number;
  readonly discards: number;
  readonly zeroes: number;
  readonly flushesAsked: number;
  /** Waited for a sync already running that covered them. */
  readonly flushesJoined: number;
  /** Shared a sync with at least one other that was waiting. */
  readonly flushesMerged: number;
  /** Needed no sync. */
  readonly flushesLeftOut: number;
  /** Of these, flushes of a range while other parts of the disk had unstable data. */
  readonly rangeFlushesLeftOut: number;
  readonly syncs: number;
  readonly syncsFailed: number;
  readonly fuaNative: number;
  readonly fuaEmulated: number;
  readonly failed: number;
  /** Mutations completed and not yet known stable, and an upper bound of their bytes. */
  readonly unstableWrites: number;
  readonly unstableBytes: number;
  readonly poisoned: boolean;
}

/** Joins both. Without a domain (a store that has nothing to sync) its part is zero. */
export function diskTally(requests: RequestTally, domain: FlushDomain | null): DiskTally {
  return {
    reads: requests.reads,
    readBytes: requests.readBytes,
    writes: requests.writes,
    writtenBytes: requests.writtenBytes,
    discards: requests.discards,
    zeroes: requests.zeroes,
    flushesAsked: requests.flushesAsked,
    flushesJoined: domain?.counters.joined ?? 0,
    flushesMerged: domain?.counters.merged ?? 0,
    flushesLeftOut: domain?.counters.leftOut ?? 0,
    rangeFlushesLeftOut: domain?.counters.rangeLeftOut ?? 0,
    syncs: domain?.counters.syncs ?? 0,
    syncsFailed: domain?.counters.syncsFailed ?? 0,
    fuaNative: domain?.counters.fuaNative ?? 0,
    fuaEmulated: domain?.counters.fuaEmulated ?? 0,
    failed: requests.failed,
    unstableWrites: domain?.unstableWrites ?? 0,
    unstableBytes: domain?.unstableBytes ?? 0,
    poisoned: domain?.poisoned ?? false,
  };
}
