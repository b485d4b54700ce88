import type net from 'node:net';
import { assert } from '../../base/assert.ts';
import type { Timer } from '../../base/clock.ts';
import { PagePool } from '../page-pool.ts';
import type { Listener, ReadableWatch, Reactor, SocketAddress, Stream } from '../reactor.ts';
import { alignedRegion } from './aligned-memory.ts';
import { PortableFiles } from './portable-files.ts';
import { connectTo, listenOn, peerOf } from './portable-sockets.ts';
import { PortableStream } from './portable-stream.ts';
import { ThreadWatch } from './readable-watch.ts';

/** setTimeout takes a longer delay for 1 ms. */
const DELAY_MS_MAX = 2 ** 31 - 2;

/** The size of a page of payload memory, and how many there may be. */
export interface PortableOptions {
  readonly pageBytes: number;
  readonly pageLimit: number;
}

/**
 * The reactor for hosts without io_uring: node:net and node:fs on the event loop of its thread. The same rules, and
 * one more: nothing completes inside the call that starts it.
 */
export class PortableReactor implements Reactor {
  readonly kind = 'portable';
  /** Node can neither receive descriptors nor map memory. */
  readonly sharing = null;
  readonly files: PortableFiles = new PortableFiles();
  readonly pool: PagePool;
  readonly #listeners = new Set<Listener>();
  readonly #streams = new Set<PortableStream>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #deferred: (() => void)[] = [];
  #draining: (() => void)[] = [];

  constructor(options: PortableOptions) {
    this.pool = new PagePool(options.pageBytes, options.pageLimit, alignedRegion);
  }

  async listen(address: SocketAddress, accepted: (stream: Stream) => void): Promise<Listener> {
    const inner = await listenOn(address, (socket, peer) => accepted(this.#adopt(socket, peer)));
    const listener: Listener = {
      address: inner.address,
      close: () => {
        this.#listeners.delete(listener);
        return inner.close();
      },
    };
    this.#listeners.add(listener);
    return listener;
  }

  async connect(address: SocketAddress): Promise<Stream> {
    const socket = await connectTo(address);
    return this.#adopt(socket, peerOf(socket, address));
  }

  #adopt(socket: net.Socket, peer: string): PortableStream {
    const stream = new PortableStream(socket, peer);
    this.#streams.add(stream);
    socket.once('close', () => this.#streams.delete(stream));
    return stream;
  }

  watchReadable(fd: number, readable: () => void): ReadableWatch {
    return new ThreadWatch(fd, readable);
  }

  nowMs(): number {
    return performance.now();
  }

  after(delayMs: number, callback: () => void): Timer {
    assert(delayMs >= 0 && delayMs <= DELAY_MS_MAX, 'a timer out of range');
    // Node's timers count whole milliseconds and can be one early.
    const timeout = setTimeout(
      () => {
        this.#timers.delete(timeout);
        callback();
      },
      Math.ceil(delayMs) + 1,
    );
    this.#timers.add(timeout);
    return {
      cancel: () => {
        clearTimeout(timeout);
        this.#timers.delete(timeout);
      },
    };
  }

  /** After the sockets and files that are ready now; what is deferred then waits for the next round. */
  defer(callback: () => void): void {
    if (this.#deferred.push(callback) === 1) setImmediate(this.#drain);
  }

  readonly #drain = (): void => {
    const batch = this.#deferred;
    this.#deferred = this.#draining;
    this.#draining = batch;
    for (const callback of batch) callback();
    batch.length = 0;
  };

  async close(): Promise<void> {
    for (const timeout of this.#timers) clearTimeout(timeout);
    this.#timers.clear();
    await Promise.all(Array.from(this.#listeners, (listener) => listener.close()));
    for (const stream of this.#streams) stream.destroy();
  }
}
