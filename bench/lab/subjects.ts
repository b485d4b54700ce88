import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { NbdSubject } from '../nbd/subjects.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

/** The same server twice: one records, the other does not. The first is compared with the second. */
export function recordingSubjects(protocol: 'nbd' | 'vhost-user-blk'): NbdSubject[] {
  return [true, false].map((records) => ({
    name: records ? 'recorded' : 'unrecorded',
    description: `holdfast serve${records ? ' --record' : ''}, cache writeback, Node ${process.version}`,
    // The ratio that is printed is that of ours to the best other one: what recording leaves of the speed.
    ours: records,
    env: { HOLDFAST_REACTOR: 'io_uring' },
    exportName: '',
    command: (image, socket, folder) => {
      const trace = join(folder, 'disk.trace');
      for (const path of [trace, `${trace}.base`]) rmSync(path, { force: true });
      const listen = protocol === 'nbd' ? ['-U', socket] : ['--listen', `vhost-user-blk:${socket}`];
      const record = records ? ['--record', trace] : [];
      return [process.execPath, MAIN, 'serve', image, ...listen, ...record];
    },
  }));
}
