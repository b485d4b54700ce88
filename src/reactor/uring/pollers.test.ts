import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import test from 'node:test';
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { Segments } from '../../block/memory.ts';
import { eventually, pause, request, unavailable } from '../conformance/harness.ts';
import type { Poller } from '../sharing.ts';
import * as sys from '../sys.ts';
import { Pollers } from './pollers.ts';
import { openSharing } from './testing.ts';

const skip = await unavailable('io_uring');

/** Work by hand. */
class Manual implements Poller {
  readonly name: string;
  readonly log: string[];
  waiting = 0;
  /** Work that comes while it is asked to ring. */
  whileArming = 0;
  onPoll: (() => void) | null = null;
  armed = false;

  constructor(name: string, log: string[]) {
    this.name = name;
    this.log = log;
  }

  ready(): boolean {
    return this.waiting > 0;
  }

  poll(): void {
    assert.ok(this.waiting > 0, 'polled without work');
    assert.ok(!this.armed, 'polled while armed');
    this.waiting -= 1;
    this.log.push(`${this.name} poll`);
    this.onPoll?.();
  }

  arm(): boolean {
    assert.ok(!this.armed, 'armed twice');
    this.armed = true;
    this.log.push(`${this.name} arm`);
    this.waiting += this.whileArming;
    this.whileArming = 0;
    return this.waiting > 0;
  }

  disarm(): void {
    assert.ok(this.armed, 'disarmed without arm');
    this.armed = false;
    this.log.push(`${this.name} disarm`);
  }
}

/** Fails when the reactor slept until a timer of Node's woke it. */
async function beforeNodeTimer(all: Promise<string>): Promise<void> {
  const abort = new AbortController();
  const timer = sleep(2000, 'slept', { signal: abort.signal });
  assert.equal(await Promise.race([all, timer]), 'all');
  abort.abort();
  await timer.catch(() => {});
}

void test('a round of pollers: who is ready is polled, who ended is left alone', () => {
  const log: string[] = [];
  const pollers = new Pollers();
  assert.ok(pollers.none);
  const [a, b, c] = ['a', 'b', 'c'].map((name) => new Manual(name, log)) as [
    Manual,
    Manual,
    Manual,
  ];
  const ends = [a, b, c].map((poller) => pollers.add(poller));
  assert.ok(!pollers.none && !pollers.ready);
  pollers.poll();
  a.waiting = 2;
  b.waiting = 1;
  assert.ok(pollers.ready);
  a.onPoll = () => ends[1]?.();
  pollers.poll();
  assert.deepEqual(log.splice(0), ['a poll']);
  // One that is added inside a call has its turn in the next round.
  a.onPoll = () => void pollers.add(b);
  pollers.poll();
  assert.deepEqual(log.splice(0), ['a poll']);
  pollers.poll();
  assert.deepEqual(log.splice(0), ['b poll']);
  ends[1]?.();
  assert.ok(!pollers.ready);
});

void test('arming stops at the first that has work, and is undone', () => {
  const log: string[] = [];
  const pollers = new Pollers();
  const [a, b, c] = ['a', 'b', 'c'].map((name) => new Manual(name, log)) as [
    Manual,
    Manual,
    Manual,
  ];
  const ends = [a, b, c].map((poller) => pollers.add(poller));
  assert.equal(pollers.arm(), true);
  pollers.disarm();
  assert.deepEqual(log.splice(0), ['a arm', 'b arm', 'c arm', 'a disarm', 'b disarm', 'c disarm']);
  pollers.disarm();
  assert.deepEqual(log, []);
  b.whileArming = 1;
  assert.equal(pollers.arm(), false);
  assert.deepEqual(log.splice(0), ['a arm', 'b arm', 'a disarm', 'b disarm']);
  b.waiting = 0;
  assert.equal(pollers.arm(), true);
  ends[0]?.();
  pollers.disarm();
  assert.deepEqual(log.splice(0), ['a arm', 'b arm', 'c arm', 'b disarm', 'c disarm']);
});

void test(
  'the reactor polls before what is deferred, and sleeps only armed',
  { skip },
  async (t) => {
    const { reactor, sharing } = openSharing(t);
    const log: string[] = [];
    const poller = new Manual('p', log);
    const fd = sharing.eventfd();
    const watch = sharing.watch(fd, () => {
      log.push('rung');
      assert.ok(!poller.armed, 'a completion while armed');
      poller.waiting += 2;
    });
    poller.onPoll = () => reactor.defer(() => log.push('published'));
    const end = sharing.poll(poller);
    await eventually(reactor, () => poller.armed || log.includes('p arm'), 'asleep');
    await pause(reactor, 10);
    assert.ok(!poller.armed, 'it is awake: this runs');
    const count = (line: string): number => log.filter((other) => other === line).length;
    assert.ok(count('p arm') > 0);
    assert.equal(count('p arm'), count('p disarm'));
    log.length = 0;
    sharing.signal(fd);
    await eventually(reactor, () => count('published') === 2, 'done');
    const happened = log.slice(log.indexOf('rung')).filter((line) => !line.endsWith('arm'));
    assert.deepEqual(happened, ['rung', 'p poll', 'published', 'p poll', 'published']);
    end();
    log.length = 0;
    poller.waiting = 1;
    await pause(reactor, 10);
    assert.deepEqual(log, []);
    let stopped = false;
    watch.stop(() => {
      stopped = true;
    });
    await eventually(reactor, () => stopped, 'stopped');
    sharing.closeDescriptor(fd);
  },
);

void test(
  'work that comes while the reactor asks to be rung is not slept over',
  { skip },
  async (t) => {
    const { reactor, sharing } = openSharing(t);
    const log: string[] = [];
    const poller = new Manual('p', log);
    let polled = 0;
    poller.whileArming = 1;
    const end = sharing.poll(poller);
    const all = new Promise<string>((resolve) => {
      poller.onPoll = () => {
        polled += 1;
        if (polled < 100) {
          poller.whileArming = 1;
        } else {
          reactor.returnToNode();
          resolve('all');
        }
      };
    });
    await beforeNodeTimer(all);
    end();
  },
);

void test('what is deferred while arming is not slept over', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const poller = new Manual('p', []);
  let told = 0;
  const all = new Promise<string>((resolve) => {
    const tell = (): void => {
      told += 1;
      if (told !== 20) return;
      reactor.returnToNode();
      resolve('all');
    };
    const arm = poller.arm.bind(poller);
    poller.arm = () => {
      if (told < 20) reactor.defer(tell);
      return arm();
    };
  });
  const end = sharing.poll(poller);
  await beforeNodeTimer(all);
  end();
});

void test('a poller that always has work starves nobody', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const poller = new Manual('busy', []);
  poller.waiting = 1;
  let polls = 0;
  poller.onPoll = () => {
    polls += 1;
    poller.waiting = 1;
    poller.log.length = 0;
  };
  const end = sharing.poll(poller);
  const fd = openSync('/proc/self/exe', 'r');
  const region = sys.mapMemory(4096);
  const segments = new Segments();
  segments.push(region, 0, 4096);
  const traits = { inlineRead: false, inlineWrite: false, dsync: false };
  for (let i = 0; i < 20; i += 1) {
    const before = polls;
    await pause(reactor, 1);
    await sleep(1);
    await immediate();
    const result = await request((done) => reactor.files.read(done, fd, traits, segments, 0, 0));
    assert.equal(result, 4096);
    assert.ok(polls > before, 'nor is it starved');
  }
  closeSync(fd);
  sys.unmap(region);
  end();
});

void test('a server with idle pollers uses no processor', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const log: string[] = [];
  const ends = [1, 2, 3].map(() => sharing.poll(new Manual('p', log)));
  await pause(reactor, 50);
  // Node's own threads may be clearing up after the tests before: a loop that spins does so every time.
  let least = Infinity;
  for (let i = 0; i < 8 && least >= 200_000; i += 1) {
    log.length = 0;
    const before = process.cpuUsage();
    await sleep(400);
    const used = process.cpuUsage(before);
    // A few dozen turns, in which Node has something to do; a loop that spins makes hundreds of thousands.
    assert.ok(log.length < 5000, `${log.length} calls`);
    least = Math.min(least, used.user + used.system);
  }
  assert.ok(least < 200_000, `${least} us`);
  for (const end of ends) end();
});

void test('requests of another thread, rung for only when asked', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const rounds = 20_000;
  const fd = sharing.eventfd();
  // 0: submitted, 1: done, 2: whether to ring, 3: how often it was rung.
  const shared = new Int32Array(new SharedArrayBuffer(16));
  const worker = new Worker(
    `const { workerData: { shared, fd, rounds } } = require('node:worker_threads');
    const { writeSync } = require('node:fs');
    const one = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
    for (let i = 1; i <= rounds; i += 1) {
      Atomics.store(shared, 0, i);
      if (Atomics.load(shared, 2) === 1) {
        Atomics.add(shared, 3, 1);
        writeSync(fd, one);
      }
      for (let spin = 0; spin < 2000 && Atomics.load(shared, 1) < i; spin += 1);
      while (Atomics.load(shared, 1) < i) {
        if (Atomics.wait(shared, 1, i - 1, 5000) === 'timed-out') throw new Error('lost ' + i);
      }
      // Now and then it thinks for long enough that the other side sleeps.
      if (i % 500 === 0) Atomics.wait(shared, 3, Atomics.load(shared, 3), 2);
    }`,
    { eval: true, workerData: { shared, fd, rounds } },
  );
  const waiting = (): boolean => Atomics.load(shared, 0) !== Atomics.load(shared, 1);
  const end = sharing.poll({
    ready: waiting,
    poll: () => {
      reactor.defer(() => {
        Atomics.store(shared, 1, Atomics.load(shared, 0));
        Atomics.notify(shared, 1);
      });
    },
    arm: () => {
      Atomics.store(shared, 2, 1);
      return waiting();
    },
    disarm: () => {
      Atomics.store(shared, 2, 0);
    },
  });
  const watch = sharing.watch(fd, () => {});
  await new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', resolve);
  });
  end();
  assert.equal(shared[1], rounds);
  const rings = shared[3] as number;
  t.diagnostic(`${rings} rings for ${rounds} requests`);
  assert.ok(rings > 0 && rings <= rounds);
  await new Promise<void>((resolve) => {
    watch.stop(() => {
      reactor.returnToNode();
      resolve();
    });
  });
  sharing.closeDescriptor(fd);
});
