import { readFileSync } from 'node:fs';
import { ConfigError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import { MAX_DISK_BYTES } from '../../block/limits.ts';
import { mountOf, parseMountInfo } from './mounts.ts';

// Why a disk cannot be opened, in one line, and what the operator can do about it.

export interface Attempt {
  readonly path: string;
  readonly direct: boolean;
  readonly readOnly: boolean;
}

/** For an error of stat(2) or open(2). */
export function openRefused(attempt: Attempt, error: unknown): ConfigError {
  const { path, direct, readOnly } = attempt;
  const say = (what: string, hint: string): ConfigError =>
    new ConfigError(`disk '${path}' ${what}`, hint, { cause: error });
  switch ((error as NodeJS.ErrnoException).code ?? '') {
    case 'ENOENT':
      return say('does not exist', `create it: holdfast create '${path}' 10G`);
    case 'ENOTDIR':
      return say('does not exist: a part of its path is not a directory', 'check the path');
    case 'ELOOP':
      return say('is a symbolic link that leads back to itself', 'check the path');
    case 'EACCES':
      return readOnly
        ? say('may not be read by this user', 'give this user access to it')
        : say('may not be written by this user', 'give this user access to it, or add --read-only');
    case 'EPERM':
      return say(
        'is protected by the kernel against being opened so',
        'see lsattr(1) for an immutable file; in a container, allow the device; or add --read-only',
      );
    case 'EROFS':
      return say('is on a file system mounted read-only', 'remount it, or add --read-only');
    case 'ETXTBSY':
      return say('is in use as swap space or as a running program', 'choose another disk');
    case 'EBUSY':
      return say(
        'is in use by the kernel: mounted, or part of a RAID, LVM or device-mapper set',
        'unmount or detach it first, or add --read-only',
      );
    case 'ENXIO':
    case 'ENODEV':
    case 'ENOMEDIUM':
      return say('is a device that is not there, or has no medium', 'check the device');
    case 'EINVAL':
      if (direct) return directRefused(path, error);
      return say('cannot be opened: invalid argument', 'check the path and the file system');
    default:
      return say(`cannot be opened: ${(error as Error).message}`, 'check the path and the storage');
  }
}

function directRefused(path: string, error: unknown): ConfigError {
  return new ConfigError(
    `disk '${path}' is on a file system without O_DIRECT (${fileSystemOf(path)})`,
    'use --cache writeback or writethrough, or move it, for example to ext4 or XFS',
    { cause: error },
  );
}

/** The type of the file system a path (without symbolic links) is on, for messages. */
function fileSystemOf(path: string): string {
  try {
    const mounts = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
    return mountOf(mounts, path)?.fileSystem ?? 'type unknown';
  } catch {
    // No /proc: the message does without.
    return 'type unknown';
  }
}

/** For what is neither a file nor a block device. `kind` reads like "a directory". */
export function wrongKind(path: string, kind: string): ConfigError {
  return new ConfigError(
    `disk '${path}' is ${kind}`,
    'name a raw image file or a block device; holdfast create makes an image',
  );
}

/** Null when the size is one that a disk can have. */
export function sizeRefused(
  path: string,
  sizeBytes: number,
  blockBytes: number,
): ConfigError | null {
  const say = (what: string, hint: string): ConfigError =>
    new ConfigError(`disk '${path}' ${what}`, hint);
  if (sizeBytes === 0) {
    return say('is empty (0 bytes)', `give it a size: truncate -s 10G '${path}'`);
  }
  if (sizeBytes % 512 !== 0) {
    return say(
      `has an odd size: ${sizeBytes} bytes is not a multiple of 512`,
      `if it is a raw image, fill the last sector with zeroes: truncate -s %512 '${path}'`,
    );
  }
  if (sizeBytes % blockBytes !== 0) {
    return say(
      `has a size of ${sizeBytes} bytes, and O_DIRECT needs a multiple of ${blockBytes} here`,
      `use --cache writeback, or add zeroes at its end: truncate -s %${blockBytes} '${path}'`,
    );
  }
  if (sizeBytes > MAX_DISK_BYTES) {
    return say(`is larger than ${formatSize(MAX_DISK_BYTES)}`, 'that is the largest disk served');
  }
  return null;
}
