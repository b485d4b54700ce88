import { assert } from '../../base/assert.ts';
import { ConfigError, ProtocolError } from '../../base/errors.ts';
import { Region } from '../../block/memory.ts';
import type { Listener } from '../../reactor/reactor.ts';
import type {
  DescriptorSocket,
  DescriptorSocketOwner,
  Poller,
  SharedMemory,
  Sharing,
} from '../../reactor/sharing.ts';

/** What a descriptor stands for. Several descriptors, on both sides, may stand for one of them. */
type Thing =
  | { readonly kind: 'memory'; readonly buffer: ArrayBuffer }
  | { readonly kind: 'eventfd'; count: number; readonly watches: Set<Watch> }
  | { readonly kind: 'socket'; readonly end: End };

interface Watch {
  readonly rung: () => void;
  due: boolean;
}

/** One side of a connection. */
interface End {
  /** What has been sent to it and not received. Descriptors come with the first byte of their segment. */
  readonly inbox: { bytes: Uint8Array; descriptors: readonly number[] }[];
  other: End | null;
  socket: FakeSocket | null;
  closed: boolean;
}

/**
 * `Sharing` without a kernel, for tests and simulations: descriptors are numbers in one table that front-end and back-end
 * share, as threads of one process would. What happens later goes through `schedule`, in an order that its owner chooses;
 * without one it is done in order by `run`.
 *
 * It counts: whatever a side has not closed, unmapped, stopped is still there at the end (`leaks`).
 */
export class FakeSharing implements Sharing {
  readonly #things = new Map<number, Thing>();
  #nextFd = 100;
  readonly #listeners = new Map<string, (socket: DescriptorSocket) => void>();
  readonly #pollers = new Set<Poller>();
  readonly #armed = new Set<Poller>();
  #mapped = 0;
  #watching = 0;
  #turnDue = false;
  readonly #queue: (() => void)[] = [];
  readonly #schedule: (callback: () => void) => void;

  /** The most bytes of the next receive: how a test cuts and joins messages. */
  pieceBytes: () => number = () => Infinity;

  constructor(schedule?: (callback: () => void) => void) {
    this.#schedule = schedule ?? ((callback) => this.#queue.push(callback));
  }

  /** As Reactor.defer. */
  defer(callback: () => void): void {
    this.#schedule(callback);
  }

  /** Without a `schedule` of its own: does what is due until nothing is. */
  run(): void {
    for (let left = 1_000_000; this.#queue.length > 0; left -= 1) {
      assert(left > 0, 'the fake reactor goes in circles');
      (this.#queue.shift() as () => void)();
    }
  }

  /** What has not been given back: none of each after a proper end. */
  get leaks(): { descriptors: number; mappings: number; watches: number; pollers: number } {
    return {
      descriptors: this.#things.size,
      mappings: this.#mapped,
      watches: this.#watching,
      pollers: this.#pollers.size,
    };
  }

  // Memory.

  map(fd: number, lengthBytes: number, offsetBytes: number): SharedMemory {
    const thing = this.#things.get(fd);
    if (thing?.kind !== 'memory') throw new ProtocolError('not memory', 'mmap(2)');
    if (!(lengthBytes > 0 && offsetBytes + lengthBytes <= thing.buffer.byteLength)) {
      throw new ProtocolError('longer than the memory', 'mmap(2)');
    }
    this.#mapped += 1;
    let mapped = true;
    return {
      region: new Region(0, thing.buffer, offsetBytes, lengthBytes),
      unmap: () => {
        assert(mapped, 'unmapped twice');
        mapped = false;
        this.#mapped -= 1;
      },
    };
  }

  create(_name: string, lengthBytes: number): { fd: number; memory: SharedMemory } {
    const fd = this.memory(lengthBytes);
    return { fd, memory: this.map(fd, lengthBytes, 0) };
  }

  /** A descriptor of new zeroed memory that is mapped nowhere yet. */
  memory(lengthBytes: number): number {
    return this.#open({ kind: 'memory', buffer: new ArrayBuffer(lengthBytes) });
  }

  // Eventfds.

  eventfd(): number {
    return this.#open({ kind: 'eventfd', count: 0, watches: new Set() });
  }

  signal(fd: number): void {
    const thing = this.#things.get(fd);
    if (thing?.kind !== 'eventfd') return;
    thing.count += 1;
    for (const watch of thing.watches) {
      if (watch.due) continue;
      watch.due = true;
      this.#schedule(() => {
        watch.due = false;
        if (!thing.watches.has(watch)) return;
        watch.rung();
        this.#turnSoon();
      });
    }
  }

  /** How often an eventfd was rung since it was last asked. */
  rings(fd: number): number {
    const thing = this.#things.get(fd);
    assert(thing?.kind === 'eventfd', 'not an eventfd');
    const { count } = thing;
    thing.count = 0;
    return count;
  }

  whenReadable(): void {
    assert(false, 'there are no processes here');
  }

  watch(fd: number, rung: () => void): { stop(stopped: () => void): void } {
    const thing = this.#things.get(fd);
    if (thing?.kind !== 'eventfd') throw new ProtocolError('not an eventfd', 'eventfd(2)');
    const watch = { rung, due: false };
    thing.watches.add(watch);
    this.#watching += 1;
    return {
      stop: (stopped) => {
        assert(thing.watches.delete(watch), 'a watch is stopped twice');
        this.#schedule(() => {
          this.#watching -= 1;
          stopped();
        });
      },
    };
  }

  // Pollers.

  poll(poller: Poller): () => void {
    this.#pollers.add(poller);
    this.#turnSoon();
    return () => {
      this.#pollers.delete(poller);
      this.#armed.delete(poller);
    };
  }

  /** One turn of a reactor: wakes, takes what is ready, and sleeps unless work has come. */
  turn(): void {
    for (const poller of this.#pollers) {
      if (this.#armed.delete(poller)) poller.disarm();
      if (poller.ready()) poller.poll();
      if (!this.#pollers.has(poller)) continue;
      if (!poller.ready() && !poller.arm()) {
        this.#armed.add(poller);
        continue;
      }
      poller.disarm();
      // A poller that nobody rings would never let `run` end: tests turn it themselves.
      if (poller.ready()) this.#turnSoon();
    }
  }

  /** Whether every poller has to be rung. */
  get asleep(): boolean {
    return this.#armed.size === this.#pollers.size;
  }

  #turnSoon(): void {
    if (this.#turnDue) return;
    this.#turnDue = true;
    this.#schedule(() => {
      this.#turnDue = false;
      this.turn();
    });
  }

  // Descriptors and sockets.

  /** Another descriptor of the same thing. */
  duplicate(fd: number): number {
    const thing = this.#things.get(fd);
    assert(thing !== undefined, 'a descriptor that is not open is duplicated');
    return this.#open(thing);
  }

  closeDescriptor(fd: number): void {
    const thing = this.#things.get(fd);
    assert(thing !== undefined, `descriptor ${fd} is closed twice`);
    this.#things.delete(fd);
    if (thing.kind === 'socket' && !this.#isOpen(thing)) this.#closeEnd(thing.end);
  }

  pair(): [DescriptorSocket, number] {
    const [one, other] = [makeEnd(), makeEnd()];
    one.other = other;
    other.other = one;
    const near = this.#open({ kind: 'socket', end: one });
    return [this.adopt(near, 'fake pair'), this.#open({ kind: 'socket', end: other })];
  }

  adopt(fd: number, peer: string): DescriptorSocket {
    const thing = this.#things.get(fd);
    // As the kernel does, that says so at the first receive.
    const end = thing?.kind === 'socket' ? thing.end : makeEnd();
    if (thing?.kind !== 'socket') end.closed = true;
    const socket = new FakeSocket(this, fd, end, peer);
    end.socket = socket;
    this.deliverSoon(end);
    return socket;
  }

  listen(path: string, accepted: (socket: DescriptorSocket) => void): Promise<Listener> {
    if (this.#listeners.has(path)) throw new ConfigError(`${path} is taken`, 'use another path');
    this.#listeners.set(path, accepted);
    const close = (): Promise<void> => {
      this.#listeners.delete(path);
      return Promise.resolve();
    };
    return Promise.resolve({ address: { kind: 'unix', path }, close });
  }

  connect(path: string): Promise<DescriptorSocket> {
    const accepted = this.#listeners.get(path);
    if (accepted === undefined) {
      return Promise.reject(Object.assign(new Error('nobody listens'), { code: 'ENOENT' }));
    }
    const [near, far] = this.pair();
    this.#schedule(() => accepted(this.adopt(far, `unix ${path}`)));
    return Promise.resolve(near);
  }

  /** For FakeSocket only. */
  sendTo(end: End, bytes: Uint8Array, descriptors: readonly number[]): void {
    if (end.closed) return;
    const copies = descriptors.map((fd) => this.duplicate(fd));
    end.inbox.push({ bytes: bytes.slice(), descriptors: copies });
    this.deliverSoon(end);
  }

  /** For FakeSocket only. */
  deliverSoon(end: End): void {
    this.#schedule(() => {
      end.socket?.deliver();
    });
  }

  #open(thing: Thing): number {
    const fd = this.#nextFd;
    this.#nextFd += 1;
    this.#things.set(fd, thing);
    return fd;
  }

  #isOpen(thing: Thing): boolean {
    for (const other of this.#things.values()) if (other === thing) return true;
    return false;
  }

  #closeEnd(end: End): void {
    end.closed = true;
    for (const { descriptors } of end.inbox.splice(0)) {
      for (const fd of descriptors) this.closeDescriptor(fd);
    }
    if (end.other !== null) this.deliverSoon(end.other);
  }
}

/** A descriptor socket of `FakeSharing`. */
class FakeSocket implements DescriptorSocket {
  owner: DescriptorSocketOwner = { received: noOwner, ended: noOwner };
  readonly peer: string;
  readonly #sharing: FakeSharing;
  readonly #fd: number;
  readonly #end: End;
  #paused = false;
  #open = true;

  constructor(sharing: FakeSharing, fd: number, end: End, peer: string) {
    this.#sharing = sharing;
    this.#fd = fd;
    this.#end = end;
    this.peer = peer;
  }

  send(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    if (this.#open && this.#end.other !== null) {
      this.#sharing.sendTo(this.#end.other, bytes, descriptors);
    }
  }

  peerGone(): boolean {
    const { closed, other } = this.#end;
    return !this.#open || closed || other === null || other.closed;
  }

  pause(paused: boolean): void {
    this.#paused = paused;
    if (!paused) this.#sharing.deliverSoon(this.#end);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#end.socket = null;
    this.#sharing.closeDescriptor(this.#fd);
  }

  /** One receive, then the next later: as a kernel, that joins bytes but not bytes before descriptors with theirs. */
  deliver(): void {
    if (!this.#open || this.#paused) return;
    const { inbox, other } = this.#end;
    if (inbox.length === 0) {
      if (this.#end.closed || other === null || other.closed) {
        this.close();
        this.owner.ended(null);
      }
      return;
    }
    let room = Math.max(1, this.#sharing.pieceBytes());
    const pieces: Uint8Array[] = [];
    const descriptors = inbox[0]?.descriptors ?? [];
    while (room > 0) {
      const first = inbox[0];
      if (first === undefined || (pieces.length > 0 && first.descriptors.length > 0)) break;
      const piece = first.bytes.subarray(0, room);
      pieces.push(piece);
      room -= piece.length;
      if (piece.length === first.bytes.length) inbox.shift();
      else inbox[0] = { bytes: first.bytes.subarray(piece.length), descriptors: [] };
    }
    this.#sharing.deliverSoon(this.#end);
    this.owner.received(new Uint8Array(Buffer.concat(pieces)), descriptors);
  }
}

function makeEnd(): End {
  return { inbox: [], other: null, socket: null, closed: false };
}

function noOwner(): void {
  assert(false, 'a descriptor socket has an owner before its first turn');
}
