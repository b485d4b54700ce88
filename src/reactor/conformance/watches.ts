import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { pause, type Bench } from './harness.ts';

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
    let calls = 0;
    const watch = reactor.watchReadable(fd, () => {
      calls += 1;
    });
    writeSync(fd, 'a');
    await pause(reactor, WHILE_MS);
    assert.equal(calls, 0, 'it is not armed');
    watch.arm();
    watch.arm();
    assert.equal(calls, 0, 'never inside a call');
    while (calls === 0) await pause(reactor, 5);
    await pause(reactor, WHILE_MS);
    assert.equal(calls, 1);
    readSync(fd, new Uint8Array(1));
    watch.arm();
    await pause(reactor, WHILE_MS);
    assert.equal(calls, 1, 'there is nothing');
    writeSync(fd, 'b');
    while (calls === 1) await pause(reactor, 5);
    let stopped = false;
    watch.stop(() => {
      stopped = true;
    });
    while (!stopped) await pause(reactor, 5);
    closeSync(fd);
    assert.equal(calls, 2);
  });

  test('a watch that is stopped while armed calls nobody, and its descriptor may be closed', async () => {
    const { reactor } = get();
    for (const armed of [true, false]) {
      const fd = openPipe();
      let calls = 0;
      const watch = reactor.watchReadable(fd, () => {
        calls += 1;
      });
      if (armed) watch.arm();
      await pause(reactor, 20);
      let stopped = false;
      watch.stop(() => {
        stopped = true;
      });
      writeSync(fd, 'a');
      while (!stopped) await pause(reactor, 5);
      await pause(reactor, 20);
      closeSync(fd);
      assert.equal(calls, 0);
    }
  });
}
