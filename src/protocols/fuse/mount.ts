import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { attach, detach } from './attach.ts';
import { FuseConnection } from './connection.ts';
import { LOOK_TIMEOUT_MS, STOP_TIMEOUT_MS } from './limits.ts';
import {
  isDeadMount,
  type MountPoint,
  prepareMountPoint,
  removeMountPoint,
} from './mount-point.ts';
import * as native from './native.ts';
import type { FuseSource } from './source.ts';

export interface FuseMountOptions {
  /** A regular file, which is hidden for as long as the mount lasts; made when missing, and removed again then. */
  readonly path: string;
  readonly source: FuseSource;
  /** What the mount table shows as the source. */
  readonly name: string;
  /** Nobody can open it for writing. */
  readonly readOnly?: boolean;
  /**
   * Every read and write is passed on (default). False: the kernel keeps pages of what was read, which is quicker and
   * right only while nothing but this mount changes the disk and every open shows the same device.
   */
  readonly directIo?: boolean;
  /** Bytes that the kernel may read ahead; only without directIo. Absent: what the kernel proposes. */
  readonly maxReadahead?: number;
  /** Permission bits of the file; absent: 0600, or 0400 when read-only. */
  readonly mode?: number;
  /** One line about what went wrong and is worth an operator's eye. */
  readonly warn?: (line: string) => void;
  /** The mount has ended by itself: somebody unmounted it. Not called after `unmount`. */
  readonly ended?: () => void;
}

export interface FuseMount {
  /** Where it is: absolute, without symbolic links. */
  readonly path: string;
  /**
   * Unmounts: what programs have mapped and changed is written, requests are answered, files are closed. If somebody
   * still has the file open, it says so (`warn`) and ends all the same: they get ENOTCONN from then on. May be called again.
   */
  unmount(): Promise<void>;
  /**
   * Ends it as if the device had vanished: when this returns, the devices of all opens are let go, and nothing is answered
   * any more, also not what is in flight. Resolves when the mount is undone.
   */
  cut(): Promise<void>;
  /**
   * Whether somebody has ended the mount by force is not heard at once. This asks, and if so, the devices of all opens
   * have been let go when it returns.
   */
  endIfGone(): void;
}

/**
 * Shows a device as one plain file at `path` (FUSE, /dev/fuse). As root by mount(2), for all users as far as the file's
 * mode lets them; else by fusermount3, for the own user only. A dead mount that an earlier process left there is undone.
 * Resolves when programs can open the file. Rejects with a ConfigError that says what is wrong with the path or the
 * host.
 *
 * The thread of the reactor serves the file: it must not itself use the path with a call that waits (`readFileSync`), or it
 * waits for itself. `node:fs/promises` and child processes are fine.
 */
export async function mountDevice(reactor: Reactor, options: FuseMountOptions): Promise<FuseMount> {
  const { path, name } = options;
  const readOnly = options.readOnly === true || options.source.readOnly;
  const point = await prepareMountPoint(path, async (dead) => {
    options.warn?.(`${path}: a mount was left there by a server that is gone; it has been undone`);
    await detach(dead, true);
  });
  let fd: number;
  try {
    fd = await attach({ path: point.path, name, readOnly });
  } catch (error) {
    await removeMountPoint(point);
    throw error;
  }
  let mount: Mount;
  try {
    mount = new Mount(reactor, point, fd, { ...options, readOnly });
  } catch (error) {
    native.close(fd);
    await detach(point.path, true);
    await removeMountPoint(point);
    throw error;
  }
  try {
    await mount.ready();
  } catch (error) {
    await mount.unmount();
    throw error;
  }
  return mount;
}

class Mount implements FuseMount {
  readonly #point: MountPoint;
  readonly #options: FuseMountOptions;
  readonly #fd: number;
  readonly #connection: FuseConnection;
  readonly #readiness = new Later();
  /** The mount is no more, whoever ended it. */
  #gone = false;
  #unmounting: Promise<void> | null = null;

  constructor(reactor: Reactor, point: MountPoint, fd: number, options: FuseMountOptions) {
    this.#point = point;
    this.#options = options;
    this.#fd = fd;
    const { source, readOnly = false, directIo = true, maxReadahead = null } = options;
    this.#connection = new FuseConnection(
      reactor,
      fd,
      {
        source,
        readOnly,
        directIo,
        maxReadahead,
        mode: options.mode ?? (readOnly ? 0o400 : 0o600),
        uid: process.geteuid?.() ?? 0,
        gid: process.getegid?.() ?? 0,
        now: () => (performance.timeOrigin + performance.now()) / 1000,
      },
      {
        ready: () => this.#readiness.resolve(),
        over: (reason) => this.#over(reason),
      },
    );
  }

  get path(): string {
    return this.#point.path;
  }

  /** The kernel and we have agreed. Rejects with a ConfigError. */
  async ready(): Promise<void> {
    await within(LOOK_TIMEOUT_MS, this.#readiness.promise, () => {
      throw new ConfigError(`${this.path}: the kernel does not answer`, 'see: dmesg | tail');
    });
  }

  unmount(): Promise<void> {
    return (this.#unmounting ??= this.#unmount());
  }

  cut(): Promise<void> {
    if (this.#unmounting !== null) return this.#unmounting;
    const closed = this.#close();
    this.#connection.abandon();
    this.#unmounting = closed.then(async () => {
      await this.#tryTo(async () => {
        if (!this.#gone) await detach(this.path, true);
      });
      await this.#tryTo(() => removeMountPoint(this.#point));
    });
    return this.#unmounting;
  }

  endIfGone(): void {
    // Once it ends, the descriptor is no longer ours to ask.
    if (this.#gone || this.#unmounting !== null) return;
    if (native.isBroken(this.#fd)) this.#connection.gone();
  }

  #over(reason: string | null): void {
    this.#gone = true;
    const why = reason ?? 'it was unmounted before it could be used';
    this.#readiness.reject(new ConfigError(`${this.path}: ${why}`, 'see: dmesg | tail'));
    if (this.#unmounting !== null) return;
    if (reason !== null) this.#options.warn?.(`${this.path}: closed: ${reason}`);
    void this.unmount().then(() => this.#options.ended?.());
  }

  async #unmount(): Promise<void> {
    await this.#tryTo(async () => {
      if (!this.#gone) await this.#detach();
    });
    await within(STOP_TIMEOUT_MS, this.#close(), () => this.#connection.abandon());
    // `umount -f` of what is in use ends it, and leaves it where it is.
    await this.#tryTo(async () => {
      if (this.#gone && (await isDeadMount(this.path))) await detach(this.path, true);
    });
    await this.#tryTo(() => removeMountPoint(this.#point));
  }

  /** What fails at the end is worth a line, and the end comes all the same. */
  async #tryTo(step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.#options.warn?.(messageOf(error));
    }
  }

  #close(): Promise<void> {
    const closed = new Later();
    this.#connection.close(() => closed.resolve());
    return closed.promise;
  }

  /** While it is unmounted, requests are served as ever: the kernel writes what programs have mapped and changed. */
  async #detach(): Promise<void> {
    if ((await detach(this.path, false)) !== 'busy') return;
    this.#options.warn?.(
      `${this.path} is still open somewhere: whoever has it open gets errors from now on`,
    );
    await within(STOP_TIMEOUT_MS, this.#writeOut(), () => undefined);
    await detach(this.path, true);
  }

  /** What programs have mapped and changed would not be written any more. */
  #writeOut(): Promise<void> {
    return this.#tryTo(async () => {
      const file = await open(this.path, 'r');
      try {
        await file.datasync();
      } finally {
        await file.close();
      }
    });
  }
}

/** A promise that is settled from inside the reactor's turns. */
class Later {
  readonly promise: Promise<void>;
  resolve: () => void = () => {};
  reject: (error: Error) => void = () => {};

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = () => {
        resolve();
        letEventLoopRun();
      };
      this.reject = (error) => {
        reject(error);
        letEventLoopRun();
      };
    });
    // Nobody may be waiting any more.
    this.promise.catch(() => undefined);
  }
}

/** What is not over after `limitMs` is waited for no longer; `late` says what is done instead. */
async function within(limitMs: number, work: Promise<void>, late: () => void): Promise<void> {
  const ended = new AbortController();
  const timeout = sleep(limitMs, true, { signal: ended.signal }).catch(() => false);
  const timedOut = await Promise.race([work.then(() => false), timeout]);
  ended.abort();
  if (timedOut) late();
}
