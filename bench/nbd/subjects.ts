import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { findProgram } from '../programs.ts';
import type { Subject } from '../race.ts';

/** A server in the race, and how its export is called. */
export interface NbdSubject extends Subject {
  readonly exportName: string;
}

/** Many more than any load opens: a limit must not decide a comparison. */
const CONNECTIONS = '256';

function holdfast(name: string, folder: string, reactor: 'io_uring' | 'portable'): NbdSubject {
  return {
    name,
    description: `Holdfast of ${folder}, reactor ${reactor}, cache writeback, Node ${process.version}`,
    ours: true,
    env: { HOLDFAST_REACTOR: reactor },
    exportName: '',
    command: (image, socket) => [
      process.execPath,
      join(folder, 'src/cli/main.ts'),
      'serve',
      image,
      '-U',
      socket,
      '--shared',
      CONNECTIONS,
    ],
  };
}

function peer(
  name: string,
  programName: string,
  settings: string,
  build: Subject['command'],
  exportName = '',
): NbdSubject | null {
  const program = findProgram(programName);
  if (program === null) return null;
  return {
    name,
    description: `${programName} ${program.version} (${program.origin}), ${settings}`,
    ours: false,
    env: {},
    exportName,
    command: (image, socket, folder) => [...program.command, ...build(image, socket, folder)],
  };
}

function qemuNbd(name: string, aio: string): NbdSubject | null {
  return peer(name, 'qemu-nbd', `cache=writeback, aio=${aio}`, (image, socket) => [
    `--socket=${socket}`,
    '--format=raw',
    '--persistent',
    `--shared=${CONNECTIONS}`,
    '--cache=writeback',
    `--aio=${aio}`,
    '--discard=unmap',
    image,
  ]);
}

function storageDaemon(name: string, aio: string): NbdSubject | null {
  const settings = `cache.direct=off, aio=${aio}, its own iothread`;
  return peer(name, 'qemu-storage-daemon', settings, (image, socket) => [
    '--object=iothread,id=data',
    `--blockdev=driver=file,node-name=disk,filename=${image},aio=${aio},cache.direct=off,discard=unmap`,
    `--nbd-server=addr.type=unix,addr.path=${socket},max-connections=${CONNECTIONS}`,
    '--export=type=nbd,id=export,node-name=disk,name=,writable=on,iothread=data',
  ]);
}

/** Its defaults leave flush and FUA out (nbd-server(5)), which would be no comparison at all. */
function nbdServer(): NbdSubject | null {
  const settings = 'flush=true, fua=true, one process a connection';
  // It has no default export.
  return peer('nbd-server', 'nbd-server', settings, nbdServerArguments, 'disk');
}

function nbdServerArguments(image: string, socket: string, folder: string): string[] {
  const path = join(folder, 'nbd-server.conf');
  const exported = ['[disk]', `exportname = ${image}`, 'flush = true', 'fua = true', 'trim = true'];
  writeFileSync(path, ['[generic]', `unixsock = ${socket}`, ...exported, ''].join('\n'));
  return ['-C', path, '--nodaemon'];
}

/**
 * All subjects this machine can run, Holdfast first. `builds` are further checkouts of Holdfast, NAME=FOLDER, to
 * compare two states of it.
 */
export function findSubjects(builds: readonly string[]): {
  found: NbdSubject[];
  missing: string[];
} {
  const ours = [
    holdfast('holdfast', '.', 'io_uring'),
    holdfast('holdfast-portable', '.', 'portable'),
  ];
  for (const build of builds) {
    const [name, folder] = build.split('=');
    if (name === undefined || folder === undefined)
      throw new Error(`--build is NAME=FOLDER: ${build}`);
    ours.push(holdfast(name, resolve(folder), 'io_uring'));
  }
  const peers: Record<string, NbdSubject | null> = {
    nbdkit: peer('nbdkit', 'nbdkit', 'file plugin, 16 threads', (image, socket) => [
      '--foreground',
      '--exit-with-parent',
      `--unix=${socket}`,
      nbdkitPlugin(),
      image,
    ]),
    'qemu-nbd': qemuNbd('qemu-nbd', 'threads'),
    'qemu-nbd-uring': qemuNbd('qemu-nbd-uring', 'io_uring'),
    qsd: storageDaemon('qsd', 'threads'),
    'qsd-uring': storageDaemon('qsd-uring', 'io_uring'),
    'nbd-server': nbdServer(),
  };
  const found = [...ours, ...Object.values(peers).filter((subject) => subject !== null)];
  const missing = Object.keys(peers).filter((name) => peers[name] === null);
  return { found, missing };
}

/** A foreign nbdkit looks for its plugins under the host's /usr; a path says where they are. */
function nbdkitPlugin(): string {
  const program = findProgram('nbdkit');
  if (program === null || program.origin === 'system') return 'file';
  return join(program.origin, 'usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-file-plugin.so');
}
