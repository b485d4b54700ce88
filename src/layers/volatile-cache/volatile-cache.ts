import { assert, unreachable } from '../../base/assert.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { BlockError, type BlockErrorCode } from '../../block/errors.ts';
import { FLAG, OP, type Io, type IoOwner } from '../../block/io.ts';
import {
  FlushDomain,
  type AdmitOwner,
  type FlushDomainOptions,
  type SyncTarget,
} from '../../durability/flush-domain.ts';
import { IoRing } from '../../durability/io-ring.ts';
import { EVICT_PART, MOST_CACHED_ZERO_BYTES, UNIT_BYTES } from './limits.ts';
import { Overlay } from './overlay.ts';
import type { CutRequest, FlushFault } from './requests.ts';
import { surviveCut, type Survived } from './survivors.ts';
import { KIND, NONE, Versions, type Kind } from './versions.ts';
import { WriteBack, type WriteBackOwner } from './write-back.ts';

export interface VolatileCacheOptions {
  /** A multiple of 512, LEAST_CACHE_BYTES to MOST_CACHE_BYTES. */
  readonly cacheBytes: number;
  /** How the layer's flush domain is made; what its target and size are, the layer knows. */
  readonly domain?: Omit<FlushDomainOptions, 'target' | 'sizeBytes'>;
}

/** In `io.saved`. */
const HERE = 0;
/** Too long for the cache: it has gone to the child. */
const PASSED = 1;

/**
 * A device over one child that has a volatile write cache and can lose it: completed writes stay in memory, in all their
 * versions since the last flush, until FLUSH or FUA asks for them or the cache is full. Then `cutPower` lets a seed and
 * a model decide which of them survive. It loses nothing otherwise: `close` writes all to the child.
 *
 * The layer has a flush domain of its own, and the Disk over it is made with that one, not with the child's. The child's
 * knows only what has been written back: with it a FLUSH would be answered though the data is here, writes into the
 * cache would not be refused after a failed sync, and the sync that `failFlush` lets fail would be nobody's. As the
 * target of its domain the layer fails a sync as a drive does, so that poison, its record on stable storage, `stop` and
 * `resume` take their ordinary way. A sync that fails in the child comes back as a failed FLUSH and fails here too.
 */
export class VolatileCache implements BlockDevice, IoOwner, AdmitOwner, SyncTarget, WriteBackOwner {
  readonly domain: FlushDomain;
  readonly #child: BlockDevice;
  readonly #versions: Versions;
  readonly #overlay: Overlay;
  readonly #writeBack: WriteBack;
  /** Writes that wait for room, in order. */
  readonly #room = new IoRing<null>();
  /** FUA writes that are in the cache, and flushes of a range: they wait for a sync of their units. */
  readonly #ranged = new IoRing<null>();
  /** The first so many of `#ranged` are waiting for the write-back under way. */
  #rangedNow = 0;
  /** The domain waits for a sync of everything, and for the one under way. */
  #wholeAsked = false;
  #wholeNow = false;
  #fault: FlushFault | null = null;
  #faultNow: FlushFault | null = null;
  /** `cutting`: what was under way to the child ends. `off`: nothing is left of it. */
  #power: 'on' | 'cutting' | 'off' = 'on';
  #passed = 0;
  #inFlight = 0;
  #closing: Promise<void> | null = null;
  #drained: (() => void) | null = null;
  readonly #settled: (() => void)[] = [];
  /** Those who waited for a write-back are being told: nothing is started before the last of them. */
  #finishing = false;
  #lastError: BlockErrorCode | null = null;
  #info: DeviceInfo | null = null;
  #infoFrom: DeviceInfo | null = null;

  constructor(child: BlockDevice, options: VolatileCacheOptions) {
    const { sizeBytes } = child.info;
    assert(sizeBytes % UNIT_BYTES === 0, 'a disk that is no multiple of 512 bytes');
    this.#child = child;
    this.#versions = new Versions(options.cacheBytes / UNIT_BYTES);
    this.#overlay = new Overlay(child, this.#versions);
    this.#writeBack = new WriteBack(child, this.#versions, this);
    this.domain = new FlushDomain({ ...options.domain, target: this, sizeBytes });
  }

  get info(): DeviceInfo {
    const from = this.#child.info;
    if (this.#info === null || this.#infoFrom !== from) {
      this.#infoFrom = from;
      const blockBytes = Math.max(UNIT_BYTES, from.blockBytes);
      this.#info = Object.freeze({
        ...from,
        blockBytes,
        preferredBytes: Math.max(blockBytes, from.preferredBytes),
        writeCache: !from.readOnly,
        fua: 'native',
      } satisfies DeviceInfo);
    }
    return this.#info;
  }

  /** Bytes in all versions that are not stable. */
  get unflushedBytes(): number {
    return this.#versions.used * UNIT_BYTES;
  }

  /** Requests submitted and not completed. */
  get inFlight(): number {
    return this.#inFlight;
  }

  submit(io: Io): void {
    if (this.#closing !== null || this.#power !== 'on') {
      io.complete('ESHUTDOWN');
      return;
    }
    this.#inFlight += 1;
    io.push(this, HERE);
    switch (io.op) {
      case OP.READ:
        this.#overlay.read(io);
        break;
      case OP.EXTENTS:
        this.#overlay.extents(io);
        break;
      case OP.CACHE:
        this.#child.submit(io);
        break;
      case OP.FLUSH:
        this.#flush(io);
        break;
      case OP.WRITE:
      case OP.WRITE_ZEROES:
      case OP.DISCARD:
        if (!this.#refuses(io) && this.domain.admit(io, this)) this.admitted(io);
        break;
      default:
        unreachable(io.op);
    }
  }

  ioDone(io: Io): void {
    if (io.saved === PASSED) {
      this.#passedDone(io);
      return;
    }
    this.#inFlight -= 1;
    if (this.#inFlight === 0 && this.#drained !== null) this.#drained();
    io.complete(io.error);
  }

  /** The flush domain lets a mutation pass. */
  admitted(io: Io): void {
    if (this.#power !== 'on') io.complete('ESHUTDOWN');
    else if (this.#room.count === 0 && this.#fits(io)) this.#store(io);
    else {
      this.#room.push(io, null);
      this.#kick();
    }
  }

  /** The flush domain asks for a sync of everything completed. */
  startSync(): void {
    // With the power off everything that is left is stable.
    if (this.#power === 'off') this.domain.synced(null);
    else {
      this.#wholeAsked = true;
      this.#kick();
    }
  }

  writtenBack(error: BlockErrorCode | null): void {
    if (this.#power !== 'on') {
      // What was written back for room stays written. A sync was not answered: of what it wrote the cut decides.
      if (error === null && this.#rangedNow === 0 && !this.#wholeNow) this.#writeBack.drop();
      this.#settle();
    } else if (this.#wholeNow || this.#rangedNow > 0) this.#synced(error);
    else this.#evicted(error);
  }

  /** Lets the next sync fail, or every one. `never` takes it back. */
  failFlush(fault: FlushFault): void {
    this.#fault = fault.when === 'never' ? null : fault;
  }

  /** The power goes: from now on nothing is completed, and what comes fails with ESHUTDOWN. `survive` follows. */
  cutPower(): void {
    assert(this.#power === 'on', 'the power is off already');
    this.#power = 'cutting';
  }

  /**
   * Writes to the child what survives the cut; all else is gone. What was in flight fails with ESHUTDOWN: by then its
   * clients must have been let go, or they would have an answer. Rejects with a BlockError when the child fails.
   */
  async survive(request: CutRequest): Promise<Survived> {
    assert(this.#power === 'cutting', 'a power cut has begun');
    while (this.#busy) await this.#untilSettled();
    try {
      return await surviveCut(this.#child, this.#versions, request);
    } finally {
      this.#lose();
    }
  }

  /** After `survive`. */
  powerOn(): void {
    assert(this.#power === 'off', 'the power is on, or going');
    this.#power = 'on';
  }

  /** Waits for what is in flight, writes the cache to the child, flushes it and closes the child. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = () => {
          resolve();
          letEventLoopRun();
        };
      });
    }
    try {
      while (this.#busy) await this.#untilSettled();
      if (this.#versions.used > 0) await this.#writeAllBack();
    } finally {
      await this.#child.close();
    }
  }

  async #writeAllBack(): Promise<void> {
    this.#wholeAsked = true;
    this.#lastError = null;
    this.#kick();
    while (this.#busy) await this.#untilSettled();
    if (this.#lastError === null) return;
    const { name } = this.#child.info;
    throw new BlockError(this.#lastError, `${name}: the volatile cache could not be written back`);
  }

  #untilSettled(): Promise<void> {
    return new Promise((resolve) => {
      this.#settled.push(resolve);
    });
  }

  /** Something is under way to the child that changes it. */
  get #busy(): boolean {
    return this.#writeBack.busy || this.#passed > 0;
  }

  #settle(): void {
    if (this.#busy || this.#settled.length === 0) return;
    for (const settled of this.#settled.splice(0)) settled();
    letEventLoopRun();
  }

  #flush(io: Io): void {
    // Only a disk that is well has parts that can be made stable alone; and if nothing is unstable, nothing is to do.
    if (io.length === 0 || this.domain.health !== 'well' || this.domain.unstableWrites === 0) {
      this.domain.flush(io);
      return;
    }
    this.#ranged.push(io, null);
    this.#kick();
  }

  /** Completes what cannot be done, or is nothing. */
  #refuses(io: Io): boolean {
    const { info } = this.#child;
    const fast = io.op === OP.WRITE_ZEROES && (io.flags & FLAG.FAST) !== 0;
    if (info.readOnly) io.complete('EROFS');
    else if (io.op === OP.DISCARD && !info.discard) io.complete('EOPNOTSUPP');
    else if (fast && !info.fastZero) io.complete('EOPNOTSUPP');
    else if (io.length === 0) io.complete(null);
    else return false;
    return true;
  }

  /** What is too long for the cache keeps its place in the order of writes: nothing older may still be in the cache. */
  #fits(io: Io): boolean {
    const { used, free } = this.#versions;
    return isLong(io) ? used === 0 && !this.#writeBack.busy : io.length / UNIT_BYTES <= free;
  }

  /**
   * Takes a mutation that fits into the cache, or to the child if it is too long for that. A barrier has been put in order
   * by the Disk; one that comes without it is at least made stable with all before it.
   */
  #store(io: Io): void {
    if (isLong(io)) {
      this.#passed += 1;
      io.push(this, PASSED);
      this.#child.submit(io);
      return;
    }
    const versions = this.#versions;
    const units = io.length / UNIT_BYTES;
    const data = io.op === OP.WRITE ? io.segments : null;
    const write = versions.add(io.offset / UNIT_BYTES, units, kindOf(io), data);
    if ((io.flags & FLAG.BARRIER) !== 0) {
      this.domain.flushTo(io, this.domain.mutated(io.offset, io.length));
      return;
    }
    if ((io.flags & FLAG.FUA) === 0) {
      // Counted before it is answered.
      this.domain.mutated(io.offset, io.length);
      io.complete(null);
      return;
    }
    versions.inFlight[write] = 1;
    this.#ranged.push(io, null);
    this.#kick();
  }

  #passedDone(io: Io): void {
    this.#passed -= 1;
    const { error } = io;
    const fua = (io.flags & FLAG.FUA) !== 0;
    if (fua) this.domain.mutatedNative(io.offset, io.length, error);
    else this.domain.mutated(io.offset, io.length);
    const barrier = (io.flags & FLAG.BARRIER) !== 0 && error === null;
    if (barrier) this.domain.flushTo(io, this.domain.completed);
    else io.complete(error);
    this.#kick();
    this.#settle();
  }

  /** Starts the write-back that is needed most, if none is under way. */
  #kick(): void {
    if (this.#writeBack.busy || this.#finishing || this.#power !== 'on') return;
    if (this.#wholeAsked || this.#ranged.count > 0) this.#startSync();
    else if (this.#room.count > 0) this.#makeRoom();
  }

  #startSync(): void {
    const { lastOrder } = this.#versions;
    this.#wholeNow = this.#wholeAsked;
    this.#wholeAsked = false;
    this.#rangedNow = this.#ranged.count;
    if (this.#wholeNow) this.#writeBack.includeAll(lastOrder);
    else {
      for (let i = 0; i < this.#rangedNow; i += 1) {
        const { offset, length } = this.#ranged.ioAt(i);
        const first = Math.floor(offset / UNIT_BYTES);
        const units = Math.ceil((offset + length) / UNIT_BYTES) - first;
        this.#writeBack.includeRange(first, units, lastOrder);
      }
    }
    this.#faultNow = this.#fault;
    if (this.#fault?.when === 'once') this.#fault = null;
    if (this.#faultNow === null) this.#writeBack.start(true);
    else this.#synced('EIO');
  }

  /** A sync has ended, or was made to fail. */
  #synced(error: BlockErrorCode | null): void {
    const whole = this.#wholeNow;
    const ranged = this.#rangedNow;
    this.#finishing = true;
    const drop = error === null || this.#faultNow?.data === 'drop';
    this.#wholeNow = false;
    this.#rangedNow = 0;
    this.#faultNow = null;
    this.#lastError = error;
    if (drop) this.#writeBack.drop();
    else this.#writeBack.keep();
    if (whole && this.domain.syncing) this.domain.synced(error);
    for (let i = 0; i < ranged; i += 1) this.#rangedDone(this.#ranged.shift(), error);
    this.#finished();
  }

  /** A FUA write or a flush of a range. If it failed, the domain knows what its outcome is: EIO, or wait. */
  #rangedDone(io: Io, error: BlockErrorCode | null): void {
    const { domain } = this;
    if (error === null) {
      if (io.mutates) domain.mutatedNative(io.offset, io.length, null);
      else domain.counters.asked += 1;
      io.complete(null);
    } else if (io.mutates) {
      const number = domain.mutated(io.offset, io.length);
      domain.failedOutside(error);
      domain.flushTo(io, number);
    } else {
      domain.failedOutside(error);
      domain.flush(io);
    }
  }

  /** Writes the oldest versions back. For a request that passes the cache by: all of them. */
  #makeRoom(): void {
    const versions = this.#versions;
    if (versions.used === 0) {
      this.#serveRoom();
      return;
    }
    const wanted = isLong(this.#room.first())
      ? versions.used
      : Math.max(versions.capacity * EVICT_PART, this.#room.first().length / UNIT_BYTES);
    let order = 0;
    let found = 0;
    for (let write = versions.oldestWrite; write !== NONE && found < wanted;) {
      order = versions.order[write] as number;
      for (let at = versions.first[write] as number; at !== NONE; found += 1) {
        at = versions.next[at] as number;
      }
      write = versions.nextWrite[write] as number;
    }
    this.#writeBack.includeAll(order);
    this.#writeBack.start(false);
  }

  #evicted(error: BlockErrorCode | null): void {
    this.#finishing = true;
    if (error === null) this.#writeBack.drop();
    else {
      // The child takes no more, so there is no room for those that wait.
      this.#writeBack.keep();
      for (let left = this.#room.count; left > 0; left -= 1) this.#room.shift().complete(error);
    }
    this.#finished();
  }

  /** Whoever waited for the write-back has been told: now what they brought, and what it made room for. */
  #finished(): void {
    this.#serveRoom();
    this.#finishing = false;
    this.#kick();
    this.#settle();
  }

  #serveRoom(): void {
    while (this.#room.count > 0 && this.#power === 'on' && this.#fits(this.#room.first())) {
      this.#store(this.#room.shift());
    }
  }

  /** What has not survived is forgotten, and so is who waits: nothing is unstable any more. */
  #lose(): void {
    this.#writeBack.keep();
    this.#versions.clear();
    this.#power = 'off';
    this.#wholeAsked = false;
    this.#wholeNow = false;
    this.#rangedNow = 0;
    while (this.#room.count > 0) this.#room.shift().complete('ESHUTDOWN');
    while (this.#ranged.count > 0) this.#ranged.shift().complete('ESHUTDOWN');
    if (this.domain.syncing) this.domain.synced(null);
  }
}

function isLong(io: Io): boolean {
  return io.op !== OP.WRITE && io.length > MOST_CACHED_ZERO_BYTES;
}

/** A DISCARD is zeroes from when it completes: what comes after a cut must be one or the other. */
function kindOf(io: Io): Kind {
  if (io.op === OP.WRITE) return KIND.DATA;
  return (io.flags & FLAG.NO_HOLE) === 0 || io.op === OP.DISCARD ? KIND.ZERO : KIND.ZERO_KEPT;
}
