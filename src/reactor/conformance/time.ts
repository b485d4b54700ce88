import assert from 'node:assert/strict';
import { test } from 'node:test';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { Timer } from '../../base/clock.ts';
import { pause, type Bench } from './harness.ts';

export function timeTests(get: () => Bench): void {
  test('timers: in order of their time, never early, equal ones in the order they were set', async () => {
    const { reactor } = get();
    const fired: string[] = [];
    const start = reactor.nowMs();
    const set = (name: string, delayMs: number): Timer =>
      reactor.after(delayMs, () => {
        assert.ok(reactor.nowMs() - start >= delayMs, `${name} is early`);
        fired.push(name);
      });
    set('late', 30);
    set('early', 5);
    set('same 1', 15);
    set('same 2', 15);
    set('now', 0);
    assert.deepEqual(fired, []);
    await pause(reactor, 45);
    assert.deepEqual(fired, ['now', 'early', 'same 1', 'same 2', 'late']);
  });

  test('timers: a cancelled one never fires, cancel after the call-back is harmless', async () => {
    const { reactor } = get();
    let fired = 0;
    const cancelled = reactor.after(5, () => {
      fired += 100;
    });
    const timer = reactor.after(5, () => {
      fired += 1;
      cancelled.cancel();
      timer.cancel();
    });
    cancelled.cancel();
    await pause(reactor, 20);
    timer.cancel();
    assert.equal(fired, 1);
  });

  test('defer: later, in order, what is deferred meanwhile after that', async () => {
    const { reactor } = get();
    const ran: number[] = [];
    await new Promise<void>((resolve) => {
      reactor.defer(() => {
        ran.push(1);
        reactor.defer(() => {
          ran.push(3);
          letEventLoopRun();
          resolve();
        });
      });
      reactor.defer(() => ran.push(2));
      assert.deepEqual(ran, []);
    });
    assert.deepEqual(ran, [1, 2, 3]);
  });
}
