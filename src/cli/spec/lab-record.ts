import type { CommandSpec } from './spec.ts';

export const LAB_RECORD: CommandSpec = {
  name: 'lab record',
  summary: 'run a workload and record what it does to a disk',
  details: [
    'Serves a disk, runs COMMAND on it, and records every request with its issue and its ' +
      'completion, in a trace that lab explore reads. The disk is a scratch copy: the image given is ' +
      'not changed. In COMMAND, {disk} stands for the disk (a path with --face fuse, else its URI ' +
      'or socket), {mount} for the folder where --mkfs or --mount has mounted it, {control} for a control ' +
      'socket; the same are in HOLDFAST_DISK, HOLDFAST_MOUNT and HOLDFAST_CONTROL.',
    'What COMMAND has promised to somebody is said by a line on its standard output that ' +
      'begins with ACK (or matches --ack), or by holdfast lab mark --ack: after a power cut it has to be there.',
    'What happens before COMMAND starts, making a file system say, is recorded too and left out by lab explore.',
  ],
  arguments: [
    {
      name: 'COMMAND',
      description: 'The workload, a program and its arguments; put -- before it.',
      required: true,
      variadic: true,
      value: 'text',
    },
  ],
  options: [
    {
      long: '--out',
      short: '-o',
      placeholder: 'TRACE',
      description: 'The trace to write; replaced if it is there.',
      value: 'file',
    },
    {
      long: '--disk',
      placeholder: 'IMAGE',
      description:
        'A raw image that the disk begins as. The trace refers to it: keep it unchanged.',
      defaultText: 'zeroes',
      value: 'file',
    },
    {
      long: '--size',
      placeholder: 'SIZE',
      description: 'Without --disk: how large the disk is.',
      defaultText: '64M',
    },
    {
      long: '--face',
      placeholder: 'FACE',
      description:
        'How COMMAND reaches the disk: a file, an NBD URI, a vhost-user socket, an iSCSI URL.',
      choices: ['fuse', 'nbd', 'vhost-user-blk', 'iscsi'],
      defaultText: 'fuse',
    },
    {
      long: '--mkfs',
      placeholder: 'TYPE[:WORDS]',
      description:
        'Make this file system and mount it through a loop device before COMMAND runs, as in ' +
        'ext4 or "ext4:-O ^has_journal". Needs root.',
    },
    {
      long: '--mount',
      placeholder: 'TYPE[:OPTIONS]',
      description:
        'Mount the disk as this, with these options. With --mkfs: only the options matter.',
    },
    {
      long: '--cache',
      placeholder: 'MODE',
      description: 'The cache mode in which the disk is served.',
      choices: ['writeback', 'none', 'writethrough', 'directsync', 'unsafe', 'until-flush'],
      defaultText: 'writeback',
    },
    {
      long: '--ack',
      placeholder: 'REGEX',
      description:
        'Lines of standard output that acknowledge; the first group is what is acknowledged.',
      defaultText: '^ACK\\b\\s*(.*)',
    },
  ],
  examples: [
    {
      text: 'A database program on ext4',
      command: 'holdfast lab record --mkfs ext4 -o db.trace -- node app.mjs {mount}',
    },
    {
      text: 'A virtual machine, which prints ACK lines on its serial port',
      command:
        'holdfast lab record --disk vm.img --face nbd -o vm.trace -- ' +
        'qemu-system-x86_64 -nographic -drive file={disk},format=raw,if=virtio',
    },
  ],
};
