import { assert } from '../../base/assert.ts';
import type { Disk } from '../../durability/disk.ts';
import type { CacheBelief, DiskSession } from '../../durability/disk-session.ts';
import {
  VIRTIO_BLK_CONFIG,
  VIRTIO_BLK_CONFIG_BYTES,
  VIRTIO_BLK_F,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_ID_BLOCK,
} from './blk.ts';
import { blkConfig } from './blk-config.ts';
import { blkRules } from './blk-request.ts';
import { BlkWorker } from './blk-worker.ts';
import { WritebackByte } from './blk-writeback.ts';
import type { QueueHost, QueueWorker, VirtioDevice } from './device.ts';
import { hasFeature, VIRTIO_F } from './virtio.ts';
import type { Virtqueue } from './virtqueue.ts';

export interface VirtioBlkOptions {
  /** The device ID string: at most 20 printable ASCII characters. */
  readonly serial: string;
  /** Request queues offered. */
  readonly queues: number;
  /** Offers the FUA flag that is not in virtio 1.4 [oasis-tcs/virtio-spec issue 237]. */
  readonly offerFua: boolean;
  /** One line for the operator. */
  readonly log: (line: string) => void;
  /** Runs a call-back after the current batch (Reactor.defer). */
  readonly defer: (callback: () => void) => void;
  /** Called before a driver gets its session: whoever of the disk's clients is gone is ended (P11). */
  readonly fence?: () => void;
}

/**
 * A disk as a virtio block device [virtio 5.2], whatever the transport. One object serves one front-end; drivers come and
 * go, and each gets a session of the disk's.
 *
 * The write cache: without FLUSH a driver gets write-through (P9), which is case 1 of [virtio 5.2.6.2]. With CONFIG_WCE it
 * is shown the disk's setting, and switches it for all (P4); as long as it may take the cache for off, its writes are
 * stable (P3), whatever the setting: `WritebackByte` knows. A driver with FLUSH alone assumes a cache.
 *
 * Mode `unsafe` offers neither FLUSH nor CONFIG_WCE: "Not offering VIRTIO_BLK_F_FLUSH is an absolute requirement for
 * implementations that do not wish to be safe" [virtio 5.2.6.2] (P8).
 */
export class VirtioBlk implements VirtioDevice {
  readonly id = VIRTIO_ID_BLOCK;
  readonly offered: bigint;
  readonly maxQueues: number;
  readonly configBytes = VIRTIO_BLK_CONFIG_BYTES;
  onConfigChange: (() => void) | null = null;
  readonly #disk: Disk;
  readonly #options: VirtioBlkOptions;
  readonly #id: Uint8Array;
  #writeback = new WritebackByte();
  /** Of the driver at work; null before the first and after a reset. */
  #features: bigint | null = null;
  #session: DiskSession | null = null;
  #attached = 0;
  /** Counts starts, resets and ends: what was begun before the last of them is of no use any more. */
  #life = 0;
  /** Counts writes of the writeback byte, and ends: only the outcome of the last write is of use. */
  #writes = 0;
  /** Writes whose flush is not done. */
  #switching = 0;
  /** Whose the setting is: after a driver's life the configured mode comes back. `next`: it wrote before it began. */
  #switchedBy: 'nobody' | 'next' | 'driver' = 'nobody';
  /** The driver was at work before this connection: requests of then, when it may have believed otherwise, may wait. */
  #wasThere = false;
  /** Queues that have had none of those since it began, and how many attached ones still may. */
  readonly #caughtUp = new Set<number>();
  #behind = 0;
  /** What `#session` was last told. */
  #toldSession: CacheBelief | null = null;
  #announcing = false;
  #stopListening: (() => void) | null = null;

  constructor(disk: Disk, options: VirtioBlkOptions) {
    this.#disk = disk;
    this.#options = options;
    this.maxQueues = options.queues;
    this.offered = offeredFeatures(disk, options);
    this.#id = new Uint8Array(VIRTIO_BLK_ID_BYTES);
    new TextEncoder().encodeInto(options.serial, this.#id);
  }

  readConfig(offset: number, length: number): Uint8Array {
    assert(offset >= 0 && offset + length <= this.configBytes, 'a read outside the configuration');
    this.#listen();
    const writeback = this.#byte();
    const at = VIRTIO_BLK_CONFIG.writeback;
    if (offset <= at && at < offset + length) {
      this.#writeback.read(writeback);
      this.#tellSession();
    }
    const { queues } = this.#options;
    return blkConfig(this.#disk.info, { queues, writeback }).subarray(offset, offset + length);
  }

  /** Only `writeback` can be written. */
  writeConfig(offset: number, bytes: Uint8Array, done: (accepted: boolean) => void): void {
    const value = bytes[0];
    const fits = offset === VIRTIO_BLK_CONFIG.writeback && bytes.length === 1;
    if (!fits || (value !== 0 && value !== 1) || !this.#maySwitchTo(value)) {
      done(false);
      return;
    }
    this.#writes += 1;
    const write = this.#writes;
    if (value === 0) {
      this.#writeback.switchingOff();
      this.#tellSession();
    }
    this.#switching += 1;
    this.#disk.setWriteCache(value === 1, (error) => {
      this.#switching -= 1;
      // A later write decides what is believed.
      if (write === this.#writes) {
        if (error === null) this.#written(value);
        else this.#writeback.notSwitchedOff();
        this.#tellSession();
      }
      done(error === null);
    });
  }

  start(features: bigint, ready: () => void, fresh: boolean): void {
    const another = this.#features !== null && this.#features !== features;
    this.#writeback.driverBegins(another || fresh);
    this.#features = features;
    this.#wasThere = !another && !fresh;
    this.#listen();
    this.#endSession();
    const life = this.#life;
    const open = (): void => {
      const flushes = hasFeature(features, VIRTIO_BLK_F.FLUSH);
      this.#options.fence?.();
      this.#disk.openSession({ flushes }, (session) => {
        if (this.#life !== life) {
          session.end();
          return;
        }
        this.#session = session;
        this.#tellSession();
        this.#announce();
        ready();
      });
    };
    // Where the transport does not tell of resets, other features show that there was one.
    if (another && this.#switchedBy === 'driver') {
      this.#restore(open);
      return;
    }
    if (this.#switchedBy === 'next') this.#switchedBy = 'driver';
    open();
  }

  attach(index: number, queue: Virtqueue, host: QueueHost): QueueWorker {
    const session = this.#session;
    assert(session !== null && this.#features !== null, 'a queue before the driver is ready');
    assert(index < this.maxQueues, 'a queue that is not offered');
    this.#attached += 1;
    let behind = this.#wasThere && queue.ready && !this.#caughtUp.has(index);
    if (behind) this.#behind += 1;
    else this.#caughtUp.add(index);
    this.#tellSession();
    const catchUp = (): void => {
      if (behind) this.#behind -= 1;
      behind = false;
    };
    return new BlkWorker({
      queue,
      host,
      device: session,
      rules: blkRules(this.#features),
      id: this.#id,
      drained: () => {
        this.#attached -= 1;
        catchUp();
      },
      // From here on a FLUSH shows what the driver believes now.
      caughtUp: () => {
        catchUp();
        this.#caughtUp.add(index);
        this.#tellSession();
      },
    });
  }

  reset(done: () => void): void {
    this.#endSession();
    this.#features = null;
    this.#writeback.deviceReset();
    this.#restore(() => {
      this.#announce();
      done();
    });
  }

  leave(): void {
    this.#session?.leave();
  }

  end(): void {
    this.#endSession();
    this.#features = null;
    this.#writeback = new WritebackByte();
    this.#stopListening?.();
    this.#stopListening = null;
    this.#writes += 1;
    if (this.#switchedBy !== 'nobody' || this.#switching > 0) this.#restore(() => {});
  }

  /** What the driver is shown [virtio 5.2.5]. */
  #byte(): 0 | 1 {
    // [virtio 5.2.5.2] CONFIG_WCE without FLUSH: 0. Not so for legacy drivers, whose features change nothing [virtio 5.2.5.3].
    const features = this.#features ?? 0n;
    const fixed =
      hasFeature(features, VIRTIO_BLK_F.CONFIG_WCE) &&
      !hasFeature(features, VIRTIO_BLK_F.FLUSH) &&
      hasFeature(features, VIRTIO_F.VERSION_1);
    return this.#disk.info.writeCache && !fixed ? 1 : 0;
  }

  /**
   * Whether the driver may write this. While one is at work it must have negotiated CONFIG_WCE, and cannot have a cache
   * without FLUSH. Before, its features are not known here: legacy drivers write first [virtio 5.2.5.3].
   */
  #maySwitchTo(value: 0 | 1): boolean {
    if (!hasFeature(this.offered, VIRTIO_BLK_F.CONFIG_WCE)) return false;
    if (this.#attached === 0 || this.#features === null) return true;
    return (
      hasFeature(this.#features, VIRTIO_BLK_F.CONFIG_WCE) &&
      (value === 0 || hasFeature(this.#features, VIRTIO_BLK_F.FLUSH))
    );
  }

  #written(value: 0 | 1): void {
    this.#writeback.written(value);
    this.#switchedBy = this.#attached > 0 ? 'driver' : 'next';
    this.#options.log(`the guest has switched the write cache ${value === 1 ? 'on' : 'off'}`);
  }

  #restore(done: () => void): void {
    this.#switchedBy = 'nobody';
    // If the flush fails the disk says so, and its writes stay strict: the device is reset all the same.
    this.#disk.restoreWriteCache(done);
  }

  #endSession(): void {
    this.#life += 1;
    this.#session?.end();
    this.#session = null;
    this.#toldSession = null;
    this.#caughtUp.clear();
    this.#behind = 0;
  }

  /** Has the session do what the driver believes, if the driver is shown anything. Once, for a flush may change it. */
  #tellSession(): void {
    const session = this.#session;
    if (session === null || !hasFeature(this.#features ?? 0n, VIRTIO_BLK_F.CONFIG_WCE)) return;
    let { belief } = this.#writeback;
    if (belief === 'doubtful' && this.#behind > 0) belief = 'off';
    if (belief === this.#toldSession) return;
    this.#toldSession = belief;
    session.cacheBelief = belief;
  }

  #listen(): void {
    this.#stopListening ??= this.#disk.onInfoChange(() => this.#announce());
  }

  /** Has the front-end read again, if what it was told is not so (any more). Not inside the call that changed it. */
  #announce(): void {
    if (this.#announcing) return;
    this.#announcing = true;
    this.#options.defer(() => {
      this.#announcing = false;
      if (this.#stopListening !== null && this.#isMistold()) this.onConfigChange?.();
    });
  }

  /** Who was told nothing has nothing to correct, unless its driver goes by the byte: that one was told by another. */
  #isMistold(): boolean {
    const { told } = this.#writeback;
    if (told !== null) return told !== this.#byte();
    return hasFeature(this.#features ?? 0n, VIRTIO_BLK_F.CONFIG_WCE);
  }
}

function offeredFeatures(disk: Disk, options: VirtioBlkOptions): bigint {
  const { info, mode } = disk;
  const bits: number[] = [
    VIRTIO_BLK_F.BARRIER,
    VIRTIO_BLK_F.SEG_MAX,
    VIRTIO_BLK_F.BLK_SIZE,
    VIRTIO_BLK_F.TOPOLOGY,
  ];
  if (options.queues > 1) bits.push(VIRTIO_BLK_F.MQ);
  if (!mode.ignoreFlush) bits.push(VIRTIO_BLK_F.FLUSH, VIRTIO_BLK_F.CONFIG_WCE);
  if (info.readOnly) bits.push(VIRTIO_BLK_F.RO);
  else bits.push(VIRTIO_BLK_F.WRITE_ZEROES);
  if (info.discard && !info.readOnly) bits.push(VIRTIO_BLK_F.DISCARD);
  // Without flushes there is no FUA to be had either.
  if (options.offerFua && !mode.ignoreFlush) {
    bits.push(VIRTIO_BLK_F.REQ_FLAGS, VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA);
  }
  return bits.reduce((features, bit) => features | (1n << BigInt(bit)), 0n);
}
