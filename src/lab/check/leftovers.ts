import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Reactor } from '../../reactor/reactor.ts';
import { mountsUnder, readMounts } from './lab-folder.ts';
import { HELPER_LIMIT_MS } from './limits.ts';
import { runProgram } from './process-runner.ts';

// What a checker leaves behind: file systems that it mounted from our disks, loop devices, files in its scratch folder.
// Helper programs are never waited for by a call that blocks: they write to disks that this very thread serves.

/** Loop devices over one of `files`, and what is mounted from them, are taken away. False: there were none. */
export async function detachLoops(
  reactor: Reactor,
  files: readonly string[],
  output: number,
): Promise<boolean> {
  const loops = loopsOver(files);
  for (const loop of loops) {
    for (const { at } of readMounts().filter((mount) => mount.source === loop)) {
      await help(reactor, ['umount', '-l', at], output);
    }
    await help(reactor, ['losetup', '-d', loop], output);
  }
  return loops.length > 0;
}

/** Empties a run's scratch folder, and first undoes what is mounted in it. False: something stays mounted. */
export async function emptyScratch(
  reactor: Reactor,
  scratch: string,
  output: number,
): Promise<boolean> {
  // Before anything is looked at: a file system that reads from this very thread would never answer it.
  for (const at of mountsUnder(scratch)) await help(reactor, ['umount', '-l', at], output);
  if (mountsUnder(scratch).length > 0) return false;
  for (const name of readdirSync(scratch))
    rmSync(join(scratch, name), { recursive: true, force: true });
  return true;
}

async function help(reactor: Reactor, argv: readonly string[], output: number): Promise<void> {
  const environment = [`PATH=${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`];
  await runProgram(reactor, { argv, environment, output, limitMs: HELPER_LIMIT_MS });
}

/** '/dev/loop0' and so on, of those whose file is one of `files` (or was: deleted ones are marked). */
function loopsOver(files: readonly string[]): string[] {
  let names: string[];
  try {
    names = readdirSync('/sys/block').filter((name) => name.startsWith('loop'));
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    try {
      const backing = readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trimEnd();
      return files.includes(backing.replace(/ \(deleted\)$/, '')) ? [`/dev/${name}`] : [];
    } catch {
      // It is not in use.
      return [];
    }
  });
}
