import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Verdict } from '../check/types.ts';
import { hasJournal, repairExt } from './ext.ts';
import { checkBtrfs, checkXfs } from './kernel-replayed.ts';
import { withMount } from './mount.ts';
import { runProgram } from './programs.ts';
import type { DiskOracle, FolderOracle, Needs, OracleOption, Settings } from './types.ts';
import { checkVfat } from './vfat.ts';
import { doubt } from './verdict.ts';

const FILE_SYSTEMS = ['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'vfat'] as const;
type FileSystem = (typeof FILE_SYSTEMS)[number];

export const MOUNT_OPTIONS: readonly OracleOption[] = [
  {
    name: 'fs',
    type: 'text',
    required: true,
    choices: FILE_SYSTEMS,
    description: 'The file system on the disk.',
  },
  {
    name: 'by',
    type: 'text',
    choices: ['mount', 'copy'],
    default: 'mount',
    description:
      'How its files come into sight. mount: by the kernel of this machine, through a loop device, which needs root. ' +
      'copy: e2fsck replays the journal and debugfs copies the files out, or for vfat mcopy does; that needs no root.',
  },
  {
    name: 'mount-options',
    type: 'text',
    default: '',
    description: 'More options for the mount.',
  },
  {
    name: 'fsck',
    type: 'boolean',
    default: true,
    description:
      'Whether the file system itself must be sound too, once it was recovered and unmounted.',
  },
];

/** debugfs's own words where a user who is not root copies files. */
const DUMP_CHATTER = /^(?:debugfs \d.*|.*while changing ownership of .*|)$/;

function isExt(fs: string): boolean {
  return fs.startsWith('ext');
}

const FSCK_PROGRAM: Readonly<Record<string, string>> = {
  xfs: 'xfs_repair',
  btrfs: 'btrfs',
  vfat: 'fsck.fat',
};

function needs(settings: Settings): Omit<Needs, 'modules'> {
  const fs = settings['fs'] as FileSystem;
  const fsck = FSCK_PROGRAM[fs] ?? 'e2fsck';
  const wanted = settings['fsck'] === true ? [fsck] : [];
  if (settings['by'] === 'mount') {
    return { programs: ['mount', 'umount', 'unshare', ...wanted], mounts: true };
  }
  const copy = isExt(fs) ? ['e2fsck', 'debugfs'] : ['mcopy'];
  return { programs: [...copy, ...wanted], mounts: false };
}

/** Looks at a file system that was recovered and unmounted, and changes nothing. */
async function fsck(fs: string, disk: string): Promise<Verdict> {
  switch (fs) {
    case 'xfs':
      return checkXfs(disk);
    case 'btrfs':
      return checkBtrfs(disk);
    case 'vfat':
      return checkVfat(disk);
    default:
      // Nothing is left to replay: whatever e2fsck does now is a repair.
      return repairExt(disk, hasJournal(disk));
  }
}

/** Copies all files out of the disk, without mounting it. Returns what speaks against looking at them, or null. */
async function copyOut(disk: string, settings: Settings, folder: string): Promise<Verdict | null> {
  mkdirSync(folder);
  if (!isExt(String(settings['fs']))) {
    const args = ['-s', '-p', '-n', '-i', disk, '::*', folder];
    const { code, text } = await runProgram('mcopy', args, { env: { MTOOLS_SKIP_CHECK: '1' } });
    // An empty disk has nothing that matches.
    return code === 0 || /no match for target/i.test(text) ? null : doubt(`mcopy: ${text}`, text);
  }
  const strict = settings['fsck'] === true && hasJournal(disk);
  const repaired = await repairExt(disk, strict);
  if (repaired.outcome !== 'pass') return repaired;
  const { code, text } = await runProgram('debugfs', ['-R', `rdump / "${folder}"`, disk]);
  const lines = text.split('\n').filter((line) => !DUMP_CHATTER.test(line));
  return code === 0 && lines.length === 0 ? null : doubt(`debugfs: ${lines[0] ?? ''}`, text);
}

/** Makes an oracle for disks of one for folders: recovers the file system, and lets it judge the files in it. */
export function onDisk(inner: FolderOracle): DiskOracle {
  return {
    ...inner,
    on: 'disk',
    options: [...MOUNT_OPTIONS, ...inner.options],
    needs: (settings) => {
      const own = needs(settings);
      const { programs, modules } = inner.needs(settings);
      return { ...own, programs: [...own.programs, ...programs], modules };
    },
    usesAcks: (settings) => inner.usesAcks(settings),
    judge: (settings) => {
      const folderJudge = inner.judge(settings);
      const fs = String(settings['fs']);
      return {
        judge: async (subject): Promise<Verdict> => {
          const folder = join(subject.scratch, 'mount');
          const [disk = ''] = subject.files;
          const look = (): Promise<Verdict> => folderJudge.judge(folder, subject);
          if (settings['by'] === 'copy') {
            const refusal = await copyOut(disk, settings, folder);
            return refusal ?? look();
          }
          const found = await withMount(disk, fs, String(settings['mount-options']), folder, look);
          if (settings['fsck'] !== true || found.outcome === 'checker-error') return found;
          if (found.class.startsWith('mount refused')) return found;
          const sound = await fsck(fs, disk);
          return sound.outcome === 'pass' ? found : sound;
        },
      };
    },
  };
}
