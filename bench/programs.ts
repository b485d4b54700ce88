import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { peerCommand, peersRoot } from '../test/e2e/support/peers.ts';

export { peersRoot };

/** A program to measure or to measure with: how to start it, and which version it says it is. */
export interface Program {
  readonly name: string;
  readonly command: readonly string[];
  readonly version: string;
  /** 'system', or the folder of the foreign Debian it comes from. */
  readonly origin: string;
}

/** Finds a program, the newer Debian's first. */
export function findProgram(name: string, root: string | null = peersRoot()): Program | null {
  const command = root === null ? null : peerCommand(name, root);
  if (root !== null && command !== null) {
    return { name, command, version: versionOf(command), origin: root };
  }
  for (const folder of (process.env['PATH'] ?? '').split(':').concat('/usr/sbin', '/sbin')) {
    const path = join(folder, name);
    if (folder !== '' && existsSync(path)) {
      return { name, command: [path], version: versionOf([path]), origin: 'system' };
    }
  }
  return null;
}

function versionOf(command: readonly string[]): string {
  const run = spawnSync(command[0] ?? '', [...command.slice(1), '--version'], { encoding: 'utf8' });
  const text = `${run.stdout}${run.stderr}`;
  return /\d+\.\d+(?:\.\d+)?/.exec(text)?.[0] ?? 'unknown version';
}

/** The file system and device under a path, for the record: "ext4 on /dev/vda". */
export function fileSystemOf(path: string): string {
  const run = spawnSync('findmnt', ['-n', '-o', 'FSTYPE,SOURCE', '-T', path], { encoding: 'utf8' });
  const [type, source] = run.stdout.trim().split(/\s+/);
  return run.status === 0 ? `${type ?? '?'} on ${source ?? '?'}` : 'unknown file system';
}
