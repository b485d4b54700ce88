import type { Reactor } from '../../reactor/reactor.ts';
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
export function mountDevice(reactor: Reactor, options: FuseMountOptions): Promise<FuseMount> {
  void reactor;
  return Promise.reject(new Error(`${options.path}: being written`));
}
