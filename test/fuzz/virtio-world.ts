import type { Prng } from '../../src/base/prng.ts';
import { Disk } from '../../src/durability/disk.ts';
import { FakeSharing } from '../../src/protocols/vhost-user/testing.ts';
import {
  encodeU64,
  VHOST_USER,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from '../../src/protocols/vhost-user/wire.ts';
import { SECTOR_BYTES, VIRTIO_BLK_F } from '../../src/protocols/virtio/blk.ts';
import { VirtioBlk } from '../../src/protocols/virtio/blk-device.ts';
import { hasFeature, VIRTIO_F } from '../../src/protocols/virtio/virtio.ts';
import { fail } from './target.ts';
import { Arena, ARENA_BYTES } from './virtio-arena.ts';
import { BlkModel } from './virtio-blk-model.ts';
import { CheckedDevice } from './virtio-checked.ts';
import { Frontend, PROTOCOL_FEATURES } from './virtio-frontend.ts';
import { type Slot, slotsOf, type Target } from './virtio-requests.ts';
import { type HostileRing, makeRing } from './virtio-rings.ts';
import { FuzzStore } from './virtio-store.ts';

const SERIAL = 'fuzzed-0123456789';
const QUEUES = 2;
const BAD_SECTOR = 13;
export const NEEDS_RESET = 64;
const DRIVER_OK = 15;

export interface WorldOptions {
  /** Makes the kernel's side; another class may see or change what is mapped. */
  readonly sharing?: FakeSharing;
  /** Requests wait in the store. */
  readonly slow?: boolean;
  readonly malice?: number;
}

/** A guest, its front-end, the back-end, the block device and a disk: all of one run. */
export class World {
  readonly prng: Prng;
  readonly sharing: FakeSharing;
  readonly arena: Arena;
  readonly store: FuzzStore;
  readonly slow: boolean;
  readonly model: BlkModel;
  readonly features: bigint;
  readonly packed: boolean;
  readonly inflight: boolean;
  readonly ring: HostileRing;
  readonly slots: readonly Slot[];
  readonly target: Target;
  readonly disk: Disk;
  device: CheckedDevice;
  frontend: Frontend;
  readonly #index: number;
  readonly #kicked: boolean;

  constructor(prng: Prng, options: WorldOptions = {}) {
    this.prng = prng;
    this.sharing = options.sharing ?? new FakeSharing();
    this.slow = options.slow ?? prng.chance(0.4);
    this.arena = makeArena(this.sharing, prng);
    const blockBytes = prng.chance(0.15) ? 4096 : 512;
    const sizeBytes = 64 * 1024;
    // Beyond the end: there is none.
    const bad = {
      at: prng.chance(0.5) ? BAD_SECTOR * SECTOR_BYTES : sizeBytes,
      length: SECTOR_BYTES,
    };
    const readOnly = prng.chance(0.05);
    const maxTransferBytes = prng.pick([2 ** 20, 2 ** 20, 4096, blockBytes]);
    this.store = new FuzzStore({
      sizeBytes,
      blockBytes,
      readOnly,
      maxTransferBytes,
      slow: this.slow,
      bad,
    });
    this.model = new BlkModel(this.store.info, SERIAL, bad);
    if (!readOnly) {
      for (let at = 0; at < sizeBytes / 2; at += 512)
        prng.fill(this.model.disk.subarray(at, at + 4));
      this.store.write(this.model.disk);
    }
    this.disk = new Disk({
      store: this.store,
      mode: prng.pick(['writeback', 'writethrough', 'unsafe'] as const),
    });
    this.#index = prng.below(QUEUES);
    this.#kicked = prng.chance(0.9);
    this.inflight = prng.chance(0.4);
    this.device = this.#makeDevice();
    this.frontend = this.#connect();
    this.features = chooseFeatures(prng, this.#offered());
    this.model.features = this.features;
    this.packed = hasFeature(this.features, VIRTIO_F.RING_PACKED);
    const ringOptions = {
      arena: this.arena,
      size: this.packed ? prng.pick([2, 5, 8, 16, 33, 64]) : prng.pick([2, 4, 8, 16, 32, 64, 256]),
      indirect: hasFeature(this.features, VIRTIO_F.INDIRECT_DESC),
      eventIdx: hasFeature(this.features, VIRTIO_F.EVENT_IDX),
    };
    this.ring = makeRing(this.packed, ringOptions);
    this.slots = slotsOf(this.arena, sizeBytes / SECTOR_BYTES);
    this.target = {
      arena: this.arena,
      ring: this.ring,
      indirect: ringOptions.indirect,
      capacity: sizeBytes / SECTOR_BYTES,
      blockSectors: blockBytes / SECTOR_BYTES,
      malice: options.malice ?? prng.pick([0, 0.02, 0.1, 0.1]),
    };
  }

  /** Lets happen what can happen; requests in the store are done in some order. */
  settle(): void {
    this.sharing.run();
    while (this.store.waiting > 0) {
      this.store.release(this.prng);
      if (this.store.waiting === 0 || this.prng.chance(0.3)) this.sharing.run();
    }
  }

  /** A front-end's beginning, up to a running ring. */
  begin(): void {
    this.frontend.tell(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(PROTOCOL_FEATURES));
    this.frontend.tell(VHOST_USER.SET_OWNER);
    this.frontend.tell(VHOST_USER.SET_FEATURES, encodeU64(this.features));
    this.frontend.share(this.arena);
    this.beginRing();
  }

  /** The ring is as the device says, or all anew after a reset. */
  beginRing(): void {
    if (this.inflight) this.frontend.shareInflight(this.ring.size);
    this.frontend.startRing(this.arena, this.ring);
    this.frontend.tell(VHOST_USER.SET_STATUS, encodeU64(DRIVER_OK));
    this.sharing.rings(this.frontend.err);
  }

  /** The device is reset, and the driver begins anew; or, where that will do, the ring alone is stopped and set up anew. */
  reset(ringWillDo: boolean): void {
    const { frontend, prng } = this;
    if (ringWillDo && !this.inflight && prng.chance(0.3)) {
      frontend.base();
      this.ring.clear();
      frontend.startRing(this.arena, this.ring);
      this.sharing.rings(frontend.err);
      return;
    }
    if (prng.chance(0.5)) frontend.tell(VHOST_USER.SET_STATUS, encodeU64(0));
    else frontend.tell(VHOST_USER.RESET_DEVICE);
    if ((frontend.status() & NEEDS_RESET) !== 0) fail('it needs a reset after a reset');
    this.ring.clear();
    frontend.tell(VHOST_USER.SET_FEATURES, encodeU64(this.features));
    this.beginRing();
  }

  /** The front-end goes, and another one comes for the same guest, whose ring goes on. */
  reconnect(): void {
    this.leave();
    this.device = this.#makeDevice();
    this.frontend = this.#connect();
  }

  leave(): void {
    this.frontend.leave();
    if (!this.device.ended || this.device.queues.size > 0)
      fail('the device was not told of the end');
  }

  /** The end of the run: nothing is left anywhere. */
  end(): void {
    this.leave();
    this.sharing.closeDescriptor(this.arena.fd);
    this.settle();
    const { descriptors, mappings, watches, pollers } = this.sharing.leaks;
    if (descriptors + mappings + watches + pollers !== 0) {
      fail(`left behind: ${JSON.stringify(this.sharing.leaks)}`);
    }
  }

  #makeDevice(): CheckedDevice {
    const device = new VirtioBlk(this.disk, {
      serial: SERIAL,
      queues: QUEUES,
      offerFua: true,
      log: () => {},
      defer: (callback) => this.sharing.defer(callback),
    });
    return new CheckedDevice(device, () => this.arena);
  }

  #connect(): Frontend {
    return new Frontend(this.sharing, this.device, {
      index: this.#index,
      kicked: this.#kicked,
      settle: () => this.settle(),
    });
  }

  #offered(): bigint {
    const { payload } = this.frontend.ask(VHOST_USER.GET_FEATURES);
    return new DataView(payload.buffer, payload.byteOffset).getBigUint64(0, true);
  }
}

function makeArena(sharing: FakeSharing, prng: Prng): Arena {
  const fd = sharing.memory(ARENA_BYTES);
  const shared = sharing.map(fd, ARENA_BYTES, 0);
  const { buffer } = shared.region.bytes;
  shared.unmap();
  const arena = new Arena(fd, new Uint8Array(buffer), prng.chance(0.7));
  arena.paint(prng);
  return arena;
}

const OFTEN: readonly number[] = [
  VIRTIO_F.INDIRECT_DESC,
  VIRTIO_F.EVENT_IDX,
  VIRTIO_F.RING_PACKED,
  VIRTIO_BLK_F.FLUSH,
  VIRTIO_BLK_F.DISCARD,
  VIRTIO_BLK_F.WRITE_ZEROES,
];

/** Some of what is offered. */
export function chooseFeatures(prng: Prng, offered: bigint): bigint {
  let features =
    (1n << BigInt(VHOST_USER_F_PROTOCOL_FEATURES)) | (1n << BigInt(VIRTIO_F.VERSION_1));
  for (let bit = 0; bit < 64; bit += 1) {
    const likely = bit === VIRTIO_F.RING_PACKED ? 0.5 : OFTEN.includes(bit) ? 0.8 : 0.4;
    if (hasFeature(offered, bit) && prng.chance(likely)) features |= 1n << BigInt(bit);
  }
  return features;
}
