import type { Media } from './media.ts';
import type { Op, OracleSession } from './ops.ts';

/** Stops a run: what was promised was not kept. */
export class Violation extends Error {
  override readonly name: string = 'Violation';
}

export interface OracleTraits {
  /** Judges by what clients and power cuts show alone. */
  readonly blind: boolean;
  readonly ignoresFlush: boolean;
  readonly untilFlush: boolean;
  /** Whether a server that starts after a power cut now would notice that something was unstable. */
  readonly recordsUnclean: () => boolean;
  /** Whether a server that starts now would know of a failed sync. */
  readonly recordsPoison: () => boolean;
}

const EIO = 5;

/**
 * Knows of every request when it was asked and when it was answered, and judges each answer by the promises P1 to P11 of
 * the durability page: what a read may return, what must be stable the moment its acknowledgement leaves the server, and
 * what a power cut may have left.
 */
export class Oracle {
  tick = 0;
  readonly ops = new Map<number, Op>();
  /** Facts for the run's summary. */
  readonly seen = { acked: 0, flushed: 0, failed: 0, reads: 0, crashes: 0, told: 0 };
  /** Parts of mutations are seen at their sessions, not only at the store. */
  submitsAtSession = false;
  /** Answers that virtual machines could see. */
  guests = 0;
  /** Answers to initiators. */
  initiators = 0;
  /** Answers to programs that use a mount. */
  programs = 0;
  /** WCE as the operator last asked for it. */
  writeCache = true;
  readonly #media: Media;
  readonly #traits: OracleTraits;
  /** Per sector, every mutation that may be what it holds. */
  readonly #history: Op[][];
  /** Acknowledged mutations not yet seen stable. */
  #unstable = new Set<Op>();
  /** Tick of a failed sync that no operator has acted upon. */
  #failedAt = Infinity;
  /** What the media held when a sync last failed: versions up to this may be lost. */
  #failedOrder = -1;
  #resolvedAt = -1;
  /** Peers that believe in writes that a crash of the host took, and must be told (P10). */
  readonly #mustTell = new Set<string>();
  /** Peers that may be told once by this process. */
  #mayTell: (peer: string) => boolean = () => false;
  readonly #toldNow = new Set<string>();
  readonly #sessions = new Set<OracleSession>();
  /** Of those that barriers put in order: the newest arrival that has changed the disk, and the newest barrier's. */
  #lastApplied = -1;
  #lastBarrier = -1;

  constructor(media: Media, traits: OracleTraits) {
    this.#media = media;
    this.#traits = traits;
    this.#history = Array.from({ length: media.sectors }, () => []);
  }

  /** The first violation; kept, because what is thrown into the server's own calls may not come out of them. */
  failure: Violation | null = null;

  fail(text: string): never {
    this.note(text);
    throw this.failure as Violation;
  }

  note(text: string): void {
    this.failure ??= new Violation(text);
  }

  /** A sync has failed, at any time so far. */
  get everFailed(): boolean {
    return this.#failedOrder >= 0;
  }

  /** Judges by what clients, guests and power cuts show alone. */
  get blind(): boolean {
    return this.#traits.blind;
  }

  get poisoned(): boolean {
    return this.#failedAt !== Infinity;
  }

  // Sessions

  opened(session: OracleSession): void {
    this.#sessions.add(session);
  }

  goArrived(session: OracleSession): void {
    this.tick += 1;
    session.goArrivedAt = this.tick;
  }

  gone(session: OracleSession): void {
    this.tick += 1;
    if (session.goneAt === Infinity) session.goneAt = this.tick;
    this.#mayHaveTold(session);
  }

  /** The answer that tells a peer of its loss may be the one that it did not stay for. */
  #mayHaveTold(session: OracleSession): void {
    for (const op of this.ops.values()) {
      if (op.answered || op.session !== session || op.arrivedAt === Infinity) continue;
      if (op.kind === 'flush' || op.fua) this.#mustTell.delete(session.peerKey);
    }
  }

  /** The server has let a client in: what was asked on connections that were dead by then is over (P11). */
  served(session: OracleSession): void {
    this.tick += 1;
    for (const op of this.ops.values()) {
      if (!op.answered && op.session.goneAt < session.goArrivedAt) {
        op.endedAt = Math.min(op.endedAt, this.tick);
      }
    }
  }

  /**
   * The driver was reset, and was told so: what it had asked has no effect any more. `gone`: the server knows that what
   * comes is another one.
   */
  reset(session: OracleSession, ops: Iterable<Op>, gone: boolean): void {
    this.tick += 1;
    if (gone) this.gone(session);
    for (const op of ops) op.endedAt = Math.min(op.endedAt, this.tick);
  }

  /** A client goes on over a new connection. */
  reconnected(session: OracleSession): void {
    session.firstFlushAt = Infinity;
  }

  /** A client begins to rely on every write that was completed for it, or ends that. */
  believes(session: OracleSession, through: boolean): void {
    this.tick += 1;
    const begins = through && !session.believesThrough;
    session.believesThrough = through;
    // After a failed sync nothing is stable, and all that needs to be fails: who was told so counts on nothing.
    if (!begins || this.#traits.ignoresFlush || this.poisoned) return;
    for (const op of this.#unstable) {
      if (op.session !== session || !op.definite) continue;
      this.#requireStable(op, 'P4: the guest was told that the cache is off');
      op.guaranteed = true;
      this.#unstable.delete(op);
    }
  }

  // Requests

  asked(op: Op): void {
    this.ops.set(op.id, op);
    if (!op.mutates) return;
    for (let i = op.first; i < op.first + op.sectors; i += 1) (this.#history[i] as Op[]).push(op);
  }

  arrived(op: Op): void {
    this.tick += 1;
    if (op.answered) this.fail(`${op.text}: carried out again after its answer`);
    // What a process did before it died counts no more.
    op.parts = 0;
    op.cameLoose = false;
    op.leftLoose = false;
    op.arrivedAt = Math.min(op.arrivedAt, this.tick);
    op.lastArrivedAt = this.tick;
    // An initiator may be told while its data is still to come: what counts is what it believes when it is answered.
    op.through = !op.split && !op.streamed && op.session.believesThrough;
    if (op.kind === 'flush') {
      op.session.firstFlushAt = Math.min(op.session.firstFlushAt, this.tick);
    }
  }

  /** The answer left the server. READ data are judged apart, by `readReturned`. */
  answered(op: Op, error: number): void {
    this.tick += 1;
    if (op.answered) this.fail(`${op.text}: answered twice`);
    if (op.arrivedAt === Infinity) this.fail(`${op.text}: answered before it was asked`);
    op.answered = true;
    op.error = error;
    op.endedAt = Math.min(op.endedAt, this.tick);
    if (error !== 0) this.seen.failed += 1;
    if (op.kind === 'flush') this.#flushAnswered(op);
    else if (op.mutates) this.#mutationAnswered(op);
    else {
      this.ops.delete(op.id);
      if (op.fua) this.#stableReadAnswered(op);
    }
  }

  /** READ with FUA: what was acknowledged before is not only in a cache. */
  #stableReadAnswered(op: Op): void {
    if (op.error === EIO) this.#judgeFailure(op, false);
    if (op.error !== 0 || this.#traits.ignoresFlush || this.poisoned) return;
    this.#settle(`P2: ${op.text} succeeded`, op.lastArrivedAt, op);
  }

  #mutationAnswered(op: Op): void {
    if (op.error !== 0) {
      if (op.fua && op.error === EIO) this.#judgeFailure(op, true);
      return;
    }
    this.seen.acked += 1;
    let oldest = Infinity;
    for (const order of op.orders.values()) oldest = Math.min(oldest, order);
    op.definite = oldest > this.#failedOrder;
    if (this.#traits.ignoresFlush) return;
    const why = this.#mustBeStable(op);
    if (why === null) {
      if (op.definite) this.#unstable.add(op);
      // What a failed sync took, and an operator accepted as lost, needs no record.
      if (op.definite && !this.#isStable(op) && !this.#traits.recordsUnclean()) {
        this.fail(
          `P10: ${op.text} is acknowledged and unstable, and no state file would tell of a crash`,
        );
      }
      return;
    }
    if (op.lastArrivedAt > this.#failedAt)
      this.fail(`P5: ${op.text} succeeded after a failed sync (${why})`);
    // Parked by `stop` with its data lost, and let go by an operator who accepted that.
    if (!op.definite && this.#resolvedAt > op.arrivedAt) return;
    this.#requireStable(op, why);
    op.guaranteed = true;
    if (op.barrier) this.#settle(`P1: ${op.text} succeeded`, op.lastArrivedAt);
    if (op.fua) this.#judgeToldTruth(op);
  }

  /** Why a mutation that was just acknowledged has to be stable, or null. */
  #mustBeStable(op: Op): string | null {
    const { session } = op;
    if (op.fua) return 'P2: FUA';
    if (op.barrier) return 'P2: a barrier';
    if (op.through || session.believesThrough)
      return 'P3: the guest was told that the cache is off';
    if (!session.flushes) return 'P9: the client was not given a flush';
    const since = op.streamed ? op.startedAt : op.lastArrivedAt;
    if (this.#traits.untilFlush && !op.split && since < session.firstFlushAt) {
      return 'P9: until-flush, and the session has not flushed';
    }
    if (op.parts > 0 && (!op.cameLoose || !op.leftLoose)) return 'P3: the write cache is off';
    return null;
  }

  #isStable(op: Op): boolean {
    for (const [sector, order] of op.orders) {
      if (this.#media.stable(sector).order < order) return false;
    }
    return true;
  }

  #requireStable(op: Op, why: string): void {
    if (this.#traits.blind) return;
    for (const [sector, order] of op.orders) {
      if (this.#media.stable(sector).order < order) {
        this.fail(
          `${why}: ${op.text} is acknowledged, and sector ${sector} would not survive a power cut`,
        );
      }
    }
    if (op.sectors > 0 && op.orders.size !== op.sectors) {
      this.fail(
        `${op.text} is acknowledged, and only ${op.orders.size} of its sectors were written`,
      );
    }
  }

  #flushAnswered(op: Op): void {
    this.ops.delete(op.id);
    if (op.error !== 0) {
      if (op.error === EIO) this.#judgeFailure(op, false);
      return;
    }
    this.seen.flushed += 1;
    if (this.#traits.ignoresFlush || op.immediate) return;
    if (op.lastArrivedAt > this.#failedAt)
      this.fail(`P5: ${op.text} succeeded after a failed sync`);
    this.#settle(`P1: ${op.text} succeeded`, op.lastArrivedAt, op.ranged ? op : null);
    this.#judgeToldTruth(op);
  }

  /** Everything acknowledged before `tick`, or what of it is in the range of a request, is promised to be stable. */
  #settle(why: string, tick: number, range: Op | null = null): void {
    for (const op of this.#unstable) {
      if (op.endedAt >= tick) continue;
      if (range !== null && !isInside(op, range)) {
        this.#requirePart(op, range, why);
        continue;
      }
      this.#requireStable(op, why);
      op.guaranteed = true;
      this.#unstable.delete(op);
    }
  }

  #requirePart(op: Op, range: Op, why: string): void {
    if (this.#traits.blind) return;
    for (const [sector, order] of op.orders) {
      if (sector < range.first || sector >= range.first + range.sectors) continue;
      if (this.#media.stable(sector).order >= order) continue;
      this.fail(`${why}: sector ${sector} of ${op.text} would not survive a power cut`);
    }
  }

  /** A flush that was answered at once has ended, inside the server. */
  immediateEnded(op: Op, error: boolean): void {
    if (error) this.#judgeFailure(op, false);
  }

  /** It was aborted: it is never answered, and nothing of it touches the disk any more. */
  aborted(op: Op): void {
    this.tick += 1;
    op.endedAt = Math.min(op.endedAt, this.tick);
    if (op.arrivedAt !== Infinity && (op.kind === 'flush' || op.fua)) {
      this.#mustTell.delete(op.session.peerKey);
    }
  }

  /** COMPARE AND WRITE says that it found these contents. */
  compared(op: Op, contents: readonly number[]): void {
    for (let i = 0; i < contents.length; i += 1) {
      this.#judgeContent(`${op.text} found`, op.first + i, contents[i] as number, op.arrivedAt);
    }
  }

  /** P10: a success told to a peer that holds on to writes which are gone. */
  #judgeToldTruth(op: Op): void {
    const { peerKey, resumable } = op.session;
    if (!resumable || !this.#mustTell.has(peerKey)) return;
    // With several requests under way at once the one that fails may be answered second.
    for (const other of this.ops.values()) {
      if (other.answered || other.session.peerKey !== peerKey || other === op) continue;
      if (other.kind === 'flush' || other.fua) return;
    }
    this.fail(`P10: ${op.text} succeeded, and ${peerKey} was not told what the host's crash took`);
  }

  /** A flush or FUA request failed with EIO: is there a reason? */
  #judgeFailure(op: Op, storeMayFail: boolean): void {
    const { peerKey, resumable } = op.session;
    if (resumable) this.#mustTell.delete(peerKey);
    const isTold = resumable && this.#mayTell(peerKey) && !this.#toldNow.has(peerKey);
    // Failed for a poison that the operator has resolved since: that one was on record when it was said.
    const isOld = this.#resolvedAt > op.arrivedAt;
    if (this.poisoned && !isOld && !storeMayFail && !isTold && !this.#traits.recordsPoison()) {
      this.fail(
        `P5: ${op.text} failed, and a restart would not know why: the poison is not on record`,
      );
    }
    if (this.poisoned || storeMayFail || isOld) return;
    if (!resumable) this.fail(`P10: ${op.text} of a client on this host failed, and no sync has`);
    if (!this.#mayTell(peerKey))
      this.fail(`P10: ${op.text} failed, and ${peerKey} has nothing to be told`);
    if (this.#toldNow.has(peerKey))
      this.fail(`P10: ${op.text} failed, and ${peerKey} was told before`);
    this.#toldNow.add(peerKey);
    this.seen.told += 1;
  }

  /** READ data: per sector whose bytes they are, -1 for nobody's. */
  readReturned(op: Op, contents: readonly number[]): void {
    this.tick += 1;
    this.seen.reads += 1;
    for (let i = 0; i < contents.length; i += 1) {
      this.#judgeContent(`${op.text} returned`, op.first + i, contents[i] as number, op.arrivedAt);
    }
  }

  /** BLOCK_STATUS said of a range that it reads as zeroes. */
  zeroReported(op: Op, first: number, sectors: number): void {
    for (let i = first; i < first + sectors; i += 1) {
      this.#judgeContent(`${op.text} reported zeroes, not`, i, 0, op.arrivedAt);
    }
  }

  /**
   * Whether a reader that asked at `since` may be given `content` (0: zeroes): that of a request which nothing newer, done
   * for certain before the reader asked, has replaced.
   */
  #judgeContent(who: string, sector: number, content: number, since: number): void {
    const history = this.#history[sector] as Op[];
    // The end of the newest request that could have written it; -1: the blank disk.
    let ended = -2;
    if (content === 0) ended = -1;
    for (const op of history) {
      if (op.arrivedAt === Infinity) continue;
      if (content === 0 ? op.zero : op.id === content) ended = Math.max(ended, op.endedAt);
    }
    if (ended === -2) this.fail(`${who} bytes that nobody wrote: sector ${sector}: ${content}`);
    for (const op of history) {
      if (op.definite && op.endedAt < since && ended < op.arrivedAt) {
        this.fail(`${who} sector ${sector} as #${content}, which ${op.text} had replaced`);
      }
    }
  }

  // The disk's own events

  /** See DiskWatcher.meant. */
  meant(id: number, sector: number): number | null {
    const op = this.ops.get(id);
    if (op === undefined) return id;
    if (sector < op.first || sector >= op.first + op.sectors) return null;
    return op.zero ? 0 : id;
  }

  /** A part of a mutation reaches the store, or is about to leave it (P3: the stricter of the two counts). */
  partCame(id: number): void {
    const op = this.ops.get(id);
    if (op === undefined) return;
    op.startedAt = this.tick;
    if (this.writeCache) op.cameLoose = true;
  }

  partLeaves(id: number): void {
    const op = this.ops.get(id);
    if (op === undefined) return;
    op.parts += 1;
    if (this.writeCache) op.leftLoose = true;
  }

  applying(id: number): void {
    const op = this.ops.get(id);
    if (op === undefined) this.fail(`request #${id} changes the disk, and its client is forgotten`);
    if (op.endedAt !== Infinity && !this.#traits.blind)
      this.fail(`P11: ${op.text} changes the disk after it is over`);
    if (op.arrivedAt === Infinity) this.fail(`${op.text} changes the disk before it has arrived`);
    if (op.ordered && !op.split) this.#judgeOrder(op);
  }

  /** Barriers: what came before one is done before it, what came after it is done after it. */
  #judgeOrder(op: Op): void {
    if (op.lastArrivedAt < this.#lastBarrier) {
      this.fail(`${op.text} changes the disk after a barrier that came after it`);
    }
    if (op.barrier && op.lastArrivedAt < this.#lastApplied) {
      this.fail(`${op.text} changes the disk after what came after it`);
    }
    this.#lastApplied = Math.max(this.#lastApplied, op.lastArrivedAt);
    if (op.barrier) this.#lastBarrier = Math.max(this.#lastBarrier, op.lastArrivedAt);
  }

  applied(id: number, sector: number, order: number): void {
    this.ops.get(id)?.orders.set(sector, order);
  }

  syncFailed(): void {
    this.tick += 1;
    if (this.#failedAt === Infinity) this.#failedAt = this.tick;
    this.#failedOrder = this.#media.order;
    // What was unstable may vanish from the cache at any time now.
    for (const op of this.#unstable) op.definite = false;
    for (const op of this.ops.values()) if (op.mutates && !op.guaranteed) op.definite = false;
  }

  /** A server starts with a failed sync on record: also one that an operator had cleared, too late for the record. */
  startsPoisoned(): void {
    this.tick += 1;
    if (this.#failedAt === Infinity) this.#failedAt = this.tick;
  }

  // The operator

  /** A switch of the write cache to off was reported done: P4. */
  switchedOff(askedAt: number): void {
    this.tick += 1;
    if (!this.#traits.ignoresFlush) this.#settle('P4: the write cache was switched off', askedAt);
  }

  /** The operator accepts what a failed sync lost, or nobody was ever told of it. */
  acceptLoss(): void {
    this.tick += 1;
    for (const op of this.#unstable) op.definite = false;
    this.#unstable.clear();
    this.#failedAt = Infinity;
    this.#resolvedAt = this.tick;
  }

  /** A clean stop: everything that was acknowledged is stable. */
  stoppedClean(): void {
    this.tick += 1;
    if (!this.#traits.ignoresFlush && !this.poisoned) {
      this.#settle('the server stopped cleanly', this.tick + 1);
    }
  }

  // Crashes

  /** A server process begins. `mayTell`: whom its state file lets it tell. */
  started(mayTell: (peer: string) => boolean): void {
    this.#mayTell = mayTell;
    this.#toldNow.clear();
  }

  /** The process is gone: nothing it had taken goes on. */
  processEnded(): void {
    this.tick += 1;
    for (const op of this.ops.values()) {
      if (!op.session.survives) op.endedAt = Math.min(op.endedAt, this.tick);
    }
    for (const session of this.#sessions) {
      if (session.survives) continue;
      this.#mayHaveTold(session);
      session.goneAt = Math.min(session.goneAt, this.tick);
      this.#sessions.delete(session);
    }
    this.#checkImage('the page cache holds', (sector) => this.#media.cached(sector).op, false);
  }

  /** Before the media lose their cache: who holds on to what is unstable now. */
  hostCrashes(): void {
    this.seen.crashes += 1;
    if (this.#traits.ignoresFlush) return;
    for (const op of this.#unstable) {
      const { resumable, peerKey } = op.session;
      if (resumable && !this.#isStable(op)) this.#mustTell.add(peerKey);
    }
  }

  /** After: every sector is judged, and what is there now is what there is. */
  hostCrashed(): void {
    this.tick += 1;
    this.#checkImage('the power cut left', (sector) => this.#media.stable(sector).op, true);
    const kept = new Set<Op>();
    for (let sector = 0; sector < this.#media.sectors; sector += 1) {
      const history = this.#history[sector] as Op[];
      const { op: id } = this.#media.stable(sector);
      const left = history.filter((op) => op.id === id);
      for (const op of left) kept.add(op);
      // A blank sector that comes back must stay so, too: nothing older is legal from here on.
      this.#history[sector] = left;
    }
    for (const [id, op] of this.ops) {
      if (!kept.has(op)) this.ops.delete(id);
      else {
        op.definite = true;
        op.guaranteed = true;
        op.endedAt = Math.min(op.endedAt, this.tick);
      }
    }
    this.#unstable.clear();
  }

  #checkImage(who: string, contentOf: (sector: number) => number, powerCut: boolean): void {
    for (let sector = 0; sector < this.#media.sectors; sector += 1) {
      const id = contentOf(sector);
      const history = this.#history[sector] as Op[];
      const owner = history.find((op) => op.id === id);
      if (owner === undefined && id !== 0) this.fail(`${who} sector ${sector} as #${id}: nobody's`);
      const ended = owner === undefined ? -1 : owner.endedAt;
      for (const op of history) {
        const holds = powerCut ? op.guaranteed && !this.#traits.ignoresFlush : op.definite;
        if (holds && ended < op.arrivedAt) {
          this.fail(`P1: ${who} sector ${sector} as #${id}, and ${op.text} was promised`);
        }
      }
    }
  }

  /** At the end: requests on live connections that were never answered. */
  unanswered(alive: (session: OracleSession) => boolean): Op[] {
    return [...this.ops.values()].filter(
      (op) => !op.answered && op.endedAt === Infinity && alive(op.session),
    );
  }
}

function isInside(op: Op, range: Op): boolean {
  return op.first >= range.first && op.first + op.sectors <= range.first + range.sectors;
}
