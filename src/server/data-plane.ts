import { ConfigError } from '../base/errors.ts';
import { letEventLoopRun } from '../base/event-loop.ts';
import { parseSize } from '../base/units.ts';
import type { BlockDevice } from '../block/device.ts';
import { Disk } from '../durability/disk.ts';
import { CACHE_MODES } from '../durability/modes.ts';
import { NbdConnection, type ConnectionContext } from '../protocols/nbd/connection.ts';
import { NbdExport } from '../protocols/nbd/export.ts';
import { openReactor } from '../reactor/open.ts';
import type { Listener, Reactor, SocketAddress, Stream, TlsSettings } from '../reactor/reactor.ts';
import { openFileStore } from '../stores/file/open.ts';
import { openMemoryStore } from '../stores/memory/memory-store.ts';
import type { DiskConfig, DiskCounters, ServerConfig } from './config.ts';
import { LogLimit } from './log-limit.ts';
import type { LogLevel } from './messages.ts';

const MEMORY_PREFIX = 'memory:';

/**
 * What one connection needs to get on whatever the others do: two pages for a payload that crosses from one into the
 * next, and one for its answers. Pages are made when they are first needed.
 */
const PAGES_PER_CONNECTION = 3;
/** So that a few connections can have deep queues: 25 MiB. */
const LEAST_PAGES = 96;

export interface DataPlaneHooks {
  readonly log: (level: LogLevel, line: string) => void;
  readonly bridgeTls: (fd: number, settings: TlsSettings) => Promise<number>;
}

interface ServedDisk {
  readonly config: DiskConfig;
  readonly served: NbdExport;
}

/** Everything between the sockets and the disks of one server, on one reactor. */
export class DataPlane {
  /** Which reactor it is, and why. */
  readonly reactorLine: string;
  readonly #config: ServerConfig;
  readonly #hooks: DataPlaneHooks;
  readonly #reactor: Reactor;
  readonly #disks: ServedDisk[] = [];
  readonly #exports = new Map<string, NbdExport>();
  readonly #listeners: Listener[] = [];
  readonly #connections = new Set<NbdConnection>();
  readonly #context: ConnectionContext;
  #stopping = false;
  #allEnded: () => void = () => {};

  private constructor(
    config: ServerConfig,
    hooks: DataPlaneHooks,
    reactor: Reactor,
    reactorLine: string,
  ) {
    this.reactorLine = reactorLine;
    this.#config = config;
    this.#hooks = hooks;
    this.#reactor = reactor;
    const limit = new LogLimit(
      () => reactor.nowMs(),
      (line) => hooks.log('info', line),
    );
    this.#context = {
      reactor,
      exports: this.#exports,
      tlsMode: config.tlsMode,
      ...(config.tls === undefined ? {} : { tls: config.tls }),
      log: (line) => limit.log(line),
      ended: (connection) => this.#ended(connection),
    };
  }

  /** Opens the disks, then the listeners: nobody connects to a server that is not whole. Undoes all when one fails. */
  static async start(config: ServerConfig, hooks: DataPlaneHooks): Promise<DataPlane> {
    const { reactor, line } = await openReactor(config.reactor, {
      bridgeTls: hooks.bridgeTls,
      pageLimit: Math.max(LEAST_PAGES, PAGES_PER_CONNECTION * config.maxConnections),
    });
    const plane = new DataPlane(config, hooks, reactor, line);
    try {
      for (const disk of config.disks) await plane.#openDisk(disk);
      for (const { address } of config.listen) {
        plane.#listeners.push(await reactor.listen(address, (stream) => plane.#accept(stream)));
      }
    } catch (error) {
      await plane.stop();
      throw error;
    }
    return plane;
  }

  get addresses(): readonly SocketAddress[] {
    return this.#listeners.map((listener) => listener.address);
  }

  counters(): readonly DiskCounters[] {
    return this.#disks.map(({ config, served }) => ({
      disk: config.disk,
      export: config.exportName,
      cache: config.cache,
      ...served.disk.counters,
    }));
  }

  /** The operator accepts what a failed sync lost, and lets a stopped or poisoned disk go on. */
  resume(exportName: string): void {
    const found = this.#exports.get(exportName);
    if (found === undefined) {
      throw new ConfigError(`no export is named '${exportName}'`, 'see the list of exports');
    }
    found.disk.domain?.resume();
  }

  /**
   * Takes no more connections, answers what was asked, makes everything stable and closes. Returns the last counters.
   */
  async stop(): Promise<readonly DiskCounters[]> {
    this.#stopping = true;
    for (const listener of this.#listeners.splice(0)) await listener.close();
    if (this.#connections.size > 0) {
      const ended = new Promise<void>((resolve) => {
        this.#allEnded = resolve;
      });
      for (const connection of this.#connections) connection.shutdown();
      await ended;
    }
    for (const { config, served } of this.#disks) {
      try {
        await served.disk.close();
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        this.#hooks.log('warn', `${config.disk}: not everything could be made stable: ${why}`);
      }
    }
    const counters = this.counters();
    await this.#reactor.close();
    return counters;
  }

  async #openDisk(config: DiskConfig): Promise<void> {
    if (this.#exports.has(config.exportName)) {
      throw new ConfigError(
        `${config.disk}: there is already an export named '${config.exportName}'`,
        'give each disk a name of its own with --export',
      );
    }
    const log = (line: string): void => this.#hooks.log('warn', line);
    const disk = config.disk.startsWith(MEMORY_PREFIX)
      ? new Disk({ store: memoryStore(config), mode: config.cache })
      : await this.#fileDisk(config, log);
    const served = new NbdExport(config.exportName, config.description, disk);
    this.#exports.set(config.exportName, served);
    this.#disks.push({ config, served });
  }

  async #fileDisk(config: DiskConfig, log: (line: string) => void): Promise<Disk> {
    const store = await openFileStore(this.#reactor, {
      path: config.disk,
      direct: CACHE_MODES[config.cache].direct,
      readOnly: config.readOnly,
      onSyncError: config.onSyncError,
      warn: log,
    });
    const { domain, state } = store;
    return new Disk({
      store,
      mode: config.cache,
      domain,
      ...(state === null ? {} : { resumeGuard: state }),
      log: (line) => log(`${config.disk}: ${line}`),
    });
  }

  #accept(stream: Stream): void {
    if (this.#stopping || this.#connections.size >= this.#config.maxConnections) {
      const why = this.#stopping ? 'the server is stopping' : 'too many connections';
      this.#context.log(`${stream.peer}: refused: ${why}`);
      stream.close(() => {});
      return;
    }
    this.#connections.add(new NbdConnection(this.#context, stream));
  }

  #ended(connection: NbdConnection): void {
    this.#connections.delete(connection);
    if (this.#stopping && this.#connections.size === 0) {
      this.#allEnded();
      letEventLoopRun();
    }
  }
}

function memoryStore(config: DiskConfig): BlockDevice {
  return openMemoryStore({
    name: config.disk,
    sizeBytes: parseSize(config.disk.slice(MEMORY_PREFIX.length)),
    readOnly: config.readOnly,
  });
}
