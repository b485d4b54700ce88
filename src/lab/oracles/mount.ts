import { mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Verdict } from '../check/types.ts';
import { runProgram } from './programs.ts';
import { doubt, fail } from './verdict.ts';

/** Mounts that a clean file system does not need: `nouuid` lets several copies of one be mounted at once [xfs(5)]. */
const ALWAYS: Readonly<Record<string, string>> = { xfs: 'nouuid' };
/** The host's fault or the operator's, not the file system's. */
const HOST =
  /unknown filesystem type|superuser|permission denied|not permitted|loop device|no such file|does not exist|bad usage|usage:/i;
/** [mount(8) "EXIT STATUS"] */
const MOUNT_FAILURE = 32;
/** A program that the checker left behind may still be on its way out. */
const UMOUNT_TRIES = 20;
const UMOUNT_PAUSE_MS = 50;

/**
 * Mounts `disk` on `folder` by way of a loop device, lets `look` judge it, and unmounts it. The kernel refusing the file
 * system is a failure of integrity.
 */
export async function withMount(
  disk: string,
  fs: string,
  mountOptions: string,
  folder: string,
  look: () => Promise<Verdict>,
): Promise<Verdict> {
  mkdirSync(folder, { recursive: true });
  const options = ['loop', 'nodev', 'nosuid', ALWAYS[fs] ?? '', mountOptions];
  const list = options.filter((option) => option !== '').join(',');
  const mounted = await runProgram('mount', ['-t', fs, '-o', list, disk, folder]);
  if (mounted.code !== 0) return refused(mounted.code, mounted.text, folder);
  let verdict: Verdict;
  try {
    verdict = await look();
  } catch (error) {
    await unmount(folder);
    throw error;
  }
  const left = await unmount(folder);
  return left === null ? verdict : doubt('umount', left);
}

function refused(code: number, text: string, folder: string): Verdict {
  const words = text
    .replaceAll(folder, '')
    .replace(/^mount: *:? */, '')
    .replaceAll(/\/dev\/loop\d+/g, 'the disk');
  if (code !== MOUNT_FAILURE || HOST.test(words)) return doubt(`mount: ${words}`, text);
  return fail('integrity', `mount refused: ${words}`, text);
}

/** Returns why not, or null. Then it is only out of sight: the end of the mount namespace takes it away. */
async function unmount(folder: string): Promise<string | null> {
  let text = '';
  for (let i = 0; i < UMOUNT_TRIES; i += 1) {
    const ended = await runProgram('umount', [folder]);
    if (ended.code === 0) return null;
    text = ended.text;
    await sleep(UMOUNT_PAUSE_MS);
  }
  await runProgram('umount', ['--lazy', folder]);
  return text;
}
