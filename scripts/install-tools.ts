import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { messageOf } from '../src/base/errors.ts';
import { fetchGuestKernel } from '../test/e2e/support/guest-kernel.ts';
import { findTool, PACKAGE_OF, skipsFail } from '../test/e2e/support/requires.ts';
import { makePeers } from './peers.ts';

/**
 * Installs what the tests need and this machine lacks; without root, names it. Returns what is still missing, one line
 * each.
 */
export async function installTools(say: (line: string) => void): Promise<string[]> {
  const missing = missingPackages();
  if (missing.length > 0) {
    if (process.getuid?.() !== 0 || findTool('apt-get') === null) {
      return [
        `missing programs; as root: apt-get install --no-install-recommends ${missing.join(' ')}`,
      ];
    }
    say(`installing ${missing.join(' ')}`);
    if (!haveLists()) apt(['update']);
    // Lists can be older than the archive: then they are fetched anew, once.
    if (!install(missing)) {
      apt(['update']);
      install(missing);
    }
    const left = missingPackages();
    if (left.length > 0) return [`apt-get could not install ${left.join(' ')}`];
  }
  try {
    if (process.getuid?.() === 0 && !haveLists()) apt(['update']);
    await fetchGuestKernel('system');
  } catch (error) {
    return [`no kernel for guests: ${messageOf(error)}`];
  }
  try {
    makePeers(say);
    await fetchGuestKernel('newest');
  } catch (error) {
    const line = `no peers, or no kernel of theirs: ${messageOf(error)}`;
    if (skipsFail()) return [line];
    say(`SKIPPED: tests with the newest QEMU and kernel: ${line}`);
  }
  return [];
}

function missingPackages(): string[] {
  const names = Object.keys(PACKAGE_OF).filter((name) => findTool(name) === null);
  return [...new Set(names.map((name) => PACKAGE_OF[name] as string))];
}

function haveLists(): boolean {
  try {
    return readdirSync('/var/lib/apt/lists').some((name) => name.includes('_Packages'));
  } catch {
    return false;
  }
}

function install(packages: readonly string[]): boolean {
  return apt(['install', '--yes', '--no-install-recommends', ...packages]);
}

function apt(args: readonly string[]): boolean {
  const result = spawnSync('apt-get', ['-qq', ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  return result.status === 0;
}
