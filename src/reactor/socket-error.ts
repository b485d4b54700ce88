import { unreachable } from '../base/assert.ts';
import { ConfigError, messageOf } from '../base/errors.ts';
import type { SocketAddress } from './reactor.ts';

/**
 * A socket that cannot be listened on or connected to: the operator's to solve. `code` is the system's, "EADDRINUSE".
 */
export class SocketError extends ConfigError {
  readonly code: string;

  constructor(code: string, message: string, hint: string, options?: ErrorOptions) {
    super(message, hint, options);
    this.code = code;
  }
}

/** "127.0.0.1:10809", "[::1]:10809", "/run/x.sock" */
export function formatAddress(address: SocketAddress): string {
  switch (address.kind) {
    case 'tcp': {
      const host = address.host === '' ? '*' : address.host;
      return host.includes(':') ? `[${host}]:${address.port}` : `${host}:${address.port}`;
    }
    case 'unix':
      return address.path;
    case 'fd':
      return `file descriptor ${address.fd}`;
    default:
      return unreachable(address);
  }
}

/** [RFC 4291 2.5.5.2] How an IPv4 address looks on an IPv6 socket: with dots, or written out in words. */
const MAPPED = /^(?:::|(?:0:){5})ffff:(?:(\d+\.\d+\.\d+\.\d+)|([0-9a-f]{1,4}):([0-9a-f]{1,4}))$/i;

/** An address that a socket has: an IPv4 one as such, whatever kind the socket is. */
export function formatLocal(host: string, port: number): string {
  const [, dotted, high, low] = MAPPED.exec(host) ?? [];
  if (dotted !== undefined) return formatAddress({ kind: 'tcp', host: dotted, port });
  if (high === undefined || low === undefined) return formatAddress({ kind: 'tcp', host, port });
  const word = Number.parseInt(high, 16) * 0x10000 + Number.parseInt(low, 16);
  const bytes = [24, 16, 8, 0].map((shift) => (word >>> shift) & 0xff);
  return formatAddress({ kind: 'tcp', host: bytes.join('.'), port });
}

const LISTEN: Readonly<Record<string, readonly [string, string]>> = {
  EADDRINUSE: [
    'it is already in use',
    'stop the other server, or choose another address with --listen',
  ],
  EADDRNOTAVAIL: [
    'this host has no such address',
    'name an address of this host, or 0.0.0.0 for all',
  ],
  EACCES: [
    'permission denied',
    'use a port of 1024 or more, a directory you may write to, or run as root',
  ],
  ENOENT: ['the directory does not exist', 'create the directory of the socket first'],
  ENOTFOUND: ['the host name is not known', 'check the name, or give a numeric address'],
  EAI_AGAIN: [
    'the host name cannot be looked up now',
    'check the network, or give a numeric address',
  ],
  ENAMETOOLONG: ['the path is longer than 107 bytes', 'choose a shorter path for the socket'],
  EBADF: ['it is not open', 'pass a listening socket as systemd does (LISTEN_FDS)'],
  EINVAL: ['it is not a listening socket', 'pass a listening socket as systemd does (LISTEN_FDS)'],
  ENOTSOCK: ['it exists and is not a socket', 'move the file away, or choose another path'],
};

/** Why `address` cannot be listened on, with what to do. `error` comes from the system. */
export function listenError(address: SocketAddress, error: Error): SocketError {
  const code = (error as NodeJS.ErrnoException).code ?? 'EIO';
  const [why, hint] = LISTEN[code] ?? [messageOf(error), 'choose another address with --listen'];
  return new SocketError(code, `cannot listen on ${formatAddress(address)}: ${why}`, hint, {
    cause: error,
  });
}

const CONNECT: Readonly<Record<string, readonly [string, string]>> = {
  ECONNREFUSED: ['connection refused', 'is the server running, and listening there?'],
  ENOENT: ['there is no such socket', 'is the server running, and is the path right?'],
  EACCES: ['permission denied', 'check the permissions of the socket'],
  ENOTFOUND: ['the host name is not known', 'check the name, or give a numeric address'],
  ETIMEDOUT: ['no answer', 'check the address and the firewalls on the way'],
  EHOSTUNREACH: ['no route to the host', 'check the address and the network'],
  ENETUNREACH: ['no route to the network', 'check the address and the network'],
};

/** Why `address` cannot be connected to, with what to do. */
export function connectError(address: SocketAddress, error: Error): SocketError {
  const code = (error as NodeJS.ErrnoException).code ?? 'EIO';
  const [why, hint] = CONNECT[code] ?? [messageOf(error), 'check the address'];
  return new SocketError(code, `cannot connect to ${formatAddress(address)}: ${why}`, hint, {
    cause: error,
  });
}
