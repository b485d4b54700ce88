import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { VolatileDisk } from '../../../test/support/volatile-disk.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { MiB } from '../../base/units.ts';
import { conformance, type ConformanceTarget } from '../../block/conformance.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { Io, IoOwner } from '../../block/io.ts';
import { Disk } from '../../durability/disk.ts';
import type { CacheMode } from '../../durability/modes.ts';
import { openReactor } from '../../reactor/open.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import type { Sharing } from '../../reactor/sharing.ts';
import { openFileStore } from '../../stores/file/open.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { VirtioBlk } from '../virtio/blk-device.ts';
import { VIRTIO_F } from '../virtio/virtio.ts';
import { VhostUserBackend } from './backend.ts';
import { BLK_CLIENT_FEATURES, type BlkOptions } from './blk-client-link.ts';
import { connectVhostUserBlk } from './blk-client.ts';
import { FRONTEND_PROTOCOL_FEATURES } from './frontend.ts';
import { VHOST_USER_PROTOCOL_F } from './wire.ts';

// The device contract holds for what our own driver sees of a disk behind vhost-user: the same suite, through shared
// memory, rings of both kinds, eventfds, messages and back.

const SIZE_BYTES = 8 * MiB;
const QUEUES = 4;

const directory = mkdtempSync(join(tmpdir(), 'holdfast-vhost-user-'));
let reactor: Reactor;
let served = 0;

before(async () => {
  ({ reactor } = await openReactor('io_uring'));
});

after(async () => {
  await reactor.close();
  rmSync(directory, { recursive: true });
});

/**
 * A VolatileDisk under the reactor's thread: it works in turns of Node's event loop, which has to be told. After a crash
 * what was in flight comes to an end of which nobody believes anything.
 */
class CrashingStore implements BlockDevice, IoOwner {
  readonly #disk: VolatileDisk;
  readonly #inFlight = new Set<Io>();
  #crashed = false;

  constructor(disk: VolatileDisk) {
    this.#disk = disk;
  }

  get info(): DeviceInfo {
    return this.#disk.info;
  }

  submit(io: Io): void {
    if (this.#crashed) {
      io.complete(null);
      return;
    }
    this.#inFlight.add(io);
    io.push(this);
    this.#disk.submit(io);
    letEventLoopRun();
  }

  ioDone(io: Io): void {
    this.#inFlight.delete(io);
    io.complete(io.error);
  }

  async close(): Promise<void> {
    if (!this.#crashed) await this.#disk.close();
  }

  failNextSync(): void {
    this.#disk.failNextSync();
  }

  crash(): CrashingStore {
    const left = new CrashingStore(this.#disk.crash());
    this.#crashed = true;
    for (const io of this.#inFlight) io.complete(null);
    return left;
  }
}

const noLog = (): void => {};

/** A disk at a socket of its own, for any number of front-ends, one at a time. */
async function serve(
  store: BlockDevice,
  mode: CacheMode,
  offerFua: boolean,
): Promise<{ path: string; disk: Disk; stop(): Promise<void> }> {
  const sharing = reactor.sharing as Sharing;
  const disk = new Disk({ store, mode });
  served += 1;
  const path = join(directory, `${served}.sock`);
  const defer = (callback: () => void): void => reactor.defer(callback);
  const backends = new Set<VhostUserBackend>();
  let whenAllEnded: (() => void) | null = null;
  const listener = await sharing.listen(path, (socket) => {
    const device = new VirtioBlk(disk, {
      serial: 'x',
      queues: QUEUES,
      offerFua,
      log: noLog,
      defer,
    });
    const ended = (backend: VhostUserBackend): void => {
      backends.delete(backend);
      if (backends.size > 0) return;
      whenAllEnded?.();
      letEventLoopRun();
    };
    backends.add(new VhostUserBackend({ device, sharing, defer, log: noLog, ended }, socket));
  });
  const stop = async (): Promise<void> => {
    await listener.close();
    if (backends.size > 0) {
      await new Promise<void>((resolve) => {
        whenAllEnded = resolve;
        for (const backend of backends) backend.shutdown();
      });
    }
    await disk.close();
  };
  return { path, disk, stop };
}

interface Variant {
  readonly name: string;
  readonly store: 'memory' | 'file' | 'volatile';
  readonly mode?: CacheMode;
  readonly offerFua?: boolean;
  readonly options: BlkOptions;
}

async function openStore(variant: Variant, readOnly: boolean): Promise<BlockDevice> {
  if (variant.store === 'memory') {
    return openMemoryStore({ name: 'memory', sizeBytes: SIZE_BYTES, blockBytes: 512, readOnly });
  }
  if (variant.store === 'volatile') {
    const disk = new VolatileDisk({ blocks: 512, blockBytes: 512, seed: served, readOnly });
    return new CrashingStore(disk);
  }
  const path = join(directory, `${served}.img`);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, SIZE_BYTES);
  closeSync(fd);
  const onSyncError = 'poison' as const;
  return openFileStore(reactor, { path, direct: false, readOnly, onSyncError, warn: () => {} });
}

async function open(variant: Variant, readOnly: boolean): Promise<ConformanceTarget> {
  const { mode = 'writeback', offerFua = false, options } = variant;
  const store = await openStore(variant, readOnly);
  const server = await serve(store, mode, offerFua);
  const device = await connectVhostUserBlk(reactor, server.path, options);
  if (!(store instanceof CrashingStore)) return { device, dispose: () => server.stop() };
  let after: { stop(): Promise<void> } | null = null;
  let failing = false;
  return {
    device,
    crash: async () => {
      failing = true;
      const left = await serve(store.crash(), mode, offerFua);
      after = left;
      return connectVhostUserBlk(reactor, left.path, options);
    },
    failNextSync: () => {
      failing = true;
      store.failNextSync();
    },
    dispose: async () => {
      await after?.stop();
      // After a crash the first device is still there.
      await device.close();
      // A disk that could not be flushed says so when it is closed.
      await server.stop().catch((error: unknown) => {
        if (!failing) throw error;
      });
    },
  };
}

const without = (mask: bigint, ...bits: number[]): bigint =>
  bits.reduce((left, bit) => left & ~(1n << BigInt(bit)), mask);

const PLAIN_RINGS = without(BLK_CLIENT_FEATURES, VIRTIO_F.INDIRECT_DESC, VIRTIO_F.EVENT_IDX);
const FEW_MESSAGES = without(
  FRONTEND_PROTOCOL_FEATURES,
  VHOST_USER_PROTOCOL_F.REPLY_ACK,
  VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F.STATUS,
  VHOST_USER_PROTOCOL_F.BACKEND_REQ,
);

const variants: Variant[] = [];
for (const packed of [false, true]) {
  const rings = packed ? 'packed rings' : 'split rings';
  const add = (variant: Variant): number =>
    variants.push({
      ...variant,
      name: `${variant.store}, ${variant.name}, ${rings}`,
      options: { ...variant.options, packed },
    });
  add({ name: 'one queue', store: 'memory', options: {} });
  add({
    name: 'four small queues without indirect tables and event indices',
    store: 'memory',
    options: { queues: 4, queueSize: 8, features: PLAIN_RINGS, protocolFeatures: FEW_MESSAGES },
  });
  add({ name: 'four queues, sleeping', store: 'file', options: { queues: 4, poll: false } });
  add({ name: 'write-through', store: 'file', mode: 'writethrough', options: {} });
  if (packed) add({ name: 'FUA in the request', store: 'volatile', offerFua: true, options: {} });
  else add({ name: 'FUA emulated', store: 'volatile', options: { queues: 2 } });
}

for (const variant of variants) {
  const fails = variant.store === 'volatile';
  conformance(`vhost-user-blk: ${variant.name}`, () => open(variant, false), {
    openReadOnly: () => open(variant, true),
    steps: 60,
    canCrash: fails,
    canFailSync: fails,
  });
}
