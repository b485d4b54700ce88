import { EXTENT } from '../../block/extents.ts';
import { FLAG, type Io } from '../../block/io.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { codeOfErrno } from '../../block/errors.ts';
import type { DiskFile } from './disk-file.ts';

/** lseek(2): SEEK_DATA beyond the last data, or any seek at the end. */
const ENXIO = -6;

/**
 * The most extents looked up for one request. Each takes a seek, done at once on the data plane: a thousand seeks are a
 * millisecond that others wait.
 */
const MAX_SEEKS = 512;

const HOLE_AND_ZERO = EXTENT.HOLE | EXTENT.ZERO;

/**
 * Answers EXTENTS from the allocation map [lseek(2) SEEK_DATA, SEEK_HOLE]: data, or holes, which read as zeroes. Space
 * that is reserved and not written (fallocate) is reported as a hole, as the kernel does. Stops early in a ragged file.
 */
export function fillExtents(io: Io, file: DiskFile): BlockErrorCode | null {
  const { extents } = io;
  extents.clear();
  const end = io.offset + io.length;
  if (!file.facts.seeks) {
    extents.push(io.length, 0);
    return null;
  }
  const { blockBytes } = file.facts;
  let at = io.offset;
  for (let seeks = 0; at < end && seeks < MAX_SEEKS && !extents.full; seeks += 2) {
    const data = file.files.seekData(file.fd, at);
    if (data < 0 && data !== ENXIO) return codeOfErrno(-data);
    if (data === ENXIO) {
      // No data from here on: a hole, or a file that somebody cut.
      if (!file.look() || file.endBytes < end) return 'EIO';
    }
    // Holes shrink and data grow to whole blocks: data called a hole would be lost in a copy.
    const dataStart = data === ENXIO ? end : Math.min(end, roundDown(data, blockBytes));
    extents.push(dataStart - at, HOLE_AND_ZERO);
    at = Math.max(at, dataStart);
    if (at >= end || ((io.flags & FLAG.ONE) !== 0 && extents.count > 0)) break;
    const hole = file.files.seekHole(file.fd, at);
    if (hole < 0 && hole !== ENXIO) return codeOfErrno(-hole);
    const dataEnd = hole === ENXIO ? end : Math.min(end, roundUp(hole, blockBytes));
    extents.push(dataEnd - at, 0);
    at = dataEnd;
    if ((io.flags & FLAG.ONE) !== 0) break;
  }
  return null;
}

function roundDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit;
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
