import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { PEERS_FOLDER, peersRoot } from '../test/e2e/support/peers.ts';
import { findTool } from '../test/e2e/support/requires.ts';

const SUITE = 'trixie';
const BACKPORTS = 'trixie-backports';
const PACKAGES = ['nbdkit', 'nbd-server', 'fio', 'libnbd-bin', 'ca-certificates'];
const FROM_BACKPORTS = ['qemu-utils', 'qemu-system-x86', 'qemu-block-extra'];
/** The files by which a folder is known to hold all of them; one that was made for fewer is completed. */
const LAST_ADDED = 'usr/lib/x86_64-linux-gnu/qemu/block-blkio.so';

/**
 * Makes .peers/trixie: the peers as Debian trixie has them, QEMU from trixie-backports, in a folder of their own and
 * touching nothing else. Needs root and debootstrap. The mirror is the one this machine's own apt uses. Does nothing
 * when they are there, or somewhere else by HOLDFAST_PEERS.
 */
export function makePeers(say: (line: string) => void): void {
  const root = peersRoot();
  if (root !== null) {
    if (root === PEERS_FOLDER && !existsSync(join(root, LAST_ADDED))) installBackports(root, say);
    return;
  }
  if (process.getuid?.() !== 0) {
    throw new Error('as root: npm run bench:peers (debootstrap needs root); or set HOLDFAST_PEERS');
  }
  if (findTool('debootstrap') === null) {
    throw new Error('debootstrap is missing: apt-get install debootstrap');
  }
  // Built beside its place and moved there whole, so that a half-made one is never used.
  const target = resolve(`${PEERS_FOLDER}.partial`);
  const mirror = debianMirror();
  say(`debootstrap ${SUITE} into ${PEERS_FOLDER}`);
  rmSync(target, { recursive: true, force: true });
  mkdirSync(dirname(target), { recursive: true });
  const include = `--include=${PACKAGES.join(',')}`;
  run(['debootstrap', '--variant=minbase', include, SUITE, target, mirror]);
  // No daemon starts in there: [invoke-rc.d(8)].
  writeFileSync(join(target, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  appendFileSync(join(target, 'etc/apt/sources.list'), `deb ${mirror} ${BACKPORTS} main\n`);
  installBackports(target, say);
  renameSync(target, resolve(PEERS_FOLDER));
}

function installBackports(root: string, say: (line: string) => void): void {
  say(`installing ${FROM_BACKPORTS.join(' ')} of ${BACKPORTS} there`);
  const options = ['-qq', '--yes', '--no-install-recommends', `--target-release=${BACKPORTS}`];
  run(['chroot', root, 'apt-get', '-qq', 'update']);
  run(['chroot', root, 'apt-get', 'install', ...options, ...FROM_BACKPORTS]);
  run(['chroot', root, 'apt-get', 'clean']);
}

/** Quiet unless it fails: then everything that the program said. */
function run(command: readonly string[]): void {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  const result = spawnSync(command[0] ?? '', command.slice(1), { encoding: 'utf8', env });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) {
    const said = `${result.stdout}${result.stderr}`.slice(-4000);
    throw new Error(`${command.join(' ')} failed with exit code ${result.status}\n${said}`);
  }
}

/** The first repository of Debian itself that apt knows; security and third parties have no trixie to bootstrap. */
function debianMirror(): string {
  const result = spawnSync(
    'apt-get',
    ['indextargets', '--format', '$(ORIGIN) $(LABEL) $(REPO_URI)', 'Created-By: Packages'],
    { encoding: 'utf8' },
  );
  const line = result.stdout.split('\n').find((text) => text.startsWith('Debian Debian '));
  const mirror = line?.slice('Debian Debian '.length).replace(/\/$/, '');
  if (mirror === undefined) {
    throw new Error('apt knows no Debian mirror: run apt-get update, or use a Debian host');
  }
  return mirror;
}
