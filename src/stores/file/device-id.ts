import { readFileSync, readdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';

/**
 * A name of a block device that outlives reboots and re-plugging: the device-mapper's UUID, a loop device's
 * file, or udev's name in by-id (the first, in the order of the alphabet), or, where nothing better is known, the
 * path itself. `realPath` is a path in /dev without symbolic links, `device` its "major:minor".
 */
export function stableDeviceId(
  realPath: string,
  device: string,
  sysfs = '/sys',
  byId = '/dev/disk/by-id',
): string {
  const uuid = textOf(join(sysfs, 'dev/block', device, 'dm/uuid'));
  if (uuid !== null && uuid !== '') return `dm-uuid-${uuid}`;
  // The number of a loop device says nothing of what is in it.
  const file = textOf(join(sysfs, 'dev/block', device, 'loop/backing_file'));
  if (file !== null && file !== '') return `loop-${file}`;
  for (const name of namesIn(byId)) {
    if (targetOf(join(byId, name)) === realPath) return name;
  }
  return realPath;
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).toSorted();
  } catch {
    // No udev: a container.
    return [];
  }
}

function targetOf(link: string): string | null {
  try {
    return realpathSync(link);
  } catch {
    // It points to a device that has gone.
    return null;
  }
}
