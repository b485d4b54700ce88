import assert from 'node:assert/strict';
import type { BlockDevice } from '../../src/block/device.ts';
import type { BlockErrorCode } from '../../src/block/errors.ts';
import type { Io } from '../../src/block/io.ts';
import { Region } from '../../src/block/memory.ts';
import { Disk } from '../../src/durability/disk.ts';
import { FlushDomain } from '../../src/durability/flush-domain.ts';
import type { CacheMode } from '../../src/durability/modes.ts';
import { openMemoryStore } from '../../src/stores/memory/memory-store.ts';
import {
  BLK_HEADER_BYTES,
  VIRTIO_BLK_CONFIG,
  VIRTIO_BLK_F,
  VIRTIO_BLK_T,
} from '../../src/protocols/virtio/blk.ts';
import { VirtioBlk } from '../../src/protocols/virtio/blk-device.ts';
import type { QueueHost, QueueWorker } from '../../src/protocols/virtio/device.ts';
import { VIRTIO_F } from '../../src/protocols/virtio/virtio.ts';
import { Chain, type Virtqueue } from '../../src/protocols/virtio/virtqueue.ts';
import { Asked, BLOCK_BYTES, VolatileStore } from '../durability/volatile-store.ts';

// A virtio block device without a transport, and without rings where they do not matter: chains are made by hand.

export function features(...bits: readonly number[]): bigint {
  return bits.reduce((all, bit) => all | (1n << BigInt(bit)), 0n);
}

/** What a driver of today negotiates. */
export const MODERN: bigint = features(
  VIRTIO_F.VERSION_1,
  VIRTIO_BLK_F.FLUSH,
  VIRTIO_BLK_F.CONFIG_WCE,
  VIRTIO_BLK_F.DISCARD,
  VIRTIO_BLK_F.WRITE_ZEROES,
);

export function header(type: number, sector = 0, flags = 0): Uint8Array {
  const bytes = new Uint8Array(BLK_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, flags, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

/** The data of a discard or write-zeroes request: [sector, num_sectors, flags] each. */
export function ranges(...all: readonly (readonly [number, number, number?])[]): Uint8Array {
  const bytes = new Uint8Array(16 * all.length);
  const view = new DataView(bytes.buffer);
  for (const [i, [sector, sectors, flags = 0]] of all.entries()) {
    view.setBigUint64(16 * i, BigInt(sector), true);
    view.setUint32(16 * i + 8, sectors, true);
    view.setUint32(16 * i + 12, flags, true);
  }
  return bytes;
}

/** A chain, and what became of it. Every buffer lies in a region of its own, filled with 0xee where it is writable. */
export class Sent {
  readonly chain = new Chain();
  readonly rooms: Region[] = [];
  /** Bytes said to be written, once it was given back. */
  written: number | null = null;
  /** The driver can see that. */
  visible = false;

  constructor(readable: readonly Uint8Array[], writable: readonly number[]) {
    for (const bytes of readable) {
      const region = Region.plain(Uint8Array.from(bytes));
      this.chain.readable.push(region, 0, bytes.length);
    }
    for (const length of writable) {
      const region = Region.plain(length);
      region.bytes.fill(0xee);
      this.rooms.push(region);
      this.chain.writable.push(region, 0, length);
    }
  }

  get room(): Uint8Array {
    return Uint8Array.from(this.rooms.flatMap((region) => [...region.bytes]));
  }

  /** The status byte; the chain must be visible. */
  get status(): number {
    assert.ok(this.visible, 'the request is not answered');
    return this.room.at(-1) as number;
  }

  get data(): Uint8Array {
    return this.room.subarray(0, -1);
  }
}

/** A queue that holds what a test puts there. */
export class FakeQueue implements Virtqueue {
  readonly size = 128;
  readonly base = 0;
  inFlight = 0;
  readonly waiting: Sent[] = [];
  readonly #given: Sent[] = [];
  readonly #taken = new Map<Chain, Sent>();
  /** Thrown by the next `take`. */
  broken: Error | null = null;
  wantsInterrupts = true;
  notifies = true;
  publishes = 0;

  get ready(): boolean {
    return this.waiting.length > 0 || this.broken !== null;
  }

  take(): Chain | null {
    if (this.waiting.length === 0 && this.broken !== null) throw this.broken;
    const sent = this.waiting.shift();
    if (sent === undefined) return null;
    this.inFlight += 1;
    this.#taken.set(sent.chain, sent);
    return sent.chain;
  }

  give(chain: Chain, written: number): void {
    const sent = this.#taken.get(chain);
    assert.ok(sent !== undefined, 'a chain that was not taken, or given back before');
    assert.ok(written <= chain.writable.totalBytes);
    this.#taken.delete(chain);
    this.inFlight -= 1;
    sent.written = written;
    this.#given.push(sent);
  }

  publish(): boolean {
    this.publishes += 1;
    for (const sent of this.#given.splice(0)) sent.visible = true;
    return this.wantsInterrupts;
  }

  enableNotify(): boolean {
    this.notifies = true;
    return this.ready;
  }

  disableNotify(): void {
    this.notifies = false;
  }
}

/** Knows which blocks are stable, of mutations of one block each. */
export class JudgedStore extends VolatileStore {
  #made = 0;
  readonly #last = new Map<number, number>();

  override finish(io: Io | undefined = this.pending[0], error: BlockErrorCode | null = null): void {
    if (io?.mutates === true) {
      this.#made += 1;
      if (error === null) this.#last.set(io.offset / BLOCK_BYTES, this.#made);
    }
    super.finish(io, error);
  }

  /** Whether the last thing written to a block would be there after a power cut now. */
  isBlockStable(block: number): boolean {
    const asked = new Asked(1, block, 0);
    asked.version = this.#last.get(block) ?? Number.MAX_SAFE_INTEGER;
    return this.isStable(asked);
  }

  /** Does everything. */
  settle(): void {
    for (;;) {
      if (this.pending.length > 0) this.finish();
      else if (this.syncing) this.finishSync();
      else return;
    }
  }
}

export interface BlkRigOptions {
  readonly mode?: CacheMode;
  readonly readOnly?: boolean;
  readonly queues?: number;
  readonly offerFua?: boolean;
  readonly serial?: string;
  /** In place of the store that judges. */
  readonly store?: BlockDevice;
  /** Everything the store is asked for is done at once. */
  readonly auto?: boolean;
  /** Another front-end of this disk. */
  readonly disk?: Disk;
}

/** A device with one front-end, one driver and one queue. */
export class BlkRig implements QueueHost {
  readonly disk: Disk;
  readonly device: VirtioBlk;
  readonly lines: string[] = [];
  readonly deferred: (() => void)[] = [];
  queue = new FakeQueue();
  worker: QueueWorker | null = null;
  interrupts = 0;
  readonly brokenFor: string[] = [];
  configChanges = 0;
  /** What happens when the device says that the configuration has changed. */
  onConfigChange: () => void = () => {};
  readonly #store: BlockDevice;
  #block = 0;

  constructor(options: BlkRigOptions = {}) {
    const { mode = 'writeback', readOnly = false, auto = false } = options;
    this.#store =
      options.disk?.store ??
      options.store ??
      new JudgedStore((target) => new FlushDomain({ target }), { readOnly, auto });
    const log = (line: string): void => {
      this.lines.push(line);
    };
    this.disk = options.disk ?? new Disk({ store: this.#store, mode, log });
    this.device = new VirtioBlk(this.disk, {
      serial: options.serial ?? 'serial',
      queues: options.queues ?? 1,
      offerFua: options.offerFua ?? false,
      log,
      defer: (callback) => this.deferred.push(callback),
    });
    this.device.onConfigChange = () => {
      this.configChanges += 1;
      this.onConfigChange();
    };
  }

  /** A rig over a memory store. */
  static memory(options: BlkRigOptions & { readonly blockBytes?: 512 | 4096 } = {}): BlkRig {
    const { blockBytes = 512, readOnly = false } = options;
    const store = openMemoryStore({ name: 'm', sizeBytes: 1024 * 4096, blockBytes, readOnly });
    return new BlkRig({ ...options, store });
  }

  get store(): JudgedStore {
    assert.ok(this.#store instanceof JudgedStore);
    return this.#store;
  }

  interrupt(): void {
    this.interrupts += 1;
  }

  broken(why: string): void {
    this.brokenFor.push(why);
  }

  defer(callback: () => void): void {
    this.deferred.push(callback);
  }

  /** Goes on with blocks that another rig of the same disk has not written. */
  startBlocksAt(other: BlkRig): void {
    this.#block = other.#block;
  }

  /** Starts a driver, one of before unless `fresh`, and, when it may begin, gives it a new queue. */
  start(negotiated: bigint = MODERN, fresh = false): this {
    const ready = (): void => {
      this.queue = new FakeQueue();
      this.worker = this.device.attach(0, this.queue, this);
    };
    this.device.start(negotiated, ready, fresh);
    return this;
  }

  /** Detaches the queue; whether that was done at once or once `settle` has run. */
  stop(): void {
    const { worker } = this;
    if (worker === null) return;
    let drained = false;
    worker.detach(() => {
      drained = true;
    });
    if (!drained) this.store.settle();
    this.turn();
    assert.ok(drained, 'the queue is not drained');
    this.worker = null;
  }

  reset(): void {
    this.stop();
    let done = false;
    this.device.reset(() => {
      done = true;
    });
    if (!done) this.store.settle();
    this.turn();
    assert.ok(done, 'the reset is not done');
  }

  /** One turn of a reactor: queues, then what was put off. */
  turn(): void {
    while (this.worker?.ready() === true) this.worker.poll();
    while (this.deferred.length > 0) for (const callback of this.deferred.splice(0)) callback();
  }

  /** Puts a chain into the queue and has it taken. */
  send(readable: readonly Uint8Array[], writable: readonly number[]): Sent {
    const sent = new Sent(readable, writable);
    this.queue.waiting.push(sent);
    this.turn();
    return sent;
  }

  request(type: number, sector: number, data: Uint8Array | number, flags = 0): Sent {
    const head = header(type, sector, flags);
    return typeof data === 'number'
      ? this.send([head], data === 0 ? [1] : [data, 1])
      : this.send(data.length === 0 ? [head] : [head, data], [1]);
  }

  /** Writes a block that was not written before. `done` is the host's doing of it, before any sync. */
  write(type: number = VIRTIO_BLK_T.OUT, flags = 0): { sent: Sent; block: number } {
    this.#block += 1;
    const block = this.#block;
    return { sent: this.request(type, block, new Uint8Array(BLOCK_BYTES), flags), block };
  }

  flush(): Sent {
    return this.request(VIRTIO_BLK_T.FLUSH, 0, 0);
  }

  /** Whether a write that the host has done completes though it is not stable. The host then does the rest. */
  completesUnstable(): boolean {
    const { sent, block } = this.write();
    while (this.store.pending.length > 0) this.store.finish();
    this.turn();
    const unstable = sent.visible && !this.store.isBlockStable(block);
    this.store.settle();
    this.turn();
    assert.equal(sent.status, 0);
    return unstable;
  }

  /** Whether a write that the host has done still waits for a sync, or fails for want of one. */
  completesStrictly(): boolean {
    const { sent } = this.write();
    while (this.store.pending.length > 0) this.store.finish();
    this.turn();
    return !sent.visible || sent.status !== 0;
  }

  /** The byte as the front-end reads it. */
  readWriteback(): number {
    return this.device.readConfig(VIRTIO_BLK_CONFIG.writeback, 1)[0] as number;
  }

  writeWriteback(value: number): { done: boolean; accepted: boolean | null } {
    const outcome: { done: boolean; accepted: boolean | null } = { done: false, accepted: null };
    const at = VIRTIO_BLK_CONFIG.writeback;
    this.device.writeConfig(at, Uint8Array.of(value), (accepted) => {
      assert.equal(outcome.done, false);
      outcome.done = true;
      outcome.accepted = accepted;
    });
    return outcome;
  }
}
