import type { BlockDevice, DeviceInfo } from '../block/device.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG, type Io, type IoOwner, OP } from '../block/io.ts';
import type { Disk } from './disk.ts';
import type { FlushWaiter } from './internal-flush.ts';

/** Who is at the other end of a session. */
export interface Peer {
  /** Whether it may have outlived a crash of this host: not so on a Unix socket or the loopback interface. */
  readonly resumable: boolean;
  /** Names the peer across connections and restarts: its address without the port, say. Unused if not resumable. */
  readonly key: string;
}

export interface SessionOptions {
  /** Whether the protocol has given this client a flush (NBD_FLAG_SEND_FLUSH, VIRTIO_BLK_F_FLUSH). */
  readonly flushes: boolean;
  readonly peer?: Peer;
}

/**
 * What a client takes the write cache for, where its protocol shows it a setting that may be out of date (the
 * `writeback` byte of virtio-blk, which front-ends cache; WCE of SCSI, which initiators read once and believe in over a
 * restart of the server). `off`: it may rely on every completed write. `doubtful`: it may, until a FLUSH shows that it
 * does not.
 */
export type CacheBelief = 'on' | 'doubtful' | 'off';

/** In `io.saved`: the caller's flags below, and this above them: the request is stable when the store completes it. */
const STABLE = 256;
const CALLER_FLAGS = 255;

let lastNumber = 0;

/**
 * One client's view of a disk, where the write cache is decided (P2, P3, P8, P9, P10). A write that must be stable
 * when it completes goes to the store with FUA. One that was submitted with the cache on and completes when it is off
 * is held back until a flush has covered it (I12).
 */
export class DiskSession implements BlockDevice, IoOwner, FlushWaiter {
  readonly #disk: Disk;
  /** Tells sessions apart in `io.source`: from 1, all over this thread. */
  readonly #number = (lastNumber += 1);
  readonly #flushes: boolean;
  readonly #untilFlush: boolean;
  readonly #ignoresFlush: boolean;
  /** The peer that may hold on to writes a crash of the host took, or null. */
  #doubtedPeer: string | null;
  #hasFlushed = false;
  #belief: CacheBelief = 'on';
  #ended = false;
  #left = false;
  #inFlight = 0;
  #shown: DeviceInfo | null = null;
  #shownFrom: DeviceInfo | null = null;

  /** For Disk only; others call `Disk.openSession`. */
  constructor(disk: Disk, options: SessionOptions) {
    this.#disk = disk;
    this.#flushes = options.flushes;
    this.#untilFlush = disk.mode.untilFlush;
    this.#ignoresFlush = disk.mode.ignoreFlush;
    const { peer } = options;
    this.#doubtedPeer =
      peer !== undefined && peer.resumable && disk.hasLost(peer.key) ? peer.key : null;
  }

  /** The disk's info; for a client without flush the write cache is off, because for it, it is. */
  get info(): DeviceInfo {
    const info = this.#disk.info;
    if (this.#shown === null || this.#shownFrom !== info) {
      this.#shownFrom = info;
      const writeCache = info.writeCache && (this.#flushes || this.#ignoresFlush);
      this.#shown = writeCache === info.writeCache ? info : Object.freeze({ ...info, writeCache });
    }
    return this.#shown;
  }

  /** `on` unless told otherwise: most protocols show no setting. A FLUSH turns `doubtful` into `on`. */
  get cacheBelief(): CacheBelief {
    return this.#belief;
  }

  /**
   * Other than `on`, this client's writes are stable when they complete, whatever the disk's setting (P3). What completed
   * before is not made stable by it: who tells a client that the cache is off has flushed, or it was off all along.
   */
  set cacheBelief(belief: CacheBelief) {
    this.#belief = belief;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Whoever comes next waits for what is in flight here: it has left, or has ended. */
  get left(): boolean {
    return this.#left;
  }

  /** Requests submitted and not completed. */
  get inFlight(): number {
    return this.#inFlight;
  }

  submit(io: Io): void {
    if (io.op === OP.FLUSH && !this.#ended) this.#flushAsked();
    this.#take(io);
  }

  /**
   * A FLUSH that is part of something else the client asked for, a read from the medium say. It covers what any FLUSH
   * covers, but does not show that the client flushes.
   */
  submitImplied(io: Io): void {
    this.#take(io);
  }

  #take(io: Io): void {
    if (this.#ended) {
      io.complete('ESHUTDOWN');
      return;
    }
    this.#inFlight += 1;
    io.source = this.#number;
    if (this.#left) this.#disk.requestOfLeft();
    const asked = io.flags;
    if (io.mutates) {
      if (this.#ignoresFlush) io.flags = asked & ~FLAG.FUA;
      else if ((asked & FLAG.BARRIER) !== 0 || this.#strict) io.flags = asked | FLAG.FUA;
      io.push(this, asked | ((io.flags & FLAG.FUA) === 0 ? 0 : STABLE));
    } else {
      io.push(this, asked | STABLE);
    }
    if (this.#doubtedPeer !== null && this.#failsOnce(io, asked)) this.#disk.gate.refuse(io, 'EIO');
    else this.#disk.gate.enter(io);
  }

  ioDone(io: Io): void {
    const asked = io.saved;
    io.flags = asked & CALLER_FLAGS;
    if ((asked & STABLE) === 0 && io.error === null && this.#strict && !this.#ignoresFlush) {
      io.push(this, asked | STABLE);
      this.#disk.flushes.flushFor(io, this);
      return;
    }
    this.#disk.tally.count(io);
    io.complete(io.error);
    this.#inFlight -= 1;
    this.#disk.requestDone(this, io);
  }

  /** The flush that a write was held back for is done. */
  flushDone(held: Io, error: BlockErrorCode | null): void {
    held.complete(error);
  }

  /** The client's device was reset: `until-flush` waits for a flush again. */
  reset(): void {
    this.#hasFlushed = false;
  }

  /**
   * The client is gone, or is being let go: no session that is opened later on this disk is handed out before `end`,
   * which follows, and before what is in flight has been completed (P11). The rest of requests that are under way is
   * still accepted until then: between two parts of one, nothing of it may be in flight.
   */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#disk.sessionLeft(this);
  }

  /**
   * The connection is dead: nothing more is accepted (ESHUTDOWN). What is in flight completes, and no session that is
   * opened later on this disk is handed out before it has (P11).
   */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#left) this.#disk.leftEnded(this);
    else this.leave();
  }

  /** Ends the session and resolves when nothing of it is in flight. */
  async close(): Promise<void> {
    this.end();
    if (this.#inFlight > 0) await this.#disk.whenQuiet(this);
  }

  /** Whether a mutation completing now has to be stable (P3, P9). */
  get #strict(): boolean {
    return (
      this.#disk.strict ||
      !this.#flushes ||
      this.#belief !== 'on' ||
      (this.#untilFlush && !this.#hasFlushed)
    );
  }

  #flushAsked(): void {
    this.#hasFlushed = true;
    if (this.#belief === 'doubtful') this.#belief = 'on';
    this.#disk.tally.flushesAsked += 1;
  }

  /**
   * P10: whether this is the request that tells the peer, once, that writes it holds for unstable are gone. A flush
   * or a barrier would claim them; a FUA write is how some clients commit.
   */
  #failsOnce(io: Io, asked: number): boolean {
    if (io.op !== OP.FLUSH && !(io.mutates && (asked & (FLAG.FUA | FLAG.BARRIER)) !== 0))
      return false;
    const peer = this.#doubtedPeer as string;
    this.#doubtedPeer = null;
    return this.#disk.tellLost(peer);
  }
}
