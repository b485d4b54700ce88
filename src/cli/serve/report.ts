import { formatNbdUri, type UriAddress } from '../../protocols/nbd/uri.ts';
import type { DiskConfig, ListenConfig, VhostUserBlkListen } from '../../server/config.ts';
import { attachCommands, type AttachCommand } from './attach.ts';
import { attachVhostUserBlk } from './attach-vhost-user.ts';
import { modeLine } from './modes.ts';
import type { TlsChoice } from './tls.ts';
import { vhostUserBlkName } from './vhost-user.ts';

export interface ServedDisk {
  readonly config: DiskConfig;
  /** One for each place where the server listens for NBD. */
  readonly uris: readonly string[];
  /** Where it is a vhost-user-blk device. */
  readonly devices: readonly VhostUserBlkListen[];
}

/** The URIs of every disk at every address, and the places that are of one disk. */
export function servedDisks(
  disks: readonly DiskConfig[],
  addresses: readonly UriAddress[],
  tls: TlsChoice,
  listen: readonly ListenConfig[] = [],
): ServedDisk[] {
  const devices = listen.filter((where) => where.protocol === 'vhost-user-blk');
  return disks.map((config) => ({
    config,
    uris: addresses.map((address) =>
      formatNbdUri({ address, exportName: config.exportName, tls: uriTls(tls) }),
    ),
    devices: devices.filter(({ exportName }) => exportName === config.exportName),
  }));
}

function uriTls({ mode, settings }: TlsChoice): { type?: 'psk' } | null {
  if (mode === 'off') return null;
  return settings?.psk === undefined ? {} : { type: 'psk' };
}

/** What `serve` prints for people when clients can connect. */
export function humanReport(
  served: readonly ServedDisk[],
  addresses: readonly UriAddress[],
  tls: boolean,
): string[] {
  const lines: string[] = [];
  for (const { config, uris, devices } of served) {
    const names = devices.map(vhostUserBlkName);
    lines.push(diskLine(config), ...[...uris, ...names].map((name) => `  ${name}`));
    const [uri] = uris;
    const [endpoint] = addresses;
    if (uri !== undefined && endpoint !== undefined) {
      const { exportName, readOnly } = config;
      lines.push('', ...commandLines(attachCommands({ uri, endpoint, exportName, readOnly, tls })));
    }
    for (const device of devices) {
      const commands = attachVhostUserBlk(device);
      if (commands.length > 0) lines.push('', ...commandLines(commands));
    }
    lines.push('');
  }
  return lines;
}

function commandLines(commands: readonly AttachCommand[]): string[] {
  const width = Math.max(...commands.map(({ label }) => label.length), 9);
  return commands.map(({ label, command }) => `  ${label.padEnd(width)} ${command}`);
}

function diskLine(config: DiskConfig): string {
  const name = config.exportName === '' ? '' : ` as '${config.exportName}'`;
  const access = config.readOnly ? ', read-only' : '';
  return `${config.disk}${name}, cache=${config.cache}${access}: ${modeLine(config.disk, config.cache)}`;
}

/** The same for programs: one object. Keys are only ever added within format 1. */
export function jsonReport(served: readonly ServedDisk[], pid: number): string {
  return JSON.stringify({
    format: 1,
    pid,
    disks: served.map(({ config, uris, devices }) => ({
      disk: config.disk,
      export: config.exportName,
      cache: config.cache,
      readOnly: config.readOnly,
      ignoresFlush: config.cache === 'unsafe',
      uris,
      ...(devices.length === 0 ? {} : { vhostUserBlk: devices.map(deviceJson) }),
    })),
  });
}

function deviceJson({ address, connect }: VhostUserBlkListen): object {
  return address.kind === 'fd' ? { fd: address.fd } : { socket: address.path, connect };
}
