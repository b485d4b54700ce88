import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { findProgram } from '../programs.ts';
import type { Subject } from '../race.ts';

export const TARGET = 'iqn.2026-11.org.example:bench';

export interface IscsiSubject extends Subject {
  /** Of the disk. */
  readonly lun: number;
}

function holdfast(name: string, folder: string, reactor: 'io_uring' | 'portable'): IscsiSubject {
  return {
    name,
    description: `Holdfast of ${folder}, reactor ${reactor}, cache writeback, Node ${process.version}`,
    ours: true,
    env: { HOLDFAST_REACTOR: reactor },
    lun: 0,
    command: (image, socket) => [
      process.execPath,
      join(folder, 'src/cli/main.ts'),
      'serve',
      image,
      '--listen',
      `iscsi://${socket}/${TARGET}`,
    ],
  };
}

/** Where tgtd has the sockets that it is told its targets by. */
const TGTD_RUN = '/var/run/tgtd';

/**
 * Linux' target in user space, with its write cache on as it is by default. It is told its disk while it runs, so it
 * opens its portal last. It does not listen to SIGTERM while it has targets.
 */
function tgtd(): IscsiSubject | null {
  const program = findProgram('tgtd', null);
  const admin = findProgram('tgtadm', null);
  if (program === null || admin === null) return null;
  const threads = 16;
  return {
    name: 'tgtd',
    description: `tgtd ${program.version}, backing store rdwr, ${threads} I/O threads, write cache on`,
    ours: false,
    env: {},
    // LUN 0 is its controller.
    lun: 1,
    command: (image, socket) => {
      mkdirSync(TGTD_RUN, { recursive: true });
      const control = socket.slice(socket.indexOf(':') + 1);
      const tell = `${admin.command.join(' ')} -C ${control} --lld iscsi`;
      const script = [
        `trap 'kill -KILL $server; rm -f ${TGTD_RUN}/socket.${control}*; exit 0' TERM`,
        `${program.command.join(' ')} -f -C ${control} -t ${threads} --iscsi portal=127.0.0.2:${control} & server=$!`,
        `until ${tell} --mode target --op show 2>/dev/null; do sleep 0.05; done`,
        `${tell} --mode target --op new --tid 1 --targetname ${TARGET}`,
        `${tell} --mode logicalunit --op new --tid 1 --lun 1 --bstype rdwr --backing-store '${image}'`,
        `${tell} --mode target --op bind --tid 1 --initiator-address ALL`,
        `${tell} --mode portal --op new --param portal=${socket}`,
        'wait',
      ];
      return ['sh', '-c', script.join('\n')];
    },
  };
}

/** LIO, the kernel's target, is measured where it is; a machine in a container seldom has it. */
function lioMissing(): string[] {
  const there = spawnSync('sh', ['-c', 'modprobe -n iscsi_target_mod'], { stdio: 'ignore' });
  return there.status === 0 ? [] : ['LIO (no module iscsi_target_mod here)'];
}

/** All subjects this machine can run, Holdfast first. `builds` are further checkouts of Holdfast, NAME=FOLDER. */
export function findIscsiSubjects(builds: readonly string[]): {
  found: IscsiSubject[];
  missing: string[];
} {
  const ours = [
    holdfast('holdfast', '.', 'io_uring'),
    holdfast('holdfast-portable', '.', 'portable'),
  ];
  for (const build of builds) {
    const [name, folder] = build.split('=');
    if (name === undefined || folder === undefined) {
      throw new Error(`--build is NAME=FOLDER: ${build}`);
    }
    ours.push(holdfast(name, resolve(folder), 'io_uring'));
  }
  const peer = tgtd();
  if (peer === null) return { found: ours, missing: ['tgtd', ...lioMissing()] };
  return { found: [...ours, peer], missing: lioMissing() };
}
