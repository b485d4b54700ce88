import { Region } from '../../block/memory.ts';
import type { Completion } from '../reactor.ts';
import * as sys from '../sys.ts';

// [io_uring_setup(2)] flags, with the kernel that brought them.
const SETUP_CQSIZE = 1 << 3;
const SETUP_CLAMP = 1 << 4;
const SETUP_SUBMIT_ALL = 1 << 7; // 5.18
const SETUP_COOP_TASKRUN = 1 << 8; // 5.19
const SETUP_TASKRUN_FLAG = 1 << 9; // 5.19
const SETUP_SINGLE_ISSUER = 1 << 12; // 6.0
const SETUP_DEFER_TASKRUN = 1 << 13; // 6.1

const FEAT_SINGLE_MMAP = 1 << 0;
const FEAT_NODROP = 1 << 1;
const FEAT_SUBMIT_STABLE = 1 << 2;
const FEAT_EXT_ARG = 1 << 8;
const FEAT_RSRC_TAGS = 1 << 10; // 5.13
/** Without these (Linux 5.11) the ring would need care that nothing else here needs: the portable reactor serves. */
const FEATURES = FEAT_SINGLE_MMAP | FEAT_NODROP | FEAT_SUBMIT_STABLE | FEAT_EXT_ARG;

const OFFSET_SQ_RING = 0;
const OFFSET_SQES = 0x10000000;

const ENTER_GETEVENTS = 1 << 0;
const ENTER_EXT_ARG = 1 << 3;

const CQE_F_MORE = 1 << 1;

const SQ_CQ_OVERFLOW = 1 << 1;
const SQ_TASKRUN = 1 << 2;

const EINTR = 4;
const EAGAIN = 11;
const EBUSY = 16;
const ETIME = 62;
/**
 * [io_uring_enter(2)] EBUSY: the completion queue is full; draining it helps. EAGAIN: the kernel is short of memory for
 * requests; "the application should wait for some completions and try again". ETIME, EINTR: the wait ended early.
 */
const PASSING: readonly number[] = [EINTR, EAGAIN, EBUSY, ETIME];

/** [io_uring_enter(2)] operations. */
export const IORING_OP = {
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  POLL_ADD: 6,
  SENDMSG: 9,
  ACCEPT: 13,
  ASYNC_CANCEL: 14,
  CONNECT: 16,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
  FADVISE: 24,
  SEND: 26,
  RECV: 27,
} as const;

const SQE_WORDS = 16;
const CQE_WORDS = 4;
/** Submission entries: a batch larger than this is submitted in parts. Twice the depth of common guests. */
const SQ_ENTRIES = 512;
const CQ_ENTRIES = 4096;

/**
 * One io_uring, its rings mapped into typed arrays. `prepare` puts an operation into the submission queue; nothing
 * reaches the kernel before `enter`. Completions are found by slot: every Completion gets one at first use and keeps
 * it.
 */
export class Ring {
  readonly #fd: number;
  readonly #rings: Region;
  readonly #sqes: Region;
  readonly #sqe: Int32Array;
  readonly #word: Int32Array;
  readonly #sqHead: number;
  readonly #sqTail: number;
  readonly #sqFlags: number;
  readonly #sqMask: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  readonly #wait: Region;
  readonly #taskrunFlag: boolean;
  readonly #features: number;
  readonly #slots: (Completion | null)[] = [];
  readonly #freeSlots: number[] = [];
  #tail = 0;
  #submitted = 0;
  #cqeFlags = 0;

  /** Throws when the kernel has no io_uring, forbids it, or it is too old; the message says which. */
  constructor() {
    const params = sys.mapMemory(4096);
    const modern =
      SETUP_SUBMIT_ALL |
      SETUP_COOP_TASKRUN |
      SETUP_TASKRUN_FLAG |
      SETUP_SINGLE_ISSUER |
      SETUP_DEFER_TASKRUN;
    let flags = SETUP_CQSIZE | SETUP_CLAMP | modern;
    let fd = setup(params, flags);
    if (fd === -22) {
      flags = SETUP_CQSIZE | SETUP_CLAMP;
      fd = setup(params, flags);
    }
    if (fd < 0) throw new Error(whyNot(-fd));
    this.#fd = fd;
    this.#taskrunFlag = (flags & SETUP_TASKRUN_FLAG) !== 0;
    const p = (at: number): number => params.view.getUint32(at, true);
    if ((p(20) & FEATURES) !== FEATURES) {
      sys.close(fd);
      throw new Error('the kernel is older than Linux 5.11');
    }
    this.#features = p(20);
    // struct io_uring_params: sq_off at 40, cq_off at 80.
    const sqBytes = p(40 + 24) + p(0) * 4;
    const cqBytes = p(80 + 20) + p(4) * CQE_WORDS * 4;
    this.#rings = sys.mapShared(fd, Math.max(sqBytes, cqBytes), OFFSET_SQ_RING);
    this.#sqes = sys.mapShared(fd, p(0) * SQE_WORDS * 4, OFFSET_SQES);
    this.#sqe = words(this.#sqes);
    this.#word = words(this.#rings);
    this.#sqHead = p(40) / 4;
    this.#sqTail = p(44) / 4;
    this.#sqFlags = p(56) / 4;
    this.#sqMask = p(0) - 1;
    this.#cqHead = p(80) / 4;
    this.#cqTail = p(84) / 4;
    this.#cqMask = p(4) - 1;
    this.#cqes = p(100) / 4;
    // The indirection array is filled once: entry i is always SQE i.
    const array = p(64) / 4;
    for (let i = 0; i <= this.#sqMask; i += 1) this.#word[array + i] = i;
    sys.unmap(params);
    this.#wait = sys.mapMemory(4096);
    this.#tail = this.#word[this.#sqTail] as number;
    this.#submitted = this.#tail;
  }

  /**
   * Queues one operation. `opFlags` is the union at byte 28 of the entry (rw_flags, msg_flags, fsync_flags ...).
   * [io_uring_enter(2), struct io_uring_sqe]
   */
  prepare(
    done: Completion,
    op: number,
    fd: number,
    address: number,
    length: number,
    offset: number,
    opFlags: number,
  ): void {
    const queued = distance(Atomics.load(this.#word, this.#sqHead), this.#tail);
    if (queued > this.#sqMask) this.submit();
    if (done.slot < 0) done.slot = this.#freeSlots.pop() ?? this.#slots.length;
    this.#slots[done.slot] = done;
    const sqe = this.#sqe;
    const at = (this.#tail & this.#sqMask) * SQE_WORDS;
    sqe[at] = op;
    sqe[at + 1] = fd;
    sqe[at + 2] = offset >>> 0;
    sqe[at + 3] = Math.floor(offset / 2 ** 32);
    sqe[at + 4] = address >>> 0;
    sqe[at + 5] = Math.floor(address / 2 ** 32);
    sqe[at + 6] = length;
    sqe[at + 7] = opFlags;
    sqe[at + 8] = done.slot;
    sqe[at + 9] = 0;
    sqe[at + 10] = 0;
    sqe[at + 11] = 0;
    sqe[at + 12] = 0;
    sqe[at + 13] = 0;
    this.#tail = (this.#tail + 1) | 0;
  }

  /** Gives a Completion's slot back; it must not be in flight. */
  forget(done: Completion): void {
    if (done.slot < 0) return;
    this.#slots[done.slot] = null;
    this.#freeSlots.push(done.slot);
    done.slot = -1;
  }

  /** Operations prepared and not yet with the kernel. */
  get prepared(): number {
    return distance(this.#submitted, this.#tail);
  }

  /** Whether completions wait, without a system call. */
  get ready(): boolean {
    if (this.#word[this.#cqHead] !== Atomics.load(this.#word, this.#cqTail)) return true;
    const flags = Atomics.load(this.#word, this.#sqFlags);
    return (flags & (SQ_TASKRUN | SQ_CQ_OVERFLOW)) !== 0;
  }

  /** Whether `ready` notices new completions by itself, so that spinning on it makes sense. */
  get canSpin(): boolean {
    return this.#taskrunFlag;
  }

  /**
   * Whether one POLL_ADD can complete many times (IORING_POLL_ADD_MULTI). No feature bit says so; this one came with
   * it in Linux 5.13.
   */
  get hasMultishotPoll(): boolean {
    return (this.#features & FEAT_RSRC_TAGS) !== 0;
  }

  /** Whether the operation that completes just now will do so again. Only at the start of Completion.complete. */
  get more(): boolean {
    return (this.#cqeFlags & CQE_F_MORE) !== 0;
  }

  /** Submits all that is prepared and collects what is done, waiting for nothing. */
  poke(): void {
    this.#enter(0, 0);
  }

  /** Submits all that is prepared and waits for a completion, `timeoutMs` at most (Infinity: no limit). */
  wait(timeoutMs: number): void {
    this.#enter(1, timeoutMs);
  }

  /** Hands every finished operation to its Completion. Returns how many there were. */
  drain(): number {
    const word = this.#word;
    let count = 0;
    let head = word[this.#cqHead] as number;
    // The tail is read again in each round: handlers make new completions when they submit.
    while (head !== Atomics.load(word, this.#cqTail)) {
      const at = this.#cqes + (head & this.#cqMask) * CQE_WORDS;
      const slot = word[at] as number;
      const result = word[at + 2] as number;
      this.#cqeFlags = word[at + 3] as number;
      head = (head + 1) | 0;
      Atomics.store(word, this.#cqHead, head);
      count += 1;
      this.#slots[slot]?.complete(result);
    }
    return count;
  }

  close(): void {
    sys.close(this.#fd);
    sys.unmap(this.#sqes);
    sys.unmap(this.#rings);
    sys.unmap(this.#wait);
  }

  /** Hands all that is prepared to the kernel: from now on it has its own hold on the files. */
  submit(): void {
    while (this.prepared > 0) this.poke();
  }

  #enter(wait: number, timeoutMs: number): void {
    Atomics.store(this.#word, this.#sqTail, this.#tail);
    let flags = ENTER_GETEVENTS;
    let argument = 0;
    let argumentBytes = 0;
    if (wait > 0 && timeoutMs !== Infinity) {
      // struct io_uring_getevents_arg { sigmask, sigmask_sz, min_wait_usec, ts }, then the timespec it points to.
      const view = this.#wait.view;
      const ts = this.#wait.address + 64;
      view.setUint32(16, ts >>> 0, true);
      view.setUint32(20, Math.floor(ts / 2 ** 32), true);
      const seconds = Math.floor(timeoutMs / 1000);
      view.setUint32(64, seconds, true);
      view.setUint32(72, Math.floor((timeoutMs - seconds * 1000) * 1e6), true);
      flags |= ENTER_EXT_ARG;
      argument = this.#wait.address;
      argumentBytes = 24;
    }
    const result = sys.ioUringEnter(this.#fd, this.prepared, wait, flags, argument, argumentBytes);
    this.#submitted = Atomics.load(this.#word, this.#sqHead);
    if (result < 0 && !PASSING.includes(-result)) {
      throw new Error(`io_uring_enter failed: errno ${-result}`);
    }
  }
}

/** From one position of a ring to a later one: positions are 32 bits wide and start over, below zero here. */
export function distance(from: number, to: number): number {
  return (to - from) | 0;
}

function setup(params: Region, flags: number): number {
  params.bytes.fill(0, 0, 120);
  params.view.setUint32(4, CQ_ENTRIES, true);
  params.view.setUint32(8, flags, true);
  return sys.ioUringSetup(SQ_ENTRIES, params.address);
}

function words(region: Region): Int32Array {
  return new Int32Array(region.bytes.buffer, region.bytes.byteOffset, region.bytes.length >> 2);
}

function whyNot(errno: number): string {
  if (errno === 38) return 'the kernel has no io_uring';
  if (errno === 1)
    return 'io_uring is forbidden here (seccomp, or the sysctl kernel.io_uring_disabled)';
  if (errno === 12) return 'no memory for the ring (RLIMIT_MEMLOCK?)';
  return `io_uring_setup failed: errno ${errno}`;
}
