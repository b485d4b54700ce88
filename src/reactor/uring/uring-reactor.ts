import type { Timer } from '../../base/clock.ts';
import { setEventLoopHook } from '../../base/event-loop.ts';
import { PagePool } from '../page-pool.ts';
import {
  Completion,
  type Files,
  type Listener,
  type ReadableWatch,
  type Reactor,
  type SocketAddress,
  type Stream,
  type TlsSettings,
} from '../reactor.ts';
import * as sys from '../sys.ts';
import { TimerQueue } from '../timers.ts';
import { acceptOn, connectTo, type SocketContext } from './acceptor.ts';
import { UringFiles } from './files.ts';
import { PollRequest } from './poll-request.ts';
import { Pollers } from './pollers.ts';
import { IORING_OP, Ring } from './ring.ts';
import { Scratch } from './scratch.ts';
import { UringSharing } from './sharing.ts';
import * as sockets from './sockets.ts';
import { UringStream, type StreamContext } from './stream.ts';

const POLLIN = 1;

/** How long a batch may be waited for by spinning instead of sleeping: about what a sleep and a wake-up cost. */
const SPIN_MS = 0.05;
/** What an eventfd's way through the kernel adds to a sleep that it ends. */
const RING_MS = 0.03;
/**
 * The trust in spinning: each sleep that ends within SPIN_MS earns one, and each spin that a poller ended; each spin in
 * vain costs a few.
 */
const SPIN_CREDIT_MAX = 64;
const SPIN_MISS_COST = 8;

export interface UringOptions {
  readonly pageBytes: number;
  readonly pageLimit: number;
  readonly bridgeTls: (fd: number, settings: TlsSettings) => Promise<number>;
}

/** Node's event loop has something to do. */
class EventLoopReady extends Completion {
  readonly #callback: () => void;
  constructor(callback: () => void) {
    super();
    this.#callback = callback;
  }
  override complete(): void {
    this.#callback();
  }
}

/**
 * The reactor on io_uring. Its loop keeps the thread inside io_uring_enter and hands out completions in batches. When a
 * part settles promises (`letEventLoopRun`), or Node's event loop has something to do (a message, a socket of Node's
 * own), it returns there for a turn and goes on.
 */
export class UringReactor implements Reactor, StreamContext, SocketContext {
  readonly kind = 'io_uring';
  readonly files: Files;
  readonly pool: PagePool;
  readonly sharing: UringSharing | null;
  readonly pollers: Pollers = new Pollers();
  readonly ring: Ring;
  readonly scratch: Scratch;
  readonly #timers = new TimerQueue();
  readonly #options: UringOptions;
  readonly #eventLoop: sys.EventLoop = sys.eventLoop();
  readonly #eventLoopReady: EventLoopReady;
  #watching = false;
  /**
   * Brings the loop back after a turn of Node's. An immediate would do, but hides from us when Node's next timer is
   * due.
   */
  readonly #turns = new MessageChannel();
  /** On the clock of nowMs. Node's timers change in Node's turns only. */
  #nodeTimerAtMs = Infinity;
  #deferred: (() => void)[] = [];
  #running: (() => void)[] = [];
  #yieldWanted = false;
  #spinCredit = 0;
  #open = true;

  /** Throws when io_uring cannot be had here; the message says why. */
  constructor(options: UringOptions) {
    this.#options = options;
    this.ring = new Ring();
    this.scratch = new Scratch(this.ring);
    this.files = new UringFiles(this.ring, this.scratch);
    this.pool = new PagePool(options.pageBytes, options.pageLimit, sys.mapMemory);
    this.sharing = this.ring.hasMultishotPoll ? new UringSharing(this) : null;
    this.#eventLoopReady = new EventLoopReady(() => {
      this.#watching = false;
      this.#yieldWanted = true;
    });
    setEventLoopHook(() => {
      this.#yieldWanted = true;
    });
    this.#turns.port2.on('message', () => this.#run());
    this.#yield();
  }

  nowMs(): number {
    return performance.now();
  }

  after(delayMs: number, callback: () => void): Timer {
    return this.#timers.add(this.nowMs() + delayMs, callback);
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  returnToNode(): void {
    this.#yieldWanted = true;
  }

  bridgeTls(fd: number, settings: TlsSettings): Promise<number> {
    return this.#options.bridgeTls(fd, settings);
  }

  #yield(): void {
    this.#turns.port1.postMessage(null);
  }

  #run(): void {
    if (!this.#open) return;
    const untilNodeTimer = this.#eventLoop.timeoutMs();
    this.#nodeTimerAtMs = untilNodeTimer < 0 ? Infinity : this.nowMs() + untilNodeTimer;
    this.#yieldWanted = false;
    this.#watchEventLoop();
    do {
      this.#turn();
    } while (!this.#yieldWanted && this.#open);
    this.#yield();
  }

  /** Node's event loop sleeps in one epoll descriptor; the ring watches that, so neither starves the other. */
  #watchEventLoop(): void {
    if (this.#watching) return;
    this.#watching = true;
    const fd = this.#eventLoop.fd;
    this.ring.prepare(this.#eventLoopReady, IORING_OP.POLL_ADD, fd, 0, 0, 0, POLLIN);
  }

  #turn(): void {
    // Before what is deferred: what a poller gives back at once is published in this turn, and what it asks of files
    // goes to the kernel with this turn's call.
    if (!this.pollers.none) this.pollers.poll();
    this.#runDeferred();
    const now = this.nowMs();
    const untilTimer = this.#timers.untilNextMs(now);
    if (this.#nodeTimerAtMs <= now) this.#yieldWanted = true;
    const mustNotWait = this.#deferred.length > 0 || this.#yieldWanted || untilTimer === 0;
    if (this.ring.ready || mustNotWait || this.#spin()) this.#poke();
    else this.#sleep(Math.min(untilTimer, this.#nodeTimerAtMs - now));
    if (this.ring.prepared === 0) this.scratch.reset();
    this.ring.drain();
    if (untilTimer !== Infinity) this.#timers.fire(this.nowMs());
  }

  /** Submits and collects; a turn of pollers alone has nothing of either, and needs no system call. */
  #poke(): void {
    if (this.ring.prepared > 0 || this.ring.ready || !this.ring.canSpin) this.ring.poke();
  }

  #runDeferred(): void {
    if (this.#deferred.length === 0) return;
    const batch = this.#deferred;
    this.#deferred = this.#running;
    this.#running = batch;
    for (let i = 0; i < batch.length; i += 1) (batch[i] as () => void)();
    batch.length = 0;
  }

  /**
   * Submits, then watches the ring and the pollers for a short while if that has paid lately. True: something is there.
   */
  #spin(): boolean {
    const polling = !this.pollers.none;
    if (polling && this.pollers.ready) return true;
    if (this.#spinCredit <= 0 || !this.ring.canSpin) return false;
    if (this.ring.prepared > 0) this.ring.poke();
    const end = this.nowMs() + SPIN_MS;
    do {
      for (let i = 0; i < 64; i += 1) {
        if (this.ring.ready) return true;
        if (polling && this.pollers.ready) {
          // Seen in time: the other side did not have to ring.
          this.#spinPaid();
          return true;
        }
      }
    } while (this.nowMs() < end);
    this.#spinCredit -= SPIN_MISS_COST;
    return false;
  }

  #spinPaid(): void {
    if (this.#spinCredit < SPIN_CREDIT_MAX) this.#spinCredit += 1;
  }

  #sleep(timeoutMs: number): void {
    const polling = !this.pollers.none;
    if (polling && !this.#armPollers()) {
      this.#poke();
      return;
    }
    const before = this.nowMs();
    this.ring.wait(timeoutMs);
    const slept = this.nowMs() - before;
    if (polling) this.pollers.disarm();
    // A ring by a poller's other side takes its time to arrive, which watching would have saved.
    const rung = polling && slept < SPIN_MS + RING_MS && this.pollers.ready;
    if (slept < SPIN_MS || rung) this.#spinPaid();
  }

  /** Whether there may be a sleep: no work has come, and none was made by asking. */
  #armPollers(): boolean {
    if (!this.pollers.arm()) return false;
    if (this.#deferred.length === 0 && !this.#yieldWanted) return true;
    this.pollers.disarm();
    return false;
  }

  async listen(address: SocketAddress, accepted: (stream: Stream) => void): Promise<Listener> {
    return acceptOn(this, address, (fd) => {
      sockets.tuneConnection(fd, this.scratch.region);
      accepted(new UringStream(this, fd, sockets.peerName(fd)));
    });
  }

  async connect(address: SocketAddress): Promise<Stream> {
    const fd = await connectTo(this, address);
    if (address.kind !== 'fd') sockets.tuneConnection(fd, this.scratch.region);
    return new UringStream(this, fd, describe(address));
  }

  watchReadable(fd: number, readable: () => void): ReadableWatch {
    return new PollRequest(this.ring, fd, POLLIN, false, readable);
  }

  async close(): Promise<void> {
    this.#open = false;
    setEventLoopHook(null);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    this.#turns.port1.close();
    this.ring.close();
    this.sharing?.free();
  }
}

function describe(address: SocketAddress): string {
  if (address.kind === 'unix') return `unix ${address.path}`;
  if (address.kind === 'fd') return `fd ${address.fd}`;
  return `tcp ${address.host}:${address.port}`;
}
