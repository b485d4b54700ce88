import { readFileSync } from 'node:fs';
import { ConfigError, messageOf } from '../base/errors.ts';
import { replaceFile } from './replace-file.ts';

/** A sync that failed, and no operator has acted since. */
export interface PoisonRecord {
  readonly error: string;
  /** ISO 8601, UTC. */
  readonly when: string;
}

/** The host crashed while something was unstable. */
export interface CrashRecord {
  /** When the next server noticed. ISO 8601, UTC. */
  readonly when: string;
  /** Peers that have been told. */
  readonly told: readonly string[];
}

/** What outlives the process, for one disk: the content of `<image>.holdfast`. */
export interface StateRecord {
  readonly version: 1;
  /** Of the boot in which this was written: /proc/sys/kernel/random/boot_id. */
  readonly bootId: string;
  /** Nothing was unstable when the last server stopped. */
  readonly clean: boolean;
  readonly poisoned: PoisonRecord | null;
  readonly hostCrash: CrashRecord | null;
}

/** Where the state of a disk image lies: beside it. A block device has no beside; its caller names a path. */
export function statePathOf(imagePath: string): string {
  return `${imagePath}.holdfast`;
}

/** This boot of this host. random(4): "a random string generated once, at boot". */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** The record at `path`, or null where there is none. Throws a ConfigError for anything else. */
export function readStateFile(path: string): StateRecord | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new ConfigError(
      `cannot read the disk's state file ${path}: ${messageOf(error)}`,
      'make it readable for the server; it says whether writes were lost',
      { cause: error },
    );
  }
  const record = parseRecord(text);
  if (record !== null) return record;
  throw new ConfigError(
    `${path} is not a state file of this version of Holdfast`,
    'it says whether writes were lost: remove it only if you know that the disk is whole',
  );
}

/** Replaces the record at `path`; a crash leaves the old one or the new. Throws what the system calls say. */
export function writeStateFile(path: string, record: StateRecord): void {
  replaceFile(path, `${JSON.stringify(record)}\n`);
}

/**
 * The operator, offline: the lost writes are repaired, or their loss is accepted. Returns the record that was
 * cleared, or null where there was none. The caller holds the disk's lock, so that no server runs on it.
 */
export function clearPoison(path: string): PoisonRecord | null {
  const record = readStateFile(path);
  if (record === null || record.poisoned === null) return null;
  writeStateFile(path, { ...record, poisoned: null });
  return record.poisoned;
}

function parseRecord(text: string): StateRecord | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(value) || value['version'] !== 1) return null;
  const { bootId, clean, poisoned, hostCrash } = value;
  if (typeof bootId !== 'string' || typeof clean !== 'boolean') return null;
  if (!isPoison(poisoned) || !isCrash(hostCrash)) return null;
  return { version: 1, bootId, clean, poisoned, hostCrash };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isPoison(value: unknown): value is PoisonRecord | null {
  if (value === null) return true;
  return isObject(value) && typeof value['error'] === 'string' && isDate(value['when']);
}

function isCrash(value: unknown): value is CrashRecord | null {
  if (value === null) return true;
  if (!isObject(value) || !isDate(value['when']) || !Array.isArray(value['told'])) return false;
  return value['told'].every((peer) => typeof peer === 'string');
}

function isDate(value: unknown): value is string {
  return typeof value === 'string' && !Number.isNaN(Date.parse(value));
}
