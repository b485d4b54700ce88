/** One line of /proc/self/mountinfo. */
export interface Mount {
  /** "major:minor" of the file system's device; anonymous (0:n) for memory, network and multi-device file systems. */
  readonly device: string;
  /** The part of the file system that is mounted ("/" unless it is a bind mount or a subvolume). */
  readonly root: string;
  readonly mountPoint: string;
  readonly fileSystem: string;
  readonly source: string;
  /** Options of the mount and of the file system together, in the kernel's order. */
  readonly options: readonly string[];
}

/** Parses /proc/self/mountinfo [proc(5)]. Lines that are not understood are left out. */
export function parseMountInfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    // Optional fields stand between the sixth and a lone hyphen.
    const hyphen = fields.indexOf('-', 6);
    const [, , device, root, mountPoint, options] = fields;
    const [fileSystem, source, superOptions] = fields.slice(hyphen + 1);
    if (hyphen < 0 || device === undefined || root === undefined || mountPoint === undefined)
      continue;
    if (fileSystem === undefined || source === undefined) continue;
    mounts.push({
      device,
      root: unescape(root),
      mountPoint: unescape(mountPoint),
      fileSystem,
      source: unescape(source),
      options: [
        ...new Set([...(options ?? '').split(','), ...(superOptions ?? '').split(',')]),
      ].filter((option) => option !== ''),
    });
  }
  return mounts;
}

/** Space, tab, newline and backslash are written in octal [proc(5)]. */
function unescape(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/**
 * The mount that `path` (absolute, without symbolic links) lies on: the deepest mount point above it, and of several
 * on one mount point the last, which hides the others.
 */
export function mountOf(mounts: readonly Mount[], path: string): Mount | null {
  let best: Mount | null = null;
  for (const mount of mounts) {
    const prefix = mount.mountPoint === '/' ? '/' : `${mount.mountPoint}/`;
    if (mount.mountPoint !== path && !path.startsWith(prefix)) continue;
    if (best === null || mount.mountPoint.length >= best.mountPoint.length) best = mount;
  }
  return best;
}

const NETWORK: ReadonlySet<string> = new Set([
  'nfs',
  'nfs4',
  'cifs',
  'smb3',
  'smbfs',
  '9p',
  'ceph',
  'afs',
  'lustre',
  'glusterfs',
  'beegfs',
]);
const MEMORY: ReadonlySet<string> = new Set(['tmpfs', 'ramfs', 'hugetlbfs', 'devtmpfs']);

/** What kind of file system it is, as far as durability goes. */
export type FileSystemNature = 'local' | 'memory' | 'network' | 'fuse' | 'overlay';

export function natureOf(fileSystem: string): FileSystemNature {
  if (MEMORY.has(fileSystem)) return 'memory';
  if (
    NETWORK.has(fileSystem) ||
    /^fuse\.(sshfs|glusterfs|s3fs|ceph|rclone|juicefs)/.test(fileSystem)
  ) {
    return 'network';
  }
  if (fileSystem.startsWith('fuse')) return 'fuse';
  if (fileSystem === 'overlay' || fileSystem === 'aufs' || fileSystem === 'ecryptfs')
    return 'overlay';
  return 'local';
}

/**
 * Whether the file system was told not to flush the drive's cache: then fdatasync(2) promises less than it says
 * [mount(8) ext4 and XFS "barrier", "nobarrier"; btrfs(5) "nobarrier"].
 */
export function barriersOff(mount: Mount): boolean {
  return mount.options.some((option) => option === 'nobarrier' || option === 'barrier=0');
}

// [fallocate(2)] FALLOC_FL_PUNCH_HOLE, and the file systems that gained it since.
const PUNCH_HOLE: ReadonlySet<string> = new Set([
  'xfs',
  'ext4',
  'btrfs',
  'tmpfs',
  'gfs2',
  'ocfs2',
  'f2fs',
  'nfs4',
  'cifs',
  'smb3',
  'ceph',
  'zfs',
  'bcachefs',
  'hugetlbfs',
]);
const NO_PUNCH_HOLE: ReadonlySet<string> = new Set([
  'ext2',
  'ext3',
  'vfat',
  'msdos',
  'exfat',
  'nfs',
  '9p',
  'ramfs',
  'jfs',
  'reiserfs',
  'iso9660',
  'squashfs',
]);

/** Whether space can be given back inside a file; null when that is not known without trying. */
export function punchesHoles(fileSystem: string): boolean | null {
  if (PUNCH_HOLE.has(fileSystem)) return true;
  return NO_PUNCH_HOLE.has(fileSystem) ? false : null;
}
