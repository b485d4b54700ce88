import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { MiB } from '../../base/units.ts';
import { flush, read, write } from '../../block/await.ts';
import { BlockError } from '../../block/errors.ts';
import { Io, OP } from '../../block/io.ts';
import { Disk } from '../../durability/disk.ts';
import { openReactor } from '../../reactor/open.ts';
import type { Listener, Reactor } from '../../reactor/reactor.ts';
import type { DescriptorSocket, Sharing } from '../../reactor/sharing.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { VirtioBlk } from '../virtio/blk-device.ts';
import { VIRTIO_BLK_F } from '../virtio/blk.ts';
import { VIRTIO_F } from '../virtio/virtio.ts';
import { VhostUserBackend } from './backend.ts';
import { BLK_CLIENT_FEATURES, type BlkOptions } from './blk-client-link.ts';
import { connectVhostUserBlk, type VhostUserBlkDevice } from './blk-client.ts';
import { FRONTEND_PROTOCOL_FEATURES } from './frontend.ts';
import { VHOST_USER_PROTOCOL_F } from './wire.ts';

const QUEUES = 2;
const BLOCK = 512;

const directory = mkdtempSync(join(tmpdir(), 'holdfast-blk-client-'));
let reactor: Reactor;
let served = 0;

before(async () => {
  ({ reactor } = await openReactor('io_uring'));
});

after(async () => {
  await reactor.close();
  rmSync(directory, { recursive: true });
});

const noLog = (): void => {};

/** A disk in memory behind vhost-user, which can go and come back. */
class Served {
  readonly disk = new Disk({
    store: openMemoryStore({ name: 'memory', sizeBytes: 4 * MiB, blockBytes: BLOCK }),
    mode: 'writeback',
  });
  readonly path: string;
  readonly #backends = new Map<VhostUserBackend, DescriptorSocket>();
  #listener: Listener | null = null;
  #allEnded: (() => void) | null = null;

  constructor() {
    served += 1;
    this.path = join(directory, `${served}.sock`);
  }

  async listen(): Promise<this> {
    const sharing = reactor.sharing as Sharing;
    const defer = (callback: () => void): void => reactor.defer(callback);
    this.#listener = await sharing.listen(this.path, (socket) => {
      const options = { serial: 'x', queues: QUEUES, offerFua: false, log: noLog, defer };
      const device = new VirtioBlk(this.disk, options);
      const ended = (backend: VhostUserBackend): void => this.#ended(backend);
      const backend = new VhostUserBackend({ device, sharing, defer, log: noLog, ended }, socket);
      this.#backends.set(backend, socket);
    });
    return this;
  }

  /** The process ends: nobody listens, and every front-end loses its connection. */
  async stop(): Promise<void> {
    await this.#listener?.close();
    if (this.#backends.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#allEnded = resolve;
      for (const backend of this.#backends.keys()) backend.shutdown();
    });
  }

  async end(): Promise<void> {
    await this.stop();
    await this.disk.close();
  }

  #ended(backend: VhostUserBackend): void {
    this.#backends.delete(backend);
    if (this.#backends.size > 0) return;
    this.#allEnded?.();
    letEventLoopRun();
  }
}

/** Runs `body` with a disk and a driver of it. */
async function withDevice(
  options: BlkOptions,
  body: (device: VhostUserBlkDevice, server: Served) => Promise<void>,
): Promise<void> {
  const server = await new Served().listen();
  const device = await connectVhostUserBlk(reactor, server.path, options);
  try {
    await body(device, server);
  } finally {
    await device.close();
    await server.end();
  }
}

const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    reactor.after(ms, () => {
      resolve();
      letEventLoopRun();
    });
  });

const without = (mask: bigint, ...bits: number[]): bigint =>
  bits.reduce((left, bit) => left & ~(1n << BigInt(bit)), mask);

test('the write cache is switched by the driver, and info and device say the same', async () => {
  await withDevice({}, async (device, { disk }) => {
    assert.equal(device.config.writeback, 1);
    assert.equal(device.info.writeCache, true);
    await device.setWriteback(false);
    assert.equal(disk.info.writeCache, false);
    assert.equal(device.info.writeCache, false);
    assert.equal(await device.getWriteback(), false);
    await device.setWriteback(true);
    assert.equal(disk.info.writeCache, true);
    assert.equal(device.info.writeCache, true);
  });
});

test('a switch by the operator reaches the driver, as a change of the configuration', async () => {
  await withDevice({}, async (device, { disk }) => {
    const switched = new Promise<void>((resolve) => {
      disk.setWriteCache(false, () => {
        resolve();
        letEventLoopRun();
      });
    });
    await switched;
    for (let i = 0; device.info.writeCache && i < 200; i += 1) await pause(5);
    assert.equal(device.info.writeCache, false);
  });
});

test('without CONFIG_WCE there is no switch, without FLUSH no cache', async () => {
  const { CONFIG_WCE, FLUSH } = VIRTIO_BLK_F;
  await withDevice({ features: without(BLK_CLIENT_FEATURES, CONFIG_WCE) }, async (device) => {
    assert.equal(device.info.writeCache, true);
    assert.equal(await device.getWriteback(), null);
    await assert.rejects(device.setWriteback(false), /CONFIG_WCE is not negotiated/);
  });
  await withDevice(
    { features: without(BLK_CLIENT_FEATURES, CONFIG_WCE, FLUSH) },
    async (device) => {
      assert.equal(device.info.writeCache, false);
      assert.equal(device.info.fua, 'native');
      await flush(device);
    },
  );
});

test('data that the driver allocates for it arrives', async () => {
  await withDevice({ memoryBytes: 65536 }, async (device) => {
    const region = device.allocate(4096);
    region.bytes.fill(0x5a);
    const io = new Io();
    io.reset(OP.WRITE, 8192, 4096, 0);
    io.segments.push(region, 0, 4096);
    await new Promise<void>((resolve) => {
      const owner = {
        ioDone: () => {
          resolve();
          letEventLoopRun();
        },
      };
      io.push(owner);
      device.submitTo(io, 0);
    });
    assert.equal(io.error, null);
    assert.ok((await read(device, 8192, 4096)).every((byte) => byte === 0x5a));
    assert.throws(() => device.allocate(MiB), RangeError);
  });
});

test('without reconnecting, a lost connection fails what is asked and says why', async () => {
  await withDevice({}, async (device, server) => {
    await write(device, 0, new Uint8Array(BLOCK));
    await server.stop();
    for (let i = 0; device.lost === null && i < 200; i += 1) await pause(5);
    assert.match(device.lost ?? '', /closed the connection/);
    await assert.rejects(
      write(device, 0, new Uint8Array(BLOCK)),
      (error: unknown) => error instanceof BlockError && error.code === 'EIO',
    );
  });
});

for (const packed of [false, true]) {
  const rings = packed ? 'packed' : 'split';
  test(`with reconnecting, requests wait for the next back-end (${rings} rings)`, async () => {
    const options = { packed, queues: 2, reconnectMs: 10_000 };
    await withDevice(options, async (device, server) => {
      await device.setWriteback(false);
      for (let round = 1; round <= 3; round += 1) {
        const bytes = new Uint8Array(BLOCK).fill(round);
        const some = Array.from({ length: 40 }, (_, i) => write(device, i * BLOCK, bytes));
        await server.stop();
        const more = Array.from({ length: 40 }, (_, i) => write(device, (40 + i) * BLOCK, bytes));
        await pause(30);
        await server.listen();
        await Promise.all([...some, ...more]);
        assert.ok((await read(device, 0, 80 * BLOCK)).every((byte) => byte === round));
        assert.equal(device.reconnects, round);
        assert.equal(device.lost, null);
        // What the driver has switched stays as it was.
        assert.equal(await device.getWriteback(), false);
      }
    });
  });
}

test('a back-end that does not come back in time fails what waited for it', async () => {
  await withDevice({ reconnectMs: 100 }, async (device, server) => {
    await server.stop();
    await assert.rejects(write(device, 0, new Uint8Array(BLOCK)), /EIO/);
    assert.match(device.lost ?? '', /no back-end for 100 ms/);
  });
});

test('what cannot be had is said in one line', async () => {
  const nowhere = join(directory, 'nobody.sock');
  await assert.rejects(connectVhostUserBlk(reactor, nowhere), ConfigError);
  const portable = { ...reactor, sharing: null };
  await assert.rejects(connectVhostUserBlk(portable, nowhere), /cannot share memory/);
  const server = await new Served().listen();
  const refused: readonly (readonly [RegExp, BlkOptions])[] = [
    [/3 queues are wanted and the back-end has 2/, { queues: 3 }],
    [
      /has no packed rings/,
      { packed: true, features: without(BLK_CLIENT_FEATURES, VIRTIO_F.RING_PACKED) },
    ],
    [
      /does not track requests in flight/,
      {
        reconnectMs: 1000,
        protocolFeatures: without(FRONTEND_PROTOCOL_FEATURES, VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD),
      },
    ],
    [
      /does not give the configuration space/,
      { protocolFeatures: without(FRONTEND_PROTOCOL_FEATURES, VHOST_USER_PROTOCOL_F.CONFIG) },
    ],
  ];
  for (const [message, options] of refused) {
    await assert.rejects(
      connectVhostUserBlk(reactor, server.path, options),
      (error: unknown) => error instanceof ConfigError && message.test(error.message),
    );
  }
  await server.end();
});
