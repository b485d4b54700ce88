import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { KiB, MiB } from '../../base/units.ts';

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
/** What is kept of a program's words: more is not read by anybody. */
const WORDS_LIMIT = 256 * KiB;
/** What is kept where the output is data; a program that says more than this cannot be judged. */
const DATA_LIMIT = 256 * MiB;

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
  readonly code: number;
  /** Standard output and standard error, as they came. */
  readonly text: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly folder?: string;
  /** Its output is data, and needed whole. */
  readonly isData?: boolean;
}

/** A program that was ended by a signal, does not run at all, or says too much. */
export class ProgramError extends Error {
  override readonly name = 'ProgramError';
  readonly signal: string | null;

  constructor(message: string, signal: string | null = null) {
    super(message);
    this.signal = signal;
  }
}

/**
 * Runs a program to its end. There is no time limit here: who asked kills the whole process group.
 * Throws ProgramError when there is no exit code to tell.
 */
export function runProgram(
  name: string,
  args: readonly string[],
  { env = {}, folder, isData = false }: RunOptions = {},
): Promise<Ended> {
  return new Promise((done, failed) => {
    const child = spawn(findProgram(name) ?? name, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC', ...env },
      cwd: folder,
    });
    const parts: Buffer[] = [];
    const limit = isData ? DATA_LIMIT : WORDS_LIMIT;
    let size = 0;
    const keep = (part: Buffer): void => {
      if (size < limit) parts.push(part);
      size += part.length;
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.once('error', (error) => failed(new ProgramError(`${name}: ${error.message}`)));
    child.once('close', (code, signal) => {
      const text = Buffer.concat(parts).toString();
      if (code === null) failed(new ProgramError(`${name}: ${signal}\n${text}`, signal));
      else if (isData && size > limit) failed(new ProgramError(`${name}: ${size} bytes of output`));
      else done({ code, text });
    });
  });
}
