import { join } from 'node:path';
import { ConfigError } from '../../base/errors.ts';
import { read } from '../../block/await.ts';
import { mountDevice, type FuseMount } from '../../protocols/fuse/mount.ts';
import { sourceOfDevice } from '../../protocols/fuse/source.ts';
import { openReactor } from '../../reactor/open.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { makeLabFolder, removeLabFolder } from '../check/lab-folder.ts';
import type { CrashModel } from '../model/types.ts';
import { openStateDisks, type StateDisks } from '../state-device/state-device.ts';
import { EXT_SUPER_BYTES, extBlockBytes, ExtPlaces } from './ext.ts';

/** Says what places on the disks of a trace mean to the file system on them, as it is at the end of the trace. */
export interface Places {
  /** "journal", "file /a/b"; null: nobody knows. Never rejects. */
  describe(disk: number, offset: number): Promise<string | null>;
  close(): Promise<void>;
}

/** Opens what it can: places are a help to readers, and no file system, or no FUSE, is no error. */
export async function openPlaces(model: CrashModel): Promise<Places> {
  const disks = openStateDisks(model, false);
  disks.shown.show({ cut: model.cuts.length - 1, rule: { kind: 'all' } });
  const folder = makeLabFolder();
  const { reactor } = await openReactor('auto', {});
  const opened = new OpenPlaces(disks, folder, reactor);
  await opened.open();
  return opened;
}

class OpenPlaces implements Places {
  readonly #disks: StateDisks;
  readonly #folder: string;
  readonly #reactor: Reactor;
  readonly #mounts: FuseMount[] = [];
  readonly #found = new Map<number, ExtPlaces>();

  constructor(disks: StateDisks, folder: string, reactor: Reactor) {
    this.#disks = disks;
    this.#folder = folder;
    this.#reactor = reactor;
  }

  async open(): Promise<void> {
    for (const [number, device] of this.#disks.devices.entries()) {
      if (device.info.sizeBytes < EXT_SUPER_BYTES) continue;
      const blockBytes = extBlockBytes(await read(device, 0, EXT_SUPER_BYTES));
      if (blockBytes === null) continue;
      try {
        const mount = await mountDevice(this.#reactor, {
          path: join(this.#folder, String(number)),
          source: sourceOfDevice(device),
          name: `disk ${number}`,
          readOnly: true,
        });
        this.#mounts.push(mount);
        this.#found.set(number, new ExtPlaces(mount.path, blockBytes));
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
      }
    }
  }

  async describe(disk: number, offset: number): Promise<string | null> {
    // Without debugfs, or on a file system that it cannot read, places stay numbers.
    return (
      this.#found
        .get(disk)
        ?.describe(offset)
        .catch(() => null) ?? null
    );
  }

  async close(): Promise<void> {
    for (const mount of this.#mounts) await mount.unmount();
    await this.#disks.close();
    await this.#reactor.close();
    removeLabFolder(this.#folder);
  }
}
