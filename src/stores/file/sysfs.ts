import { readFileSync, readdirSync, realpathSync, existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** A block device as sysfs describes it, with the devices it is made of. */
export interface BlockDeviceNode {
  /** The kernel's name: "sda", "dm-0". */
  readonly name: string;
  /** "major:minor". */
  readonly device: string;
  readonly kind: 'disk' | 'partition' | 'dm' | 'md' | 'loop' | 'zram' | 'ram' | 'nbd';
  readonly sizeBytes: number | null;
  /** dm: the name of the mapping; md: the level; loop: the file; else null. */
  readonly detail: string | null;
  /** "write back": the drive has a volatile cache that a flush empties. null: sysfs does not say. */
  readonly writeCache: 'write back' | 'write through' | null;
  readonly fua: boolean | null;
  readonly rotational: boolean | null;
  readonly logicalBlockBytes: number | null;
  readonly physicalBlockBytes: number | null;
  /** Whole ranges can be zeroed without sending zeroes (queue/write_zeroes_max_bytes). */
  readonly writesZeroes: boolean | null;
  readonly model: string | null;
  /** What lies beneath: the disk of a partition, the members of dm and md. Empty for a disk. */
  readonly beneath: readonly BlockDeviceNode[];
}

/** Deeper than any real stack of partitions, dm, md and loop; guards against a tree that loops. */
const MAX_DEPTH = 16;

/**
 * Reads one block device ("major:minor") and everything beneath it. `root` is where sysfs is mounted. Null when there
 * is no such device, or no sysfs (a container).
 */
export function readBlockDevice(device: string, root = '/sys'): BlockDeviceNode | null {
  const link = join(root, 'dev/block', device);
  if (!existsSync(link)) return null;
  const folder = realpathSync(link);
  return describe(folder, 0);
}

function describe(folder: string, depth: number): BlockDeviceNode | null {
  const device = text(folder, 'dev');
  if (device === null || depth > MAX_DEPTH) return null;
  const name = basename(folder);
  const isPartition = text(folder, 'partition') !== null;
  // A partition's requests go through the queue of its disk.
  const whole = isPartition ? dirname(folder) : folder;
  const beneath = isPartition
    ? [describe(whole, depth + 1)]
    : names(join(folder, 'slaves')).map((slave) =>
        describe(realpathSync(join(folder, 'slaves', slave)), depth + 1),
      );
  const sectors = number(folder, 'size');
  const cache = text(whole, 'queue/write_cache');
  return {
    name,
    device,
    // In sectors of 512 bytes, whatever the device's own are [Linux Documentation/ABI/stable/sysfs-block].
    sizeBytes: sectors === null ? null : sectors * 512,
    ...kindOf(folder, name, isPartition),
    writeCache: cache === 'write back' || cache === 'write through' ? cache : null,
    fua: flag(whole, 'queue/fua'),
    rotational: flag(whole, 'queue/rotational'),
    logicalBlockBytes: number(whole, 'queue/logical_block_size'),
    physicalBlockBytes: number(whole, 'queue/physical_block_size'),
    writesZeroes: flag(whole, 'queue/write_zeroes_max_bytes'),
    model: text(whole, 'device/model'),
    beneath: beneath.filter((node) => node !== null),
  };
}

function kindOf(
  folder: string,
  name: string,
  isPartition: boolean,
): Pick<BlockDeviceNode, 'kind' | 'detail'> {
  if (isPartition) return { kind: 'partition', detail: null };
  const mapping = text(folder, 'dm/name');
  if (mapping !== null) return { kind: 'dm', detail: mapping };
  const level = text(folder, 'md/level');
  if (level !== null) return { kind: 'md', detail: level };
  const file = text(folder, 'loop/backing_file');
  if (file !== null || /^loop\d/.test(name)) return { kind: 'loop', detail: file };
  if (/^zram\d/.test(name)) return { kind: 'zram', detail: null };
  if (/^ram\d/.test(name)) return { kind: 'ram', detail: null };
  if (/^nbd\d/.test(name)) return { kind: 'nbd', detail: null };
  return { kind: 'disk', detail: null };
}

/** The devices at the bottom: the drives themselves. */
export function drivesOf(node: BlockDeviceNode): BlockDeviceNode[] {
  return node.beneath.length === 0 ? [node] : node.beneath.flatMap((one) => drivesOf(one));
}

function text(folder: string, file: string): string | null {
  try {
    return readFileSync(join(folder, file), 'utf8').trim();
  } catch {
    // Not every device has every attribute.
    return null;
  }
}

function number(folder: string, file: string): number | null {
  const value = text(folder, file);
  return value === null || !/^\d+$/.test(value) ? null : Number(value);
}

function flag(folder: string, file: string): boolean | null {
  const value = number(folder, file);
  return value === null ? null : value > 0;
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder).toSorted();
  } catch {
    return [];
  }
}
