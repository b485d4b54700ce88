import { ConfigError, messageOf } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { Region } from '../../block/memory.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import type { SharedMemory, Sharing } from '../../reactor/sharing.ts';
import { VIRTIO_BLK_CONFIG, VIRTIO_BLK_F } from '../virtio/blk.ts';
import { DriverMemory } from '../virtio/driver/driver-memory.ts';
import { PackedDriver } from '../virtio/driver/packed-driver.ts';
import { SplitDriver } from '../virtio/driver/split-driver.ts';
import type { Place } from '../virtio/guest-memory.ts';
import { hasFeature, VIRTIO_CONFIG_S, VIRTIO_F } from '../virtio/virtio.ts';
import {
  type BlkConfig,
  configBytesFor,
  decodeBlkConfig,
  describeBlk,
  hasFua,
  isWriteBack,
  maxTransfer,
} from './blk-client-config.ts';
import { placeRequest, requestBytes, type RequestPlace } from './blk-client-memory.ts';
import { BlkQueue } from './blk-client-queue.ts';
import type { BlkTerms } from './blk-client-request.ts';
import { FRONTEND_PROTOCOL_FEATURES, type InflightRegion, VhostUserFrontend } from './frontend.ts';
import { VHOST_USER_PROTOCOL_F } from './wire.ts';

export interface BlkOptions {
  /** Queues to use. Default 1. */
  readonly queues?: number;
  /** Entries of each queue: a power of two, at least 4. Default 128. */
  readonly queueSize?: number;
  /** Packed rings instead of split ones. */
  readonly packed?: boolean;
  /** Features that may be negotiated, of those that the driver knows. Default: all of them. */
  readonly features?: bigint;
  /** The same for vhost-user's own. */
  readonly protocolFeatures?: bigint;
  /** Requests on their way at once, each with room for its data. Default: what the queues hold, at most 128. */
  readonly inFlight?: number;
  /** Shared memory for callers (`allocate`), beside what requests need. Default 0. */
  readonly memoryBytes?: number;
  /** The most bytes of one READ or WRITE, if the device does not want less. Default 1 MiB. */
  readonly maxTransferBytes?: number;
  /** False: sleep until the device calls, instead of looking at the rings in each turn. Default true. */
  readonly poll?: boolean;
  /**
   * How long a lost connection is tried to be made again, in milliseconds; requests wait meanwhile and are done by the
   * new back-end, through the in-flight region. Default 0: a lost connection is the end.
   */
  readonly reconnectMs?: number;
  /** How long the back-end may take for an answer. Default 10 seconds. */
  readonly timeoutMs?: number;
}

/** What the driver needs of a reactor; simulations have one of their own. */
export type BlkReactor = Pick<Reactor, 'sharing' | 'defer' | 'nowMs' | 'after'>;

/** Who is told what becomes of the connection. */
export interface LinkUser {
  /** It is gone for good. */
  lostLink(reason: string): void;
  /** The configuration space may read otherwise now. */
  configChanged(): void;
}

const DEFAULT_QUEUE_SIZE = 128;
const DEFAULT_IN_FLIGHT = 128;
const DEFAULT_TIMEOUT_MS = 10_000;
const RECONNECT_PAUSE_MS = 20;

/** Where the device sees the shared memory. Not 0, so that a zeroed address is never a right one. */
const GUEST_ADDRESS = 2 ** 20;

/** Data buffers in one request where the device does not say how many it takes: as Linux's driver has it. */
const DEFAULT_DATA_BUFFERS = 1;
/** More would only make tables longer: an Io of 1 MiB in pages. */
const MAX_DATA_BUFFERS = 256;

const KNOWN_FEATURES: readonly number[] = [
  VIRTIO_BLK_F.SIZE_MAX,
  VIRTIO_BLK_F.SEG_MAX,
  VIRTIO_BLK_F.RO,
  VIRTIO_BLK_F.BLK_SIZE,
  VIRTIO_BLK_F.FLUSH,
  VIRTIO_BLK_F.TOPOLOGY,
  VIRTIO_BLK_F.CONFIG_WCE,
  VIRTIO_BLK_F.MQ,
  VIRTIO_BLK_F.DISCARD,
  VIRTIO_BLK_F.WRITE_ZEROES,
  VIRTIO_BLK_F.REQ_FLAGS,
  VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA,
  VIRTIO_F.INDIRECT_DESC,
  VIRTIO_F.EVENT_IDX,
  VIRTIO_F.VERSION_1,
  VIRTIO_F.RING_PACKED,
];

/** All features that the driver knows, the packed ring included: what `BlkOptions.features` narrows. */
export const BLK_CLIENT_FEATURES: bigint = KNOWN_FEATURES.reduce(
  (mask, bit) => mask | (1n << BigInt(bit)),
  0n,
);

/**
 * The connection of our driver and all that is shared through it: memory, rings, eventfds. When the back-end goes and
 * comes back, they stay, and the new one is told of them.
 */
export class BlkLink {
  readonly name: string;
  readonly sharing: Sharing;
  reconnects = 0;
  features = 0n;
  #frontend: VhostUserFrontend | null = null;
  #config: BlkConfig | null = null;
  #terms: BlkTerms | null = null;
  #memory: { readonly fd: number; readonly shared: SharedMemory } | null = null;
  #driverMemory: DriverMemory | null = null;
  #inflight: InflightRegion | null = null;
  readonly queues: BlkQueue[] = [];
  readonly places: RequestPlace[] = [];
  readonly #rings: { descriptors: Place; driver: Place; device: Place }[] = [];
  readonly #reactor: BlkReactor;
  readonly #path: string;
  readonly #options: BlkOptions;
  #user: LinkUser | null = null;
  #lostBefore: string | null = null;
  #closed = false;
  #reconnecting = false;

  private constructor(reactor: BlkReactor, sharing: Sharing, path: string, options: BlkOptions) {
    this.name = `vhost-user-blk:${path}`;
    this.sharing = sharing;
    this.#reactor = reactor;
    this.#path = path;
    this.#options = options;
  }

  /** Connects, negotiates, shares memory and starts the rings. */
  static async open(
    reactor: BlkReactor,
    sharing: Sharing,
    path: string,
    options: BlkOptions,
  ): Promise<BlkLink> {
    const link = new BlkLink(reactor, sharing, path, options);
    try {
      await link.#connect();
      await link.#agree();
      await link.#makeRings();
      await link.#share();
    } catch (error) {
      link.release();
      throw error;
    }
    return link;
  }

  /** Throws while there is none. */
  get frontend(): VhostUserFrontend {
    if (this.#frontend === null) throw new Error('the back-end is gone');
    return this.#frontend;
  }

  get config(): BlkConfig {
    return this.#config as BlkConfig;
  }

  get terms(): BlkTerms {
    return this.#terms as BlkTerms;
  }

  passTo(user: LinkUser): void {
    this.#user = user;
    if (this.#lostBefore !== null) this.#lost(this.#lostBefore);
  }

  allocate(sizeBytes: number): Region {
    const memory = this.#driverMemory as DriverMemory;
    const { region, start } = memory.placeOf(memory.allocate(sizeBytes, 4096).address);
    const { buffer, byteOffset } = region.bytes;
    return new Region(region.address + start, buffer, byteOffset + start, sizeBytes);
  }

  /** The back-end has broken a ring: there is no more to be had from it. */
  fail(reason: string): void {
    this.#closed = true;
    this.#frontend?.close();
    this.#user?.lostLink(reason);
  }

  /** Stops the rings, so that the back-end is done with the memory, and lets go of everything. */
  async close(): Promise<void> {
    this.#closed = true;
    const frontend = this.#frontend;
    if (frontend !== null && frontend.over === null) {
      try {
        for (const index of this.queues.keys()) await frontend.stopRing(index);
      } catch {
        // The back-end went while it was said goodbye to. Nothing is in flight.
      }
    }
    this.release();
  }

  /** The same without a goodbye. */
  release(): void {
    this.#closed = true;
    this.#frontend?.close();
    for (const queue of this.queues.splice(0)) queue.close();
    if (this.#inflight !== null) this.sharing.closeDescriptor(this.#inflight.fd);
    this.#inflight = null;
    if (this.#memory === null) return;
    this.sharing.closeDescriptor(this.#memory.fd);
    this.#memory.shared.unmap();
    this.#memory = null;
  }

  async #connect(): Promise<void> {
    const socket = await this.sharing.connect(this.#path);
    const frontend = new VhostUserFrontend(
      {
        sharing: this.sharing,
        timers: this.#reactor,
        timeoutMs: this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
        lost: (reason) => {
          if (this.#frontend === frontend) this.#lost(reason);
        },
        configChanged: () => this.#user?.configChanged(),
      },
      socket,
    );
    this.#frontend = frontend;
    await frontend.negotiate(this.#options.protocolFeatures ?? FRONTEND_PROTOCOL_FEATURES);
  }

  /** Chooses features and learns what the device says of itself. */
  async #agree(): Promise<void> {
    const { frontend } = this;
    const { packed = false, features: allowed = BLK_CLIENT_FEATURES } = this.#options;
    let features = frontend.offered & allowed & BLK_CLIENT_FEATURES;
    if (!packed) features &= ~(1n << BigInt(VIRTIO_F.RING_PACKED));
    else if (!hasFeature(features, VIRTIO_F.RING_PACKED)) {
      throw new ConfigError(`${this.name}: the back-end has no packed rings`, 'use split rings');
    }
    if (!frontend.hasProtocolFeature(VHOST_USER_PROTOCOL_F.CONFIG)) {
      throw new ConfigError(
        `${this.name}: the back-end does not give the configuration space`,
        'is it a block device? protocol feature CONFIG is needed',
      );
    }
    // "Reset the device" is what a driver begins with [virtio 3.1.1]: what one before it knew is forgotten.
    await frontend.setStatus(0);
    await this.#setFeatures(features);
    this.features = features;
    this.#config = await this.#readConfig();
    const { queues = 1, reconnectMs = 0 } = this.#options;
    const available = Math.min(await frontend.queueNum(), this.#config.numQueues);
    if (queues > available) {
      throw new ConfigError(
        `${this.name}: ${queues} queues are wanted and the back-end has ${available}`,
        'ask for fewer, or give it more',
      );
    }
    if (reconnectMs > 0 && !frontend.hasProtocolFeature(VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD)) {
      throw new ConfigError(
        `${this.name}: the back-end does not track requests in flight`,
        'leave reconnecting off: protocol feature INFLIGHT_SHMFD is needed for it',
      );
    }
  }

  /** With the status bits around it that [virtio 3.1.1] asks for. */
  async #setFeatures(features: bigint): Promise<void> {
    const { frontend } = this;
    const before = VIRTIO_CONFIG_S.ACKNOWLEDGE | VIRTIO_CONFIG_S.DRIVER;
    await frontend.setStatus(before);
    await frontend.setFeatures(features);
    await frontend.setStatus(before | VIRTIO_CONFIG_S.FEATURES_OK);
    const status = await frontend.getStatus();
    if (status !== null && (status & VIRTIO_CONFIG_S.FEATURES_OK) === 0) {
      throw new Error(`the back-end does not accept the features 0x${features.toString(16)}`);
    }
  }

  async #readConfig(): Promise<BlkConfig> {
    const bytes = await this.frontend.getConfig(0, configBytesFor(this.features));
    return decodeBlkConfig(bytes, this.features);
  }

  /** Makes memory, rings and the places of requests in it. */
  async #makeRings(): Promise<void> {
    const { queues = 1, queueSize = DEFAULT_QUEUE_SIZE, packed = false } = this.#options;
    const { features, config } = this;
    const indirect = hasFeature(features, VIRTIO_F.INDIRECT_DESC);
    const eventIdx = hasFeature(features, VIRTIO_F.EVENT_IDX);
    const dataBuffers = this.#dataBuffers(queueSize);
    const wish = this.#options.maxTransferBytes ?? Infinity;
    const maxTransferBytes = maxTransfer(config, dataBuffers, wish);
    const info = describeBlk(this.name, config, features, maxTransferBytes);
    const inFlight = this.#options.inFlight ?? Math.min(queues * queueSize, DEFAULT_IN_FLIGHT);
    // A table for each descriptor, and the rings, with what alignment costs.
    const tableEntries = indirect ? dataBuffers + 2 : 0;
    const ringBytes = queueSize * (16 * tableEntries + 64) + 16384;
    const { memoryBytes = 0 } = this.#options;
    const bytes =
      queues * ringBytes + inFlight * (requestBytes(maxTransferBytes) + 4096) + memoryBytes + 4096;
    const size = Math.ceil(bytes / 4096) * 4096;
    const { fd, memory: shared } = this.sharing.create('holdfast-driver', size);
    this.#memory = { fd, shared };
    const memory = new DriverMemory(shared.region, GUEST_ADDRESS, shared.region.address);
    this.#driverMemory = memory;
    for (let i = 0; i < queues; i += 1) {
      const options = { memory, size: queueSize, eventIdx, tableEntries };
      const driver = packed ? new PackedDriver(options) : new SplitDriver(options);
      this.#rings.push(driver.places);
      this.queues.push(new BlkQueue(this.sharing, driver, indirect));
    }
    for (let i = 0; i < inFlight; i += 1) {
      this.places.push(placeRequest(memory, maxTransferBytes));
    }
    this.#terms = {
      flush: hasFeature(features, VIRTIO_BLK_F.FLUSH),
      fua: hasFua(features),
      discardBytes: config.discardBytes - (config.discardBytes % info.blockBytes),
      zeroesBytes: config.zeroesBytes - (config.zeroesBytes % info.blockBytes),
      zeroesMayUnmap: config.zeroesMayUnmap,
      maxTransferBytes,
      sizeMax: config.sizeMax,
      dataBuffers,
      memory: shared.region,
      guestAddress: GUEST_ADDRESS,
      writeBack: isWriteBack(config, features),
    };
    if ((this.#options.reconnectMs ?? 0) > 0) {
      this.#inflight = await this.frontend.getInflight(queues, queueSize);
    }
  }

  /** A chain has a header and a status beside the data, and is never longer than the queue [virtio 2.7.5.3.1]. */
  #dataBuffers(queueSize: number): number {
    const told = this.config.segMax ?? DEFAULT_DATA_BUFFERS;
    return Math.max(1, Math.min(told, queueSize - 2, MAX_DATA_BUFFERS));
  }

  /** Tells the back-end of memory, requests in flight and rings, and starts it. */
  async #share(): Promise<void> {
    const { frontend } = this;
    const { queueSize = DEFAULT_QUEUE_SIZE } = this.#options;
    const { fd, shared } = this.#memory as { fd: number; shared: SharedMemory };
    const { region } = shared;
    const table = {
      guestAddress: GUEST_ADDRESS,
      sizeBytes: region.bytes.length,
      userAddress: region.address,
      mmapOffset: 0,
    };
    if (this.#inflight !== null) await frontend.setInflight(this.#inflight);
    await frontend.setMemory([table], [fd]);
    for (const [index, queue] of this.queues.entries()) {
      const ring = this.#rings[index] as { descriptors: Place; driver: Place; device: Place };
      await frontend.setRing(index, {
        size: queueSize,
        base: this.#baseOf(ring.device),
        descriptors: region.address + ring.descriptors.start,
        driver: region.address + ring.driver.start,
        device: region.address + ring.device.start,
        kick: queue.kick,
        call: queue.call,
      });
    }
    for (const index of this.queues.keys()) await frontend.enableRing(index, true);
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = VIRTIO_CONFIG_S;
    await frontend.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    for (const queue of this.queues) queue.ring();
  }

  /**
   * Where a back-end begins. A new packed ring has both wrap counters set [virtio 2.8.1]. Of a split ring it is the used
   * index, 0 at first; a back-end that comes back counts what it had in flight from its own region.
   */
  #baseOf(device: Place): number {
    const { packed = false } = this.#options;
    return packed ? 0x8000_8000 : device.region.view.getUint16(device.start + 2, true);
  }

  #lost(reason: string): void {
    if (this.#closed || this.#reconnecting) return;
    if (this.#user === null) {
      this.#lostBefore = reason;
      return;
    }
    const { reconnectMs = 0 } = this.#options;
    if (reconnectMs === 0) {
      this.#user.lostLink(reason);
      return;
    }
    this.#reconnecting = true;
    this.#reconnect(reconnectMs, reason).catch((error: unknown) => {
      if (!this.#closed) this.#user?.lostLink(messageOf(error));
    });
  }

  /** Tries until there is a back-end again that serves the same disk with the same features. */
  async #reconnect(forMs: number, reason: string): Promise<void> {
    const until = this.#reactor.nowMs() + forMs;
    let why = reason;
    while (!this.#closed && this.#reactor.nowMs() < until) {
      try {
        await this.#connect();
        await this.#resume();
        // Lost again since, and not told while this was under way.
        if (this.frontend.over !== null) throw new Error(this.frontend.over);
        this.#reconnecting = false;
        this.reconnects += 1;
        this.#user?.configChanged();
        return;
      } catch (error) {
        why = messageOf(error);
        // What it reports from now on is of a connection that is given up.
        const frontend = this.#frontend;
        this.#frontend = null;
        frontend?.close();
      }
      await this.#pause(RECONNECT_PAUSE_MS);
    }
    throw new Error(`${reason}; no back-end for ${forMs} ms since: ${why}`);
  }

  #pause(forMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.#reactor.after(forMs, () => {
        letEventLoopRun();
        resolve();
      });
    });
  }

  async #resume(): Promise<void> {
    const { features } = this;
    if ((this.frontend.offered & features) !== features) {
      throw new Error('the back-end came back with fewer features');
    }
    await this.#setFeatures(features);
    const { writeback } = await this.#readConfig();
    // The driver's switch outlives the back-end: what it relies on must hold before requests are done.
    const wanted = this.terms.writeBack ? 1 : 0;
    if (writeback !== null && writeback !== wanted) {
      await this.frontend.setConfig(VIRTIO_BLK_CONFIG.writeback, Uint8Array.of(wanted));
    }
    await this.#share();
  }
}
