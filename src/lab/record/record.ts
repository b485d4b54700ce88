import { mkdirSync, realpathSync, rmSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { unreachable } from '../../base/assert.ts';
import { ConfigError, messageOf } from '../../base/errors.ts';
import type { CacheMode } from '../../durability/modes.ts';
import type { ListenConfig, ServerConfig } from '../../server/config.ts';
import { startServer, type Server } from '../../server/server.ts';
import { makeLabFolder, ownFile, removeLabFolder } from '../check/lab-folder.ts';
import {
  CANNOT_MOUNT,
  makeFileSystem,
  type MountChoice,
  mountedCommand,
  untilReleased,
} from './file-system.ts';
import { fillRecordingDisk, reserveRecordingDisk } from './recording-disk.ts';
import { fillIn, runWorkload } from './workload.ts';

/** How a workload reaches the disk. */
export const RECORD_FACES = ['fuse', 'nbd', 'vhost-user-blk', 'iscsi'] as const;
export type RecordFace = (typeof RECORD_FACES)[number];

export interface RecordOptions {
  /** What the disk holds at the start; null: zeroes. Never changed. */
  readonly image: string | null;
  /** Without an image. */
  readonly sizeBytes: number;
  readonly face: RecordFace;
  readonly cache: CacheMode;
  readonly out: string;
  /** `{disk}`, `{mount}`, `{control}` are filled in. */
  readonly command: readonly string[];
  /** A file system is made and mounted before the command runs; null: none. */
  readonly fileSystem: FileSystemChoice | null;
  /** Runs before the recording counts: what it leaves is made stable first. Null: nothing. */
  readonly prepare: readonly string[] | null;
  readonly ackPattern: RegExp;
  readonly signal: AbortSignal;
}

export interface FileSystemChoice {
  readonly type: string;
  readonly make: readonly string[] | null;
  readonly mountOptions: string;
}

export interface RecordHooks {
  /** A line of the workload's standard output. */
  readonly line: (line: string) => void;
  readonly warn: (line: string) => void;
  /** The server runs: somebody may want to open a control socket for it. Returns what undoes that. */
  readonly serving: (server: Server, controlPath: string) => Promise<() => void>;
}

/** The note that says: what comes before is preparation, and of no interest. */
export const BEGIN = 'begin';

const NOTHING = /(?!)/;

/** Records one run of a workload. Resolves with its exit code; the trace is whole then. */
export async function record(options: RecordOptions, hooks: RecordHooks): Promise<number> {
  const disk = resolve(`${options.out}.disk`);
  refuseImageAsTrace(options);
  // Where FUSE shows the disk, and where it is mounted.
  const place = makeLabFolder();
  const undo: (() => Promise<void> | void)[] = [() => removeLabFolder(place)];
  try {
    reserveRecordingDisk(disk);
    for (const path of [disk, `${disk}.holdfast`]) ownFile(place, path);
    await fillRecordingDisk(disk, options.image, options.sizeBytes);
    rmSync(options.out, { force: true });
    const server = await startServer(serverConfig(options, disk, place), (level, line) => {
      if (level === 'warn') hooks.warn(line);
    });
    undo.push(() => server.stop());
    const control = join(place, 'control');
    undo.push(await hooks.serving(server, control));
    return await runOn(options, hooks, server, place, control);
  } finally {
    for (const step of undo.toReversed()) await step();
  }
}

/** A trace replaces what is there: never the image that it begins with. */
function refuseImageAsTrace({ image, out }: RecordOptions): void {
  if (image === null || !isSameFile(image, out)) return;
  throw new ConfigError(
    `${out} is the image that the disk begins as; the trace would replace it`,
    'name another file for the trace',
  );
}

function isSameFile(one: string, other: string): boolean {
  try {
    return realpathSync(one) === realpathSync(other);
  } catch {
    // One of them is not there.
    return false;
  }
}

async function runOn(
  options: RecordOptions,
  hooks: RecordHooks,
  server: Server,
  place: string,
  control: string,
): Promise<number> {
  const path = diskName(options.face, server);
  const mount = await prepare(options, path, place);
  await server.mark('note', BEGIN);
  const mark = marker(server, hooks);
  const command = fillIn(options.command, { disk: path, mount: mount?.at, control });
  const code = await runWorkload({
    command: mount === null ? command : mountedCommand(mount, command),
    env: {
      HOLDFAST_DISK: path,
      HOLDFAST_CONTROL: control,
      ...(mount === null ? {} : { HOLDFAST_MOUNT: mount.at }),
    },
    ackPattern: options.ackPattern,
    acknowledged: (text) => void mark('ack', text),
    line: hooks.line,
    signal: options.signal,
  });
  if (mount !== null) {
    await untilReleased(path);
    if (code === CANNOT_MOUNT) refuseMount(mount.type);
  }
  await mark('note', 'end');
  return code;
}

/** Makes marks. If the recording has stopped, as on a full file system, that is said once, and the workload goes on. */
function marker(
  server: Server,
  hooks: RecordHooks,
): (kind: 'ack' | 'note', text: string) => Promise<void> {
  let said = false;
  return async (kind, text) => {
    try {
      await server.mark(kind, text);
    } catch (error) {
      if (!said) hooks.warn(messageOf(error));
      said = true;
    }
  };
}

/** Makes the file system, and lets the user put things there. Null: there is none. */
async function prepare(
  options: RecordOptions,
  path: string,
  place: string,
): Promise<MountChoice | null> {
  const { fileSystem, face } = options;
  if (fileSystem === null) return null;
  if (face !== 'fuse') {
    throw new ConfigError(
      'a file system is made and mounted here only through --face fuse',
      'with other faces the workload, a virtual machine say, does that by itself',
    );
  }
  const { type, make, mountOptions } = fileSystem;
  if (make !== null) await makeFileSystem(type, path, make);
  const at = join(place, 'mount');
  mkdirSync(at);
  const mount: MountChoice = { type, path, at, options: mountOptions };
  if (options.prepare === null) return mount;
  const code = await runWorkload({
    command: mountedCommand(mount, fillIn(options.prepare, { disk: path, mount: at })),
    env: {},
    ackPattern: NOTHING,
    acknowledged: () => {},
    line: () => {},
    signal: options.signal,
  });
  await untilReleased(path);
  if (code === CANNOT_MOUNT) refuseMount(type);
  if (code !== 0) {
    throw new ConfigError(
      `the preparation of the workload ended with ${code}`,
      `it was: ${options.prepare.join(' ')}`,
    );
  }
  return mount;
}

function refuseMount(type: string): never {
  throw new ConfigError(
    `the recorded disk cannot be mounted as ${type}, or the workload ended with ${CANNOT_MOUNT}`,
    process.getuid?.() === 0
      ? 'see what mount said, and dmesg; the kernel has to know the file system and the options'
      : 'mounting needs root; without it, let a virtual machine mount the disk',
  );
}

/** Where clients reach the disk, in a private folder. */
function listenConfig(face: RecordFace, place: string, disk: string): ListenConfig {
  switch (face) {
    case 'fuse':
      return { protocol: 'fuse', path: join(place, 'disk'), exportName: '' };
    case 'nbd':
      return { protocol: 'nbd', address: { kind: 'unix', path: join(place, 'nbd.sock') } };
    case 'vhost-user-blk':
      return {
        protocol: 'vhost-user-blk',
        address: { kind: 'unix', path: join(place, 'vhost-user.sock') },
        exportName: '',
      };
    case 'iscsi':
      return {
        protocol: 'iscsi',
        address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
        target: {
          name: 'iqn.2026-11.holdfast.lab:recorded',
          alias: basename(disk),
          luns: [{ lun: 0, exportName: '' }],
        },
      };
    default:
      return unreachable(face);
  }
}

/** What the workload is told: a path, a URI, a URL. */
function diskName(face: RecordFace, server: Server): string {
  const place = server.served[0];
  const name = place?.names[0];
  if (name === undefined) throw new Error('the recorded disk is served nowhere');
  // Front-ends want the socket itself.
  if (face === 'vhost-user-blk' && place?.address.kind === 'unix') return place.address.path;
  return name;
}

function serverConfig(options: RecordOptions, disk: string, place: string): ServerConfig {
  return {
    disks: [
      {
        disk,
        exportName: '',
        description: 'recorded by the lab',
        cache: options.cache,
        readOnly: false,
        onSyncError: 'poison',
      },
    ],
    listen: [listenConfig(options.face, place, disk)],
    tlsMode: 'off',
    maxConnections: 16,
    reactor: 'auto',
    record: {
      path: resolve(options.out),
      base: options.image === null ? 'zeroes' : { image: resolve(options.image) },
    },
  };
}
