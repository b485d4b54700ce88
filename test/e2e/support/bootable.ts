import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { succeed } from './command.ts';
import { fetchGuestKernel } from './guest-kernel.ts';
import type { KernelEdition } from './guest-kernel.ts';
import { makeImage } from './holdfast.ts';
import { buildInitramfs, KERNEL_ARGUMENTS } from './initramfs.ts';
import type { InitramfsOptions } from './initramfs.ts';

/** For `requires(...BOOTABLE_TOOLS)`. */
export const BOOTABLE_TOOLS = ['mcopy', 'syslinux', 'mkfs.ext4', 'busybox'] as const;

const BOOT_MIB = 48;
const ROOT_MIB = 128;
const SECTORS_PER_MIB = 2048;

export interface BootableImages {
  /** A boot sector, a boot loader, kernel and initramfs on FAT. */
  readonly boot: string;
  /** The root file system, ext4, which the kernel looks for on the second disk. */
  readonly root: string;
}

/**
 * Makes the two disks of an installed system. Nothing is mounted here, and no root needed.
 *
 * The boot disk has no partitions: a master boot record is executed at 7C00h and has the firmware put the next sector in
 * its own place, and QEMU's software emulation does not see that a vhost-user back-end rewrites code it has translated.
 */
export async function bootableImages(
  folder: string,
  edition: KernelEdition,
  options: InitramfsOptions = {},
): Promise<BootableImages> {
  const kernel = await fetchGuestKernel(edition);
  const boot = makeImage(folder, BOOT_MIB, 0, 'boot.img');
  const root = makeImage(folder, ROOT_MIB, 0, 'root.img');
  const initramfs = join(folder, 'bootable.cpio');
  const config = join(folder, 'syslinux.cfg');
  const tree = join(folder, 'root');
  writeFileSync(initramfs, await buildInitramfs(kernel, options));
  writeFileSync(
    config,
    `default linux\nlabel linux\nkernel vmlinuz\nappend initrd=initrd ${KERNEL_ARGUMENTS} holdfast.root=/dev/vdb\n`,
  );
  const sectors = String(BOOT_MIB * SECTORS_PER_MIB);
  await succeed(['mformat', '-i', boot, '-T', sectors, '-h', '64', '-s', '32', '-H', '0', '::']);
  for (const [from, to] of [
    [kernel.image, '::vmlinuz'],
    [initramfs, '::initrd'],
    [config, '::syslinux.cfg'],
  ] as const) {
    await succeed(['mcopy', '-i', boot, from, to]);
  }
  await succeed(['syslinux', '--install', boot]);
  mkdirSync(tree);
  await succeed(['busybox', 'cpio', '-idmF', initramfs], { cwd: tree });
  await succeed(['mkfs.ext4', '-q', '-F', '-d', tree, root]);
  return { boot, root };
}
