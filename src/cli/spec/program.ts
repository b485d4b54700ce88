import { CLEAR, COUNTERS, CREATE, DEMO, EXPLAIN, INFO, RESUME } from './disks.ts';
import { LAB, LAB_COMMANDS } from './lab.ts';
import { MOUNT } from './mount.ts';
import { SERVE } from './serve.ts';
import type { CommandSpec, ProgramSpec } from './spec.ts';
import { VHOST_USER_BLK } from './vhost-user.ts';

const COMPLETION: CommandSpec = {
  name: 'completion',
  summary: 'print the completion script for a shell',
  details: [
    'For bash: source <(holdfast completion bash). For zsh: put the output into a file ' +
      '_holdfast in a directory of $fpath. For fish: holdfast completion fish | source.',
  ],
  arguments: [
    {
      name: 'SHELL',
      description: 'Which shell.',
      required: true,
      choices: ['bash', 'zsh', 'fish'],
      value: 'text',
    },
  ],
  options: [],
  examples: [{ text: 'In this bash, now', command: 'source <(holdfast completion bash)' }],
};

const MAN: CommandSpec = {
  name: 'man',
  summary: 'print a manual page',
  details: [
    'Prints the roff source of holdfast(1), or of the page of one command. The same pages are in packaging/man.',
  ],
  arguments: [
    {
      name: 'COMMAND',
      description: 'A command of holdfast, of one word or two.',
      required: false,
      variadic: true,
      value: 'text',
    },
  ],
  options: [],
  examples: [{ text: 'Read one', command: 'holdfast man serve | man -l -' }],
};

export const PROGRAM: ProgramSpec = {
  name: 'holdfast',
  summary: 'a block server that keeps its word',
  details: [
    'Holdfast serves raw disk images and block devices over NBD and iSCSI, to virtual ' +
      'machines as virtio-blk over vhost-user, and as plain files over FUSE, with exact ' +
      'write-cache, flush and FUA behaviour: what a client was told is stable, is stable.',
    'Data goes to standard output, talk to standard error. Errors are one line: ' +
      'holdfast, what happened, what to do. NO_COLOR and FORCE_COLOR are honoured.',
  ],
  options: [
    { long: '--quiet', short: '-q', description: 'Only data, warnings and errors.' },
    { long: '--verbose', short: '-v', description: 'Say more about what is going on.' },
  ],
  commands: [
    SERVE,
    MOUNT,
    DEMO,
    CREATE,
    INFO,
    EXPLAIN,
    CLEAR,
    RESUME,
    COUNTERS,
    VHOST_USER_BLK,
    ...LAB_COMMANDS,
    COMPLETION,
    MAN,
  ],
  groups: [LAB],
};

/** The declaration of one command, if there is one of that name. */
export function findCommand(name: string): CommandSpec | undefined {
  return PROGRAM.commands.find((command) => command.name === name);
}
