import { ConfigError, messageOf } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';
import type { BlockDevice } from '../block/device.ts';
import { Disk } from '../durability/disk.ts';
import { CACHE_MODES } from '../durability/modes.ts';
import { openReactor } from '../reactor/open.ts';
import type { Reactor, TlsSettings } from '../reactor/reactor.ts';
import { openFileStore } from '../stores/file/open.ts';
import { openMemoryStore } from '../stores/memory/memory-store.ts';
import type { DiskConfig, DiskCounters, ListenConfig, Served, ServerConfig } from './config.ts';
import type { Face, FaceContext, OpenDisk } from './faces/face.ts';
import { FACES } from './faces.ts';
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
  /** No place can get a client any more. */
  readonly over: () => void;
}

/** Everything between the sockets and the disks of one server, on one reactor. */
export class DataPlane {
  /** Which reactor it is, and why. */
  readonly reactorLine: string;
  readonly #reactor: Reactor;
  readonly #disks = new Map<string, OpenDisk>();
  readonly #faces = new Map<ListenConfig['protocol'], Face>();
  readonly #served: Served[] = [];
  readonly #context: FaceContext;
  #placesLeft: number;

  private constructor(
    config: ServerConfig,
    hooks: DataPlaneHooks,
    reactor: Reactor,
    reactorLine: string,
  ) {
    this.reactorLine = reactorLine;
    this.#reactor = reactor;
    this.#placesLeft = config.listen.length;
    const limit = new LogLimit(
      () => reactor.nowMs(),
      (line) => hooks.log('info', line),
    );
    this.#context = {
      config,
      reactor,
      disks: this.#disks,
      log: (line) => limit.log(line),
      warn: (line) => hooks.log('warn', line),
      fence: (disk) => {
        for (const face of this.#faces.values()) face.fence(disk);
      },
      placeOver: () => {
        this.#placesLeft -= 1;
        if (this.#placesLeft === 0) hooks.over();
      },
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
      for (const where of config.listen) await plane.#listen(where);
    } catch (error) {
      await plane.stop();
      throw error;
    }
    return plane;
  }

  /** Where it is reached, in the order of the configuration. */
  get served(): readonly Served[] {
    return this.#served;
  }

  counters(): readonly DiskCounters[] {
    return [...this.#disks.values()].map(({ config, disk }) => ({
      disk: config.disk,
      export: config.exportName,
      cache: config.cache,
      ...disk.counters,
    }));
  }

  /** The operator accepts what a failed sync lost, and lets a stopped or poisoned disk go on. */
  resume(exportName: string): void {
    const found = this.#disks.get(exportName);
    if (found === undefined) {
      throw new ConfigError(`no export is named '${exportName}'`, 'see the list of exports');
    }
    found.disk.domain?.resume();
  }

  /**
   * Takes no more connections, answers what was asked, makes everything stable and closes. Returns the last counters.
   */
  async stop(): Promise<readonly DiskCounters[]> {
    await Promise.all([...this.#faces.values()].map((face) => face.stop()));
    for (const { config, disk } of this.#disks.values()) {
      try {
        await disk.close();
      } catch (error) {
        this.#context.warn(
          `${config.disk}: not everything could be made stable: ${messageOf(error)}`,
        );
      }
    }
    const counters = this.counters();
    await this.#reactor.close();
    return counters;
  }

  async #listen(where: ListenConfig): Promise<void> {
    const { protocol } = where;
    let face = this.#faces.get(protocol);
    if (face === undefined) {
      face = await FACES[protocol](this.#context);
      this.#faces.set(protocol, face);
    }
    this.#served.push({ protocol, ...(await face.listen(where)) });
  }

  async #openDisk(config: DiskConfig): Promise<void> {
    if (this.#disks.has(config.exportName)) {
      throw new ConfigError(
        `${config.disk}: there is already an export named '${config.exportName}'`,
        'give each disk a name of its own with --export',
      );
    }
    const disk = config.disk.startsWith(MEMORY_PREFIX)
      ? new Disk({ store: memoryStore(config), mode: config.cache })
      : await this.#fileDisk(config);
    this.#disks.set(config.exportName, { config, disk });
  }

  async #fileDisk(config: DiskConfig): Promise<Disk> {
    const { warn: log } = this.#context;
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
}

function memoryStore(config: DiskConfig): BlockDevice {
  return openMemoryStore({
    name: config.disk,
    sizeBytes: parseSize(config.disk.slice(MEMORY_PREFIX.length)),
    readOnly: config.readOnly,
  });
}
