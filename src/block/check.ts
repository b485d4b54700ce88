import { unreachable } from '../base/assert.ts';
import type { DeviceInfo } from './device.ts';
import type { BlockErrorCode } from './errors.ts';
import { OP, type Io } from './io.ts';

/**
 * What every device asks of an Io before it looks at it: null, or why it is refused. Called once, by the face, so that
 * no layer or store has to doubt a range.
 */
export function checkIo(io: Io, info: DeviceInfo): BlockErrorCode | null {
  switch (io.op) {
    case OP.FLUSH:
      return null;
    case OP.WRITE:
      if (info.readOnly) return 'EROFS';
      return checkTransfer(io, info, 'ENOSPC');
    case OP.READ:
      return checkTransfer(io, info, 'EINVAL');
    case OP.WRITE_ZEROES:
      if (info.readOnly) return 'EROFS';
      return checkRange(io, info, 'ENOSPC');
    case OP.DISCARD:
      if (info.readOnly) return 'EROFS';
      return checkRange(io, info, 'EINVAL');
    case OP.CACHE:
    case OP.EXTENTS:
      return checkRange(io, info, 'EINVAL');
    default:
      return unreachable(io.op);
  }
}

function checkRange(io: Io, info: DeviceInfo, beyond: BlockErrorCode): BlockErrorCode | null {
  const mask = info.blockBytes - 1;
  // The remainder by a power of two, without the 32 bit limit of `&`.
  if (io.offset % info.blockBytes !== 0 || (io.length & mask) !== 0) return 'EINVAL';
  if (!(io.offset >= 0 && io.length >= 0 && io.offset + io.length <= info.sizeBytes)) return beyond;
  return null;
}

function checkTransfer(io: Io, info: DeviceInfo, beyond: BlockErrorCode): BlockErrorCode | null {
  if (io.length > info.maxTransferBytes || io.segments.totalBytes !== io.length) return 'EINVAL';
  return checkRange(io, info, beyond);
}
