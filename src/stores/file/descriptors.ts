import { closeSync, constants, fstatSync, openSync, type Stats } from 'node:fs';
import { ConfigError } from '../../base/errors.ts';
import type { DescriptorPair } from './disk-file.ts';
import { openRefused, type Attempt } from './refusals.ts';

/**
 * Opens the inode that `expected` describes, twice, with the same flags: for data and for syncs. Throws ConfigError;
 * then nothing stays open.
 */
export function openPair(attempt: Attempt, expected: Stats): DescriptorPair {
  const { O_RDONLY, O_RDWR, O_DIRECT, O_EXCL } = constants;
  const flags = (attempt.readOnly ? O_RDONLY : O_RDWR) | (attempt.direct ? O_DIRECT : 0);
  // O_EXCL without O_CREAT: the kernel refuses a block device that is mounted or part of something [open(2)].
  const exclusive = expected.isBlockDevice() && !attempt.readOnly ? O_EXCL : 0;
  let data: number;
  try {
    data = openSync(attempt.path, flags | exclusive);
  } catch (error) {
    throw openRefused(attempt, error);
  }
  try {
    const sync = openAgain(attempt, data, flags);
    try {
      requireSame(attempt.path, expected, fstatSync(data));
      requireSame(attempt.path, expected, fstatSync(sync));
    } catch (error) {
      closeSync(sync);
      throw error;
    }
    return { data, sync };
  } catch (error) {
    closeSync(data);
    throw error;
  }
}

/** Through /proc, so that it is the same inode even if the path has meanwhile come to mean another. */
function openAgain(attempt: Attempt, fd: number, flags: number): number {
  try {
    return openSync(`/proc/self/fd/${fd}`, flags);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw openRefused(attempt, error);
  }
  try {
    return openSync(attempt.path, flags);
  } catch (error) {
    throw openRefused(attempt, error);
  }
}

function requireSame(path: string, expected: Stats, found: Stats): void {
  if (found.dev === expected.dev && found.ino === expected.ino && found.rdev === expected.rdev)
    return;
  throw new ConfigError(`disk '${path}' was replaced while it was being opened`, 'try again');
}
