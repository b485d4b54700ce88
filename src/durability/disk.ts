import { assert } from '../base/assert.ts';
import { letEventLoopRun } from '../base/event-loop.ts';
import { flush } from '../block/await.ts';
import type { BlockDevice, DeviceInfo } from '../block/device.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { Io, OP } from '../block/io.ts';
import { BarrierGate } from './barrier-gate.ts';
import { diskTally, type DiskTally, RequestTally } from './disk-counters.ts';
import { DiskSession, type SessionOptions } from './disk-session.ts';
import type { FlushDomain } from './flush-domain.ts';
import { InternalFlushes } from './internal-flush.ts';
import { CACHE_MODES, type CacheMode } from './modes.ts';

/** What is known of peers whose unstable writes a crash of this host took (P10). DiskState is one. */
export interface ResumeGuard {
  /** Whether the peer `key` may hold on to writes that are gone and has not been told. */
  hasLost(key: string): boolean;
  /** The peer is being told now, by a failing flush. */
  told(key: string): void;
}

export interface DiskOptions {
  /** Keeps FUA and FLUSH itself, as the BlockDevice contract says. */
  readonly store: BlockDevice;
  readonly mode: CacheMode;
  /** The store's flush domain, for the counters and the state it shows; none where nothing has to be synced. */
  readonly domain?: FlushDomain;
  readonly resumeGuard?: ResumeGuard;
  /** One line for the operator, without the disk's name in front. */
  readonly log?: (line: string) => void;
}

/** Told the outcome of something an operator or a guest asked for. */
export type Outcome = (error: BlockErrorCode | null) => void;

interface Opening {
  readonly options: SessionOptions;
  readonly ready: (session: DiskSession) => void;
}

interface Quiet {
  /** Null: all sessions. */
  readonly session: DiskSession | null;
  readonly resolve: () => void;
}

/**
 * A disk as it is served: a store, a cache mode and the write cache enable bit (WCE), which clients may switch at run
 * time. All clients share the bit and the barrier; what is theirs alone is in their DiskSession.
 *
 * `until-flush` shows the write cache as on from the start, though a session's writes are stable when they complete
 * until its first flush: a guest that sees it off never sends the flush that would show that it can.
 */
export class Disk {
  readonly store: BlockDevice;
  readonly mode: (typeof CACHE_MODES)[CacheMode];
  /** Null where the store has nothing to sync. */
  readonly domain: FlushDomain | null;
  /** For DiskSession. */
  readonly tally: RequestTally = new RequestTally();
  /** For DiskSession. */
  readonly flushes: InternalFlushes;
  /** For DiskSession. */
  readonly gate: BarrierGate;
  readonly #guard: ResumeGuard | null;
  readonly #log: (line: string) => void;
  readonly #sessions = new Set<DiskSession>();
  readonly #opening: Opening[] = [];
  readonly #quiet: Quiet[] = [];
  readonly #listeners = new Set<(info: DeviceInfo) => void>();
  #info: DeviceInfo | null = null;
  #infoFrom: DeviceInfo | null = null;
  /** WCE as shown. */
  #writeCache: boolean;
  /** WCE is off, or was to be and the flush for it failed. */
  #strict: boolean;
  /** Counts switches to on, so that the flush of an earlier switch to off does not undo one. */
  #switchedOn = 0;
  /** Sessions that have left and may still submit the rest of requests (P11). */
  readonly #leaving = new Set<DiskSession>();
  /** Requests in flight of sessions that have left (P11). */
  #leftInFlight = 0;
  #closed = false;
  /** Nobody gets a session: the power is off. */
  #held = false;
  #allGone: (() => void)[] = [];

  constructor(options: DiskOptions) {
    this.store = options.store;
    this.mode = CACHE_MODES[options.mode];
    this.domain = options.domain ?? null;
    this.flushes = new InternalFlushes(options.store);
    this.gate = new BarrierGate(options.store, this.flushes, this.mode.ignoreFlush);
    this.#guard = options.resumeGuard ?? null;
    this.#log = options.log ?? (() => {});
    this.#writeCache = this.mode.writeCache;
    this.#strict = !this.mode.writeCache;
  }

  /** The store's, with the write cache as it is now. A new object whenever something changes. */
  get info(): DeviceInfo {
    const from = this.store.info;
    if (this.#info === null || this.#infoFrom !== from) {
      this.#infoFrom = from;
      this.#info = Object.freeze({
        ...from,
        writeCache: this.#writeCache,
        ignoresFlush: this.mode.ignoreFlush,
      });
    }
    return this.#info;
  }

  /** Whether mutations completing now have to be stable, for every session. */
  get strict(): boolean {
    return this.#strict;
  }

  get counters(): DiskTally {
    return diskTally(this.tally, this.domain);
  }

  /** Calls `listener` with the new info after every change of the write cache. Returns what undoes it. */
  onInfoChange(listener: (info: DeviceInfo) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Opens a session; `ready` gets it at once, or when those that have left have ended and their last request is done
   * (P11). After `close` it gets one that has ended.
   */
  openSession(options: SessionOptions, ready: (session: DiskSession) => void): void {
    this.#opening.push({ options, ready });
    this.#handOut();
  }

  /**
   * Switches the write cache (P4). Off: from now on writes are stable when they complete, and `done(null)` follows a
   * flush of all that came before; if that fails, `done` says so, the info still says on, and writes stay strict. On:
   * at once. ECANCELED: it was switched on again before the flush was done. EOPNOTSUPP: `unsafe` cannot promise it.
   */
  setWriteCache(enabled: boolean, done: Outcome): void {
    if (enabled) {
      this.#switchedOn += 1;
      this.#strict = false;
      this.#show(true);
      done(null);
    } else if (this.mode.ignoreFlush) {
      done('EOPNOTSUPP');
    } else if (this.#strict && !this.#writeCache) {
      done(null);
    } else {
      this.#strict = true;
      const before = this.#switchedOn;
      this.#flushForSwitch((error) => {
        const overtaken = this.#switchedOn !== before;
        if (error !== null)
          this.#log(`the write cache stays on: the flush before it failed (${error})`);
        else if (!overtaken) this.#show(false);
        done(error === null && overtaken ? 'ECANCELED' : error);
      });
    }
  }

  /** A reset or a new login: the write cache goes back to what the mode says, the same way. */
  restoreWriteCache(done: Outcome): void {
    this.setWriteCache(this.mode.writeCache, done);
  }

  /**
   * Ends all sessions, waits for what is in flight, flushes (not in `unsafe`) and closes the store. Rejects with a
   * BlockError if that flush fails; the store is closed even so. A domain stopped for its operator fails what it has
   * parked, for all exports that share it: who shuts down waits for nobody.
   */
  async close(): Promise<void> {
    assert(!this.#closed, 'a disk is closed twice');
    this.#closed = true;
    for (const session of [...this.#sessions, ...this.#leaving]) session.end();
    this.domain?.setPolicy('poison');
    this.domain?.fail();
    if (this.#leftInFlight > 0) await this.whenQuiet(null);
    try {
      if (!this.mode.ignoreFlush) await flush(this.store);
    } finally {
      await this.store.close();
    }
  }

  /**
   * A simulated power cut: sessions that were handed out are the caller's to end; new ones wait until `handOutSessions`.
   */
  holdSessions(): void {
    this.#held = true;
  }

  handOutSessions(): void {
    this.#held = false;
    this.#handOut();
  }

  /** Resolves when those that have left have ended, and nothing of theirs is in flight. */
  async whenAllGone(): Promise<void> {
    if (this.#nobodyLeaves) return;
    await new Promise<void>((resolve) => {
      this.#allGone.push(resolve);
    });
  }

  /** For DiskSession: it is done with one request. */
  requestDone(session: DiskSession, io: Io): void {
    this.gate.leave(io);
    if (!session.left) return;
    this.#leftInFlight -= 1;
    this.#settleQuiet();
    this.#handOut();
  }

  /** For DiskSession. */
  sessionLeft(session: DiskSession): void {
    this.#sessions.delete(session);
    if (!session.ended) this.#leaving.add(session);
    this.#leftInFlight += session.inFlight;
  }

  /** For DiskSession: it left earlier, and submits nothing more. */
  leftEnded(session: DiskSession): void {
    this.#leaving.delete(session);
    this.#handOut();
  }

  /** For DiskSession: another part of what is under way, of a session that has left. */
  requestOfLeft(): void {
    this.#leftInFlight += 1;
  }

  /** For DiskSession: resolves when the session, or for null every session, has nothing in flight. */
  whenQuiet(session: DiskSession | null): Promise<void> {
    return new Promise((resolve) => {
      this.#quiet.push({ session, resolve });
    });
  }

  /** For DiskSession. */
  hasLost(peer: string): boolean {
    return this.#guard?.hasLost(peer) ?? false;
  }

  /** For DiskSession: true the first time; the caller fails the request then. */
  tellLost(peer: string): boolean {
    if (!this.hasLost(peer)) return false;
    this.#guard?.told(peer);
    this.#log(
      `this host crashed while writes were unstable; ${peer} is told once, by a failing flush, that its may be lost`,
    );
    return true;
  }

  get #nobodyLeaves(): boolean {
    return this.#leaving.size === 0 && this.#leftInFlight === 0;
  }

  #handOut(): void {
    if (this.#allGone.length > 0 && this.#nobodyLeaves) {
      for (const resolve of this.#allGone.splice(0)) resolve();
      letEventLoopRun();
    }
    while (this.#nobodyLeaves && (!this.#held || this.#closed)) {
      const next = this.#opening.shift();
      if (next === undefined) return;
      const session = new DiskSession(this, next.options);
      if (this.#closed) session.end();
      else this.#sessions.add(session);
      next.ready(session);
    }
  }

  #settleQuiet(): void {
    for (let i = this.#quiet.length - 1; i >= 0; i -= 1) {
      const { session, resolve } = this.#quiet[i] as Quiet;
      if ((session === null ? this.#leftInFlight : session.inFlight) > 0) continue;
      this.#quiet.splice(i, 1);
      resolve();
      letEventLoopRun();
    }
  }

  #show(writeCache: boolean): void {
    if (this.#writeCache === writeCache) return;
    this.#writeCache = writeCache;
    this.#info = null;
    for (const listener of this.#listeners) listener(this.info);
  }

  #flushForSwitch(done: Outcome): void {
    const io = new Io();
    io.reset(OP.FLUSH, 0, 0, 0);
    io.push({ ioDone: (flushed) => done(flushed.error) });
    this.store.submit(io);
  }
}
