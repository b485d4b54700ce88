import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ConfigError, messageOf } from '../../base/errors.ts';

// A file system for a workload: made on the recorded disk and mounted through a loop device.

const run = promisify(execFile);

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

/** A mounted file system. */
export interface Mounted {
  unmount(): Promise<void>;
}

/** Mounts `path` at the folder `at` through a loop device. Needs root. Throws ConfigError. */
export async function mountFileSystem(
  type: string,
  path: string,
  at: string,
  options: string,
): Promise<Mounted> {
  const words = ['loop', ...(options === '' ? [] : [options])].join(',');
  try {
    await run('mount', ['-t', type, '-o', words, path, at]);
  } catch (error) {
    const why = (error as { stderr?: string }).stderr ?? messageOf(error);
    throw new ConfigError(
      `the recorded disk cannot be mounted as ${type}: ${why.trim()}`,
      process.getuid?.() === 0
        ? 'see dmesg; the kernel has to know the file system and the options'
        : 'mounting needs root; without it, let a virtual machine mount the disk',
      { cause: error },
    );
  }
  return {
    unmount: async () => {
      await run('umount', [at]).catch(async (error: unknown) => {
        // What still runs there must not hold the recording up.
        await run('umount', ['--lazy', at]).catch(() => {
          throw error;
        });
      });
    },
  };
}
