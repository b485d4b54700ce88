import { CACHE_OPTION, JSON_OPTION, PORT_OPTION, REACTOR_OPTION } from './serve.ts';
import type { CommandSpec } from './spec.ts';

export const DEMO: CommandSpec = {
  name: 'demo',
  summary: 'make a 1 GiB disk and serve it',
  details: [
    'Makes a sparse disk of 1 GiB at .data/demo.img below the current directory, unless ' +
      'it is there already, and serves it on 127.0.0.1 and on the Unix socket ' +
      '.data/demo.sock. Prints how to attach it. The disk and what was written to it stay; ' +
      'removing the file starts over.',
  ],
  arguments: [],
  options: [
    {
      long: '--disk',
      placeholder: 'PATH',
      description: 'Where the disk is kept. The socket is made beside it.',
      defaultText: '.data/demo.img',
      value: 'file',
    },
    CACHE_OPTION,
    { ...PORT_OPTION, defaultText: '10809' },
    REACTOR_OPTION,
  ],
  examples: [{ text: 'A disk to try things on', command: 'holdfast demo' }],
};

export const CREATE: CommandSpec = {
  name: 'create',
  summary: 'make a raw disk image',
  details: [
    'SIZE is in bytes or with a suffix k, M, G, T or P, 1024-based as in qemu-img; it ' +
      'must be a multiple of 512. A file that exists is refused unless --overwrite is given.',
  ],
  arguments: [
    { name: 'PATH', description: 'The file to make.', required: true, value: 'file' },
    {
      name: 'SIZE',
      description: 'How large the disk is, as in 10G.',
      required: true,
      value: 'text',
    },
  ],
  options: [
    {
      long: '--preallocation',
      placeholder: 'HOW',
      description:
        'off: space is taken as it is written; falloc: reserved now, not written; full: written with zeroes now.',
      choices: ['off', 'falloc', 'full'],
      defaultText: 'off',
    },
    {
      long: '--overwrite',
      description: 'Replace an image that exists and that nobody uses. What it holds is lost.',
    },
    JSON_OPTION,
  ],
  examples: [{ text: 'A sparse disk of 10 GiB', command: 'holdfast create disk.img 10G' }],
};

export const INFO: CommandSpec = {
  name: 'info',
  summary: 'say what a server offers, or what an image is',
  details: [
    'A URI (nbd://, nbds://, nbd+unix://, nbds+unix://, iscsi://) is asked as a client would ' +
      'ask, and vhost-user-blk:PATH as a virtual machine would, which is possible while no other ' +
      'is connected; nothing is read from the disk or written to it. Anything else is taken ' +
      'for a file or a block device here.',
  ],
  arguments: [
    {
      name: 'DISK',
      description: 'An NBD or iSCSI URI, vhost-user-blk:PATH, an image or a block device.',
      required: true,
      value: 'file',
    },
  ],
  options: [
    {
      long: '--list',
      short: '-L',
      description: 'List the exports of the server instead of describing one.',
    },
    JSON_OPTION,
  ],
  examples: [
    { text: 'Ask a server', command: 'holdfast info nbd://127.0.0.1:10809/' },
    {
      text: 'Ask a logical unit',
      command: 'holdfast info iscsi://192.0.2.1/iqn.2026-11.org.example:disk/0',
    },
    { text: 'Ask a device', command: 'holdfast info vhost-user-blk:/tmp/vm.sock' },
    { text: 'Look at an image', command: 'holdfast info disk.img' },
  ],
};

export const EXPLAIN: CommandSpec = {
  name: 'explain',
  summary: 'say where a write goes and when it is stable',
  details: [
    'Looks at the file, its file system and mount options, and the drive below as the ' +
      'kernel shows it, and says in plain words what a write, a flush and a write with FUA ' +
      'do in the given mode, and what survives which failure. Warns when the mode promises ' +
      'more than the host gives. Nothing is changed.',
  ],
  arguments: [
    {
      name: 'DISK',
      description: 'An image, a block device or memory:SIZE.',
      required: true,
      value: 'file',
    },
  ],
  options: [CACHE_OPTION, JSON_OPTION],
  examples: [
    {
      text: 'Is a database safe on this disk with the host cache off?',
      command: 'holdfast explain --cache none disk.img',
    },
  ],
};

export const CLEAR: CommandSpec = {
  name: 'clear',
  summary: 'let a disk be written again after a failed sync',
  details: [
    'When the host fails to make data stable, nobody knows which of the acknowledged ' +
      'writes are on the drive. The disk is then poisoned: flushes and FUA writes fail, ' +
      'also after a restart. Check the drive and restore or verify the data first; then ' +
      'this command removes the mark. The disk must not be in use.',
    'Without --yes it says what it would do and ends with 1.',
  ],
  arguments: [
    { name: 'DISK', description: 'The image or block device.', required: true, value: 'file' },
  ],
  options: [{ long: '--yes', short: '-y', description: 'Do it.' }],
  examples: [{ text: 'After the drive was replaced', command: 'holdfast clear --yes disk.img' }],
};

export const RESUME: CommandSpec = {
  name: 'resume',
  summary: 'let a running server go on with a disk after a failed sync',
  details: [
    'For a server that was started with --control. It takes back what --on-sync-error ' +
      'did: requests that were held back go on, and what comes is served again. As with ' +
      'clear, this says that what the failed sync lost is repaired, or that its loss is ' +
      'accepted. Nothing is written again.',
    'Prints the counters of all disks. Without --yes it changes nothing and ends with 1.',
  ],
  arguments: [
    { name: 'SOCKET', description: "The server's control socket.", required: true, value: 'file' },
    {
      name: 'EXPORT',
      description: 'The export name of the disk; the default export if left out.',
      required: false,
      value: 'text',
    },
  ],
  options: [{ long: '--yes', short: '-y', description: 'Do it.' }],
  examples: [
    {
      text: 'The file system was full, has space again, and the guest is to go on',
      command: 'holdfast resume /run/holdfast/control.sock --yes',
    },
  ],
};

export const COUNTERS: CommandSpec = {
  name: 'counters',
  summary: "print a running server's counters",
  details: [
    'For a server that was started with --control. Prints one line of JSON for each disk, the same as after SIGUSR2.',
  ],
  arguments: [
    { name: 'SOCKET', description: "The server's control socket.", required: true, value: 'file' },
  ],
  options: [],
  examples: [
    {
      text: 'How many flushes shared a sync?',
      command: 'holdfast counters /run/holdfast/control.sock',
    },
  ],
};
