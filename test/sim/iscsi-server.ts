import type { BlockErrorCode } from '../../src/block/errors.ts';
import type { Io } from '../../src/block/io.ts';
import type { Disk } from '../../src/durability/disk.ts';
import type { Peer } from '../../src/durability/disk-session.ts';
import { IscsiConnection } from '../../src/protocols/iscsi/connection.ts';
import type { IscsiTarget, LoginResult } from '../../src/protocols/iscsi/node.ts';
import type { IscsiSession, SessionConnection } from '../../src/protocols/iscsi/session.ts';
import { SessionTable } from '../../src/protocols/iscsi/session-table.ts';
import type { Nexus } from '../../src/protocols/scsi/nexus.ts';
import { PersistentReservations } from '../../src/protocols/scsi/persistent-reservations.ts';
import { ScsiTarget } from '../../src/protocols/scsi/target.ts';
import type { SimReactor } from './clock.ts';
import type { InitiatorClient } from './initiator-client.ts';
import type { IscsiWorld } from './iscsi-scenario.ts';
import type { Oracle } from './oracle.ts';
import type { ScsiOp } from './scsi-op.ts';
import { SimUnit } from './scsi-unit.ts';
import type { ServerOptions, SimServer } from './server.ts';

/** A mistake to put into the SCSI side of a server. */
export interface ScsiFaults {
  /** In place of `session.submit`, for requests of commands. */
  readonly submit?: (io: Io, op: ScsiOp, submit: (io: Io) => void) => void;
  readonly unit?: (unit: SimUnit) => void;
  readonly makeUnit?: typeof SimUnit;
  /** The write cache is said to be off before its flush is done. */
  readonly switchEarly?: boolean;
  /** A session has ended before its commands have. */
  readonly undrained?: boolean;
}

const TARGET = 'iqn.2026-11.sim:disk';
/** As the iSCSI face does it. */
const STOP_MS = 5_000;

/** The SCSI target of a simulated server, under the oracle's eyes. */
class SimTarget extends ScsiTarget {
  readonly #server: IscsiServer;

  constructor(server: IscsiServer) {
    super(TARGET);
    this.#server = server;
  }

  override openNexus(nexus: Nexus, ready: () => void): void {
    const client = this.#server.opening(nexus);
    this.#server.fenceAll();
    super.openNexus(nexus, () => {
      this.#server.oracle.served(client.session);
      ready();
    });
  }

  override closeNexus(nexus: Nexus, done: () => void): void {
    if (!this.#server.faults.undrained) {
      super.closeNexus(nexus, done);
      return;
    }
    super.closeNexus(nexus, () => {});
    done();
  }
}

/** Knows whose session is opened. */
class SimTable extends SessionTable {
  readonly #server: IscsiServer;

  constructor(server: IscsiServer, collectedBytes: number) {
    super(64, collectedBytes);
    this.#server = server;
  }

  override open(
    login: LoginResult,
    tsih: number,
    connection: SessionConnection,
    peer: Peer,
  ): IscsiSession {
    const client = this.#server.connections.get(connection as IscsiConnection);
    this.#server.entering = client ?? null;
    client?.loggedIn();
    const session = super.open(login, tsih, connection, peer);
    if (session.nexus !== null) this.#server.opening(session.nexus);
    this.#server.entering = null;
    return session;
  }
}

/** The iSCSI face of a simulated server: real connections, sessions, task set and logical unit. */
export class IscsiServer {
  readonly oracle: Oracle;
  readonly faults: ScsiFaults;
  readonly reactor: SimReactor;
  readonly disk: Disk;
  readonly connections = new Map<IscsiConnection, InitiatorClient>();
  readonly unit: SimUnit;
  readonly sessions: SimTable;
  /** Switches of the write cache by anybody. */
  readonly switches = { count: 0, failed: false, off: 0 };
  /** The initiator whose session is being made. */
  entering: InitiatorClient | null = null;
  /** Stopped with commands in flight: a sync has failed, and no operator came. */
  gaveUp = false;
  readonly #server: SimServer;
  readonly #target: IscsiTarget;
  readonly #clients = new WeakMap<Nexus, InitiatorClient>();
  readonly #log: (line: string) => void;
  #stopping = false;
  #allEnded: () => void = () => {};

  constructor(
    server: SimServer,
    options: ServerOptions,
    { world, oracle }: { world: IscsiWorld; oracle: Oracle },
  ) {
    this.#server = server;
    this.oracle = oracle;
    this.faults = options.faults.scsi ?? {};
    this.reactor = server.reactor;
    this.disk = server.disk;
    this.#log = options.log;
    this.#watchSwitches();
    this.sessions = new SimTable(this, world.collectedBytes);
    const reservations = new PersistentReservations({ store: null, log: options.log });
    const Unit = this.faults.makeUnit ?? SimUnit;
    this.unit = new Unit(this, {
      lun: 0,
      disk: this.disk,
      vendor: 'HOLDFAST',
      product: 'simulated',
      revision: '0.1',
      serial: 'S1',
      naa: new Uint8Array([0x30, 1, 2, 3, 4, 5, 6, 7]),
      removable: false,
      thin: true,
      reservations,
      log: options.log,
    });
    reservations.attach(this.unit);
    this.faults.unit?.(this.unit);
    const scsi = new SimTarget(this);
    scsi.addUnit(this.unit);
    this.#target = {
      name: TARGET,
      alias: '',
      scsi,
      chap: null,
      mutualChap: null,
      initiators: null,
    };
    this.disk.onInfoChange(() => this.#infoChanged());
  }

  accept(client: InitiatorClient): void {
    const connection = new IscsiConnection(
      {
        reactor: this.reactor,
        node: { targets: new Map([[TARGET, this.#target]]), portals: () => [] },
        sessions: this.sessions,
        log: this.#log,
        ended: (which) => this.#ended(which),
      },
      client.stream,
    );
    this.connections.set(connection, client);
  }

  clientOf(nexus: Nexus): InitiatorClient {
    return this.#clients.get(nexus) as InitiatorClient;
  }

  /** Whose nexus it is: known from the first time on. */
  opening(nexus: Nexus): InitiatorClient {
    if (!this.#clients.has(nexus) && this.entering !== null) {
      this.#clients.set(nexus, this.entering);
    }
    return this.clientOf(nexus);
  }

  fenceAll(): void {
    this.#server.fence();
  }

  /** As IscsiFace.fence. */
  fence(): void {
    for (const session of this.sessions) {
      const client = this.connections.get(session.connection as IscsiConnection);
      if (client?.stream.peerGone() !== true) continue;
      session.connection.drop('the initiator is gone');
      session.end();
    }
  }

  /** As IscsiFace.stop. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.connections.size > 0) {
      const ended = new Promise<void>((resolve) => {
        this.#allEnded = resolve;
      });
      for (const connection of this.connections.keys()) connection.shutdown();
      await ended;
    }
    const left = [...this.sessions];
    if (left.length === 0) return;
    await new Promise<void>((resolve) => {
      let open = left.length;
      const limit = this.reactor.after(STOP_MS, () => {
        this.gaveUp = true;
        resolve();
      });
      for (const session of left) {
        session.end(() => {
          open -= 1;
          if (open > 0) return;
          limit.cancel();
          resolve();
        });
      }
    });
  }

  /** What is held though nobody is connected: '' for nothing. */
  get leaks(): string {
    if (this.gaveUp) return '';
    const { size } = this.connections;
    if (size > 0) return `${size} iSCSI connections`;
    if (this.sessions.size > 0) return `${this.sessions.size} iSCSI sessions`;
    const { usedBytes } = this.sessions.budget;
    return usedBytes > 0 ? `${usedBytes} bytes of collected data` : '';
  }

  #ended(connection: IscsiConnection): void {
    this.connections.delete(connection);
    if (this.#stopping && this.connections.size === 0) this.#allEnded();
  }

  /** The others hear of it. */
  #infoChanged(): void {
    for (const nexus of this.#target.scsi.nexuses) {
      if (nexus !== this.unit.switching) this.clientOf(nexus).owes('changed mode');
    }
  }

  /** The oracle is told of all switches, and P4 judged. */
  #watchSwitches(): void {
    const { disk, oracle, switches, faults } = this;
    const really = disk.setWriteCache.bind(disk);
    const set: typeof really = (enabled, done) => {
      if (faults.switchEarly !== true || enabled) {
        really(enabled, done);
        return;
      }
      really(false, () => {});
      done(null);
    };
    disk.setWriteCache = (enabled, done) => {
      switches.count += 1;
      oracle.tick += 1;
      const askedAt = oracle.tick;
      const wasOn = disk.info.writeCache;
      if (!disk.mode.ignoreFlush) oracle.writeCache = enabled;
      set(enabled, (error: BlockErrorCode | null) => {
        switches.failed = error !== null;
        if (!enabled && error === null) switches.off += 1;
        if (!enabled && error === null && wasOn) oracle.switchedOff(askedAt);
        done(error);
      });
    };
  }
}
