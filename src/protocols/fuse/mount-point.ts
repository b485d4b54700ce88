import { readFileSync } from 'node:fs';
import { lstat, open, realpath, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { parseMountInfo, type Mount } from '../../stores/file/mounts.ts';
import { LOOK_TIMEOUT_MS } from './limits.ts';

/** What the mount table calls our mounts. */
export const FILE_SYSTEM = 'fuse.holdfast';

/** The kernel follows as many [path_resolution(7)]. */
const MAX_LINKS = 40;
/** Dead mounts of ours on top of each other: nobody restarts a server that often without looking. */
const MAX_DEAD = 100;

export interface MountPoint {
  /** Absolute, without symbolic links. */
  readonly path: string;
  /** The file was missing and has been made. */
  readonly made: boolean;
}

/**
 * Makes a path fit for a mount: a regular file, made when missing, with nothing mounted on it. `undo` is called for a dead
 * mount of ours. Throws a ConfigError.
 */
export async function prepareMountPoint(
  asked: string,
  undo: (path: string) => Promise<void>,
): Promise<MountPoint> {
  let path = await withoutLinks(asked, asked);
  let links = 0;
  for (let dead = 0; dead < MAX_DEAD;) {
    const mount = mountAt(path);
    const found = await look(path);
    if (mount !== null) {
      if (found !== 'dead') throw taken(asked, mount);
      if (mount.fileSystem !== FILE_SYSTEM) throw deadOfOthers(asked, mount);
      await undo(path);
      dead += 1;
    } else if (found === 'missing') {
      return { path, made: await make(path, asked) };
    } else if (found === 'link' && links < MAX_LINKS) {
      links += 1;
      path = await withoutLinks(await linkTarget(path, asked), asked);
    } else if (found === 'file') {
      return { path, made: false };
    } else {
      throw new ConfigError(
        `${asked} is ${found === 'directory' ? 'a directory' : 'no regular file'}, and a disk is shown as a file`,
        'name a file, or one that does not exist yet',
      );
    }
  }
  throw new ConfigError(`${asked}: dead mounts are in the way`, `undo them: umount ${asked}`);
}

/** Removes the file that was made, if it is still as it was. */
export async function removeMountPoint({ path, made }: MountPoint): Promise<void> {
  if (!made) return;
  const stats = await lstat(path).catch(() => null);
  if (stats?.isFile() === true && stats.size === 0) await rm(path, { force: true });
}

/** Whether what is mounted there is a mount of ours whose server has gone, or that was ended by force. */
export async function isDeadMount(path: string): Promise<boolean> {
  return mountAt(path)?.fileSystem === FILE_SYSTEM && (await look(path)) === 'dead';
}

/** What is mounted there; of several the one on top. */
function mountAt(path: string): Mount | null {
  const mounts = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  return mounts.findLast(({ mountPoint }) => mountPoint === path) ?? null;
}

type Found = 'missing' | 'file' | 'directory' | 'link' | 'other' | 'dead' | 'silent';

/** A look that is over in time, whoever serves what is there. */
async function look(path: string): Promise<Found> {
  const ended = new AbortController();
  const late = sleep(LOOK_TIMEOUT_MS, 'silent' as const, { signal: ended.signal }).catch(
    () => 'silent' as const,
  );
  const found = lstat(path).then(
    (stats): Found => {
      if (stats.isFile()) return 'file';
      if (stats.isDirectory()) return 'directory';
      return stats.isSymbolicLink() ? 'link' : 'other';
    },
    (error: NodeJS.ErrnoException): Found => {
      if (error.code === 'ENOENT') return 'missing';
      // [fuse(4)] ENOTCONN: its server has gone. ECONNABORTED: it went while we were asking.
      return error.code === 'ENOTCONN' || error.code === 'ECONNABORTED' ? 'dead' : 'other';
    },
  );
  try {
    return await Promise.race([found, late]);
  } finally {
    ended.abort();
  }
}

/** The last part of the path is not looked at: that could be a dead mount. */
async function withoutLinks(path: string, asked: string): Promise<string> {
  const whole = resolve(path);
  try {
    return join(await realpath(dirname(whole)), basename(whole));
  } catch (error) {
    throw new ConfigError(
      `${asked}: its directory cannot be reached: ${messageOf(error)}`,
      'make the directory, or name another place',
      { cause: error },
    );
  }
}

async function linkTarget(path: string, asked: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    throw new ConfigError(
      `${asked} is a symbolic link that leads nowhere: ${messageOf(error)}`,
      'name the file that it should lead to',
      { cause: error },
    );
  }
}

/** True: we were the ones who made it. */
async function make(path: string, asked: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx', 0o600);
    await file.close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw new ConfigError(
      `${asked} cannot be made: ${messageOf(error)}`,
      'name a place where you may make files',
      { cause: error },
    );
  }
}

function taken(asked: string, { fileSystem, source }: Mount): ConfigError {
  return new ConfigError(
    `${asked} is a mount already (${fileSystem}, ${source})`,
    `name another file, or end that one: umount ${asked}`,
    { cause: Object.assign(new Error('busy'), { code: 'EBUSY' }) },
  );
}

function deadOfOthers(asked: string, { fileSystem, source }: Mount): ConfigError {
  return new ConfigError(
    `${asked} is a dead mount of another program (${fileSystem}, ${source})`,
    `undo it: umount ${asked}`,
  );
}
