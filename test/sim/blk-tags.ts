import type { Disk } from '../../src/durability/disk.ts';
import type { DiskSession } from '../../src/durability/disk-session.ts';
import type { Io } from '../../src/block/io.ts';
import { Chunk } from '../../src/protocols/nbd/request.ts';
import { VirtioBlk, type VirtioBlkOptions } from '../../src/protocols/virtio/blk-device.ts';
import { BlkRequest } from '../../src/protocols/virtio/blk-request.ts';
import { VIRTIO_BLK_F } from '../../src/protocols/virtio/blk.ts';
import type { QueueHost, QueueWorker, VirtioDevice } from '../../src/protocols/virtio/device.ts';
import { hasFeature, VIRTIO_F } from '../../src/protocols/virtio/virtio.ts';
import type { Chain, Virtqueue } from '../../src/protocols/virtio/virtqueue.ts';
import { fuseOpOf } from './fuse-tags.ts';
import { type GuestRequest, requestOf } from './guest.ts';
import type { KillPoints } from './kill-points.ts';
import type { Oracle } from './oracle.ts';
import { scsiOpOf } from './scsi-tags.ts';
import type { Vm } from './vm.ts';

/** A mistake to put into the virtio side of a server. */
export interface BlkFaults {
  readonly makeDevice?: (disk: Disk, options: VirtioBlkOptions) => VirtioDevice;
  /** In place of a queue that the transport has set up. */
  readonly wrapQueue?: (queue: Virtqueue, at: FaultyPlace) => Virtqueue;
  /** In place of `session.submit`, for requests of guests. */
  readonly submit?: (io: Io, request: GuestRequest, submit: (io: Io) => void, disk: Disk) => void;
  readonly session?: (session: DiskSession) => void;
  /** What an earlier process had in flight is not looked at. */
  readonly forgetsLog?: boolean;
  /** Who of these is gone is not looked for: clients of NBD when a driver begins, machines when anybody does. */
  readonly unfenced?: 'nbd' | 'vm';
}

/** Where a faulty queue is. */
export interface FaultyPlace {
  readonly vm: Vm;
  readonly index: number;
  readonly kills: KillPoints;
  readonly defer: (callback: () => void) => void;
}

/** What the simulated devices of a server share. */
export interface BlkContext {
  readonly oracle: Oracle;
  readonly disk: Disk;
  readonly kills: KillPoints;
  readonly faults: BlkFaults;
  /** Switches of the write cache so far, and whether the last of them failed. */
  readonly switches: { count: number; failed: boolean };
}

const TAGS = new WeakMap<BlkRequest, GuestRequest>();

/** The number that a simulated client or guest has given the request that an Io is part of. 0: none of theirs. */
export function opOf(io: Io): number {
  const { context } = io;
  const scsi = scsiOpOf(io);
  if (scsi !== undefined) return scsi;
  const program = fuseOpOf(io);
  if (program !== undefined) return program;
  if (context instanceof Chunk) return context.request.cookieLow;
  return context instanceof BlkRequest ? (TAGS.get(context)?.op.id ?? 0) : 0;
}

/**
 * Has every request of a guest known by its own number down to the store. What a queue hands out is submitted right
 * after: so the first request that is submitted after a chain was taken is that chain's.
 */
export class Tagger {
  current: GuestRequest | null = null;
  readonly #faults: BlkFaults;
  readonly #oracle: Oracle;
  readonly #disk: Disk;

  constructor(disk: Disk, oracle: Oracle, faults: BlkFaults) {
    this.#faults = faults;
    this.#oracle = oracle;
    // A barrier of a guest's may hold a request up before the store has it: what counts is the setting before.
    oracle.submitsAtSession = true;
    this.#disk = disk;
    const open = disk.openSession.bind(disk);
    disk.openSession = (options, ready) => {
      open(options, (session) => {
        this.#watch(session);
        ready(session);
      });
    };
  }

  #watch(session: DiskSession): void {
    this.#faults.session?.(session);
    const submit = session.submit.bind(session);
    session.submit = (io) => {
      const { context } = io;
      if (context instanceof BlkRequest && this.current !== null) TAGS.set(context, this.current);
      if (io.mutates) this.#oracle.partCame(opOf(io));
      if (!(context instanceof BlkRequest)) {
        submit(io);
        return;
      }
      this.current = null;
      const request = TAGS.get(context) as GuestRequest;
      if (this.#faults.submit === undefined) submit(io);
      else this.#faults.submit(io, request, submit, this.#disk);
    };
  }
}

/** A virtio-blk device as the server has it, under the oracle's eyes. */
export class SimBlk implements VirtioDevice {
  /** Whose front-end is at the other end. */
  vm!: Vm;
  /** What a driver was started with. */
  negotiated: bigint | null = null;
  readonly #device: VirtioDevice;
  readonly #context: BlkContext;
  readonly #tagger: Tagger;
  readonly #defer: (callback: () => void) => void;

  constructor(context: BlkContext, tagger: Tagger, options: VirtioBlkOptions) {
    this.#context = context;
    this.#tagger = tagger;
    this.#defer = options.defer;
    const make = context.faults.makeDevice ?? ((disk, made) => new VirtioBlk(disk, made));
    this.#device = make(context.disk, options);
  }

  get id(): number {
    return this.#device.id;
  }

  get offered(): bigint {
    return this.#device.offered;
  }

  get maxQueues(): number {
    return this.#device.maxQueues;
  }

  get configBytes(): number {
    return this.#device.configBytes;
  }

  get onConfigChange(): (() => void) | null {
    return this.#device.onConfigChange;
  }

  set onConfigChange(callback: (() => void) | null) {
    this.#device.onConfigChange = callback;
  }

  /** The `writeback` byte as it has to be told now. */
  get trueByte(): 0 | 1 {
    const features = this.negotiated ?? 0n;
    const modern = hasFeature(features, VIRTIO_F.VERSION_1);
    const noCache =
      modern &&
      hasFeature(features, VIRTIO_BLK_F.CONFIG_WCE) &&
      !hasFeature(features, VIRTIO_BLK_F.FLUSH);
    return this.#context.disk.info.writeCache && !noCache ? 1 : 0;
  }

  readConfig(offset: number, length: number): Uint8Array {
    return this.#device.readConfig(offset, length);
  }

  writeConfig(offset: number, bytes: Uint8Array, done: (accepted: boolean) => void): void {
    this.#device.writeConfig(offset, bytes, done);
  }

  start(features: bigint, ready: () => void, fresh: boolean): void {
    const { oracle } = this.#context;
    const { session } = this.vm;
    this.negotiated = features;
    if (session !== null) oracle.goArrived(session);
    const served = (): void => {
      if (session !== null) oracle.served(session);
      ready();
    };
    this.#device.start(features, served, fresh);
  }

  attach(index: number, queue: Virtqueue, host: QueueHost): QueueWorker {
    const { vm } = this;
    const { kills, faults } = this.#context;
    const inner = faults.wrapQueue?.(queue, { vm, index, kills, defer: this.#defer }) ?? queue;
    const tagged = new TaggedQueue(inner, vm, this.#context, this.#tagger);
    return this.#device.attach(index, tagged, host);
  }

  reset(done: () => void): void {
    const { oracle, disk, switches } = this.#context;
    this.negotiated = null;
    const before = switches.count;
    this.#device.reset(() => {
      const alone = switches.count <= before + 1 && !switches.failed;
      if (alone && disk.info.writeCache !== disk.mode.writeCache) {
        oracle.fail(`a reset leaves the write cache ${disk.info.writeCache ? 'on' : 'off'}`);
      }
      done();
    });
  }

  leave(): void {
    this.#device.leave();
  }

  end(): void {
    this.negotiated = null;
    this.#device.end();
  }
}

/** Tells the oracle of every chain that is taken, and of every one that becomes visible as used, in that moment. */
class TaggedQueue implements Virtqueue {
  readonly #queue: Virtqueue;
  readonly #vm: Vm;
  readonly #context: BlkContext;
  readonly #tagger: Tagger;
  readonly #taken = new Map<Chain, GuestRequest>();
  #given: GuestRequest[] = [];
  readonly #visible = (): void => {
    for (const request of this.#given.splice(0)) this.#vm.driver?.becameVisible(request);
  };

  constructor(queue: Virtqueue, vm: Vm, context: BlkContext, tagger: Tagger) {
    this.#queue = queue;
    this.#vm = vm;
    this.#context = context;
    this.#tagger = tagger;
  }

  get size(): number {
    return this.#queue.size;
  }

  get ready(): boolean {
    return this.#queue.ready;
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  get base(): number {
    return this.#queue.base;
  }

  take(): Chain | null {
    const chain = this.#queue.take();
    this.#tagger.current = null;
    if (chain === null) return null;
    const { oracle } = this.#context;
    const request = requestOf(chain);
    if (request === undefined) return oracle.fail('a chain is taken that no driver has added');
    this.#taken.set(chain, request);
    this.#tagger.current = request;
    oracle.arrived(request.op);
    return chain;
  }

  give(chain: Chain, written: number): void {
    const request = this.#taken.get(chain);
    this.#taken.delete(chain);
    if (request !== undefined) this.#given.push(request);
    this.#queue.give(chain, written);
  }

  publish(): boolean {
    if (this.#given.length === 0) return this.#queue.publish();
    return this.#context.kills.around(() => this.#queue.publish(), this.#visible);
  }

  enableNotify(): boolean {
    return this.#queue.enableNotify();
  }

  disableNotify(): void {
    this.#queue.disableNotify();
  }
}
