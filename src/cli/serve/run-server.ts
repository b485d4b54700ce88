import { constants } from 'node:os';
import { ConfigError } from '../../base/errors.ts';
import type { UriAddress } from '../../protocols/nbd/uri.ts';
import type { SocketAddress } from '../../reactor/reactor.ts';
import type {
  DiskConfig,
  FuseListen,
  IscsiListen,
  ListenConfig,
  RecordConfig,
  ServerConfig,
  VhostUserBlkListen,
} from '../../server/config.ts';
import { startServer, type Server } from '../../server/server.ts';
import type { Output } from '../output.ts';
import { openControl } from './control-socket.ts';
import { looksFormatted } from './image-format.ts';
import { live } from './lifecycle.ts';
import { isNbd, reachesBeyondHost, type NbdChoice } from './listen.ts';
import { MODE_LINES } from './modes.ts';
import { closeOnExec, isListening, isSocket, signalOnParentDeath } from './native.ts';
import { openNotify } from './notify.ts';
import { writePidFile } from './pid-file.ts';
import { makePrivateSocket } from './private-socket.ts';
import { humanReport, jsonReport, namesOf, servedDisks, type ServedDisk } from './report.ts';
import { handleSignals } from './signals.ts';
import type { TlsChoice } from './tls.ts';

/** A place to listen, as far as it is known before anything is made. */
export type PlaceChoice = NbdChoice | VhostUserBlkListen | IscsiListen | FuseListen;

/** What `serve` was told. */
export interface ServeSettings {
  readonly disks: readonly DiskConfig[];
  readonly listen: readonly PlaceChoice[];
  /** Found while the settings were made. */
  readonly warnings?: readonly string[];
  readonly tls: TlsChoice;
  readonly maxConnections: number;
  readonly reactor: ServerConfig['reactor'];
  /** -f raw: the operator knows what the images are. */
  readonly formatNamed: boolean;
  readonly command?: string;
  readonly pidFile?: string;
  readonly control?: string;
  readonly record?: RecordConfig;
  readonly exitWithParent: boolean;
  readonly quiet: boolean;
  readonly json: boolean;
}

/** Starts the server, says how to reach it and lets it live. Resolves with the exit code. */
export async function runServer(settings: ServeSettings, output: Output): Promise<number> {
  const undo: (() => void)[] = [];
  const cleanUp = (): void => {
    for (const step of undo.splice(0)) step();
  };
  // Until clients can connect there is nothing to drain.
  const end = (code: number): void => {
    cleanUp();
    process.exit(code);
  };
  const unhandle = handleSignals({
    stop: (signal) => end(128 + constants.signals[signal]),
    stopNow: end,
    report: () => undefined,
  });
  try {
    const notify = openNotify(process.env, (why) => output.warn(why));
    if (settings.exitWithParent) watchParent();
    const config = serverConfig(settings, undo);
    warnBeforehand(settings, config, output);
    const server = await startServer(config, (level, line) => {
      if (level === 'warn') output.warn(line);
      else output.note(line);
    });
    const addresses = addressesOf(server);
    const served = servedDisks(
      settings.disks,
      addresses,
      settings.tls,
      listening(config.listen, server),
    );
    await openExtras(settings, server, undo);
    unhandle();
    return await live(
      server,
      {
        ...(settings.command === undefined ? {} : { command: settings.command }),
        uri: served[0]?.uris[0] ?? server.served[0]?.names[0] ?? '',
        address: addresses[0] ?? socketAddress(server),
        finalCounters: !settings.quiet,
        cleanUp,
        exit: (code) => process.exit(code),
        stderr: process.stderr,
        ready: () => {
          output.info(server.reactor);
          if (settings.record !== undefined) output.info(`recording: ${settings.record.path}`);
          report(settings, served, addresses, output);
        },
      },
      output,
      notify,
    );
  } finally {
    unhandle();
    cleanUp();
  }
}

function serverConfig(settings: ServeSettings, undo: (() => void)[]): ServerConfig {
  const listen = settings.listen.map((choice): ListenConfig => {
    if (!isNbd(choice)) return choice;
    return { protocol: 'nbd', address: choice === 'private' ? privateAddress(undo) : choice };
  });
  for (const where of listen) {
    if (where.protocol === 'fuse' || where.address.kind !== 'fd') continue;
    if (where.protocol === 'nbd') claimListener(where.address.fd);
    else claimConnected(where.address.fd);
  }
  const { disks, tls, maxConnections, reactor, record } = settings;
  return {
    disks,
    listen,
    tlsMode: tls.mode,
    maxConnections,
    reactor,
    ...(tls.settings === undefined ? {} : { tls: tls.settings }),
    ...(record === undefined ? {} : { record }),
  };
}

function privateAddress(undo: (() => void)[]): SocketAddress {
  const made = makePrivateSocket();
  undo.push(() => made.remove());
  return { kind: 'unix', path: made.path };
}

function claimListener(fd: number): void {
  if (!isListening(fd)) {
    throw new ConfigError(
      `LISTEN_FDS promises a listening socket at descriptor ${fd}, and it is none`,
      'see sd_listen_fds(3); in a socket unit, ListenStream= with Accept=no',
    );
  }
  closeOnExec(fd);
}

/** [vhost-user "Back-end program conventions"] --fd: the socket, connected by whoever started this program. */
function claimConnected(fd: number): void {
  const why = !isSocket(fd) ? 'no socket' : isListening(fd) ? 'a listening socket' : null;
  if (why !== null) {
    throw new ConfigError(
      `descriptor ${fd} is ${why}, and a socket connected to a front-end is needed`,
      'pass one end of a socketpair(2), or name the path of a socket',
    );
  }
  closeOnExec(fd);
}

const SIGTERM = 15;

function watchParent(): void {
  const parent = process.ppid;
  const errno = signalOnParentDeath(SIGTERM);
  if (errno !== 0) {
    throw new ConfigError(`--exit-with-parent cannot be had: errno ${errno}`, 'leave it out');
  }
  // It may have ended before the kernel was told.
  if (process.ppid !== parent) process.kill(process.pid, 'SIGTERM');
}

function warnBeforehand(settings: ServeSettings, config: ServerConfig, output: Output): void {
  for (const line of settings.warnings ?? []) output.warn(line);
  for (const { disk, cache, volatileCacheBytes } of config.disks) {
    if (volatileCacheBytes !== undefined) {
      output.warn(
        `${disk}: --volatile-cache: this disk loses unflushed data on purpose when told to`,
      );
    }
    if (cache === 'unsafe') output.warn(`${disk}: cache=unsafe: ${MODE_LINES.unsafe}`);
    const format = settings.formatNamed ? null : looksFormatted(disk);
    if (format !== null) {
      output.warn(
        `${disk} looks like a ${format} image and is served as raw bytes, header and all; -f ` +
          'raw says that this is meant',
      );
    }
  }
  for (const where of config.listen) {
    if (where.protocol === 'fuse') continue;
    const { address } = where;
    if (address.kind !== 'tcp' || !reachesBeyondHost(address)) continue;
    const open = `listening on ${address.host} without`;
    if (where.protocol === 'nbd' && config.tlsMode === 'off') {
      output.warn(`${open} TLS: whoever reaches it can read and write; see --tls`);
    } else if (where.protocol === 'iscsi' && where.target.chap === undefined) {
      output.warn(
        `${open} CHAP: whoever reaches it can read and write ${where.target.name}; see ?chap=FILE`,
      );
    }
  }
}

/** The places with the ports that the kernel chose, and with the files' whole paths. */
function listening(listen: readonly ListenConfig[], server: Server): ListenConfig[] {
  return listen.map((where, i) => {
    const address = server.served[i]?.address;
    if (where.protocol === 'fuse' && address?.kind === 'unix')
      return { ...where, path: address.path };
    return where.protocol === 'iscsi' && address?.kind === 'tcp' ? { ...where, address } : where;
  });
}

/** For programs that --run starts, when there is no place for NBD. */
function socketAddress(server: Server): UriAddress | null {
  const first = server.served.find(({ protocol }) => protocol !== 'fuse');
  return first === undefined || first.address.kind === 'fd' ? null : first.address;
}

/** Where the server listens for NBD now, as far as a URI can say it: a socket that was handed over is its giver's to name. */
function addressesOf(server: Server): UriAddress[] {
  return server.addresses.filter((address) => address.kind !== 'fd');
}

/** What others may rely on once it is there; without it there is no server either. */
async function openExtras(
  { control, pidFile }: ServeSettings,
  server: Server,
  undo: (() => void)[],
): Promise<void> {
  try {
    if (control !== undefined) undo.push(await openControl(control, server));
    if (pidFile !== undefined) undo.push(writePidFile(pidFile, process.pid));
  } catch (error) {
    await server.stop();
    throw error;
  }
}

function report(
  settings: ServeSettings,
  served: readonly ServedDisk[],
  addresses: readonly UriAddress[],
  output: Output,
): void {
  // With --run standard output is the command's.
  const print = (line: string): void => {
    if (settings.command === undefined) output.data(line);
    else output.note(line);
  };
  if (settings.json) {
    print(jsonReport(served, process.pid));
  } else if (settings.quiet) {
    for (const disk of served) for (const name of namesOf(disk)) print(name);
  } else {
    for (const line of humanReport(served, addresses, settings.tls.mode !== 'off')) print(line);
  }
}
