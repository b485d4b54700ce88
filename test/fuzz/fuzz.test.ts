import assert from 'node:assert/strict';
import test from 'node:test';
import { Io, OP } from '../../src/block/io.ts';
import type { Segments } from '../../src/block/memory.ts';
import { BlkRequest } from '../../src/protocols/virtio/blk-request.ts';
import { GuestMemory } from '../../src/protocols/virtio/guest-memory.ts';
import { PackedQueue } from '../../src/protocols/virtio/packed-queue.ts';
import { SplitQueue } from '../../src/protocols/virtio/split-queue.ts';
import { MemoryStore } from '../../src/stores/memory/memory-store.ts';
import { explained } from './explainer.ts';
import { sent } from './iscsi-client.ts';
import { pool as iscsiPool } from './iscsi-sessions.ts';
import { pool } from './nbd-connection.ts';
import { REAL_TARGETS, TARGETS } from './targets.ts';
import type { FuzzTarget } from './target.ts';
import { conversations } from './vhost-user-messages.ts';
import { chains } from './virtio-checked.ts';

/** Runs of each target; the fuzz step of `npm test` does 100,000 connections and 1,000,000 chains. */
const RUNS: Readonly<Record<string, number>> = {
  'nbd-handshake': 3000,
  'nbd-transmission': 3000,
  'nbd-connection': 5000,
  'nbd-uri': 20_000,
  'iscsi-logins': 200,
  'iscsi-sessions': 200,
  'virtio-chains': 400,
  'virtio-chaos': 150,
  'vhost-user-messages': 500,
  'state-file': 3000,
};

function runAll(name: string, runs: number): void {
  const target = TARGETS[name] as FuzzTarget;
  for (let seed = 1; seed <= runs; seed += 1) {
    try {
      target(seed);
    } catch (error) {
      throw new Error(`replay: npm run fuzz -- ${name} ${seed}`, { cause: error });
    }
  }
}

for (const name of REAL_TARGETS) {
  test(`fuzz: ${name}`, () => runAll(name, RUNS[name] as number));
}

test('fuzz: the attacks get far enough to matter', () => {
  assert.ok(explained.options > 1000, `${explained.options} option replies`);
  assert.ok(explained.served > 1000, `${explained.served} connections served`);
  assert.ok(explained.succeeded > 1000, `${explained.succeeded} requests succeeded`);
  assert.ok(explained.failed > 1000, `${explained.failed} requests failed`);
  assert.ok(pool.mostInUse > 1 && pool.inUse === 0);
  for (const [what, count] of Object.entries(sent))
    assert.ok(count > 100, `iSCSI: ${count} ${what}`);
  assert.ok(iscsiPool.mostInUse > 1 && iscsiPool.inUse === 0);
});

test('fuzz: chains are served, refused and lost, and most batches can be foretold', () => {
  assert.ok(chains.succeeded > 10_000, `${chains.succeeded} succeeded`);
  assert.ok(chains.failed > 1000 && chains.unsupported > 1000);
  assert.ok(chains.brokenRings > 1000, `${chains.brokenRings} rings broken`);
  assert.ok(chains.foretold > 20 * chains.tangled, `${chains.tangled} tangled`);
  const { held, ended } = conversations;
  assert.ok(ended > held / 10 && ended < (held * 9) / 10, `${ended} of ${held} ended`);
});

test('fuzz: the canary sings, and smoke is nothing but smoke', () => {
  assert.throws(() => runAll('canary', 1), /replay: npm run fuzz -- canary 1/);
  runAll('smoke', 3);
});

function counters(): number[] {
  return [...Object.values(explained), ...Object.values(chains)];
}

function trace(): number[] {
  const before = counters();
  runAll('nbd-connection', 50);
  runAll('virtio-chains', 10);
  runAll('virtio-chaos', 5);
  return counters().map((value, i) => value - (before[i] as number));
}

test('fuzz: the same seed gives the same run', () => {
  assert.deepEqual(trace(), trace());
});

// Mistakes put in: into the store beneath, from outside, for as long as a test runs.

/** What the fuzzer says when a method of a class is another one. */
function withWrong(
  prototype: object,
  method: string,
  wrong: (right: (...parameters: unknown[]) => unknown) => unknown,
): string {
  const original = Object.getOwnPropertyDescriptor(prototype, method) as PropertyDescriptor;
  const right = original.value as (...parameters: unknown[]) => unknown;
  Object.defineProperty(prototype, method, { ...original, value: wrong(right) });
  try {
    runAll('virtio-chains', 100);
    runAll('virtio-chaos', 50);
  } catch (error) {
    const { cause } = error as Error;
    return cause instanceof Error ? cause.message : String(cause);
  } finally {
    Object.defineProperty(prototype, method, original);
  }
  return 'nothing was noticed';
}

test('fuzz, mistakes put in: virtio queues that trust the guest are found out', () => {
  const outside = withWrong(GuestMemory.prototype, 'push', () => pushAnything);
  assert.match(outside, /not the guest's|should be broken|outside|status/);
  const early = withWrong(
    BlkRequest.prototype,
    'finish',
    (right) =>
      function finish(this: BlkRequest) {
        this.status = 0;
        return right.call(this);
      },
  );
  assert.match(early, /is 0, not [12]|is \d+, not \d+|given back/);
  const forgetful = withWrong(SplitQueue.prototype, 'publish', () => () => false);
  assert.match(forgetful, /given back: ;|base of a queue/);
  const generous = withWrong(
    PackedQueue.prototype,
    'give',
    (right) =>
      function give(this: PackedQueue, chain: unknown) {
        right.call(this, chain, 0);
      },
  );
  assert.match(generous, /given back/);
});

/** Without a look at where memory ends. */
function pushAnything(
  this: GuestMemory,
  segments: Segments,
  address: number,
  length: number,
): boolean {
  const [first] = this.regions;
  if (first !== undefined && length > 0) {
    segments.push(first.region, address - first.guestAddress, length);
  }
  return true;
}

type Submit = MemoryStore['submit'];

/** What the fuzzer says when every store does what `wrong` does to its requests. */
function withMistake(
  wrong: (right: (io: Io) => void, io: Io) => void,
  target = 'nbd-transmission',
): string {
  const original = Object.getOwnPropertyDescriptor(MemoryStore.prototype, 'submit');
  const right = original?.value as Submit;
  const submit: Submit = function submit(this: MemoryStore, io: Io): void {
    wrong((each) => right.call(this, each), io);
  };
  Object.defineProperty(MemoryStore.prototype, 'submit', { ...original, value: submit });
  try {
    for (let seed = 1; seed <= 200; seed += 1) (TARGETS[target] as FuzzTarget)(seed);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    Object.defineProperty(MemoryStore.prototype, 'submit', original as PropertyDescriptor);
  }
  return 'nothing was noticed';
}

test('fuzz, mistake put in: a read that fills nothing shows foreign memory', () => {
  const found = withMistake((submit, io) => {
    if (io.op === OP.READ) io.complete(null);
    else submit(io);
  });
  assert.match(found, /foreign memory in a reply/);
});

test('fuzz, mistake put in: a write of other bytes is noticed', () => {
  const found = withMistake((submit, io) => {
    if (io.op === OP.WRITE) io.segments.bytesAt(0).fill(7, 0, 1);
    submit(io);
  });
  assert.match(found, /foreign memory in a reply|data reported as zeroes/);
});

test('fuzz, mistake put in: a request that is never done is noticed', () => {
  const found = withMistake((submit, io) => {
    if (io.op !== OP.CACHE) submit(io);
  });
  assert.match(found, /in flight|never answered|leak/);
});

function foundInSessions(wrong: Parameters<typeof withMistake>[0]): string {
  return withMistake(wrong, 'iscsi-sessions');
}

test('fuzz, mistake put in: iSCSI notices wrong data, foreign memory and lost requests', () => {
  const unfilled = foundInSessions((submit, io) => {
    if (io.op === OP.READ) io.complete(null);
    else submit(io);
  });
  assert.match(unfilled, /memory that is nobody’s/);
  let old = new Uint8Array(0);
  const stale = foundInSessions((submit, io) => {
    submit(io);
    if (io.op !== OP.READ) return;
    const now = new Uint8Array(io.length);
    io.segments.copyTo(now);
    if (old.length === now.length) io.segments.copyFrom(old);
    old = now;
  });
  assert.match(stale, /is not what the disk holds|foreign memory in a READ/);
  const lost = foundInSessions((submit, io) => {
    if (io.op !== OP.WRITE) submit(io);
    else io.complete(null);
  });
  assert.match(lost, /is not what the disk holds|holds something else/);
  const never = foundInSessions((submit, io) => {
    if (io.op !== OP.FLUSH && io.op !== OP.WRITE_ZEROES) submit(io);
  });
  assert.match(never, /no answer|leak|hang/);
});
