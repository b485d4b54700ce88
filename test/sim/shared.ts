import { assert } from '../../src/base/assert.ts';
import type { Prng } from '../../src/base/prng.ts';
import { Region } from '../../src/block/memory.ts';
import type { Listener } from '../../src/reactor/reactor.ts';
import type {
  DescriptorSocket,
  DescriptorSocketOwner,
  Poller,
  SharedMemory,
  Sharing,
} from '../../src/reactor/sharing.ts';
import { ProtocolError } from '../../src/base/errors.ts';
import type { SimReactor } from './clock.ts';
import type { KillPoints } from './kill-points.ts';

// What processes of one host share, in memory: memory, eventfds, sockets that carry both. It belongs to none of them and
// outlives each; `SimSharing` is one server process's view of it.

export class SimMemory {
  readonly buffer: ArrayBuffer;
  /** The log of requests in flight: a process may die between any two stores to it. */
  isLog = false;
  static readonly #all = new WeakMap<ArrayBufferLike, SimMemory>();

  constructor(lengthBytes: number) {
    this.buffer = new ArrayBuffer(lengthBytes);
    SimMemory.#all.set(this.buffer, this);
  }

  /** The memory that a region is a view of. */
  static of(region: Region): SimMemory | undefined {
    return SimMemory.#all.get(region.bytes.buffer);
  }
}

export class SimEventfd {
  count = 0;
  readonly rung = new Set<() => void>();

  ring(): void {
    this.count += 1;
    for (const each of this.rung) each();
  }
}

export type Thing = SimMemory | SimEventfd | SimEnd;

interface Unit {
  readonly bytes: Uint8Array;
  /** They come with its first byte. */
  readonly things: readonly Thing[];
}

/** One end of a connected socket, as the kernel has it. */
export class SimEnd {
  readonly inbox: Unit[] = [];
  /** Whose the end is, for the server that accepts it. */
  readonly owner: object | null;
  closed = false;
  /** Something may be read: bytes, or the end. Set by who reads. */
  arrived: () => void = () => {};
  /** The other side has just handed this message to its kernel. */
  told: (unit: Unit) => void = () => {};
  #other: SimEnd | null = null;

  private constructor(owner: object | null) {
    this.owner = owner;
  }

  static pair(owner: object | null): [SimEnd, SimEnd] {
    const [one, other] = [new SimEnd(owner), new SimEnd(owner)];
    one.#other = other;
    other.#other = one;
    return [one, other];
  }

  get peerClosed(): boolean {
    return (this.#other as SimEnd).closed;
  }

  send(bytes: Uint8Array, things: readonly Thing[] = []): void {
    const other = this.#other as SimEnd;
    if (this.closed || other.closed) return;
    const unit = { bytes: bytes.slice(), things };
    other.inbox.push(unit);
    other.told(unit);
    other.arrived();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const { things } of this.inbox.splice(0)) things.forEach(dropped);
    (this.#other as SimEnd).arrived();
  }
}

/** Nobody has a descriptor of it any more. */
function dropped(thing: Thing): void {
  if (thing instanceof SimEnd) thing.close();
}

/** How messages and rings travel. */
export interface SharingTraits {
  readonly delayMs: number;
  /** The most bytes of one receive. */
  readonly pieceBytes: number;
}

/** How long a poller whose rings nobody rings is left alone. */
const UNRUNG_MS = 1;

/** `Sharing` as one simulated server process has it. When the process dies, so does all of it but what it shared. */
export class SimSharing implements Sharing {
  readonly #reactor: SimReactor;
  readonly #prng: Prng;
  readonly #traits: SharingTraits;
  readonly #kills: KillPoints;
  readonly #things = new Map<number, Thing>();
  readonly #sockets = new Set<SimSocket>();
  readonly #watches = new Set<() => void>();
  readonly #pollers = new Set<Poller>();
  readonly #armed = new Set<Poller>();
  readonly #listeners = new Map<string, (socket: DescriptorSocket) => void>();
  /** Connections that nobody has accepted. */
  readonly #waiting = new Set<SimEnd>();
  #nextFd = 100;
  #mapped = 0;
  /** Put in: what a predecessor left in the log is thrown away. */
  forgetsLog = false;

  constructor(reactor: SimReactor, prng: Prng, traits: SharingTraits, kills: KillPoints) {
    this.#reactor = reactor;
    this.#prng = prng;
    this.#traits = traits;
    this.#kills = kills;
  }

  /** What has not been given back: '' for nothing. */
  get leaks(): string {
    const counts = {
      descriptors: this.#things.size,
      mappings: this.#mapped,
      watches: this.#watches.size,
      pollers: this.#pollers.size,
      sockets: this.#sockets.size,
    };
    const left = Object.entries(counts).filter(([, count]) => count > 0);
    return left.map(([what, count]) => `${count} ${what}`).join(', ');
  }

  /** The process is gone between two instructions. */
  kill(): void {
    for (const stop of this.#watches) stop();
    this.#pollers.clear();
    for (const end of this.#waiting) end.close();
    for (const socket of this.#sockets) socket.end.close();
    for (const thing of this.#things.values()) dropped(thing);
  }

  /** What may hold something up for a while. */
  later(callback: () => void): void {
    const delay = this.#prng.chance(0.4) ? 0 : this.#prng.float() * this.#traits.delayMs;
    this.#reactor.after(delay, callback);
  }

  /** A completion that is there already. */
  now(callback: () => void): void {
    this.#reactor.after(0, callback);
  }

  pieceBytes(): number {
    return this.#prng.chance(0.5) ? Infinity : 1 + this.#prng.below(this.#traits.pieceBytes);
  }

  // Sockets.

  listen(path: string, accepted: (socket: DescriptorSocket) => void): Promise<Listener> {
    this.#listeners.set(path, accepted);
    const close = (): Promise<void> => {
      this.#listeners.delete(path);
      return Promise.resolve();
    };
    return Promise.resolve({ address: { kind: 'unix', path }, close });
  }

  /** A front-end connects. False: nobody listens. */
  connected(path: string, end: SimEnd): boolean {
    const accepted = this.#listeners.get(path);
    if (accepted === undefined) return false;
    this.#waiting.add(end);
    this.later(() => {
      this.#waiting.delete(end);
      if (this.#listeners.has(path)) accepted(new SimSocket(this, this.#open(end), end));
      else end.close();
    });
    return true;
  }

  connect(path: string): Promise<DescriptorSocket> {
    return Promise.reject(new Error(`${path}: a simulated server does not connect`));
  }

  adopt(fd: number, _peer: string): DescriptorSocket {
    const end = this.#things.get(fd);
    assert(end instanceof SimEnd, 'no socket');
    return new SimSocket(this, fd, end);
  }

  pair(): [DescriptorSocket, number] {
    const [near, far] = SimEnd.pair(null);
    return [new SimSocket(this, this.#open(near), near), this.#open(far)];
  }

  /** For SimSocket: opened and closed. */
  hold(socket: SimSocket, held: boolean): void {
    if (held) this.#sockets.add(socket);
    else this.#sockets.delete(socket);
  }

  /** For SimSocket: descriptors of this process. */
  given(things: readonly Thing[]): number[] {
    return things.map((thing) => this.#open(thing));
  }

  /** For SimSocket: what descriptors stand for. */
  meant(descriptors: readonly number[]): Thing[] {
    return descriptors.map((fd) => {
      const thing = this.#things.get(fd);
      assert(thing !== undefined, 'a descriptor that is not open is sent');
      return thing;
    });
  }

  // Memory.

  map(fd: number, lengthBytes: number, offsetBytes: number): SharedMemory {
    const memory = this.#things.get(fd);
    if (!(memory instanceof SimMemory) || offsetBytes + lengthBytes > memory.buffer.byteLength) {
      throw new ProtocolError('not so much memory', 'mmap(2)');
    }
    this.#mapped += 1;
    let mapped = true;
    const region = new Region(0, memory.buffer, offsetBytes, lengthBytes);
    if (memory.isLog) {
      if (this.forgetsLog) region.bytes.fill(0);
      this.#kills.watch(region);
    }
    const unmap = (): void => {
      assert(mapped, 'unmapped twice');
      mapped = false;
      this.#mapped -= 1;
    };
    return { region, unmap };
  }

  create(_name: string, lengthBytes: number): { fd: number; memory: SharedMemory } {
    const memory = new SimMemory(lengthBytes);
    memory.isLog = true;
    const fd = this.#open(memory);
    return { fd, memory: this.map(fd, lengthBytes, 0) };
  }

  // Eventfds.

  eventfd(): number {
    return this.#open(new SimEventfd());
  }

  signal(fd: number): void {
    const thing = this.#things.get(fd);
    if (thing instanceof SimEventfd) thing.ring();
  }

  whenReadable(): void {
    assert(false, 'there are no processes here');
  }

  watch(fd: number, rung: () => void): { stop(stopped: () => void): void } {
    const thing = this.#things.get(fd);
    if (!(thing instanceof SimEventfd)) throw new ProtocolError('no eventfd', 'eventfd(2)');
    let due = false;
    const notice = (): void => {
      if (due) return;
      due = true;
      this.later(() => {
        due = false;
        if (!thing.rung.has(notice)) return;
        thing.count = 0;
        rung();
      });
    };
    thing.rung.add(notice);
    const forget = (): void => {
      thing.rung.delete(notice);
    };
    this.#watches.add(forget);
    if (thing.count > 0) notice();
    return {
      stop: (stopped) => {
        assert(thing.rung.delete(notice), 'a watch is stopped twice');
        this.later(() => {
          this.#watches.delete(forget);
          stopped();
        });
      },
    };
  }

  closeDescriptor(fd: number): void {
    const thing = this.#things.get(fd);
    assert(thing !== undefined, `descriptor ${fd} is closed twice`);
    this.#things.delete(fd);
    dropped(thing);
  }

  // Pollers.

  poll(poller: Poller): () => void {
    this.#pollers.add(poller);
    this.#reactor.after(0, () => {});
    return () => {
      this.#pollers.delete(poller);
      this.#armed.delete(poller);
    };
  }

  /**
   * The end of a turn in which something of this process has run: it takes what waits in rings. Then it goes round once
   * more, or asks to be rung and sleeps: until then nothing that is put into a ring is seen.
   */
  turn(): void {
    if (this.#pollers.size === 0 || !this.#reactor.turned()) return;
    for (const poller of this.#armed) poller.disarm();
    this.#armed.clear();
    for (const poller of Array.from(this.#pollers)) {
      if (this.#pollers.has(poller) && poller.ready()) poller.poll();
    }
    if (this.#prng.chance(0.4)) {
      this.#reactor.after(this.#prng.float() * 0.3, () => {});
      return;
    }
    for (const poller of Array.from(this.#pollers)) {
      const come = poller.arm();
      this.#armed.add(poller);
      if (come) this.#reactor.after(poller.ready() ? 0 : UNRUNG_MS, () => {});
    }
  }

  #open(thing: Thing): number {
    const fd = this.#nextFd;
    this.#nextFd += 1;
    this.#things.set(fd, thing);
    return fd;
  }
}

/** A server's end of a socket. */
export class SimSocket implements DescriptorSocket {
  readonly peer = 'unix simulated';
  readonly end: SimEnd;
  /** Called with whoever becomes its owner. */
  static owned: ((socket: SimSocket, owner: DescriptorSocketOwner) => void) | null = null;
  readonly #sharing: SimSharing;
  readonly #fd: number;
  #owner: DescriptorSocketOwner = { received: noOwner, ended: noOwner };
  #paused = false;
  #open = true;
  #due = false;

  constructor(sharing: SimSharing, fd: number, end: SimEnd) {
    this.#sharing = sharing;
    this.#fd = fd;
    this.end = end;
    sharing.hold(this, true);
    end.arrived = () => this.#soon();
    this.#soon();
  }

  get owner(): DescriptorSocketOwner {
    return this.#owner;
  }

  set owner(owner: DescriptorSocketOwner) {
    this.#owner = owner;
    SimSocket.owned?.(this, owner);
  }

  send(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    if (this.#open) this.end.send(bytes, this.#sharing.meant(descriptors));
  }

  peerGone(): boolean {
    return !this.#open || this.end.peerClosed;
  }

  pause(paused: boolean): void {
    this.#paused = paused;
    if (!paused) this.#soon();
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#sharing.hold(this, false);
    this.#sharing.closeDescriptor(this.#fd);
  }

  #soon(): void {
    if (!this.#open) return;
    // The end of a front-end is a completion at once: what its successor does comes later (P11).
    if (this.end.peerClosed) this.#sharing.now(() => this.#receive());
    if (this.#due) return;
    this.#due = true;
    this.#sharing.later(() => {
      this.#due = false;
      this.#receive();
    });
  }

  #receive(): void {
    if (!this.#open || this.#paused) return;
    const { inbox, peerClosed } = this.end;
    if (inbox.length === 0) {
      if (!peerClosed) return;
      this.close();
      this.#owner.ended(null);
      return;
    }
    let room = this.#sharing.pieceBytes();
    const pieces: Uint8Array[] = [];
    const things = inbox[0]?.things ?? [];
    for (let unit = inbox[0]; unit !== undefined && room > 0;) {
      if (pieces.length > 0 && unit.things.length > 0) break;
      const piece = unit.bytes.subarray(0, room);
      pieces.push(piece);
      room -= piece.length;
      if (piece.length === unit.bytes.length) inbox.shift();
      else inbox[0] = { bytes: unit.bytes.subarray(piece.length), things: [] };
      unit = inbox[0];
    }
    this.#soon();
    this.#owner.received(new Uint8Array(Buffer.concat(pieces)), this.#sharing.given(things));
  }
}

function noOwner(): void {
  assert(false, 'a descriptor socket has an owner before its first turn');
}
