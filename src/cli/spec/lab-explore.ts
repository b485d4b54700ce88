import type { CommandSpec, OptionSpec } from './spec.ts';

const MODEL_OPTIONS: readonly OptionSpec[] = [
  {
    long: '--model',
    placeholder: 'MODEL',
    description:
      'What the disk may do: M0 keeps the order of writes, M1 keeps or loses whole writes, M2 ' +
      'every unit by itself, M3 also leaves garbage where it was writing; L lies about FLUSH.',
    choices: ['M0', 'M1', 'M2', 'M3', 'L'],
    defaultText: 'M2',
  },
  {
    long: '--unit',
    placeholder: 'SIZE',
    description: 'What a power cut leaves whole.',
    defaultText: '512',
  },
];

/** Where the trace of a state is found. */
const TRACE_OPTION: OptionSpec = {
  long: '--trace',
  placeholder: 'TRACE',
  description: 'The trace that the state belongs to.',
  defaultText: 'the one in this folder whose fingerprint is in the id',
  value: 'file',
};

const ID = {
  name: 'ID',
  description: 'The id of a state, as reports and lab explore print it.',
  required: true,
  value: 'text',
} as const;

export const LAB_EXPLORE: CommandSpec = {
  name: 'lab explore',
  summary: 'check the states that a power cut could leave',
  details: [
    'Works out which contents the disks of a trace may have after a power cut at any instant, ' +
      'and lets a checker judge them: those that matter first, equal ones once, and all of them where ' +
      'that can be done, by watching what the checker reads. Then it looks for the smallest cause of each ' +
      'kind of failure. It says what was covered: every state, every pair of writes, or a sample.',
    'CHECK is a command with {disk} (and {acks}, a file of JSON lines with what was acknowledged): exit ' +
      'code 0 passes, 1 fails, 10 to 19 pass as a named good state, 77 skips; anything else is an error ' +
      'of the checker and never a pass. Or it is the name of a ready-made oracle with its options, as in ' +
      'ext4 or sqlite:db=app.db; see the documentation of the oracles. Without --check, blocks are compared ' +
      'with what they were before and after the workload.',
    'Exits with 0 if nothing fails, 1 if something does, 2 if something could not be judged, 130 if it was ' +
      'interrupted before anything failed.',
  ],
  arguments: [{ name: 'TRACE', description: 'A trace.', required: true, value: 'file' }],
  options: [
    {
      long: '--check',
      placeholder: 'CHECK',
      description: 'What judges a state.',
      defaultText: 'old-or-new',
    },
    {
      long: '--mount',
      placeholder: 'TYPE[:OPTIONS]',
      description:
        'Let the file system recover first; CHECK gets the folder as {mount}. Needs root.',
    },
    ...MODEL_OPTIONS,
    {
      long: '--overlap',
      placeholder: 'ORDER',
      description: 'How writes of one place that were in flight together may follow each other.',
      choices: ['issued', 'any'],
      defaultText: 'issued',
    },
    { long: '--poison', description: 'What was discarded may hold garbage.' },
    {
      long: '--budget',
      placeholder: 'TIME',
      description: 'How long to look, as in 30s or 5m.',
      defaultText: '5m',
    },
    { long: '--states', placeholder: 'N', description: 'The most states to decide.' },
    {
      long: '--jobs',
      short: '-j',
      placeholder: 'N',
      description: 'Worker threads.',
      defaultText: 'one for each processor',
    },
    {
      long: '--timeout',
      placeholder: 'TIME',
      description: 'How long a checker may take for one state.',
      defaultText: '10s',
    },
    {
      long: '--seed',
      placeholder: 'N',
      description: 'For what is sampled.',
      defaultText: '1',
    },
    { long: '--no-read-guided', description: 'Do not use what the checker reads.' },
    {
      long: '--check-base',
      description:
        'The disk has to pass before the workload, too: for a trace that begins with an image.',
    },
    {
      long: '--report',
      short: '-r',
      placeholder: 'FILE',
      description: 'Write a report, one HTML page.',
      value: 'file',
    },
    {
      long: '--progress',
      placeholder: 'FILE',
      description: 'Keep what is decided there, and go on from there when it exists.',
      value: 'file',
    },
    { long: '--json', description: 'Print the result as JSON.' },
  ],
  examples: [
    {
      text: 'Does ext4 survive?',
      command: 'holdfast lab explore fs.trace --check ext4 --report report.html',
    },
    {
      text: 'Does a database keep what it acknowledged?',
      command: 'holdfast lab explore db.trace --mount ext4 --check "sh check.sh {mount} {acks}"',
    },
  ],
};

export const LAB_SHOW: CommandSpec = {
  name: 'lab show',
  summary: 'say what a crash state is made of',
  details: ['Prints the cut, and what of the open requests is there and what is lost.'],
  arguments: [ID],
  options: [
    TRACE_OPTION,
    {
      long: '--write',
      placeholder: 'FILE',
      description: 'Write the state as a raw image; further disks get .1, .2 and so on.',
      value: 'file',
    },
  ],
  examples: [{ text: 'What was lost there?', command: 'holdfast lab show 3f9a-M2-c12-p345' }],
};

export const LAB_MOUNT: CommandSpec = {
  name: 'lab mount',
  summary: 'show a crash state as a file',
  details: [
    'Shows the disk as the power cut would have left it, as a file that any program can read ' +
      'and write; writes go to memory and are thrown away at the end. Ends with SIGINT or SIGTERM.',
  ],
  arguments: [
    ID,
    { name: 'FILE', description: 'Where to show it.', required: true, value: 'file' },
  ],
  options: [
    TRACE_OPTION,
    {
      long: '--disk',
      placeholder: 'N',
      description: 'Which disk of the trace.',
      defaultText: '0',
    },
  ],
  examples: [{ text: 'Look at it', command: 'holdfast lab mount 3f9a-M2-c12-p345 crash.img' }],
};

export const LAB_IMPORT: CommandSpec = {
  name: 'lab import',
  summary: 'make a trace from a log of dm-log-writes',
  details: [
    'The log has no times of issue: what was in flight together is not known, and fewer states ' +
      'are possible than on the disk that was recorded.',
  ],
  arguments: [
    {
      name: 'LOG',
      description: 'A log of dm-log-writes, or of blklogwrites.',
      required: true,
      value: 'file',
    },
    { name: 'TRACE', description: 'The trace to write.', required: true, value: 'file' },
  ],
  options: [
    {
      long: '--disk',
      placeholder: 'IMAGE',
      description: 'What the disk held before.',
      defaultText: 'zeroes',
      value: 'file',
    },
    {
      long: '--size',
      placeholder: 'SIZE',
      description: 'How large the disk is.',
      defaultText: "the image's size, or the end of the last write",
    },
  ],
  examples: [{ text: 'Read a log', command: 'holdfast lab import dm.log dm.trace' }],
};

export const LAB_EXPORT: CommandSpec = {
  name: 'lab export',
  summary: 'make a log of dm-log-writes from a trace',
  details: [
    'Writes appear in the order in which flushes made them stable; acknowledgements become marks. ' +
      'What was in flight, and when requests were issued, is lost.',
  ],
  arguments: [
    { name: 'TRACE', description: 'A trace.', required: true, value: 'file' },
    { name: 'LOG', description: 'The log to write.', required: true, value: 'file' },
  ],
  options: [
    { long: '--disk', placeholder: 'N', description: 'Which disk of the trace.', defaultText: '0' },
  ],
  examples: [{ text: 'For replay-log', command: 'holdfast lab export fs.trace fs.log' }],
};

export const LAB_CALIBRATE: CommandSpec = {
  name: 'lab calibrate',
  summary: 'see that the lab finds what is known to be there, and nothing else',
  details: [
    'Records and explores workloads whose outcome is known, failing and sound ones, and compares: ' +
      'sensitivity is the share of known failures that were found with their cause, specificity the share of ' +
      'sound ones without a finding. Synthetic traces are compared by exact numbers of states. Rows that this machine ' +
      'cannot run are named.',
  ],
  arguments: [
    {
      name: 'ROW',
      description: 'Which rows, as in S1 or Q4; all if left out.',
      required: false,
      variadic: true,
      value: 'text',
    },
  ],
  options: [
    {
      long: '--budget',
      placeholder: 'TIME',
      description: 'How long to look in each row.',
      defaultText: '30s',
    },
    {
      long: '--keep',
      placeholder: 'FOLDER',
      description: 'Keep traces and reports there.',
      value: 'directory',
    },
    { long: '--json', description: 'Print the table as JSON.' },
  ],
  examples: [{ text: 'The quick ones', command: 'holdfast lab calibrate S1 S7 S15 K0a' }],
};
