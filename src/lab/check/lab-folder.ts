import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';

// A lab's private folder, with its mounts in it. Its name says whose it is, so that what a killed lab left is found and
// undone by the next one.

const PREFIX = 'holdfast-lab-';
/** In a lab's folder: the names of files elsewhere that go with it, in JSON, one a line. */
const FILES = 'files-elsewhere';
/** [statfs(2)] */
const TMPFS_MAGIC = 0x0102_1994;

/** Where labs have folders: the second in memory, where there is such a place. */
const PARENTS = [realpathSync(tmpdir()), '/dev/shm'] as const;

/** Makes the folder of this lab, after those of labs that are gone are removed. Throws what node:fs throws. */
export function makeLabFolder(): string {
  for (const parent of PARENTS) {
    for (const name of namesIn(parent)) {
      const owner = /^holdfast-lab-(\d+)-(\d+)-/.exec(name);
      if (owner === null || startOf(Number(owner[1])) === owner[2]) continue;
      try {
        empty(join(parent, name));
      } catch {
        // Another user's, or another lab removes it just now.
      }
    }
  }
  const start = startOf(process.pid) ?? '0';
  return mkdtempSync(join(PARENTS[0], `${PREFIX}${process.pid}-${start}-`));
}

/** Undoes all mounts in a lab's folders, whoever still uses them, and removes them. Waits: for the main thread's end. */
export function removeLabFolder(folder: string): void {
  const name = basename(folder);
  for (const parent of PARENTS) {
    for (const found of namesIn(parent)) {
      if (found.startsWith(name)) empty(join(parent, found));
    }
  }
}

/** A file that is elsewhere goes when the lab's folder goes, also if that is left to another lab. */
export function ownFile(folder: string, path: string): void {
  appendFileSync(join(folder, FILES), `${JSON.stringify(path)}\n`);
}

/** A folder in memory that goes with a part of a lab's folder. Null: this host has no such place. */
export function makeMemoryFolder(part: string): string | null {
  const [, memory] = PARENTS;
  try {
    if (statfsSync(memory).type !== TMPFS_MAGIC) return null;
    return mkdtempSync(join(memory, `${basename(dirname(part))}-`));
  } catch {
    return null;
  }
}

/** Undoes all mounts below a folder by force, so that nobody waits for an answer that will not come. */
export function undoMounts(folder: string): void {
  for (const path of mountsUnder(folder)) {
    const root = spawnSync('umount', ['-f', '-l', path], { stdio: 'ignore' });
    // For users who are not root.
    if (root.status !== 0) spawnSync('fusermount3', ['-u', '-z', path], { stdio: 'ignore' });
  }
}

function empty(folder: string): void {
  undoMounts(folder);
  // Anything still mounted is not ours to empty.
  if (mountsUnder(folder).length > 0) return;
  for (const path of filesOf(folder)) rmSync(path, { force: true });
  rmSync(folder, { recursive: true, force: true });
}

/** What `ownFile` was told. Only of folders of this very user: else others could name files for root to remove. */
function filesOf(folder: string): string[] {
  try {
    if (statSync(folder).uid !== process.geteuid?.()) return [];
    const lines = readFileSync(join(folder, FILES), 'utf8').split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as string);
  } catch {
    return [];
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => name.startsWith(PREFIX));
  } catch {
    return [];
  }
}

/** What is mounted at or below a path, the latest first. */
export function mountsUnder(path: string): string[] {
  return readMounts()
    .map((mount) => mount.at)
    .filter((at) => at === path || at.startsWith(`${path}/`))
    .toReversed();
}

export interface MountEntry {
  readonly at: string;
  readonly source: string;
}

/** This process's mounts in their order [proc_pid_mountinfo(5)]; none where there is no such file. */
export function readMounts(): MountEntry[] {
  let text: string;
  try {
    text = readFileSync('/proc/self/mountinfo', 'utf8');
  } catch {
    return [];
  }
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ', 2);
      return {
        at: unescape(before.split(' ')[4] ?? ''),
        source: unescape(after.split(' ')[1] ?? ''),
      };
    });
}

/** Blanks and the like are written as octal numbers there. */
function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_whole, octal: string) =>
    String.fromCodePoint(Number.parseInt(octal, 8)),
  );
}

/** When a process began, in clock ticks since boot; null: there is none [proc_pid_stat(5), field 22]. */
function startOf(pid: number): string | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}
