import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import { run, succeed } from './command.ts';
import { peersRoot } from './peers.ts';

/** Debian's own kernels, unpacked and not installed; git ignores the folders. */
const CACHE = resolve(import.meta.dirname, '../../../.cache');
const PACKAGE = 'linux-image-amd64';
/** Guests have no screen, no sound and no radio: two thirds of the modules. */
const LEFT_OUT = [
  'drivers/gpu',
  'drivers/media',
  'drivers/net/ethernet',
  'drivers/net/wireless',
  'drivers/iio',
  'drivers/infiniband',
  'sound',
];

/** This machine's Debian's kernel, or the newest: that of the peers' backports. */
export type KernelEdition = 'system' | 'newest';

export interface GuestKernel {
  readonly image: string;
  /** lib/modules/VERSION/kernel */
  readonly modules: string;
}

/** The kernel for guests, or null when it has not been fetched yet. */
export function findGuestKernel(edition: KernelEdition = 'system'): GuestKernel | null {
  const folder = folderOf(edition);
  if (!existsSync(join(folder, 'boot'))) return null;
  const image = readdirSync(join(folder, 'boot')).find((name) => name.startsWith('vmlinuz-'));
  if (image === undefined) return null;
  const modules = join(folder, 'lib/modules', image.slice('vmlinuz-'.length), 'kernel');
  return existsSync(modules) ? { image: join(folder, 'boot', image), modules } : null;
}

function folderOf(edition: KernelEdition): string {
  return join(CACHE, edition === 'system' ? 'guest-kernel' : 'guest-kernel-newest');
}

/**
 * Downloads the kernel's packages with apt and unpacks what guests need; installs nothing. Needs apt's package lists
 * (apt-get update) and, for the newest, the peers and root: their apt runs in a chroot.
 */
export async function fetchGuestKernel(edition: KernelEdition = 'system'): Promise<GuestKernel> {
  const there = findGuestKernel(edition);
  if (there !== null) return there;
  const folder = folderOf(edition);
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  await (edition === 'system' ? download([], partial) : downloadFromPeers(partial));
  for (const archive of readdirSync(partial).filter((name) => name.endsWith('.deb'))) {
    await unpack(archive, partial);
  }
  await arrange(partial);
  rmSync(folder, { recursive: true, force: true });
  renameSync(partial, folder);
  const kernel = findGuestKernel(edition);
  if (kernel === null) throw new Error(`the packages of ${PACKAGE} have no vmlinuz or no modules`);
  return kernel;
}

async function downloadFromPeers(folder: string): Promise<void> {
  const peers = peersRoot();
  if (peers === null) throw new Error('the newest kernel comes with the peers, which are missing');
  if (process.getuid?.() !== 0) throw new Error('chroot needs root: run npm test once as root');
  const root = resolve(peers);
  const inside = join(root, 'var/tmp/guest-kernel');
  rmSync(inside, { recursive: true, force: true });
  mkdirSync(inside, { recursive: true });
  try {
    // A package list may be older than the archive.
    await succeed(['chroot', root, 'apt-get', '-qq', 'update'], { timeoutMs: 120_000 });
    const enter = [
      'chroot',
      root,
      'sh',
      '-c',
      'cd "$0" && exec "$@"',
      `/${relative(root, inside)}`,
    ];
    await download(enter, folder);
    for (const name of readdirSync(inside)) {
      await succeed(['mv', join(inside, name), folder]);
    }
  } finally {
    rmSync(inside, { recursive: true, force: true });
  }
}

/** `prefix` starts apt's programs: here, or in a chroot and a folder there. */
async function download(prefix: readonly string[], folder: string): Promise<void> {
  const release = prefix.length === 0 ? [] : ['--target-release=trixie-backports'];
  const dependsOn = async (name: string, pattern: RegExp): Promise<string[]> => {
    const text = await succeed([...prefix, 'apt-cache', ...release, 'depends', name]);
    return [...text.matchAll(pattern)].map((match) => match[1] as string);
  };
  const [image] = await dependsOn(PACKAGE, /Depends: (linux-image-[0-9]\S*)/g);
  if (image === undefined) throw new Error(`apt does not know ${PACKAGE}: run apt-get update`);
  // Newer packages have image and modules apart.
  const parts = await dependsOn(image, /Depends: (linux-(?:binary|modules)-[0-9]\S*)/g);
  const command = [...prefix, 'apt-get', ...release, 'download', image, ...parts];
  await succeed(command, { cwd: folder, timeoutMs: 300_000 });
}

async function unpack(archive: string, folder: string): Promise<void> {
  const tar = LEFT_OUT.map((part) => `--exclude='*/kernel/${part}'`).join(' ');
  const script = `dpkg-deb --fsys-tarfile '${archive}' | tar -x ${tar} && rm '${archive}'`;
  const unpacked = await run(['sh', '-c', script], { cwd: folder, timeoutMs: 120_000 });
  if (unpacked.status !== 0) throw new Error(`cannot unpack ${archive}: ${unpacked.stderr}`);
}

/** Newer packages have everything below usr/lib and their modules compressed: brought to the older form. */
async function arrange(folder: string): Promise<void> {
  const modules = join(folder, 'usr/lib/modules');
  if (existsSync(modules)) {
    mkdirSync(join(folder, 'boot'), { recursive: true });
    mkdirSync(join(folder, 'lib'), { recursive: true });
    renameSync(modules, join(folder, 'lib/modules'));
    for (const version of readdirSync(join(folder, 'lib/modules'))) {
      const image = join(folder, 'lib/modules', version, 'vmlinuz');
      if (existsSync(image)) renameSync(image, join(folder, 'boot', `vmlinuz-${version}`));
    }
  }
  rmSync(join(folder, 'usr'), { recursive: true, force: true });
  const script = 'find lib -name "*.ko.xz" -print0 | xargs -0 -r busybox unxz';
  await succeed(['sh', '-c', script], { cwd: folder, timeoutMs: 120_000 });
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
