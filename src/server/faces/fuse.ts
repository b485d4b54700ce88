import { ConfigError, messageOf } from '../../base/errors.ts';
import type { Disk } from '../../durability/disk.ts';
import { mountDevice, type FuseMount } from '../../protocols/fuse/mount.ts';
import { sourceOfDisk } from '../../protocols/fuse/source.ts';
import type { FuseListen } from '../config.ts';
import type { Face, FaceContext, OpenDisk, Place } from './face.ts';

/** One disk at each place, as a plain file. */
export class FuseFace implements Face {
  readonly #context: FaceContext;
  readonly #places = new Set<FusePlace>();

  constructor(context: FaceContext) {
    this.#context = context;
  }

  async listen(where: FuseListen): Promise<Place> {
    const place = new FusePlace(this.#context, where, this.#diskOf(where));
    const path = await place.mount();
    this.#places.add(place);
    return { address: { kind: 'unix', path }, names: [path] };
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#places].map((place) => place.stop()));
  }

  /** The client is this host's kernel: it is gone when the mount was ended by force. */
  fence(disk: Disk): void {
    for (const place of this.#places) if (place.disk === disk) place.endIfGone();
  }

  cut(disk: Disk): void {
    for (const place of this.#places) if (place.disk === disk) place.cut();
  }

  #diskOf({ path, exportName }: FuseListen): OpenDisk {
    const found = this.#context.disks.get(exportName);
    if (found !== undefined) return found;
    const names = [...this.#context.disks.keys()].map((name) => `'${name}'`);
    throw new ConfigError(
      `${path}: no disk is named '${exportName}'`,
      `the disks are ${names.join(', ')}`,
    );
  }
}

class FusePlace {
  readonly #context: FaceContext;
  readonly #where: FuseListen;
  readonly #open: OpenDisk;
  #mount: FuseMount | null = null;
  /** After a cut the file comes back. */
  #remounting: Promise<void> = Promise.resolve();
  #stopping = false;

  constructor(context: FaceContext, where: FuseListen, open: OpenDisk) {
    this.#context = context;
    this.#where = where;
    this.#open = open;
  }

  get disk(): Disk {
    return this.#open.disk;
  }

  async mount(): Promise<string> {
    const { reactor, warn, log, placeOver, fence } = this.#context;
    const { disk, config } = this.#open;
    const { path, readOnly = false, pageCache = false } = this.#where;
    // Everything that shows the disk shows that flushes are ignored (P8): here the mount table.
    const name = disk.info.ignoresFlush ? `${config.disk} (cache=unsafe)` : config.disk;
    const mount = await mountDevice(reactor, {
      path,
      name,
      readOnly,
      directIo: !pageCache,
      source: sourceOfDisk(disk, () => fence(disk)),
      warn,
      ended: () => {
        log(`${path}: unmounted`);
        placeOver();
      },
    });
    this.#mount = mount;
    return mount.path;
  }

  endIfGone(): void {
    this.#mount?.endIfGone();
  }

  cut(): void {
    const mount = this.#mount;
    if (mount === null || this.#stopping) return;
    this.#mount = null;
    this.#remounting = mount
      .cut()
      .then(async () => {
        if (!this.#stopping) await this.mount();
      })
      .catch((error: unknown) => {
        this.#context.warn(`${this.#where.path} is not there any more: ${messageOf(error)}`);
        this.#context.placeOver();
      });
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#remounting;
    await this.#mount?.unmount();
  }
}
