import { unreachable } from '../../src/base/assert.ts';
import type { Prng } from '../../src/base/prng.ts';
import type { BlockDevice, DeviceInfo } from '../../src/block/device.ts';
import type { BlockErrorCode } from '../../src/block/errors.ts';
import { EXTENT } from '../../src/block/extents.ts';
import { FLAG, type Io, type IoOwner, OP } from '../../src/block/io.ts';
import { MAX_TRANSFER_BYTES } from '../../src/block/limits.ts';
import type { AdmitOwner, SyncTarget } from '../../src/durability/flush-domain.ts';
import { opOf } from './blk-tags.ts';
import type { SimReactor } from './clock.ts';
import { fillSector, type Media, readSector, SECTOR_BYTES, type SyncEnd } from './media.ts';

/** What a store asks of its flush domain, so that a faulty one can take the place of ours. */
export interface Flusher {
  restorePoison(error: BlockErrorCode): void;
  admit(io: Io, owner: AdmitOwner): boolean;
  mutated(offset: number, bytes: number): number;
  mutatedNative(offset: number, bytes: number, error: BlockErrorCode | null): void;
  flush(io: Io): void;
  flushTo(io: Io, need: number): void;
  synced(error: BlockErrorCode | null): void;
}

/** How often what goes wrong, 0 to 1, and how long things take. */
export interface DiskTraits {
  readonly native: boolean;
  readonly writeMs: number;
  readonly syncMs: number;
  /** Requests that are done before `submit` returns. */
  readonly inline: number;
  readonly writeFails: number;
  readonly readFails: number;
  readonly syncFails: number;
  readonly syncLies: number;
  /** In place of the largest transfer there is. */
  readonly maxTransferBytes?: number;
  /** In place of a sector: a multiple of it, and the disk is one of that. */
  readonly blockBytes?: number;
}

/** Told what happens at the disk, where it happens: the oracle's eyes on the inside. */
export interface DiskWatcher {
  /** A mutation reached the store. */
  submitted(op: number): void;
  /** Sectors of a request are changed now. */
  applying(op: number): void;
  applied(op: number, sector: number, order: number): void;
  /**
   * What a request writes into a sector: its number, 0 for zeroes, or null: a sector beside those that it changes, which is
   * written back with the rest of its block.
   */
  meant(op: number, sector: number): number | null;
  /** The store is about to complete one part of a mutation. */
  completing(op: number): void;
  /** A sync (or a native FUA write) has failed, before anyone is told. */
  syncFailed(): void;
  violation(text: string): void;
}

interface Running {
  readonly io: Io;
  readonly op: number;
  readonly native: boolean;
  readonly error: BlockErrorCode | null;
  /** Sectors of it that are not yet done. */
  readonly left: number[];
}

interface RunningSync {
  readonly covers: number;
  /** Mutations that were done when it began. */
  readonly completed: number;
  readonly end: SyncEnd;
}

/**
 * A store as src/stores/file is one, over simulated media: it uses its flush domain in the same way, its requests take time,
 * overlap, tear and fail.
 */
export class SimDisk implements BlockDevice, SyncTarget, AdmitOwner, IoOwner {
  readonly info: DeviceInfo;
  flusher!: Flusher;
  syncs = 0;
  readonly #reactor: SimReactor;
  readonly #prng: Prng;
  readonly #media: Media;
  readonly #traits: DiskTraits;
  readonly #watcher: DiskWatcher;
  readonly #running = new Set<Running>();
  #inFlight = 0;
  #closed = false;
  #drained: (() => void) | null = null;
  #completed = 0;
  #completedAtLastGoodSync = 0;
  #failures = 0;
  #syncing: RunningSync | null = null;

  constructor(
    reactor: SimReactor,
    prng: Prng,
    media: Media,
    traits: DiskTraits,
    watcher: DiskWatcher,
  ) {
    this.#reactor = reactor;
    this.#prng = prng;
    this.#media = media;
    this.#traits = traits;
    this.#watcher = watcher;
    this.info = Object.freeze({
      name: 'simulated',
      sizeBytes: media.sectors * SECTOR_BYTES,
      blockBytes: traits.blockBytes ?? SECTOR_BYTES,
      preferredBytes: 4096,
      maxTransferBytes: traits.maxTransferBytes ?? MAX_TRANSFER_BYTES,
      readOnly: false,
      writeCache: true,
      ignoresFlush: false,
      fua: traits.native ? 'native' : 'emulated',
      discard: true,
      fastZero: true,
      extents: true,
      rotational: false,
      memoryAlignment: 1,
    } satisfies DeviceInfo);
  }

  /** Requests that the store has. */
  get inFlight(): number {
    return this.#inFlight;
  }

  submit(io: Io): void {
    if (this.#closed) {
      io.complete('ESHUTDOWN');
      return;
    }
    this.#inFlight += 1;
    io.push(this, this.syncs);
    switch (io.op) {
      case OP.FLUSH:
        this.flusher.flush(io);
        break;
      case OP.READ:
        this.#soon(() => this.#read(io));
        break;
      case OP.CACHE:
        this.#soon(() => io.complete(null));
        break;
      case OP.WRITE:
      case OP.WRITE_ZEROES:
      case OP.DISCARD:
        this.#watcher.submitted(opOf(io));
        if (this.flusher.admit(io, this)) this.admitted(io);
        break;
      case OP.EXTENTS:
        this.#extents(io);
        break;
      default:
        unreachable(io.op);
    }
  }

  admitted(io: Io): void {
    const prng = this.#prng;
    const fua = (io.flags & FLAG.FUA) !== 0;
    const fast = io.op === OP.WRITE_ZEROES && (io.flags & FLAG.FAST) !== 0;
    if (fast && prng.chance(0.3)) {
      this.#soon(() => this.#mutated(io, 'EOPNOTSUPP'));
      return;
    }
    const fails = prng.chance(this.#traits.writeFails);
    const first = io.offset / SECTOR_BYTES;
    const left = Array.from({ length: io.length / SECTOR_BYTES }, (_, i) => first + i);
    const native = fua && this.#traits.native && io.op === OP.WRITE && prng.chance(0.6);
    const error = fails ? prng.pick<BlockErrorCode>(['EIO', 'ENOSPC']) : null;
    const running: Running = { io, op: opOf(io), native, error, left };
    this.#running.add(running);
    // Some sectors change before the others do.
    if (left.length > 1 && prng.chance(0.3)) this.#soon(() => this.#applySome(running));
    this.#soon(() => this.#finish(running));
  }

  ioDone(io: Io): void {
    const started = this.syncs - io.saved;
    if (io.op === OP.FLUSH && io.error === null && this.#failures === 0 && started > 1) {
      this.#watcher.violation(`P6/I3: a flush waited through ${started} sync starts, one suffices`);
    }
    this.#inFlight -= 1;
    io.complete(io.error);
    if (this.#inFlight === 0) this.#drained?.();
  }

  startSync(): void {
    this.syncs += 1;
    if (this.#syncing !== null) this.#watcher.violation('two syncs at once');
    if (this.#completed === this.#completedAtLastGoodSync) {
      this.#watcher.violation(
        'P6: a sync, though nothing was completed since the last good one began',
      );
    }
    const { syncFails, syncLies, syncMs } = this.#traits;
    const prng = this.#prng;
    let end: SyncEnd = 'done';
    if (prng.chance(syncFails)) end = 'failed';
    else if (prng.chance(syncLies)) end = 'lied';
    this.#syncing = { covers: this.#media.order, completed: this.#completed, end };
    if (prng.chance(0.05)) this.#endSync();
    else {
      const slow = prng.chance(0.05) ? 20 : 1;
      this.#reactor.after(prng.float() * syncMs * slow, () => this.#endSync());
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  /** The process dies: what the kernel has of running requests, it may still do. */
  kill(): void {
    for (const running of this.#running) {
      if (this.#prng.chance(0.5)) this.#applySome(running);
    }
    this.#running.clear();
    if (this.#syncing !== null && this.#prng.chance(0.5)) {
      // The fdatasync goes on, and nobody hears how it ends.
      this.#media.endSync(this.#syncing.covers, 'done');
    }
  }

  #endSync(): void {
    const { covers, completed, end } = this.#syncing as RunningSync;
    this.#syncing = null;
    this.#media.endSync(covers, end);
    if (end === 'failed') {
      this.#failures += 1;
      this.#watcher.syncFailed();
      this.flusher.synced('EIO');
      return;
    }
    this.#completedAtLastGoodSync = completed;
    this.flusher.synced(null);
  }

  #soon(callback: () => void): void {
    const prng = this.#prng;
    if (prng.chance(this.#traits.inline)) callback();
    else this.#reactor.after(prng.float() * this.#traits.writeMs, callback);
  }

  #applySome(running: Running): void {
    if (!this.#running.has(running)) return;
    const kept: number[] = [];
    const now: number[] = [];
    for (const sector of running.left) (this.#prng.chance(0.5) ? now : kept).push(sector);
    this.#apply(running, now);
    running.left.splice(0, running.left.length, ...kept);
  }

  /** A write takes its bytes when it changes the sectors: whoever reused the memory too early is found out. */
  #apply(running: Running, sectors: readonly number[]): void {
    const { io, op, native } = running;
    if (sectors.length === 0) return;
    this.#watcher.applying(op);
    let bytes: Buffer | null = null;
    if (io.op === OP.WRITE) {
      bytes = Buffer.alloc(io.length);
      io.segments.copyTo(bytes);
    }
    const first = io.offset / SECTOR_BYTES;
    for (const sector of sectors) {
      const meant = bytes === null ? 0 : this.#watcher.meant(op, sector);
      const found = bytes === null ? 0 : readSector(bytes, (sector - first) * SECTOR_BYTES, sector);
      if (meant === null ? found === -1 : found !== meant) {
        this.#watcher.violation(
          `foreign bytes written: sector ${sector} by request ${op}: ${found}`,
        );
      }
      if (meant === null) {
        // What is written back is a new version of what somebody else wrote.
        const writer = found === 0 ? this.#media.zeroedBy(sector) : found;
        const version = this.#media.write(writer, sector, found === 0);
        if (native && running.error === null) this.#media.settle(sector, version);
        continue;
      }
      const version = this.#media.write(op, sector, meant === 0);
      this.#watcher.applied(op, sector, version.order);
      if (native && running.error === null) this.#media.settle(sector, version);
    }
  }

  #finish(running: Running): void {
    const { io, native, error, left } = running;
    if (error === null) this.#apply(running, left);
    else this.#applySome(running);
    this.#running.delete(running);
    if (!native) {
      this.#mutated(io, error);
      return;
    }
    this.#completed += 1;
    if (error === 'EIO') {
      this.#failures += 1;
      this.#watcher.syncFailed();
    }
    this.flusher.mutatedNative(io.offset, io.length, error);
    this.#watcher.completing(running.op);
    io.complete(error);
  }

  #mutated(io: Io, error: BlockErrorCode | null): void {
    this.#completed += 1;
    const number = this.flusher.mutated(io.offset, io.length);
    this.#watcher.completing(opOf(io));
    if (error === null && (io.flags & FLAG.FUA) !== 0) this.flusher.flushTo(io, number);
    else io.complete(error);
  }

  #read(io: Io): void {
    if (this.#prng.chance(this.#traits.readFails)) {
      io.complete('EIO');
      return;
    }
    const bytes = Buffer.alloc(io.length);
    const first = io.offset / SECTOR_BYTES;
    for (let at = 0; at < io.length; at += SECTOR_BYTES) {
      const sector = first + at / SECTOR_BYTES;
      const version = this.#media.cached(sector);
      if (!version.zero) fillSector(bytes, at, version.op, sector);
    }
    io.segments.copyFrom(bytes);
    io.complete(null);
  }

  #extents(io: Io): void {
    const { blockBytes } = this.info;
    for (let at = io.offset; at < io.offset + io.length; at += blockBytes) {
      let zero = true;
      for (let i = 0; i < blockBytes; i += SECTOR_BYTES) {
        if (!this.#media.cached((at + i) / SECTOR_BYTES).zero) zero = false;
      }
      const flags = zero ? EXTENT.ZERO | EXTENT.HOLE : 0;
      const differs = io.extents.count === 1 && io.extents.flags[0] !== flags;
      if ((io.flags & FLAG.ONE) !== 0 && differs) break;
      io.extents.push(blockBytes, flags);
    }
    io.complete(null);
  }
}
