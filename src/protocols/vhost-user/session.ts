import { ProtocolError } from '../../base/errors.ts';
import type { Sharing } from '../../reactor/sharing.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { MAX_QUEUE_SIZE } from '../virtio/limits.ts';
import { hasFeature, VIRTIO_CONFIG_S, VIRTIO_F } from '../virtio/virtio.ts';
import { BackendChannel } from './backend-channel.ts';
import { bitsNotOffered, offeredFeatures, PROTOCOL_FEATURES } from './features.ts';
import { InflightArea } from './inflight.ts';
import { MAX_MEMORY_SLOTS, MAX_QUEUES } from './limits.ts';
import type { Change } from './memory-table.ts';
import { MemoryTable } from './memory-table.ts';
import type { Message } from './messages.ts';
import { Rings } from './rings.ts';
import type { Vring } from './vring.ts';
import {
  decodeConfig,
  decodeInflight,
  decodeMemoryTable,
  decodeSingleRegion,
  decodeU64,
  decodeVringAddress,
  decodeVringDescriptor,
  decodeVringState,
  encodeConfig,
  encodeInflight,
  encodeU64,
  encodeVringState,
  VHOST_SET_CONFIG_TYPE,
  VHOST_USER,
  VHOST_USER_PROTOCOL_F,
} from './wire.ts';

/** How a message is answered: exactly one of these, once, in time. */
export interface Answer {
  /** With the request's own reply. The descriptors are closed afterwards. */
  reply(payload: Uint8Array, descriptors?: readonly number[]): void;
  /** Done: zero, if an answer was asked for [vhost-user "VHOST_USER_PROTOCOL_F_REPLY_ACK"]. */
  done(): void;
  /** Not done, and that is no breach of the protocol: not zero, if an answer was asked for. */
  failed(): void;
  /** The message must not be: not zero if an answer was asked for, and the end of the connection otherwise. */
  refuse(why: string): void;
  /** As `refuse`, and the end in any case. */
  end(why: string): void;
}

export interface SessionContext {
  readonly device: VirtioDevice;
  readonly sharing: Sharing;
  /** Names the front-end. */
  readonly peer: string;
  defer(callback: () => void): void;
  /** One line about the front-end or its guest. */
  log(what: string): void;
  /** `idle` is to be called soon, unless a message is being worked on. */
  wake(): void;
}

type Handler = (message: Message, answer: Answer) => void;

/** What the front-end has set up so far, and what its messages do to it. One message is worked on at a time. */
export class Session {
  readonly #context: SessionContext;
  readonly #device: VirtioDevice;
  readonly #rings: Rings;
  readonly #table: MemoryTable;
  readonly #channel: BackendChannel;
  readonly #offered: bigint;
  #protocolFeatures = 0n;
  #status = 0;
  /** An in-flight region was made on this connection: the one that is set then is that. */
  #madeLog = false;
  /** The configuration has changed, and the front-end has not been told. */
  #configChanged = false;
  readonly #handlers: ReadonlyMap<number, Handler>;
  readonly #onConfigChange: () => void;

  constructor(context: SessionContext) {
    const { device, sharing } = context;
    this.#context = context;
    this.#device = device;
    this.#offered = offeredFeatures(device.offered);
    this.#table = new MemoryTable(sharing);
    this.#channel = new BackendChannel(sharing);
    this.#onConfigChange = () => {
      this.#configChanged = true;
      context.wake();
    };
    device.onConfigChange = this.#onConfigChange;
    const broken = (why: string): void => {
      context.log(`${why}; the device needs a reset`);
      // A driver that is under way is told by a configuration change [virtio 2.1.2].
      this.#onConfigChange();
    };
    const defer = (callback: () => void): void => context.defer(callback);
    const running = (): void => context.wake();
    this.#rings = new Rings({ device, sharing, defer, broken, running }, this.#table.memory);
    this.#handlers = this.#makeHandlers();
  }

  get replyAck(): boolean {
    return hasFeature(this.#protocolFeatures, VHOST_USER_PROTOCOL_F.REPLY_ACK);
  }

  /**
   * Works on one message; `answer` perhaps later. Descriptors that it does not take from the message are the caller's.
   * Throws a ProtocolError for a payload that is not the message's, and whatever the kernel refuses.
   */
  handle(message: Message, answer: Answer): void {
    const handler = this.#handlers.get(message.request);
    if (handler === undefined) answer.refuse('is not offered');
    else handler(message, answer);
  }

  /**
   * No message is being worked on. QEMU fetches the configuration only when it is told of a change, and only while the
   * device runs, so the news waits for that.
   */
  idle(): void {
    if (!this.#configChanged || !this.#channel.open) return;
    if (!this.#rings.running && !this.#rings.needsReset) return;
    this.#configChanged = false;
    this.#channel.configChanged();
  }

  /** Lets go of the rings, after what is in flight, and of everything else. */
  end(done: () => void): void {
    if (this.#device.onConfigChange === this.#onConfigChange) this.#device.onConfigChange = null;
    this.#channel.close();
    this.#rings.end(() => {
      this.#table.close();
      done();
    });
  }

  /** What is in flight is never given back to the driver. `end` follows. */
  abandon(): void {
    this.#rings.abandon();
  }

  #makeHandlers(): ReadonlyMap<number, Handler> {
    return new Map<number, Handler>([
      [
        VHOST_USER.GET_FEATURES,
        (message, answer) => this.#replyU64(message, answer, this.#offered),
      ],
      [VHOST_USER.SET_FEATURES, (message, answer) => this.#setFeatures(message, answer)],
      [VHOST_USER.SET_OWNER, ignored],
      // "It is recommended that back-ends either ignore this message, or use it to disable all rings."
      [VHOST_USER.RESET_OWNER, ignored],
      [VHOST_USER.SET_MEM_TABLE, (message, answer) => this.#setMemoryTable(message, answer)],
      [VHOST_USER.SET_VRING_NUM, (message, answer) => this.#setVringNum(message, answer)],
      [VHOST_USER.SET_VRING_ADDR, (message, answer) => this.#setVringAddress(message, answer)],
      [VHOST_USER.SET_VRING_BASE, (message, answer) => this.#setVringBase(message, answer)],
      [VHOST_USER.GET_VRING_BASE, (message, answer) => this.#getVringBase(message, answer)],
      [VHOST_USER.SET_VRING_KICK, (message, answer) => this.#setVringKick(message, answer)],
      [VHOST_USER.SET_VRING_CALL, (message, answer) => this.#setVringCall(message, answer)],
      [VHOST_USER.SET_VRING_ERR, (message, answer) => this.#setVringErr(message, answer)],
      [
        VHOST_USER.GET_PROTOCOL_FEATURES,
        (message, answer) => this.#replyU64(message, answer, PROTOCOL_FEATURES),
      ],
      [
        VHOST_USER.SET_PROTOCOL_FEATURES,
        (message, answer) => this.#setProtocolFeatures(message, answer),
      ],
      [
        VHOST_USER.GET_QUEUE_NUM,
        (message, answer) => this.#replyU64(message, answer, this.#device.maxQueues),
      ],
      [VHOST_USER.SET_VRING_ENABLE, (message, answer) => this.#setVringEnable(message, answer)],
      [VHOST_USER.SET_BACKEND_REQ_FD, (message, answer) => this.#setChannel(message, answer)],
      [VHOST_USER.GET_CONFIG, (message, answer) => this.#getConfig(message, answer)],
      [VHOST_USER.SET_CONFIG, (message, answer) => this.#setConfig(message, answer)],
      [VHOST_USER.GET_INFLIGHT_FD, (message, answer) => this.#getInflight(message, answer)],
      [VHOST_USER.SET_INFLIGHT_FD, (message, answer) => this.#setInflight(message, answer)],
      [VHOST_USER.RESET_DEVICE, (_message, answer) => this.#reset(answer)],
      [
        VHOST_USER.GET_MAX_MEM_SLOTS,
        (message, answer) => this.#replyU64(message, answer, MAX_MEMORY_SLOTS),
      ],
      [VHOST_USER.ADD_MEM_REG, (message, answer) => this.#addRegion(message, answer)],
      [VHOST_USER.REM_MEM_REG, (message, answer) => this.#removeRegion(message, answer)],
      [VHOST_USER.SET_STATUS, (message, answer) => this.#setStatus(message, answer)],
      [
        VHOST_USER.GET_STATUS,
        (message, answer) => this.#replyU64(message, answer, this.#statusNow()),
      ],
    ]);
  }

  // Features.

  #replyU64(message: Message, answer: Answer, value: bigint | number): void {
    if (message.payload.length > 0) throw malformed(message);
    answer.reply(encodeU64(value));
  }

  #setFeatures(message: Message, answer: Answer): void {
    const features = decoded(message, decodeU64);
    const unknown = bitsNotOffered(features, this.#offered);
    if (unknown !== '') {
      answer.end(`feature bits that were not offered: ${unknown}`);
      return;
    }
    if (features === this.#rings.features) {
      answer.done();
      return;
    }
    // Another driver, or a ring that was enabled because of what was negotiated: all of them are looked at anew.
    this.#rings.detachAll(() => {
      this.#rings.features = features;
      this.#resumed(answer);
    });
  }

  #setProtocolFeatures(message: Message, answer: Answer): void {
    const features = decoded(message, decodeU64);
    const unknown = bitsNotOffered(features, PROTOCOL_FEATURES);
    if (unknown !== '') {
      answer.end(`protocol feature bits that were not offered: ${unknown}`);
      return;
    }
    this.#protocolFeatures = features;
    answer.done();
  }

  // Memory.

  #setMemoryTable(message: Message, answer: Answer): void {
    const regions = decoded(message, decodeMemoryTable);
    const descriptors = message.takeAll();
    this.#changeMemory(answer, descriptors, () => this.#table.replace(regions, descriptors));
  }

  #addRegion(message: Message, answer: Answer): void {
    const region = decoded(message, decodeSingleRegion);
    const descriptor = taken(message);
    this.#changeMemory(answer, [descriptor], () => this.#table.add(region, descriptor));
  }

  #removeRegion(message: Message, answer: Answer): void {
    const region = decoded(message, decodeSingleRegion);
    this.#changeMemory(answer, [], () => this.#table.remove(region));
  }

  /** A mapping outlives its descriptor, so descriptors are closed at once. */
  #changeMemory(answer: Answer, descriptors: readonly number[], prepare: () => Change): void {
    let change;
    try {
      change = prepare();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      answer.refuse(error.message);
      return;
    } finally {
      for (const fd of descriptors) this.#context.sharing.closeDescriptor(fd);
    }
    this.#rings.detachAll(() => {
      change.commit();
      this.#rings.memory = this.#table.memory;
      this.#resumed(answer);
    });
  }

  // Rings.

  #setVringNum(message: Message, answer: Answer): void {
    const { index, num } = decoded(message, decodeVringState);
    const vring = this.#vring(index, answer);
    if (vring === null) return;
    if (num === 0 || num > MAX_QUEUE_SIZE) {
      answer.refuse(`${num} entries`);
      return;
    }
    this.#changeVring(vring, answer, () => {
      vring.size = num;
    });
  }

  #setVringAddress(message: Message, answer: Answer): void {
    const address = decoded(message, decodeVringAddress);
    const vring = this.#vring(address.index, answer);
    if (vring === null) return;
    // Of the flags there is VHOST_VRING_F_LOG only, which is for VHOST_F_LOG_ALL.
    this.#changeVring(vring, answer, () => {
      vring.address = address;
    });
  }

  #setVringBase(message: Message, answer: Answer): void {
    const { index, num } = decoded(message, decodeVringState);
    const vring = this.#vring(index, answer);
    if (vring === null) return;
    this.#changeVring(vring, answer, () => {
      vring.base = num;
    });
  }

  /** Stops the ring: after this the front-end may touch it, and nothing of ours does. */
  #getVringBase(message: Message, answer: Answer): void {
    const { index } = decoded(message, decodeVringState);
    const vring = this.#vring(index, answer);
    if (vring === null) return;
    this.#rings.detach(vring, () => {
      vring.stop();
      const num = vring.base ?? vring.baseAtReset ?? 0;
      answer.reply(encodeVringState({ index, num }));
    });
  }

  #setVringKick(message: Message, answer: Answer): void {
    const { index, absent } = decoded(message, decodeVringDescriptor);
    const vring = this.#vring(index, answer);
    if (vring === null) return;
    const descriptor = absent ? null : taken(message);
    this.#changeVring(vring, answer, () => {
      vring.setKick(descriptor);
      // The text has the first kick start it. But who kicks first and sends the descriptor then may not kick again.
      vring.started = true;
      vring.brokenBy = null;
    });
  }

  #setVringCall(message: Message, answer: Answer): void {
    const { index, absent } = decoded(message, decodeVringDescriptor);
    const vring = this.#vring(index, answer);
    if (vring === null) return;
    vring.setCall(absent ? null : taken(message));
    answer.done();
  }

  #setVringErr(message: Message, answer: Answer): void {
    const { index, absent } = decoded(message, decodeVringDescriptor);
    const vring = this.#vring(index, answer);
    if (vring === null) return;
    vring.setErr(absent ? null : taken(message));
    answer.done();
  }

  /** A disabled ring is drained: front-ends that pause a guest count on it. */
  #setVringEnable(message: Message, answer: Answer): void {
    const { index, num } = decoded(message, decodeVringState);
    const vring = this.#vring(index, answer);
    if (vring === null) return;
    if (num > 1) {
      answer.refuse(`${num} is neither 0 nor 1`);
      return;
    }
    if (num === 1) {
      vring.enabled = true;
      this.#resumed(answer);
      return;
    }
    vring.enabled = false;
    this.#rings.detach(vring, () => answer.done());
  }

  #vring(index: number, answer: Answer): Vring | null {
    const vring = this.#rings.vrings[index];
    if (vring !== undefined) return vring;
    answer.refuse(`there is no ring ${index}`);
    return null;
  }

  #changeVring(vring: Vring, answer: Answer, change: () => void): void {
    this.#rings.detach(vring, () => {
      change();
      this.#resumed(answer);
    });
  }

  #resumed(answer: Answer): void {
    const failure = this.#rings.resume();
    if (failure === null) answer.done();
    else answer.failed();
  }

  // Requests in flight.

  #getInflight(message: Message, answer: Answer): void {
    const asked = decoded(message, decodeInflight);
    const packed = hasFeature(this.#rings.features ?? 0n, VIRTIO_F.RING_PACKED);
    if (!this.#hasQueues(asked.numQueues, answer)) return;
    const { area, fd, description } = InflightArea.create(this.#context.sharing, asked, packed);
    this.#madeLog = true;
    this.#useInflight(area, () => {
      answer.reply(encodeInflight(description, message.payload.length), [fd]);
    });
  }

  #setInflight(message: Message, answer: Answer): void {
    const description = decoded(message, decodeInflight);
    if (!this.#hasQueues(description.numQueues, answer)) return;
    const fd = taken(message);
    let area;
    try {
      area = InflightArea.adopt(this.#context.sharing, fd, description);
    } finally {
      this.#context.sharing.closeDescriptor(fd);
    }
    this.#useInflight(area, () => {
      this.#rings.inflightIsOlder = !this.#madeLog;
      this.#resumed(answer);
    });
  }

  #useInflight(area: InflightArea, then: () => void): void {
    this.#rings.detachAll(() => {
      this.#rings.dropInflight();
      this.#rings.inflight = area;
      then();
    });
  }

  /** Front-ends may ask for fewer queues than there are, as QEMU does with num-queues. */
  #hasQueues(numQueues: number, answer: Answer): boolean {
    if (numQueues <= Math.min(this.#device.maxQueues, MAX_QUEUES)) return true;
    answer.refuse(`there are no ${numQueues} queues`);
    return false;
  }

  // The device.

  /** What lies behind the device's own fields reads as zero: front-ends ask for more than a device's features have. */
  #getConfig(message: Message, answer: Answer): void {
    const { offset, size, flags } = decoded(message, decodeConfig);
    const payload = new Uint8Array(size);
    const length = Math.min(size, this.#device.configBytes - offset);
    if (length > 0) payload.set(this.#device.readConfig(offset, length));
    answer.reply(encodeConfig(offset, flags, payload));
  }

  #setConfig(message: Message, answer: Answer): void {
    const { offset, size, flags, payload } = decoded(message, decodeConfig);
    // Both types set writable fields only: a migration has no other state of ours to carry.
    if (flags !== VHOST_SET_CONFIG_TYPE.FRONTEND && flags !== VHOST_SET_CONFIG_TYPE.MIGRATION) {
      answer.refuse(`flags ${flags}`);
      return;
    }
    if (size === 0 || offset + size > this.#device.configBytes) {
      answer.refuse(`${size} bytes at ${offset} of ${this.#device.configBytes}`);
      return;
    }
    this.#device.writeConfig(offset, payload, (accepted) => {
      if (accepted) answer.done();
      else answer.failed();
    });
  }

  #setStatus(message: Message, answer: Answer): void {
    const status = Number(decoded(message, decodeU64) & 0xffn);
    if (status === 0) {
      this.#reset(answer);
      return;
    }
    // FEATURES_OK stays set when it is [virtio 3.1.1]: features that were not offered have ended the connection.
    this.#status = status & ~VIRTIO_CONFIG_S.DEVICE_NEEDS_RESET;
    answer.done();
  }

  #statusNow(): number {
    return this.#status | (this.#rings.needsReset ? VIRTIO_CONFIG_S.DEVICE_NEEDS_RESET : 0);
  }

  /**
   * RESET_DEVICE, and status 0 [virtio 2.1]. The memory table stays: QEMU sends only what has changed of it. The
   * in-flight region goes: "QEMU should retrieve a new one when vm reset" [vhost-user "VHOST_USER_GET_INFLIGHT_FD"], and
   * one that is to be gone on with is sent again before the rings are.
   */
  #reset(answer: Answer): void {
    this.#rings.reset(() => {
      this.#status = 0;
      answer.done();
    });
  }

  #setChannel(message: Message, answer: Answer): void {
    this.#channel.use(taken(message), `${this.#context.peer} (back-end channel)`);
    answer.done();
  }
}

function ignored(_message: Message, answer: Answer): void {
  answer.done();
}

function decoded<T>(message: Message, decode: (payload: Uint8Array) => T | null): T {
  const value = decode(message.payload);
  if (value === null) throw malformed(message);
  return value;
}

function malformed(message: Message): ProtocolError {
  return new ProtocolError(
    `a payload of ${message.payload.length} bytes is malformed`,
    'Message Specification',
  );
}

function taken(message: Message): number {
  const descriptor = message.take();
  if (descriptor === null) throw new ProtocolError('no descriptor came with it', 'Communication');
  return descriptor;
}
