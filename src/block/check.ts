import { unreachable } from '../base/assert.ts';
import type { DeviceInfo } from './device.ts';
import type { BlockErrorCode } from './errors.ts';
import { OP, type Io, type Op } from './io.ts';

/**
 * What every device asks of an Io before it looks at it: null, or why it is refused. Called once, by the face, so that
 * no layer or store has to doubt a range.
 */
export function checkIo(io: Io, info: DeviceInfo): BlockErrorCode | null {
  if (io.op === OP.READ || io.op === OP.WRITE) {
    if (io.length > info.maxTransferBytes || io.segments.totalBytes !== io.length) return 'EINVAL';
  }
  return checkRange(io.op, io.offset, io.length, info);
}

/** The part of `checkIo` that needs no Io: for a face that splits a request into several. */
export function checkRange(
  op: Op,
  offset: number,
  length: number,
  info: DeviceInfo,
): BlockErrorCode | null {
  switch (op) {
    case OP.FLUSH:
      return null;
    case OP.WRITE:
    case OP.WRITE_ZEROES:
      return info.readOnly ? 'EROFS' : inside(offset, length, info, 'ENOSPC');
    case OP.DISCARD:
      return info.readOnly ? 'EROFS' : inside(offset, length, info, 'EINVAL');
    case OP.READ:
    case OP.CACHE:
    case OP.EXTENTS:
      return inside(offset, length, info, 'EINVAL');
    default:
      return unreachable(op);
  }
}

function inside(
  offset: number,
  length: number,
  info: DeviceInfo,
  beyond: BlockErrorCode,
): BlockErrorCode | null {
  // The remainder by a power of two, without the 32 bit limit of `&`.
  if (offset % info.blockBytes !== 0 || length % info.blockBytes !== 0) return 'EINVAL';
  return offset >= 0 && length >= 0 && offset + length <= info.sizeBytes ? null : beyond;
}
