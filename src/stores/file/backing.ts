import { readFileSync, realpathSync, statSync } from 'node:fs';
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
 * The block device that a file's data end up on: the file system's, by number, or where that is anonymous (btrfs) by
 * the name it was mounted from. Null for memory and network file systems, and without sysfs.
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

/** Deeper than anybody stacks loop devices. */
const MAX_LOOPS = 8;

/** Puts beneath each loop device what its file is on. Parts that cannot be seen are left out. */
export function withLoopFiles(node: BlockDeviceNode, depth = 0): BlockDeviceNode {
  const beneath = node.beneath.map((one) => withLoopFiles(one, depth));
  if (node.kind !== 'loop' || node.detail === null || depth === MAX_LOOPS)
    return { ...node, beneath };
  try {
    const file = realpathSync(node.detail);
    const under = backingDevice(statSync(file).dev, mountOfPath(file));
    return { ...node, beneath: under === null ? [] : [withLoopFiles(under, depth + 1)] };
  } catch {
    // The file is deleted, or in another mount namespace.
    return { ...node, beneath };
  }
}
