// How a FUA write is kept on a host that offers both ways:
//
//   native    write with RWF_DSYNC: the kernel writes these pages, commits what finds them again, and flushes the
//             drive. Drags nobody else's data along, and one system call does it. But each one is a drive flush of its own.
//   emulated  write into the cache, then the flush domain's sync: N writes and flushes that come together share it. But
//             fdatasync(2) writes the whole file's unstable data, and a write that meets a running sync waits for its
//             end and then for the next.
//
// Neither wins always. A lone commit writer beside a bulk writer with a gigabyte unstable must not wait for the
// gigabyte (native); sixty-four commit writers must not flush the drive sixty-four times (emulated). Where the
// balance lies depends on the file system and the drive, so it is measured, with the load as it is: latencies are
// fitted as base + slope * bytes, recent ones weighing most. The estimates are then what each way costs all who wait:
//
//   native    own latency, and because a drive does its flushes nearly one after the other, half of it again for each
//             other that waits (up to a limit: they too are merged somewhere below)
//   emulated  one sync of what is unstable, and half a sync more when others wait, for the one that runs already
//
// An estimate nobody renews grows old, and the gain of sharing shows only when several share. So now and then a run of
// consecutive writes goes the other way. It is counted, not drawn: the same requests give the same choices.
//
// Whichever way: a native write bumps `completed` and never moves `durable` (FlushDomain.mutatedNative), since what
// it made stable is its own. Native writes belong on an open file description of their own: the kernel reports a
// write-back error once per description, and a RWF_DSYNC write on the sync's would eat the error that the next
// fdatasync has to report.

/** Weight of the newest measurement: about the last sixteen count. */
const NEWEST = 1 / 16;
/** Until both ways have this many measurements, the one with fewer is taken. */
const FIRST_SAMPLES = 4;
/** One choice cycle, and the exploration at its end: under 2 % of writes go the way that seems worse. */
const EXPLORE_EVERY = 1024;
const EXPLORE_RUN = 16;
/** Others waiting that are counted at most. */
const MAX_SHARERS = 16;

/** Latency over bytes, fitted as a line to recent measurements. Pure arithmetic, no allocation. */
export class LatencyModel {
  #samples = 0;
  #bytes = 0;
  #ms = 0;
  #bytesSquared = 0;
  #product = 0;

  get samples(): number {
    return this.#samples;
  }

  observe(ms: number, bytes: number): void {
    // The first few are averaged plainly, or the very first would weigh for long.
    this.#samples += 1;
    const weight = Math.max(NEWEST, 1 / this.#samples);
    this.#ms += weight * (ms - this.#ms);
    this.#bytes += weight * (bytes - this.#bytes);
    this.#bytesSquared += weight * (bytes * bytes - this.#bytesSquared);
    this.#product += weight * (bytes * ms - this.#product);
  }

  /** Milliseconds expected for `bytes`; never negative, and never less for more bytes. */
  estimate(bytes: number): number {
    const variance = this.#bytesSquared - this.#bytes * this.#bytes;
    const covariance = this.#product - this.#bytes * this.#ms;
    // Measurements of nearly one size say nothing of the slope.
    const varied = variance > 0.01 * this.#bytesSquared;
    const slope = varied ? Math.max(0, covariance / variance) : 0;
    return Math.max(0, this.#ms + slope * (bytes - this.#bytes));
  }
}

/** Chooses per write. One per flush domain; its owner reports what it measures. */
export class FuaChooser {
  readonly #native = new LatencyModel();
  readonly #sync = new LatencyModel();
  #choices = 0;

  /**
   * Whether a FUA write of `length` bytes should be made stable by itself.
   * `othersWaiting`: flushes and FUA writes that wait for a sync (FlushDomain.waiting).
   * `unstableBytes`: what a sync would write (FlushDomain.unstableBytes), this write not included.
   */
  preferNative(length: number, othersWaiting: number, unstableBytes: number): boolean {
    if (this.#native.samples < FIRST_SAMPLES || this.#sync.samples < FIRST_SAMPLES) {
      return this.#native.samples <= this.#sync.samples;
    }
    const others = Math.min(othersWaiting, MAX_SHARERS);
    const native = this.#native.estimate(length) * (1 + others / 2);
    const emulated = this.#sync.estimate(unstableBytes + length) * (others > 0 ? 1.5 : 1);
    const better = native <= emulated;
    this.#choices += 1;
    const exploring = this.#choices % EXPLORE_EVERY >= EXPLORE_EVERY - EXPLORE_RUN;
    return exploring ? !better : better;
  }

  /** A native FUA write of `bytes` took `ms` from start to completion. */
  observedNative(ms: number, bytes: number): void {
    this.#native.observe(ms, bytes);
  }

  /** A sync took `ms` from start to end; `bytes` were unstable when it started. */
  observedSync(ms: number, bytes: number): void {
    this.#sync.observe(ms, bytes);
  }
}
