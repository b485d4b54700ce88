import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  realpathSync,
  statSync,
  type Stats,
} from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { DiskState } from '../../durability/disk-state.ts';
import { DomainRegistry, inodeKey } from '../../durability/domain-registry.ts';
import type { SyncErrorPolicy } from '../../durability/modes.ts';
import {
  readBootId,
  statePathOf,
  writeStateFile,
  type StateRecord,
} from '../../durability/state-file.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { bouncePagesOf } from './bounce.ts';
import { syncDirectory } from './create.ts';
import { openPair } from './descriptors.ts';
import { stableDeviceId } from './device-id.ts';
import { deviceNumber } from './device-number.ts';
import { DiskFile, type DescriptorPair } from './disk-file.ts';
import { readFacts } from './facts.ts';
import { FileStore } from './file-store.ts';
import { ImageLock } from './lock.ts';
import { openRefused, wrongKind } from './refusals.ts';
import { defaultStateDirectory, statePathUnder } from './state-path.ts';

export interface FileStoreOptions {
  /** A raw image file or a block device. */
  readonly path: string;
  /** O_DIRECT: past the host's page cache. */
  readonly direct: boolean;
  readonly readOnly: boolean;
  readonly onSyncError: SyncErrorPolicy;
  /** One line for the operator, complete, with the disk's name. */
  readonly warn: (line: string) => void;
  /**
   * Where to remember what must outlive a restart. Without it: beside an image file, and for a block device in
   * $STATE_DIRECTORY or /var/lib/holdfast.
   */
  readonly stateDirectory?: string;
  /** The smallest request, in bytes: 1 unless said otherwise. O_DIRECT may ask for more. */
  readonly blockBytes?: 1 | 512 | 4096;
}

/** Set aside for transfers whose memory the kernel cannot use: usual with O_DIRECT, rare without. */
const BOUNCE_PAGES_DIRECT = 8;
const BOUNCE_PAGES_BUFFERED = 2;

/** Per reactor: what is in flight on one is completed by it. Across reactors the image lock keeps files apart. */
const registries = new WeakMap<Reactor, DomainRegistry<DiskFile>>();

function registryOf(reactor: Reactor): DomainRegistry<DiskFile> {
  let registry = registries.get(reactor);
  if (registry === undefined) {
    registry = new DomainRegistry();
    registries.set(reactor, registry);
  }
  return registry;
}

/**
 * Opens a disk: takes its lock, syncs the file and its directory (so that nothing is trusted that an earlier process
 * wrote and a power cut could still take), and finds out what it can. Exports of one inode share descriptors, lock
 * and flush domain. Throws ConfigError; then nothing was created or changed. Works at once, without waiting for the
 * event loop: a disk is opened before it is served, or on a data plane that can afford the wait.
 */
export async function openFileStore(
  reactor: Reactor,
  options: FileStoreOptions,
): Promise<FileStore> {
  if (process.platform !== 'linux') {
    throw new ConfigError(
      `disk '${options.path}': image files and block devices can be served on Linux only`,
      'its locks and its boot id are needed to keep promises; memory:SIZE works everywhere',
    );
  }
  const stats = statDisk(options);
  const key = stats.isBlockDevice()
    ? `block ${deviceNumber(stats.rdev)}`
    : inodeKey(stats.dev, stats.ino);
  const registry = registryOf(reactor);
  let first = false;
  const file = registry.acquire(key, () => {
    first = true;
    return openFirst(reactor, options, stats);
  });
  const release = (): void => registry.release(key)?.close();
  if (!first) {
    try {
      joinFile(file, options, stats);
    } catch (error) {
      release();
      throw error;
    }
  }
  return new FileStore(file, options.readOnly, release);
}

/** Before open(2): opening a FIFO would wait for its other end. */
function statDisk(options: FileStoreOptions): Stats {
  let stats: Stats;
  try {
    stats = statSync(options.path);
  } catch (error) {
    throw openRefused(options, error);
  }
  if (stats.isFile() || stats.isBlockDevice()) return stats;
  if (stats.isDirectory()) throw wrongKind(options.path, 'a directory');
  if (stats.isFIFO()) throw wrongKind(options.path, 'a FIFO');
  if (stats.isSocket()) throw wrongKind(options.path, 'a socket');
  throw wrongKind(options.path, 'a character device');
}

function openFirst(reactor: Reactor, options: FileStoreOptions, stats: Stats): DiskFile {
  const bounce = bouncePagesOf(reactor);
  bounce.reserve(options.direct ? BOUNCE_PAGES_DIRECT : BOUNCE_PAGES_BUFFERED);
  const realPath = realpathSync(options.path);
  const pair = openPair(options, stats);
  try {
    const facts = readFacts(reactor, pair.data, realPath, stats, options);
    const lock = new ImageLock(pair.data, options.path);
    lock.acquire(!options.readOnly);
    const state = options.readOnly ? null : openState(options, realPath, stats);
    syncBeforeTrust(pair, realPath, stats, options, state);
    const { warn, onSyncError } = options;
    const file = new DiskFile(reactor, pair, lock, facts, warn, onSyncError);
    if (state !== null) file.setState(state);
    file.watch();
    return file;
  } catch (error) {
    // The lock goes with its descriptor.
    closePair(pair);
    throw error;
  }
}

/** Another export of an inode that is open already. */
function joinFile(file: DiskFile, options: FileStoreOptions, stats: Stats): void {
  const { facts } = file;
  const refuse = (what: string, hint: string): never => {
    throw new ConfigError(`disk '${options.path}' is served already ${what}`, hint);
  };
  if (facts.direct !== options.direct) {
    refuse(
      facts.direct ? 'with O_DIRECT' : 'through the page cache',
      'the two must not be mixed on one disk: give all its exports cache modes of one kind (none and directsync, or the others)',
    );
  }
  if (facts.blockBytes < (options.blockBytes ?? 1)) {
    refuse(
      `with blocks of ${facts.blockBytes} bytes`,
      'use the same block size for all its exports',
    );
  }
  if (options.readOnly) return;
  if (file.state !== null) {
    if (file.policy === options.onSyncError) return;
    refuse(`with --on-sync-error ${file.policy}`, 'use the same for all its exports');
  }
  const pair = openPair(options, stats);
  try {
    const { punches } = readFacts(file.reactor, pair.data, facts.realPath, stats, options);
    file.lock.acquire(true);
    const state = openState(options, facts.realPath, stats);
    syncBeforeTrust(pair, facts.realPath, stats, options, state);
    file.becomeWritable(pair, state, options.onSyncError, punches);
  } catch (error) {
    closePair(pair);
    throw error;
  }
}

function closePair(pair: DescriptorPair): void {
  closeSync(pair.data);
  closeSync(pair.sync);
}

/** What an earlier process wrote and did not sync is stable, or the disk is not served. */
function syncBeforeTrust(
  pair: DescriptorPair,
  realPath: string,
  stats: Stats,
  options: FileStoreOptions,
  state: DiskState | null,
): void {
  try {
    syncOrPoison(() => fsyncSync(pair.sync), state);
    if (stats.isFile()) syncDirectory(realPath);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    // What cannot be written has nothing to sync; a directory that may not be read cannot be.
    if (options.readOnly && ['EROFS', 'EINVAL', 'EACCES', 'EPERM'].includes(code)) return;
    throw new ConfigError(
      `disk '${options.path}' cannot be synced before it is served (${code}): earlier writes may be lost`,
      code === 'EACCES'
        ? 'let this user read its directory'
        : 'check the storage beneath it and the disk itself',
      { cause: error },
    );
  }
}

/**
 * P5: the kernel reports a failed write-back once. Whoever is told of it here and only gives up would let the next start
 * sync without an error and trust what is lost, so it goes on record first. Errors that say that nothing was tried do not.
 */
export function syncOrPoison(sync: () => void, state: Pick<DiskState, 'syncFailed'> | null): void {
  try {
    sync();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code === 'EIO' || code === 'ENOSPC' || code === 'EDQUOT')
      state?.syncFailed('EIO', () => {});
    throw error;
  }
}

function openState(options: FileStoreOptions, realPath: string, stats: Stats): DiskState {
  const path = stateFilePath(options, realPath, stats);
  requireWritable(options, dirname(path));
  return DiskState.open({
    path,
    bootId: readBootId(),
    now: Date.now,
    log: (line) => options.warn(`disk '${options.path}': ${line}`),
    persist: persistWithDirectory,
  });
}

/**
 * Where the state of this disk lies. For an image: beside it, unless this user may not write there and the service
 * has a directory of its own ($STATE_DIRECTORY). Where one was kept before, it stays, or what it remembers would be
 * overlooked.
 */
export function stateFilePath(
  options: Pick<FileStoreOptions, 'stateDirectory'>,
  realPath: string,
  stats: Stats,
  environment: NodeJS.ProcessEnv = process.env,
): string {
  const { stateDirectory } = options;
  if (stats.isBlockDevice()) {
    const id = stableDeviceId(realPath, deviceNumber(stats.rdev));
    return statePathUnder(stateDirectory ?? defaultStateDirectory(environment), id);
  }
  if (stateDirectory !== undefined) return statePathUnder(stateDirectory, realPath);
  const beside = statePathOf(realPath);
  if (environment['STATE_DIRECTORY'] === undefined || existsSync(beside)) return beside;
  const inService = statePathUnder(defaultStateDirectory(environment), realPath);
  return existsSync(inService) || !isWritable(dirname(beside)) ? inService : beside;
}

/** Found out now rather than at the first write, which would have to fail. */
function requireWritable(options: FileStoreOptions, directory: string): void {
  let existing = directory;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  if (isWritable(existing)) return;
  throw new ConfigError(
    `disk '${options.path}': its state file, which remembers failed syncs, cannot be kept in '${directory}'`,
    'let this user write there, or set STATE_DIRECTORY to a directory where it may, or add --read-only',
  );
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function persistWithDirectory(
  path: string,
  record: StateRecord,
  done: (error: Error | null) => void,
): void {
  let failure: Error | null = null;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeStateFile(path, record);
  } catch (error) {
    failure = error instanceof Error ? error : new Error(messageOf(error));
  }
  done(failure);
}
