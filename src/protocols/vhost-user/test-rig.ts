import assert from 'node:assert/strict';
import type { DescriptorSocket, Sharing } from '../../reactor/sharing.ts';
import { Region } from '../../block/memory.ts';
import type { QueueHost, QueueWorker, VirtioDevice } from '../virtio/device.ts';
import { DriverMemory } from '../virtio/driver/driver-memory.ts';
import { PackedDriver } from '../virtio/driver/packed-driver.ts';
import { SplitDriver } from '../virtio/driver/split-driver.ts';
import type { Place } from '../virtio/guest-memory.ts';
import { hasFeature, VIRTIO_F } from '../virtio/virtio.ts';
import type { Chain, Virtqueue } from '../virtio/virtqueue.ts';
import { ProtocolError } from '../../base/errors.ts';
import { VhostUserBackend } from './backend.ts';
import { FakeSharing } from './testing.ts';
import {
  decodeHeader,
  decodeU64,
  decodeVringState,
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  type RegionDescription,
  requestName,
  SIZE,
  VHOST_USER,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_PROTOCOL_F,
  VHOST_USER_REPLY_MASK,
  VHOST_USER_VERSION,
} from './wire.ts';

export const bit = (number: number): bigint => 1n << BigInt(number);

export const ALL_PROTOCOL_FEATURES: bigint =
  bit(VHOST_USER_PROTOCOL_F.MQ) |
  bit(VHOST_USER_PROTOCOL_F.REPLY_ACK) |
  bit(VHOST_USER_PROTOCOL_F.BACKEND_REQ) |
  bit(VHOST_USER_PROTOCOL_F.CONFIG) |
  bit(VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD) |
  bit(VHOST_USER_PROTOCOL_F.RESET_DEVICE) |
  bit(VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS) |
  bit(VHOST_USER_PROTOCOL_F.STATUS);

export const SPLIT_FEATURES: bigint =
  bit(VIRTIO_F.VERSION_1) |
  bit(VIRTIO_F.EVENT_IDX) |
  bit(VIRTIO_F.INDIRECT_DESC) |
  bit(VHOST_USER_F_PROTOCOL_FEATURES);

export const PACKED_FEATURES: bigint = SPLIT_FEATURES | bit(VIRTIO_F.RING_PACKED);

/** A device that gives chains back as they are, at once or when it is told to. */
export class FakeDevice implements VirtioDevice {
  readonly id = 2;
  readonly offered: bigint = 0x1001n;
  readonly maxQueues: number;
  readonly configBytes = 60;
  readonly config = new Uint8Array(60).map((_, i) => i);
  onConfigChange: (() => void) | null = null;
  /** What was called, in order. */
  readonly calls: string[] = [];
  /** Chains are held until `release`. */
  hold = false;
  /** The front-end is gone, or is let go. */
  left = false;
  /** `start` is ready only at `becomeReady`. */
  slow = false;
  /** Configuration writes are done at `finishWrite`. */
  slowWrites = false;
  /** The first two bytes of every chain's readable part: what was executed, in order. */
  readonly executed: number[] = [];
  /** Of the last start. */
  startedFresh: boolean | null = null;
  readonly workers = new Set<FakeWorker>();
  #ready: (() => void)[] = [];
  #writes: (() => void)[] = [];

  constructor(maxQueues = 2) {
    this.maxQueues = maxQueues;
  }

  readConfig(offset: number, length: number): Uint8Array {
    assert.ok(offset >= 0 && length > 0 && offset + length <= this.configBytes);
    return this.config.slice(offset, offset + length);
  }

  /** Byte 32 alone is writable, to 0 and 1. */
  writeConfig(offset: number, bytes: Uint8Array, done: (accepted: boolean) => void): void {
    assert.ok(offset >= 0 && bytes.length > 0 && offset + bytes.length <= this.configBytes);
    const value = bytes[0] as number;
    const accepted = offset === 32 && bytes.length === 1 && value <= 1;
    const finish = (): void => {
      if (accepted) this.config[32] = value;
      done(accepted);
    };
    if (this.slowWrites) this.#writes.push(finish);
    else finish();
  }

  finishWrite(): void {
    for (const finish of this.#writes.splice(0)) finish();
  }

  start(features: bigint, ready: () => void, fresh: boolean): void {
    assert.equal(this.workers.size, 0, 'started with queues attached');
    this.calls.push(`start ${features.toString(16)}`);
    this.startedFresh = fresh;
    if (this.slow) this.#ready.push(ready);
    else ready();
  }

  becomeReady(): void {
    for (const ready of this.#ready.splice(0)) ready();
  }

  attach(index: number, queue: Virtqueue, host: QueueHost): QueueWorker {
    this.calls.push(`attach ${index}`);
    const worker = new FakeWorker(this, index, queue, host);
    this.workers.add(worker);
    return worker;
  }

  reset(done: () => void): void {
    assert.equal(this.workers.size, 0, 'reset with queues attached');
    this.calls.push('reset');
    done();
  }

  leave(): void {
    this.left = true;
  }

  end(): void {
    assert.ok(this.left, 'ended before it was left');
    assert.equal(this.workers.size, 0, 'ended with queues attached');
    this.calls.push('end');
  }

  /** Gives back what is held. */
  release(): void {
    for (const worker of this.workers) worker.release();
  }
}

class FakeWorker implements QueueWorker {
  readonly #device: FakeDevice;
  readonly #index: number;
  readonly #queue: Virtqueue;
  readonly #host: QueueHost;
  readonly #held: Chain[] = [];
  #detached: (() => void) | null = null;
  #leaving = false;
  #broken = false;

  constructor(device: FakeDevice, index: number, queue: Virtqueue, host: QueueHost) {
    this.#device = device;
    this.#index = index;
    this.#queue = queue;
    this.#host = host;
  }

  ready(): boolean {
    return !this.#leaving && !this.#broken && this.#queue.ready;
  }

  abandon(): void {
    this.#broken = true;
  }

  poll(): void {
    assert.ok(!this.#leaving, 'polled after detach');
    try {
      for (let chain = this.#queue.take(); chain !== null; chain = this.#queue.take()) {
        if (chain.readable.totalBytes >= 2) {
          const bytes = chain.readable.bytesAt(0);
          this.#device.executed.push((bytes[0] as number) | ((bytes[1] as number) << 8));
        }
        this.#held.push(chain);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#broken = true;
      this.#host.broken(error.message);
    }
    if (!this.#device.hold) this.release();
  }

  arm(): boolean {
    return !this.#broken && this.#queue.enableNotify();
  }

  disarm(): void {
    if (!this.#broken) this.#queue.disableNotify();
  }

  release(): void {
    for (const chain of this.#held.splice(0)) if (!this.#broken) this.#queue.give(chain, 0);
    if (!this.#broken && this.#queue.publish()) this.#host.interrupt();
    this.#leave();
  }

  detach(drained: () => void): void {
    assert.ok(!this.#leaving, 'detached twice');
    this.#leaving = true;
    this.#detached = drained;
    if (this.#held.length === 0) this.#leave();
  }

  #leave(): void {
    const detached = this.#detached;
    if (detached === null) return;
    this.#detached = null;
    this.#device.workers.delete(this);
    this.#device.calls.push(`detach ${this.#index}`);
    detached();
  }
}

export interface Reply {
  readonly request: number;
  readonly payload: Uint8Array;
  readonly descriptors: readonly number[];
}

/** A front-end of single messages, and the back-end at its other end. What both own is the rig's to check. */
export class Rig {
  readonly sharing: FakeSharing;
  readonly device: FakeDevice;
  readonly backend: VhostUserBackend;
  readonly replies: Reply[] = [];
  readonly logged: string[] = [];
  /** How often the back-end has ended. */
  ended = 0;
  /** The socket was closed by the back-end. */
  closed = false;
  #bytes = new Uint8Array(0);
  readonly #socket;
  readonly #owned: number[] = [];
  readonly #channels: DescriptorSocket[] = [];

  constructor(device = new FakeDevice(), sharing = new FakeSharing()) {
    this.sharing = sharing;
    this.device = device;
    const [socket, far] = sharing.pair();
    this.#socket = socket;
    socket.owner = {
      received: (bytes, descriptors) => this.#received(bytes, descriptors),
      ended: () => {
        this.closed = true;
      },
    };
    this.backend = new VhostUserBackend(
      {
        device,
        sharing: sharing satisfies Sharing,
        defer: (callback) => sharing.defer(callback),
        log: (line) => this.logged.push(line),
        ended: () => {
          this.ended += 1;
        },
      },
      sharing.adopt(far, 'unix /run/x.sock'),
    );
  }

  /** The far end of a new back-end channel, and what comes out of the near one. */
  channel(): { fd: number; told: string[]; close(): void } {
    const [socket, far] = this.sharing.pair();
    const told: string[] = [];
    socket.owner = {
      received: (bytes) => told.push(Buffer.from(bytes).toString('hex')),
      ended: () => told.push('ended'),
    };
    this.#channels.push(socket);
    return { fd: this.own(far), told, close: () => socket.close() };
  }

  /** Marks a descriptor as the front-end's: `leave` closes it. */
  own(fd: number): number {
    this.#owned.push(fd);
    return fd;
  }

  raw(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    this.rawLater(bytes, descriptors);
    this.sharing.run();
  }

  rawLater(bytes: Uint8Array, descriptors: readonly number[]): void {
    this.#socket.send(bytes, descriptors);
  }

  /** Sends one message and returns what came back meanwhile. */
  send(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly number[] = [],
    flags = 0,
  ): Reply[] {
    this.replies.length = 0;
    this.raw(encodeMessage(request, flags, payload), descriptors);
    return [...this.replies];
  }

  /** Sends a message that must be acknowledged with zero. */
  ok(request: number, payload?: Uint8Array, descriptors: readonly number[] = []): void {
    assert.equal(this.ack(request, payload, descriptors), 0n, requestName(request));
  }

  /** What a message is acknowledged with. */
  ack(request: number, payload?: Uint8Array, descriptors: readonly number[] = []): bigint {
    const replies = this.send(request, payload, descriptors, VHOST_USER_NEED_REPLY_MASK);
    assert.equal(replies.length, 1, `${requestName(request)}: ${this.logged.join('; ')}`);
    assert.equal(replies[0]?.request, request);
    return u64Of(replies[0]);
  }

  u64(request: number): bigint {
    const replies = this.send(request);
    assert.equal(replies.length, 1);
    return u64Of(replies[0]);
  }

  negotiate(features = SPLIT_FEATURES, protocol = ALL_PROTOCOL_FEATURES): void {
    this.send(VHOST_USER.SET_OWNER);
    this.send(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(protocol));
    this.ok(VHOST_USER.SET_FEATURES, encodeU64(features));
  }

  base(index: number): number {
    const replies = this.send(VHOST_USER.GET_VRING_BASE, encodeVringState({ index, num: 0 }));
    assert.equal(replies.length, 1, 'GET_VRING_BASE is answered');
    return (decodeVringState((replies[0] as Reply).payload) as { num: number }).num;
  }

  /** The front-end goes, and nothing has seen it yet. */
  hangUp(): void {
    this.#socket.close();
  }

  /** The front-end goes, and so does the back-end. */
  leaveQuietly(): void {
    this.#socket.close();
    this.sharing.run();
    assert.equal(this.ended, 1, 'the back-end has ended once');
    assert.equal(this.device.calls.at(-1), 'end');
    this.closeOwned();
  }

  /** The same, and nothing is left of either side, nor of anything else. */
  leave(): void {
    this.leaveQuietly();
    const none = { descriptors: 0, mappings: 0, watches: 0, pollers: 0 };
    assert.deepEqual(this.sharing.leaks, none);
  }

  closeOwned(): void {
    this.#socket.close();
    for (const channel of this.#channels.splice(0)) channel.close();
    for (const fd of this.#owned.splice(0)) this.sharing.closeDescriptor(fd);
  }

  #received(bytes: Uint8Array, descriptors: readonly number[]): void {
    this.#bytes = new Uint8Array(Buffer.concat([this.#bytes, bytes]));
    for (const fd of descriptors) this.own(fd);
    let pending = descriptors;
    while (this.#bytes.length >= SIZE.HEADER) {
      const { request, flags, size } = decodeHeader(this.#bytes);
      if (this.#bytes.length < SIZE.HEADER + size) break;
      assert.equal(flags, VHOST_USER_REPLY_MASK | VHOST_USER_VERSION);
      const payload = this.#bytes.slice(SIZE.HEADER, SIZE.HEADER + size);
      this.replies.push({ request, payload, descriptors: pending });
      pending = [];
      this.#bytes = this.#bytes.slice(SIZE.HEADER + size);
    }
  }
}

function u64Of(reply: Reply | undefined): bigint {
  const value = reply === undefined ? null : decodeU64(reply.payload);
  assert.ok(value !== null, 'an answer of 64 bits');
  return value;
}

export const GUEST = 0x1_0000_0000;
export const USER = 0x7f00_0000_0000;

/** A guest: memory behind a descriptor, and drivers of queues in it. */
export class Guest {
  readonly memory: DriverMemory;
  readonly fd: number;
  readonly region: RegionDescription;
  readonly #rig: Rig;
  readonly #features: bigint;

  constructor(rig: Rig, features = SPLIT_FEATURES, sizeBytes = 1 << 20) {
    this.#rig = rig;
    this.#features = features;
    this.fd = rig.own(rig.sharing.memory(sizeBytes));
    const shared = rig.sharing.map(this.fd, sizeBytes, 0);
    const { bytes } = shared.region;
    this.memory = new DriverMemory(new Region(0, bytes.buffer), GUEST, USER);
    shared.unmap();
    this.region = { guestAddress: GUEST, sizeBytes, userAddress: USER, mmapOffset: 0 };
  }

  share(): void {
    this.#rig.ok(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable([this.region]), [this.fd]);
  }

  queue(index = 0, size = 8): GuestQueue {
    return new GuestQueue(this.#rig, this.memory, this.#features, index, size);
  }

  /** The same queue goes on over another connection. */
  follow(rig: Rig, before: GuestQueue, base: number): GuestQueue {
    const { index, driver } = before;
    const queue = new GuestQueue(rig, this.memory, this.#features, index, driver.size, driver);
    queue.start(base);
    return queue;
  }
}

/** One queue's driver, and what the front-end says of it. */
export class GuestQueue {
  readonly driver: SplitDriver | PackedDriver;
  readonly index: number;
  readonly kick: number;
  readonly call: number;
  readonly err: number;
  readonly #rig: Rig;
  readonly #memory: DriverMemory;
  readonly #packed: boolean;

  constructor(
    rig: Rig,
    memory: DriverMemory,
    features: bigint,
    index: number,
    size: number,
    driver?: SplitDriver | PackedDriver,
  ) {
    this.#rig = rig;
    this.#memory = memory;
    this.index = index;
    this.#packed = hasFeature(features, VIRTIO_F.RING_PACKED);
    const eventIdx = hasFeature(features, VIRTIO_F.EVENT_IDX);
    const options = { memory, size, eventIdx, tableEntries: 4 };
    this.driver = driver ?? (this.#packed ? new PackedDriver(options) : new SplitDriver(options));
    this.kick = rig.own(rig.sharing.eventfd());
    this.call = rig.own(rig.sharing.eventfd());
    this.err = rig.own(rig.sharing.eventfd());
  }

  /** All that makes the ring run, in QEMU's order. */
  start(base?: number): void {
    this.describe(base);
    this.#rig.ok(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor(this.named()), [this.kick]);
    this.#rig.ok(VHOST_USER.SET_VRING_CALL, encodeVringDescriptor(this.named()), [this.call]);
    this.#rig.ok(VHOST_USER.SET_VRING_ERR, encodeVringDescriptor(this.named()), [this.err]);
    this.enable(true);
    this.#rig.sharing.rings(this.call);
  }

  describe(base = this.#packed ? 0x80008000 : 0): void {
    const { index } = this;
    this.#rig.ok(VHOST_USER.SET_VRING_NUM, encodeVringState({ index, num: this.driver.size }));
    this.#rig.ok(VHOST_USER.SET_VRING_BASE, encodeVringState({ index, num: base }));
    this.#rig.ok(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(this.address()));
  }

  address(): { index: number; flags: number; descriptor: number; used: number; available: number } {
    const { places } = this.driver;
    return {
      index: this.index,
      flags: 0,
      descriptor: this.#user(places.descriptors),
      used: this.#user(places.device),
      available: this.#user(places.driver),
    };
  }

  enable(on: boolean): void {
    const num = on ? 1 : 0;
    this.#rig.ok(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index: this.index, num }));
  }

  named(absent = false): { index: number; absent: boolean } {
    return { index: this.index, absent };
  }

  /** A chain that says its number, made available; kicked if the device asked for it. Returns its token. */
  submit(number: number): number {
    const buffer = this.#memory.allocate(16);
    this.#memory.bytes(buffer).set([number & 0xff, number >> 8]);
    const token = this.driver.add([buffer], [], false);
    assert.notEqual(token, -1);
    if (this.driver.publish()) this.#rig.sharing.signal(this.kick);
    return token;
  }

  /** Tokens that have come back. */
  used(): number[] {
    const tokens: number[] = [];
    for (let used = this.driver.take(); used !== null; used = this.driver.take()) {
      tokens.push(used.token);
    }
    return tokens;
  }

  #user(place: Place): number {
    return USER + place.start;
  }
}
