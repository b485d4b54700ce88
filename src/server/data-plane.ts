import { ConfigError, messageOf } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';
import type { BlockDevice } from '../block/device.ts';
import { Disk } from '../durability/disk.ts';
import type { FlushDomain } from '../durability/flush-domain.ts';
import { CACHE_MODES } from '../durability/modes.ts';
import type { CutReport, CutRequest, FlushFault } from '../layers/volatile-cache/requests.ts';
import { openReactor } from '../reactor/open.ts';
import type { Reactor, TlsSettings } from '../reactor/reactor.ts';
import type { FileStore } from '../stores/file/file-store.ts';
import { openFileStore } from '../stores/file/open.ts';
import { openMemoryStore } from '../stores/memory/memory-store.ts';
import type { Mark } from '../trace/trace.ts';
import type { DiskConfig, DiskCounters, ListenConfig, Served, ServerConfig } from './config.ts';
import type { Face, FaceContext, OpenDisk } from './faces/face.ts';
import { FACES } from './faces.ts';
import { LogLimit } from './log-limit.ts';
import type { LogLevel } from './messages.ts';
import { PowerSwitch } from './power-switch.ts';
import { Recording } from './recording.ts';
import { checkShared, openVolatileCache } from './volatile-disk.ts';

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
  /** Of the disks with a volatile cache. */
  readonly #switches = new Map<string, PowerSwitch>();
  /** Which files are open, by what two exports of one file share. */
  readonly #opened = new Map<FlushDomain, DiskConfig>();
  readonly #served: Served[] = [];
  readonly #context: FaceContext;
  #recording: Recording | null = null;
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
      plane.#recording = Recording.open(config, reactor, plane.#context.warn);
      for (const disk of config.disks) await plane.#openDisk(disk);
      for (const where of config.listen) await plane.#listen(where);
    } catch (error) {
      await plane.stop();
      plane.#recording?.remove();
      throw error;
    }
    return plane;
  }

  /** Where it is reached, in the order of the configuration. */
  get served(): readonly Served[] {
    return this.#served;
  }

  counters(): readonly DiskCounters[] {
    return [...this.#disks.values()].map(({ config, disk, volatileCache }) => ({
      disk: config.disk,
      export: config.exportName,
      cache: config.cache,
      ...disk.counters,
      ...(volatileCache === undefined ? {} : { unflushedBytes: volatileCache.unflushedBytes }),
    }));
  }

  /** The operator accepts what a failed sync lost, and lets a stopped or poisoned disk go on. */
  resume(exportName: string): void {
    const found = this.#found(exportName);
    found.disk.domain?.resume();
  }

  /** See Server.cutPower. */
  async cutPower(exportName: string, request: CutRequest): Promise<CutReport> {
    const { config } = this.#volatile(exportName);
    if (this.#recording !== null) {
      throw new ConfigError(
        `${config.disk} is recorded: what a power cut takes would still be in the trace`,
        'cut the power of a server that does not record, or explore the trace',
      );
    }
    return (this.#switches.get(config.exportName) as PowerSwitch).cut(request);
  }

  /** See Server.mark; `timeNs` is CLOCK_MONOTONIC. */
  mark(kind: Mark['kind'], text: string, timeNs: number): void {
    if (this.#recording !== null) this.#recording.mark(kind, text, timeNs);
    else throw new ConfigError('nothing is recorded', 'start the server with --record');
  }

  /** See Server.failFlush. */
  failFlush(exportName: string, fault: FlushFault): void {
    this.#volatile(exportName).volatileCache?.failFlush(fault);
  }

  /**
   * Takes no more connections, answers what was asked, makes everything stable and closes. Returns the last counters.
   */
  async stop(): Promise<readonly DiskCounters[]> {
    for (const power of this.#switches.values()) await power.stop();
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
    await this.#recording?.close();
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
    const open = config.disk.startsWith(MEMORY_PREFIX)
      ? this.#open(config, memoryStore(config), null)
      : await this.#openFile(config);
    this.#disks.set(config.exportName, open);
    const { volatileCache: cache } = open;
    if (cache === undefined) return;
    const { warn } = this.#context;
    const faces = { [Symbol.iterator]: () => this.#faces.values() };
    const power = new PowerSwitch({ open, cache, faces, reactor: this.#reactor, warn });
    this.#switches.set(config.exportName, power);
  }

  async #openFile(config: DiskConfig): Promise<OpenDisk> {
    const store = await openFileStore(this.#reactor, {
      path: config.disk,
      direct: CACHE_MODES[config.cache].direct,
      readOnly: config.readOnly,
      // With a volatile cache it is that one's domain that stops; the store's answers it.
      onSyncError: config.volatileCacheBytes === undefined ? config.onSyncError : 'poison',
      warn: this.#context.warn,
    });
    try {
      return this.#open(config, store, store);
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  #open(config: DiskConfig, store: BlockDevice, file: FileStore | null): OpenDisk {
    const { warn } = this.#context;
    if (file !== null) {
      const other = this.#opened.get(file.domain);
      if (other !== undefined) checkShared(config, other);
      this.#opened.set(file.domain, config);
    }
    const volatileCache = config.readOnly
      ? undefined
      : openVolatileCache(this.#reactor, config, store, file);
    const domain = volatileCache?.domain ?? file?.domain;
    const top = volatileCache ?? store;
    const disk = new Disk({
      store: this.#recording?.wrap(top, config, file) ?? top,
      mode: config.cache,
      ...(domain === undefined ? {} : { domain }),
      ...(file === null || file.state === null ? {} : { resumeGuard: file.state }),
      log: (line) => warn(`${config.disk}: ${line}`),
    });
    return { config, disk, ...(volatileCache === undefined ? {} : { volatileCache }) };
  }

  #found(exportName: string): OpenDisk {
    const found = this.#disks.get(exportName);
    if (found !== undefined) return found;
    throw new ConfigError(`no export is named '${exportName}'`, 'see the list of exports');
  }

  /** A disk that can lose what is unflushed. */
  #volatile(exportName: string): OpenDisk {
    const found = this.#found(exportName);
    if (found.volatileCache !== undefined) return found;
    throw new ConfigError(
      `${found.config.disk} has no volatile cache to lose`,
      'serve it with --volatile-cache, and not read-only',
    );
  }
}

function memoryStore(config: DiskConfig): BlockDevice {
  return openMemoryStore({
    name: config.disk,
    sizeBytes: parseSize(config.disk.slice(MEMORY_PREFIX.length)),
    readOnly: config.readOnly,
  });
}
