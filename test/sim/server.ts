import { Disk, type DiskOptions } from '../../src/durability/disk.ts';
import { DiskState, type PersistState } from '../../src/durability/disk-state.ts';
import { FlushDomain, type FlushDomainOptions } from '../../src/durability/flush-domain.ts';
import { NbdConnection } from '../../src/protocols/nbd/connection.ts';
import { NbdExport } from '../../src/protocols/nbd/export.ts';
import type { BlkFaults } from './blk-tags.ts';
import type { SimClock } from './clock.ts';
import { PoisoningPool, SimReactor } from './clock.ts';
import type { FuseWorld } from './fuse-scenario.ts';
import { type FuseFaults, FuseServer } from './fuse-server.ts';
import type { Media } from './media.ts';
import type { IscsiWorld } from './iscsi-scenario.ts';
import { IscsiServer, type ScsiFaults } from './iscsi-server.ts';
import { makePrng } from './media.ts';
import type { Oracle } from './oracle.ts';
import type { Scenario } from './scenario.ts';
import { type DiskWatcher, type Flusher, SimDisk } from './sim-disk.ts';
import type { SimStream } from './stream.ts';
import type { VmWorld } from './vm-scenario.ts';
import { VmServer } from './vm-server.ts';

type MakeFlusher = (options: FlushDomainOptions) => Flusher;

/** A mistake to put in: what it replaces of a server. Without any, all parts are the real ones. */
export interface Faults {
  readonly makeFlusher?: MakeFlusher;
  readonly makeExport?: (disk: Disk) => NbdExport;
  readonly makeDisk?: (options: DiskOptions) => Disk;
  /** The at-open sync of what an earlier process left is not done. */
  readonly noSyncAtOpen?: boolean;
  readonly noResumeGuard?: boolean;
  readonly forgetsPoison?: boolean;
  readonly toggleAnsweredEarly?: boolean;
  readonly hooks?: (hooks: DiskState['hooks']) => DiskState['hooks'];
  /** Of the virtio side. */
  readonly blk?: BlkFaults;
  readonly tuneVms?: (world: VmWorld) => VmWorld;
  /** Of the SCSI side. */
  readonly scsi?: ScsiFaults;
  readonly tuneIscsi?: (world: IscsiWorld) => IscsiWorld;
  /** Of the FUSE side. */
  readonly fuse?: FuseFaults;
  readonly tuneFuse?: (world: FuseWorld) => FuseWorld;
  /** Put in for the length of a run, where nothing can be replaced. Returns what undoes it. */
  readonly patch?: () => () => void;
  /** The oracle does not look at the drive, only at what clients and power cuts show. */
  readonly blind?: boolean;
  readonly tune?: (scenario: Scenario) => Scenario;
}

export interface ServerOptions {
  readonly clock: SimClock;
  readonly scenario: Scenario;
  readonly media: Media;
  readonly faults: Faults;
  readonly watcher: DiskWatcher;
  readonly statePath: string;
  readonly bootId: string;
  /** Counts processes: each gets a random stream of its own. */
  readonly generation: number;
  readonly persist: PersistState;
  readonly log: (line: string) => void;
  /** Present: virtual machines are served, too. */
  readonly vms?: { readonly world: VmWorld; readonly oracle: Oracle };
  /** Present: so are iSCSI initiators. */
  readonly iscsi?: { readonly world: IscsiWorld; readonly oracle: Oracle };
  /** Present: the disk is mounted, too. */
  readonly fuse?: {
    readonly oracle: Oracle;
    readonly later: (ms: number, callback: () => void) => void;
  };
}

const PAGE_BYTES = 272 * 1024;

/** One server process: real connections, sessions, disk and state over a simulated reactor and store. */
export class SimServer {
  readonly reactor: SimReactor;
  readonly store: SimDisk;
  readonly disk: Disk;
  readonly state: DiskState;
  /** Null when a faulty one takes its place. */
  readonly domain: FlushDomain | null;
  readonly connections = new Map<NbdConnection, SimStream>();
  stopping = false;
  /** Null: there are no virtual machines in this world. */
  readonly vms: VmServer | null;
  /** Null: there are no initiators. */
  readonly iscsi: IscsiServer | null;
  /** Null: nobody mounts. */
  readonly fuse: FuseServer | null;
  readonly #export: NbdExport;
  readonly #log: (line: string) => void;
  #allEnded: () => void = () => {};

  constructor(options: ServerOptions) {
    const { clock, scenario, media, faults, generation } = options;
    this.#log = options.log;
    this.reactor = new SimReactor(clock, new PoisoningPool(PAGE_BYTES, scenario.poolPages));
    this.state = DiskState.open({
      path: options.statePath,
      bootId: options.bootId,
      now: () => clock.nowMs(),
      log: options.log,
      persist: options.persist,
    });
    const prng = makePrng(scenario.seed, 100 + generation);
    this.store = new SimDisk(this.reactor, prng, media, scenario.disk, options.watcher);
    const { hooks } = this.state;
    const domainOptions: FlushDomainOptions = {
      target: this.store,
      sizeBytes: this.store.info.sizeBytes,
      policy: scenario.policy,
      ...(scenario.deferredSyncs
        ? { defer: (callback: () => void) => this.reactor.defer(callback) }
        : {}),
      ...(faults.hooks === undefined ? hooks : faults.hooks(hooks)),
    };
    this.domain = faults.makeFlusher === undefined ? new FlushDomain(domainOptions) : null;
    this.store.flusher = this.domain ?? (faults.makeFlusher as MakeFlusher)(domainOptions);
    const { poisoned } = this.state;
    if (poisoned !== null && faults.forgetsPoison !== true) {
      this.store.flusher.restorePoison(poisoned);
    }
    const makeDisk = faults.makeDisk ?? ((made: DiskOptions) => new Disk(made));
    this.disk = makeDisk({
      store: this.store,
      mode: scenario.mode,
      log: options.log,
      ...(this.domain === null ? {} : { domain: this.domain }),
      ...(faults.noResumeGuard === true ? {} : { resumeGuard: this.state }),
    });
    const makeExport = faults.makeExport ?? ((disk: Disk) => new NbdExport('', 'simulated', disk));
    this.#export = makeExport(this.disk);
    this.vms = options.vms === undefined ? null : new VmServer(this, options, options.vms);
    this.iscsi = options.iscsi === undefined ? null : new IscsiServer(this, options, options.iscsi);
    this.fuse = options.fuse === undefined ? null : new FuseServer(this, options, options.fuse);
  }

  /** As DataPlane does it for its faces. */
  fence(): void {
    this.#export.fenceGone();
    this.vms?.fence();
    this.iscsi?.fence();
    this.fuse?.fence();
  }

  accept(stream: SimStream): void {
    const context = {
      reactor: this.reactor,
      exports: new Map([['', this.#export]]),
      tlsMode: 'off' as const,
      log: this.#log,
      fence: () => this.fence(),
      ended: (connection: NbdConnection) => this.#ended(connection),
    };
    this.connections.set(new NbdConnection(context, stream), stream);
  }

  #ended(connection: NbdConnection): void {
    this.connections.delete(connection);
    if (this.stopping && this.connections.size === 0) this.#allEnded();
  }

  /** As DataPlane.stop does it. Resolves with whether everything was made stable. */
  async stop(): Promise<boolean> {
    this.stopping = true;
    if (this.connections.size > 0) {
      const ended = new Promise<void>((resolve) => {
        this.#allEnded = resolve;
      });
      for (const connection of this.connections.keys()) connection.shutdown();
      await ended;
    }
    await this.vms?.stop();
    await this.iscsi?.stop();
    await this.fuse?.stop();
    let stable = true;
    try {
      await this.disk.close();
    } catch {
      stable = false;
    }
    // What mounts had given up has ended now, and its memory comes back in the next turn.
    if (this.fuse?.gaveUp === true) {
      await new Promise<void>((resolve) => {
        this.reactor.after(1, resolve);
      });
    }
    if (this.domain !== null && this.domain.clean) {
      await new Promise<void>((resolve) => {
        this.state.markClean(() => resolve());
      });
    }
    return stable;
  }

  /** The process is gone between two instructions. */
  kill(): void {
    this.reactor.kill();
    this.vms?.kill();
    this.store.kill();
  }
}
