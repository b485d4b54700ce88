import { lstat, stat, unlink } from 'node:fs/promises';
import net from 'node:net';
import { dirname } from 'node:path';
import { listenError } from './socket-error.ts';

/** [unix(7)] sun_path holds 108 bytes with its end. libuv would cut a longer path short. */
const PATH_BYTES_MAX = 107;

/**
 * Makes way for a server on a Unix socket: removes a socket that a dead server left behind. Throws a SocketError when
 * a live server listens there (EADDRINUSE), when something else is in the way (ENOTSOCK), or the path is too long.
 */
export async function clearStaleSocket(path: string): Promise<void> {
  const refuse = (code: string): Error =>
    listenError({ kind: 'unix', path }, Object.assign(new Error(code), { code }));
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) throw refuse('ENAMETOOLONG');
  const stats = await lstat(path).catch(() => null);
  if (stats === null) {
    // libuv calls this EACCES.
    if ((await stat(dirname(path)).catch(() => null)) === null) throw refuse('ENOENT');
    return;
  }
  if (!stats.isSocket()) throw refuse('ENOTSOCK');
  const code = await tryConnect(path);
  if (code === 'ECONNREFUSED') await unlink(path);
  // Connected, or busy (EAGAIN: its backlog is full), or not ours to judge (EACCES).
  else if (code !== 'ENOENT') throw refuse(code === 'EACCES' ? 'EACCES' : 'EADDRINUSE');
}

/** '' when somebody accepts, else the error's code. */
function tryConnect(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve('');
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'EIO'));
  });
}
