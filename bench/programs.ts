import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** A program to measure or to measure with: how to start it, and which version it says it is. */
export interface Program {
  readonly name: string;
  readonly command: readonly string[];
  readonly version: string;
  /** 'system', or the folder of the foreign Debian it comes from. */
  readonly origin: string;
}

export const PEERS_FOLDER = '.peers/trixie';
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';

/** Where newer peers are: HOLDFAST_PEERS, else what `npm run bench:peers` made, else null. */
export function peersRoot(): string | null {
  const chosen = process.env['HOLDFAST_PEERS'];
  if (chosen !== undefined && chosen !== '') {
    if (!existsSync(join(chosen, 'usr/bin'))) {
      throw new Error(`HOLDFAST_PEERS=${chosen}: no Debian there (usr/bin is missing)`);
    }
    return chosen;
  }
  return existsSync(join(PEERS_FOLDER, 'usr/bin/nbdkit')) ? PEERS_FOLDER : null;
}

/**
 * Finds a program, the newer Debian's first. Its programs run here through that Debian's own dynamic linker and
 * libraries: no chroot, no mounts, no root, and files and sockets are where they are.
 */
export function findProgram(name: string, root: string | null = peersRoot()): Program | null {
  for (const folder of ['usr/bin', 'usr/sbin']) {
    const path = root === null ? '' : join(root, folder, name);
    if (root !== null && existsSync(path)) {
      const libraries = join(root, LIBRARIES);
      const command = [
        join(root, 'lib64/ld-linux-x86-64.so.2'),
        '--library-path',
        // librados, which fio is linked with, finds its own libraries by a RUNPATH that means the host here.
        `${libraries}:${join(libraries, 'ceph')}`,
        path,
      ];
      return { name, command, version: versionOf(command), origin: root };
    }
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
