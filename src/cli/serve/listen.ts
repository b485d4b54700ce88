import { UsageError } from '../../base/errors.ts';
import { isNbdUri, parseNbdUri } from '../../protocols/nbd/uri.ts';
import { NBD_DEFAULT_PORT } from '../../protocols/nbd/wire.ts';
import type { SocketAddress } from '../../reactor/reactor.ts';
import type { OptionValues } from '../parse.ts';
import type { ActivatedSocket } from './activation.ts';
import { fuseFile, isFuse, parseFuse, type FuseChoice } from './fuse.ts';
import { isIscsi, parseIscsi, type IscsiChoice } from './iscsi.ts';
import { listOption, parsePort, textOption } from './options.ts';
import type { TlsMode } from './tls.ts';
import { isVhostUserBlk, parseVhostUserBlk, type VhostUserBlkChoice } from './vhost-user.ts';

/** Where to listen for NBD; 'private' stands for a Unix socket in a directory yet to be made. */
export type NbdChoice = SocketAddress | 'private';
export type ListenChoice = NbdChoice | VhostUserBlkChoice | IscsiChoice | FuseChoice;

/** [unix(7)] sun_path has 108 bytes, the last of them a NUL. */
export const MOST_SOCKET_PATH_BYTES = 107;

/**
 * Puts --listen, --fuse, --port, --bind, --socket and socket activation together. Nothing asked for means a private socket
 * with --run and this machine's loopback without. Throws UsageError.
 */
export function chooseListen(
  options: OptionValues,
  activated: readonly ActivatedSocket[],
  tls: TlsMode,
): ListenChoice[] {
  const asked = askedFor(options, tls);
  if (activated.length > 0) {
    if (asked.some(isNbd)) {
      throw new UsageError(
        'the service manager handed over sockets for NBD, so --listen nbd:, --port, --bind and --socket are refused',
      );
    }
    return [...activated.map(({ fd }) => ({ kind: 'fd', fd }) as const), ...asked];
  }
  if (asked.length > 0) return asked;
  if (textOption(options, 'run') !== undefined) return ['private'];
  return [{ kind: 'tcp', host: '127.0.0.1', port: NBD_DEFAULT_PORT }];
}

export function isNbd(choice: NbdChoice | { readonly protocol: string }): choice is NbdChoice {
  return choice === 'private' || !('protocol' in choice);
}

function askedFor(options: OptionValues, tls: TlsMode): ListenChoice[] {
  const asked: ListenChoice[] = listOption(options, 'listen').map((text) => {
    if (isVhostUserBlk(text)) return vhostUserBlk(text);
    if (isFuse(text)) return parseFuse(text);
    return isIscsi(text) ? parseIscsi(text) : listenUri(text, tls);
  });
  asked.push(...listOption(options, 'fuse').map(fuseFile));
  const port = textOption(options, 'port');
  const host = textOption(options, 'bind');
  if (port !== undefined || host !== undefined) {
    if (host === '') throw new UsageError('--bind needs an address, such as 127.0.0.1 or ::');
    asked.push({
      kind: 'tcp',
      host: host ?? '127.0.0.1',
      port: port === undefined ? NBD_DEFAULT_PORT : parsePort('--port', port),
    });
  }
  const socket = textOption(options, 'socket');
  if (socket === '-') asked.push('private');
  else if (socket !== undefined) asked.push({ kind: 'unix', path: socketPath(socket) });
  return asked;
}

function vhostUserBlk(text: string): VhostUserBlkChoice {
  const choice = parseVhostUserBlk(text);
  if (choice.address.kind === 'unix') socketPath(choice.address.path);
  return choice;
}

function listenUri(text: string, tls: TlsMode): SocketAddress {
  if (!isNbdUri(text)) {
    throw new UsageError(
      `--listen '${text}' is not nbd://HOST:PORT, nbd+unix:///?socket=PATH, vhost-user-blk:PATH, iscsi://HOST:PORT or fuse:FILE`,
    );
  }
  const uri = parseNbdUri(text);
  if (uri.exportName !== '') {
    throw new UsageError(
      `--listen '${text}' names an export; name the disk instead: NAME=PATH or --export-name`,
    );
  }
  if (uri.tls !== null && tls !== 'require') {
    throw new UsageError(`--listen '${text}' asks for TLS; add --tls require and its keys`);
  }
  if (uri.address.kind === 'unix') socketPath(uri.address.path);
  return uri.address;
}

export function socketPath(path: string): string {
  if (path === '') throw new UsageError('--socket needs a path');
  if (Buffer.byteLength(path) > MOST_SOCKET_PATH_BYTES) {
    throw new UsageError(
      `the socket path '${path}' is longer than the ${MOST_SOCKET_PATH_BYTES} bytes the kernel takes`,
    );
  }
  return path;
}

/** Whether anyone beyond this machine could connect. */
export function reachesBeyondHost(address: SocketAddress): boolean {
  if (address.kind !== 'tcp') return false;
  return !/^(127\.\d+\.\d+\.\d+|::1|localhost)$/.test(address.host);
}
