import assert from 'node:assert/strict';
import test from 'node:test';
import type { Reactor } from '../../reactor/reactor.ts';
import { FakeDevice, GUEST, USER } from '../../protocols/vhost-user/test-rig.ts';
import { FakeSharing } from '../../protocols/vhost-user/testing.ts';
import {
  encodeConfig,
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  VHOST_USER,
} from '../../protocols/vhost-user/wire.ts';
import { DriverMemory } from '../../protocols/virtio/driver/driver-memory.ts';
import { SplitDriver } from '../../protocols/virtio/driver/split-driver.ts';
import { VIRTIO_F } from '../../protocols/virtio/virtio.ts';
import { Region } from '../../block/memory.ts';
import type { DescriptorSocket } from '../../reactor/sharing.ts';
import type { FaceContext } from './face.ts';
import { VhostUserPlace } from './vhost-user-place.ts';

// Who comes to a place while another front-end is, or was, there.

const PATH = '/run/x.sock';

/** A place on a reactor whose time goes on when a test says so. */
class PlaceRig {
  readonly sharing = new FakeSharing();
  readonly devices: FakeDevice[] = [];
  readonly lines: string[] = [];
  readonly place: VhostUserPlace;
  readonly #timers = new Set<() => void>();

  constructor() {
    const reactor: Pick<Reactor, 'nowMs' | 'after' | 'defer'> = {
      nowMs: () => 0,
      after: (_delayMs, callback) => {
        this.#timers.add(callback);
        return { cancel: () => this.#timers.delete(callback) };
      },
      defer: (callback) => this.sharing.defer(callback),
    };
    const log = (line: string): void => {
      this.lines.push(line);
    };
    const context = { reactor, log, warn: log, placeOver: () => {} };
    this.place = new VhostUserPlace({
      name: PATH,
      context: context as unknown as FaceContext,
      sharing: this.sharing,
      makeDevice: () => {
        const device = new FakeDevice();
        this.devices.push(device);
        return device;
      },
    });
  }

  /** All timers are due. */
  pass(): void {
    const due = [...this.#timers];
    this.#timers.clear();
    for (const callback of due) callback();
    this.sharing.run();
  }

  async connect(): Promise<Caller> {
    const socket = await this.sharing.connect(PATH);
    const caller = new Caller(this.sharing, socket);
    this.sharing.run();
    return caller;
  }
}

class Caller {
  readonly socket: DescriptorSocket;
  answers = 0;
  refused = false;
  readonly #sharing: FakeSharing;

  constructor(sharing: FakeSharing, socket: DescriptorSocket) {
    this.#sharing = sharing;
    this.socket = socket;
    socket.owner = {
      received: () => (this.answers += 1),
      ended: () => (this.refused = true),
    };
  }

  say(request: number, payload: Uint8Array = new Uint8Array(0), fds: readonly number[] = []): void {
    this.socket.send(encodeMessage(request, 0, payload), fds);
    this.#sharing.run();
  }

  /** A ring with one request in it, as a front-end of before protocol features sets it up. */
  ring(): void {
    const fd = this.#sharing.memory(1 << 16);
    const { region } = this.#sharing.map(fd, 1 << 16, 0);
    const memory = new DriverMemory(new Region(0, region.bytes.buffer), GUEST, USER);
    const driver = new SplitDriver({ memory, size: 8, eventIdx: false, tableEntries: 4 });
    driver.add([memory.allocate(16)], [], false);
    driver.publish();
    const { descriptors, device, driver: available } = driver.places;
    const table = { guestAddress: GUEST, userAddress: USER, sizeBytes: 1 << 16, mmapOffset: 0 };
    this.say(VHOST_USER.SET_FEATURES, encodeU64(1n << BigInt(VIRTIO_F.VERSION_1)));
    this.say(VHOST_USER.SET_MEM_TABLE, encodeMemoryTable([table]), [fd]);
    this.say(VHOST_USER.SET_VRING_NUM, encodeVringState({ index: 0, num: 8 }));
    const address = {
      index: 0,
      flags: 0,
      descriptor: USER + descriptors.start,
      used: USER + device.start,
      available: USER + available.start,
    };
    this.say(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address));
    const kick = this.#sharing.eventfd();
    this.say(VHOST_USER.SET_VRING_KICK, encodeVringDescriptor({ index: 0, absent: false }), [kick]);
  }
}

test('a successor of a front-end that went while its message waited is served at once', async () => {
  const at = new PlaceRig();
  await at.place.listen(PATH);
  const first = await at.connect();
  (at.devices[0] as FakeDevice).slowWrites = true;
  first.say(VHOST_USER.SET_CONFIG, encodeConfig(32, 0, Uint8Array.of(0)));
  first.socket.close();
  at.sharing.run();
  assert.equal((at.devices[0] as FakeDevice).left, false, 'nothing is received meanwhile');
  const second = await at.connect();
  second.say(VHOST_USER.GET_FEATURES);
  assert.deepEqual([second.answers, second.refused], [1, false]);
});

test('a successor waits for what its predecessor left in flight, however long that takes', async () => {
  const at = new PlaceRig();
  await at.place.listen(PATH);
  const first = await at.connect();
  const device = at.devices[0] as FakeDevice;
  device.hold = true;
  first.ring();
  assert.equal(device.executed.length, 1);
  first.socket.close();
  at.sharing.run();
  assert.ok(device.left);
  const second = await at.connect();
  second.say(VHOST_USER.GET_FEATURES);
  for (let i = 0; i < 3; i += 1) at.pass();
  assert.deepEqual([second.answers, second.refused], [0, false]);
  assert.equal(at.lines.length, 1, 'said once');
  assert.match(at.lines.join(), /waits: requests of the front-end before it are still in flight/);
  device.release();
  at.sharing.run();
  assert.deepEqual([second.answers, second.refused], [1, false]);
});

test('who comes while another is there is refused after a moment', async () => {
  const at = new PlaceRig();
  await at.place.listen(PATH);
  const first = await at.connect();
  const second = await at.connect();
  at.pass();
  assert.ok(second.refused && !first.refused);
  assert.match(at.lines.join(), /refused: another front-end is connected/);
});
