import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';

/** No program, but a file that a test may need like one: QEMU's driver for iSCSI. */
export const QEMU_ISCSI = '/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so';

/** The Debian package of every program the tests may need. scripts/test.ts installs from this list. */
export const PACKAGE_OF: Readonly<Record<string, string>> = {
  blkdiscard: 'util-linux',
  btrfs: 'btrfs-progs',
  busybox: 'busybox-static',
  certtool: 'gnutls-bin',
  psktool: 'gnutls-bin',
  python3: 'python3-minimal',
  chattr: 'e2fsprogs',
  chromium: 'chromium',
  debootstrap: 'debootstrap',
  debugfs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  fio: 'fio',
  'fsck.fat': 'dosfstools',
  git: 'git',
  'iscsi-inq': 'libiscsi-bin',
  'iscsi-ls': 'libiscsi-bin',
  'iscsi-perf': 'libiscsi-bin',
  'iscsi-test-cu': 'libiscsi-bin',
  iscsiadm: 'open-iscsi',
  iscsid: 'open-iscsi',
  fallocate: 'util-linux',
  findmnt: 'util-linux',
  fusermount3: 'fuse3',
  losetup: 'mount',
  man: 'man-db',
  mcopy: 'mtools',
  dmsetup: 'dmsetup',
  mdb_dump: 'lmdb-utils',
  mdb_load: 'lmdb-utils',
  'mkfs.btrfs': 'btrfs-progs',
  'mkfs.ext2': 'e2fsprogs',
  'mkfs.ext3': 'e2fsprogs',
  'mkfs.ext4': 'e2fsprogs',
  'mkfs.vfat': 'dosfstools',
  'mkfs.xfs': 'xfsprogs',
  mount: 'mount',
  multipathd: 'multipath-tools',
  'nbd-client': 'nbd-client',
  nbdcopy: 'libnbd-bin',
  'nbd-server': 'nbd-server',
  nbdinfo: 'libnbd-bin',
  nbdkit: 'nbdkit',
  nbdsh: 'python3-libnbd',
  openssl: 'openssl',
  perl: 'perl-base',
  // QEMU's own initiator, which is a module of its block layer.
  [QEMU_ISCSI]: 'qemu-block-extra',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-system-x86_64': 'qemu-system-x86',
  setpriv: 'util-linux',
  sdparm: 'sdparm',
  sg_inq: 'sg3-utils',
  sg_logs: 'sg3-utils',
  sg_modes: 'sg3-utils',
  sg_persist: 'sg3-utils',
  sg_raw: 'sg3-utils',
  sg_sync: 'sg3-utils',
  sg_vpd: 'sg3-utils',
  strace: 'strace',
  syslinux: 'syslinux',
  'systemd-socket-activate': 'systemd',
  tgtadm: 'tgt',
  tgtd: 'tgt',
  umount: 'mount',
  unshare: 'util-linux',
  xfs_repair: 'xfsprogs',
};

const FOLDERS = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin'];

/** The path of a program, also where an ordinary user's PATH does not look; null when it is not there. */
export function findTool(name: string): string | null {
  if (name.startsWith('/')) return existsSync(name) ? name : null;
  for (const folder of FOLDERS) {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return join(folder, name);
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

/** The path of a program that `requires` has promised. */
export function tool(name: string): string {
  const path = findTool(name);
  if (path === null) throw new Error(`${name} is missing: ${installHint([name])}`);
  return path;
}

export function installHint(names: readonly string[]): string {
  const packages = new Set(names.map((name) => PACKAGE_OF[name] ?? name));
  return `apt-get install ${[...packages].join(' ')}`;
}

/** Whether a missing tool fails the run instead of skipping a test: on build machines nobody reads skips. */
export function skipsFail(): boolean {
  return [process.env['CI'], process.env['HOLDFAST_CI']].some(
    (value) => value !== undefined && value !== '' && value !== '0' && value !== 'false',
  );
}

/**
 * The options of a test that needs these programs: `test(name, requires('fio'), run)`. Where one is missing the test
 * is skipped loudly; with CI or HOLDFAST_CI set, it is an error.
 */
export function requires(...names: readonly string[]): { skip: string | false } {
  const missing = names.filter((name) => findTool(name) === null);
  if (missing.length === 0) return { skip: false };
  const reason = `needs ${missing.join(', ')}: ${installHint(missing)}`;
  if (skipsFail()) throw new Error(`with CI set no test may be skipped; this one ${reason}`);
  process.stderr.write(`SKIPPED TEST: ${reason}\n`);
  return { skip: reason };
}
