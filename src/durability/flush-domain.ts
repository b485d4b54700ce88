import { assert } from '../base/assert.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG, type Io } from '../block/io.ts';
import { IoRing } from './io-ring.ts';
import type { SyncErrorPolicy } from './modes.ts';
import { TouchedRegions } from './touched-regions.ts';

// The flush domain: what one sync of the host covers (an inode, an upstream), and who waits for it.
//
// Two counters carry all of it. `completed` counts mutations the host has done, whatever their outcome; `durable` is
// the highest `completed` known to be stable. A flush needs `durable >= completed at its receipt`, and nothing else
// decides when it is answered. What holds at every moment:
//
//   I1  Coverage: a flush is answered with success only when durable >= its need.
//   I2  A sync covers what was completed when it was started: `covers` is sampled in the same tick, just before.
//   I3  A waiter whose need <= covers of the running sync is answered by it, when it ends and not before.
//   I4  Only success moves `durable`. A failed sync marks nothing clean.
//   I5  Emulated FUA: the need is sampled after the write's own bump.
//   I6  Every op that changes data bumps: write, zeroes, discard, also when it failed (it may have changed something).
//   I7  One domain for one stable domain: DomainRegistry joins two exports of one inode.
//   I8  The bump comes before the reply, the need after the receipt. One thread, so program order is enough.
//   I9  A sync is left out only when durable >= need. Counters, never booleans: a flag cleared after the sync forgets
//       the write that completed during it; cleared before, it answers the second flush before the first has ended.
//   I10 A failed sync fails (or parks) all that wait, and is not asked again: on Linux the pages it lost are clean now.
//   I11 Poison stays, across sessions and restarts (`onPoisoned`, `restorePoison`), until an operator acts.
//   I12 Strictness is decided at completion too: see disk-session.ts.
//   I13 One long-lived descriptor syncs, for the target to keep: Linux reports a write-back error once per open file
//       description (errseq).
//   I14 Nothing acknowledged lives in our memory alone: completed means that the host has it.
//
// At most one sync runs. A local file system serves one fastest (its journal commits in series anyway), and it makes
// groups: whatever arrives meanwhile shares the next. A store over a network could hide latency with several; then
// `covers` becomes a list and a waiter is answered by the first success that covers it. Not built before it is needed.

/** Does the syncing for a domain: fdatasync(2) on one long-lived descriptor, an upstream flush. */
export interface SyncTarget {
  /** Starts a sync of everything completed before the call; `FlushDomain.synced` is called once when it ends. */
  startSync(): void;
}

/** Who goes on with a mutation that `admit` held back. */
export interface AdmitOwner {
  /** The mutation may be done now. It is not asked of `admit` again. */
  admitted(io: Io): void;
}

/** Said once, when something is on stable storage: null, or why it could not be recorded. */
export type Recorded = (error: BlockErrorCode | null) => void;

export interface FlushDomainOptions {
  readonly target: SyncTarget;
  /** Of the disk, so that flushes of a range can be told apart; without it they are flushes of everything. */
  readonly sizeBytes?: number;
  /** What a failed sync leads to; `poison` unless said otherwise. */
  readonly policy?: SyncErrorPolicy;
  /**
   * Runs a call-back after the current batch (Reactor.defer). With it a sync starts after everything of the batch has
   * been counted, so that completions and flushes that arrived together share it. Without it a sync starts at once.
   */
  readonly defer?: (callback: () => void) => void;
  /**
   * The first mutation that will be acknowledged before it is stable is held back until `recorded(null)`: the disk's
   * state file says "not clean" by then (P10). With an error the mutations held back fail with it, and the next one
   * asks again.
   */
  readonly onFirstVolatile?: (recorded: Recorded) => void;
  /**
   * A sync failed. Nobody is told before `recorded` is called, so that whoever was told gets the same answer after a
   * restart. Recording that fails is the caller's to report; the domain goes on, poisoned in memory.
   */
  readonly onPoisoned?: (error: BlockErrorCode, recorded: Recorded) => void;
  /** An operator resumed: the recorded poison can be cleared. */
  readonly onResumed?: () => void;
}

/** Since the start. Flushes are FLUSH requests, the ones we ask of ourselves (WCE switch, barrier) included. */
export class DomainCounters {
  /** FLUSH requests. */
  asked = 0;
  /** Flushes and emulated FUA writes that waited for a sync already running that covered them. */
  joined = 0;
  /** Flushes and emulated FUA writes that shared the start of a sync with at least one other. */
  merged = 0;
  /** Flushes that needed no sync. */
  leftOut = 0;
  /** Of these, flushes of a range on a disk that has unstable data elsewhere. */
  rangeLeftOut = 0;
  syncs = 0;
  syncsFailed = 0;
  /** FUA writes stable by themselves. */
  fuaNative = 0;
  /** FUA writes made stable by a sync after them. */
  fuaEmulated = 0;
}

/**
 * well: as it should be. recording: a sync failed, and that is being written down. stopped: I/O is parked for the
 * operator. poisoned: what needs stability fails.
 */
export type DomainHealth = 'well' | 'recording' | 'stopped' | 'poisoned';

export class FlushDomain {
  readonly counters: DomainCounters = new DomainCounters();
  readonly #target: SyncTarget;
  readonly #options: FlushDomainOptions;
  /** Who waits for `durable`, by need and then by arrival. */
  readonly #waiters = new IoRing<number>();
  /** Mutations held back. */
  readonly #parked = new IoRing<AdmitOwner>();
  readonly #startSyncs: () => void;
  readonly #regions: TouchedRegions;
  #policy: SyncErrorPolicy;
  #completed = 0;
  #durable = 0;
  #bytesCompleted = 0;
  #bytesDurable = 0;
  #writesCompleted = 0;
  #writesDurable = 0;
  #running = false;
  /** What the running sync covers. */
  #covers = 0;
  #bytesCovers = 0;
  #writesCovers = 0;
  /** A start waits for the end of the batch. */
  #scheduled = false;
  #starting = false;
  #waking = false;
  #health: DomainHealth = 'well';
  #error: BlockErrorCode | null = null;
  #volatile: 'unrecorded' | 'recording' | 'recorded';
  /** Mutations pass without a look: the state of nearly all of them. */
  #open: boolean;

  constructor(options: FlushDomainOptions) {
    this.#options = options;
    this.#target = options.target;
    this.#regions = new TouchedRegions(options.sizeBytes ?? 0);
    this.#policy = options.policy ?? 'poison';
    this.#volatile = options.onFirstVolatile === undefined ? 'recorded' : 'unrecorded';
    this.#open = this.#volatile === 'recorded';
    this.#startSyncs = () => {
      this.#scheduled = false;
      this.#start();
    };
  }

  /** Mutations done so far. */
  get completed(): number {
    return this.#completed;
  }

  /** The highest `completed` known stable. */
  get durable(): number {
    return this.#durable;
  }

  /** Mutations done and not yet known stable. Those that were stable by themselves are not among them. */
  get unstableWrites(): number {
    return this.#writesCompleted - this.#writesDurable;
  }

  /** An upper bound of their bytes: a block written twice counts twice. */
  get unstableBytes(): number {
    return this.#bytesCompleted - this.#bytesDurable;
  }

  /** Flushes and FUA writes waiting, those of the running sync included. */
  get waiting(): number {
    return this.#waiters.count;
  }

  get syncing(): boolean {
    return this.#running;
  }

  get health(): DomainHealth {
    return this.#health;
  }

  /** A sync failed and no operator has acted: in any policy, and before it has been written down. */
  get poisoned(): boolean {
    return this.#health !== 'well';
  }

  /** What the failed sync said, as long as the domain is poisoned. */
  get error(): BlockErrorCode | null {
    return this.#error;
  }

  /** Everything done is stable, and nobody waits: the state file may say so. */
  get clean(): boolean {
    return (
      this.#durable === this.#completed && this.#waiters.count === 0 && this.#health === 'well'
    );
  }

  setPolicy(policy: SyncErrorPolicy): void {
    this.#policy = policy;
  }

  /**
   * Asked for every mutation before it is done. True: do it. False: the domain has it, and either failed it or gives it
   * to `owner.admitted` later.
   */
  admit(io: Io, owner: AdmitOwner): boolean {
    return this.#open || this.#admitSlowly(io, owner);
  }

  /**
   * A mutation of the bytes from `offset` on is done, with success or without, and the reply has not been sent. Returns
   * its number, the need of an emulated FUA.
   */
  mutated(offset: number, bytes: number): number {
    this.#completed += 1;
    this.#bytesCompleted += bytes;
    this.#writesCompleted += 1;
    this.#regions.touch(offset, bytes, this.#completed);
    return this.#completed;
  }

  /**
   * A mutation is done that was stable by itself (RWF_DSYNC). It is counted as a mutation all the same: that its data
   * are stable is known, that no other change rode on it is not, and one sync too many is cheap. Failed with EIO, it
   * poisons like a sync: it was one.
   */
  mutatedNative(offset: number, bytes: number, error: BlockErrorCode | null): void {
    this.mutated(offset, bytes);
    if (error === null) {
      this.#bytesCompleted -= bytes;
      this.#writesCompleted -= 1;
    }
    this.counters.fuaNative += 1;
    if (error === 'EIO' && this.#health === 'well') this.#failed(error);
  }

  /** FLUSH: completes `io` when everything completed by now is stable; with a range, everything in that range. */
  flush(io: Io): void {
    this.counters.asked += 1;
    const need = io.length === 0 ? this.#completed : this.#regions.latest(io.offset, io.length);
    const { leftOut } = this.counters;
    this.#await(io, need);
    if (need < this.#completed && this.counters.leftOut > leftOut) this.counters.rangeLeftOut += 1;
  }

  /** Emulated FUA: completes `io` when the mutation number `need`, as `mutated` returned it, is stable. */
  flushTo(io: Io, need: number): void {
    this.counters.fuaEmulated += 1;
    this.#await(io, need);
  }

  /** The sync that the target was asked to start has ended. */
  synced(error: BlockErrorCode | null): void {
    assert(this.#running, 'a sync ended that was not started');
    this.#running = false;
    if (error !== null) {
      this.counters.syncsFailed += 1;
      if (this.#health === 'well') this.#failed(error);
      return;
    }
    this.#durable = this.#covers;
    this.#bytesDurable = this.#bytesCovers;
    this.#writesDurable = this.#writesCovers;
    this.#wake();
  }

  /** What the target was to make stable without a sync of everything, a range say, could not be: as a failed sync. */
  failedOutside(error: BlockErrorCode): void {
    this.counters.syncsFailed += 1;
    if (this.#health === 'well') this.#failed(error);
  }

  /** At open: a sync failed in an earlier run, and no operator has acted since. */
  restorePoison(error: BlockErrorCode): void {
    assert(this.#completed === 0 && !this.#running, 'poison is restored before the first request');
    this.#error = error;
    this.#setHealth(this.#policy === 'stop' ? 'stopped' : 'poisoned');
  }

  /**
   * The operator says: what the failed sync lost is repaired, or I accept the loss. Nothing is written again and
   * nothing is marked clean. Parked mutations go on, and flushes get a sync of what the host still holds; its success
   * says nothing of what was lost before, which is what the operator took upon himself.
   */
  resume(): void {
    assert(this.#health !== 'recording', 'resumed before the failure was recorded');
    if (this.#health === 'well') return;
    this.#error = null;
    this.#setHealth('well');
    this.#options.onResumed?.();
    this.#releaseParked();
    this.#wake();
  }

  /** The operator gives up on a stopped domain: all that is parked fails, and so does what comes. */
  fail(): void {
    if (this.#health !== 'stopped') return;
    this.#setHealth('poisoned');
    this.#failAll();
  }

  #setHealth(health: DomainHealth): void {
    this.#health = health;
    this.#open = health === 'well' && this.#volatile === 'recorded';
  }

  #await(io: Io, need: number): void {
    assert(need <= this.#completed, 'a flush needs more than was completed');
    if (this.#health === 'poisoned') {
      io.complete('EIO');
      return;
    }
    if (this.#health === 'well' && this.#durable >= need) {
      this.counters.leftOut += 1;
      io.complete(null);
      return;
    }
    if (this.#running && need <= this.#covers) this.counters.joined += 1;
    this.#waiters.push(io, need);
    // Needs arrive in order, but for ranges and callers that held their own back: those go before what needs more.
    for (let i = this.#waiters.count - 1; i > 0 && this.#waiters.tagAt(i - 1) > need; i -= 1) {
      this.#waiters.swapBack(i);
    }
    this.#kick();
  }

  /** Whether a sync is to be started: nothing runs, and the waiter with the highest need is not covered. */
  #due(): boolean {
    if (this.#running || this.#health !== 'well') return false;
    const count = this.#waiters.count;
    return count > 0 && this.#waiters.tagAt(count - 1) > this.#durable;
  }

  #kick(): void {
    if (this.#waking || this.#starting || this.#scheduled || !this.#due()) return;
    if (this.#options.defer === undefined) {
      this.#start();
      return;
    }
    this.#scheduled = true;
    this.#options.defer(this.#startSyncs);
  }

  /** A loop, because a target may end its sync inside `startSync`, which may bring the next. */
  #start(): void {
    this.#starting = true;
    while (this.#due()) {
      const group = this.#waiters.count;
      if (group > 1) this.counters.merged += group;
      this.counters.syncs += 1;
      this.#running = true;
      this.#covers = this.#completed;
      this.#bytesCovers = this.#bytesCompleted;
      this.#writesCovers = this.#writesCompleted;
      this.#target.startSync();
    }
    this.#starting = false;
  }

  /** Answers all that `durable` covers. What they bring in turn is started after the last has been answered. */
  #wake(): void {
    if (this.#waking) return;
    this.#waking = true;
    while (this.#waiters.count > 0 && this.#waiters.tagAt(0) <= this.#durable) {
      if (this.#health !== 'well') break;
      this.#waiters.shift().complete(null);
    }
    this.#waking = false;
    this.#kick();
  }

  #failed(error: BlockErrorCode): void {
    this.#error = error;
    this.#setHealth('recording');
    const { onPoisoned } = this.#options;
    if (onPoisoned === undefined) this.#failureRecorded();
    else onPoisoned(error, () => this.#failureRecorded());
  }

  #failureRecorded(): void {
    if (this.#health !== 'recording') return;
    if (this.#policy === 'stop') {
      this.#setHealth('stopped');
      return;
    }
    this.#setHealth('poisoned');
    this.#failAll();
  }

  /** Fails the waiters and the parked, in order. An operator may resume meanwhile: then the rest goes on. */
  #failAll(): void {
    while (this.#health === 'poisoned' && this.#waiters.count > 0)
      this.#waiters.shift().complete('EIO');
    while (this.#health === 'poisoned' && this.#parked.count > 0)
      this.#parked.shift().complete('EIO');
  }

  #admitSlowly(io: Io, owner: AdmitOwner): boolean {
    if (this.#health === 'poisoned') {
      // Plain writes too: what can never be made stable is better refused while the guest can still act on it.
      io.complete('EIO');
      return false;
    }
    // Stable when acknowledged: a crash cannot take it back, so there is nothing to record for it.
    if (this.#health === 'well' && (io.flags & FLAG.FUA) !== 0) return true;
    this.#parked.push(io, owner);
    if (this.#health === 'well' && this.#volatile === 'unrecorded') {
      this.#volatile = 'recording';
      this.#options.onFirstVolatile?.((error) => this.#volatileRecorded(error));
    }
    return false;
  }

  #volatileRecorded(error: BlockErrorCode | null): void {
    if (error === null) {
      this.#volatile = 'recorded';
      this.#setHealth(this.#health);
      this.#releaseParked();
      return;
    }
    this.#volatile = 'unrecorded';
    for (let left = this.#parked.count; left > 0 && this.#parked.count > 0; left -= 1) {
      this.#parked.shift().complete(error);
    }
  }

  #releaseParked(): void {
    for (let left = this.#parked.count; left > 0 && this.#parked.count > 0; left -= 1) {
      if (this.#health !== 'well') return;
      const owner = this.#parked.tagAt(0);
      const io = this.#parked.shift();
      // After a resume the state file may still have to be told first.
      if (this.admit(io, owner)) owner.admitted(io);
    }
  }
}
