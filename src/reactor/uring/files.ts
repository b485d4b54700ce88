import type { Region, Segments } from '../../block/memory.ts';
import type { Completion, Files, FileTraits } from '../reactor.ts';
import * as sys from '../sys.ts';
import { IORING_OP, type Ring } from './ring.ts';
import type { Scratch } from './scratch.ts';

// [preadv2(2)]
const RWF_DSYNC = 2;
// [io_uring_enter(2)] IORING_OP_FSYNC
const IORING_FSYNC_DATASYNC = 1;
// [posix_fadvise(2)]
const POSIX_FADV_WILLNEED = 3;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
// [statfs(2)]
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;

/**
 * Files over the ring. A file that lives in memory is read and written by plain calls: the kernel would hand its ring
 * requests to worker threads, which costs more than the copy (measured: see docs/benchmarks.md).
 */
export class UringFiles implements Files {
  readonly #ring: Ring;
  readonly #scratch: Scratch;

  constructor(ring: Ring, scratch: Scratch) {
    this.#ring = ring;
    this.#scratch = scratch;
  }

  probeFile(fd: number): FileTraits {
    const magic = sys.fileSystemMagic(fd, this.#scratch.region);
    const memory = magic === TMPFS_MAGIC || magic === RAMFS_MAGIC;
    // RWF_DSYNC is a flag of the call (Linux 4.7), good on every file system.
    return { inlineRead: memory, inlineWrite: memory, dsync: true };
  }

  read(
    done: Completion,
    fd: number,
    traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
  ): void {
    if (segments.count === 1) {
      const address = start(segments, skip);
      const length = segments.totalBytes - skip;
      if (traits.inlineRead) done.complete(sys.pread(fd, address, length, offset));
      else this.#ring.prepare(done, IORING_OP.READ, fd, address, length, offset, 0);
      return;
    }
    const iovecs = this.#scratch.iovecs(segments, skip);
    const count = this.#scratch.count;
    if (traits.inlineRead) done.complete(sys.preadv2(fd, iovecs, count, offset, 0));
    else this.#ring.prepare(done, IORING_OP.READV, fd, iovecs, count, offset, 0);
  }

  write(
    done: Completion,
    fd: number,
    traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
    dsync: boolean,
  ): void {
    const flags = dsync ? RWF_DSYNC : 0;
    if (segments.count === 1) {
      const address = start(segments, skip);
      const length = segments.totalBytes - skip;
      // A file in memory has nothing that RWF_DSYNC could wait for.
      if (traits.inlineWrite) done.complete(sys.pwrite(fd, address, length, offset));
      else this.#ring.prepare(done, IORING_OP.WRITE, fd, address, length, offset, flags);
      return;
    }
    const iovecs = this.#scratch.iovecs(segments, skip);
    const count = this.#scratch.count;
    if (traits.inlineWrite) done.complete(sys.pwritev2(fd, iovecs, count, offset, flags));
    else this.#ring.prepare(done, IORING_OP.WRITEV, fd, iovecs, count, offset, flags);
  }

  datasync(done: Completion, fd: number): void {
    this.#ring.prepare(done, IORING_OP.FSYNC, fd, 0, 0, 0, IORING_FSYNC_DATASYNC);
  }

  allocate(done: Completion, fd: number, mode: number, offset: number, length: number): void {
    // [io_uring_enter(2)] IORING_OP_FALLOCATE: the length travels in addr, the mode in len.
    this.#ring.prepare(done, IORING_OP.FALLOCATE, fd, length, mode, offset, 0);
  }

  willNeed(done: Completion, fd: number, offset: number, length: number): void {
    const advice = POSIX_FADV_WILLNEED;
    this.#ring.prepare(done, IORING_OP.FADVISE, fd, 0, length, offset, advice);
  }

  seekData(fd: number, offset: number): number {
    return sys.lseek(fd, offset, SEEK_DATA);
  }

  seekHole(fd: number, offset: number): number {
    return sys.lseek(fd, offset, SEEK_HOLE);
  }
}

function start(segments: Segments, skip: number): number {
  return (segments.regions[0] as Region).address + (segments.starts[0] as number) + skip;
}
