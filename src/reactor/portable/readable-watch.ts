import fs from 'node:fs';
import { Worker } from 'node:worker_threads';
import { assert } from '../../base/assert.ts';
import { ConfigError } from '../../base/errors.ts';
import type { ReadableWatch } from '../reactor.ts';
import { libcOrNull } from './libc.ts';

/** What the thread is to do. */
export const WATCH = { IDLE: 0, ARMED: 1, STOPPED: 2 } as const;

/** What the thread is started with. */
export interface WatchStart {
  readonly fd: number;
  /** Can be read when the thread is to end. */
  readonly woken: number;
  /** One of WATCH. */
  readonly state: Int32Array;
}

/**
 * Node's event loop takes files and sockets only. So a thread of its own sits in poll(2); a thread of libuv's pool, of
 * which there are four, would be missing everywhere else.
 */
export class ThreadWatch implements ReadableWatch {
  readonly #readable: () => void;
  readonly #worker: Worker;
  readonly #state = new Int32Array(new SharedArrayBuffer(4));
  /** A byte into it gets the thread out of poll(2). */
  readonly #wake: number;
  readonly #woken: number;
  #stopped: (() => void) | null = null;

  /** Throws a ConfigError where system calls cannot be made. */
  constructor(fd: number, readable: () => void) {
    const libc = libcOrNull();
    if (libc === null) {
      throw new ConfigError(
        'this needs system calls that Node does not have, and koffi, which makes them, cannot be loaded',
        'use Linux on a processor for which koffi is prebuilt',
      );
    }
    [this.#wake, this.#woken] = libc.socketpair();
    this.#readable = readable;
    const start: WatchStart = { fd, woken: this.#woken, state: this.#state };
    // `.ts` in the source tree, `.js` in what `npm run build` makes of it.
    const url = new URL(import.meta.url.replace(/readable-watch(\.\w+)$/, 'readable-worker$1'));
    this.#worker = new Worker(url, { workerData: start });
    this.#worker.on('message', () => {
      if (this.#stopped === null) this.#readable();
    });
    this.#worker.on('exit', () => {
      libc.close(this.#wake);
      libc.close(this.#woken);
      this.#stopped?.();
    });
  }

  arm(): void {
    assert(this.#stopped === null, 'a stopped watch is not armed again');
    if (Atomics.compareExchange(this.#state, 0, WATCH.IDLE, WATCH.ARMED) === WATCH.IDLE) {
      Atomics.notify(this.#state, 0);
    }
  }

  stop(stopped: () => void): void {
    assert(this.#stopped === null, 'a watch is stopped once');
    this.#stopped = stopped;
    Atomics.store(this.#state, 0, WATCH.STOPPED);
    Atomics.notify(this.#state, 0);
    fs.writeSync(this.#wake, 'x');
  }
}
