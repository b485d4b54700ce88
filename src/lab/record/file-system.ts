import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { ConfigError, messageOf } from '../../base/errors.ts';

// A file system for a workload: made on the recorded disk and mounted through a loop device.

const run = promisify(execFile);

const RELEASE_MS = 5000;
const RELEASE_POLL_MS = 20;

/** What each mkfs is told so that it is quiet, quick and leaves nothing to be done later in the background. */
const MAKERS: Readonly<Record<string, readonly string[]>> = {
  // Tables that are filled after the first mount would only be noise.
  ext2: ['mkfs.ext2', '-q', '-F'],
  ext3: ['mkfs.ext3', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
  ext4: ['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['mkfs.xfs', '-q', '-f'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
  vfat: ['mkfs.vfat'],
};

export const FILE_SYSTEMS: readonly string[] = Object.keys(MAKERS);

/** Makes a file system on `path`, with further words for its mkfs. Throws ConfigError. */
export async function makeFileSystem(
  type: string,
  path: string,
  words: readonly string[],
): Promise<void> {
  const [program = '', ...args] = MAKERS[type] ?? [`mkfs.${type}`];
  try {
    await run(program, [...args, ...words, path]);
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    throw new ConfigError(
      `${program} failed on the recorded disk: ${(stderr ?? messageOf(error)).trim()}`,
      code === 'ENOENT' ? `install the package with ${program}` : 'see the options for mkfs',
      { cause: error },
    );
  }
}

/** How a shell says that it could not mount; programs in the same position use the same number. */
export const CANNOT_MOUNT = 125;

// A signal ends the workload, not the shell: it still has to unmount.
const SCRIPT = `
trap : TERM INT
mount -t "$1" -o "$2" "$3" "$4" || exit ${CANNOT_MOUNT}
folder=$4
shift 4
"$@"
code=$?
umount "$folder" || umount --lazy "$folder"
exit $code`;

/** What is mounted where. */
export interface MountChoice {
  readonly type: string;
  readonly path: string;
  readonly at: string;
  readonly options: string;
}

/**
 * A command that mounts a file system through a loop device, runs `command`, and unmounts; it ends as `command` does, or with
 * CANNOT_MOUNT. The mount is seen by these processes alone: in a name space of everyone, any process that copies it
 * would keep the file system alive when the server below it has gone. Needs root.
 */
export function mountedCommand(
  { type, path, at, options }: MountChoice,
  command: readonly string[],
): string[] {
  const words = ['loop', ...(options === '' ? [] : [options])].join(',');
  const apart = ['unshare', '--mount', '--propagation', 'private'];
  return [...apart, 'sh', '-c', SCRIPT, 'sh', type, words, path, at, ...command];
}

/** Waits until no loop device has the file: the kernel lets go of it some time after umount(8) has ended. */
export async function untilReleased(path: string): Promise<void> {
  for (let i = 0; i < RELEASE_MS / RELEASE_POLL_MS && hasLoop(path); i += 1) {
    await sleep(RELEASE_POLL_MS);
  }
}

function hasLoop(path: string): boolean {
  return readdirSync('/sys/block').some((name) => {
    if (!name.startsWith('loop')) return false;
    try {
      return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trimEnd() === path;
    } catch {
      // It is not in use.
      return false;
    }
  });
}
