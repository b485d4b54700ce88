import type { DeviceInfo } from '../../block/device.ts';
import type { Disk } from '../../durability/disk.ts';
import type { NbdConnection } from './connection.ts';
import type { ExportInfo } from './handshake.ts';

/** A disk under a name. */
export class NbdExport implements ExportInfo {
  readonly name: string;
  readonly description: string;
  readonly disk: Disk;
  /** Those in the transmission phase. */
  readonly connections: Set<NbdConnection> = new Set();
  /**
   * True of every disk: all connections share one store and one flush domain, nothing is cached per connection
   * [NBD proto "Transmission flags", NBD_FLAG_CAN_MULTI_CONN].
   */
  readonly multiConn = true;

  constructor(name: string, description: string, disk: Disk) {
    this.name = name;
    this.description = description;
    this.disk = disk;
  }

  get info(): DeviceInfo {
    return this.disk.info;
  }

  /**
   * Ends the connections whose clients are gone though bytes of theirs still wait to be read: an old request must not
   * be carried out after a newer one of the client's next connection (P11).
   */
  fenceGone(): void {
    for (const connection of this.connections) connection.endIfGone();
  }
}

/** The exports of one server by name, in the order in which they were given. */
export type ExportTable = ReadonlyMap<string, NbdExport>;
