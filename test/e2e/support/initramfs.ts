import { readFileSync, realpathSync } from 'node:fs';
import { succeed } from './command.ts';
import { Cpio } from './cpio.ts';
import { moduleFiles } from './guest-kernel.ts';
import type { GuestKernel } from './guest-kernel.ts';
import { tool } from './requires.ts';

export interface InitramfsOptions {
  /** Kernel modules beyond the usual (virtio_pci, virtio_blk, ext4); dependencies come along. */
  readonly modules?: readonly string[];
  /** Programs of this machine to bring along with their libraries, found by name: 'mkfs.ext4'. */
  readonly programs?: readonly string[];
  /** Files of this machine to bring along, by their path in the guest. */
  readonly files?: Readonly<Record<string, string>>;
  /** A network card; this machine is 10.0.2.2 [QEMU "User mode networking"]. */
  readonly network?: boolean;
}

/**
 * What the kernel is told, by QEMU or by a boot loader. On a busy machine the emulated timer is late for the kernel's test
 * of it, which ends in a panic: no_timer_check.
 */
export const KERNEL_ARGUMENTS = 'console=ttyS0 loglevel=5 panic=-1 mitigations=off no_timer_check';

const BASE_MODULES = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4'];
const NETWORK_MODULES = ['virtio_net', 'af_packet'];

/**
 * Commands come one a line, base64, on the second serial port; what each printed goes back the same way, then its
 * exit status. The first serial port is the console, the third is for marks. With holdfast.root=DEVICE that file system
 * becomes the root and its own /init goes on.
 */
const INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt /sbin /usr/bin /usr/sbin /run
/bin/busybox --install -s
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
if [ -z "$ROOTED" ]; then
  for module in $(cat /modules.order); do insmod "$module" || echo "insmod $module failed"; done
  root=$(sed -n 's/.*holdfast.root=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
  if [ -n "$root" ]; then
    mount -t ext4 "$root" /mnt && umount /proc /sys /dev
    export ROOTED=1
    exec switch_root /mnt /init
  fi
fi
if [ -d /sys/class/net/eth0 ]; then
  ip link set lo up
  ip link set eth0 up
  ip address add 10.0.2.15/24 dev eth0
fi
stty -F /dev/ttyS1 raw -echo
stty -F /dev/ttyS2 raw -echo
exec 3<>/dev/ttyS1
echo '@ready' >&3
while read -r line <&3; do
  echo "$line" | base64 -d >/tmp/command
  sh /tmp/command >/tmp/output 2>&1 </dev/null
  status=$?
  echo "$(base64 /tmp/output | tr -d '\\n')@$status" >&3
done
`;

/** The whole root file system of a guest: busybox, modules, and a shell that the test talks to. */
export async function buildInitramfs(
  kernel: GuestKernel,
  options: InitramfsOptions,
): Promise<Buffer> {
  const archive = new Cpio();
  archive.file('init', Buffer.from(INIT));
  archive.file('bin/busybox', readFileSync(tool('busybox')));
  const wanted = [
    ...BASE_MODULES,
    ...(options.network === true ? NETWORK_MODULES : []),
    ...(options.modules ?? []),
  ];
  const order: string[] = [];
  for (const path of moduleFiles(kernel, wanted)) {
    const inside = `modules/${order.length}-${path.slice(path.lastIndexOf('/') + 1)}`;
    archive.file(inside, readFileSync(path));
    order.push(`/${inside}`);
  }
  archive.file('modules.order', Buffer.from(`${order.join('\n')}\n`));
  const libraries = new Set<string>();
  for (const name of options.programs ?? []) {
    const program = tool(name);
    archive.file(`usr/sbin/${name}`, readFileSync(realpathSync(program)));
    for (const library of await librariesOf(program)) libraries.add(library);
  }
  for (const library of libraries) {
    archive.file(library.slice(1), readFileSync(realpathSync(library)));
  }
  for (const [inside, path] of Object.entries(options.files ?? {})) {
    archive.file(inside.slice(1), readFileSync(path));
  }
  return archive.finish();
}

/** The shared libraries and the dynamic linker of a program, as absolute paths. */
async function librariesOf(program: string): Promise<string[]> {
  const text = await succeed(['ldd', program]);
  return [...text.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] as string);
}
