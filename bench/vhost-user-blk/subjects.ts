import { join, resolve } from 'node:path';
import { findProgram, type Program } from '../programs.ts';
import type { Subject } from '../race.ts';

const QUEUES = 4;

function holdfast(name: string, folder: string): Subject {
  return {
    name,
    description: `Holdfast of ${folder}, cache writeback, Node ${process.version}`,
    ours: true,
    env: { HOLDFAST_REACTOR: 'io_uring' },
    command: (image, socket) => [
      process.execPath,
      join(folder, 'src/cli/main.ts'),
      'serve',
      image,
      '--listen',
      `vhost-user-blk:${socket}`,
    ],
  };
}

const EXPORT = 'type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix';

interface DaemonSettings {
  readonly aio: 'io_uring' | 'threads' | 'native';
  /** O_DIRECT, which aio=native needs: another promise about the page cache, so a subject of its own. */
  readonly direct?: boolean;
}

function storageDaemon(
  name: string,
  program: Program | null,
  { aio, direct = false }: DaemonSettings,
): Subject | null {
  if (program === null) return null;
  const cache = `cache.direct=${direct ? 'on' : 'off'}`;
  const { version, origin } = program;
  return {
    name,
    description: `qemu-storage-daemon ${version} (${origin}), ${cache}, aio=${aio}, its own iothread`,
    ours: false,
    env: {},
    command: (image, socket) => [
      ...program.command,
      '--object=iothread,id=data',
      `--blockdev=driver=file,node-name=disk,filename=${image},aio=${aio},${cache},discard=unmap`,
      `--export=${EXPORT},num-queues=${QUEUES},iothread=data,addr.path=${socket}`,
    ],
  };
}

/** All subjects this machine can run, Holdfast first. `builds` are further checkouts of Holdfast, NAME=FOLDER. */
export function findBlkSubjects(builds: readonly string[]): {
  found: Subject[];
  missing: string[];
} {
  const ours = [holdfast('holdfast', '.')];
  for (const build of builds) {
    const [name, folder] = build.split('=');
    if (name === undefined || folder === undefined) {
      throw new Error(`--build is NAME=FOLDER: ${build}`);
    }
    ours.push(holdfast(name, resolve(folder)));
  }
  const newest = findProgram('qemu-storage-daemon');
  const system = findProgram('qemu-storage-daemon', null);
  const older = system?.version === newest?.version ? null : system;
  const peers: Record<string, Subject | null> = {
    'qsd-uring': storageDaemon('qsd-uring', newest, { aio: 'io_uring' }),
    qsd: storageDaemon('qsd', newest, { aio: 'threads' }),
    'qsd-native': storageDaemon('qsd-native', newest, { aio: 'native', direct: true }),
    'qsd-system-uring': storageDaemon('qsd-system-uring', older, { aio: 'io_uring' }),
  };
  const found = [...ours, ...Object.values(peers).filter((subject) => subject !== null)];
  const missing = Object.keys(peers).filter((name) => peers[name] === null);
  return { found, missing };
}
