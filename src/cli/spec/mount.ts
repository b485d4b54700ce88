import {
  CACHE_OPTION,
  CONTROL_OPTION,
  JSON_OPTION,
  ON_SYNC_ERROR_OPTION,
  PID_FILE_OPTION,
  REACTOR_OPTION,
} from './serve.ts';
import type { CommandSpec } from './spec.ts';

export const MOUNT: CommandSpec = {
  name: 'mount',
  summary: 'show a disk as one plain file',
  details: [
    'FILE is a disk then: what is written into it is written to DISK, and fsync(2) is a flush. ' +
      "Programs that work on image files work on it, and so do loop devices. 'holdfast serve' can " +
      'do the same beside other ways to the disk, with --fuse or --listen fuse:FILE.',
    'FILE is a regular file, which is hidden meanwhile; if it is missing it is made, and removed ' +
      'at the end. A mount that a dead server left there is undone first.',
    'As root the file is there for all users whom its mode lets in: it starts as 0600, and chmod ' +
      'and chown work. Others need fusermount3, which mounts for them alone.',
    "The command stays in the foreground, as 'holdfast serve' does. It ends after SIGTERM, SIGINT " +
      "or SIGHUP, and after 'umount FILE' (fusermount3 -u FILE): what programs have mapped and " +
      'changed is written, and everything is made stable. If the file is still open somewhere ' +
      'when a signal comes, a warning says so, and whoever has it open gets errors.',
  ],
  arguments: [
    {
      name: 'DISK',
      description: 'What to show: PATH or memory:SIZE.',
      required: true,
      value: 'file',
    },
    { name: 'FILE', description: 'Where to show it.', required: true, value: 'file' },
  ],
  options: [
    CACHE_OPTION,
    {
      long: '--read-only',
      short: '-r',
      description: 'Open the disk for reading only and refuse writes.',
    },
    {
      long: '--page-cache',
      description:
        'Let the kernel keep what was read. Quicker for programs that read the same again; right only while ' +
        'nothing else changes the disk.',
    },
    ON_SYNC_ERROR_OPTION,
    REACTOR_OPTION,
    CONTROL_OPTION,
    PID_FILE_OPTION,
    JSON_OPTION,
  ],
  examples: [
    { text: 'An image as a file', command: 'holdfast mount disk.img /tmp/disk' },
    {
      text: 'A disk in memory for a test of mkfs',
      command: 'holdfast mount memory:1G /tmp/disk',
    },
    {
      text: 'A block device with every write stable, for a program that never flushes',
      command: 'sudo holdfast mount /dev/sdb /run/sdb --cache directsync',
    },
  ],
};
