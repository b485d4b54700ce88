import { CACHE_MODES, DEFAULT_CACHE_MODE, SYNC_ERROR_POLICIES } from '../../durability/modes.ts';
import { REACTOR_KINDS } from '../../reactor/open.ts';
import { DEFAULT_MAX_CONNECTIONS } from '../serve/options.ts';
import type { CommandSpec, OptionSpec } from './spec.ts';

export const CACHE_OPTION: OptionSpec = {
  long: '--cache',
  placeholder: 'MODE',
  description: "The cache mode, named and meant as QEMU's; see 'holdfast explain'.",
  choices: Object.keys(CACHE_MODES),
  defaultText: DEFAULT_CACHE_MODE,
};

export const JSON_OPTION: OptionSpec = {
  long: '--json',
  description: 'Print JSON on standard output, for programs.',
};

export const PORT_OPTION: OptionSpec = {
  long: '--port',
  short: '-p',
  placeholder: 'PORT',
  description: 'Listen on this TCP port; 0 lets the kernel choose one.',
  defaultText: '10809, when nothing else says where to listen',
};

export const ON_SYNC_ERROR_OPTION: OptionSpec = {
  long: '--on-sync-error',
  placeholder: 'POLICY',
  description:
    'After the host failed to make data stable: poison fails writes and flushes until an ' +
    'operator clears the disk; stop holds them back until an operator resumes the disk, ' +
    'which needs --control.',
  choices: SYNC_ERROR_POLICIES,
  defaultText: 'poison',
};

const DISK_OPTIONS: readonly OptionSpec[] = [
  CACHE_OPTION,
  {
    long: '--export-name',
    short: '-x',
    aliases: ['--export'],
    placeholder: 'NAME',
    description:
      'The export name; given once for each DISK that has no NAME= of its own, in their order.',
    defaultText: "the empty name for a single DISK, the file's own name when there are several",
    repeatable: true,
  },
  {
    long: '--description',
    short: '-D',
    placeholder: 'TEXT',
    description: 'What clients are told about the export; once for each DISK, in their order.',
    repeatable: true,
  },
  {
    long: '--read-only',
    short: '-r',
    description: 'Open the disks for reading only and refuse writes.',
  },
  {
    long: '--format',
    short: '-f',
    placeholder: 'FORMAT',
    description:
      'The image format. Only raw is served; saying so stops the warning about images that look like another format.',
    choices: ['raw'],
  },
  ON_SYNC_ERROR_OPTION,
  {
    long: '--volatile-cache',
    placeholder: 'SIZE',
    optionalValue: true,
    description:
      'Give every DISK a simulated volatile write cache of SIZE, 64M if left out: what is ' +
      "written stays in memory until a flush, and 'holdfast lab cut' loses it on purpose. " +
      'For tests. Write it after the DISKs, or with =SIZE.',
    value: 'text',
  },
];

const LISTEN_OPTIONS: readonly OptionSpec[] = [
  {
    long: '--listen',
    placeholder: 'PLACE',
    description:
      'Listen at nbd://HOST:PORT or nbd+unix:///?socket=PATH; nbds:// and nbds+unix:// say ' +
      'the same and need --tls require. vhost-user-blk:PATH is a socket for a virtual ' +
      'machine, to which one disk is a virtio-blk device. iscsi://HOST:PORT/TARGET is a ' +
      'portal of an iSCSI target, of which the disks are the logical units. fuse:FILE shows ' +
      'one disk as a plain file.',
    repeatable: true,
  },
  {
    long: '--fuse',
    placeholder: 'FILE',
    description:
      'Show the disk as this plain file, as --listen fuse:FILE does and the mount command alone.',
    repeatable: true,
    value: 'file',
  },
  PORT_OPTION,
  {
    long: '--bind',
    short: '-b',
    placeholder: 'HOST',
    description: 'Listen on TCP at this address.',
    defaultText: '127.0.0.1: only this machine',
  },
  {
    long: '--socket',
    short: '-k',
    aliases: ['-U', '--unix'],
    placeholder: 'PATH',
    description:
      'Listen on a Unix socket; - makes a private one in a new directory and removes it at the end.',
    value: 'file',
  },
  {
    long: '--shared',
    short: '-e',
    placeholder: 'N',
    description: 'The most connections at one time; further ones are closed at once.',
    defaultText: String(DEFAULT_MAX_CONNECTIONS),
  },
];

const TLS_OPTIONS: readonly OptionSpec[] = [
  {
    long: '--tls',
    placeholder: 'WHEN',
    description: 'off: no TLS; on: for clients that ask; require: refuse those that do not.',
    choices: ['off', 'on', 'require'],
    defaultText: 'off',
  },
  {
    long: '--tls-certificates',
    placeholder: 'DIR',
    description:
      'A directory with server-cert.pem, server-key.pem and, to check clients, ca-cert.pem.',
    value: 'directory',
  },
  {
    long: '--tls-verify-peer',
    description: 'Refuse clients without a certificate signed by ca-cert.pem.',
  },
  {
    long: '--tls-psk',
    placeholder: 'FILE',
    description: 'A file of pre-shared keys, lines of USER:HEXKEY as psktool writes them.',
    value: 'file',
  },
];

export const REACTOR_OPTION: OptionSpec = {
  long: '--reactor',
  placeholder: 'KIND',
  description: 'How to talk to the kernel. auto takes io_uring where it works.',
  choices: REACTOR_KINDS,
  defaultText: 'auto',
  env: 'HOLDFAST_REACTOR',
};

export const PID_FILE_OPTION: OptionSpec = {
  long: '--pid-file',
  short: '-P',
  aliases: ['--pidfile'],
  placeholder: 'PATH',
  description: 'Write the process id there once clients can connect.',
  value: 'file',
};

export const CONTROL_OPTION: OptionSpec = {
  long: '--control',
  placeholder: 'PATH',
  description:
    "Listen on a Unix socket for 'holdfast resume' and 'holdfast counters', of the same user only.",
  value: 'file',
};

const PROCESS_OPTIONS: readonly OptionSpec[] = [
  REACTOR_OPTION,
  {
    long: '--run',
    placeholder: 'COMMAND',
    description:
      'Serve for as long as this shell command runs, and end with its exit status. It ' +
      'finds $uri, $unixsocket and $port. Without another place to listen, a private Unix ' +
      'socket is used.',
  },
  PID_FILE_OPTION,
  CONTROL_OPTION,
  {
    long: '--record',
    placeholder: 'TRACE',
    description:
      'Record all writes, flushes and the like in this new file, which the lab explores. What the ' +
      'disks held before is kept beside it, in TRACE.base: a clone where the file system ' +
      'can, else a sparse copy.',
    value: 'file',
  },
  {
    long: '--exit-with-parent',
    description: 'Stop, as after SIGTERM, when the process that started this one ends.',
  },
  { ...JSON_OPTION, description: 'Print the start-up report as one JSON object.' },
];

export const SERVE: CommandSpec = {
  name: 'serve',
  summary: 'serve disks over NBD or iSCSI, or to virtual machines',
  details: [
    'A DISK is a raw image file, a block device, or memory:SIZE for a disk that is gone ' +
      'when the server ends. NAME=PATH gives the export its name; a path that contains = ' +
      'is written with a slash before it, as in ./a=b.img.',
    'Without options the server listens on 127.0.0.1:10809, which only this machine can ' +
      'reach. --listen, --port, --bind and --socket add up: each says one more place to ' +
      'listen (--port and --bind together say one). Started by systemd socket activation, ' +
      'the server uses the sockets it was handed, and those options are refused for NBD.',
    'vhost-user-blk:PATH may be followed by ?KEY=VALUE and more of them after &: ' +
      'export=NAME says which disk, and is needed when there are several; queues=N (1 to ' +
      '256, 64 if left out) is the most that a front-end may have; serial=TEXT ' +
      'has at most 20 characters and is made of the name if left out; fua=on offers a write ' +
      'with FUA as drafted for virtio 1.5; connect=on connects to a front-end that listens ' +
      'at PATH, and again whenever it has gone, instead of listening. vhost-user-blk:fd:N ' +
      'takes a descriptor that is connected already. It needs io_uring, and one front-end ' +
      'at a time is served; the same disk may have other places.',
    'iscsi://HOST:PORT/TARGET: HOST is 127.0.0.1, PORT 3260 and TARGET a name made of the ' +
      "first disk's, where they are left out. All disks are its logical units, from LUN 0 " +
      'in their order. Further --listen with the same TARGET add portals to it, and targets ' +
      'may share HOST:PORT. After ? follow, for the target: chap=FILE and mutual-chap=FILE, ' +
      'each with one line USER:SECRET (12 to 255 bytes; they must differ) that initiators, ' +
      'and in turn the target, prove to know; initiator=NAME, which may be repeated, of the ' +
      'only ones that may log in; alias=TEXT; lun=EXPORT:N, repeated, for some of the disks ' +
      'or other numbers. And for all its logical units, or with N: before the value for one: ' +
      'removable=on, thin=on or off (on where the disk can give space back), ' +
      'serial=TEXT (at most 32 characters, made of the path if left out). See ' +
      'docs/guides/iscsi.md.',
    'fuse:FILE shows one disk as a plain file, which is made if it is missing. After ? may ' +
      'follow export=NAME, which says which disk and is needed when there are several; ' +
      'read-only=on; and page-cache=on, which lets the kernel keep what was read and is right ' +
      'only while nothing else changes the disk. See docs/guides/fuse.md.',
    'When clients can connect, the URIs and the commands that attach the disks are ' +
      'printed on standard output; with --quiet only the URIs.',
    'SIGTERM, SIGINT and SIGHUP stop the server: it accepts no more connections, ' +
      'finishes the requests it has, makes everything stable and ends with 0. A second ' +
      'SIGTERM or SIGINT ends it at once. SIGUSR2 writes the counters of every disk to ' +
      'standard error, one line of JSON each; the end does the same unless --quiet.',
  ],
  arguments: [
    {
      name: 'DISK',
      description: 'What to serve: PATH, NAME=PATH, memory:SIZE or NAME=memory:SIZE.',
      required: true,
      variadic: true,
      value: 'file',
    },
  ],
  options: [...DISK_OPTIONS, ...LISTEN_OPTIONS, ...TLS_OPTIONS, ...PROCESS_OPTIONS],
  examples: [
    { text: 'One image, for this machine only', command: 'holdfast serve disk.img' },
    {
      text: 'Two disks on a Unix socket, each by name',
      command: 'holdfast serve root=root.img data=/dev/sdb -k /run/holdfast/nbd.sock',
    },
    {
      text: 'To a virtual machine as virtio-blk, and over NBD for looking at it',
      command: 'holdfast serve disk.img --listen vhost-user-blk:/tmp/vm.sock -k /tmp/nbd.sock',
    },
    {
      text: 'Two disks as LUN 0 and 1 of an iSCSI target, to other machines that know the secret',
      command:
        "holdfast serve a.img b.img --listen 'iscsi://0.0.0.0/iqn.2026-11.org.example:disks?chap=chap.txt'",
    },
    {
      text: 'Let nbdinfo look at an image, then stop',
      command: `holdfast serve disk.img --run 'nbdinfo "$uri"'`,
    },
    {
      text: 'To other machines, with certificates on both sides',
      command:
        'holdfast serve disk.img -b 0.0.0.0 --tls require --tls-certificates /etc/holdfast/pki --tls-verify-peer',
    },
  ],
};
