import { readSync } from 'node:fs';
import { ConfigError } from '../../base/errors.ts';
import type { Region } from '../../block/memory.ts';
import { directAlignment, type DirectAlignment } from './sys.ts';

/** What is tried where the kernel does not say: the sector of old drives, that of new ones, the largest in use. */
const CANDIDATES = [512, 4096, 65_536];

/**
 * What O_DIRECT asks of offsets, lengths and memory on an open file, in bytes: as statx(2) says, checked by a read, or
 * else found by reading. `page` is page-aligned scratch memory of at least 64 KiB. Throws ConfigError when nothing
 * works.
 */
export function probeDirect(
  fd: number,
  sizeBytes: number,
  page: Region,
  name: string,
): DirectAlignment {
  const said = directAlignment(fd);
  if (said !== null && reads(fd, said.offsetBytes, sizeBytes, page)) {
    return { memoryBytes: said.memoryBytes, offsetBytes: Math.max(512, said.offsetBytes) };
  }
  for (const bytes of CANDIDATES) {
    if (reads(fd, bytes, sizeBytes, page)) return { memoryBytes: bytes, offsetBytes: bytes };
  }
  throw new ConfigError(
    `disk '${name}' cannot be read with O_DIRECT, although its file system lets it be opened so`,
    'use --cache writeback or writethrough',
  );
}

/** One block that does not lie at a multiple of anything larger, if the disk has two. */
function reads(fd: number, blockBytes: number, sizeBytes: number, page: Region): boolean {
  const offset = sizeBytes >= 2 * blockBytes ? blockBytes : 0;
  try {
    return readSync(fd, page.bytes.subarray(0, blockBytes), 0, blockBytes, offset) > 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return false;
    throw error;
  }
}
