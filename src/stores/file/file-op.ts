import { assert, unreachable } from '../../base/assert.ts';
import { codeOfErrno, type BlockErrorCode } from '../../block/errors.ts';
import { FLAG, OP, type Io } from '../../block/io.ts';
import { MAX_TRANSFER_BYTES } from '../../block/limits.ts';
import { Segments } from '../../block/memory.ts';
import type { Page } from '../../reactor/page-pool.ts';
import { Completion, FALLOCATE, type Reactor } from '../../reactor/reactor.ts';
import type { BounceWaiter } from './bounce.ts';
import type { DiskFile } from './disk-file.ts';

// Negated errnos that the kernel returns for "ask again" [io_uring_enter(2), read(2)].
const EINTR = -4;
const EAGAIN = -11;
const EINVAL = -22;
const ENOSYS = -38;
const EOPNOTSUPP = -95;

/** The ways to zero a range, from the best to the one that always works. */
const WAY = { PUNCH_HOLE: 0, ZERO_RANGE: 1, WRITE: 2 } as const;
type Way = (typeof WAY)[keyof typeof WAY];

/** Who is told that an op has ended, and reuses it. */
export interface FileOpOwner {
  opDone(op: FileOp, io: Io, error: BlockErrorCode | null): void;
}

/**
 * One Io on its way through the kernel, in as many system requests as it takes. Pooled: nothing is allocated per
 * request, except views of memory where a transfer has to be bounced.
 */
export class FileOp extends Completion implements BounceWaiter {
  #file!: DiskFile;
  #owner!: FileOpOwner;
  /** What is given to the kernel when it is not the Io's own memory: a bounce page, or zeroes. */
  readonly #own = new Segments();
  readonly #again: () => void;
  #io: Io | null = null;
  /** Bytes finished. */
  #done = 0;
  /** Bytes asked for in the running request. */
  #asked = 0;
  #way: Way = WAY.WRITE;
  #page: Page | null = null;
  #bounced = false;
  /** Stable by the request itself (RWF_DSYNC). */
  native = false;
  /** When it was issued, by the reactor's clock. */
  startedMs = 0;

  constructor() {
    super();
    this.#again = () => this.#issue();
  }

  /** Starts `io`. `native`: a WRITE is made stable by the request itself. */
  start(file: DiskFile, owner: FileOpOwner, io: Io, native: boolean): void {
    assert(this.#io === null, 'a FileOp is started twice');
    this.#file = file;
    this.#owner = owner;
    this.#io = io;
    this.#done = 0;
    this.native = native;
    switch (io.op) {
      case OP.READ:
      case OP.WRITE:
        this.#bounced = this.#file.mustBounce(io.segments);
        if (!this.#bounced) break;
        this.#page = this.#file.bounce.take(this);
        if (this.#page === null) return;
        break;
      case OP.WRITE_ZEROES:
        this.#way = this.#firstWay(io);
        break;
      case OP.DISCARD:
      case OP.CACHE:
        break;
      case OP.FLUSH:
      case OP.EXTENTS:
        assert(false, 'not a request for the kernel');
        break;
      default:
        unreachable(io.op);
    }
    this.#issue();
  }

  bounceReady(page: Page): void {
    this.#page = page;
    this.#issue();
  }

  #issue(): void {
    const io = this.#io as Io;
    const { files, fd, traits } = this.#file;
    const offset = io.offset + this.#done;
    switch (io.op) {
      case OP.READ:
        if (this.#bounced) files.read(this, fd, traits, this.#bouncePiece(io), 0, offset);
        else files.read(this, fd, traits, io.segments, this.#done, offset);
        break;
      case OP.WRITE:
        if (this.#bounced) {
          const piece = this.#bouncePiece(io);
          io.segments.copyTo(
            (this.#page as Page).region.bytes.subarray(0, this.#asked),
            this.#done,
          );
          files.write(this, fd, traits, piece, 0, offset, this.native);
        } else {
          files.write(this, fd, traits, io.segments, this.#done, offset, this.native);
        }
        break;
      case OP.WRITE_ZEROES:
        this.#zero(io);
        break;
      case OP.DISCARD:
        this.#discard(io);
        break;
      case OP.CACHE:
        files.willNeed(this, fd, io.offset, io.length);
        break;
      case OP.FLUSH:
      case OP.EXTENTS:
        assert(false, 'not a request for the kernel');
        break;
      default:
        unreachable(io.op);
    }
  }

  override complete(result: number): void {
    const io = this.#io as Io;
    if (result === EINTR || result === EAGAIN) {
      this.#file.reactor.defer(this.#again);
      return;
    }
    switch (io.op) {
      case OP.READ:
        this.#readDone(io, result);
        break;
      case OP.WRITE:
        this.#writeDone(io, result);
        break;
      case OP.WRITE_ZEROES:
        this.#zeroDone(io, result);
        break;
      case OP.DISCARD:
        if (result === EOPNOTSUPP || result === ENOSYS) this.#file.cannotPunch();
        this.#finish(this.#codeOf(result));
        break;
      case OP.CACHE:
        // A hint: that it came to nothing is not an error.
        this.#finish(null);
        break;
      case OP.FLUSH:
      case OP.EXTENTS:
        assert(false, 'not a request for the kernel');
        break;
      default:
        unreachable(io.op);
    }
  }

  #readDone(io: Io, result: number): void {
    if (result < 0) {
      this.#finish(this.#codeOf(result));
      return;
    }
    if (this.#bounced && result > 0) {
      io.segments.copyFrom((this.#page as Page).region.bytes.subarray(0, result), this.#done);
    }
    this.#done += result;
    if (this.#done === io.length) {
      this.#finish(null);
    } else if (result === 0 || !this.#file.aligned(this.#done)) {
      // The end of the file inside the disk: somebody cut it. Zeroes would be made up.
      this.#file.endReached(io.offset + this.#done);
      this.#finish('EIO');
    } else {
      this.#issue();
    }
  }

  #writeDone(io: Io, result: number): void {
    if (result <= 0 || !this.#file.aligned(result)) {
      this.#finish(result < 0 ? this.#codeOf(result) : 'EIO');
      return;
    }
    this.#done += result;
    if (this.#done === io.length) this.#finish(null);
    else this.#issue();
  }

  /** A piece of at most one page, at the start of the bounce page. Sets `#asked`. */
  #bouncePiece(io: Io): Segments {
    const page = this.#page as Page;
    this.#asked = Math.min(page.sizeBytes, io.length - this.#done);
    this.#own.clear();
    this.#own.push(page.region, 0, this.#asked);
    return this.#own;
  }

  #firstWay(io: Io): Way {
    const file = this.#file;
    const mayPunch = (io.flags & FLAG.NO_HOLE) === 0 && file.punches;
    if (mayPunch) return WAY.PUNCH_HOLE;
    return this.#nextWay(WAY.PUNCH_HOLE, io);
  }

  /** What comes after `way` failed: ZERO_RANGE where it may work, and is fast if that was asked. */
  #nextWay(way: Way, io: Io): Way {
    const file = this.#file;
    const fast = (io.flags & FLAG.FAST) !== 0;
    // Without hardware help the kernel zeroes a block device's range by writing [Linux block/fops.c blkdev_fallocate:
    // ZERO_RANGE may fall back, PUNCH_HOLE may not].
    const mayZeroRange = file.zeroesRanges && !(fast && file.isBlockDevice);
    return way === WAY.PUNCH_HOLE && mayZeroRange ? WAY.ZERO_RANGE : WAY.WRITE;
  }

  #zero(io: Io): void {
    const { files, fd, traits } = this.#file;
    if (this.#way === WAY.PUNCH_HOLE) {
      const mode = FALLOCATE.PUNCH_HOLE | FALLOCATE.KEEP_SIZE;
      files.allocate(this, fd, mode, io.offset, io.length);
      return;
    }
    if (this.#way === WAY.ZERO_RANGE) {
      const mode = FALLOCATE.ZERO_RANGE | FALLOCATE.KEEP_SIZE;
      files.allocate(this, fd, mode, io.offset, io.length);
      return;
    }
    if ((io.flags & FLAG.FAST) !== 0) {
      this.#finish('EOPNOTSUPP');
      return;
    }
    const { zeroes } = this.#file.bounce;
    let left = Math.min(MAX_TRANSFER_BYTES, io.length - this.#done);
    this.#own.clear();
    while (left > 0) {
      const piece = Math.min(left, zeroes.bytes.length);
      this.#own.push(zeroes, 0, piece);
      left -= piece;
    }
    files.write(this, fd, traits, this.#own, 0, io.offset + this.#done, this.native);
  }

  #zeroDone(io: Io, result: number): void {
    if (this.#way !== WAY.WRITE) {
      if (result === EOPNOTSUPP || result === ENOSYS) {
        if (this.#way === WAY.PUNCH_HOLE) this.#file.cannotPunch();
        else this.#file.cannotZeroRange();
      }
      // EINVAL: this range is not for fallocate(2), say because it does not fit a block device's sectors.
      if (result !== EOPNOTSUPP && result !== ENOSYS && result !== EINVAL) {
        this.#finish(this.#codeOf(result));
        return;
      }
      this.#way = this.#nextWay(this.#way, io);
      this.#issue();
      return;
    }
    if (result <= 0 || !this.#file.aligned(result)) {
      this.#finish(result < 0 ? this.#codeOf(result) : 'EIO');
      return;
    }
    this.#done += result;
    if (this.#done === io.length) this.#finish(null);
    // The others get a turn between the pieces of a long range.
    else this.#file.reactor.defer(this.#again);
  }

  #discard(io: Io): void {
    const mode = FALLOCATE.PUNCH_HOLE | FALLOCATE.KEEP_SIZE;
    const { files, fd, punchUnitBytes } = this.#file;
    // A block device gives back whole sectors only; what is left over keeps its content, as a discard may.
    const start = Math.ceil(io.offset / punchUnitBytes) * punchUnitBytes;
    const end = Math.floor((io.offset + io.length) / punchUnitBytes) * punchUnitBytes;
    if (end > start) files.allocate(this, fd, mode, start, end - start);
    else this.#finish(null);
  }

  #codeOf(result: number): BlockErrorCode | null {
    if (result >= 0) return null;
    const code = codeOfErrno(-result);
    this.#file.failed(-result, code);
    return code;
  }

  #finish(error: BlockErrorCode | null): void {
    const io = this.#io as Io;
    this.#io = null;
    if (this.#page !== null) {
      const page = this.#page;
      this.#page = null;
      this.#file.bounce.give(page);
    }
    this.#owner.opDone(this, io, error);
  }
}

/**
 * Idle ops of one reactor, shared by all its files. All are kept, as many as were ever in flight together: an op that was
 * dropped would keep its place in the reactor for ever.
 */
export class FileOpPool {
  readonly #free: FileOp[] = [];

  take(): FileOp {
    return this.#free.pop() ?? new FileOp();
  }

  give(op: FileOp): void {
    this.#free.push(op);
  }
}

const ofReactor = new WeakMap<Reactor, FileOpPool>();

export function fileOpPoolOf(reactor: Reactor): FileOpPool {
  let pool = ofReactor.get(reactor);
  if (pool === undefined) {
    pool = new FileOpPool();
    ofReactor.set(reactor, pool);
  }
  return pool;
}
