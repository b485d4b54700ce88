import type { Verdict } from '../check/types.ts';
import { runProgram } from './programs.ts';
import type { DiskOracle } from './types.ts';
import { doubt, fail, pass } from './verdict.ts';

/** [fsck.fat(8) "EXIT STATUS"] */
const EXIT = { CLEAN: 0, ERRORS: 1 } as const;

/** What it says of every disk, and of every one that was not unmounted. */
const HARMLESS: readonly RegExp[] = [
  /^fsck\.fat \d.*$/gm,
  /^(?:0x\w+: )?Dirty bit is set\. Fs was not properly unmounted and some data may be corrupt\.$/gm,
  /^ Automatically removing dirty bit\.$/gm,
  // The copy of the boot sector does not get the dirty bit.
  /^There are differences between boot sector and its backup\.$/gm,
  /^(?:This is mostly harmless\. )?Differences: \(offset:original\/backup\)$/gm,
  /^ {2}\d+:[0-9a-f]+\/[0-9a-f]+.*$/gm,
  /^ {2}Not automatically fixing this\.$/gm,
  // [FAT specification, "FSI_Free_Count"]: a hint, not necessarily correct.
  /^Free cluster summary (?:wrong \(.*\)|uninitialized \(.*\))$/gm,
  /^ {2}Auto-(?:correcting|setting)\.$/gm,
  /^Leaving filesystem unchanged\.$/gm,
  /^.*: \d+ files, \d+\/\d+ clusters$/gm,
];

/** Its words about damage, line by line. */
export function readFsckFat(text: string): string[] {
  let rest = text;
  for (const pattern of HARMLESS) rest = rest.replaceAll(pattern, '');
  return rest.split('\n').filter((line) => line.trim() !== '');
}

/** Looks, and changes nothing. */
export async function checkVfat(disk: string): Promise<Verdict> {
  const { code, text } = await runProgram('fsck.fat', ['-n', disk]);
  const problems = readFsckFat(text.replaceAll(disk, 'disk'));
  const found = problems.join('\n');
  if (code === EXIT.CLEAN) return pass('clean');
  if (code !== EXIT.ERRORS) return doubt(`fsck.fat: exit code ${code}`, text);
  if (problems.length === 0) return pass('not unmounted');
  // Names of files are no class: each is an indented or absolute path on a line of its own.
  const first = problems.find((line) => !line.startsWith('/')) ?? problems[0] ?? '';
  if (/^(?:open|read|seek|lseek|.*permission denied|.*no such file)/i.test(first)) {
    return doubt(`fsck.fat: ${first}`, found);
  }
  return fail('integrity', first, found);
}

export const VFAT: DiskOracle = {
  kind: 'vfat',
  on: 'disk',
  summary: 'FAT12, FAT16 and FAT32: fsck.fat finds nothing',
  details: [
    'Runs `fsck.fat -n`. FAT has no journal: much of what a power cut leaves is damage.',
    'Good states: `clean`; `not unmounted`: the dirty bit is set, the copy of the boot sector differs or the free cluster ' +
      'count is old, which are no damage. A failure of integrity has the first thing that it found as its class.',
  ],
  options: [],
  needs: () => ({ programs: ['fsck.fat'], modules: [], mounts: false }),
  usesAcks: () => false,
  judge: () => ({ judge: ({ files: [disk = ''] }) => checkVfat(disk) }),
};
