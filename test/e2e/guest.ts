import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { killGroup, succeed, until } from './support/command.ts';
import { Cpio } from './support/cpio.ts';
import { fetchGuestKernel, moduleFiles } from './support/guest-kernel.ts';
import type { GuestKernel } from './support/guest-kernel.ts';
import { workspace } from './support/holdfast.ts';
import { tool } from './support/requires.ts';

/** What a guest needs of this machine: for `requires(...GUEST_TOOLS)`. */
export const GUEST_TOOLS = ['qemu-system-x86_64', 'busybox'] as const;

export interface GuestOptions {
  /** QEMU arguments that give it disks, see `virtioDisk`. */
  readonly devices: readonly string[];
  /** Kernel modules beyond the usual (virtio_pci, virtio_blk, ext4); dependencies come along. */
  readonly modules?: readonly string[];
  /** Programs of this machine to bring along with their libraries, found by name: 'mkfs.ext4'. */
  readonly programs?: readonly string[];
  /** A network card; this machine is 10.0.2.2 [QEMU "User mode networking"]. */
  readonly network?: boolean;
  readonly memoryMib?: number;
}

const BOOT_LIMIT_MS = 90_000;
const BASE_MODULES = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4'];
const NETWORK_MODULES = ['virtio_net', 'af_packet'];

/**
 * Commands come one a line, base64, on the second serial port; what each printed goes back the same way, then its
 * exit status. The first serial port is the console.
 */
const INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt /sbin /usr/bin /usr/sbin /run
/bin/busybox --install -s
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules.order); do insmod "$module" || echo "insmod $module failed"; done
if [ -d /sys/class/net/eth0 ]; then
  ip link set lo up
  ip link set eth0 up
  ip address add 10.0.2.15/24 dev eth0
fi
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo '@ready' >&3
while read -r line <&3; do
  echo "$line" | base64 -d >/tmp/command
  sh /tmp/command >/tmp/output 2>&1 </dev/null
  status=$?
  echo "$(base64 /tmp/output | tr -d '\\n')@$status" >&3
done
`;

/** QEMU arguments for a virtio disk on any -drive source, e.g. `file=nbd+unix:///?socket=S,cache=writeback`. */
export function virtioDisk(source: string, index = 0, properties = ''): string[] {
  const drive = `if=none,id=drive${index},format=raw,${source}`;
  return ['-drive', drive, '-device', `virtio-blk-pci,drive=drive${index}${properties}`];
}

/**
 * A Linux guest: Debian's kernel, busybox, and a shell that the test talks to. Software emulation; boots in 6 seconds.
 */
export class Guest {
  readonly #child: ChildProcess;
  readonly #folder: string;
  #control: Socket | null = null;
  #input = '';

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    this.#folder = folder;
  }

  static async boot(t: TestContext, options: GuestOptions): Promise<Guest> {
    const kernel = await fetchGuestKernel();
    const folder = workspace(t);
    const initramfs = join(folder, 'initramfs.cpio');
    writeFileSync(initramfs, await buildInitramfs(kernel, options));
    const network =
      options.network === true ? ['-nic', 'user,model=virtio-net-pci'] : ['-nic', 'none'];
    const child = spawn(
      tool('qemu-system-x86_64'),
      [
        '-machine',
        'q35,accel=tcg',
        '-cpu',
        'max',
        '-m',
        String(options.memoryMib ?? 256),
        '-nodefaults',
        '-no-reboot',
        '-display',
        'none',
        '-serial',
        `file:${join(folder, 'console.log')}`,
        '-serial',
        `unix:${join(folder, 'control.sock')},server=on,wait=off`,
        '-kernel',
        kernel.image,
        '-initrd',
        initramfs,
        '-append',
        'console=ttyS0 loglevel=5 panic=-1 mitigations=off',
        ...network,
        ...options.devices,
      ],
      { detached: true, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const guest = new Guest(child, folder);
    t.after(() => killGroup(child.pid, 'SIGKILL'));
    let complaint = '';
    child.stderr?.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    try {
      await guest.#connect();
      await guest.#line(BOOT_LIMIT_MS, (line) => line.includes('@ready'));
    } catch (error) {
      throw new Error(`the guest does not boot: ${complaint}\n${guest.console.slice(-3000)}`, {
        cause: error,
      });
    }
    return guest;
  }

  /** What the guest's kernel said. */
  get console(): string {
    const path = join(this.#folder, 'console.log');
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  /** Runs a shell script in the guest. Resolves with everything it printed and its exit status. */
  async run(script: string, timeoutMs = 60_000): Promise<{ status: number; output: string }> {
    this.#control?.write(`${Buffer.from(script).toString('base64')}\n`);
    const line = await this.#line(timeoutMs, () => true);
    const [output = '', status = ''] = line.split('@');
    return { status: Number(status), output: Buffer.from(output, 'base64').toString() };
  }

  /** Runs a script that has to succeed; resolves with what it printed. */
  async succeed(script: string, timeoutMs = 60_000): Promise<string> {
    const { status, output } = await this.run(`set -e\n${script}`, timeoutMs);
    if (status !== 0) {
      const log = this.console.slice(-2000);
      throw new Error(`in the guest: ${script}\nexit status ${status}\n${output}\n${log}`);
    }
    return output;
  }

  /** Power is lost: QEMU ends at once, with what the guest had not written yet. */
  async cutPower(): Promise<void> {
    const ended = this.#ended();
    killGroup(this.#child.pid, 'SIGKILL');
    await ended;
  }

  /** An orderly end. */
  async shutDown(): Promise<void> {
    const ended = this.#ended();
    this.#control?.write(`${Buffer.from('sync; poweroff -f').toString('base64')}\n`);
    const timer = setTimeout(() => killGroup(this.#child.pid, 'SIGKILL'), 30_000);
    await ended;
    clearTimeout(timer);
  }

  #ended(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return Promise.resolve();
    return new Promise((resolve) => this.#child.once('exit', () => resolve()));
  }

  async #connect(): Promise<void> {
    const path = join(this.#folder, 'control.sock');
    await until('QEMU', 10_000, () => {
      if (this.#child.exitCode !== null) throw new Error(`QEMU ended: ${this.#child.exitCode}`);
      return existsSync(path) ? true : null;
    });
    const socket = createConnection(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve());
      socket.once('error', reject);
    });
    // Power cuts end it from the other side.
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => (this.#input += chunk.toString('latin1')));
    this.#control = socket;
  }

  /** The next line from the guest that `fits`. */
  #line(limitMs: number, fits: (line: string) => boolean): Promise<string> {
    return until('the guest', limitMs, () => {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
        throw new Error(`QEMU ended\n${this.console.slice(-2000)}`);
      }
      for (let end = this.#input.indexOf('\n'); end >= 0; end = this.#input.indexOf('\n')) {
        const line = this.#input.slice(0, end).trim();
        this.#input = this.#input.slice(end + 1);
        if (fits(line)) return line;
      }
      return null;
    });
  }
}

async function buildInitramfs(kernel: GuestKernel, options: GuestOptions): Promise<Buffer> {
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
  const files = new Set<string>();
  for (const name of options.programs ?? []) {
    const program = tool(name);
    archive.file(`usr/sbin/${name}`, readFileSync(realpathSync(program)));
    for (const library of await librariesOf(program)) files.add(library);
  }
  for (const library of files) archive.file(library.slice(1), readFileSync(realpathSync(library)));
  return archive.finish();
}

/** The shared libraries and the dynamic linker of a program, as absolute paths. */
async function librariesOf(program: string): Promise<string[]> {
  const text = await succeed(['ldd', program]);
  return [...text.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] as string);
}
