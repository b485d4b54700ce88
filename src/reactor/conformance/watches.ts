import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import type { Reactor } from '../reactor.ts';
import { pause, type Bench } from './harness.ts';

/** What has been called. */
interface Seen {
  calls: number;
  stopped: boolean;
}

async function until(reactor: Reactor, seen: Seen, met: (seen: Seen) => boolean): Promise<void> {
  while (!met(seen)) await pause(reactor, 5);
}

/** Longer than a way between threads takes on a busy machine. */
const WHILE_MS = 100;

export function watchTests(get: () => Bench): void {
  /** A pipe with a name, both of whose ends are one descriptor. */
  function openPipe(): number {
    const path = get().path();
    execFileSync('mkfifo', [path]);
    return openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  }

  test('a watch calls back once for each time it is armed, also for what was there before', async () => {
    const { reactor } = get();
    const fd = openPipe();
    const seen: Seen = { calls: 0, stopped: false };
    const watch = reactor.watchReadable(fd, () => {
      seen.calls += 1;
    });
    writeSync(fd, 'a');
    await pause(reactor, WHILE_MS);
    assert.equal(seen.calls, 0, 'it is not armed');
    watch.arm();
    watch.arm();
    assert.equal(seen.calls, 0, 'never inside a call');
    await until(reactor, seen, ({ calls }) => calls > 0);
    await pause(reactor, WHILE_MS);
    assert.equal(seen.calls, 1);
    readSync(fd, new Uint8Array(1));
    watch.arm();
    await pause(reactor, WHILE_MS);
    assert.equal(seen.calls, 1, 'there is nothing');
    writeSync(fd, 'b');
    await until(reactor, seen, ({ calls }) => calls > 1);
    watch.stop(() => {
      seen.stopped = true;
    });
    await until(reactor, seen, ({ stopped }) => stopped);
    closeSync(fd);
    assert.equal(seen.calls, 2);
  });

  test('a watch that is stopped while armed calls nobody, and its descriptor may be closed', async () => {
    const { reactor } = get();
    for (const armed of [true, false]) {
      const fd = openPipe();
      const seen: Seen = { calls: 0, stopped: false };
      const watch = reactor.watchReadable(fd, () => {
        seen.calls += 1;
      });
      if (armed) watch.arm();
      await pause(reactor, 20);
      watch.stop(() => {
        seen.stopped = true;
      });
      writeSync(fd, 'a');
      await until(reactor, seen, ({ stopped }) => stopped);
      await pause(reactor, 20);
      closeSync(fd);
      assert.equal(seen.calls, 0);
    }
  });
}
