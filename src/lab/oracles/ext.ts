import { closeSync, openSync, readSync } from 'node:fs';
import type { Verdict } from '../check/types.ts';
import { runProgram } from './programs.ts';
import type { Case, DiskOracle } from './types.ts';
import { doubt, fail, pass } from './verdict.ts';

// ext2, ext3, ext4: e2fsck replays the journal and repairs, and is asked again afterwards. What it did is told from its
// words, for its exit code is 1 both for a repair and for what follows every replay.

/** [e2fsck(8) "EXIT CODE"], bits. */
const EXIT = { CORRECTED: 1, REBOOT: 2, UNCORRECTED: 4, OPERATIONAL: 8 } as const;

/** Lines that say nothing about damage. */
const HARMLESS_LINES: readonly RegExp[] = [
  /^e2fsck \d/,
  /^Pass \d[A-Z]?: /,
  /: recovering journal$/,
  /^Restarting e2fsck from the beginning/,
  /\*\*\*\*\* FILE SYSTEM WAS MODIFIED \*\*\*\*\*$/,
  /: \d+\/\d+ files \(/,
];

/**
 * After a replay, these are the normal course of things. Open files that were deleted are on the orphan list, and the
 * kernel's own mount clears them too; where that list is a file, e2fsck 1.47 sees to its blocks last. The sums in the
 * superblock are not journaled: the kernel counts anew.
 */
const HARMLESS_AFTER_REPLAY: readonly RegExp[] = [
  /^(?:Clearing|Truncating) orphaned inode \d+ \(.*\)$/gm,
  /^Free (?:blocks|inodes) count wrong \(\d+, counted=\d+\)\.\nFix\? (?:yes|no)$/gm,
  /^Orphan file \(inode \d+\) block \d+ is not clean\.\nClear\? (?:yes|no)$/gm,
  /^Setting free (?:blocks|inodes) count to \d+ \(was \d+\)$/gm,
];

/** Later than any recording, the year 2033: nothing on the disk lies in e2fsck's future, and it writes the same each time. */
const FIXED_TIME = { env: { E2FSPROGS_FAKE_TIME: '2000000000' } };

/** What keeps e2fsck from beginning and is the host's fault; all else is about what the disk holds. */
const HOST =
  /permission denied|no such file|busy|read-only file system|cannot allocate|memory allocation|usage:|is mounted/i;

/** The end of a line that asks. */
const ANSWER = /\s+[A-Z][\w ]*\? (?:yes|no)$/;

const OPENING = /^ext2fs_open2: /;

/** What one run of e2fsck says. */
export interface ExtFindings {
  readonly replayed: boolean;
  /** Its words about damage, line by line. */
  readonly problems: readonly string[];
}

/** Takes out of e2fsck's words what is no damage. */
export function readE2fsck(text: string): ExtFindings {
  const replayed = /: recovering journal$/m.test(text);
  let rest = text;
  if (replayed) for (const pattern of HARMLESS_AFTER_REPLAY) rest = rest.replaceAll(pattern, '');
  const problems = rest
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !HARMLESS_LINES.some((pattern) => pattern.test(line)));
  return { replayed, problems };
}

/**
 * The name of the finding. Why it cannot be opened is said on standard output and, in other words, on standard error,
 * and which comes first differs from run to run.
 */
export function firstProblem(problems: readonly string[]): string | null {
  const line = problems.find((problem) => OPENING.test(problem)) ?? problems[0];
  return line?.replace(OPENING, '').replace(ANSWER, '') ?? null;
}

/** Replays and repairs the file system in `disk`. With `strict` a repair is a failure, not only what cannot be repaired. */
export async function repairExt(disk: string, strict: boolean): Promise<Verdict> {
  // Shorter extent trees are an optimisation that -y would agree to.
  const args = ['-fy', '-E', 'no_optimize_extents', disk];
  const { code, text } = await runProgram('e2fsck', args, FIXED_TIME);
  const { replayed, problems } = readE2fsck(text.replaceAll(disk, 'disk'));
  const found = problems.join('\n');
  const first = firstProblem(problems) ?? `exit code ${code}`;
  if ((code & EXIT.OPERATIONAL) !== 0) {
    if (HOST.test(found)) return doubt(`e2fsck: ${first}`, found);
    return fail('integrity', `unrepairable: ${first}`, found);
  }
  if ((code & EXIT.UNCORRECTED) !== 0) return fail('integrity', `unrepairable: ${first}`, found);
  if ((code & ~(EXIT.CORRECTED | EXIT.REBOOT)) !== 0) {
    return doubt(`e2fsck: exit code ${code}`, text);
  }
  if (code === 0 && !replayed) return pass('clean');
  // Without a journal only the mark that it was not unmounted may be corrected, without a word. That this was all, the
  // second run shows.
  const again = await runProgram('e2fsck', ['-fn', disk], FIXED_TIME);
  if (again.code !== 0) {
    const { problems: left } = readE2fsck(again.text.replaceAll(disk, 'disk'));
    return fail('integrity', `unrepairable: not clean after repair: ${left[0] ?? ''}`, again.text);
  }
  if (problems.length === 0) return pass(replayed ? 'replayed' : 'not unmounted');
  if (strict) return fail('integrity', `repairable: ${first}`, found);
  return pass('repaired', found);
}

/** Whether the file system claims a journal; true when its superblock cannot be read: then nothing is forgiven. */
export function hasJournal(disk: string): boolean {
  const superblock = Buffer.alloc(1024);
  const fd = openSync(disk, 'r');
  try {
    readSync(fd, superblock, 0, superblock.length, 1024);
  } finally {
    closeSync(fd);
  }
  // [ext4 "The Super Block"]: s_magic, and COMPAT_HAS_JOURNAL of s_feature_compat.
  if (superblock.readUInt16LE(0x38) !== 0xef53) return true;
  return (superblock.readUInt32LE(0x5c) & 0x4) !== 0;
}

/** What `strict` comes to for this disk. */
export function isStrict(strict: unknown, disk: string): boolean {
  if (strict === 'auto') return hasJournal(disk);
  return strict === 'yes';
}

export const EXT: DiskOracle = {
  kind: 'ext',
  on: 'disk',
  summary: 'ext2, ext3 and ext4: e2fsck replays the journal, repairs, and looks again',
  details: [
    'Runs `e2fsck -fy`, which replays the journal and repairs what it finds, and `e2fsck -fn` after it, ' +
      'which must find nothing. Needs neither root nor a kernel that knows the file system.',
    'Good states: `clean`; `not unmounted`: nothing else is wrong, and there is no journal; `replayed`: the journal was ' +
      'replayed, and nothing more than what follows each replay (deleted open files are cleared, the free counts of the ' +
      'superblock are counted anew); `repaired`, where a repair is forgiven.',
    'Failures, all of integrity: `repairable: …` with the first thing that e2fsck found, and `unrepairable: …`.',
  ],
  options: [
    {
      name: 'strict',
      type: 'text',
      choices: ['auto', 'yes', 'no'],
      default: 'auto',
      description:
        'Whether a repair is a failure. auto: where there is a journal, for then none should be needed.',
    },
  ],
  needs: () => ({ programs: ['e2fsck'], modules: [], mounts: false }),
  usesAcks: () => false,
  judge: (settings) => ({
    judge: async ({ files: [disk = ''] }: Case): Promise<Verdict> =>
      repairExt(disk, isStrict(settings['strict'], disk)),
  }),
};
