import { createHash } from 'node:crypto';
import { basename, extname } from 'node:path';
import { ConfigError } from '../../base/errors.ts';
import type { Disk } from '../../durability/disk.ts';
import { MAX_QUEUES } from '../../protocols/vhost-user/limits.ts';
import { VIRTIO_BLK_ID_BYTES } from '../../protocols/virtio/blk.ts';
import { VirtioBlk } from '../../protocols/virtio/blk-device.ts';
import type { Sharing } from '../../reactor/sharing.ts';
import { DEFAULT_QUEUES, type DiskConfig, type VhostUserBlkListen } from '../config.ts';
import type { Face, FaceContext, OpenDisk, Place } from './face.ts';
import { VhostUserPlace } from './vhost-user-place.ts';

/** One disk at each place, as a virtio-blk device. */
export class VhostUserBlkFace implements Face {
  readonly #context: FaceContext;
  readonly #sharing: Sharing;
  readonly #places = new Map<VhostUserPlace, Disk>();

  constructor(context: FaceContext) {
    const { sharing } = context.reactor;
    if (sharing === null) {
      throw new ConfigError(
        'vhost-user-blk needs io_uring, and this server runs without',
        'leave --reactor portable out, allow io_uring here (kernel 5.13, no seccomp profile that forbids it), or serve NBD',
      );
    }
    this.#context = context;
    this.#sharing = sharing;
  }

  async listen(where: VhostUserBlkListen): Promise<Place> {
    const { address } = where;
    const found = this.#diskOf(where);
    const { queues = DEFAULT_QUEUES, serial = serialOf(found.config) } = where;
    checkQueues(where, queues);
    checkSerial(where, serial);
    const { reactor, log } = this.#context;
    const place = new VhostUserPlace({
      name: nameOf(where),
      context: this.#context,
      sharing: this.#sharing,
      makeDevice: () =>
        new VirtioBlk(found.disk, {
          serial,
          queues,
          offerFua: where.offerFua === true,
          log,
          defer: (callback) => reactor.defer(callback),
          fence: () => this.#context.fence(found.disk),
        }),
    });
    this.#places.set(place, found.disk);
    if (address.kind === 'fd') place.adopt(address.fd);
    else if (where.connect === true) place.connect(address.path);
    else await place.listen(address.path);
    return { address, names: address.kind === 'fd' ? [] : [nameOf(where)] };
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#places.keys()].map((place) => place.stop()));
  }

  fence(disk: Disk): void {
    for (const [place, served] of this.#places) if (served === disk) place.endIfGone();
  }

  cut(disk: Disk): void {
    for (const [place, served] of this.#places) if (served === disk) place.cut();
  }

  #diskOf(where: VhostUserBlkListen): OpenDisk {
    const found = this.#context.disks.get(where.exportName);
    if (found !== undefined) return found;
    const names = [...this.#context.disks.keys()].map((name) => `'${name}'`);
    throw new ConfigError(
      `${nameOf(where)}: no disk is named '${where.exportName}'`,
      `the disks are ${names.join(', ')}`,
    );
  }
}

function nameOf({ address }: VhostUserBlkListen): string {
  return `vhost-user-blk:${address.kind === 'fd' ? `fd:${address.fd}` : address.path}`;
}

function checkQueues(where: VhostUserBlkListen, queues: number): void {
  if (Number.isInteger(queues) && queues >= 1 && queues <= MAX_QUEUES) return;
  throw new ConfigError(
    `${nameOf(where)}: a device cannot have ${queues} queues`,
    `give it 1 to ${MAX_QUEUES}`,
  );
}

function checkSerial(where: VhostUserBlkListen, serial: string): void {
  if (/^[ -~]*$/.test(serial) && serial.length <= VIRTIO_BLK_ID_BYTES) return;
  throw new ConfigError(
    `${nameOf(where)}: '${serial}' cannot be a serial number`,
    `it has at most ${VIRTIO_BLK_ID_BYTES} printable ASCII characters`,
  );
}

/** How much of a long name stays readable: the rest of the serial is a hyphen and eight digits of the name's hash. */
const READABLE_BYTES = VIRTIO_BLK_ID_BYTES - 9;

/**
 * A serial number for a disk that was given none: its export name, else its file's. Guests make names of it
 * (/dev/disk/by-id/virtio-SERIAL), so two disks whose names only begin alike get different ones.
 */
export function serialOf({ disk, exportName }: DiskConfig): string {
  const name = exportName === '' ? fileName(disk) : exportName;
  const plain = name.replaceAll(/[^\w.-]/g, '_');
  if (plain === name && name.length <= VIRTIO_BLK_ID_BYTES) return name;
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 8);
  return `${plain.slice(0, READABLE_BYTES)}-${hash}`;
}

function fileName(disk: string): string {
  return disk.startsWith('memory:') ? 'memory' : basename(disk, extname(disk));
}
