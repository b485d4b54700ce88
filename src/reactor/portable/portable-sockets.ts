import net from 'node:net';
import { unreachable } from '../../base/assert.ts';
import type { Listener, SocketAddress } from '../reactor.ts';
import { connectError, formatAddress, listenError, SocketError } from '../socket-error.ts';
import { clearStaleSocket } from '../unix-socket.ts';

// Replies are latency: no Nagle. Half-open, so that a peer that has sent its last request still gets its replies.
const OPTIONS = { allowHalfOpen: true, noDelay: true, keepAlive: true } as const;

/** Listens; `accepted` gets each socket and how to call its peer in messages. Throws a SocketError. */
export async function listenOn(
  address: SocketAddress,
  accepted: (socket: net.Socket, peer: string) => void,
): Promise<Listener> {
  if (address.kind === 'unix') await clearStaleSocket(address.path);
  const server = net.createServer(OPTIONS);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(address, error)));
    server.once('listening', resolve);
    server.listen(listenOptions(address));
  });
  server.removeAllListeners('error');
  // What fails from here on is one accept (EMFILE, a client that left): the next may succeed.
  server.on('error', () => {});
  server.on('connection', (socket) => accepted(socket, peerOf(socket, address)));
  return {
    address: boundAddress(server, address),
    close: () =>
      new Promise((resolve) => {
        // Node's own call-back waits for all connections; the listening socket itself is closed at once.
        server.close();
        setImmediate(resolve);
      }),
  };
}

/** Connects. Rejects with a SocketError. */
export async function connectTo(address: SocketAddress): Promise<net.Socket> {
  if (address.kind === 'fd') {
    throw new SocketError(
      'EINVAL',
      'cannot connect to a descriptor',
      'name a host and port, or a path',
    );
  }
  const socket = net.connect(
    address.kind === 'unix'
      ? { ...OPTIONS, path: address.path }
      : { ...OPTIONS, host: address.host, port: address.port },
  );
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void => reject(connectError(address, error));
    socket.once('error', failed);
    socket.once('connect', () => {
      socket.removeListener('error', failed);
      resolve();
    });
  });
  return socket;
}

/** "tcp 127.0.0.1:4711", "unix /run/x.sock" */
export function peerOf(socket: net.Socket, address: SocketAddress): string {
  const { remoteAddress: host, remotePort: port } = socket;
  if (host !== undefined && port !== undefined) {
    return `tcp ${formatAddress({ kind: 'tcp', host, port })}`;
  }
  return address.kind === 'tcp' ? 'tcp' : `unix ${formatAddress(address)}`;
}

function listenOptions(address: SocketAddress): net.ListenOptions & { fd?: number } {
  switch (address.kind) {
    case 'tcp':
      return { host: address.host, port: address.port };
    case 'unix':
      return { path: address.path };
    case 'fd':
      return { fd: address.fd };
    default:
      return unreachable(address);
  }
}

function boundAddress(server: net.Server, asked: SocketAddress): SocketAddress {
  const bound = server.address();
  if (asked.kind !== 'tcp' || bound === null || typeof bound === 'string') return asked;
  return { kind: 'tcp', host: asked.host, port: bound.port };
}
