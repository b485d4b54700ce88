import { readFileSync, statSync } from 'node:fs';
import { deviceNumber } from './device-number.ts';
import { mountOf, parseMountInfo, type Mount } from './mounts.ts';
import { readBlockDevice, type BlockDeviceNode } from './sysfs.ts';

/** The mount a path (absolute, without symbolic links) is on; null without /proc. */
export function mountOfPath(realPath: string): Mount | null {
  try {
    return mountOf(parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')), realPath);
  } catch {
    return null;
  }
}

/**
 * The block device that a file's data end up on: the file system's, by number, or where that is anonymous (btrfs) by the
 * name it was mounted from. Null for memory and network file systems, and without sysfs.
 */
export function backingDevice(dev: number | bigint, mount: Mount | null): BlockDeviceNode | null {
  const direct = readBlockDevice(deviceNumber(dev));
  if (direct !== null || mount === null || !mount.source.startsWith('/dev/')) return direct;
  try {
    return readBlockDevice(deviceNumber(statSync(mount.source).rdev));
  } catch {
    // The device it was mounted from is not visible here: a container.
    return null;
  }
}
