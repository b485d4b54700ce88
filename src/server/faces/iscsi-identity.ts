import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename } from 'node:path';
import { ConfigError } from '../../base/errors.ts';
import { reservationPathOf } from '../../protocols/scsi/reservation-file.ts';
import { stableDeviceId } from '../../stores/file/device-id.ts';
import { deviceNumber } from '../../stores/file/device-number.ts';
import { defaultStateDirectory, escapeId } from '../../stores/file/state-path.ts';
import type { DiskConfig, ListenConfig } from '../config.ts';

// Who a disk is to SCSI initiators: two paths with one identity are one disk to their multipath drivers, so that two disks
// must never share one, and one disk must keep its own.

/** How a disk names itself on every target that shows it. */
export interface DiskIdentity {
  /** Unit serial number. */
  readonly serial: string;
  /** NAA locally assigned [SPC-4 7.8.6.6.4]: 3h, and 60 bits of a hash. */
  readonly naa: Uint8Array;
  /** Where persistent reservations with APTPL are kept; null for a disk that does not outlive the server. */
  readonly reservationsPath: string | null;
}

const MEMORY_PREFIX = 'memory:';
const NAA_LOCALLY_ASSIGNED = 0x3;

/**
 * The identity of a disk: of this machine and the file's path, or the block device's lasting name. A serial number that was
 * given stands for both, so that the disk keeps its identity when it moves. A disk in memory is a new one on each start.
 */
export function identityOf({ disk }: DiskConfig, serial: string | undefined): DiskIdentity {
  const place = disk.startsWith(MEMORY_PREFIX) ? null : placeOf(disk);
  const source =
    serial === undefined
      ? (place?.source ?? `memory ${randomBytes(16).toString('hex')}`)
      : `serial ${serial}`;
  const hash = createHash('sha256').update(`holdfast ${source}`).digest();
  const naa = Uint8Array.from(hash.subarray(0, 8));
  naa[0] = (NAA_LOCALLY_ASSIGNED << 4) | ((naa[0] as number) & 0x0f);
  return {
    serial: serial ?? hash.subarray(8, 16).toString('hex'),
    naa,
    reservationsPath: place?.reservationsPath ?? null,
  };
}

/** The serial number that any target gives to a disk. Throws a ConfigError where two differ, or two disks share one. */
export function serialsOf(listen: readonly ListenConfig[]): ReadonlyMap<string, string> {
  const serials = new Map<string, string>();
  for (const where of listen) {
    if (where.protocol !== 'iscsi') continue;
    for (const { exportName, serial } of where.target.luns) {
      if (serial === undefined) continue;
      const before = serials.get(exportName);
      if (before !== undefined && before !== serial) {
        throw new ConfigError(
          `disk '${exportName}' is given the serial numbers '${before}' and '${serial}'`,
          'to initiators a disk is its serial number: give it one',
        );
      }
      serials.set(exportName, serial);
    }
  }
  const names = [...serials];
  const twice = names.find(([name, serial]) =>
    names.some((other) => other[0] !== name && other[1] === serial),
  );
  if (twice === undefined) return serials;
  throw new ConfigError(
    `two disks are given the serial number '${twice[1]}'`,
    'initiators would take them for one: give each its own',
  );
}

function placeOf(disk: string): { source: string; reservationsPath: string } {
  const path = realpathSync(disk);
  const stats = statSync(path);
  if (!stats.isBlockDevice()) {
    return { source: `${machineId()} file ${path}`, reservationsPath: reservationPathOf(path) };
  }
  const id = stableDeviceId(path, deviceNumber(stats.rdev));
  const kept = `${defaultStateDirectory(process.env)}/${escapeId(id)}`;
  return { source: `${machineId()} device ${id}`, reservationsPath: reservationPathOf(kept) };
}

/** [machine-id(5)] What sets this machine apart from others that have a disk at the same path. */
function machineId(): string {
  for (const path of ['/etc/machine-id', '/var/lib/dbus/machine-id']) {
    try {
      const id = readFileSync(path, 'utf8').trim();
      if (id !== '') return id;
    } catch {
      // A container without one.
    }
  }
  return hostname();
}

/**
 * How many blocks of one write are all old or all new after a loss of power, for WRITE ATOMIC: of a disk in memory, of which
 * nothing is left then, as many as the command can name. A file system promises it of none.
 */
export function atomicBlocksOf({ disk }: DiskConfig): number {
  return disk.startsWith(MEMORY_PREFIX) ? 0xffff : 0;
}

/** PRODUCT IDENTIFICATION has 16 characters: what it is, or the name that people gave. */
export function productOf({ disk, exportName }: DiskConfig): string {
  const name = exportName === '' && !disk.startsWith(MEMORY_PREFIX) ? basename(disk) : exportName;
  const plain = name.replaceAll(/[^ -~]/g, '_').slice(0, 16);
  return plain === '' ? 'Virtual disk' : plain;
}
