import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { read } from '../../block/await.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { Io } from '../../block/io.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { mountDevice, type FuseMount } from '../../protocols/fuse/mount.ts';
import type { FuseSource, Opened } from '../../protocols/fuse/source.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import type { ShownState } from '../state-device/shown-state.ts';
import type { StateDevice, StateDisks } from '../state-device/state-device.ts';
import { CLOSE_WAIT_MS, LET_GO_MS, READAHEAD_BYTES } from './limits.ts';
import { makeMemoryFolder } from './lab-folder.ts';
import { detachLoops } from './leftovers.ts';

/** Disks as files, for checkers that are processes. */
export interface DiskFiles {
  readonly paths: readonly string[];
  /** The state that is shown is in the files from now on. */
  begin(): Promise<void>;
  /** The checker has ended: nobody shall have them open. */
  end(): Promise<void>;
  close(): Promise<void>;
}

/**
 * One mounted file for each disk. Where reads are logged, each goes to us as it is; else the kernel keeps pages while a
 * file is open and reads ahead, which halves the time of a fsck. Rejects with a ConfigError where FUSE cannot be had.
 */
export async function mountFiles(
  reactor: Reactor,
  disks: StateDisks,
  folder: string,
  output: number,
): Promise<DiskFiles> {
  const files = new MountedFiles(reactor, disks.shown, output);
  try {
    for (const [i, device] of disks.devices.entries()) {
      await files.add(device, join(folder, `disk${i}`));
    }
  } catch (error) {
    await files.close();
    throw error;
  }
  return files;
}

/** A disk's file, for as long as it is mounted. */
interface Mounted {
  readonly source: StateSource;
  readonly mount: FuseMount;
}

class MountedFiles implements DiskFiles {
  readonly paths: string[] = [];
  readonly #reactor: Reactor;
  readonly #shown: ShownState;
  readonly #output: number;
  readonly #mounted: Mounted[] = [];

  constructor(reactor: Reactor, shown: ShownState, output: number) {
    this.#reactor = reactor;
    this.#shown = shown;
    this.#output = output;
  }

  async add(device: StateDevice, path: string): Promise<void> {
    const mounted = await this.#mount(device, path);
    this.#mounted.push(mounted);
    this.paths.push(mounted.mount.path);
  }

  async begin(): Promise<void> {}

  /**
   * A process that has ended has closed its files, but the kernel tells us a little later. Who has one open longer is a
   * loop device or a mounted file system: it is taken away. Who still does not let go reads errors once another state
   * is shown; and where the kernel keeps pages, which opens share, the next state gets a mount of its own.
   */
  async end(): Promise<void> {
    if (await this.#closed(CLOSE_WAIT_MS)) return;
    const found = await detachLoops(this.#reactor, this.paths, this.#output);
    if (found && (await this.#closed(LET_GO_MS))) return;
    if (this.#shown.logsReads) return;
    for (const [i, { source, mount }] of this.#mounted.entries()) {
      if (source.opens === 0) continue;
      await mount.unmount();
      this.#mounted[i] = await this.#mount(source.device, mount.path);
    }
  }

  async close(): Promise<void> {
    for (const { mount } of this.#mounted) await mount.unmount();
  }

  async #mount(device: StateDevice, path: string): Promise<Mounted> {
    const source = new StateSource(device, this.#shown);
    const mount = await mountDevice(this.#reactor, {
      path,
      source,
      name: 'holdfast-lab',
      directIo: this.#shown.logsReads,
      maxReadahead: READAHEAD_BYTES,
    });
    return { source, mount };
  }

  async #closed(limitMs: number): Promise<boolean> {
    const end = this.#reactor.nowMs() + limitMs;
    while (this.#mounted.some(({ source }) => source.opens > 0)) {
      if (this.#reactor.nowMs() > end) return false;
      await turn(this.#reactor);
    }
    return true;
  }
}

/** A moment in which the reactor works. */
function turn(reactor: Reactor): Promise<void> {
  return new Promise((resolve) => {
    reactor.after(0.2, () => {
      letEventLoopRun();
      resolve();
    });
  });
}

/** What a mounted file shows: to each opener the state that was shown when it was opened, and no other. */
class StateSource implements FuseSource {
  opens = 0;
  readonly sizeBytes: number;
  readonly preferredBytes = 4096;
  readonly readOnly = false;
  readonly device: StateDevice;
  readonly #shown: ShownState;

  constructor(device: StateDevice, shown: ShownState) {
    this.device = device;
    this.#shown = shown;
    this.sizeBytes = device.info.sizeBytes;
  }

  open(_writable: boolean, opened: Opened): void {
    this.opens += 1;
    const device = new RunDevice(this.device, this.#shown);
    const close = (): void => {
      this.opens -= 1;
    };
    opened({ device, close }, null);
  }
}

/** A state's disk for as long as that state is shown. */
class RunDevice implements BlockDevice {
  readonly #device: StateDevice;
  readonly #shown: ShownState;
  readonly #run: number;

  constructor(device: StateDevice, shown: ShownState) {
    this.#device = device;
    this.#shown = shown;
    this.#run = shown.runs;
  }

  get info(): DeviceInfo {
    return this.#device.info;
  }

  submit(io: Io): void {
    if (this.#shown.runs === this.#run) this.#device.submit(io);
    else io.complete('ESHUTDOWN');
  }

  async close(): Promise<void> {}
}

const PIECE_BYTES = 65_536;

/**
 * Where there is no FUSE: each state is written out, to memory if there is a place for that. Slower by far on large
 * disks, and what is read is not seen.
 */
export function writtenFiles(disks: StateDisks, folder: string): DiskFiles {
  const own = makeMemoryFolder(folder);
  const paths = disks.devices.map((_device, i) => join(own ?? folder, `disk${i}`));
  return {
    paths,
    begin: async () => {
      for (const [i, device] of disks.devices.entries()) await writeOut(device, paths[i] as string);
    },
    end: async () => {},
    close: async () => {
      if (own !== null) rmSync(own, { recursive: true, force: true });
      else for (const path of paths) rmSync(path, { force: true });
    },
  };
}

async function writeOut(device: StateDevice, path: string): Promise<void> {
  // A new file each time: who still has the old one open keeps the old one.
  rmSync(path, { force: true });
  const fd = openSync(path, 'wx', 0o600);
  try {
    const { sizeBytes } = device.info;
    ftruncateSync(fd, sizeBytes);
    for (let at = 0; at < sizeBytes; at += PIECE_BYTES) {
      if (device.isBlank(at, PIECE_BYTES)) continue;
      const bytes = await read(device, at, Math.min(PIECE_BYTES, sizeBytes - at));
      if (bytes.some((byte) => byte !== 0)) writeSync(fd, bytes, 0, bytes.length, at);
    }
  } finally {
    closeSync(fd);
  }
}
