import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../../base/assert.ts';
import { libcOrNull } from './libc.ts';
import { WATCH, type WatchStart } from './readable-watch.ts';

// The thread of a ThreadWatch. It sleeps until it is told to watch, watches once, says so, and sleeps again.

function watch({ fd, woken, state }: WatchStart): void {
  const libc = libcOrNull();
  assert(libc !== null, 'a watch needs system calls');
  for (;;) {
    Atomics.wait(state, 0, WATCH.IDLE);
    if (Atomics.load(state, 0) === WATCH.STOPPED) return;
    libc.waitReadable(fd, woken);
    if (Atomics.compareExchange(state, 0, WATCH.ARMED, WATCH.IDLE) !== WATCH.ARMED) return;
    parentPort?.postMessage(null);
  }
}

watch(workerData as WatchStart);
