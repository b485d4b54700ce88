import { basename } from 'node:path';
import { messageOf, UsageError } from '../../base/errors.ts';
import { parseSize } from '../../base/units.ts';
import {
  DEFAULT_CACHE_MODE,
  type CacheMode,
  type SyncErrorPolicy,
} from '../../durability/modes.ts';
import { DEFAULT_CACHE_BYTES } from '../../layers/volatile-cache/limits.ts';
import type { DiskConfig } from '../../server/config.ts';
import type { OptionValues } from '../parse.ts';
import { listOption, switchOption, textOption } from './options.ts';

/** [NBD proto "Values"] strings are at most 4096 bytes. */
const MAX_NAME_BYTES = 4096;

/** The disks that `serve` was asked for, each with its export name. Throws UsageError. */
export function parseDisks(operands: readonly string[], options: OptionValues): DiskConfig[] {
  const split = operands.map(splitOperand);
  const names = exportNames(split, listOption(options, 'exportName'));
  const descriptions = listOption(options, 'description');
  if (descriptions.length > operands.length) {
    throw new UsageError(
      `--description is given ${descriptions.length} times for ${count(operands.length)}`,
    );
  }
  for (const text of descriptions) checkString('--description', text);
  return split.map(({ disk }, i) => ({
    disk: checkDisk(disk),
    exportName: names[i] ?? '',
    description: descriptions[i] ?? '',
    cache: cacheMode(options),
    readOnly: switchOption(options, 'readOnly'),
    onSyncError: (textOption(options, 'onSyncError') ?? 'poison') as SyncErrorPolicy,
    ...volatileCache(options),
  }));
}

function volatileCache(options: OptionValues): Pick<DiskConfig, 'volatileCacheBytes'> {
  const given = options['volatileCache'];
  if (given === undefined) return {};
  if (switchOption(options, 'readOnly')) {
    throw new UsageError('--volatile-cache and --read-only exclude each other: nothing is written');
  }
  if (typeof given !== 'string') return { volatileCacheBytes: DEFAULT_CACHE_BYTES };
  try {
    return { volatileCacheBytes: parseSize(given) };
  } catch (error) {
    // A DISK behind the option is taken for its size.
    const hint = 'write --volatile-cache after the DISKs, or with =SIZE';
    throw new UsageError(`--volatile-cache: ${messageOf(error)}; ${hint}`, { cause: error });
  }
}

/** The mode the command line names; its choices were checked while parsing. */
export function cacheMode(options: OptionValues): CacheMode {
  return (textOption(options, 'cache') ?? DEFAULT_CACHE_MODE) as CacheMode;
}

/** memory:SIZE with a size that parses, or any path; whether the path is a disk is for the store to say. */
export function checkDisk(disk: string): string {
  if (disk === '') throw new UsageError('the name of a DISK is empty');
  if (disk.startsWith('memory:')) parseSize(disk.slice('memory:'.length));
  return disk;
}

interface Operand {
  /** null: no NAME= was written. */
  readonly name: string | null;
  readonly disk: string;
}

function splitOperand(text: string): Operand {
  const match = /^([^/=]*)=(.*)$/s.exec(text);
  if (match === null) return { name: null, disk: text };
  return { name: match[1] ?? '', disk: match[2] ?? '' };
}

function exportNames(operands: readonly Operand[], given: readonly string[]): string[] {
  const unnamed = operands.filter((operand) => operand.name === null).length;
  if (given.length > 0 && given.length !== unnamed) {
    throw new UsageError(
      `--export-name is given ${given.length} times for ${count(unnamed)} without a NAME=`,
    );
  }
  const left = [...given];
  const names = operands.map((operand) => {
    if (operand.name !== null) return operand.name;
    const next = left.shift();
    if (next !== undefined) return next;
    return operands.length === 1 ? '' : basename(operand.disk);
  });
  for (const [i, name] of names.entries()) {
    checkString('an export name', name);
    if (names.indexOf(name) !== i) {
      throw new UsageError(`two disks have the export name '${name}'; name them with NAME=PATH`);
    }
  }
  return names;
}

function checkString(what: string, text: string): void {
  if (Buffer.byteLength(text) > MAX_NAME_BYTES) {
    throw new UsageError(`${what} is longer than the ${MAX_NAME_BYTES} bytes that NBD allows`);
  }
}

function count(disks: number): string {
  return disks === 1 ? '1 DISK' : `${disks} DISKs`;
}
