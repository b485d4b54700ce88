import { formatNbdUri, type UriAddress } from '../../protocols/nbd/uri.ts';
import type { DiskConfig } from '../../server/config.ts';
import { attachCommands } from './attach.ts';
import { modeLine } from './modes.ts';
import type { TlsChoice } from './tls.ts';

export interface ServedDisk {
  readonly config: DiskConfig;
  /** One for each place where the server listens. */
  readonly uris: readonly string[];
}

/** The URIs of every disk at every address. */
export function servedDisks(
  disks: readonly DiskConfig[],
  addresses: readonly UriAddress[],
  tls: TlsChoice,
): ServedDisk[] {
  return disks.map((config) => ({
    config,
    uris: addresses.map((address) =>
      formatNbdUri({ address, exportName: config.exportName, tls: uriTls(tls) }),
    ),
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
  for (const { config, uris } of served) {
    lines.push(diskLine(config), ...uris.map((uri) => `  ${uri}`));
    const [uri] = uris;
    const [endpoint] = addresses;
    if (uri === undefined || endpoint === undefined) continue;
    lines.push('');
    const { exportName, readOnly } = config;
    for (const { label, command } of attachCommands({ uri, endpoint, exportName, readOnly, tls })) {
      lines.push(`  ${label.padEnd(9)} ${command}`);
    }
    lines.push('');
  }
  return lines;
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
    disks: served.map(({ config, uris }) => ({
      disk: config.disk,
      export: config.exportName,
      cache: config.cache,
      readOnly: config.readOnly,
      ignoresFlush: config.cache === 'unsafe',
      uris,
    })),
  });
}
