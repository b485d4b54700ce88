import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { Prng } from '../../../base/prng.ts';
import { findProgram } from '../../oracles/programs.ts';
import type { OracleOption, Settings } from '../../oracles/types.ts';

// What workloads share.

export const SEED: OracleOption = {
  name: 'seed',
  type: 'number',
  default: 1,
  description: 'Contents and order are drawn with this number.',
};

export function countOption(count: number, what: string): OracleOption {
  return { name: 'count', type: 'number', default: count, description: `How many ${what}.` };
}

export function yesNo(name: string, yes: boolean, description: string): OracleOption {
  return { name, type: 'boolean', default: yes, description };
}

export function choice(
  name: string,
  choices: readonly string[],
  description: string,
): OracleOption {
  const [first = ''] = choices;
  return { name, type: 'text', choices, default: first, description };
}

/** A generator of its own for each purpose: what one part draws does not move the others. */
export function prngFor(settings: Settings, purpose: string): Prng {
  const hash = sha256(Buffer.from(`${settings['seed']}/${purpose}`));
  return new Prng(Number.parseInt(hash.slice(0, 12), 16));
}

/** The content that version `version` of `name` has: bytes that no two share. */
export function contentOf(settings: Settings, name: string, version: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  prngFor(settings, `${name}/${version}`).fill(bytes);
  return bytes;
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Makes what stands in a directory stable: its entries [fsync(2)]. */
export function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  fsyncSync(fd);
  closeSync(fd);
}

/** Makes all of the file system stable [sync(1)]. */
export function syncFileSystem(folder: string): void {
  const sync = findProgram('sync') ?? 'sync';
  const { status } = spawnSync(sync, ['--file-system', folder], { stdio: 'inherit' });
  if (status !== 0) throw new Error(`sync ${folder}: exit code ${status}`);
}

/** Writes a whole file, and makes its content stable if `sync` says so. */
export function writeWhole(path: string, content: Buffer, sync: boolean): void {
  const fd = openSync(path, 'w');
  writeSync(fd, content);
  if (sync) fsyncSync(fd);
  closeSync(fd);
}

export function numberOf(settings: Settings, name: string): number {
  return Number(settings[name]);
}

/** Nothing but Node. */
export const NEEDS_NOTHING = (): { programs: []; modules: [] } => ({ programs: [], modules: [] });
