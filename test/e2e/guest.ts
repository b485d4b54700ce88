import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { killGroup, until } from './support/command.ts';
import { fetchGuestKernel } from './support/guest-kernel.ts';
import type { KernelEdition } from './support/guest-kernel.ts';
import { workspace } from './support/holdfast.ts';
import { buildInitramfs, KERNEL_ARGUMENTS } from './support/initramfs.ts';
import type { InitramfsOptions } from './support/initramfs.ts';
import { peersRoot, peerTool, requiresPeers } from './support/peers.ts';
import { qmp } from './support/qmp.ts';
import { requires, tool } from './support/requires.ts';

/** What a guest needs of this machine: for `requires(...GUEST_TOOLS)`. */
export const GUEST_TOOLS = ['qemu-system-x86_64', 'busybox'] as const;

/** This machine's Debian's QEMU and kernel, or the newest ones. */
export interface Machine {
  readonly qemu: 'system' | 'peers';
  readonly kernel: KernelEdition;
}

export const SYSTEM: Machine = { qemu: 'system', kernel: 'system' };
export const NEWEST: Machine = { qemu: 'peers', kernel: 'newest' };

export const MACHINES: Readonly<Record<string, Machine>> = {
  'system QEMU and kernel': SYSTEM,
  'newest QEMU and kernel': NEWEST,
};

/** As `requires`, for a test on this machine. */
export function requiresMachine(
  machine: Machine,
  ...tools: readonly string[]
): { skip: string | false } {
  const options = requires(...tools);
  return options.skip === false && machine !== SYSTEM ? requiresPeers() : options;
}

export interface GuestOptions extends InitramfsOptions {
  /** QEMU arguments that give it disks, see `virtioDisk`. */
  readonly devices: readonly string[];
  readonly machine?: Machine;
  readonly memoryMib?: number;
  readonly processors?: number;
  /** The firmware finds a system on a disk instead of being given a kernel; see `bootableImage`. */
  readonly fromDisk?: boolean;
}

const BOOT_LIMIT_MS = 90_000;
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
    const folder = workspace(t);
    const machine = options.machine ?? SYSTEM;
    const { command, env } = emulator(machine);
    const [program = '', ...before] = command;
    const child = spawn(
      program,
      [
        ...before,
        ...machineArguments(folder, options),
        ...(await systemArguments(folder, options)),
      ],
      { detached: true, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env } },
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

  /** What the guest has written to its third serial port so far: it stays when QEMU is killed. */
  get marks(): string {
    const path = join(this.#folder, 'marks.log');
    return existsSync(path) ? readFileSync(path, 'latin1') : '';
  }

  /** Waits for a mark. */
  async mark(pattern: RegExp, limitMs = 60_000): Promise<string> {
    return until(`the guest's mark ${pattern}`, limitMs, () => {
      this.#assertRuns();
      return pattern.exec(this.marks)?.[0] ?? null;
    });
  }

  /** The reset button: the machine starts anew, and its devices are reset. */
  async reset(): Promise<void> {
    this.#input = '';
    await qmp(join(this.#folder, 'qmp.sock'), [
      { execute: 'set-action', arguments: { reboot: 'reset' } },
      { execute: 'system_reset' },
    ]);
    await this.#line(BOOT_LIMIT_MS, (line) => line.includes('@ready'));
  }

  /** Stops the processors of the guest, or lets them go on; its devices are stopped with them. */
  async pause(paused: boolean): Promise<void> {
    await qmp(join(this.#folder, 'qmp.sock'), [{ execute: paused ? 'stop' : 'cont' }]);
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

  #assertRuns(): void {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
      throw new Error(`QEMU ended\n${this.console.slice(-2000)}`);
    }
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
      this.#assertRuns();
      for (let end = this.#input.indexOf('\n'); end >= 0; end = this.#input.indexOf('\n')) {
        const line = this.#input.slice(0, end).trim();
        this.#input = this.#input.slice(end + 1);
        if (fits(line)) return line;
      }
      return null;
    });
  }
}

function emulator(machine: Machine): { command: string[]; env: Record<string, string> } {
  const name = 'qemu-system-x86_64';
  if (machine.qemu === 'system') return { command: [tool(name)], env: {} };
  const { command, env } = peerTool(name);
  const share = join(peersRoot() ?? '', 'usr/share');
  // Firmware of its own age, which it would look for in the folders of this machine.
  return { command: [...command, '-L', join(share, 'qemu'), '-L', join(share, 'seabios')], env };
}

function machineArguments(folder: string, options: GuestOptions): string[] {
  const mib = options.memoryMib ?? 256;
  const settings = [
    // A vhost-user back-end maps the guest's memory: it has to have a descriptor and be shared.
    ['-object', `memory-backend-memfd,id=mem,size=${mib}M,share=on`],
    // Without graphics the firmware and boot loaders talk to the first serial port.
    ['-machine', 'q35,accel=tcg,memory-backend=mem,graphics=off'],
    ['-cpu', 'max'],
    ['-smp', String(options.processors ?? 1)],
    ['-m', String(mib)],
    ['-nodefaults'],
    ['-no-reboot'],
    ['-display', 'none'],
    ['-serial', `file:${join(folder, 'console.log')}`],
    ['-serial', `unix:${join(folder, 'control.sock')},server=on,wait=off`],
    ['-serial', `file:${join(folder, 'marks.log')}`],
    ['-qmp', `unix:${join(folder, 'qmp.sock')},server=on,wait=off`],
    ['-nic', options.network === true ? 'user,model=virtio-net-pci' : 'none'],
  ];
  return [...settings.flat(), ...options.devices];
}

async function systemArguments(folder: string, options: GuestOptions): Promise<string[]> {
  if (options.fromDisk === true) return [];
  const kernel = await fetchGuestKernel((options.machine ?? SYSTEM).kernel);
  const initramfs = join(folder, 'initramfs.cpio');
  writeFileSync(initramfs, await buildInitramfs(kernel, options));
  return ['-kernel', kernel.image, '-initrd', initramfs, '-append', KERNEL_ARGUMENTS];
}
