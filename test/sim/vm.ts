import type { Prng } from '../../src/base/prng.ts';
import { VIRTIO_BLK_CONFIG, VIRTIO_BLK_F } from '../../src/protocols/virtio/blk.ts';
import { SplitDriver } from '../../src/protocols/virtio/driver/split-driver.ts';
import { splitRegionBytes } from '../../src/protocols/virtio/inflight-split.ts';
import { RING } from '../../src/protocols/virtio/split-ring.ts';
import { hasFeature, VIRTIO_F } from '../../src/protocols/virtio/virtio.ts';
import {
  decodeConfig,
  decodeInflight,
  decodeVringState,
  encodeConfig,
  encodeInflight,
  encodeMemoryTable,
  encodeSingleRegion,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  type InflightDescription,
  SIZE,
  VHOST_USER,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_PROTOCOL_F,
} from '../../src/protocols/vhost-user/wire.ts';
import { FrontEndLine, type Reply, type Script, u64Of } from './front-end-line.ts';
import { forgetRequests, GuestDriver, type GuestQueue, type Machine } from './guest.ts';
import { GuestRam, type Stick } from './guest-memory.ts';
import { type Oracle } from './oracle.ts';
import { newSession, type Op, type OracleSession } from './ops.ts';
import { SimEnd, SimMemory } from './shared.ts';
import type { VmPlan } from './vm-scenario.ts';

/** What a virtual machine needs of the world. */
export interface VmHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly maxTransferBytes: number;
  /** Mode `unsafe`: no flush is offered. */
  readonly ignoresFlush: boolean;
  nextOp(): number;
  nextSession(): number;
  later(ms: number, callback: () => void): void;
  wantsMore(): boolean;
  trace(line: string): void;
  /** The byte that this machine has to be told now. */
  trueByte(vm: Vm): number;
  /** The server has closed the socket: whether it may have. Reconnects if the machine goes on. */
  lost(vm: Vm, answered: boolean): void;
  /** The machine is gone. */
  over(vm: Vm): void;
}

const RAM_BYTES = 1 << 18;
const PLUGGED_BYTES = 1 << 16;
const STATUS_ALL = 15;
const WRITEBACK = VIRTIO_BLK_CONFIG.writeback;

type Task = () => Script<void>;

/** A virtual machine: a front-end of vhost-user, and a guest with a driver. It outlives servers, if it can. */
export class Vm implements Machine {
  readonly plan: VmPlan;
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly maxTransferBytes: number;
  readonly ram: GuestRam;
  driver: GuestDriver | null = null;
  /** What the last driver was known as; a reset that nobody is told of goes on with it. */
  session: OracleSession | null = null;
  dead = false;
  readonly #host: VmHost;
  #line: FrontEndLine | null = null;
  /** The front-end's copy of the `writeback` byte. */
  #copy: number | null = null;
  #log: { memory: SimMemory; description: InflightDescription } | null = null;
  #tasks: Task[] = [];
  /** What the next driver negotiates, if that is settled. */
  #nextFeatures: bigint | null = null;
  #offered = 0n;
  #protocol = 0n;
  #queues = 1;
  #known: Stick[] = [];
  #leaving = false;
  /** A driver waits for the answer to its write of the byte. */
  #switching = false;

  constructor(host: VmHost, plan: VmPlan) {
    this.#host = host;
    this.plan = plan;
    this.oracle = host.oracle;
    this.prng = host.prng;
    this.sectors = host.sectors;
    this.maxTransferBytes = host.maxTransferBytes;
    this.ram = new GuestRam(host.prng, RAM_BYTES);
  }

  // Machine

  nextOp(): number {
    return this.#host.nextOp();
  }

  wantsMore(): boolean {
    return this.#host.wantsMore();
  }

  later(ms: number, callback: () => void): void {
    const { driver } = this;
    this.#host.later(ms, () => {
      if (!this.dead && this.driver === driver) callback();
    });
  }

  answered(): void {
    const { plan, prng } = this;
    if (prng.chance(plan.deaths)) this.die();
    else if (prng.chance(plan.resets)) this.#do(() => this.#reset());
    else if (prng.chance(plan.pauses)) this.#do(() => this.#pause());
    else if (prng.chance(plan.switches)) this.#do(() => this.#switch());
    else if (prng.chance(plan.looks)) this.#do(() => this.#look());
    else if (prng.chance(plan.plugs)) this.#do(() => this.#plug());
  }

  idle(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    if (this.prng.chance(0.5)) this.die();
    else this.#do(() => this.#leave());
  }

  /** For a mistake: writes into the log of a split ring whether a head is in flight. */
  markLog(index: number, head: number, value: 0 | 1): void {
    const driver = this.driver?.queues[index]?.driver;
    if (this.#log === null || !(driver instanceof SplitDriver)) return;
    const part = splitRegionBytes(this.plan.queueSize);
    new Uint8Array(this.#log.memory.buffer)[index * part + 16 * (1 + head)] = value;
  }

  // Connections.

  /** A new connection to a server. */
  connected(end: SimEnd): void {
    const again = this.#line !== null;
    if (again && this.session !== null) this.oracle.reconnected(this.session);
    this.#known = [];
    this.#leaving = false;
    // The server that reset it is gone.
    if (this.driver?.over === true) this.#forgetDriver(null);
    if (again) for (const queue of this.driver?.queues ?? []) queue.base = null;
    const line = new FrontEndLine(end, {
      prng: this.prng,
      delayMs: this.plan.delayMs,
      later: (ms, callback) => this.#host.later(ms, callback),
      fail: (text) => this.oracle.fail(text),
      lost: () => this.#lost(line),
      configChanged: () => this.#do(() => this.#configChanged()),
    });
    this.#line = line;
    line.run(this.#life());
  }

  #lost(line: FrontEndLine): void {
    if (this.dead || this.#line !== line) return;
    if (this.driver !== null) {
      this.driver.paused = true;
      // A switch that was under way has failed, and a driver reads what the front-end has.
      if (this.#switching && !this.driver.over && this.#copy !== null) this.#believe(this.#copy);
      this.#switching = false;
    }
    this.#host.lost(this, line.answered);
    if (this.driver !== null && this.#log === null && line.answered) this.die();
  }

  /** The process is gone, and the guest with it. */
  die(): void {
    if (this.dead) return;
    this.#host.trace('a virtual machine is gone');
    this.dead = true;
    if (this.session !== null) this.oracle.gone(this.session);
    this.driver?.end();
    this.#line?.close();
    this.#host.over(this);
  }

  #do(task: Task): void {
    if (this.dead) return;
    this.#tasks.push(task);
    this.#line?.wake();
  }

  *#life(): Script<void> {
    yield* this.#greet();
    for (;;) {
      if (this.driver === null) yield* this.#begin();
      yield* this.#start();
      while (this.driver !== null) {
        const task = this.#tasks.shift();
        if (task === undefined) yield { kind: 'idle' };
        else yield* task();
      }
    }
  }

  get #wire(): FrontEndLine {
    return this.#line as FrontEndLine;
  }

  *#greet(): Script<void> {
    yield { kind: 'send', request: VHOST_USER.SET_OWNER };
    this.#offered = u64Of(yield* this.#wire.ask(VHOST_USER.GET_FEATURES));
    if (hasFeature(this.#offered, VIRTIO_BLK_F.FLUSH) === this.#host.ignoresFlush) {
      this.oracle.fail(`P8: FLUSH is ${this.#host.ignoresFlush ? '' : 'not '}offered`);
    }
    const protocol = u64Of(yield* this.#wire.ask(VHOST_USER.GET_PROTOCOL_FEATURES));
    this.#protocol = protocol & ~this.#unwanted();
    const set = VHOST_USER.SET_PROTOCOL_FEATURES;
    yield { kind: 'send', request: set, payload: encodeU64(this.#protocol) };
    this.#queues = Number(u64Of(yield* this.#wire.ask(VHOST_USER.GET_QUEUE_NUM)));
    if (this.#has(VHOST_USER_PROTOCOL_F.BACKEND_REQ)) yield* this.#wire.openChannel();
    // QEMU reads when it starts, and not when it reconnects.
    if (this.plan.kind === 'refreshes' || (this.plan.kind === 'copies' && this.#copy === null)) {
      this.#copy = yield* this.#readByte();
    }
  }

  #has(bit: number): boolean {
    return hasFeature(this.#protocol, bit);
  }

  #unwanted(): bigint {
    const { channel, inflight, status, memorySlots } = this.plan;
    const bits: number[] = [];
    if (!channel) bits.push(VHOST_USER_PROTOCOL_F.BACKEND_REQ);
    if (!inflight) bits.push(VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD);
    if (!status) bits.push(VHOST_USER_PROTOCOL_F.STATUS);
    if (!memorySlots) bits.push(VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS);
    return bits.reduce((all, bit) => all | (1n << BigInt(bit)), 0n);
  }

  // Drivers.

  *#begin(): Script<void> {
    const features = this.#nextFeatures ?? this.#choose();
    const goesOn = this.#nextFeatures !== null && this.session !== null;
    this.#nextFeatures = null;
    if (!goesOn) {
      const facts = { peerKey: 'unix', resumable: false, flushes: false };
      this.session = newSession({ id: this.#host.nextSession(), ...facts });
      this.session.survives = this.#has(VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD);
      this.oracle.opened(this.session);
    }
    for (const stick of this.ram.sticks) {
      stick.reuse();
      forgetRequests(stick.memory);
    }
    const many = hasFeature(features, VIRTIO_BLK_F.MQ);
    const queues = many ? 1 + this.prng.below(this.#queues) : 1;
    const session = this.session as OracleSession;
    const byte = yield* this.#driverReads();
    this.driver = new GuestDriver(this, features, session, queues);
    this.#believe(byte);
    this.#host.trace(`session ${session.id}: a driver with features ${features.toString(16)}`);
  }

  #choose(): bigint {
    const { prng } = this;
    const bits: number[] = [];
    const maybe = (bit: number, share: number): void => {
      if (prng.chance(share)) bits.push(bit);
    };
    const modern = prng.chance(0.85);
    if (modern) bits.push(VIRTIO_F.VERSION_1);
    if (modern) maybe(VIRTIO_F.RING_PACKED, 0.4);
    maybe(VIRTIO_F.EVENT_IDX, 0.6);
    maybe(VIRTIO_F.INDIRECT_DESC, 0.6);
    maybe(VIRTIO_BLK_F.FLUSH, 0.8);
    maybe(VIRTIO_BLK_F.CONFIG_WCE, 0.7);
    maybe(VIRTIO_BLK_F.MQ, 0.7);
    maybe(VIRTIO_BLK_F.DISCARD, 0.8);
    maybe(VIRTIO_BLK_F.WRITE_ZEROES, 0.8);
    maybe(VIRTIO_BLK_F.BARRIER, 0.3);
    maybe(VIRTIO_BLK_F.REQ_FLAGS, 0.7);
    maybe(VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA, 0.8);
    bits.push(VHOST_USER_F_PROTOCOL_FEATURES);
    return this.#offered & bits.reduce((all, bit) => all | (1n << BigInt(bit)), 0n);
  }

  /** Sets the rings up, anew or where they stood. */
  *#start(): Script<void> {
    const driver = this.driver as GuestDriver;
    const wire = this.#wire;
    yield* wire.must(VHOST_USER.SET_FEATURES, encodeU64(driver.features));
    yield* this.#shareMemory();
    for (const stick of this.ram.sticks) stick.known = true;
    if (this.#has(VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD)) yield* this.#shareLog(driver);
    for (const queue of driver.queues) yield* this.#startQueue(queue);
    for (const { index } of driver.queues) {
      yield* wire.must(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index, num: 1 }));
    }
    if (this.#has(VHOST_USER_PROTOCOL_F.STATUS)) {
      yield* wire.must(VHOST_USER.SET_STATUS, encodeU64(STATUS_ALL));
      const status = u64Of(yield* wire.ask(VHOST_USER.GET_STATUS));
      if (status !== BigInt(STATUS_ALL)) this.oracle.fail(`the device status is ${status}`);
    }
    driver.run();
  }

  *#shareMemory(): Script<void> {
    const sticks = this.ram.sticks.filter((stick) => !stick.retiring || stick.held > 0);
    const { prng } = this;
    if (this.#has(VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS)) {
      for (const stick of sticks) {
        if (this.#known.includes(stick)) continue;
        const payload = encodeSingleRegion(stick.description);
        yield* this.#wire.must(VHOST_USER.ADD_MEM_REG, payload, [stick.memory]);
        this.#known.push(stick);
      }
      return;
    }
    if (prng.chance(0.5)) sticks.reverse();
    const table = encodeMemoryTable(sticks.map(({ description }) => description));
    const memories = sticks.map(({ memory }) => memory);
    yield* this.#wire.must(VHOST_USER.SET_MEM_TABLE, table, memories);
    this.#known = sticks;
  }

  *#shareLog(driver: GuestDriver): Script<void> {
    if (this.#log === null) {
      const asked = { mmapSize: 0, mmapOffset: 0 };
      const sizes = { numQueues: driver.queues.length, queueSize: this.plan.queueSize };
      const length = this.prng.chance(0.5) ? SIZE.INFLIGHT : SIZE.INFLIGHT_PADDED;
      const payload = encodeInflight({ ...asked, ...sizes }, length);
      const { payload: answer, things } = yield* this.#wire.ask(
        VHOST_USER.GET_INFLIGHT_FD,
        payload,
      );
      const [memory] = things;
      const description = decodeInflight(answer);
      if (!(memory instanceof SimMemory) || description === null) {
        this.oracle.fail('no in-flight region');
      }
      this.#log = { memory, description };
    }
    const { memory, description } = this.#log;
    yield* this.#wire.must(VHOST_USER.SET_INFLIGHT_FD, encodeInflight(description), [memory]);
  }

  *#startQueue(queue: GuestQueue): Script<void> {
    const { index, driver } = queue;
    const wire = this.#wire;
    const { places } = driver;
    const user = (start: number): number => this.ram.first.description.userAddress + start;
    const address = {
      index,
      flags: 0,
      descriptor: user(places.descriptors.start),
      used: user(places.device.start),
      available: user(places.driver.start),
    };
    const base = queue.base ?? unknownBase(queue);
    yield* wire.must(VHOST_USER.SET_VRING_NUM, encodeVringState({ index, num: driver.size }));
    yield* wire.must(VHOST_USER.SET_VRING_BASE, encodeVringState({ index, num: base }));
    yield* wire.must(VHOST_USER.SET_VRING_ADDR, encodeVringAddress(address));
    const absent = this.plan.unkicked;
    const kick = encodeVringDescriptor({ index, absent });
    yield* wire.must(VHOST_USER.SET_VRING_KICK, kick, absent ? [] : [queue.kick]);
    const call = encodeVringDescriptor({ index, absent: false });
    yield* wire.must(VHOST_USER.SET_VRING_CALL, call, [queue.call]);
    queue.base = null;
  }

  // What happens to a machine that runs.

  /** All rings stand still, and nothing touches the guest's memory. `last` when the last of them does. */
  *#stopRings(last: () => void): Script<void> {
    const { queues } = this.driver as GuestDriver;
    for (const queue of queues) {
      const { index } = queue;
      const payload = encodeVringState({ index, num: 0 });
      const told = queue === queues.at(-1) ? last : (): void => {};
      const reply = yield* this.#wire.ask(VHOST_USER.GET_VRING_BASE, payload, told);
      queue.base = (decodeVringState(reply.payload) as { num: number }).num;
    }
  }

  *#pause(): Script<void> {
    const driver = this.driver as GuestDriver;
    driver.paused = true;
    if (this.prng.chance(0.3)) {
      for (const num of [0, 1]) {
        for (const { index } of driver.queues) {
          yield* this.#wire.must(VHOST_USER.SET_VRING_ENABLE, encodeVringState({ index, num }));
        }
        yield { kind: 'pause', ms: this.prng.float() * 10 };
      }
      driver.run();
      return;
    }
    yield* this.#stopRings(() => {});
    yield { kind: 'pause', ms: this.prng.float() * 20 };
    yield* this.#start();
  }

  /** The next driver is another one, and the device is reset before; requests may be under way. */
  *#reset(): Script<void> {
    const driver = this.driver as GuestDriver;
    driver.paused = true;
    const { resetStyle } = this.plan;
    const silent = resetStyle === 'silent';
    // Nothing shows the server that another driver is at work, if that wants the same.
    const same = silent && this.prng.chance(0.4);
    const over = (): void => this.#driverOver(driver, same);
    this.#host.trace(`session ${driver.session.id}: reset (${resetStyle})`);
    if (resetStyle !== 'first') yield* this.#stopRings(silent ? over : () => {});
    if (!silent) {
      const status = resetStyle === 'status' && this.#has(VHOST_USER_PROTOCOL_F.STATUS);
      const request = status ? VHOST_USER.SET_STATUS : VHOST_USER.RESET_DEVICE;
      yield* this.#wire.must(request, status ? encodeU64(0) : undefined, [], over);
      if (resetStyle === 'first') yield* this.#stopRings(() => {});
    }
    this.#forgetDriver(same ? driver.features : null);
  }

  #forgetDriver(nextFeatures: bigint | null): void {
    this.driver = null;
    this.#log = null;
    this.#nextFeatures = nextFeatures;
  }

  #driverOver(driver: GuestDriver, same: boolean): void {
    const left: Op[] = driver.end();
    this.oracle.reset(driver.session, left, !same);
  }

  #believe(byte: number): void {
    const driver = this.driver as GuestDriver;
    if (!driver.has(VIRTIO_BLK_F.CONFIG_WCE)) return;
    // What it asked while it believed otherwise is in the rings before.
    driver.publish();
    driver.cached = byte === 1;
    this.oracle.believes(driver.session, byte === 0);
  }

  /** What a driver gets that reads the byte. */
  *#driverReads(): Script<number> {
    return this.#copy ?? (yield* this.#readByte());
  }

  *#readByte(): Script<number> {
    const whole = this.prng.chance(0.5);
    const offset = whole ? 0 : WRITEBACK;
    const payload = encodeConfig(offset, 0, new Uint8Array(whole ? 60 : 1));
    const byteOf = (bytes: Uint8Array): number =>
      decodeConfig(bytes)?.payload[WRITEBACK - offset] as number;
    const judge = (answer: Uint8Array): void => {
      const byte = byteOf(answer);
      if (!this.oracle.blind && byte !== this.#host.trueByte(this)) {
        this.oracle.fail(`P12: writeback is told as ${byte}, and that is not so`);
      }
    };
    const reply: Reply = yield* this.#wire.ask(VHOST_USER.GET_CONFIG, payload, judge);
    return byteOf(reply.payload);
  }

  /** A driver writes the byte, and reads it again, as Linux does. */
  *#switch(): Script<void> {
    const driver = this.driver as GuestDriver;
    if (!driver.has(VIRTIO_BLK_F.CONFIG_WCE)) return;
    const value = this.prng.chance(0.5) ? 1 : 0;
    this.#host.trace(`session ${driver.session.id}: switches the write cache to ${value}`);
    if (value !== this.#copy) {
      // Who asks for a cache counts on nothing from here on.
      if (value === 1) this.oracle.believes(driver.session, false);
      const payload = encodeConfig(WRITEBACK, 0, Uint8Array.of(value));
      const told = (answer: Uint8Array): void => {
        if (value === 0 && u64Of({ payload: answer, things: [] }) === 0n) this.#believe(0);
      };
      this.#switching = true;
      const reply = yield* this.#wire.acknowledged(VHOST_USER.SET_CONFIG, payload, [], told);
      this.#switching = false;
      if (reply === 0n && this.plan.kind !== 'asks') this.#copy = value;
    }
    this.#believe(yield* this.#driverReads());
  }

  *#look(): Script<void> {
    this.#believe(yield* this.#driverReads());
  }

  /** The front-end reads again; the guest may look, too. */
  *#configChanged(): Script<void> {
    if (this.plan.kind === 'asks') {
      if (this.prng.chance(0.7)) yield* this.#look();
      return;
    }
    const byte = yield* this.#readByte();
    if (this.plan.kind === 'refreshes') this.#copy = byte;
    if (this.prng.chance(0.3)) yield { kind: 'pause', ms: this.prng.float() * 5 };
    if (this.prng.chance(0.5)) yield* this.#look();
  }

  /** Memory comes or goes while the rings run. */
  *#plug(): Script<void> {
    const slots = this.#has(VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS);
    const { sticks } = this.ram;
    if (sticks.length < 3) {
      const stick = this.ram.plug(PLUGGED_BYTES);
      yield* this.#shareMemory();
      stick.known = true;
      return;
    }
    const stick = sticks[1] as Stick;
    stick.retiring = true;
    if (stick.held > 0) return;
    if (slots && this.#known.includes(stick)) {
      const payload = encodeSingleRegion(stick.description);
      yield* this.#wire.must(VHOST_USER.REM_MEM_REG, payload);
      this.#known = this.#known.filter((other) => other !== stick);
    } else if (!slots) yield* this.#shareMemory();
    this.ram.pull(stick);
  }

  *#leave(): Script<void> {
    const driver = this.driver as GuestDriver;
    driver.paused = true;
    yield* this.#stopRings(() => {});
    this.die();
  }
}

/** Where a ring stands whose server is gone: QEMU takes the used index; a packed ring has none, and its log knows. */
function unknownBase({ driver }: GuestQueue): number {
  if (!(driver instanceof SplitDriver)) return 0x80008000;
  const { region, start } = driver.places.device;
  return region.view.getUint16(start + 2 * RING.idx, true);
}
