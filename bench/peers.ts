import { messageOf } from '../src/base/errors.ts';
import { makePeers } from '../scripts/peers.ts';
import { findProgram, peersRoot } from './programs.ts';

/** `npm run bench:peers`: makes the newest peers if they are not there, and says which versions they are. */
const PROGRAMS = [
  'nbdkit',
  'nbd-server',
  'fio',
  'nbdinfo',
  'qemu-nbd',
  'qemu-storage-daemon',
  'qemu-system-x86_64',
];

function main(): void {
  makePeers((line) => process.stderr.write(`${line}\n`));
  for (const name of PROGRAMS) {
    const program = findProgram(name, peersRoot());
    if (program === null || program.origin === 'system') throw new Error(`${name} is not there`);
    process.stdout.write(`${name} ${program.version}\n`);
  }
}

try {
  main();
} catch (error) {
  process.stderr.write(`bench:peers: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
