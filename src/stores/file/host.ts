import { closeSync, constants, openSync, realpathSync, statSync, type Stats } from 'node:fs';
import { release } from 'node:os';
import { CACHE_MODES, type CacheMode } from '../../durability/modes.ts';
import { backingDevice, mountOfPath, withLoopFiles } from './backing.ts';
import { deviceNumber } from './device-number.ts';
import {
  barriersOff,
  natureOf,
  punchesHoles,
  type FileSystemNature,
  type Mount,
} from './mounts.ts';
import { openRefused, wrongKind } from './refusals.ts';
import * as sys from './sys.ts';
import { drivesOf, readBlockDevice, type BlockDeviceNode } from './sysfs.ts';

/** What the host does with a disk's bytes. Everything that cannot be found out is null, never a guess. */
export interface HostFacts {
  /** As it was asked for, and without symbolic links. */
  readonly path: string;
  readonly realPath: string;
  readonly kind: 'file' | 'block';
  /** null when the kernel does not say. */
  readonly sizeBytes: number | null;
  /** Space taken on the file system; null for a block device. */
  readonly allocatedBytes: number | null;
  /** The file system a file is on. */
  readonly mount: Mount | null;
  readonly nature: FileSystemNature | null;
  /** The file system was told not to flush the drive. */
  readonly barriersOff: boolean;
  /** btrfs: writes go to new places and are checksummed, so that O_DIRECT may copy after all. */
  readonly copyOnWrite: 'yes' | 'nodatacow' | null;
  readonly compressed: boolean;
  /** The device the bytes are on, with all that is beneath it. */
  readonly device: BlockDeviceNode | null;
  /** The drives at the bottom. */
  readonly drives: readonly BlockDeviceNode[];
  /** O_DIRECT can be had; null when the file may not be opened by this user. */
  readonly direct: boolean | null;
  /** What O_DIRECT asks of offsets and memory, in bytes, where the kernel says. */
  readonly directAlignment: sys.DirectAlignment | null;
  /** RWF_DSYNC: one write can be made stable by itself (Linux 4.7). */
  readonly writeDsync: boolean;
  readonly punchHole: boolean | null;
  /** A drive has a volatile cache that a flush must empty; null when none has and not all say. */
  readonly volatileCache: boolean | null;
  /** Every drive can write one request through its cache. */
  readonly driveFua: boolean | null;
  readonly rotational: boolean | null;
}

/** Reads the host. Changes nothing; needs no more rights than to see the file. Throws ConfigError if it is no disk. */
export function readHost(path: string): HostFacts {
  const stats = statOf(path);
  const realPath = realpathSync(path);
  const isBlock = stats.isBlockDevice();
  const mount = isBlock ? null : mountOfPath(realPath);
  const found = isBlock
    ? readBlockDevice(deviceNumber(stats.rdev))
    : backingDevice(stats.dev, mount);
  const device = found === null ? null : withLoopFiles(found);
  const opened = tryDirect(realPath);
  return {
    path,
    realPath,
    kind: isBlock ? 'block' : 'file',
    sizeBytes: isBlock ? (device?.sizeBytes ?? null) : stats.size,
    allocatedBytes: isBlock ? null : stats.blocks * 512,
    writeDsync: kernelAtLeast(release(), 4, 7),
    ...opened,
    ...describeHost(mount, device),
  };
}

type Described = Pick<
  HostFacts,
  | 'mount'
  | 'nature'
  | 'barriersOff'
  | 'copyOnWrite'
  | 'compressed'
  | 'device'
  | 'drives'
  | 'punchHole'
  | 'volatileCache'
  | 'driveFua'
  | 'rotational'
>;

/** What follows from the mount and the device alone. */
export function describeHost(mount: Mount | null, device: BlockDeviceNode | null): Described {
  const drives = device === null ? [] : drivesOf(device);
  const isBtrfs = mount?.fileSystem === 'btrfs';
  const options = mount?.options ?? [];
  return {
    mount,
    nature: mount === null ? null : natureOf(mount.fileSystem),
    barriersOff: mount !== null && barriersOff(mount),
    copyOnWrite: isBtrfs ? (options.includes('nodatacow') ? 'nodatacow' : 'yes') : null,
    compressed:
      isBtrfs && options.some((option) => /^compress(-force)?(=(?!no|off)|$)/.test(option)),
    device,
    drives,
    punchHole: mount === null ? (device?.writesZeroes ?? null) : punchesHoles(mount.fileSystem),
    volatileCache: anyOf(
      drives.map((drive) => (drive.writeCache === null ? null : drive.writeCache === 'write back')),
    ),
    driveFua: drives.length === 0 ? null : allOf(drives.map((drive) => drive.fua)),
    rotational: device?.rotational ?? null,
  };
}

/** One thing an operator should know before trusting a cache mode here. */
export interface HostWarning {
  readonly code:
    | 'volatile-storage'
    | 'barriers-off'
    | 'network'
    | 'overlay'
    | 'fuse'
    | 'direct-unavailable'
    | 'direct-copies'
    | 'loop'
    | 'mode-ignores-flush';
  readonly message: string;
}

/** Where a mode promises more than this host gives. Empty: nothing known against it. */
export function hostWarnings(facts: HostFacts, mode: CacheMode): HostWarning[] {
  const { direct, ignoreFlush } = CACHE_MODES[mode];
  const warnings: HostWarning[] = [];
  const warn = (code: HostWarning['code'], message: string): void => {
    warnings.push({ code, message });
  };
  const fileSystem = facts.mount?.fileSystem ?? '';
  if (ignoreFlush)
    warn(
      'mode-ignores-flush',
      'unsafe: flushes are acknowledged and not done; a power cut may take everything',
    );
  if (facts.nature === 'memory') {
    warn(
      'volatile-storage',
      `${fileSystem} keeps the disk in memory: a reboot loses it in every mode`,
    );
  }
  for (const drive of facts.drives.filter((one) => one.kind === 'zram' || one.kind === 'ram')) {
    warn('volatile-storage', `${drive.name} is memory: a reboot loses the disk in every mode`);
  }
  if (facts.barriersOff) {
    warn(
      'barriers-off',
      `${fileSystem} is mounted without barriers: a sync leaves data in the drive's volatile cache`,
    );
  }
  if (facts.nature === 'network') {
    warn(
      'network',
      `${fileSystem} is a network file system: stable means what its server means by it`,
    );
  }
  if (facts.nature === 'fuse') {
    warn(
      'fuse',
      `${fileSystem} is served by a program: stable means what that program does on fsync`,
    );
  }
  if (facts.nature === 'overlay') {
    warn(
      'overlay',
      `${fileSystem} lies over another file system (and may be mounted volatile): use a volume of its own`,
    );
  }
  if (direct && facts.direct === false) {
    warn(
      'direct-unavailable',
      `${mode} needs O_DIRECT, which ${fileSystem === '' ? 'this device' : fileSystem} does not offer`,
    );
  }
  if (direct && (facts.compressed || facts.copyOnWrite === 'yes')) {
    warn(
      'direct-copies',
      'btrfs falls back to buffered writes where data are compressed or checksummed: chattr +C on the empty file avoids it',
    );
  }
  if (hasLoop(facts.device)) {
    warn(
      'loop',
      'a loop device adds a second cache: stable means synced in the file beneath it, which flushes do reach',
    );
  }
  return warnings;
}

function hasLoop(node: BlockDeviceNode | null): boolean {
  return node !== null && (node.kind === 'loop' || node.beneath.some((one) => hasLoop(one)));
}

/** Whether a kernel release ("6.1.0-18-amd64") is at least major.minor. */
export function kernelAtLeast(text: string, major: number, minor: number): boolean {
  const match = /^(\d+)\.(\d+)/.exec(text);
  if (match === null) return false;
  const [found, foundMinor] = [Number(match[1]), Number(match[2])];
  return found > major || (found === major && foundMinor >= minor);
}

function anyOf(values: readonly (boolean | null)[]): boolean | null {
  if (values.includes(true)) return true;
  return values.length === 0 || values.includes(null) ? null : false;
}

function allOf(values: readonly (boolean | null)[]): boolean | null {
  if (values.includes(false)) return false;
  return values.includes(null) ? null : true;
}

function statOf(path: string): Stats {
  let stats: Stats;
  try {
    stats = statSync(path);
  } catch (error) {
    throw openRefused({ path, direct: false, readOnly: true }, error);
  }
  if (stats.isFile() || stats.isBlockDevice()) return stats;
  throw wrongKind(path, stats.isDirectory() ? 'a directory' : 'neither a file nor a block device');
}

/** Opens it for reading with O_DIRECT, which changes nothing. */
function tryDirect(path: string): Pick<HostFacts, 'direct' | 'directAlignment'> {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  } catch (error) {
    const refused = (error as NodeJS.ErrnoException).code === 'EINVAL';
    return { direct: refused ? false : null, directAlignment: null };
  }
  try {
    return { direct: true, directAlignment: sys.directAlignment(fd) };
  } finally {
    closeSync(fd);
  }
}
