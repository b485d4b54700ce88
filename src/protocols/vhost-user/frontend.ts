import type { Timer, Timers } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { DescriptorSocket, DescriptorSocketOwner, Sharing } from '../../reactor/sharing.ts';
import { hasFeature } from '../virtio/virtio.ts';
import { BackendChannel } from './frontend-channel.ts';
import { type Message, MessageReader } from './frontend-messages.ts';
import {
  decodeConfig,
  decodeInflight,
  decodeU64,
  decodeVringState,
  encodeConfig,
  encodeInflight,
  encodeMemoryTable,
  encodeMessage,
  encodeSingleRegion,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  type InflightDescription,
  type RegionDescription,
  requestName,
  VHOST_SET_CONFIG_TYPE,
  VHOST_USER,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_PROTOCOL_F,
  VHOST_USER_REPLY_MASK,
} from './wire.ts';

/** What a front-end stands on. */
export interface FrontendHost {
  readonly sharing: Sharing;
  readonly timers: Timers;
  /** How long an answer may take, in milliseconds. */
  readonly timeoutMs: number;
  /** There is no connection any more: why. Called once, not after `close`. */
  lost(reason: string): void;
  /** The back-end says that the configuration space has changed. */
  configChanged(): void;
}

/** A ring as the back-end is told of it. Addresses are those of this process. */
export interface RingSetup {
  readonly size: number;
  /** As QueueOptions.base (src/protocols/virtio/virtqueue.ts). */
  readonly base: number;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  /** eventfd(2)s; they stay the caller's. */
  readonly kick: number;
  readonly call: number;
}

/** The region that the back-end keeps its requests in flight in [vhost-user "Inflight I/O tracking"]. */
export interface InflightRegion {
  /** The caller's to close. */
  readonly fd: number;
  readonly description: InflightDescription;
}

interface Exchange {
  readonly request: number;
  readonly timer: Timer;
  resolve(message: Message): void;
  reject(error: Error): void;
}

/** What this front-end can do, as protocol feature bits. */
const WANTED_PROTOCOL_FEATURES: readonly number[] = [
  VHOST_USER_PROTOCOL_F.MQ,
  VHOST_USER_PROTOCOL_F.REPLY_ACK,
  VHOST_USER_PROTOCOL_F.BACKEND_REQ,
  VHOST_USER_PROTOCOL_F.CONFIG,
  VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F.RESET_DEVICE,
  VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F.STATUS,
];

/** All that this front-end can do: what `negotiate` takes. */
export const FRONTEND_PROTOCOL_FEATURES: bigint = WANTED_PROTOCOL_FEATURES.reduce(
  (mask, bit) => mask | (1n << BigInt(bit)),
  0n,
);

/**
 * The front-end's side of one vhost-user connection: the messages, one method each, for any device type. Every method
 * that returns a promise rejects when the back-end refuses, breaks the protocol, takes too long or is gone.
 *
 * Where REPLY_ACK is negotiated every request asks for its acknowledgement, so that a refusal is seen where it happens.
 * Elsewhere a request that has no answer of its own resolves when it is sent.
 */
export class VhostUserFrontend implements DescriptorSocketOwner {
  /** What the back-end offers, bit 30 included. Valid after `negotiate`. */
  offered = 0n;
  /** The protocol features in use. Valid after `negotiate`. */
  protocolFeatures = 0n;

  readonly #host: FrontendHost;
  readonly #socket: DescriptorSocket;
  readonly #reader: MessageReader = new MessageReader();
  /** Requests whose answers are due, in the order they were made: answers come in it too. */
  readonly #exchanges: Exchange[] = [];
  #channel: BackendChannel | null = null;
  #over: string | null = null;

  constructor(host: FrontendHost, socket: DescriptorSocket) {
    this.#host = host;
    this.#socket = socket;
    socket.owner = this;
  }

  /** Why there is no connection, or null. */
  get over(): string | null {
    return this.#over;
  }

  hasProtocolFeature(bit: number): boolean {
    return hasFeature(this.protocolFeatures, bit);
  }

  /** Asks for features, agrees on protocol features among `wanted` and takes the device. The first call. */
  async negotiate(wanted: bigint = FRONTEND_PROTOCOL_FEATURES): Promise<void> {
    this.offered = await this.#askU64(VHOST_USER.GET_FEATURES);
    if (hasFeature(this.offered, VHOST_USER_F_PROTOCOL_FEATURES)) {
      const offered = await this.#askU64(VHOST_USER.GET_PROTOCOL_FEATURES);
      const chosen = offered & wanted & FRONTEND_PROTOCOL_FEATURES;
      // Not yet in force for this very message.
      await this.#tell(VHOST_USER.SET_PROTOCOL_FEATURES, encodeU64(chosen));
      this.protocolFeatures = chosen;
    }
    await this.#tell(VHOST_USER.SET_OWNER);
    if (this.hasProtocolFeature(VHOST_USER_PROTOCOL_F.BACKEND_REQ)) await this.#openChannel();
  }

  /** `features`: the device's and the rings'. Bit 30 is added where protocol features are in use. */
  setFeatures(features: bigint): Promise<void> {
    const own = 1n << BigInt(VHOST_USER_F_PROTOCOL_FEATURES);
    return this.#tell(VHOST_USER.SET_FEATURES, encodeU64(features | (this.offered & own)));
  }

  /** How many queues the back-end has; 1 where it cannot say. */
  async queueNum(): Promise<number> {
    if (!this.hasProtocolFeature(VHOST_USER_PROTOCOL_F.MQ)) return 1;
    return Number(await this.#askU64(VHOST_USER.GET_QUEUE_NUM));
  }

  /** Device status bits [virtio 2.1]. Does nothing where the back-end does not follow them. */
  async setStatus(status: number): Promise<void> {
    if (!this.hasProtocolFeature(VHOST_USER_PROTOCOL_F.STATUS)) return;
    await this.#tell(VHOST_USER.SET_STATUS, encodeU64(status));
  }

  /** Device status bits, or null where the back-end does not follow them. */
  async getStatus(): Promise<number | null> {
    if (!this.hasProtocolFeature(VHOST_USER_PROTOCOL_F.STATUS)) return null;
    return Number(await this.#askU64(VHOST_USER.GET_STATUS));
  }

  /** `size` bytes of the configuration space from `offset` on. */
  async getConfig(offset: number, size: number): Promise<Uint8Array> {
    const request = encodeConfig(offset, 0, new Uint8Array(size));
    const { payload } = await this.#ask(VHOST_USER.GET_CONFIG, request);
    // "uses zero length of payload to indicate an error" [vhost-user "VHOST_USER_GET_CONFIG"]
    const config = decodeConfig(payload);
    if (config === null || config.size !== size) {
      throw new Error(`the back-end does not give ${size} bytes of configuration at ${offset}`);
    }
    return config.payload;
  }

  /** Writes to the configuration space. Resolves when the change holds, where the back-end acknowledges. */
  setConfig(offset: number, bytes: Uint8Array): Promise<void> {
    const request = encodeConfig(offset, VHOST_SET_CONFIG_TYPE.FRONTEND, bytes);
    return this.#tell(VHOST_USER.SET_CONFIG, request);
  }

  /** Shares memory: a descriptor for each region. */
  async setMemory(regions: readonly RegionDescription[], fds: readonly number[]): Promise<void> {
    if (!this.hasProtocolFeature(VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS)) {
      await this.#tell(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(regions), fds);
      return;
    }
    for (const [i, region] of regions.entries()) {
      const fd = fds[i] as number;
      await this.#tell(VHOST_USER.ADD_MEM_REG, encodeSingleRegion(region), [fd]);
    }
  }

  /** Asks for a new region to track requests in. Only with INFLIGHT_SHMFD. */
  async getInflight(numQueues: number, queueSize: number): Promise<InflightRegion> {
    const wish = { mmapSize: 0, mmapOffset: 0, numQueues, queueSize };
    const answer = await this.#ask(VHOST_USER.GET_INFLIGHT_FD, encodeInflight(wish), [], 1);
    const description = decodeInflight(answer.payload);
    const [fd] = answer.descriptors;
    if (fd === undefined) throw new Error('the back-end gave no in-flight region');
    if (description === null || description.mmapSize === 0) {
      this.#host.sharing.closeDescriptor(fd);
      throw new Error('the back-end gave an in-flight region of no size');
    }
    return { fd, description };
  }

  /** Hands the region (back). */
  setInflight({ fd, description }: InflightRegion): Promise<void> {
    return this.#tell(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(description), [fd]);
  }

  /** Describes a ring and starts it. With protocol features it is disabled until `enableRing`. */
  async setRing(index: number, ring: RingSetup): Promise<void> {
    await this.#tell(VHOST_USER.SET_VRING_NUM, encodeVringState({ index, num: ring.size }));
    await this.#tell(VHOST_USER.SET_VRING_BASE, encodeVringState({ index, num: ring.base }));
    const address = {
      index,
      flags: 0,
      descriptor: ring.descriptors,
      available: ring.driver,
      used: ring.device,
    };
    await this.#tell(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address));
    const which = encodeVringDescriptor({ index, absent: false });
    await this.#tell(VHOST_USER.SET_VRING_CALL, which, [ring.call]);
    await this.#tell(VHOST_USER.SET_VRING_KICK, which, [ring.kick]);
  }

  /** Does nothing where protocol features are not in use: rings are enabled when they start. */
  async enableRing(index: number, enabled: boolean): Promise<void> {
    if (!hasFeature(this.offered, VHOST_USER_F_PROTOCOL_FEATURES)) return;
    const state = encodeVringState({ index, num: enabled ? 1 : 0 });
    await this.#tell(VHOST_USER.SET_VRING_ENABLE, state);
  }

  /** Stops a ring. Everything the back-end has taken from it is done. Resolves with where it stands (RingSetup.base). */
  async stopRing(index: number): Promise<number> {
    const wish = encodeVringState({ index, num: 0 });
    const { payload } = await this.#ask(VHOST_USER.GET_VRING_BASE, wish);
    const state = decodeVringState(payload);
    if (state === null) throw new Error('a malformed answer to GET_VRING_BASE');
    return state.num;
  }

  /** Only with RESET_DEVICE. */
  resetDevice(): Promise<void> {
    return this.#tell(VHOST_USER.RESET_DEVICE);
  }

  /** Ends the connection. Answers still due are rejected. */
  close(): void {
    if (this.#over === null) this.#end('closed');
  }

  received(bytes: Uint8Array, descriptors: readonly number[]): void {
    this.#reader.push(bytes, descriptors);
    try {
      while (this.#over === null) {
        const message = this.#reader.next();
        if (message === null) return;
        this.#take(message);
      }
    } catch (error) {
      this.#lose(`the back-end broke the protocol: ${messageOf(error)}`);
    }
  }

  ended(error: string | null): void {
    this.#lose(error ?? 'the back-end closed the connection');
  }

  async #openChannel(): Promise<void> {
    const { sharing } = this.#host;
    const [socket, fd] = sharing.pair();
    const replyAck = this.hasProtocolFeature(VHOST_USER_PROTOCOL_F.REPLY_ACK);
    const host = {
      configChanged: () => this.#host.configChanged(),
      broken: (reason: string) => this.#lose(reason),
    };
    this.#channel = new BackendChannel(sharing, socket, host, replyAck);
    try {
      await this.#tell(VHOST_USER.SET_BACKEND_REQ_FD, new Uint8Array(0), [fd]);
    } finally {
      sharing.closeDescriptor(fd);
    }
  }

  async #askU64(request: number): Promise<bigint> {
    const { payload } = await this.#ask(request);
    const value = decodeU64(payload);
    if (value === null) throw new Error(`a malformed answer to ${requestName(request)}`);
    return value;
  }

  /** A request with an answer of its own, which has at most `descriptors` of them. */
  async #ask(
    request: number,
    payload?: Uint8Array,
    fds: readonly number[] = [],
    descriptors = 0,
  ): Promise<Message> {
    const answer = await this.#exchange(request, 0, payload, fds);
    for (const fd of answer.descriptors.slice(descriptors)) this.#host.sharing.closeDescriptor(fd);
    return { ...answer, descriptors: answer.descriptors.slice(0, descriptors) };
  }

  /** A request without an answer of its own. */
  async #tell(request: number, payload?: Uint8Array, fds: readonly number[] = []): Promise<void> {
    if (!this.hasProtocolFeature(VHOST_USER_PROTOCOL_F.REPLY_ACK)) {
      if (this.#over !== null) throw new Error(this.#over);
      this.#send(request, 0, payload, fds);
      return;
    }
    const answer = await this.#exchange(request, VHOST_USER_NEED_REPLY_MASK, payload, fds);
    for (const fd of answer.descriptors) this.#host.sharing.closeDescriptor(fd);
    const code = decodeU64(answer.payload);
    if (code === null) throw new Error(`a malformed answer to ${requestName(request)}`);
    if (code !== 0n) throw new Error(`the back-end refused ${requestName(request)} (${code})`);
  }

  #exchange(
    request: number,
    flags: number,
    payload: Uint8Array | undefined,
    fds: readonly number[],
  ): Promise<Message> {
    if (this.#over !== null) return Promise.reject(new Error(this.#over));
    const { timeoutMs, timers } = this.#host;
    return new Promise((resolve, reject) => {
      const timer = timers.after(timeoutMs, () => {
        this.#lose(`no answer to ${requestName(request)} within ${timeoutMs} ms`);
      });
      this.#exchanges.push({ request, timer, resolve, reject });
      this.#send(request, flags, payload, fds);
    });
  }

  #send(
    request: number,
    flags: number,
    payload: Uint8Array | undefined,
    fds: readonly number[],
  ): void {
    this.#socket.send(encodeMessage(request, flags, payload), fds);
  }

  #take(message: Message): void {
    const { header } = message;
    const exchange = this.#exchanges[0];
    const isReply = (header.flags & VHOST_USER_REPLY_MASK) !== 0;
    if (exchange === undefined || header.request !== exchange.request || !isReply) {
      for (const fd of message.descriptors) this.#host.sharing.closeDescriptor(fd);
      this.#lose(`the back-end sent ${requestName(header.request)}, which nobody asked for`);
      return;
    }
    this.#exchanges.shift();
    exchange.timer.cancel();
    exchange.resolve(message);
    letEventLoopRun();
  }

  #lose(reason: string): void {
    if (this.#over !== null) return;
    this.#end(reason);
    this.#host.lost(reason);
  }

  #end(reason: string): void {
    this.#over = reason;
    this.#channel?.close();
    this.#socket.close();
    for (const fd of this.#reader.takeDescriptors()) this.#host.sharing.closeDescriptor(fd);
    for (const exchange of this.#exchanges.splice(0)) {
      exchange.timer.cancel();
      exchange.reject(new Error(reason));
    }
    letEventLoopRun();
  }
}
