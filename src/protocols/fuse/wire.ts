// The messages of FUSE as far as one file needs them [linux/fuse.h 7.39; fuse(4)]. Numbers are in the host's byte order,
// which on all hosts that Holdfast runs on is little-endian. Decoders read at fixed places of a message whose length
// `bodyBytes` has checked.

import type { BlockErrorCode } from '../../block/errors.ts';

export const FUSE_KERNEL_VERSION = 7;
/** What we speak: 7.39 (Linux 6.6) brought FUSE_DIRECT_IO_ALLOW_MMAP. */
export const FUSE_MINOR_VERSION = 39;
/** The least a kernel must speak: 7.28 (Linux 4.20) has max_pages, and all structures as they are read here. */
export const LEAST_MINOR_VERSION = 28;

/** The node of the only file there is: the root of the mount. */
export const FUSE_ROOT_ID = 1;

/** enum fuse_opcode, those that are answered by more than ENOSYS. */
export const FUSE_OP = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  INTERRUPT: 36,
  DESTROY: 38,
  IOCTL: 39,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  LSEEK: 46,
} as const;

/** Flags of INIT that we know. The second word has bits 32 and up. */
export const FUSE_INIT_FLAG = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  INIT_EXT: 1 << 30,
} as const;
export const FUSE_INIT_FLAG2 = { DIRECT_IO_ALLOW_MMAP: 1 << 4 } as const;

/** fuse_open_out.open_flags. */
export const FOPEN = { DIRECT_IO: 1 << 0, PARALLEL_DIRECT_WRITES: 1 << 6 } as const;

/** fuse_setattr_in.valid. */
export const FATTR = { MODE: 1, UID: 2, GID: 4, SIZE: 8, FH: 64 } as const;

/** [open(2)], as they travel in OPEN and WRITE. O_SYNC contains O_DSYNC. */
export const O_ACCMODE = 3;
export const O_DSYNC = 0o10000;

/** [fallocate(2)] */
export const FALLOC = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 16 } as const;

/** [lseek(2)] */
export const SEEK = { DATA: 3, HOLE: 4 } as const;

/** [inode(7)] */
const S_IFREG = 0o100000;

/** Linux errno(3), those that are answered. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  ENOMEM: 12,
  EBUSY: 16,
  EINVAL: 22,
  ENOTTY: 25,
  EFBIG: 27,
  ENFILE: 23,
  ENOSPC: 28,
  EROFS: 30,
  ERANGE: 34,
  ENOSYS: 38,
  EILSEQ: 84,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECANCELED: 125,
} as const;

/** What a program sees when the device failed its request. */
export const fuseErrno: Readonly<Record<BlockErrorCode, number>> = {
  EIO: ERRNO.EIO,
  ENOSPC: ERRNO.ENOSPC,
  EROFS: ERRNO.EROFS,
  EINVAL: ERRNO.EINVAL,
  ERANGE: ERRNO.ERANGE,
  EOPNOTSUPP: ERRNO.EOPNOTSUPP,
  ETIMEDOUT: ERRNO.ETIMEDOUT,
  ECANCELED: ERRNO.ECANCELED,
  ESHUTDOWN: ERRNO.ESHUTDOWN,
  EBUSY: ERRNO.EBUSY,
  ENOMEM: ERRNO.ENOMEM,
  EPERM: ERRNO.EPERM,
  // No system call compares; whoever gets it from a layer gets an input/output error.
  EMISCOMPARE: ERRNO.EIO,
  // As file systems with checksums say it.
  ECORRUPT: ERRNO.EILSEQ,
};

/** Payloads and data lie as they lie in the file: copies in step with the kernel's pages are quicker. */
export const MEMORY_PAGE_BYTES = 4096;

/** struct fuse_in_header */
export const IN_HEADER_BYTES = 40;
/** struct fuse_out_header */
export const OUT_HEADER_BYTES = 16;
/** struct fuse_write_in, in front of the payload. */
export const WRITE_IN_BYTES = 40;

/** The least bytes after the header of each operation; absent: none, or it is not known. */
const BODY_BYTES: Readonly<Record<number, number>> = {
  [FUSE_OP.LOOKUP]: 1,
  [FUSE_OP.FORGET]: 8,
  [FUSE_OP.GETATTR]: 16,
  [FUSE_OP.SETATTR]: 88,
  [FUSE_OP.OPEN]: 8,
  [FUSE_OP.READ]: 40,
  [FUSE_OP.WRITE]: WRITE_IN_BYTES,
  [FUSE_OP.RELEASE]: 24,
  [FUSE_OP.FSYNC]: 16,
  [FUSE_OP.FLUSH]: 24,
  // Up to 7.35 without flags2 and the reserve behind it.
  [FUSE_OP.INIT]: 16,
  [FUSE_OP.INTERRUPT]: 8,
  [FUSE_OP.IOCTL]: 32,
  [FUSE_OP.BATCH_FORGET]: 8,
  [FUSE_OP.FALLOCATE]: 32,
  [FUSE_OP.LSEEK]: 24,
};

export function bodyBytes(opcode: number): number {
  return BODY_BYTES[opcode] ?? 0;
}

const TWO_32 = 2 ** 32;

export function readU32(view: DataView, at: number): number {
  return view.getUint32(at, true);
}

/** Above 2^53 the value is rounded, and still beyond every disk: it fails the check that follows every use. */
export function readU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % TWO_32, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

/** struct fuse_out_header: `length` with the header, `errno` positive or 0. */
export function writeOutHeader(
  view: DataView,
  at: number,
  length: number,
  errno: number,
  uniqueLow: number,
  uniqueHigh: number,
): void {
  view.setUint32(at, length, true);
  view.setInt32(at + 4, -errno, true);
  view.setUint32(at + 8, uniqueLow, true);
  view.setUint32(at + 12, uniqueHigh, true);
}

/** What stat(2) says of the file. */
export interface FileAttributes {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970. */
  readonly modifiedSeconds: number;
}

/** The unit of st_blocks [stat(2)]. */
const STAT_BLOCK_BYTES = 512;

/** struct fuse_attr_out: 104 bytes. Valid for no time, so that every stat asks. */
export function writeAttrOut(view: DataView, at: number, file: FileAttributes): number {
  writeU64(view, at, 0);
  writeU64(view, at + 8, 0);
  const attr = at + 16;
  writeU64(view, attr, FUSE_ROOT_ID);
  writeU64(view, attr + 8, file.sizeBytes);
  // As a block device: all of it is there. What is a hole, SEEK_HOLE tells.
  writeU64(view, attr + 16, Math.ceil(file.sizeBytes / STAT_BLOCK_BYTES));
  for (const time of [24, 32, 40]) writeU64(view, attr + time, Math.floor(file.modifiedSeconds));
  const nanoseconds = Math.floor((file.modifiedSeconds % 1) * 1e9);
  for (const time of [48, 52, 56]) view.setUint32(attr + time, nanoseconds, true);
  view.setUint32(attr + 60, S_IFREG | file.mode, true);
  view.setUint32(attr + 64, 1, true);
  view.setUint32(attr + 68, file.uid, true);
  view.setUint32(attr + 72, file.gid, true);
  view.setUint32(attr + 76, 0, true);
  view.setUint32(attr + 80, file.blockBytes, true);
  view.setUint32(attr + 84, 0, true);
  return 104;
}

/** struct fuse_statfs_out: 80 bytes. A file system full of one file. */
export function writeStatfsOut(view: DataView, at: number, file: FileAttributes): number {
  new Uint8Array(view.buffer, view.byteOffset + at, 80).fill(0);
  writeU64(view, at, Math.ceil(file.sizeBytes / file.blockBytes));
  writeU64(view, at + 24, 1);
  view.setUint32(at + 40, file.blockBytes, true);
  view.setUint32(at + 44, 255, true);
  view.setUint32(at + 48, file.blockBytes, true);
  return 80;
}

/** struct fuse_init_in, as far as it goes. */
export interface InitIn {
  readonly major: number;
  readonly minor: number;
  readonly maxReadahead: number;
  readonly flags: number;
  readonly flags2: number;
}

export function readInitIn(view: DataView, at: number, bytes: number): InitIn {
  const flags = readU32(view, at + 12);
  const extended = (flags & FUSE_INIT_FLAG.INIT_EXT) !== 0 && bytes >= 20;
  return {
    major: readU32(view, at),
    minor: readU32(view, at + 4),
    maxReadahead: readU32(view, at + 8),
    flags,
    flags2: extended ? readU32(view, at + 16) : 0,
  };
}

export interface InitOut {
  readonly maxReadahead: number;
  readonly flags: number;
  readonly flags2: number;
  readonly maxBackground: number;
  readonly congestionThreshold: number;
  readonly maxWrite: number;
  readonly maxPages: number;
}

/** struct fuse_init_out: 64 bytes. */
export function writeInitOut(view: DataView, at: number, out: InitOut): number {
  new Uint8Array(view.buffer, view.byteOffset + at, 64).fill(0);
  view.setUint32(at, FUSE_KERNEL_VERSION, true);
  view.setUint32(at + 4, FUSE_MINOR_VERSION, true);
  view.setUint32(at + 8, out.maxReadahead, true);
  view.setUint32(at + 12, out.flags, true);
  view.setUint16(at + 16, out.maxBackground, true);
  view.setUint16(at + 18, out.congestionThreshold, true);
  view.setUint32(at + 20, out.maxWrite, true);
  view.setUint32(at + 24, 1, true);
  view.setUint16(at + 28, out.maxPages, true);
  view.setUint32(at + 32, out.flags2, true);
  return 64;
}
