import { join } from 'node:path';
import type { Verdict } from '../check/types.ts';
import { withMount } from './mount.ts';
import { runProgram } from './programs.ts';
import type { DiskOracle } from './types.ts';
import { doubt, fail, pass } from './verdict.ts';

// xfs and btrfs: only the kernel replays their logs. The file system is mounted and unmounted, and looked at afterwards.

/** The checker could not work; anything else that it says is about the disk. */
const HOST = /permission denied|no such file|out of memory|cannot allocate|busy|usage:/i;

/** Lines of `xfs_repair -n` that say nothing about damage. */
const XFS_CHATTER = new RegExp(
  '^(?:Phase \\d|\\s+- |No modify flag set|Cannot get host filesystem geometry|Repair may fail if there is|' +
    'the image and the host|$)',
);
/** The same for `btrfs check`. */
const BTRFS_CHATTER = new RegExp(
  '^(?:Opening filesystem|Checking filesystem|UUID:|\\[\\d/\\d\\]|found \\d+ bytes|total |file data blocks|' +
    'btree space| referenced|cache and super generation|$)',
);

/** Looks at an unmounted xfs and changes nothing. */
export async function checkXfs(disk: string): Promise<Verdict> {
  // [xfs_repair(8) "EXIT STATUS"]: with -n, 1 is corruption, and whatever stopped it.
  const { code, text } = await runProgram('xfs_repair', ['-n', '-f', disk]);
  if (code === 0) return pass('clean');
  return problem('xfs_repair', code, 1, text, XFS_CHATTER);
}

/** Looks at an unmounted btrfs and changes nothing. */
export async function checkBtrfs(disk: string): Promise<Verdict> {
  const { code, text } = await runProgram('btrfs', ['check', '--readonly', disk]);
  if (code === 0) return pass('clean');
  return problem('btrfs check', code, 1, text, BTRFS_CHATTER);
}

function problem(
  name: string,
  code: number,
  corrupt: number,
  text: string,
  chatter: RegExp,
): Verdict {
  const lines = text.split('\n').filter((line) => !chatter.test(line));
  const [first] = lines;
  if (code !== corrupt || first === undefined || HOST.test(text)) {
    return doubt(`${name}: exit code ${code}: ${first ?? 'no reason given'}`, text);
  }
  return fail('integrity', `${name}: ${first}`, lines.join('\n'));
}

function oracle(
  fs: 'xfs' | 'btrfs',
  program: string,
  words: string,
  check: (disk: string) => Promise<Verdict>,
): DiskOracle {
  return {
    kind: fs,
    on: 'disk',
    summary: `${fs}: the kernel replays its log, then ${words} finds nothing`,
    details: [
      `Only the kernel can replay the log of ${fs}. The disk is mounted through a loop device in a mount namespace of its ` +
        `own, unmounted, and then \`${words}\` must find nothing. This needs root and a kernel that knows ${fs}; and since ` +
        'that is the kernel of this machine, keep in mind that it is shown file systems that may be damaged.',
      'Good state: `clean`. Failures of integrity: `mount refused: …`, and the first thing that the checker found.',
    ],
    options: [
      {
        name: 'mount-options',
        type: 'text',
        default: '',
        description: 'More options for the mount.',
      },
    ],
    needs: () => ({
      programs: ['mount', 'umount', 'unshare', program],
      modules: [],
      mounts: true,
    }),
    usesAcks: () => false,
    judge: (settings) => ({
      judge: async ({ files: [disk = ''], scratch }): Promise<Verdict> => {
        const options = String(settings['mount-options'] ?? '');
        const mounted = await withMount(disk, fs, options, join(scratch, 'mount'), () =>
          Promise.resolve(pass()),
        );
        return mounted.outcome === 'pass' ? check(disk) : mounted;
      },
    }),
  };
}

export const XFS: DiskOracle = oracle('xfs', 'xfs_repair', 'xfs_repair -n', checkXfs);
export const BTRFS: DiskOracle = oracle('btrfs', 'btrfs', 'btrfs check --readonly', checkBtrfs);
