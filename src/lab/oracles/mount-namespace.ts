import { readFileSync, readlinkSync } from 'node:fs';
import { assert } from '../../base/assert.ts';
import { runProgram } from './programs.ts';

/** Which mount namespace this process is in [namespaces(7)]. */
export function mountNamespace(): string {
  return readlinkSync('/proc/self/ns/mnt');
}

/** A line of mountinfo, as far as it is used. */
export interface MountLine {
  readonly folder: string;
  readonly type: string;
  readonly source: string;
}

/** [proc_pid_mountinfo(5)]: the mount point is the fifth word; type and source come after a lone hyphen. */
export function readMountInfo(text: string): MountLine[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ');
      const [type = '', source = ''] = after.split(' ');
      return { folder: unescape(before.split(' ')[4] ?? ''), type, source };
    });
}

/** Blanks and the like stand there as octal numbers. */
function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/**
 * A new mount namespace has copies of all mounts, and each keeps its file system alive after its owner has unmounted it.
 * That matters where the owner waits for its end: of disks that are served by a process, and of loop devices on those. So
 * they are let go, but for what holds `needed`. `outside` is the namespace that this one must not be.
 */
export async function dropForeignMounts(needed: readonly string[], outside: string): Promise<void> {
  assert(mountNamespace() !== outside, 'mounts are let go only in a namespace of our own');
  const foreign = readMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')).filter(
    ({ folder, type, source }) =>
      (type.startsWith('fuse') || source.startsWith('/dev/loop')) &&
      !needed.some((path) => path === folder || path.startsWith(`${folder}/`)),
  );
  // The innermost first.
  for (const { folder } of foreign.toReversed()) await runProgram('umount', ['--lazy', folder]);
}
