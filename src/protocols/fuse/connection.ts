import { assert } from '../../base/assert.ts';
import { Fifo } from '../../base/fifo.ts';
import { Segments } from '../../block/memory.ts';
import type { Page } from '../../reactor/page-pool.ts';
import {
  Completion,
  type Files,
  type FileTraits,
  type ReadableWatch,
  type Reactor,
} from '../../reactor/reactor.ts';
import { MAX_RECEIVES } from './limits.ts';
import * as native from './native.ts';
import type { FuseRequest } from './request.ts';
import { FuseSession, type SessionHost, type SessionSettings } from './session.ts';
import { IN_HEADER_BYTES, MEMORY_PAGE_BYTES, WRITE_IN_BYTES } from './wire.ts';

// [read(2)] on /dev/fuse
const EINTR = 4;
const ENOENT = 2;
const EAGAIN = 11;
const ENODEV = 19;
const ECONNABORTED = 103;

/** A message is put where the payload of a WRITE is at the start of a page of memory, as it is in the file. */
const RECEIVE_START = MEMORY_PAGE_BYTES - IN_HEADER_BYTES - WRITE_IN_BYTES;

/**
 * Reads are plain calls: the ring would let a read that finds nothing wait in the kernel (from 5.18 on, O_NONBLOCK or not),
 * and what waits there keeps the mount alive though its descriptor is closed.
 */
const TRAITS: FileTraits = Object.freeze({ inlineRead: true, inlineWrite: false, dsync: false });

const LEAST_BATCH = 2;

/** One read of a message from the kernel. */
class Receive extends Completion {
  readonly segments: Segments = new Segments();
  readonly #done: (receive: Receive, result: number) => void;
  page: Page | null = null;
  length = 0;

  constructor(done: (receive: Receive, result: number) => void) {
    super();
    this.#done = done;
  }

  override complete(result: number): void {
    this.#done(this, result);
  }
}

/** What a connection needs of its reactor. */
export interface FuseReactor extends Pick<Reactor, 'pool' | 'defer' | 'watchReadable'> {
  readonly files: Pick<Files, 'read' | 'write'>;
}

export interface ConnectionHooks {
  /** Programs are served from now on. */
  readonly ready: () => void;
  /** The mount is gone (null), or the kernel speaks otherwise than we do. `close` is still to be called. */
  readonly over: (reason: string | null) => void;
}

/** Joins a session with /dev/fuse: reads messages, several at a time while there are several, and writes answers. */
export class FuseConnection implements SessionHost {
  readonly #reactor: FuseReactor;
  readonly #fd: number;
  readonly #hooks: ConnectionHooks;
  readonly #session: FuseSession;
  readonly #watch: ReadableWatch;
  readonly #idle: Receive[] = [];
  /** Messages for which the session had no room. */
  readonly #waiting = new Fifo<Receive>();
  #reading = 0;
  /** How many reads are made at once: one more than lately found something, for that one tells that there is no more. */
  #batch = LEAST_BATCH;
  #found = 0;
  /** A read of this batch found nothing: the rest of them is left out. */
  #dry = false;
  #lacked = false;
  #waitsForMemory = false;
  #stopping = false;
  #over = false;
  #scheduled = false;
  #closed: (() => void) | null = null;
  #watchStopped = false;
  #abandoned = false;
  #fdClosed = false;
  #disposed = false;
  readonly #run: () => void = () => {
    this.#scheduled = false;
    this.#work();
  };
  readonly #memoryFreed: () => void = () => {
    this.#waitsForMemory = false;
    this.progress();
  };

  /** `fd` is /dev/fuse of a mount, non-blocking; it is the connection's from now on. */
  constructor(reactor: FuseReactor, fd: number, settings: SessionSettings, hooks: ConnectionHooks) {
    this.#reactor = reactor;
    this.#fd = fd;
    this.#hooks = hooks;
    this.#session = new FuseSession(settings, reactor.pool, this);
    for (let i = 0; i < MAX_RECEIVES; i += 1) {
      this.#idle.push(new Receive((receive, result) => this.#received(receive, result)));
    }
    this.#watch = reactor.watchReadable(fd, this.#run);
    this.#watch.arm();
  }

  /**
   * Takes no more requests, answers what it has and closes the device: whoever still has the file open gets ENOTCONN.
   * `closed` is called once, when nothing of it uses memory or a device any more.
   */
  close(closed: () => void): void {
    assert(this.#closed === null, 'a connection is closed twice');
    this.#closed = closed;
    this.#stopping = true;
    this.#session.stop();
    this.#watch.stop(() => {
      this.#watchStopped = true;
      this.progress();
    });
  }

  /**
   * After `close`: what is in flight with a device is not waited for, and not answered any more. The devices of all opens
   * are let go at once.
   */
  abandon(): void {
    this.#abandoned = true;
    this.#session.disconnect();
    this.progress();
  }

  /**
   * The kernel has ended the mount, maybe with requests in flight (umount -f, or `abort` of the connection): nobody waits
   * for them any more. The devices of all opens are let go at once, so that whoever opens them next waits for what still
   * goes on there (P11).
   */
  gone(): void {
    this.#session.disconnect();
    this.over(null);
  }

  // SessionHost

  send(request: FuseRequest): void {
    this.#reactor.files.write(request, this.#fd, TRAITS, request.answer, 0, 0, false);
  }

  progress(): void {
    // Only who waits for something has to be told.
    if (this.#scheduled || (this.#waiting.length === 0 && this.#closed === null)) return;
    this.#scheduled = true;
    this.#reactor.defer(this.#run);
  }

  ready(): void {
    this.#hooks.ready();
  }

  over(reason: string | null): void {
    if (this.#over) return;
    this.#over = true;
    this.#stopping = true;
    this.#session.stop();
    this.#hooks.over(reason);
  }

  // The work

  #work(): void {
    while (this.#waiting.length > 0) {
      const receive = this.#waiting.peek() as Receive;
      if (!this.#understand(receive)) break;
      this.#waiting.shift();
      this.#idle.push(receive);
    }
    if (this.#closed !== null) this.#closeWhenQuiet();
    else if (this.#waiting.length === 0 && this.#reading === 0 && !this.#stopping) this.#receive();
    else if (this.#waiting.length > 0) this.#waitForMemory();
  }

  #receive(): void {
    this.#found = 0;
    this.#lacked = false;
    this.#dry = false;
    // All are counted first: one may complete at once.
    const count = Math.min(this.#batch, this.#idle.length);
    this.#reading = count;
    for (let i = 0; i < count; i += 1) {
      const receive = this.#idle.pop() as Receive;
      if (!this.#dry) receive.page ??= this.#reactor.pool.take();
      if (this.#dry || receive.page === null) {
        this.#lacked ||= !this.#dry;
        this.#receiveDone(receive);
        continue;
      }
      receive.segments.clear();
      const bytes = IN_HEADER_BYTES + WRITE_IN_BYTES + this.#session.maxWriteBytes;
      receive.segments.push(receive.page.region, RECEIVE_START, bytes);
      this.#reactor.files.read(receive, this.#fd, TRAITS, receive.segments, 0, 0);
    }
  }

  #received(receive: Receive, result: number): void {
    if (result > 0) {
      this.#found += 1;
      receive.length = result;
      if (this.#waiting.length > 0 || !this.#understand(receive)) {
        this.#waiting.push(receive);
        this.#reading -= 1;
        if (this.#reading === 0) this.#batchDone();
        return;
      }
    } else if (result === -ENODEV || result === -ECONNABORTED) this.gone();
    // A request that was given up before it was read (ENOENT) has left the queue: that is as good as one found.
    else if (result === -ENOENT || result === -EINTR) this.#found += 1;
    else if (result !== -EAGAIN) this.over(`requests cannot be read (errno ${-result})`);
    if (result <= 0) {
      this.#dry = true;
      receive.page?.release();
      receive.page = null;
    }
    this.#receiveDone(receive);
  }

  #receiveDone(receive: Receive): void {
    this.#idle.push(receive);
    this.#reading -= 1;
    if (this.#reading === 0) this.#batchDone();
  }

  /** All reads of a batch have ended. */
  #batchDone(): void {
    if (this.#closed !== null || this.#waiting.length > 0) {
      this.progress();
      if (this.#waiting.length > 0) this.#waitForMemory();
    } else if (this.#stopping) {
      return;
    } else if (this.#lacked && this.#found === 0) {
      this.#waitForMemory();
    } else if (this.#found === this.#batch) {
      this.#batch = Math.min(2 * this.#batch, MAX_RECEIVES);
      this.#again();
    } else {
      this.#batch = Math.max(LEAST_BATCH, Math.min(this.#found + 1, MAX_RECEIVES));
      this.#watch.arm();
    }
  }

  #again(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#reactor.defer(this.#run);
  }

  #waitForMemory(): void {
    if (this.#waitsForMemory) return;
    this.#waitsForMemory = true;
    this.#reactor.pool.whenFree(() => {
      this.#memoryFreed();
      this.#again();
    });
  }

  /** False: the session has no room; the message stays where it is. */
  #understand(receive: Receive): boolean {
    const page = receive.page as Page;
    if (!this.#session.receive(page, RECEIVE_START, receive.length)) return false;
    // A payload is still needed there: the next message arrives elsewhere.
    if (!page.exclusive) {
      page.release();
      receive.page = null;
    }
    return true;
  }

  #closeWhenQuiet(): void {
    if (this.#disposed || !this.#watchStopped || this.#reading > 0) return;
    const { inFlight, answering } = this.#session;
    // A request to the kernel that is still to be handed over would go to whoever gets the descriptor's number next.
    if (answering > 0 || (inFlight > 0 && !this.#abandoned)) return;
    if (!this.#fdClosed) {
      this.#fdClosed = true;
      native.close(this.#fd);
      (this.#closed as () => void)();
    }
    if (inFlight === 0) this.#dispose();
  }

  #dispose(): void {
    this.#disposed = true;
    // Messages that were taken and had no room are not answered; that the device is closed tells the programs.
    for (;;) {
      const waiting = this.#waiting.shift();
      if (waiting === undefined) break;
      this.#idle.push(waiting);
    }
    for (const receive of this.#idle) receive.page?.release();
    this.#session.dispose();
  }
}
