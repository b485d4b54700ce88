import type { CommandSpec } from './spec.ts';

export const LAB_MARK: CommandSpec = {
  name: 'lab mark',
  summary: 'note in a recording what has just happened',
  details: [
    'For a server that was started with --control and --record. With --ack the mark says that ' +
      'something has been promised to somebody by now: after any later power cut it has to be ' +
      'there. Without it, it is a note for people. It counts from when this program was started.',
  ],
  arguments: [{ name: 'TEXT', description: 'What has happened.', required: true, value: 'text' }],
  options: [
    { long: '--ack', description: 'The workload has acknowledged this.' },
    {
      long: '--control',
      placeholder: 'PATH',
      description: "The server's control socket.",
      env: 'HOLDFAST_CONTROL',
      value: 'file',
    },
  ],
  examples: [
    {
      text: 'The third transaction is committed, as far as the client knows',
      command: 'holdfast lab mark --ack "committed 3" --control /run/holdfast/control.sock',
    },
  ],
};
