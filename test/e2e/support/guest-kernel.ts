import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { run, succeed } from './command.ts';

/** Debian's own kernel, unpacked and not installed; git ignores the folder. */
const CACHE = resolve(import.meta.dirname, '../../../.cache/guest-kernel');
const PACKAGE = 'linux-image-amd64';

export interface GuestKernel {
  readonly image: string;
  /** lib/modules/VERSION/kernel */
  readonly modules: string;
}

/** The kernel for guests, or null when it has not been fetched yet. */
export function findGuestKernel(folder = CACHE): GuestKernel | null {
  if (!existsSync(folder)) return null;
  const image = readdirSync(join(folder, 'boot')).find((name) => name.startsWith('vmlinuz-'));
  if (image === undefined) return null;
  const modules = join(folder, 'lib/modules', image.slice('vmlinuz-'.length), 'kernel');
  return existsSync(modules) ? { image: join(folder, 'boot', image), modules } : null;
}

/**
 * Downloads the kernel package with apt and unpacks what guests need. Installs nothing and needs no root, only apt's
 * package lists (apt-get update).
 */
export async function fetchGuestKernel(): Promise<GuestKernel> {
  const there = findGuestKernel();
  if (there !== null) return there;
  const partial = `${CACHE}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const depends = await succeed(['apt-cache', 'depends', PACKAGE]);
  const versioned = /Depends: (linux-image-[0-9]\S*)/.exec(depends)?.[1];
  if (versioned === undefined) throw new Error(`apt does not know ${PACKAGE}: run apt-get update`);
  await succeed(['apt-get', 'download', versioned], { cwd: partial, timeoutMs: 300_000 });
  const archive = readdirSync(partial).find((name) => name.endsWith('.deb'));
  if (archive === undefined) throw new Error(`apt-get download ${versioned} left no package`);
  // Guests have no screen, no sound and no radio: two thirds of the modules.
  const leftOut = ['drivers/gpu', 'drivers/media', 'drivers/net/wireless', 'drivers/iio', 'sound'];
  const tar = leftOut.map((part) => `--exclude='*/kernel/${part}'`).join(' ');
  const unpacked = await run(
    [
      'sh',
      '-c',
      `dpkg-deb --fsys-tarfile '${archive}' | tar -x ${tar} ./boot ./lib && rm '${archive}'`,
    ],
    { cwd: partial, timeoutMs: 120_000 },
  );
  if (unpacked.status !== 0) throw new Error(`cannot unpack ${archive}: ${unpacked.stderr}`);
  rmSync(CACHE, { recursive: true, force: true });
  renameSync(partial, CACHE);
  const kernel = findGuestKernel();
  if (kernel === null) throw new Error(`${versioned} has no vmlinuz or no modules`);
  return kernel;
}

/**
 * The files of these modules and of all that they depend on, in loading order. Modules built into the kernel have no
 * file and are left out; so an unknown name is not an error here, and the guest's use of it will tell.
 */
export function moduleFiles(kernel: GuestKernel, names: readonly string[]): string[] {
  const paths = new Map<string, string>();
  for (const entry of readdirSync(kernel.modules, { recursive: true, encoding: 'utf8' })) {
    if (entry.endsWith('.ko')) paths.set(moduleName(entry), join(kernel.modules, entry));
  }
  const ordered: string[] = [];
  const add = (name: string): void => {
    const path = paths.get(name.replaceAll('-', '_'));
    if (path === undefined || ordered.includes(path)) return;
    for (const dependency of dependsOf(path)) add(dependency);
    ordered.push(path);
  };
  for (const name of names) add(name);
  return ordered;
}

function moduleName(path: string): string {
  return basename(path, '.ko').replaceAll('-', '_');
}

/** The module's own "depends=" string in its .modinfo section: depmod has not run. */
function dependsOf(path: string): string[] {
  const bytes = readFileSync(path);
  const at = bytes.indexOf('\0depends=');
  if (at < 0) return [];
  const start = at + '\0depends='.length;
  const text = bytes.toString('latin1', start, bytes.indexOf(0, start));
  return text === '' ? [] : text.split(',');
}
