import assert from 'node:assert/strict';
import test from 'node:test';
import type { Timer, Timers } from '../../base/clock.ts';
import type { DescriptorSocket } from '../../reactor/sharing.ts';
import { VhostUserFrontend } from './frontend.ts';
import { type Message, MessageReader } from './frontend-messages.ts';
import { FakeSharing } from './testing.ts';
import {
  decodeU64,
  encodeConfig,
  encodeInflight,
  encodeMessage,
  encodeU64,
  requestName,
  VHOST_USER,
  VHOST_USER_BACKEND,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_PROTOCOL_F,
  VHOST_USER_REPLY_MASK,
} from './wire.ts';

const bit = (number: number): bigint => 1n << BigInt(number);
const PROTOCOL = bit(VHOST_USER_F_PROTOCOL_FEATURES);
const { REPLY_ACK, CONFIG, BACKEND_REQ, INFLIGHT_SHMFD, STATUS, LOG_SHMFD } = VHOST_USER_PROTOCOL_F;

/** Time that passes when a test says so. */
class FakeTimers implements Timers {
  #now = 0;
  readonly #waiting = new Set<{ at: number; callback: () => void }>();

  nowMs(): number {
    return this.#now;
  }

  after(delayMs: number, callback: () => void): Timer {
    const entry = { at: this.#now + delayMs, callback };
    this.#waiting.add(entry);
    return { cancel: () => this.#waiting.delete(entry) };
  }

  pass(ms: number): void {
    this.#now += ms;
    for (const entry of this.#waiting) {
      if (entry.at > this.#now) continue;
      this.#waiting.delete(entry);
      entry.callback();
    }
  }

  get waiting(): number {
    return this.#waiting.size;
  }
}

/** A front-end, and a back-end that answers as a test says. */
class Rig {
  readonly sharing = new FakeSharing();
  readonly timers = new FakeTimers();
  readonly lost: string[] = [];
  readonly asked: Message[] = [];
  changes = 0;
  /** The back-end's end. */
  readonly socket: DescriptorSocket;
  /** Descriptors that have come to the back-end. */
  readonly came: number[] = [];
  readonly frontend: VhostUserFrontend;
  features = PROTOCOL | 0x200n;
  protocolFeatures: bigint = bit(REPLY_ACK) | bit(CONFIG) | bit(STATUS) | bit(LOG_SHMFD);
  /** What the back-end says instead of its usual answer; null: nothing. */
  instead: ((message: Message) => Uint8Array | null | undefined) | null = null;

  constructor() {
    const [near, fd] = this.sharing.pair();
    this.socket = this.sharing.adopt(fd, 'front-end');
    const reader = new MessageReader();
    this.socket.owner = {
      received: (bytes, descriptors) => {
        reader.push(bytes, descriptors);
        for (let next = reader.next(); next !== null; next = reader.next()) this.#answer(next);
      },
      ended: () => this.socket.close(),
    };
    const host = {
      sharing: this.sharing,
      timers: this.timers,
      timeoutMs: 1000,
      lost: (reason: string) => this.lost.push(reason),
      configChanged: () => (this.changes += 1),
    };
    this.frontend = new VhostUserFrontend(host, near);
  }

  get names(): string[] {
    return this.asked.map(({ header }) => requestName(header.request));
  }

  /** Lets promises and messages go on until nothing happens any more. */
  async settle(): Promise<void> {
    for (let i = 0; i < 40; i += 1) {
      this.sharing.run();
      await Promise.resolve();
    }
  }

  async run<T>(work: Promise<T>): Promise<T> {
    const settled = work.finally(() => undefined);
    settled.catch(() => undefined);
    await this.settle();
    return settled;
  }

  async negotiated(): Promise<this> {
    await this.run(this.frontend.negotiate());
    return this;
  }

  reply(request: number, payload: Uint8Array, fds: readonly number[] = []): void {
    this.socket.send(encodeMessage(request, VHOST_USER_REPLY_MASK, payload), fds);
  }

  /** Everything is given back, on both sides. */
  async end(): Promise<void> {
    this.frontend.close();
    this.socket.close();
    for (const fd of this.came) this.sharing.closeDescriptor(fd);
    await this.settle();
    const nothing = { descriptors: 0, mappings: 0, watches: 0, pollers: 0 };
    assert.deepEqual(this.sharing.leaks, nothing);
    assert.equal(this.timers.waiting, 0);
  }

  #answer(message: Message): void {
    const { request, flags } = message.header;
    this.asked.push(message);
    this.came.push(...message.descriptors);
    const other = this.instead?.(message);
    if (other === null) return;
    if (other !== undefined) this.reply(request, other);
    else if (request === VHOST_USER.GET_FEATURES) this.reply(request, encodeU64(this.features));
    else if (request === VHOST_USER.GET_PROTOCOL_FEATURES) {
      this.reply(request, encodeU64(this.protocolFeatures));
    } else if ((flags & VHOST_USER_NEED_REPLY_MASK) !== 0) this.reply(request, encodeU64(0));
  }
}

test('negotiation takes what both sides have, and asks for acknowledgements from then on', async () => {
  const rig = await new Rig().negotiated();
  assert.deepEqual(rig.names, [
    'GET_FEATURES',
    'GET_PROTOCOL_FEATURES',
    'SET_PROTOCOL_FEATURES',
    'SET_OWNER',
  ]);
  const chosen = rig.asked[2] as Message;
  assert.equal(decodeU64(chosen.payload), bit(REPLY_ACK) | bit(CONFIG) | bit(STATUS));
  assert.equal(chosen.header.flags & VHOST_USER_NEED_REPLY_MASK, 0);
  const owner = rig.asked[3] as Message;
  assert.equal(owner.header.flags & VHOST_USER_NEED_REPLY_MASK, VHOST_USER_NEED_REPLY_MASK);
  await rig.run(rig.frontend.setFeatures(0x200n));
  assert.equal(decodeU64((rig.asked[4] as Message).payload), PROTOCOL | 0x200n);
  await rig.end();
});

test('without bit 30 there are no protocol features, and rings are not enabled by message', async () => {
  const rig = new Rig();
  rig.features = 0x200n;
  await rig.negotiated();
  await rig.run(rig.frontend.setFeatures(0x200n));
  await rig.run(rig.frontend.enableRing(0, true));
  await rig.run(rig.frontend.setStatus(1));
  assert.equal(await rig.run(rig.frontend.queueNum()), 1);
  assert.deepEqual(rig.names, ['GET_FEATURES', 'SET_OWNER', 'SET_FEATURES']);
  assert.equal(decodeU64((rig.asked[2] as Message).payload), 0x200n);
  await rig.end();
});

test('a refusal rejects the request that was refused, and the connection goes on', async () => {
  const rig = await new Rig().negotiated();
  rig.instead = ({ header }) =>
    header.request === VHOST_USER.SET_FEATURES ? encodeU64(1) : undefined;
  await assert.rejects(rig.run(rig.frontend.setFeatures(0n)), /refused SET_FEATURES/);
  await rig.run(rig.frontend.setStatus(1));
  assert.deepEqual(rig.lost, []);
  await rig.end();
});

test('no payload to GET_CONFIG is a refusal, and so is another size', async () => {
  const rig = await new Rig().negotiated();
  for (const answer of [new Uint8Array(0), encodeConfig(0, 0, new Uint8Array(4))]) {
    rig.instead = () => answer;
    await assert.rejects(rig.run(rig.frontend.getConfig(0, 8)), /does not give 8 bytes/);
  }
  rig.instead = () => encodeConfig(0, 0, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  assert.deepEqual([...(await rig.run(rig.frontend.getConfig(0, 8)))], [1, 2, 3, 4, 5, 6, 7, 8]);
  await rig.end();
});

test('an answer that does not come in time is the end', async () => {
  const rig = await new Rig().negotiated();
  rig.instead = () => null;
  const status = rig.run(rig.frontend.getStatus());
  const failed = assert.rejects(status, /no answer to GET_STATUS within 1000 ms/);
  await rig.settle();
  rig.timers.pass(1000);
  await failed;
  assert.equal(rig.lost.length, 1);
  await assert.rejects(rig.run(rig.frontend.getStatus()), /no answer/);
  await rig.end();
});

function header(request: number, flags: number, size: number): Uint8Array {
  const bytes = encodeMessage(request, 0);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, flags, true);
  view.setUint32(8, size, true);
  return bytes;
}

test('what nobody asked for, another version and what is too large end the connection', async () => {
  const malformed = {
    unasked: encodeMessage(VHOST_USER.GET_STATUS, VHOST_USER_REPLY_MASK, encodeU64(0)),
    'no reply': encodeMessage(VHOST_USER.GET_FEATURES, 0, encodeU64(0)),
    version: header(VHOST_USER.GET_FEATURES, 6, 0),
    size: header(VHOST_USER.GET_FEATURES, 5, 2 ** 31),
  };
  for (const [name, bytes] of Object.entries(malformed)) {
    const rig = new Rig();
    rig.instead = () => null;
    const negotiation = assert.rejects(rig.run(rig.frontend.negotiate()), Error, name);
    // Descriptors that nobody asked for are closed.
    const fd = rig.sharing.eventfd();
    rig.socket.send(bytes, [fd]);
    rig.came.push(fd);
    await negotiation;
    assert.equal(rig.lost.length, 1, name);
    await rig.end();
  }
});

test('an answer in single bytes is an answer', async () => {
  const rig = await new Rig().negotiated();
  rig.instead = () => null;
  const status = rig.run(rig.frontend.getStatus());
  await rig.settle();
  const answer = encodeMessage(VHOST_USER.GET_STATUS, VHOST_USER_REPLY_MASK, encodeU64(15));
  for (const byte of answer) rig.socket.send(Uint8Array.of(byte));
  await rig.settle();
  assert.equal(await status, 15);
  await rig.end();
});

test('the back-end may go: everything due is rejected, and it is told once', async () => {
  const rig = await new Rig().negotiated();
  rig.instead = () => null;
  const failed = assert.rejects(rig.run(rig.frontend.getStatus()), /closed the connection/);
  rig.socket.close();
  await failed;
  assert.deepEqual(rig.lost, ['the back-end closed the connection']);
  await rig.end();
});

test('the region for requests in flight comes with a descriptor, or not at all', async () => {
  const rig = new Rig();
  rig.protocolFeatures |= bit(INFLIGHT_SHMFD);
  await rig.negotiated();
  const description = { mmapSize: 4096, mmapOffset: 0, numQueues: 2, queueSize: 128 };
  rig.instead = () => encodeInflight(description);
  await assert.rejects(rig.run(rig.frontend.getInflight(2, 128)), /no in-flight region/);
  rig.instead = ({ header }) => {
    const fd = rig.sharing.memory(4096);
    rig.came.push(fd);
    rig.reply(header.request, encodeInflight(description), [fd]);
    return null;
  };
  const region = await rig.run(rig.frontend.getInflight(2, 128));
  assert.deepEqual(region.description, description);
  rig.instead = null;
  await rig.run(rig.frontend.setInflight(region));
  assert.equal(rig.names.at(-1), 'SET_INFLIGHT_FD');
  rig.sharing.closeDescriptor(region.fd);
  await rig.end();
});

test('the back-end’s channel: changes are told, the rest is refused, descriptors are closed', async () => {
  const rig = new Rig();
  rig.protocolFeatures |= bit(BACKEND_REQ);
  await rig.negotiated();
  assert.equal(rig.names.at(-1), 'SET_BACKEND_REQ_FD');
  const channel = rig.sharing.adopt(rig.came.pop() as number, 'front-end');
  const answers: (bigint | null)[] = [];
  const reader = new MessageReader();
  channel.owner = {
    received: (bytes, fds) => {
      reader.push(bytes, fds);
      for (let next = reader.next(); next !== null; next = reader.next()) {
        answers.push(decodeU64(next.payload));
      }
    },
    ended: () => channel.close(),
  };
  const fd = rig.sharing.eventfd();
  const { CONFIG_CHANGE_MSG, VRING_HOST_NOTIFIER_MSG } = VHOST_USER_BACKEND;
  channel.send(encodeMessage(CONFIG_CHANGE_MSG, 0));
  channel.send(encodeMessage(CONFIG_CHANGE_MSG, VHOST_USER_NEED_REPLY_MASK));
  channel.send(encodeMessage(VRING_HOST_NOTIFIER_MSG, VHOST_USER_NEED_REPLY_MASK), [fd]);
  rig.sharing.closeDescriptor(fd);
  await rig.settle();
  assert.equal(rig.changes, 2);
  assert.deepEqual(answers, [0n, 1n]);
  assert.deepEqual(rig.lost, []);
  await rig.end();
});
