import { VhostUserBackend } from '../../src/protocols/vhost-user/backend.ts';
import type { FakeSharing } from '../../src/protocols/vhost-user/testing.ts';
import {
  decodeHeader,
  decodeU64,
  decodeVringState,
  encodeInflight,
  encodeMemoryTable,
  encodeMessage,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  requestName,
  SIZE,
  VHOST_USER,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_PROTOCOL_F,
} from '../../src/protocols/vhost-user/wire.ts';
import type { VirtioDevice } from '../../src/protocols/virtio/device.ts';
import type { DescriptorSocket } from '../../src/reactor/sharing.ts';
import { fail } from './target.ts';
import type { Arena } from './virtio-arena.ts';
import type { HostileRing } from './virtio-rings.ts';

/** All that the back-end offers. */
export const PROTOCOL_FEATURES: bigint = [
  VHOST_USER_PROTOCOL_F.MQ,
  VHOST_USER_PROTOCOL_F.REPLY_ACK,
  VHOST_USER_PROTOCOL_F.CONFIG,
  VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F.RESET_DEVICE,
  VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F.STATUS,
].reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);

const NOTHING = new Uint8Array(0);

export interface Reply {
  readonly request: number;
  readonly payload: Uint8Array;
  readonly descriptors: readonly number[];
}

/** A front-end that keeps to the protocol, with one ring, whatever its guest does. */
export class Frontend {
  readonly backend: VhostUserBackend;
  readonly logged: string[] = [];
  readonly replies: Reply[] = [];
  /** What tracks requests in flight, as SET_INFLIGHT_FD says it. */
  inflight: { readonly payload: Uint8Array; readonly fd: number } | null = null;
  /** The back-end has closed. */
  closed = false;
  refusalsAllowed = false;
  /** How often it has ended. */
  ended = 0;
  readonly kick: number;
  readonly call: number;
  readonly err: number;
  readonly #sharing: FakeSharing;
  readonly #socket: DescriptorSocket;
  /** Lets happen what can happen. */
  readonly #settle: () => void;
  readonly #index: number;
  readonly #kicked: boolean;
  readonly #own: number[] = [];
  readonly #sockets: DescriptorSocket[] = [];
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(
    sharing: FakeSharing,
    device: VirtioDevice,
    { index, kicked, settle }: { index: number; kicked: boolean; settle: () => void },
  ) {
    this.#sharing = sharing;
    this.#settle = settle;
    this.#index = index;
    this.#kicked = kicked;
    const [near, far] = sharing.pair();
    this.#socket = near;
    near.owner = {
      received: (bytes, descriptors) => this.#received(bytes, descriptors),
      ended: () => {
        this.closed = true;
      },
    };
    this.backend = new VhostUserBackend(
      {
        device,
        sharing,
        defer: (callback) => sharing.defer(callback),
        log: (line) => this.logged.push(line),
        ended: () => {
          this.ended += 1;
        },
      },
      sharing.adopt(far, 'unix /run/x.sock'),
    );
    this.kick = this.own(sharing.eventfd());
    this.call = this.own(sharing.eventfd());
    this.err = this.own(sharing.eventfd());
  }

  /** A descriptor that is closed with the front-end. */
  own(fd: number): number {
    this.#own.push(fd);
    return fd;
  }

  /** Sends, and does not wait. */
  send(request: number, payload: Uint8Array = NOTHING, descriptors: readonly number[] = []): void {
    this.#socket.send(encodeMessage(request, VHOST_USER_NEED_REPLY_MASK, payload), descriptors);
  }

  /** Sends whatever it is. */
  sendBytes(bytes: Uint8Array, descriptors: readonly number[]): void {
    this.#socket.send(bytes, descriptors);
  }

  /** A socket that is closed with the front-end. */
  closes(socket: DescriptorSocket): void {
    this.#sockets.push(socket);
  }

  /** The answer to one message, after whatever has to happen before. */
  ask(request: number, payload?: Uint8Array, descriptors?: readonly number[]): Reply {
    this.replies.length = 0;
    this.send(request, payload, descriptors);
    this.#settle();
    const [reply] = this.replies;
    if (this.replies.length !== 1 || reply?.request !== request) {
      return fail(`${requestName(request)} has no answer: ${this.logged.join(' | ')}`);
    }
    return reply;
  }

  /** Sends, and must have a yes; or a no, where `refusalsAllowed`. */
  tell(request: number, payload?: Uint8Array, descriptors?: readonly number[]): void {
    const answer = decodeU64(this.ask(request, payload, descriptors).payload);
    if (answer !== 0n && !this.refusalsAllowed)
      fail(`${requestName(request)} was refused: ${this.logged.join(' | ')}`);
  }

  state(num: number): Uint8Array {
    return encodeVringState({ index: this.#index, num });
  }

  share(arena: Arena): void {
    const fds = arena.regions.map(() => arena.fd);
    this.tell(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable(arena.regions), fds);
  }

  /** Memory for requests in flight: asked for, and given back, as QEMU does. */
  shareInflight(queueSize: number): void {
    const asked = { mmapSize: 0, mmapOffset: 0, numQueues: this.#index + 1, queueSize };
    const { payload, descriptors } = this.ask(VHOST_USER.GET_INFLIGHT_FD, encodeInflight(asked));
    const [fd] = descriptors;
    if (fd === undefined) fail('no memory for requests in flight');
    this.inflight = { payload, fd };
    this.tell(VHOST_USER.SET_INFLIGHT_FD, payload, [fd]);
  }

  /** All that makes the ring run. */
  startRing(arena: Arena, ring: HostileRing): void {
    const { places } = ring;
    const address = {
      index: this.#index,
      flags: 0,
      descriptor: arena.user(places.descriptor),
      used: arena.user(places.used),
      available: arena.user(places.available),
    };
    this.tell(VHOST_USER.SET_VRING_NUM, this.state(ring.size));
    this.tell(VHOST_USER.SET_VRING_BASE, this.state(ring.base));
    this.tell(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address));
    this.startKick();
    this.tell(VHOST_USER.SET_VRING_CALL, this.#named(false), [this.call]);
    this.tell(VHOST_USER.SET_VRING_ERR, this.#named(false), [this.err]);
    this.tell(VHOST_USER.SET_VRING_ENABLE, this.state(1));
  }

  startKick(): void {
    const payload = this.#named(!this.#kicked);
    this.tell(VHOST_USER.SET_VRING_KICK, payload, this.#kicked ? [this.kick] : []);
  }

  #named(absent: boolean): Uint8Array {
    return encodeVringDescriptor({ index: this.#index, absent });
  }

  /** There is work, and the back-end hears of it. */
  notify(): void {
    if (this.#kicked) this.#sharing.signal(this.kick);
    else this.#sharing.turn();
  }

  status(): number {
    return Number(decodeU64(this.ask(VHOST_USER.GET_STATUS).payload));
  }

  /** Stops the ring. Where it is. */
  base(): number {
    const { payload } = this.ask(VHOST_USER.GET_VRING_BASE, this.state(0));
    return decodeVringState(payload)?.num ?? fail('no base');
  }

  /** The front-end goes. */
  leave(): void {
    this.#socket.close();
    this.#settle();
    for (const socket of this.#sockets.splice(0)) socket.close();
    for (const fd of this.#own.splice(0)) this.#sharing.closeDescriptor(fd);
    if (this.ended !== 1) fail(`the back-end has ended ${this.ended} times`);
  }

  #received(bytes: Uint8Array, descriptors: readonly number[]): void {
    this.#bytes = new Uint8Array(Buffer.concat([this.#bytes, bytes]));
    for (const fd of descriptors) this.own(fd);
    while (this.#bytes.length >= SIZE.HEADER) {
      const { request, size } = decodeHeader(this.#bytes);
      if (this.#bytes.length < SIZE.HEADER + size) return;
      const payload = this.#bytes.slice(SIZE.HEADER, SIZE.HEADER + size);
      this.replies.push({ request, payload, descriptors });
      this.#bytes = this.#bytes.slice(SIZE.HEADER + size);
    }
  }
}
