import { lookup } from 'node:dns/promises';
import { isIPv6 } from 'node:net';
import { Region } from '../../block/memory.ts';
import type { SocketAddress } from '../reactor.ts';
import { formatLocal } from '../socket-error.ts';
import * as sys from '../sys.ts';

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_SNDBUF = 7;
const SO_KEEPALIVE = 9;
const SO_SNDBUFFORCE = 32;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;

/**
 * What one send may put into the kernel ahead of a reader, in bytes. The default of 208 KiB makes a 128 KiB reply wait
 * for the reader half-way; this lets a few be on their way. Linux doubles it and caps it at net.core.wmem_max.
 */
const SEND_BUFFER_BYTES = 1024 * 1024;

/** [sockaddr(3type)] in memory, and its length. */
export interface SockAddr {
  readonly family: number;
  readonly region: Region;
  readonly length: number;
}

/** Resolves host names; Unix paths are checked for length. Throws with `code` as Node does. */
export async function sockAddr(address: SocketAddress): Promise<SockAddr> {
  const region = sys.mapMemory(4096);
  if (address.kind === 'unix') {
    const path = new TextEncoder().encode(address.path);
    // [unix(7)] sun_path holds 108 bytes with its closing zero.
    if (path.length > 107) throw socketError(36, `socket path too long: ${address.path}`);
    region.view.setUint16(0, AF_UNIX, true);
    region.bytes.set(path, 2);
    return { family: AF_UNIX, region, length: 2 + path.length + 1 };
  }
  if (address.kind === 'fd') throw new Error('a descriptor has no address to make');
  const { address: ip, family } = await lookup(address.host);
  region.view.setUint16(2, address.port, false);
  if (family === 6) {
    region.view.setUint16(0, AF_INET6, true);
    region.bytes.set(ipv6Bytes(ip), 8);
    return { family: AF_INET6, region, length: 28 };
  }
  region.view.setUint16(0, AF_INET, true);
  region.bytes.set(ip.split('.').map(Number), 4);
  return { family: AF_INET, region, length: 16 };
}

/** A stream socket of the address's family. */
export function openSocket(family: number): number {
  const fd = sys.socket(family, SOCK_STREAM | SOCK_CLOEXEC);
  if (fd < 0) throw socketError(-fd, 'no socket');
  return fd;
}

/** Options of every connection. `fd` may be of any family: what does not apply is refused and ignored. */
export function tuneConnection(fd: number, scratch: Region): void {
  if (sys.setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES, scratch) < 0) {
    sys.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES, scratch);
  }
  sys.setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, 1, scratch);
  sys.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1, scratch);
}

export function reuseAddress(fd: number, scratch: Region): void {
  sys.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1, scratch);
}

/** What the kernel bound: the port where 0 was asked. Null for a Unix socket. */
export function boundPort(fd: number): number | null {
  const name = describeName(fd, sys.getsockname);
  return name?.port ?? null;
}

/** "tcp 10.0.0.1:4711" or "unix": who is at the other end. */
export function peerName(fd: number): string {
  const name = describeName(fd, sys.getpeername);
  if (name === null) return 'unix';
  return `tcp ${isIPv6(name.host) ? `[${name.host}]` : name.host}:${name.port}`;
}

/** See Stream.local. */
export function localName(fd: number): string | null {
  const name = describeName(fd, sys.getsockname);
  return name === null ? null : formatLocal(name.host, name.port);
}

const nameRegion = sys.mapMemory(4096);

function describeName(
  fd: number,
  call: (fd: number, region: Region) => number,
): { host: string; port: number } | null {
  const region = new Region(nameRegion.address, nameRegion.bytes.buffer, 0, 256);
  if (call(fd, region) < 0) return null;
  const family = region.view.getUint16(0, true);
  const port = region.view.getUint16(2, false);
  if (family === AF_INET) return { host: [...region.bytes.subarray(4, 8)].join('.'), port };
  if (family !== AF_INET6) return null;
  const groups: string[] = [];
  for (let i = 8; i < 24; i += 2) groups.push(region.view.getUint16(i, false).toString(16));
  return { host: groups.join(':'), port };
}

function ipv6Words(part: string): number[] {
  return part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16));
}

function ipv6Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const [head = '', tail] = (text.split('%')[0] ?? '').split('::');
  const left = ipv6Words(head);
  const right = tail === undefined ? [] : ipv6Words(tail);
  const all = [...left, ...Array<number>(8 - left.length - right.length).fill(0), ...right];
  all.forEach((word, i) => {
    bytes[2 * i] = word >> 8;
    bytes[2 * i + 1] = word;
  });
  return bytes;
}

const NAMES: Readonly<Record<number, string>> = {
  2: 'ENOENT',
  13: 'EACCES',
  36: 'ENAMETOOLONG',
  98: 'EADDRINUSE',
  99: 'EADDRNOTAVAIL',
  111: 'ECONNREFUSED',
};

/** An error with `code` and `errno` as Node's own socket errors have them. */
export function socketError(errno: number, what: string): Error {
  const code = NAMES[errno] ?? `errno ${errno}`;
  return Object.assign(new Error(`${what}: ${code}`), { code, errno: -errno });
}
