import {
  LAB_CALIBRATE,
  LAB_EXPLORE,
  LAB_EXPORT,
  LAB_IMPORT,
  LAB_MOUNT,
  LAB_SHOW,
} from './lab-explore.ts';
import { LAB_RECORD } from './lab-record.ts';
import { LAB_MARK } from './lab-mark.ts';
import type { CommandSpec, GroupSpec } from './spec.ts';

const SOCKET_AND_EXPORT: CommandSpec['arguments'] = [
  { name: 'SOCKET', description: "The server's control socket.", required: true, value: 'file' },
  {
    name: 'EXPORT',
    description: 'The export name of the disk; the default export if left out.',
    required: false,
    value: 'text',
  },
];

export const LAB: GroupSpec = {
  name: 'lab',
  summary: 'what a power cut leaves: cut it, record it, try it',
  details: [
    'The power-cut lab. A guest, a database or a file system works on a disk whose ' +
      'unflushed data can be lost on purpose, and what it makes of that is looked at.',
  ],
};

const LAB_CUT: CommandSpec = {
  name: 'lab cut',
  summary: 'cut the power of a running disk',
  details: [
    'For a server that was started with --control and --volatile-cache. Of the writes that ' +
      'no flush has covered, the seed and the model decide which survive; these are written ' +
      'to the disk, the others are gone. Requests in flight get no answer, and all clients of ' +
      'the disk lose their connection. Then the disk comes back.',
    'The models, each allowing more than the one before: M0, the writes up to some moment; ' +
      'M1, any of the writes, each as a whole; M2, every 512 bytes for themselves, in any ' +
      'version since the last flush; M3, also garbage where a write was in flight.',
    'Prints one line of JSON with the seed, the model and what became of the unflushed ' +
      'data. The same seed on the same state gives the same outcome.',
  ],
  arguments: SOCKET_AND_EXPORT,
  options: [
    {
      long: '--seed',
      placeholder: 'N',
      description: 'What survives is drawn with this number of at most 15 digits.',
      defaultText: 'a random one, which is printed',
    },
    {
      long: '--model',
      placeholder: 'MODEL',
      description: 'What may be lost.',
      choices: ['M0', 'M1', 'M2', 'M3'],
      defaultText: 'M2',
    },
    {
      long: '--after',
      placeholder: 'TIME',
      description: 'Wait before the cut, as in 500ms, 5s or 2m.',
      defaultText: 'not at all',
    },
    {
      long: '--off-for',
      placeholder: 'TIME',
      description: 'How long the disk stays away; clients are refused or wait meanwhile.',
      defaultText: 'not at all: it comes back at once',
    },
  ],
  examples: [
    {
      text: 'Pull the plug in five seconds, and repeat the same loss later',
      command: 'holdfast lab cut /run/holdfast/control.sock --after 5s --seed 7',
    },
  ],
};

const LAB_FAIL_FLUSH: CommandSpec = {
  name: 'lab fail-flush',
  summary: 'let the syncs of a running disk fail',
  details: [
    'For a server that was started with --control and --volatile-cache. The next sync of the ' +
      'disk, or every one, fails with EIO, as when a drive does not take the data. What ' +
      'follows is what follows a real failed sync: see --on-sync-error of serve, and resume.',
  ],
  arguments: SOCKET_AND_EXPORT,
  options: [
    { long: '--once', description: 'The next sync fails.' },
    { long: '--always', description: 'Every sync fails, until --never.' },
    { long: '--never', description: 'Syncs succeed again.' },
    {
      long: '--data',
      placeholder: 'WHAT',
      description:
        'What a failed sync does to the data that it was to make stable: keep leaves them in ' +
        'the volatile cache; drop loses them, as Linux does when it marks pages clean.',
      choices: ['keep', 'drop'],
      defaultText: 'keep',
    },
  ],
  examples: [
    {
      text: 'How does a database take one failed fsync whose data are lost?',
      command: 'holdfast lab fail-flush /run/holdfast/control.sock --once --data drop',
    },
  ],
};

export const LAB_COMMANDS: readonly CommandSpec[] = [
  LAB_RECORD,
  LAB_EXPLORE,
  LAB_SHOW,
  LAB_MOUNT,
  LAB_CALIBRATE,
  LAB_IMPORT,
  LAB_EXPORT,
  LAB_MARK,
  LAB_CUT,
  LAB_FAIL_FLUSH,
];
