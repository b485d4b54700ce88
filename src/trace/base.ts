import {
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { crc32 } from 'node:zlib';
import { ConfigError, messageOf } from '../base/errors.ts';
import { formatSize, KiB, MiB } from '../base/units.ts';
import { crc32Zeroes } from './crc32-zeroes.ts';
import type { Trace, TraceBase } from './trace.ts';

/** lseek(2) SEEK_DATA and SEEK_HOLE: the place, or -errno. A reactor's `files` are one. */
export interface HoleFinder {
  seekData(fd: number, offset: number): number;
  seekHole(fd: number, offset: number): number;
}

const ENXIO = 6;
const PIECE_BYTES = 1 * MiB;
/** So much is zero as a whole, or is written. */
const SPARSE_BYTES = 64 * KiB;

/**
 * The description of a raw image as the base of a disk: its content's CRC-32. `stored` is how the trace names it: an
 * absolute path, or one from the trace's folder. Throws what node:fs throws.
 */
export function recordBase(path: string, stored: string = path, holes?: HoleFinder): TraceBase {
  return { kind: 'file', path: stored, crc32: crcOfImage(path, holes).crc };
}

/**
 * Makes a copy of the first `sizeBytes` of an image or a block device, with holes for what is zero, and describes it as a
 * base that lies beside its trace. A clone where the file system can (reflink). Throws what node:fs throws.
 */
export function copyBase(
  source: string,
  copy: string,
  sizeBytes: number,
  holes?: HoleFinder,
): TraceBase {
  try {
    copyFileSync(source, copy, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    truncateSync(copy, sizeBytes);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
    copySparse(source, copy, sizeBytes, holes);
  }
  return recordBase(copy, basename(copy), holes);
}

function copySparse(source: string, copy: string, sizeBytes: number, holes?: HoleFinder): void {
  const from = openSync(source, 'r');
  const to = openSync(copy, 'wx', 0o600);
  try {
    ftruncateSync(to, sizeBytes);
    const piece = Buffer.alloc(SPARSE_BYTES);
    const zeroes = Buffer.alloc(SPARSE_BYTES);
    for (let at = 0; at < sizeBytes;) {
      const data = nextData(from, at, sizeBytes, holes);
      at = data.start;
      while (at < data.end) {
        const count = readSync(from, piece, 0, Math.min(piece.length, data.end - at), at);
        if (count === 0) throw new Error(`${source} ends at byte ${at} while it is copied`);
        const isZero = piece.compare(zeroes, 0, count, 0, count) === 0;
        if (!isZero) writeAll(to, piece.subarray(0, count), at);
        at += count;
      }
    }
  } finally {
    closeSync(from);
    closeSync(to);
  }
}

function writeAll(fd: number, bytes: Uint8Array, at: number): void {
  let done = 0;
  while (done < bytes.length) {
    done += writeSync(fd, bytes, done, bytes.length - done, at + done);
  }
}

/** Where a trace's base is, or null for one of zeroes. */
export function basePath(trace: Pick<Trace, 'path'>, base: TraceBase): string | null {
  return base.kind === 'zeroes' ? null : resolve(dirname(trace.path), base.path);
}

/** Throws ConfigError unless all images that the recording began with are there and are as they were. */
export function checkBases(trace: Pick<Trace, 'path' | 'disks'>, holes?: HoleFinder): void {
  for (const { number, name, base, sizeBytes } of trace.disks) {
    const path = basePath(trace, base);
    if (path === null || base.kind === 'zeroes') continue;
    const which = `${trace.path}: the base of disk ${number} ('${name}'), ${path},`;
    let found: { crc: number; sizeBytes: number };
    try {
      found = crcOfImage(path, holes);
    } catch (error) {
      throw new ConfigError(
        `${which} cannot be read: ${messageOf(error)}`,
        'put the image that the recording began with back to where it was',
        { cause: error },
      );
    }
    if (found.sizeBytes !== sizeBytes) {
      throw new ConfigError(
        `${which} has ${found.sizeBytes} bytes; the disk had ${sizeBytes} (${formatSize(sizeBytes)})`,
        'restore the image as it was when the recording began',
      );
    }
    if (found.crc !== base.crc32) {
      throw new ConfigError(
        `${which} has changed since the recording began`,
        'restore the image as it was then; what is recorded only makes sense on top of it',
      );
    }
  }
}

/** Holes are not read. */
function crcOfImage(path: string, holes?: HoleFinder): { crc: number; sizeBytes: number } {
  const fd = openSync(path, 'r');
  try {
    const sizeBytes = fstatSync(fd).size;
    const piece = new Uint8Array(Math.min(PIECE_BYTES, Math.max(1, sizeBytes)));
    let crc = 0;
    let at = 0;
    while (at < sizeBytes) {
      const data = nextData(fd, at, sizeBytes, holes);
      crc = crc32Zeroes(crc, data.start - at);
      at = data.start;
      while (at < data.end) {
        const count = readSync(fd, piece, 0, Math.min(piece.length, data.end - at), at);
        if (count === 0) throw new Error(`it ends at byte ${at} while it is read`);
        crc = crc32(piece.subarray(0, count), crc);
        at += count;
      }
    }
    return { crc, sizeBytes };
  } finally {
    closeSync(fd);
  }
}

/** The next range with data at or after `at`. Where nobody can say, all is data. */
export function nextData(
  fd: number,
  at: number,
  sizeBytes: number,
  holes?: HoleFinder,
): { start: number; end: number } {
  if (holes === undefined) return { start: at, end: sizeBytes };
  const start = holes.seekData(fd, at);
  if (start === -ENXIO) return { start: sizeBytes, end: sizeBytes };
  if (start < at) return { start: at, end: sizeBytes };
  const end = holes.seekHole(fd, start);
  return {
    start: Math.min(start, sizeBytes),
    end: end > start ? Math.min(end, sizeBytes) : sizeBytes,
  };
}
