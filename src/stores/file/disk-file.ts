import { closeSync, fstatSync, type Stats } from 'node:fs';
import type { Timer } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import { codeOfErrno, type BlockErrorCode } from '../../block/errors.ts';
import type { Segments } from '../../block/memory.ts';
import type { DiskState } from '../../durability/disk-state.ts';
import { FlushDomain, type SyncTarget } from '../../durability/flush-domain.ts';
import { FuaChooser } from '../../durability/fua.ts';
import type { SyncErrorPolicy } from '../../durability/modes.ts';
import { Completion, type Files, type FileTraits, type Reactor } from '../../reactor/reactor.ts';
import { bouncePagesOf, type BouncePages } from './bounce.ts';
import type { ImageLock } from './lock.ts';
import { OperatorLines } from './operator-lines.ts';

/** What is known of an open file when it is handed over. */
export interface DiskFileFacts {
  readonly name: string;
  /** Absolute, without symbolic links. */
  readonly realPath: string;
  readonly sizeBytes: number;
  readonly isBlockDevice: boolean;
  readonly direct: boolean;
  /** Of offsets and lengths, in bytes; 1 without O_DIRECT. */
  readonly blockBytes: number;
  readonly memoryAlignment: number;
  readonly preferredBytes: number;
  readonly rotational: boolean;
  /** PUNCH_HOLE works, as far as is known. */
  readonly punches: boolean;
  /** fallocate(2) on it takes multiples of this, in bytes. */
  readonly punchUnitBytes: number;
  /** SEEK_DATA and SEEK_HOLE work. */
  readonly seeks: boolean;
  /** It may be looked at now and then (`watch`). */
  readonly watched: boolean;
}

/** What the operator can do about a failed request. The others are the client's business, or say it themselves. */
const ADVICE: Partial<Readonly<Record<BlockErrorCode, string>>> = {
  ENOSPC: 'no space is left for its writes: free some on its file system',
  EIO: 'check the storage beneath it',
  ECORRUPT: 'its file system found corrupt data: check the storage beneath it',
  EROFS: 'its file system has become read-only: see the kernel log',
  EPERM: 'the kernel forbids it: see lsattr(1) for an immutable file',
};

const WATCH_MS = 30_000;

class SyncDone extends Completion {
  readonly #done: (result: number) => void;
  constructor(done: (result: number) => void) {
    super();
    this.#done = done;
  }
  override complete(result: number): void {
    this.#done(result);
  }
}

/** Two open file descriptions of one inode, with the same flags. */
export interface DescriptorPair {
  /** Reads and writes. */
  readonly data: number;
  /**
   * Syncs, and nothing else (I13). Linux reports a write-back error once per open file description: a RWF_DSYNC write
   * on this one would take the report that belongs to the next fdatasync.
   */
  readonly sync: number;
}

/**
 * One open inode: the descriptors all requests and all syncs go through, its lock, and its flush domain. Shared by all
 * exports of the inode.
 */
export class DiskFile implements SyncTarget {
  readonly reactor: Reactor;
  readonly files: Files;
  readonly facts: DiskFileFacts;
  readonly domain: FlushDomain;
  readonly bounce: BouncePages;
  readonly lines: OperatorLines;
  readonly lock: ImageLock;
  policy: SyncErrorPolicy;
  fd: number;
  traits: FileTraits;
  /** What outlives the server; null until somebody may write. */
  state: DiskState | null = null;
  /** What must be told when PUNCH_HOLE turns out not to work: the stores whose info says it does. */
  readonly onLessAble: (() => void)[] = [];
  #punches: boolean;
  #zeroesRanges = true;
  /** The bytes that are still there, if somebody cut the file: less than facts.sizeBytes. */
  #endBytes: number;
  readonly #kernelNeedsAddress: boolean;
  readonly #alignMask: number;
  readonly #memoryMask: number;
  readonly #syncDone: SyncDone;
  readonly #fds: number[];
  readonly #fua = new FuaChooser();
  #watching: Timer | null = null;
  #syncFd: number;
  #syncStartedMs = 0;
  #syncBytes = 0;

  constructor(
    reactor: Reactor,
    descriptors: DescriptorPair,
    lock: ImageLock,
    facts: DiskFileFacts,
    warn: (line: string) => void,
    policy: SyncErrorPolicy,
  ) {
    this.reactor = reactor;
    this.files = reactor.files;
    this.fd = descriptors.data;
    this.#syncFd = descriptors.sync;
    this.#fds = [descriptors.data, descriptors.sync];
    this.lock = lock;
    this.facts = facts;
    this.policy = policy;
    this.traits = reactor.files.probeFile(descriptors.data);
    this.bounce = bouncePagesOf(reactor);
    this.lines = new OperatorLines(facts.name, reactor, warn);
    this.#punches = facts.punches;
    this.#endBytes = facts.sizeBytes;
    this.#kernelNeedsAddress = reactor.kind === 'io_uring';
    this.#alignMask = facts.direct ? facts.blockBytes - 1 : 0;
    this.#memoryMask = facts.memoryAlignment - 1;
    this.#syncDone = new SyncDone((result) => this.#synced(result));
    this.domain = new FlushDomain({
      target: this,
      sizeBytes: facts.sizeBytes,
      policy,
      defer: (callback) => reactor.defer(callback),
      onFirstVolatile: (recorded) => (this.state as DiskState).firstVolatile(recorded),
      onPoisoned: (error, recorded) => {
        if (this.state === null) recorded(null);
        else this.state.syncFailed(error, recorded);
      },
      onResumed: () => this.state?.resumed(),
    });
  }

  get isBlockDevice(): boolean {
    return this.facts.isBlockDevice;
  }

  get punches(): boolean {
    return this.#punches;
  }

  get zeroesRanges(): boolean {
    return this.#zeroesRanges;
  }

  get punchUnitBytes(): number {
    return this.facts.punchUnitBytes;
  }

  /** The end of what is there. */
  get endBytes(): number {
    return this.#endBytes;
  }

  /** Descriptors open for writing take over. The first stay open: the lock hangs on one. */
  becomeWritable(
    descriptors: DescriptorPair,
    state: DiskState,
    policy: SyncErrorPolicy,
    punches: boolean,
  ): void {
    this.policy = policy;
    this.domain.setPolicy(policy);
    this.#punches = punches;
    this.#fds.push(descriptors.data, descriptors.sync);
    this.fd = descriptors.data;
    this.#syncFd = descriptors.sync;
    this.traits = this.files.probeFile(descriptors.data);
    this.setState(state);
  }

  /** What is remembered of the disk: before the first write. */
  setState(state: DiskState): void {
    this.state = state;
    const { poisoned } = state;
    if (poisoned !== null) this.domain.restorePoison(poisoned);
  }

  startSync(): void {
    this.#syncStartedMs = this.reactor.nowMs();
    this.#syncBytes = this.domain.unstableBytes;
    this.files.datasync(this.#syncDone, this.#syncFd);
  }

  #synced(result: number): void {
    if (result < 0) {
      this.domain.synced(codeOfErrno(-result));
      return;
    }
    this.#fua.observedSync(this.reactor.nowMs() - this.#syncStartedMs, this.#syncBytes);
    this.domain.synced(null);
  }

  /** Whether a FUA write of `length` bytes is to be made stable by itself: where that works, and seems faster now. */
  prefersNative(length: number): boolean {
    const { waiting, unstableBytes } = this.domain;
    return this.traits.dsync && this.#fua.preferNative(length, waiting, unstableBytes);
  }

  /** A write that was stable by itself took this long. */
  wroteNative(ms: number, bytes: number): void {
    this.#fua.observedNative(ms, bytes);
  }

  /** Whether the kernel cannot use this memory: no address, or misaligned for O_DIRECT. */
  mustBounce(segments: Segments): boolean {
    const { direct } = this.facts;
    if (!direct && !this.#kernelNeedsAddress) return false;
    for (let i = 0; i < segments.count; i += 1) {
      const { address } = segments.regions[i] as Segments['regions'][number];
      if (address === 0) return true;
      if (!direct) continue;
      // The remainder by a power of two, without the 32 bit limit of `&`.
      const start = (address % 0x1_0000_0000) + (segments.starts[i] as number);
      const length = segments.lengths[i] as number;
      if ((start & this.#memoryMask) !== 0 || (length & this.#alignMask) !== 0) return true;
    }
    return false;
  }

  /** Whether a count of bytes is one the file's requests may have. */
  aligned(bytes: number): boolean {
    return (bytes & this.#alignMask) === 0;
  }

  cannotPunch(): void {
    if (!this.#punches) return;
    this.#punches = false;
    for (const tell of this.onLessAble) tell();
  }

  cannotZeroRange(): void {
    if (!this.#zeroesRanges) return;
    this.#zeroesRanges = false;
    for (const tell of this.onLessAble) tell();
  }

  /** Looks every half a minute whether the file is still there and whole. */
  watch(): void {
    if (!this.facts.watched) return;
    this.#watching = this.reactor.after(WATCH_MS, () => {
      this.look();
      this.watch();
    });
  }

  /** Also asked where a hole could be a missing end. False: nobody can say. */
  look(): boolean {
    if (this.isBlockDevice) return true;
    let stats: Stats;
    try {
      stats = fstatSync(this.fd);
    } catch (error) {
      // A file server that has lost it (ESTALE), a FUSE program that has died: requests say so themselves.
      this.lines.sayOnce('look', `it cannot be looked at any more: ${messageOf(error)}`);
      return false;
    }
    const { size, nlink } = stats;
    if (size < this.facts.sizeBytes) this.endReached(size);
    if (nlink === 0) this.unlinked();
    return true;
  }

  /** A read came to an end at byte `at`, inside the disk. */
  endReached(at: number): void {
    if (at >= this.#endBytes) return;
    this.#endBytes = at;
    const { sizeBytes } = this.facts;
    this.lines.sayOnce(
      'shrunk',
      `it was cut from ${formatSize(sizeBytes)} to at most ${at} bytes while served: what is gone fails with EIO; ` +
        'stop, restore it from a backup, and start again',
    );
  }

  /** It has no name any more. */
  unlinked(): void {
    this.lines.sayOnce(
      'unlinked',
      `'${this.facts.realPath}' was deleted or replaced while served: its data are lost when the server stops; ` +
        'copy them now through a client',
    );
  }

  /** A request failed with a positive errno: said when it is one the operator can do something about. */
  failed(errno: number, code: BlockErrorCode): void {
    const advice = ADVICE[code];
    if (advice !== undefined)
      this.lines.say(code, `a request failed with errno ${errno}: ${advice}`);
  }

  /** Ends it, and remembers whether everything was stable. The lock goes with the descriptors. */
  close(): void {
    this.#watching?.cancel();
    if (this.state !== null && this.domain.clean) {
      this.state.markClean((error) => {
        if (error === null) return;
        this.lines.say('state', `that it is clean could not be written down: ${messageOf(error)}`);
      });
    }
    this.lock.release();
    for (const fd of this.#fds) closeSync(fd);
  }
}
