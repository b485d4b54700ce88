import { formatSize } from '../../base/units.ts';
import { formatNbdUri, type UriAddress } from '../../protocols/nbd/uri.ts';
import type {
  DiskConfig,
  FuseListen,
  IscsiListen,
  IscsiLun,
  ListenConfig,
  VhostUserBlkListen,
} from '../../server/config.ts';
import { attachCommands, type AttachCommand } from './attach.ts';
import { attachFuse } from './attach-fuse.ts';
import { attachIscsiLun, attachIscsiTarget, iscsiUrl } from './attach-iscsi.ts';
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
  /** Where it is a logical unit. */
  readonly units: readonly ServedUnit[];
  /** Where it is a file. */
  readonly files: readonly FuseListen[];
}

/** A disk as a logical unit, at one portal. */
export interface ServedUnit {
  readonly portal: IscsiListen;
  readonly lun: IscsiLun;
}

/** The URIs of every disk at every address, and the places that are of one disk. */
export function servedDisks(
  disks: readonly DiskConfig[],
  addresses: readonly UriAddress[],
  tls: TlsChoice,
  listen: readonly ListenConfig[] = [],
): ServedDisk[] {
  const devices = listen.filter((where) => where.protocol === 'vhost-user-blk');
  const files = listen.filter((where) => where.protocol === 'fuse');
  const units = listen
    .filter((where) => where.protocol === 'iscsi')
    .flatMap((portal) => portal.target.luns.map((lun): ServedUnit => ({ portal, lun })));
  return disks.map((config) => ({
    config,
    uris: addresses.map((address) =>
      formatNbdUri({ address, exportName: config.exportName, tls: uriTls(tls) }),
    ),
    devices: devices.filter(({ exportName }) => exportName === config.exportName),
    units: units.filter(({ lun }) => lun.exportName === config.exportName),
    files: files.filter(({ exportName }) => exportName === config.exportName),
  }));
}

/** How a disk is reached, everywhere. */
export function namesOf({ uris, devices, units, files }: ServedDisk): string[] {
  return [
    ...uris,
    ...devices.map(vhostUserBlkName),
    ...units.map(({ portal, lun }) => iscsiUrl(portal, lun)),
    ...files.map(({ path }) => path),
  ];
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
  for (const disk of served) {
    const { config, uris, devices, units, files } = disk;
    lines.push(diskLine(config), ...namesOf(disk).map((name) => `  ${name}`));
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
    for (const file of files) {
      const readOnly = config.readOnly || file.readOnly === true;
      lines.push('', ...commandLines(attachFuse(file.path, readOnly)));
    }
    const [unit] = units;
    const commands = unit === undefined ? [] : unitCommands(unit, config);
    if (commands.length > 0) lines.push('', ...commandLines(commands));
    lines.push('');
  }
  for (const portal of firstPortals(served)) lines.push(...targetLines(portal), '');
  return lines;
}

function unitCommands({ portal, lun }: ServedUnit, config: DiskConfig): AttachCommand[] {
  return attachIscsiLun(portal, lun, config.readOnly);
}

/** One portal of each target. */
function firstPortals(served: readonly ServedDisk[]): IscsiListen[] {
  const found = new Map<string, IscsiListen>();
  for (const { portal } of served.flatMap(({ units }) => units)) {
    if (!found.has(portal.target.name)) found.set(portal.target.name, portal);
  }
  return [...found.values()];
}

function targetLines(portal: IscsiListen): string[] {
  const { name, luns } = portal.target;
  const units = luns.length === 1 ? 'LUN' : 'LUNs';
  const heading = `target ${name}, ${units} ${luns.map(({ lun }) => lun).join(', ')}`;
  return [heading, '', ...commandLines(attachIscsiTarget(portal))];
}

function commandLines(commands: readonly AttachCommand[]): string[] {
  const width = Math.max(...commands.map(({ label }) => label.length), 9);
  return commands.map(({ label, command }) => `  ${label.padEnd(width)} ${command}`);
}

function diskLine(config: DiskConfig): string {
  const name = config.exportName === '' ? '' : ` as '${config.exportName}'`;
  const access = config.readOnly ? ', read-only' : '';
  const mode = `${config.disk}${name}, cache=${config.cache}${access}: ${modeLine(config.disk, config.cache)}`;
  const { volatileCacheBytes: bytes } = config;
  return bytes === undefined ? mode : `${mode}; volatile cache of ${formatSize(bytes)}`;
}

/** The same for programs: one object. Keys are only ever added within format 1. */
export function jsonReport(served: readonly ServedDisk[], pid: number): string {
  return JSON.stringify({
    format: 1,
    pid,
    disks: served.map(({ config, uris, devices, units, files }) => ({
      disk: config.disk,
      export: config.exportName,
      cache: config.cache,
      readOnly: config.readOnly,
      ignoresFlush: config.cache === 'unsafe',
      ...(config.volatileCacheBytes === undefined
        ? {}
        : { volatileCacheBytes: config.volatileCacheBytes }),
      uris,
      ...(devices.length === 0 ? {} : { vhostUserBlk: devices.map(deviceJson) }),
      ...(units.length === 0 ? {} : { iscsi: units.map(unitJson) }),
      ...(files.length === 0 ? {} : { fuse: files.map(fileJson) }),
    })),
  });
}

function deviceJson({ address, connect }: VhostUserBlkListen): object {
  return address.kind === 'fd' ? { fd: address.fd } : { socket: address.path, connect };
}

function fileJson({ path, readOnly = false, pageCache = false }: FuseListen): object {
  return { file: path, readOnly, pageCache };
}

function unitJson({ portal, lun }: ServedUnit): object {
  const { address, target } = portal;
  return {
    url: iscsiUrl(portal, lun),
    target: target.name,
    lun: lun.lun,
    host: address.host,
    port: address.port,
    chap: target.chap !== undefined,
  };
}
