import { existsSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { skipsFail } from './requires.ts';

/** The newest peers of Debian in a folder of their own; git ignores it, `makePeers` (scripts/peers.ts) makes it. */
export const PEERS_FOLDER = relative(
  process.cwd(),
  resolve(import.meta.dirname, '../../../.peers/trixie'),
);
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';

/** Where newer peers are: HOLDFAST_PEERS, else what `makePeers` made, else null. */
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
 * How to start a program of the newer Debian, or null when it has none of that name. It runs here through that
 * Debian's own dynamic linker and libraries: no chroot, no mounts, no root, and files and sockets are where they are.
 */
export function peerCommand(name: string, root: string): string[] | null {
  for (const folder of ['usr/bin', 'usr/sbin']) {
    const path = join(root, folder, name);
    if (!existsSync(path)) continue;
    const libraries = join(root, LIBRARIES);
    return [
      join(root, 'lib64/ld-linux-x86-64.so.2'),
      '--library-path',
      // librados, which fio is linked with, finds its own libraries by a RUNPATH that means the host here.
      `${libraries}:${join(libraries, 'ceph')}`,
      path,
    ];
  }
  return null;
}

/** What the newer Debian's QEMU needs to find its own block drivers (libblkio's among them) instead of the host's. */
export function peerEnvironment(root: string): { QEMU_MODULE_DIR: string } {
  return { QEMU_MODULE_DIR: join(root, LIBRARIES, 'qemu') };
}

/** A program that `requiresPeers` has promised. */
export function peerTool(name: string): { command: string[]; env: Record<string, string> } {
  const root = peersRoot();
  const command = root === null ? null : peerCommand(name, root);
  if (root === null || command === null) throw new Error(`${name}: ${missingPeers()}`);
  return { command, env: peerEnvironment(root) };
}

function missingPeers(): string {
  return 'the newest peers are missing: as root, npm run bench:peers, or set HOLDFAST_PEERS';
}

/** As `requires`, for a test that needs the newer Debian's programs. */
export function requiresPeers(): { skip: string | false } {
  if (peersRoot() !== null) return { skip: false };
  if (skipsFail()) throw new Error(`with CI set no test may be skipped; ${missingPeers()}`);
  process.stderr.write(`SKIPPED TEST: ${missingPeers()}\n`);
  return { skip: missingPeers() };
}
