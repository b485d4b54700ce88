import { Worker } from 'node:worker_threads';
import { letEventLoopRun } from '../../src/base/event-loop.ts';
import { Prng } from '../../src/base/prng.ts';
import { flush, read, write } from '../../src/block/await.ts';
import { connectVhostUserBlk } from '../../src/protocols/vhost-user/blk-client.ts';
import {
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  VHOST_USER,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from '../../src/protocols/vhost-user/wire.ts';
import { VIRTIO_BLK_F } from '../../src/protocols/virtio/blk.ts';
import { VIRTIO_F } from '../../src/protocols/virtio/virtio.ts';
import { openReactor } from '../../src/reactor/open.ts';
import type { Reactor } from '../../src/reactor/reactor.ts';
import type { DescriptorSocket, SharedMemory, Sharing } from '../../src/reactor/sharing.ts';
import { memory, residentBytes } from './server-memory.ts';
import { fail } from './target.ts';
import type { RewriterData } from './vhost-user-rewriter.ts';
import { Arena, ARENA_BYTES } from './virtio-arena.ts';
import { PROTOCOL_FEATURES } from './virtio-frontend.ts';
import { offerChain, type Slot, slotsOf, type Target } from './virtio-requests.ts';
import { type HostileRing, makeRing } from './virtio-rings.ts';

/** Connections over one guest's memory, and bursts of one connection. */
const CONNECTIONS = 6;
const BURSTS = 120;
/** A guest that was served must not cost the server more than this beside its disk. */
const MOST_GROWTH_BYTES = 64 * 2 ** 20;
const PATTERN_BYTES = 16 * 1024;

const FEATURES: readonly number[] = [
  VIRTIO_F.VERSION_1,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VIRTIO_F.INDIRECT_DESC,
  VIRTIO_BLK_F.FLUSH,
  VIRTIO_BLK_F.WRITE_ZEROES,
];

export interface LiveOptions {
  readonly path: string;
  readonly seconds: number;
  readonly seed: number;
  readonly pid: number | null;
  readonly say: (line: string) => void;
}

/**
 * Attacks a running server as a guest with several processors: one thread offers chains and kicks, another rewrites the
 * same memory while the server reads it. In between a driver that keeps to the rules asks whether it is still served. What
 * is on the disk is overwritten.
 */
export async function attackVhostUser(options: LiveOptions): Promise<void> {
  const { path, seconds, seed, pid, say } = options;
  const { reactor } = await openReactor('io_uring');
  const { sharing } = reactor;
  if (sharing === null) fail('this kernel is older than Linux 5.13');
  const prng = new Prng(seed);
  const sizeBytes = await visit(reactor, path, prng);
  const before = residentBytes(pid);
  say(`a disk of ${sizeBytes} bytes; ${memory(pid)}`);
  const score = { guests: 0, connections: 0, chains: 0, changes: 0, broken: 0, interrupts: 0 };
  const end = reactor.nowMs() + seconds * 1000;
  while (reactor.nowMs() < end) {
    await new LiveGuest({ reactor, sharing, prng, path, sizeBytes, score }).run();
    await visit(reactor, path, prng);
    score.guests += 1;
    if (score.guests % 20 === 0) say(`${JSON.stringify(score)}; ${memory(pid)}`);
  }
  const grown = residentBytes(pid) - before;
  if (grown > MOST_GROWTH_BYTES + sizeBytes) fail(`the server has grown by ${grown} bytes`);
  await reactor.close();
  say(
    `${score.chains} chains of ${score.guests} hostile guests over ${score.connections} connections from seed ${seed}, ` +
      `${score.changes} changes under the server's eyes: ${score.broken} rings were given up, ` +
      `${score.interrupts} interrupts, and a sound driver is served; ${memory(pid)}`,
  );
}

/** A sound driver: writes, flushes, reads back. Returns the size of the disk. */
async function visit(reactor: Reactor, path: string, prng: Prng): Promise<number> {
  const device = await connectVhostUserBlk(reactor, path);
  const pattern = new Uint8Array(PATTERN_BYTES);
  prng.fill(pattern);
  const { sizeBytes } = device.info;
  const offset = prng.below(Math.floor((sizeBytes - PATTERN_BYTES) / 4096)) * 4096;
  await write(device, offset, pattern);
  await flush(device);
  const found = await read(device, offset, PATTERN_BYTES);
  if (Buffer.compare(found, pattern) !== 0)
    fail('a sound driver reads something else than it wrote');
  await device.close();
  return sizeBytes;
}

interface Score {
  guests: number;
  connections: number;
  chains: number;
  changes: number;
  broken: number;
  interrupts: number;
}

interface GuestOptions {
  readonly reactor: Reactor;
  readonly sharing: Sharing;
  readonly prng: Prng;
  readonly path: string;
  readonly sizeBytes: number;
  readonly score: Score;
}

/** One guest's memory, its two threads, and a few connections of its front-end. */
class LiveGuest {
  readonly #options: GuestOptions;
  readonly #memory: SharedMemory;
  readonly #arena: Arena;
  readonly #ring: HostileRing;
  readonly #slots: readonly Slot[];
  readonly #target: Target;
  readonly #data: RewriterData;

  constructor(options: GuestOptions) {
    const { sharing, prng, sizeBytes } = options;
    this.#options = options;
    const { fd, memory: shared } = sharing.create('fuzzed-guest', ARENA_BYTES);
    this.#memory = shared;
    this.#data = {
      fd,
      seed: prng.uint32(),
      joined: prng.chance(0.5),
      packed: prng.chance(0.5),
      size: prng.pick([8, 16, 64, 256]),
      stop: new SharedArrayBuffer(4),
    };
    this.#arena = new Arena(fd, shared.region.bytes, this.#data.joined);
    this.#arena.paint(prng);
    this.#arena.snapshot();
    const ring = { arena: this.#arena, size: this.#data.size, indirect: true, eventIdx: true };
    this.#ring = makeRing(this.#data.packed, ring);
    const capacity = sizeBytes / 512;
    this.#slots = slotsOf(this.#arena, capacity);
    this.#target = {
      arena: this.#arena,
      ring: this.#ring,
      indirect: true,
      capacity,
      blockSectors: 1,
      malice: 0.1,
    };
  }

  async run(): Promise<void> {
    const { prng, sharing, score } = this.#options;
    const worker = new Worker(new URL('vhost-user-rewriter.ts', import.meta.url), {
      workerData: this.#data,
    });
    const changes = new Promise<number>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    const connections = 1 + prng.below(CONNECTIONS);
    for (let i = 0; i < connections; i += 1) await this.#connection();
    const flag = new Int32Array(this.#data.stop);
    Atomics.store(flag, 0, 1);
    Atomics.notify(flag, 0);
    score.changes += await changes;
    await worker.terminate();
    // Whatever the server did, the bytes around the guest's are as they were.
    this.#arena.compareGuards();
    this.#memory.unmap();
    sharing.closeDescriptor(this.#data.fd);
  }

  async #connection(): Promise<void> {
    const { reactor, sharing, prng, path, score } = this.#options;
    const connection = new LiveConnection(sharing, await sharing.connect(path), this.#data.packed);
    score.connections += 1;
    connection.begin(prng, this.#arena, this.#ring);
    for (let burst = 0; burst < BURSTS && !connection.closed; burst += 1) {
      for (const slot of this.#slots) if (offerChain(prng, this.#target, slot)) score.chains += 1;
      this.#ring.publish(prng, prng.chance(0.01) ? prng.below(300) : 0);
      this.#ring.walk();
      connection.kicked();
      if (prng.chance(0.02)) connection.disturb(prng, this.#arena, this.#ring);
      if (prng.chance(0.5)) await pause(reactor, prng.below(3));
      if (connection.broken > 0) {
        score.broken += 1;
        connection.reset(this.#arena, this.#ring);
      }
    }
    score.interrupts += connection.interrupts;
    if (prng.chance(0.5)) await pause(reactor, 2);
    await connection.close();
  }
}

/** A front-end that says things and does not wait for answers. */
class LiveConnection {
  closed = false;
  /** The server's signs since the last reset. */
  broken = 0;
  interrupts = 0;
  readonly #sharing: Sharing;
  readonly #socket: DescriptorSocket;
  readonly #kick: number;
  readonly #call: number;
  readonly #err: number;
  readonly #watches: { stop(stopped: () => void): void }[];
  readonly #features: bigint;

  constructor(sharing: Sharing, socket: DescriptorSocket, packed: boolean) {
    this.#sharing = sharing;
    this.#socket = socket;
    const bits = packed ? [...FEATURES, VIRTIO_F.RING_PACKED] : FEATURES;
    this.#features = bits.reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
    socket.owner = {
      received: (_bytes, descriptors) => {
        for (const fd of descriptors) sharing.closeDescriptor(fd);
      },
      ended: () => {
        this.closed = true;
      },
    };
    this.#kick = sharing.eventfd();
    this.#call = sharing.eventfd();
    this.#err = sharing.eventfd();
    this.#watches = [
      sharing.watch(this.#call, () => {
        this.interrupts += 1;
      }),
      sharing.watch(this.#err, () => {
        this.broken += 1;
      }),
    ];
  }

  begin(prng: Prng, arena: Arena, ring: HostileRing): void {
    this.#say(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(PROTOCOL_FEATURES));
    this.#say(VHOST_USER.SET_OWNER);
    this.#shareMemory(arena);
    if (prng.chance(0.3)) {
      // Half a message, and the other half later or never.
      const bytes = encodeMessage(VHOST_USER.GET_FEATURES, 0);
      this.#socket.send(bytes.subarray(0, 5));
      this.#socket.send(bytes.subarray(5));
    }
    this.reset(arena, ring);
  }

  reset(arena: Arena, ring: HostileRing): void {
    const index = 0;
    const { places } = ring;
    this.broken = 0;
    this.#say(VHOST_USER.RESET_DEVICE);
    ring.clear();
    this.#say(VHOST_USER.SET_FEATURES, encodeU64(this.#features));
    this.#say(VHOST_USER.SET_VRING_NUM, encodeVringState({ index, num: ring.size }));
    this.#say(VHOST_USER.SET_VRING_BASE, encodeVringState({ index, num: ring.base }));
    const address = {
      index,
      flags: 0,
      descriptor: arena.user(places.descriptor),
      used: arena.user(places.used),
      available: arena.user(places.available),
    };
    this.#say(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address));
    const named = encodeVringDescriptor({ index, absent: false });
    this.#say(VHOST_USER.SET_VRING_KICK, named, [this.#kick]);
    this.#say(VHOST_USER.SET_VRING_CALL, named, [this.#call]);
    this.#say(VHOST_USER.SET_VRING_ERR, named, [this.#err]);
    this.#say(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index, num: 1 }));
  }

  kicked(): void {
    this.#sharing.signal(this.#kick);
  }

  /** While requests are in flight. */
  disturb(prng: Prng, arena: Arena, ring: HostileRing): void {
    switch (prng.below(4)) {
      case 0:
        this.#shareMemory(arena);
        break;
      case 1:
        this.#say(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index: 0, num: 0 }));
        this.#say(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index: 0, num: 1 }));
        break;
      case 2:
        this.#say(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor({ index: 0, absent: false }), [
          this.#call,
        ]);
        break;
      default:
        this.reset(arena, ring);
    }
  }

  async close(): Promise<void> {
    this.#socket.close();
    await Promise.all(
      this.#watches.map(
        (watch) =>
          new Promise<void>((resolve) => {
            watch.stop(() => {
              resolve();
              letEventLoopRun();
            });
          }),
      ),
    );
    for (const fd of [this.#kick, this.#call, this.#err]) this.#sharing.closeDescriptor(fd);
  }

  #shareMemory(arena: Arena): void {
    const fds = arena.regions.map(() => arena.fd);
    this.#say(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(arena.regions), fds);
  }

  #say(request: number, payload?: Uint8Array, descriptors: readonly number[] = []): void {
    if (!this.closed) this.#socket.send(encodeMessage(request, 0, payload), descriptors);
  }
}

function pause(reactor: Reactor, ms: number): Promise<void> {
  return new Promise((resolve) => {
    reactor.after(ms, () => {
      resolve();
      letEventLoopRun();
    });
  });
}
