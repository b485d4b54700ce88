import { Region } from '../../block/memory.ts';
import { libcOrNull } from './libc.ts';

/** O_DIRECT wants the alignment of the drive's logical block, at most 4096 on Linux. */
const PAGE_BYTES = 4096;

/**
 * Page-aligned memory from the JavaScript heap's own allocator: one page too much is taken and the start moved up.
 * Buffers do not move, so the address stays true. Where the address cannot be known (no koffi) it is 0, the memory
 * begins wherever the allocator put it, and O_DIRECT may fail with EINVAL.
 */
export function alignedRegion(bytes: number): Region {
  const libc = libcOrNull();
  if (libc === null) return Region.plain(bytes);
  const buffer = new ArrayBuffer(bytes + PAGE_BYTES);
  const base = libc.addressOf(new Uint8Array(buffer));
  const start = (PAGE_BYTES - (base % PAGE_BYTES)) % PAGE_BYTES;
  return new Region(base + start, buffer, start, bytes);
}
