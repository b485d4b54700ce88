import { DEFAULT_QUEUES } from '../../server/config.ts';
import { CACHE_OPTION } from './serve.ts';
import type { CommandSpec } from './spec.ts';

export const VHOST_USER_BLK: CommandSpec = {
  name: 'vhost-user-blk',
  summary: 'serve one disk to one virtual machine, as libvirt starts it',
  details: [
    'A vhost-user back-end program, with the options that the conventions of the ' +
      "specification ask for (QEMU's docs/interop/vhost-user.rst). People want 'holdfast " +
      "serve DISK --listen vhost-user-blk:PATH', which is the same device and can do more.",
    'The program is also installed as holdfast-vhost-user-blk, and described for ' +
      'management software in packaging/50-holdfast.json, which belongs into ' +
      '/usr/share/qemu/vhost-user.',
    'SIGTERM lets the requests it has finish, makes everything stable and ends with 0. ' +
      'With --fd it ends when the front-end does.',
  ],
  arguments: [],
  options: [
    {
      long: '--socket-path',
      placeholder: 'PATH',
      description: 'Listen for the front-end there.',
      value: 'file',
    },
    {
      long: '--fd',
      placeholder: 'FDNUM',
      description: 'The descriptor of a socket that is connected to the front-end.',
    },
    {
      long: '--blk-file',
      short: '-b',
      placeholder: 'PATH',
      description: 'The disk: a raw image file, a block device, or memory:SIZE.',
      value: 'file',
    },
    {
      long: '--read-only',
      short: '-r',
      description: 'Open the disk for reading only and refuse writes.',
    },
    {
      long: '--print-capabilities',
      short: '-c',
      description:
        'Print what this program can as JSON and end with 0, whatever else is on the command line.',
    },
    CACHE_OPTION,
    {
      long: '--num-queues',
      placeholder: 'N',
      description:
        'The most queues that the front-end may have: QEMU wants one for each virtual processor.',
      defaultText: String(DEFAULT_QUEUES),
    },
    {
      long: '--serial',
      placeholder: 'TEXT',
      description: 'The serial number of the disk, at most 20 characters.',
      defaultText: "made of the file's name",
    },
  ],
  examples: [
    {
      text: 'What libvirt asks first',
      command: 'holdfast vhost-user-blk --print-capabilities',
    },
    {
      text: 'What it starts then',
      command: 'holdfast vhost-user-blk --socket-path=/tmp/vm.sock --blk-file=disk.img',
    },
  ],
};
