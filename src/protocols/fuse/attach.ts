import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { FILE_SYSTEM } from './mount-point.ts';
import * as native from './native.ts';

// Mounting and unmounting: by system calls where we may make them, else by fusermount3, which is set-user-ID root.

const EPERM = 1;
const EBUSY = 16;
const ENODEV = 19;
const EINVAL = 22;

const HELPER = 'fusermount3';

export interface AttachOptions {
  readonly path: string;
  /** What the mount table shows as the source. */
  readonly name: string;
  readonly readOnly: boolean;
}

/** What became of an attempt to unmount. 'gone': nothing was mounted there. */
export type Detached = 'done' | 'gone' | 'busy';

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/** Mounts at a regular file. Resolves with /dev/fuse of the mount, non-blocking. Throws a ConfigError. */
export async function attach(options: AttachOptions): Promise<number> {
  return isRoot() ? attachAsRoot(options) : attachByHelper(options);
}

/** Unmounts; `lazily` also when it is in use. Throws a ConfigError when that is refused. */
export async function detach(path: string, lazily: boolean): Promise<Detached> {
  if (!isRoot()) return detachByHelper(path, lazily);
  const flags = native.UMOUNT.NOFOLLOW | (lazily ? native.UMOUNT.DETACH : 0);
  const result = await native.unmount(path, flags);
  if (result === 0) return 'done';
  if (result === -EBUSY) return 'busy';
  if (result === -EINVAL) return 'gone';
  throw new ConfigError(`${path} cannot be unmounted (errno ${-result})`, `try: umount -l ${path}`);
}

async function attachAsRoot({ path, name, readOnly }: AttachOptions): Promise<number> {
  const fd = openDevice();
  const { NOSUID, NODEV, NOEXEC, RDONLY } = native.MS;
  const flags = NOSUID | NODEV | NOEXEC | (readOnly ? RDONLY : 0);
  // [fuse(4), fuse.rst "Mount options"] All users, as far as the file's own mode lets them: the kernel checks it.
  const data = `fd=${fd},rootmode=100600,user_id=0,group_id=0,default_permissions,allow_other`;
  const result = await native.mount(name, path, FILE_SYSTEM, flags, data);
  if (result === 0) return fd;
  native.close(fd);
  if (result === -EPERM) {
    throw new ConfigError(
      `${path}: this process may not mount`,
      'mounting needs CAP_SYS_ADMIN, which containers take away: run it outside, or with --privileged',
    );
  }
  if (result === -ENODEV) throw noFuse('the kernel has no FUSE');
  throw new ConfigError(`${path} cannot be mounted (errno ${-result})`, 'see: dmesg | tail');
}

function openDevice(): number {
  const fd = native.openDevice('/dev/fuse');
  if (fd < 0) throw noFuse(`/dev/fuse cannot be opened (errno ${-fd})`);
  return fd;
}

function noFuse(why: string): ConfigError {
  return new ConfigError(
    `files cannot be shown here: ${why}`,
    'load FUSE (modprobe fuse); a container needs --device /dev/fuse',
  );
}

/** libfuse's protocol: the helper mounts, and sends /dev/fuse back over the socket that _FUSE_COMMFD names. */
async function attachByHelper({ path, name, readOnly }: AttachOptions): Promise<number> {
  const [ours, theirs] = native.socketPair();
  try {
    // A comma in a value is escaped.
    const source = name.replaceAll(/[,\\]/g, '\\$&');
    const access = readOnly ? 'ro' : 'rw';
    const words = `${access},nosuid,nodev,noexec,default_permissions,subtype=holdfast,fsname=${source}`;
    const helper = runHelper(['-o', words, '--', path], theirs);
    native.close(theirs);
    const fd = await native.receiveDescriptor(ours);
    const said = await helper;
    if (fd === null || said.code !== 0) {
      if (fd !== null) native.close(fd);
      throw new ConfigError(
        `${path} cannot be mounted: ${said.text}`,
        'the file has to be your own and writable; or run as root',
      );
    }
    native.setNonBlocking(fd);
    return fd;
  } finally {
    native.close(ours);
  }
}

async function detachByHelper(path: string, lazily: boolean): Promise<Detached> {
  const { code, text } = await runHelper(['-u', ...(lazily ? ['-z'] : []), '--', path], null);
  if (code === 0) return 'done';
  if (/busy/i.test(text)) return 'busy';
  if (/not found|not mounted|Invalid argument/i.test(text)) return 'gone';
  throw new ConfigError(`${path} cannot be unmounted: ${text}`, `try: ${HELPER} -u -z ${path}`);
}

/** Its exit code, and what it said. `socket` becomes its descriptor 3. Throws a ConfigError when it is not there. */
async function runHelper(
  words: readonly string[],
  socket: number | null,
): Promise<{ code: number | null; text: string }> {
  const child = spawn(HELPER, words, {
    stdio: ['ignore', 'ignore', 'pipe', ...(socket === null ? [] : [socket])],
    env: { ...process.env, LC_ALL: 'C', _FUSE_COMMFD: '3' },
  });
  let text = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  try {
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, text: text.trim().replace(/^fusermount3: /, '') };
  } catch (error) {
    throw new ConfigError(
      `${HELPER}, which mounts for ordinary users, cannot be started: ${messageOf(error)}`,
      'install it (Debian: apt-get install fuse3), or run as root',
      { cause: error },
    );
  }
}
