import { readFileSync } from 'node:fs';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { removeFile, replaceFile } from '../../durability/replace-file.ts';
import type { KeptReservations, ReservationStore } from './persistent-reservations.ts';
import { idOf, isAllRegistrants, isPrType, type Registration } from './reservation-state.ts';

// Persistent reservations with APTPL, beside the disk.

/** Where the reservations of a disk image lie: beside it. A block device has no beside; its caller names a path. */
export function reservationPathOf(imagePath: string): string {
  return `${imagePath}.holdfast-pr`;
}

/** A store in one file, which is there only while there is something to keep. */
export function reservationFile(path: string): ReservationStore {
  return {
    load: () => load(path),
    save: (kept, done) => {
      try {
        if (kept === null) removeFile(path);
        else replaceFile(path, `${JSON.stringify(toRecord(kept))}\n`);
      } catch (error) {
        done(new Error(messageOf(error), { cause: error }));
        return;
      }
      done(null);
    },
  };
}

function load(path: string): KeptReservations | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new ConfigError(
      `cannot read the disk's reservations ${path}: ${messageOf(error)}`,
      'make it readable for the server; it says which hosts may write',
      { cause: error },
    );
  }
  const kept = parse(text);
  if (kept !== null) return kept;
  throw new ConfigError(
    `${path} does not hold persistent reservations as this version of Holdfast writes them`,
    'remove it only if you know that no cluster relies on the reservations of this disk',
  );
}

function toRecord({ registrations, reservation }: KeptReservations): object {
  return {
    version: 1,
    registrations: registrations.map(({ name, transportId, relativePort, key }) => ({
      initiator: name,
      transportId: Buffer.from(transportId).toString('hex'),
      relativePort,
      key: `0x${key.toString(16)}`,
    })),
    reservation,
  };
}

function parse(text: string): KeptReservations | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(value) || value['version'] !== 1 || !Array.isArray(value['registrations'])) {
    return null;
  }
  const registrations: Registration[] = [];
  for (const each of value['registrations']) {
    const registration = registrationFrom(each);
    if (registration === null) return null;
    registrations.push(registration);
  }
  const { reservation } = value;
  if (reservation === null) return { registrations, reservation };
  if (!isObject(reservation)) return null;
  const { type, holder } = reservation;
  if (typeof type !== 'number' || !isPrType(type)) return null;
  if (isAllRegistrants(type)) {
    return holder === null && registrations.length > 0
      ? { registrations, reservation: { type, holder } }
      : null;
  }
  if (typeof holder !== 'string') return null;
  const held = registrations.some((each) => idOf(each) === holder);
  return held ? { registrations, reservation: { type, holder } } : null;
}

function registrationFrom(value: unknown): Registration | null {
  if (!isObject(value)) return null;
  const { initiator, transportId, relativePort, key } = value;
  if (typeof initiator !== 'string' || typeof transportId !== 'string') return null;
  if (!/^(?:[0-9a-f]{2})+$/.test(transportId)) return null;
  if (relativePort !== null && typeof relativePort !== 'number') return null;
  if (typeof key !== 'string' || !/^0x[0-9a-f]{1,16}$/.test(key)) return null;
  return {
    name: initiator,
    transportId: Uint8Array.from(Buffer.from(transportId, 'hex')),
    relativePort,
    key: BigInt(key),
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
