import { letEventLoopRun } from '../../base/event-loop.ts';
import { ConfigError } from '../../base/errors.ts';
import type { Disk } from '../../durability/disk.ts';
import { IscsiConnection } from '../../protocols/iscsi/connection.ts';
import { formatIscsiUrl, portalText } from '../../protocols/iscsi/iscsi-name.ts';
import type { IscsiNode, IscsiTarget } from '../../protocols/iscsi/node.ts';
import { SessionTable } from '../../protocols/iscsi/session-table.ts';
import { LogicalUnit } from '../../protocols/scsi/logical-unit.ts';
import type { Nexus } from '../../protocols/scsi/nexus.ts';
import { PersistentReservations } from '../../protocols/scsi/persistent-reservations.ts';
import { reservationFile } from '../../protocols/scsi/reservation-file.ts';
import { ScsiTarget } from '../../protocols/scsi/target.ts';
import type { Listener, SocketAddress, Stream } from '../../reactor/reactor.ts';
import type { IscsiListen, IscsiLun, IscsiTargetConfig } from '../config.ts';
import { packageVersion } from '../version.ts';
import type { Face, FaceContext, OpenDisk, Place } from './face.ts';
import {
  atomicBlocksOf,
  type DiskIdentity,
  identityOf,
  productOf,
  serialsOf,
} from './iscsi-identity.ts';

const VENDOR = 'HOLDFAST';
/** What is in flight at the end gets as long as an NBD client's last answers. */
const STOP_MS = 5_000;
const WILDCARDS = ['0.0.0.0', '::', ''];

/** What all targets that show a disk have in common. */
interface SharedDisk {
  readonly open: OpenDisk;
  readonly identity: DiskIdentity;
  readonly reservations: PersistentReservations;
}

/** A socket that listens, and the targets that are reached there. */
interface Portal {
  /** "127.0.0.1:3260" with the port as it was asked for; null for one that the kernel chooses, which nobody shares. */
  readonly asked: string | null;
  readonly listener: Listener;
  readonly targets: Map<string, IscsiTarget>;
}

/** The SCSI target device of an iSCSI target. Whoever logs in finds no command of an initiator that is gone (P11). */
class FencingTarget extends ScsiTarget {
  readonly #fence: (disk: Disk) => void;

  constructor(name: string, relativePort: number, fence: (disk: Disk) => void) {
    super(name, relativePort);
    this.#fence = fence;
  }

  override openNexus(nexus: Nexus, ready: () => void): void {
    for (const { disk } of this.units.values()) this.#fence(disk);
    super.openNexus(nexus, ready);
  }
}

/**
 * What one initiator sees from its portal: the targets that are offered there and no others, for an operator may want one of
 * them on the loopback address alone.
 */
class PortalNode implements IscsiNode {
  readonly targets: ReadonlyMap<string, IscsiTarget>;
  readonly #portalsOf: (target: IscsiTarget) => readonly SocketAddress[];
  readonly #stream: Stream;

  constructor(
    targets: ReadonlyMap<string, IscsiTarget>,
    portalsOf: (target: IscsiTarget) => readonly SocketAddress[],
    stream: Stream,
  ) {
    this.targets = targets;
    this.#portalsOf = portalsOf;
    this.#stream = stream;
  }

  portals(known: string, target: IscsiTarget): readonly string[] {
    const found: string[] = [];
    const local = this.#stream.local?.() ?? known;
    for (const address of this.#portalsOf(target)) {
      if (address.kind !== 'tcp') continue;
      // Which addresses a wildcard stands for, the initiator knows: it has come by one of them.
      const text = WILDCARDS.includes(address.host)
        ? local
        : portalText(address.host, address.port);
      if (text !== '' && !found.includes(text)) found.push(text);
    }
    return found;
  }
}

/** Targets with disks as their logical units, at portals on TCP. */
export class IscsiFace implements Face {
  readonly #context: FaceContext;
  readonly #sessions = new SessionTable();
  readonly #serials: ReadonlyMap<string, string>;
  readonly #disks = new Map<string, SharedDisk>();
  /** By the path where they are kept: two exports of one file have the same. */
  readonly #reservations = new Map<string, PersistentReservations>();
  readonly #targets = new Map<string, IscsiTarget>();
  readonly #portals: Portal[] = [];
  readonly #connections = new Map<IscsiConnection, Stream>();
  #stopping = false;
  #allEnded: () => void = () => {};

  constructor(context: FaceContext) {
    this.#context = context;
    this.#serials = serialsOf(context.config.listen);
  }

  async listen(where: IscsiListen): Promise<Place> {
    const target = this.#target(where.target);
    const { listener, targets } = await this.#portal(where.address);
    targets.set(target.name, target);
    const { address } = listener;
    const { host, port } = address.kind === 'tcp' ? address : where.address;
    return {
      address,
      names: where.target.luns.map(({ lun }) =>
        formatIscsiUrl({ host, port, target: target.name, lun }),
      ),
    };
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    for (const { listener } of this.#portals) await listener.close();
    if (this.#connections.size > 0) {
      const ended = new Promise<void>((resolve) => {
        this.#allEnded = resolve;
      });
      for (const connection of this.#connections.keys()) connection.shutdown();
      await ended;
    }
    await this.#sessionsEnded();
  }

  fence(disk: Disk): void {
    for (const session of this.#sessions) {
      const units = session.target?.scsi.units.values() ?? [];
      if (![...units].some((unit) => unit.disk === disk)) continue;
      const stream = this.#connections.get(session.connection as IscsiConnection);
      if (stream?.peerGone() !== true) continue;
      session.connection.drop('the initiator is gone');
      session.end();
    }
  }

  cut(disk: Disk): void {
    for (const session of this.#sessions) {
      const units = session.target?.scsi.units.values() ?? [];
      if (![...units].some((unit) => unit.disk === disk)) continue;
      session.connection.drop("the disk's power was cut");
      session.end();
    }
  }

  /** Nothing of any session is with a disk any more; or it has taken too long. */
  async #sessionsEnded(): Promise<void> {
    const left = [...this.#sessions];
    if (left.length === 0) return;
    const { reactor, warn } = this.#context;
    await new Promise<void>((resolve) => {
      let open = left.length;
      const over = (): void => {
        limit.cancel();
        resolve();
        letEventLoopRun();
      };
      const limit = reactor.after(STOP_MS, () => {
        warn('iSCSI: commands are still in flight; the disks are closed without them');
        over();
      });
      for (const session of left) {
        session.end(() => {
          open -= 1;
          if (open === 0) over();
        });
      }
    });
  }

  /** The target of this name, made when its first portal is opened. */
  #target(config: IscsiTargetConfig): IscsiTarget {
    const before = this.#targets.get(config.name);
    if (before !== undefined) return before;
    const { fence } = this.#context;
    const scsi = new FencingTarget(config.name, this.#targets.size + 1, fence);
    for (const lun of config.luns) scsi.addUnit(this.#unit(config, lun));
    const target: IscsiTarget = {
      name: config.name,
      alias: config.alias,
      scsi,
      chap: config.chap ?? null,
      mutualChap: config.mutualChap ?? null,
      initiators: config.initiators === undefined ? null : new Set(config.initiators),
    };
    this.#targets.set(config.name, target);
    return target;
  }

  #unit(config: IscsiTargetConfig, { lun, exportName, removable, thin }: IscsiLun): LogicalUnit {
    const { open, identity, reservations } = this.#shared(config, exportName);
    const { disk } = open;
    const unit = new LogicalUnit({
      lun,
      disk,
      vendor: VENDOR,
      product: productOf(open.config),
      revision: packageVersion().split('.').slice(0, 2).join('.'),
      serial: identity.serial,
      naa: identity.naa,
      removable: removable === true,
      thin: thin ?? disk.info.discard,
      reservations,
      atomicBlocks: atomicBlocksOf(open.config),
      timers: this.#context.reactor,
      log: (line) => this.#context.warn(`${config.name}: ${line}`),
    });
    reservations.attach(unit);
    return unit;
  }

  #shared(config: IscsiTargetConfig, exportName: string): SharedDisk {
    const before = this.#disks.get(exportName);
    if (before !== undefined) return before;
    const open = this.#context.disks.get(exportName);
    if (open === undefined) {
      const names = [...this.#context.disks.keys()].map((name) => `'${name}'`);
      throw new ConfigError(
        `${config.name}: no disk is named '${exportName}'`,
        `the disks are ${names.join(', ')}`,
      );
    }
    const identity = identityOf(open.config, this.#serials.get(exportName));
    const reservations = this.#reservationsOf(open, identity.reservationsPath);
    const shared: SharedDisk = { open, identity, reservations };
    this.#disks.set(exportName, shared);
    return shared;
  }

  #reservationsOf({ config }: OpenDisk, path: string | null): PersistentReservations {
    const before = path === null ? undefined : this.#reservations.get(path);
    if (before !== undefined) return before;
    const made = new PersistentReservations({
      store: path === null ? null : reservationFile(path),
      log: (line) => this.#context.warn(`${config.disk}: ${line}`),
    });
    if (path !== null) this.#reservations.set(path, made);
    return made;
  }

  /** The portal at this address: targets may share one. */
  async #portal(address: IscsiListen['address']): Promise<Portal> {
    const asked = address.port === 0 ? null : portalText(address.host, address.port);
    const before = this.#portals.find((portal) => asked !== null && portal.asked === asked);
    if (before !== undefined) return before;
    const targets = new Map<string, IscsiTarget>();
    const listener = await this.#context.reactor.listen(address, (stream) => {
      this.#accept(targets, stream);
    });
    const portal = { asked, listener, targets };
    this.#portals.push(portal);
    return portal;
  }

  #addressesOf(target: IscsiTarget): SocketAddress[] {
    return this.#portals
      .filter(({ targets }) => targets.get(target.name) === target)
      .map(({ listener }) => listener.address);
  }

  #accept(targets: ReadonlyMap<string, IscsiTarget>, stream: Stream): void {
    const { log, config, reactor } = this.#context;
    if (this.#stopping || this.#connections.size >= config.maxConnections) {
      const why = this.#stopping ? 'the server is stopping' : 'too many connections';
      log(`${stream.peer}: refused: ${why}`);
      stream.close(() => {});
      return;
    }
    const connection = new IscsiConnection(
      {
        reactor,
        node: new PortalNode(targets, (target) => this.#addressesOf(target), stream),
        sessions: this.#sessions,
        log,
        ended: (which: IscsiConnection) => this.#ended(which),
      },
      stream,
    );
    this.#connections.set(connection, stream);
  }

  #ended(connection: IscsiConnection): void {
    this.#connections.delete(connection);
    if (this.#stopping && this.#connections.size === 0) {
      this.#allEnded();
      letEventLoopRun();
    }
  }
}
