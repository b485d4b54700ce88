import type { Stats } from 'node:fs';
import { ConfigError } from '../../base/errors.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { backingDevice, mountOfPath } from './backing.ts';
import { deviceNumber } from './device-number.ts';
import { probeDirect } from './direct.ts';
import type { DiskFileFacts } from './disk-file.ts';
import { natureOf } from './mounts.ts';
import type { FileStoreOptions } from './open.ts';
import { openRefused, sizeRefused } from './refusals.ts';
import * as sys from './sys.ts';
import { readBlockDevice } from './sysfs.ts';

/** lseek(2): SEEK_DATA on a file without data. */
const ENXIO = -6;

/** A file system may recommend megabytes (NFS); nothing reads, changes and writes more than this at once. */
const MAX_PREFERRED_BYTES = 65_536;
const MIN_PREFERRED_BYTES = 4096;

/** Finds out what the open file `fd` is and can. Throws ConfigError when it cannot be a disk. Changes nothing. */
export function readFacts(
  reactor: Reactor,
  fd: number,
  realPath: string,
  stats: Stats,
  options: FileStoreOptions,
): DiskFileFacts {
  const { path, direct, readOnly } = options;
  const isBlockDevice = stats.isBlockDevice();
  const device = isBlockDevice ? deviceFacts(fd, options) : null;
  const sizeBytes = device === null ? stats.size : device.sizeBytes;
  const refused = sizeRefused(path, sizeBytes, 512);
  if (refused !== null) throw refused;
  const alignment = direct ? directAlignment(reactor, fd, sizeBytes, path) : null;
  const blockBytes = Math.max(options.blockBytes ?? 1, alignment?.offsetBytes ?? 1);
  const unfit = sizeRefused(path, sizeBytes, blockBytes);
  if (unfit !== null) throw unfit;
  const mount = isBlockDevice ? null : mountOfPath(realPath);
  const node = isBlockDevice
    ? readBlockDevice(deviceNumber(stats.rdev))
    : backingDevice(stats.dev, mount);
  const unit = device === null ? stats.blksize : device.physicalBlockBytes;
  const data = reactor.files.seekData(fd, 0);
  const nature = mount === null ? 'local' : natureOf(mount.fileSystem);
  return {
    name: path,
    realPath,
    sizeBytes,
    isBlockDevice,
    direct,
    blockBytes,
    memoryAlignment: alignment?.memoryBytes ?? 1,
    preferredBytes: preferredBytes(unit, blockBytes),
    rotational: node?.rotational ?? false,
    punches:
      !readOnly && (isBlockDevice ? node?.writesZeroes === true : sys.canPunchHoles(fd, sizeBytes)),
    punchUnitBytes: device?.logicalBlockBytes ?? 1,
    seeks: data >= 0 || data === ENXIO,
    // A look at a file on a server that is away would stop everything until it is back.
    watched: !isBlockDevice && nature !== 'network' && nature !== 'fuse',
  };
}

function deviceFacts(fd: number, options: FileStoreOptions): sys.BlockDeviceFacts {
  const found = sys.blockDeviceFacts(fd);
  if (typeof found === 'number') {
    throw openRefused(options, new Error(`its size cannot be read (errno ${-found})`));
  }
  if (found.readOnly && !options.readOnly) {
    throw new ConfigError(
      `disk '${options.path}' is a device set to read-only`,
      'add --read-only, or allow writing: blockdev --setrw',
    );
  }
  return found;
}

function directAlignment(
  reactor: Reactor,
  fd: number,
  sizeBytes: number,
  path: string,
): sys.DirectAlignment {
  const page = reactor.pool.take();
  if (page === null) {
    throw new ConfigError(
      'no payload memory is left for another disk',
      'add the disk while there is less load',
    );
  }
  try {
    return probeDirect(fd, sizeBytes, page.region, path);
  } finally {
    page.release();
  }
}

/** A power of two, at least the page size of nearly every file system and cache. */
function preferredBytes(unit: number, blockBytes: number): number {
  const usable = Number.isInteger(Math.log2(unit)) ? Math.min(unit, MAX_PREFERRED_BYTES) : 0;
  return Math.max(MIN_PREFERRED_BYTES, usable, blockBytes);
}
