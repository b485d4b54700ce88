import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { messageOf } from '../src/base/errors.ts';
import { findProgram, PEERS_FOLDER } from './programs.ts';

/**
 * Makes .peers/trixie: the peers as Debian trixie has them, QEMU from trixie-backports, in a folder of their own and
 * touching nothing else. Needs root and debootstrap. The mirror is the one this machine's own apt uses.
 */
const SUITE = 'trixie';
const BACKPORTS = 'trixie-backports';
const PACKAGES = ['nbdkit', 'nbd-server', 'fio', 'libnbd-bin', 'ca-certificates'];
const FROM_BACKPORTS = ['qemu-utils', 'qemu-system-x86', 'qemu-block-extra'];
const PROGRAMS = [
  'nbdkit',
  'nbd-server',
  'fio',
  'nbdinfo',
  'qemu-nbd',
  'qemu-storage-daemon',
  'qemu-system-x86_64',
];

function run(command: string, args: readonly string[]): void {
  process.stderr.write(`+ ${[command, ...args].join(' ')}\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  const result = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], env });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`${command} failed with exit code ${result.status}`);
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

function main(): void {
  if (existsSync(join(PEERS_FOLDER, 'usr/bin/nbdkit'))) {
    process.stderr.write(`${PEERS_FOLDER} is there already; remove it to make it anew\n`);
  } else {
    if (process.getuid?.() !== 0) throw new Error('debootstrap needs root: run this as root');
    if (findProgram('debootstrap', null) === null) {
      throw new Error('debootstrap is missing: apt-get install debootstrap');
    }
    bootstrap(debianMirror());
  }
  for (const name of PROGRAMS) {
    const program = findProgram(name, PEERS_FOLDER);
    if (program === null || program.origin === 'system') throw new Error(`${name} is not there`);
    process.stdout.write(`${name} ${program.version}\n`);
  }
}

/** Built beside its place and moved there whole, so that a half-made one is never used. */
function bootstrap(mirror: string): void {
  const target = resolve(`${PEERS_FOLDER}.partial`);
  rmSync(target, { recursive: true, force: true });
  mkdirSync(dirname(target), { recursive: true });
  run('debootstrap', [
    '--variant=minbase',
    `--include=${PACKAGES.join(',')}`,
    SUITE,
    target,
    mirror,
  ]);
  // No daemon starts in there: [invoke-rc.d(8)].
  writeFileSync(join(target, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  appendFileSync(join(target, 'etc/apt/sources.list'), `deb ${mirror} ${BACKPORTS} main\n`);
  run('chroot', [target, 'apt-get', 'update']);
  run('chroot', [
    target,
    'apt-get',
    'install',
    '--yes',
    '--no-install-recommends',
    `--target-release=${BACKPORTS}`,
    ...FROM_BACKPORTS,
  ]);
  run('chroot', [target, 'apt-get', 'clean']);
  renameSync(target, resolve(PEERS_FOLDER));
}

try {
  main();
} catch (error) {
  process.stderr.write(`bench:peers: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
