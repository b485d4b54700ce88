import { rmSync } from 'node:fs';
import type { Timer } from '../../base/clock.ts';
import { setEventLoopHook } from '../../base/event-loop.ts';
import { PagePool } from '../page-pool.ts';
import {
  Completion,
  type Files,
  type Listener,
  type Reactor,
  type SocketAddress,
  type Stream,
  type TlsSettings,
} from '../reactor.ts';
import { connectError, listenError } from '../socket-error.ts';
import * as sys from '../sys.ts';
import { TimerQueue } from '../timers.ts';
import { clearStaleSocket } from '../unix-socket.ts';
import { UringFiles } from './files.ts';
import { IORING_OP, Ring } from './ring.ts';
import { Scratch } from './scratch.ts';
import * as sockets from './sockets.ts';
import { UringStream, type StreamContext } from './stream.ts';

const BACKLOG = 128;
const EAGAIN = 11;
const ECANCELED = 125;
const EBADF = 9;
const POLLIN = 1;

/** How long a batch may be waited for by spinning instead of sleeping: about what a sleep and a wake-up cost. */
const SPIN_MS = 0.05;
/** The trust in spinning: each wait that ends within SPIN_MS earns one, each spin in vain costs a few. */
const SPIN_CREDIT_MAX = 64;
const SPIN_MISS_COST = 8;

export interface UringOptions {
  readonly pageBytes: number;
  readonly pageLimit: number;
  readonly bridgeTls: (fd: number, settings: TlsSettings) => Promise<number>;
}

class Callback extends Completion {
  readonly #callback: (result: number) => void;
  constructor(callback: (result: number) => void) {
    super();
    this.#callback = callback;
  }
  override complete(result: number): void {
    this.#callback(result);
  }
}

/**
 * The reactor on io_uring. Its loop keeps the thread inside io_uring_enter and hands out completions in batches. When a
 * part settles promises (`letEventLoopRun`), or Node's event loop has something to do (a message, a socket of Node's
 * own), it returns there for a turn and goes on.
 */
export class UringReactor implements Reactor, StreamContext {
  readonly kind = 'io_uring';
  readonly files: Files;
  readonly pool: PagePool;
  readonly sharing = null;
  readonly ring: Ring;
  readonly scratch: Scratch;
  readonly #timers = new TimerQueue();
  readonly #options: UringOptions;
  readonly #eventLoop: sys.EventLoop = sys.eventLoop();
  readonly #eventLoopReady: Callback;
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
    this.#eventLoopReady = new Callback(() => {
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
    this.#runDeferred();
    const now = this.nowMs();
    const untilTimer = this.#timers.untilNextMs(now);
    if (this.#nodeTimerAtMs <= now) this.#yieldWanted = true;
    const mustNotWait = this.#deferred.length > 0 || this.#yieldWanted || untilTimer === 0;
    if (this.ring.ready || mustNotWait || this.#spin()) this.ring.poke();
    else this.#sleep(Math.min(untilTimer, this.#nodeTimerAtMs - now));
    if (this.ring.prepared === 0) this.scratch.reset();
    this.ring.drain();
    if (untilTimer !== Infinity) this.#timers.fire(this.nowMs());
  }

  #runDeferred(): void {
    if (this.#deferred.length === 0) return;
    const batch = this.#deferred;
    this.#deferred = this.#running;
    this.#running = batch;
    for (let i = 0; i < batch.length; i += 1) (batch[i] as () => void)();
    batch.length = 0;
  }

  /** Submits, then watches the ring for a short while if that has paid lately. True: completions are there. */
  #spin(): boolean {
    if (this.#spinCredit <= 0 || !this.ring.canSpin) return false;
    if (this.ring.prepared > 0) this.ring.poke();
    const end = this.nowMs() + SPIN_MS;
    do {
      for (let i = 0; i < 64; i += 1) if (this.ring.ready) return true;
    } while (this.nowMs() < end);
    this.#spinCredit -= SPIN_MISS_COST;
    return false;
  }

  #sleep(timeoutMs: number): void {
    const before = this.nowMs();
    this.ring.wait(timeoutMs);
    const slept = this.nowMs() - before;
    if (slept < SPIN_MS && this.#spinCredit < SPIN_CREDIT_MAX) this.#spinCredit += 1;
  }

  /** Runs one operation as a promise: cold paths. */
  #once(op: number, fd: number, address: number, length: number, offset: number): Promise<number> {
    return new Promise((resolve) => {
      const done = new Callback((result) => {
        this.ring.forget(done);
        this.#yieldWanted = true;
        resolve(result);
      });
      this.ring.prepare(done, op, fd, address, length, offset, 0);
    });
  }

  async listen(address: SocketAddress, accepted: (stream: Stream) => void): Promise<Listener> {
    const { fd, bound } = await this.#bound(address);
    const listening = sys.listen(fd, BACKLOG);
    if (listening < 0) {
      sys.close(fd);
      throw listenError(address, sockets.socketError(-listening, 'listen'));
    }
    let open = true;
    let ended: (() => void) | null = null;
    const accept = new Callback((result) => {
      if (result >= 0) {
        sockets.tuneConnection(result, this.scratch.region);
        if (open) accepted(new UringStream(this, result, sockets.peerName(result)));
        else sys.close(result);
      }
      const over = result === -ECANCELED || result === -EBADF;
      if (open && !over) next(result);
      else ended?.();
    });
    const next = (result: number): void => {
      const arm = (): void => {
        // It may have been closed while this waited.
        if (open) this.ring.prepare(accept, IORING_OP.ACCEPT, fd, 0, 0, 0, 0o2000000);
        else ended?.();
      };
      // Out of descriptors or memory: accepting again at once would spin.
      if (result >= 0 || result === -EAGAIN) arm();
      else this.after(100, arm);
    };
    next(0);
    return {
      address: bound,
      close: async () => {
        if (!open) return;
        open = false;
        const finished = new Promise<void>((resolve) => {
          ended = () => {
            this.#yieldWanted = true;
            resolve();
          };
        });
        // [io_uring_enter(2)] IORING_OP_ASYNC_CANCEL by user_data: the accept's slot.
        await this.#once(IORING_OP.ASYNC_CANCEL, -1, accept.slot, 0, 0);
        await finished;
        this.ring.forget(accept);
        sys.close(fd);
        if (address.kind === 'unix') rmSync(address.path, { force: true });
      },
    };
  }

  async #bound(address: SocketAddress): Promise<{ fd: number; bound: SocketAddress }> {
    if (address.kind === 'fd') return { fd: address.fd, bound: address };
    if (address.kind === 'unix') await clearStaleSocket(address.path);
    const { family, region, length } = await sockets.sockAddr(address).catch((error: Error) => {
      throw listenError(address, error);
    });
    const fd = sockets.openSocket(family);
    if (address.kind === 'tcp') sockets.reuseAddress(fd, this.scratch.region);
    const result = sys.bind(fd, region, length);
    sys.unmap(region);
    if (result < 0) {
      sys.close(fd);
      throw listenError(address, sockets.socketError(-result, 'bind'));
    }
    if (address.kind === 'unix') return { fd, bound: address };
    return { fd, bound: { ...address, port: sockets.boundPort(fd) ?? address.port } };
  }

  async connect(address: SocketAddress): Promise<Stream> {
    if (address.kind === 'fd') return new UringStream(this, address.fd, 'fd');
    const { family, region, length } = await sockets.sockAddr(address).catch((error: Error) => {
      throw connectError(address, error);
    });
    const fd = sockets.openSocket(family);
    const result = await this.#once(IORING_OP.CONNECT, fd, region.address, 0, length);
    sys.unmap(region);
    if (result < 0) {
      sys.close(fd);
      throw connectError(address, sockets.socketError(-result, 'connect'));
    }
    sockets.tuneConnection(fd, this.scratch.region);
    return new UringStream(this, fd, describe(address));
  }

  async close(): Promise<void> {
    this.#open = false;
    setEventLoopHook(null);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    this.#turns.port1.close();
    this.ring.close();
  }
}

function describe(address: SocketAddress): string {
  if (address.kind === 'unix') return `unix ${address.path}`;
  if (address.kind === 'fd') return `fd ${address.fd}`;
  return `tcp ${address.host}:${address.port}`;
}
