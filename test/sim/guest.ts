import type { Prng } from '../../src/base/prng.ts';
import { messageOf } from '../../src/base/errors.ts';
import {
  BLK_HEADER_BYTES,
  BLK_RANGE_BYTES,
  VIRTIO_BLK_F,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_REQ_FLAG,
  VIRTIO_BLK_S,
  VIRTIO_BLK_T,
} from '../../src/protocols/virtio/blk.ts';
import { PackedDriver } from '../../src/protocols/virtio/driver/packed-driver.ts';
import { SplitDriver } from '../../src/protocols/virtio/driver/split-driver.ts';
import { hasFeature, VIRTIO_F } from '../../src/protocols/virtio/virtio.ts';
import type { Chain } from '../../src/protocols/virtio/virtqueue.ts';
import { fill, freePiece, gather, type GuestRam, type Piece } from './guest-memory.ts';
import { fillSector, readSector, SECTOR_BYTES } from './media.ts';
import { type Oracle } from './oracle.ts';
import { type Kind, Op, type OracleSession } from './ops.ts';
import { SimEventfd, SimMemory } from './shared.ts';
import type { VmPlan } from './vm-scenario.ts';

export const SIM_SERIAL = 'simulated';
/** Buffers of a chain in an indirect table. */
const TABLE_ENTRIES = 8;
const EIO = 5;
/** Parts of a request that are with the store together (MAX_PARTS of virtio-blk). */
const PARTS = 4;

/** One request of a guest, where it lies in its memory until it is answered. */
export class GuestRequest {
  readonly op: Op;
  readonly queue: GuestQueue;
  readonly readable: readonly Piece[];
  readonly writable: readonly Piece[];
  /** The driver can see that it is used. */
  visible = false;

  constructor(op: Op, queue: GuestQueue, readable: readonly Piece[], writable: readonly Piece[]) {
    this.op = op;
    this.queue = queue;
    this.readable = readable;
    this.writable = writable;
  }

  get place(): Piece {
    return this.readable[0] as Piece;
  }
}

const REQUESTS = new WeakMap<SimMemory, Map<number, GuestRequest>>();

function tableOf(memory: SimMemory): Map<number, GuestRequest> {
  const table = REQUESTS.get(memory) ?? new Map<number, GuestRequest>();
  REQUESTS.set(memory, table);
  return table;
}

/** The memory is used anew, by another driver. */
export function forgetRequests(memory: SimMemory): void {
  REQUESTS.delete(memory);
}

/** Whose chain this is: each request has its header where no other has one. */
export function requestOf({ readable }: Chain): GuestRequest | undefined {
  const [region] = readable.regions;
  const memory = region === undefined ? undefined : SimMemory.of(region);
  if (region === undefined || memory === undefined) return undefined;
  return tableOf(memory).get(region.bytes.byteOffset + (readable.starts[0] as number));
}

function startOf({ stick, buffer }: Piece): number {
  return stick.driver.placeOf(buffer.address).start;
}

export class GuestQueue {
  readonly index: number;
  readonly driver: SplitDriver | PackedDriver;
  readonly kick: SimEventfd = new SimEventfd();
  readonly call: SimEventfd = new SimEventfd();
  readonly requests = new Map<number, GuestRequest>();
  /** Where the server goes on, if it has said so. */
  base: number | null;
  /** An interrupt is on its way. */
  due = false;

  constructor(index: number, driver: SplitDriver | PackedDriver) {
    this.index = index;
    this.driver = driver;
    this.base = driver instanceof PackedDriver ? 0x80008000 : 0;
  }
}

/** What a driver needs of its machine. */
export interface Machine {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly plan: VmPlan;
  readonly ram: GuestRam;
  /** The store takes no longer parts. */
  readonly maxTransferBytes: number;
  nextOp(): number;
  wantsMore(): boolean;
  /** Calls back unless the driver is over by then. */
  later(ms: number, callback: () => void): void;
  /** The guest has seen an answer. */
  answered(): void;
  /** It wants nothing more, and waits for nothing. */
  idle(): void;
}

/** A driver of virtio-blk in a guest, from the negotiation of features to the next reset. */
export class GuestDriver {
  readonly features: bigint;
  readonly session: OracleSession;
  readonly queues: readonly GuestQueue[];
  /** It takes the device for one with a cache: so the byte said that it read last. */
  cached = true;
  /** The virtual machine stands still. */
  paused = true;
  over = false;
  readonly #machine: Machine;
  #thinking = false;
  #polling = false;
  #outstanding = 0;

  constructor(machine: Machine, features: bigint, session: OracleSession, queues: number) {
    this.#machine = machine;
    this.features = features;
    this.session = session;
    session.flushes = this.has(VIRTIO_BLK_F.FLUSH);
    this.queues = Array.from({ length: queues }, (_, index) => this.#makeQueue(index));
  }

  has(bit: number): boolean {
    return hasFeature(this.features, bit);
  }

  get packed(): boolean {
    return this.has(VIRTIO_F.RING_PACKED);
  }

  get outstanding(): number {
    return this.#outstanding;
  }

  #makeQueue(index: number): GuestQueue {
    const { plan, ram } = this.#machine;
    const options = {
      memory: ram.first.driver,
      size: plan.queueSize,
      eventIdx: this.has(VIRTIO_F.EVENT_IDX),
      tableEntries: this.has(VIRTIO_F.INDIRECT_DESC) ? TABLE_ENTRIES : 0,
    };
    const driver = this.packed ? new PackedDriver(options) : new SplitDriver(options);
    const queue = new GuestQueue(index, driver);
    queue.call.rung.add(() => this.#interrupted(queue));
    if (plan.polls) driver.disableInterrupts();
    else driver.enableInterrupts();
    return queue;
  }

  /** The rings run. */
  run(): void {
    this.paused = false;
    this.goOn();
    // What was answered while nobody could ring is there.
    for (const queue of this.queues) this.#interrupted(queue);
  }

  /** The device was reset, or the machine is gone: nothing of this driver matters any more. Returns what it had asked. */
  end(): Op[] {
    this.over = true;
    for (const queue of this.queues) queue.call.rung.clear();
    return this.queues.flatMap((queue) => [...queue.requests.values()].map(({ op }) => op));
  }

  // Requests.

  goOn(): void {
    if (this.over || this.paused) return;
    const { prng, plan } = this.#machine;
    while (this.#outstanding < plan.depth && this.#machine.wantsMore()) {
      if (!this.#ask() || prng.chance(0.3)) break;
    }
    if (!this.#machine.wantsMore()) {
      if (this.#outstanding === 0) this.#machine.idle();
    } else if (this.#outstanding < plan.depth && !this.#thinking) {
      this.#thinking = true;
      this.#machine.later(prng.float() * plan.thinkMs, () => {
        this.#thinking = false;
        this.goOn();
      });
    }
    if (plan.polls) this.#pollSoon();
  }

  #kind(): Kind {
    const { prng, plan } = this.#machine;
    // Who believes in no cache does not flush.
    if (this.session.flushes && this.cached && prng.chance(plan.flushShare)) return 'flush';
    if (prng.chance(plan.readShare)) return prng.chance(0.05) ? 'status' : 'read';
    if (prng.chance(0.15)) {
      const bit = prng.chance(0.5) ? VIRTIO_BLK_F.DISCARD : VIRTIO_BLK_F.WRITE_ZEROES;
      if (this.has(bit)) return bit === VIRTIO_BLK_F.DISCARD ? 'trim' : 'zeroes';
    }
    return 'write';
  }

  #ask(): boolean {
    const { prng, plan, sectors: all, oracle, maxTransferBytes } = this.#machine;
    const kind = this.#kind();
    const none = kind === 'flush' || kind === 'status';
    const first = none ? 0 : prng.below(prng.chance(0.8) ? plan.hotSectors : all);
    const count = none ? 0 : 1 + prng.below(Math.min(plan.maxSectors, all - first));
    const fua =
      kind === 'write' &&
      this.has(VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA) &&
      this.has(VIRTIO_BLK_F.REQ_FLAGS) &&
      prng.chance(plan.fuaShare);
    const op = new Op(this.#machine.nextOp(), kind, this.session, first, count, fua);
    if (this.has(VIRTIO_BLK_F.BARRIER) && kind !== 'status') {
      op.barrier = prng.chance(plan.barrierShare);
    }
    op.ordered = op.mutates;
    op.split = kind === 'write' && count * SECTOR_BYTES > PARTS * maxTransferBytes;
    const request = this.#place(op);
    if (request === null) return false;
    oracle.asked(op);
    this.#outstanding += 1;
    const { driver, kick } = request.queue;
    // Several may be made visible together.
    if (prng.chance(0.8) || this.#outstanding >= plan.depth) this.publish();
    else this.#machine.later(prng.float() * plan.thinkMs, () => this.publish());
    if (prng.chance(0.02) && driver.inFlight > 0) kick.ring();
    return true;
  }

  /** Makes visible what was added. */
  publish(): void {
    for (const { driver, kick } of this.queues) {
      if (!driver.publish()) continue;
      this.#machine.later(this.#machine.prng.float() * this.#machine.plan.delayMs, () =>
        kick.ring(),
      );
    }
  }

  /** Puts a request into memory and a ring. Null: there is no room. */
  #place(op: Op): GuestRequest | null {
    const { ram, prng } = this.#machine;
    const queue = prng.pick(this.queues);
    const indirect = this.has(VIRTIO_F.INDIRECT_DESC) && prng.chance(0.5);
    const most = indirect ? TABLE_ENTRIES / 2 : Math.min(4, queue.driver.size / 2);
    const sent = this.#sent(op);
    const data = op.kind === 'read' ? op.sectors * SECTOR_BYTES : 0;
    const room = 1 + (op.kind === 'status' ? VIRTIO_BLK_ID_BYTES : data);
    let readable: Piece[] = [];
    let writable: Piece[] = [];
    try {
      readable = ram.allocateCut(sent.length, most);
      writable = ram.allocateCut(room, most);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
    const token =
      writable.length === 0
        ? -1
        : queue.driver.add(
            readable.map(({ buffer }) => buffer),
            writable.map(({ buffer }) => buffer),
            indirect,
          );
    if (token === -1) {
      [...readable, ...writable].forEach(freePiece);
      return null;
    }
    fill(readable, sent);
    fill(writable, new Uint8Array(room).fill(0xee));
    const request = new GuestRequest(op, queue, readable, writable);
    queue.requests.set(token, request);
    tableOf(request.place.stick.memory).set(startOf(request.place), request);
    return request;
  }

  /** The device-readable bytes: header, and data or ranges. */
  #sent(op: Op): Buffer {
    const { prng } = this.#machine;
    const type = {
      read: VIRTIO_BLK_T.IN,
      write: VIRTIO_BLK_T.OUT,
      flush: prng.chance(0.2) ? VIRTIO_BLK_T.FLUSH_OUT : VIRTIO_BLK_T.FLUSH,
      zeroes: VIRTIO_BLK_T.WRITE_ZEROES,
      trim: VIRTIO_BLK_T.DISCARD,
      status: VIRTIO_BLK_T.GET_ID,
      cache: VIRTIO_BLK_T.GET_ID,
    }[op.kind];
    const ranged = op.kind === 'zeroes' || op.kind === 'trim';
    const cuts = ranged ? this.#cuts(op) : [];
    if (cuts.length > PARTS) op.split = true;
    const payload = op.kind === 'write' ? op.sectors * SECTOR_BYTES : cuts.length * BLK_RANGE_BYTES;
    const bytes = Buffer.alloc(BLK_HEADER_BYTES + payload);
    bytes.writeUInt32LE(op.barrier ? type + VIRTIO_BLK_T.BARRIER : type, 0);
    // Without REQ_FLAGS whatever is there means nothing.
    const flags = op.fua ? VIRTIO_BLK_REQ_FLAG.OUT_FUA : 0;
    bytes.writeUInt32LE(this.has(VIRTIO_BLK_F.REQ_FLAGS) ? flags : prng.below(2 ** 31), 4);
    bytes.writeBigUInt64LE(BigInt(ranged ? 0 : op.first), 8);
    let at = BLK_HEADER_BYTES;
    for (const [first, count] of cuts) {
      bytes.writeBigUInt64LE(BigInt(first), at);
      bytes.writeUInt32LE(count, at + 8);
      bytes.writeUInt32LE(op.kind === 'zeroes' && prng.chance(0.5) ? 1 : 0, at + 12);
      at += BLK_RANGE_BYTES;
    }
    if (op.kind !== 'write') return bytes;
    for (let sector = op.first; at < bytes.length; sector += 1, at += SECTOR_BYTES) {
      fillSector(bytes, at, op.id, sector);
    }
    return bytes;
  }

  /** One or several ranges that make up the request's, in any order. */
  #cuts(op: Op): [first: number, count: number][] {
    const { prng } = this.#machine;
    const cuts: [number, number][] = [];
    for (let at = op.first, end = op.first + op.sectors; at < end;) {
      const count = prng.chance(0.5) ? end - at : 1 + prng.below(end - at);
      if (prng.chance(0.5)) cuts.push([at, count]);
      else cuts.unshift([at, count]);
      at += count;
    }
    return cuts;
  }

  // Answers.

  /** The moment at which the driver could see a request as used: what it sees is judged. */
  becameVisible(request: GuestRequest): void {
    if (this.over) return;
    const { oracle } = this.#machine;
    const { op } = request;
    if (request.visible) oracle.fail(`${op.text}: used twice`);
    request.visible = true;
    const room = gather(request.writable);
    const status = room.at(-1) as number;
    if (status === VIRTIO_BLK_S.UNSUPP) oracle.fail(`${op.text} is said to be unknown`);
    if (status > VIRTIO_BLK_S.UNSUPP) oracle.fail(`${op.text}: used before its status was there`);
    const error = status === VIRTIO_BLK_S.OK ? 0 : EIO;
    if (op.kind === 'read' && error === 0) {
      const contents = Array.from({ length: op.sectors }, (_, i) =>
        readSector(room, i * SECTOR_BYTES, op.first + i),
      );
      oracle.readReturned(op, contents);
    }
    if (op.kind === 'status' && !room.toString('latin1').startsWith(`${SIM_SERIAL}\0`)) {
      oracle.fail(`the device's name is told as ${room.toString('latin1')}`);
    }
    oracle.guests += 1;
    oracle.answered(op, error);
  }

  #interrupted(queue: GuestQueue): void {
    if (queue.due || this.over) return;
    queue.due = true;
    this.#machine.later(this.#machine.prng.float() * this.#machine.plan.delayMs, () => {
      queue.due = false;
      this.#look(queue);
    });
  }

  #pollSoon(): void {
    if (this.#polling || this.#outstanding === 0) return;
    this.#polling = true;
    this.#machine.later(0.5 + this.#machine.prng.float() * 4, () => {
      this.#polling = false;
      for (const queue of this.queues) if (!this.over) this.#look(queue);
      if (!this.over) this.#pollSoon();
    });
  }

  #look(queue: GuestQueue): void {
    let seen = 0;
    for (let more = true; more;) {
      queue.driver.disableInterrupts();
      while (!this.over && this.#takeOne(queue)) seen += 1;
      more = !this.over && !this.#machine.plan.polls && queue.driver.enableInterrupts();
    }
    for (; seen > 0 && !this.over; seen -= 1) this.#machine.answered();
    this.goOn();
  }

  #takeOne(queue: GuestQueue): boolean {
    const { oracle } = this.#machine;
    let used;
    try {
      used = queue.driver.take();
    } catch (error) {
      return oracle.fail(`a driver: ${messageOf(error)}`);
    }
    if (used === null) return false;
    const request = queue.requests.get(used.token) as GuestRequest;
    const { op, readable, writable } = request;
    if (!request.visible) oracle.fail(`${op.text}: used, and nobody said so`);
    const room = writable.reduce((sum, { buffer }) => sum + buffer.length, 0);
    if (op.error === 0 && used.written !== room) {
      oracle.fail(`${op.text}: ${used.written} of ${room} bytes are said to be written`);
    }
    queue.requests.delete(used.token);
    tableOf(request.place.stick.memory).delete(startOf(request.place));
    [...readable, ...writable].forEach(freePiece);
    this.#outstanding -= 1;
    return true;
  }
}
