import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** The programs that oracles use, and the Debian package of each. */
export const PACKAGES: Readonly<Record<string, string>> = {
  btrfs: 'btrfs-progs',
  debugfs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  'fsck.fat': 'dosfstools',
  git: 'git',
  mcopy: 'mtools',
  mdb_dump: 'lmdb-utils',
  mount: 'mount',
  umount: 'mount',
  unshare: 'util-linux',
  xfs_repair: 'xfsprogs',
};

/** An ordinary user's PATH leaves out where these programs are. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'];
/** What is kept of a program's output: more is not read by anybody. */
const OUTPUT_LIMIT = 256 * 1024;

/** The path of a program; null when it is not there. */
export function findProgram(name: string): string | null {
  for (const folder of [...(process.env['PATH'] ?? '').split(':'), ...SYSTEM_FOLDERS]) {
    if (folder === '') continue;
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

export interface Ended {
  /** The exit code; null: a signal ended it. */
  readonly code: number | null;
  readonly signal: string | null;
  /** Standard output and standard error, as they came. */
  readonly text: string;
}

/** A program ended by a signal, or one that does not run at all. */
export class ProgramError extends Error {
  override readonly name = 'ProgramError';
}

/**
 * Runs a program of PACKAGES to its end. There is no time limit here: who asked kills the whole process group.
 * Throws ProgramError when it cannot be started or a signal ended it.
 */
export async function runProgram(
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended & { code: number }> {
  const ended = await start(findProgram(name) ?? name, args, env);
  if (ended.code === null) {
    throw new ProgramError(`${name}: ended by ${ended.signal ?? 'a signal'}\n${ended.text}`);
  }
  return { ...ended, code: ended.code };
}

function start(
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Ended> {
  return new Promise((done, failed) => {
    const child = spawn(path, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C', ...env },
    });
    const parts: Buffer[] = [];
    let size = 0;
    const keep = (part: Buffer): void => {
      if (size < OUTPUT_LIMIT) parts.push(part);
      size += part.length;
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.once('error', (error) => failed(new ProgramError(error.message)));
    child.once('close', (code, signal) => {
      done({ code, signal, text: Buffer.concat(parts).toString() });
    });
  });
}
