import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError } from '../../base/errors.ts';
import { MiB, formatSize } from '../../base/units.ts';
import { MAX_DISK_BYTES } from '../../block/limits.ts';
import { statePathOf } from '../../durability/state-file.ts';
import { ImageLock } from './lock.ts';
import { allocateSpace } from './sys.ts';

export interface CreateOptions {
  /** Replaces an existing image that nobody uses. Its content is lost. */
  readonly overwrite: boolean;
  /**
   * 'off': sparse, space is taken as it is written. 'falloc': space is reserved. 'full': zeroes are written, so that
   * later writes need no allocation either. Named as qemu-img's.
   */
  readonly preallocate?: 'off' | 'falloc' | 'full';
}

/** How much is written at a time by preallocate 'full'. */
const CHUNK_BYTES = 1 * MiB;

/**
 * Makes a raw image of `sizeBytes` (a positive multiple of 512) that survives a power cut once this returns: file and
 * directory are synced. Throws ConfigError; then nothing new is left behind and nothing old is lost.
 */
export function createImage(path: string, sizeBytes: number, options: CreateOptions): void {
  if (!(sizeBytes > 0 && sizeBytes % 512 === 0 && sizeBytes <= MAX_DISK_BYTES)) {
    throw new ConfigError(
      `a disk of ${sizeBytes} bytes cannot be made`,
      `the size must be a multiple of 512, more than 0 and at most ${formatSize(MAX_DISK_BYTES)}`,
    );
  }
  const replaces = options.overwrite && existsSync(path);
  if (replaces) refuseUnlessReplaceable(path);
  // An old image stays until its successor is complete.
  const target = replaces ? `${path}.new-${process.pid}` : path;
  let made = false;
  try {
    const fd = openSync(target, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o644);
    made = true;
    try {
      fill(fd, sizeBytes, options.preallocate ?? 'off');
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    if (replaces) renameSync(target, path);
    syncDirectory(path);
    // What was remembered about an earlier disk of this name does not concern the new one.
    rmSync(statePathOf(path), { force: true });
  } catch (error) {
    if (made) rmSync(target, { force: true });
    throw failed(path, sizeBytes, error);
  }
}

function refuseUnlessReplaceable(path: string): void {
  if (!lstatSync(path).isFile()) {
    throw new ConfigError(
      `'${path}' exists and is not a regular file`,
      'only an image file can be overwritten: choose another name',
    );
  }
  const fd = openSync(path, 'r');
  try {
    new ImageLock(fd, path).acquire(true);
  } finally {
    closeSync(fd);
  }
}

function fill(fd: number, sizeBytes: number, preallocate: 'off' | 'falloc' | 'full'): void {
  if (preallocate === 'off') {
    ftruncateSync(fd, sizeBytes);
    return;
  }
  if (preallocate === 'falloc') {
    const result = allocateSpace(fd, sizeBytes);
    if (result < 0) throw errnoError(-result);
    return;
  }
  const zeroes = new Uint8Array(CHUNK_BYTES);
  for (let at = 0; at < sizeBytes;) {
    at += writeSync(fd, zeroes, 0, Math.min(CHUNK_BYTES, sizeBytes - at), at);
  }
}

/**
 * fsync(2): "Calling fsync() does not necessarily ensure that the entry in the directory ... has also reached disk."
 */
export function syncDirectory(path: string): void {
  const fd = openSync(dirname(path), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

const NAMES: Readonly<Record<number, string>> = {
  27: 'EFBIG',
  28: 'ENOSPC',
  38: 'EOPNOTSUPP', // ENOSYS
  95: 'EOPNOTSUPP',
  122: 'EDQUOT',
};

function errnoError(errno: number): Error {
  return Object.assign(new Error(`errno ${errno}`), { code: NAMES[errno] ?? `errno ${errno}` });
}

function failed(path: string, sizeBytes: number, error: unknown): Error {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const say = (what: string, hint: string): ConfigError =>
    new ConfigError(`cannot create '${path}': ${what}`, hint, { cause: error });
  switch (code) {
    case 'EEXIST':
      return say('it exists', 'choose another name, or pass --overwrite to lose what it holds');
    case 'ENOENT':
      return say(`there is no directory '${dirname(path)}'`, 'create the directory first');
    case 'ENOTDIR':
      return say(`'${dirname(path)}' is not a directory`, 'check the path');
    case 'EISDIR':
      return say('it is a directory', 'name a file inside it');
    case 'EACCES':
    case 'EPERM':
      return say('no permission', 'choose a directory that this user may write to');
    case 'EROFS':
      return say('the file system is mounted read-only', 'choose another directory');
    case 'ENOSPC':
    case 'EDQUOT':
      return say(
        `no space for ${formatSize(sizeBytes)}`,
        'free some space, choose a smaller size, or make it sparse: --preallocation off',
      );
    case 'EFBIG':
      return say(
        `${formatSize(sizeBytes)} is more than the file system can hold in one file`,
        'choose a smaller size or another file system',
      );
    case 'EOPNOTSUPP':
      return say('the file system cannot reserve space', 'use preallocate full or off');
    default:
      return error instanceof ConfigError ? error : say((error as Error).message, 'check the path');
  }
}
