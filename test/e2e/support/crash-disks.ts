import { execFileSync } from 'node:child_process';
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MiB } from '../../../src/base/units.ts';
import type { CheckerSpec, Subject, Verdict } from '../../../src/lab/check/types.ts';
import { makeOracle } from '../../../src/lab/oracles/registry.ts';
import { succeed } from './command.ts';
import { requires } from './requires.ts';

// Disks as a power cut leaves them: a file system in a file, copied while it is mounted.

/** How each file system is made, and the size of its disk. xfs and btrfs need more than others. */
const MAKE: Readonly<Record<string, { command: readonly string[]; mib: number }>> = {
  ext2: { command: ['mkfs.ext2', '-q'], mib: 32 },
  ext3: { command: ['mkfs.ext3', '-q'], mib: 32 },
  ext4: { command: ['mkfs.ext4', '-q'], mib: 32 },
  xfs: { command: ['mkfs.xfs', '-q'], mib: 320 },
  btrfs: { command: ['mkfs.btrfs', '-q'], mib: 128 },
  vfat: { command: ['mkfs.vfat'], mib: 32 },
};

export function makeDisk(folder: string, fs: string, name: string = fs): Promise<string> {
  const { command = [], mib = 0 } = MAKE[fs] ?? {};
  return makeDiskBy(folder, [...command], mib, name);
}

/** A file of `mib` with the file system that `command` makes in it. */
export async function makeDiskBy(
  folder: string,
  command: readonly string[],
  mib: number,
  name: string,
): Promise<string> {
  const path = join(folder, `${name}.img`);
  writeFileSync(path, '');
  truncateSync(path, mib * MiB);
  await succeed([...command, path]);
  return path;
}

/** A disk that is mounted, and can be copied as it is at that moment. */
export interface Mounted {
  readonly folder: string;
  /** All that the kernel has written to the disk by now. Returns the copy. */
  snapshot(name: string): string;
}

/** Mounts the disk, lets `work` use it, and unmounts it. */
export async function withMounted(
  disk: string,
  options: string,
  work: (mounted: Mounted) => void | Promise<void>,
): Promise<void> {
  const folder = `${disk}.mount`;
  mkdirSync(folder, { recursive: true });
  await succeed(['mount', '-o', `loop${options === '' ? '' : ','}${options}`, disk, folder]);
  try {
    await work({
      folder,
      snapshot: (name) => {
        const copy = `${disk}.${name}`;
        copyDisk(disk, copy);
        return copy;
      },
    });
  } finally {
    // Before the workspace is removed, also when a test fails.
    await succeed(['umount', folder]);
  }
}

/** With its holes. */
export function copyDisk(from: string, to: string): void {
  execFileSync('cp', ['--sparse=always', from, to]);
}

/** What an oracle says of copies of these disks, one after the other; the disks stay as they are. */
export async function judgeDisks(
  folder: string,
  spec: Omit<CheckerSpec, 'timeoutMs'> & { readonly timeoutMs?: number },
  disks: readonly string[],
  acks: readonly string[] = [],
): Promise<Verdict[]> {
  const checker = makeOracle({ timeoutMs: 30_000, ...spec });
  try {
    const verdicts: Verdict[] = [];
    for (const disk of disks) {
      runs += 1;
      const scratch = join(folder, `run-${runs}`);
      mkdirSync(scratch);
      const file = `${scratch}.disk`;
      copyDisk(disk, file);
      const marks = acks.map((text, event) => ({ event, kind: 'ack' as const, text }));
      const subject: Subject = { files: [file], devices: [], acks: marks, scratch };
      verdicts.push(await checker.check(subject));
    }
    return verdicts;
  } finally {
    await checker.close();
  }
}

let runs = 0;

/** 'pass clean', 'fail integrity: repairable: …'. */
export function show({ outcome, axis, class: name }: Verdict): string {
  return `${outcome} ${axis === null ? '' : `${axis}: `}${name}`.trim();
}

/** The options of a test that mounts. */
export function requiresMounts(...names: readonly string[]): { skip: string | false } {
  if (process.getuid?.() === 0) return requires('losetup', 'mount', 'umount', 'unshare', ...names);
  process.stderr.write('SKIPPED TEST: it mounts file systems, which is for root\n');
  return { skip: 'mounts are for root' };
}
