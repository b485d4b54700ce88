import type { Region } from '../../block/memory.ts';
import { BLK_HEADER_BYTES, BLK_RANGE_BYTES } from '../virtio/blk.ts';
import type { DriverMemory } from '../virtio/driver/driver-memory.ts';
import type { Buffer as GuestBuffer } from '../virtio/driver/driver-queue.ts';

/** A buffer of a chain, filled anew for each request. */
export class ChainBuffer implements GuestBuffer {
  address = 0;
  length = 0;
}

/** What one request has in the memory that is shared with the device. Starts are those in the region. */
export interface RequestPlace {
  /** BLK_HEADER_BYTES for the request's header. */
  readonly header: number;
  /** BLK_RANGE_BYTES for the range of DISCARD and WRITE_ZEROES. */
  readonly range: number;
  /** One byte, the device's. */
  readonly status: number;
  /** maxTransferBytes for data that does not lie in shared memory itself. */
  readonly data: number;
}

const CONTROL_BYTES = 64;
const PAGE_BYTES = 4096;

/** What each request takes of shared memory at most. */
export function requestBytes(maxTransferBytes: number): number {
  return CONTROL_BYTES + Math.ceil(maxTransferBytes / PAGE_BYTES) * PAGE_BYTES;
}

export function placeRequest(memory: DriverMemory, maxTransferBytes: number): RequestPlace {
  // One cache line, so that two requests' status bytes never share one.
  const control = memory.placeOf(memory.allocate(CONTROL_BYTES, CONTROL_BYTES).address).start;
  const data = memory.placeOf(memory.allocate(maxTransferBytes, PAGE_BYTES).address).start;
  return {
    header: control,
    range: control + BLK_HEADER_BYTES,
    status: control + BLK_HEADER_BYTES + BLK_RANGE_BYTES,
    data,
  };
}

/** Whether a stretch of a region lies in shared memory: then the device reaches it where it is. */
export function isShared(memory: Region, region: Region, start: number, length: number): boolean {
  const from = region.address + start - memory.address;
  return region.address !== 0 && from >= 0 && from + length <= memory.bytes.length;
}
