import fs from 'node:fs';
import { assert } from '../../base/assert.ts';
import type { Segments } from '../../block/memory.ts';
import type { Completion, FileTraits, Files } from '../reactor.ts';
import { negatedErrno } from './errno.ts';
import { libcOrNull, type Libc } from './libc.ts';

/** Everything goes through libuv's thread pool, so nothing can be tried at once, and Node cannot ask for RWF_DSYNC. */
const TRAITS: FileTraits = Object.freeze({ inlineRead: false, inlineWrite: false, dsync: false });

const EBADF = 9;
const ENXIO = 6;
const EOPNOTSUPP = 95;

// [lseek(2)]
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
// [posix_fadvise(2)]
const POSIX_FADV_WILLNEED = 3;

/** Files on node:fs. Every request completes later, never inside the call that makes it. */
export class PortableFiles implements Files {
  readonly #libc: Libc | null;

  constructor(libc: Libc | null = libcOrNull()) {
    this.#libc = libc;
  }

  probeFile(): FileTraits {
    return TRAITS;
  }

  read(
    done: Completion,
    fd: number,
    _traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
  ): void {
    const views = viewsFrom(segments, skip);
    const only = views[0];
    if (refuse(done, fd)) return;
    if (only === undefined) later(done, 0);
    else if (views.length === 1) {
      fs.read(fd, only, 0, only.length, offset, (error, count) => finish(done, error, count));
    } else fs.readv(fd, views, offset, (error, count) => finish(done, error, count));
  }

  write(
    done: Completion,
    fd: number,
    _traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
    dsync: boolean,
  ): void {
    assert(!dsync, 'a write with dsync, which this file does not have');
    const views = viewsFrom(segments, skip);
    const only = views[0];
    if (refuse(done, fd)) return;
    if (only === undefined) later(done, 0);
    else if (views.length === 1) {
      fs.write(fd, only, 0, only.length, offset, (error, count) => finish(done, error, count));
    } else fs.writev(fd, views, offset, (error, count) => finish(done, error, count));
  }

  datasync(done: Completion, fd: number): void {
    if (refuse(done, fd)) return;
    fs.fdatasync(fd, (error) => finish(done, error, 0));
  }

  allocate(done: Completion, fd: number, mode: number, offset: number, length: number): void {
    if (this.#libc === null) later(done, -EOPNOTSUPP);
    else this.#libc.fallocate(fd, mode, offset, length, (result) => done.complete(result));
  }

  /** A hint: without koffi it is not taken, which is as good. */
  willNeed(done: Completion, fd: number, offset: number, length: number): void {
    if (this.#libc === null) later(done, 0);
    else {
      this.#libc.fadvise(fd, offset, length, POSIX_FADV_WILLNEED, (result) =>
        done.complete(result),
      );
    }
  }

  /** Without koffi all of the file is data. */
  seekData(fd: number, offset: number): number {
    if (this.#libc !== null) return this.#libc.lseek(fd, offset, SEEK_DATA);
    const size = sizeOf(fd);
    return size < 0 || offset < size ? Math.min(size, offset) : -ENXIO;
  }

  seekHole(fd: number, offset: number): number {
    if (this.#libc !== null) return this.#libc.lseek(fd, offset, SEEK_HOLE);
    const size = sizeOf(fd);
    return size < 0 || offset < size ? size : -ENXIO;
  }
}

function finish(done: Completion, error: Error | null, count: number): void {
  done.complete(error === null ? count : negatedErrno(error));
}

function later(done: Completion, result: number): void {
  setImmediate(() => done.complete(result));
}

/** node:fs throws for what can be no descriptor; here it is an answer like any other. */
function refuse(done: Completion, fd: number): boolean {
  if (fd >= 0) return false;
  later(done, -EBADF);
  return true;
}

/** The size, or -errno. */
function sizeOf(fd: number): number {
  try {
    return fs.fstatSync(fd).size;
  } catch (error) {
    return negatedErrno(error as Error);
  }
}

/** The segments from byte `skip` on, as node:fs takes them. */
function viewsFrom(segments: Segments, skip: number): Uint8Array[] {
  const views: Uint8Array[] = [];
  let before = 0;
  for (let i = 0; i < segments.count; i += 1) {
    const bytes = segments.bytesAt(i);
    const inside = Math.max(0, skip - before);
    before += bytes.length;
    if (inside < bytes.length) views.push(inside === 0 ? bytes : bytes.subarray(inside));
  }
  return views;
}
