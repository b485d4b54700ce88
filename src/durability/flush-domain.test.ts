import assert from 'node:assert/strict';
import test from 'node:test';
import {
  Asked,
  Client,
  VolatileStore,
  type VolatileStoreOptions,
} from '../../test/durability/volatile-store.ts';
import { FLAG, OP } from '../block/io.ts';
import { DomainRegistry, inodeKey } from './domain-registry.ts';
import { FlushDomain, type FlushDomainOptions, type Recorded } from './flush-domain.ts';

interface Bench {
  readonly store: VolatileStore;
  readonly client: Client;
  readonly domain: FlushDomain;
}

function bench(
  options: Omit<FlushDomainOptions, 'target'> = {},
  storeOptions: VolatileStoreOptions = {},
): Bench {
  const store = new VolatileStore(
    (target) => new FlushDomain({ target, ...options }),
    storeOptions,
  );
  return { store, client: new Client(store), domain: store.flusher as FlushDomain };
}

function written({ store, client }: Bench, block: number, flags = 0): Asked {
  const asked = client.write(block, flags);
  store.finish(asked.io);
  return asked;
}

test('counters: asked, joined, merged, left out', () => {
  const at = bench();
  const { client, store, domain } = at;
  client.flush(); // nothing to do
  written(at, 1);
  client.flush(); // starts the first sync
  client.flush(); // joins it
  written(at, 2);
  client.flush(); // these two share the next
  client.flush();
  assert.equal(domain.waiting, 4);
  assert.ok(domain.syncing);
  store.finishSync();
  store.finishSync();
  client.flush(); // clean again
  assert.deepEqual(Object.fromEntries(Object.entries(domain.counters)), {
    asked: 6,
    joined: 1,
    merged: 2,
    leftOut: 2,
    rangeLeftOut: 0,
    syncs: 2,
    syncsFailed: 0,
    fuaNative: 0,
    fuaEmulated: 0,
  });
});

test('unstable writes and bytes: what was completed and not covered by a successful sync', () => {
  const at = bench();
  const { client, store, domain } = at;
  written(at, 1);
  written(at, 1);
  assert.deepEqual([domain.unstableWrites, domain.unstableBytes], [2, 1024]);
  client.flush();
  written(at, 2); // during the sync: not covered
  store.finishSync();
  assert.deepEqual([domain.unstableWrites, domain.unstableBytes], [1, 512]);
  assert.equal(domain.clean, false);
  client.flush();
  store.finishSync();
  assert.deepEqual([domain.unstableWrites, domain.unstableBytes], [0, 0]);
  assert.equal(domain.clean, true);
});

test('I6: a failed mutation counts, and so do zeroes and discards', () => {
  const { client, store, domain } = bench();
  client.write(1);
  store.finish(undefined, 'EIO');
  client.submit(new Asked(OP.WRITE_ZEROES, 2, 0));
  client.submit(new Asked(OP.DISCARD, 3, 0));
  store.finishAll();
  assert.equal(domain.completed, 3);
  client.flush();
  assert.equal(store.syncs, 1);
});

test('emulated FUA writes that finish together share one sync', () => {
  const at = bench();
  const { store, domain } = at;
  const writes = [1, 2, 3, 4].map((block) => written(at, block, FLAG.FUA));
  assert.ok(writes.every((write) => !write.done));
  store.finishSync();
  store.finishSync();
  assert.ok(writes.every((write) => write.succeeded && store.isStable(write)));
  assert.equal(domain.counters.fuaEmulated, 4);
  assert.equal(store.syncs, 2);
});

test('with `defer` everything of a batch shares one sync', () => {
  const batch: (() => void)[] = [];
  const at = bench({ defer: (callback) => batch.push(callback) });
  const { store } = at;
  const writes = [1, 2, 3, 4].map((block) => written(at, block, FLAG.FUA));
  assert.equal(store.syncs, 0);
  assert.equal(batch.length, 1);
  for (const callback of batch.splice(0)) callback();
  store.finishSync();
  assert.ok(writes.every((write) => write.succeeded && store.isStable(write)));
  assert.deepEqual([store.syncs, batch.length], [1, 0]);
});

test('a native FUA write is stable by itself and does not move `durable`', () => {
  const at = bench({}, { fua: 'native' });
  const { client, store, domain } = at;
  const plain = written(at, 1);
  const fua = written(at, 2, FLAG.FUA);
  assert.ok(fua.succeeded && store.isStable(fua));
  assert.deepEqual([domain.counters.fuaNative, domain.unstableBytes], [1, 512]);
  const flush = client.flush();
  assert.equal(store.syncs, 1);
  store.finishSync();
  assert.ok(flush.succeeded && store.isStable(plain));
});

test('a native FUA write is a mutation: what may have ridden on it gets a sync', () => {
  const at = bench({}, { fua: 'native' });
  written(at, 1, FLAG.FUA);
  assert.deepEqual([at.domain.unstableWrites, at.domain.unstableBytes], [0, 0]);
  assert.ok(!at.domain.clean);
  at.client.flush();
  assert.equal(at.store.syncs, 1);
});

test('I10: a native FUA write that fails with EIO poisons; one refused for space does not', () => {
  const at = bench({}, { fua: 'native' });
  const full = at.client.write(1, FLAG.FUA);
  at.store.finish(full.io, 'ENOSPC');
  assert.equal(at.domain.health, 'well');
  const failed = at.client.write(1, FLAG.FUA);
  at.store.finish(failed.io, 'EIO');
  assert.equal(failed.error, 'EIO');
  assert.equal(at.domain.health, 'poisoned');
  assert.equal(at.client.flush().error, 'EIO');
});

test('clients that write and flush as soon as they are answered share every sync', () => {
  const at = bench();
  const { client, store } = at;
  let answered = 0;
  const loop = (block: number): void => {
    written(at, block);
    const flush = client.flush();
    flush.onDone = () => {
      answered += 1;
      loop(block);
    };
  };
  for (let block = 0; block < 8; block += 1) loop(block);
  store.finishSync(); // the first client's, alone: the others came too late for it
  for (let round = 1; round <= 10; round += 1) store.finishSync();
  assert.equal(answered, 1 + 10 * 8);
  assert.equal(at.domain.counters.merged, 11 * 8);
});

test('waiters are answered in the order of their needs, and of arrival', () => {
  const at = bench();
  const { store, client, domain } = at;
  const order: string[] = [];
  const flush = (name: string, need: number): void => {
    const asked = new Asked(OP.FLUSH, 0, 0);
    asked.onDone = () => order.push(name);
    domain.flushTo(asked.io, need);
  };
  written(at, 1);
  client.flush();
  written(at, 2);
  flush('second', 2);
  flush('first', 1); // held back by its caller, covered by the running sync
  flush('third', 2);
  store.finishSync();
  assert.deepEqual(order, ['first']);
  store.finishSync();
  assert.deepEqual(order, ['first', 'second', 'third']);
});

test('a thousand waiters: the ring grows and keeps their order', () => {
  const at = bench();
  const { store, client } = at;
  written(at, 1);
  client.flush();
  written(at, 2);
  const order: number[] = [];
  const flushes = Array.from({ length: 1000 }, (_, i) => {
    const asked = client.flush();
    asked.onDone = () => order.push(i);
    return asked;
  });
  store.finishSync();
  store.finishSync();
  assert.ok(flushes.every((flush) => flush.succeeded));
  assert.deepEqual(
    order,
    order.map((_, i) => i),
  );
  assert.equal(order.length, 1000);
});

test('a target that syncs at once, and clients that flush inside completions, do not grow the stack', () => {
  const { domain, store } = bench({}, { auto: true });
  let left = 20_000;
  const chain = (): void => {
    if (left === 0) return;
    left -= 1;
    domain.mutated(0, 1);
    const asked = new Asked(OP.FLUSH, 0, 0);
    asked.onDone = chain;
    domain.flush(asked.io);
  };
  chain();
  assert.equal(left, 0);
  assert.equal(store.syncing, false);
  assert.ok(domain.clean);
});

test('P5 poison: waiters, later flushes, FUA and plain writes fail; reads do not', () => {
  const at = bench();
  const { client, store, domain } = at;
  written(at, 1);
  const flushes = [client.flush(), client.flush()];
  const inFlight = client.write(2);
  store.finishSync('EIO');
  assert.deepEqual(
    flushes.map((flush) => flush.error),
    ['EIO', 'EIO'],
  );
  store.finish(inFlight.io);
  assert.ok(inFlight.succeeded, 'accepted before, with the write cache on');
  assert.equal(client.flush().error, 'EIO');
  assert.equal(client.write(3).error, 'EIO');
  assert.equal(client.write(3, FLAG.FUA).error, 'EIO');
  const read = client.read(1);
  store.finish(read.io);
  assert.ok(read.succeeded);
  assert.deepEqual([store.syncs, domain.error, domain.poisoned], [1, 'EIO', true]);
});

test('P5: nobody is told of a failed sync before it is on record', () => {
  let record: Recorded | null = null;
  const at = bench({
    onPoisoned: (error, recorded) => {
      assert.equal(error, 'ENOSPC');
      record = recorded;
    },
  });
  const { client, store, domain } = at;
  written(at, 1);
  const first = client.flush();
  store.finishSync('ENOSPC');
  const second = client.flush();
  const write = client.write(2);
  assert.deepEqual([first.done, second.done, write.done], [false, false, false]);
  assert.equal(domain.health, 'recording');
  (record as Recorded | null)?.(null);
  assert.deepEqual([first.error, second.error, write.error], ['EIO', 'EIO', 'EIO']);
});

test('P5: poison of an earlier run fails the first flush, though nothing was written since', () => {
  const { client, domain } = bench();
  domain.restorePoison('EIO');
  assert.equal(client.flush().error, 'EIO');
  assert.equal(client.write(1).error, 'EIO');
});

test('P5: an operator resumes a poisoned domain', () => {
  let resumed = 0;
  const at = bench({ onResumed: () => (resumed += 1) });
  const { client, store, domain } = at;
  written(at, 1);
  client.flush();
  store.finishSync('EIO');
  domain.resume();
  domain.resume();
  assert.equal(resumed, 1);
  const flush = client.flush();
  assert.equal(store.syncs, 2, 'not marked clean: the flush gets a sync');
  store.finishSync();
  assert.ok(flush.succeeded);
});

test('stop: flushes and writes are parked until the operator resumes, and reads go on', () => {
  const at = bench({ policy: 'stop' });
  const { client, store, domain } = at;
  written(at, 1);
  const flush = client.flush();
  store.finishSync('EIO');
  const parked = [client.flush(), client.write(2), client.write(3, FLAG.FUA)];
  const read = client.read(1);
  store.finish(read.io);
  assert.ok(read.succeeded);
  assert.ok([flush, ...parked].every((asked) => !asked.done));
  assert.equal(domain.health, 'stopped');
  assert.equal(store.pending.length, 0, 'the host was given a parked write');
  assert.equal(store.syncs, 1, 'asked again without the operator');
  domain.resume();
  store.finishSync();
  store.finishAll();
  while (store.syncing) store.finishSync();
  assert.ok([flush, ...parked].every((asked) => asked.succeeded));
  assert.equal(domain.health, 'well');
});

test('stop: a failure of an earlier run parks even a flush with nothing to do', () => {
  const { client, domain } = bench({ policy: 'stop' });
  domain.restorePoison('EIO');
  const asked = [client.flush(), client.write(1)];
  assert.ok(asked.every(({ done }) => !done));
  domain.fail();
  assert.ok(asked.every(({ error }) => error === 'EIO'));
});

test('stop: a sync that succeeds after a native write has failed answers nobody before the operator', () => {
  const at = bench({ policy: 'stop' }, { fua: 'native' });
  const { client, store, domain } = at;
  written(at, 1);
  const flush = client.flush();
  store.finish(client.write(2, FLAG.FUA).io, 'EIO');
  store.finishSync();
  assert.equal(flush.done, false);
  domain.resume();
  assert.ok(flush.succeeded, 'covered by the sync that succeeded');
  assert.equal(store.syncs, 1);
});

test('stop: the operator gives up, and everything parked fails', () => {
  const at = bench({ policy: 'stop' });
  const { client, store, domain } = at;
  written(at, 1);
  const asked = [client.flush()];
  store.finishSync('EIO');
  asked.push(client.write(2), client.flush());
  domain.fail();
  assert.deepEqual(
    asked.map(({ error }) => error),
    ['EIO', 'EIO', 'EIO'],
  );
  assert.equal(client.write(4).error, 'EIO');
});

test('stop: a second failure after a resume stops again and loses nobody', () => {
  const at = bench({ policy: 'stop' });
  const { client, store, domain } = at;
  written(at, 1);
  const flush = client.flush();
  store.finishSync('EIO');
  const write = client.write(2);
  domain.resume();
  store.finishSync('EIO');
  assert.equal(domain.health, 'stopped');
  assert.ok(!flush.done && !write.done);
  store.finish(write.io);
  domain.setPolicy('poison');
  domain.fail();
  assert.equal(flush.error, 'EIO');
});

test('P10: the first volatile mutation waits until the state file says so, a FUA write does not', () => {
  let record: Recorded | null = null;
  let asked = 0;
  const at = bench({
    onFirstVolatile: (recorded) => {
      asked += 1;
      record = recorded;
    },
  });
  const { client, store } = at;
  const fua = written(at, 1, FLAG.FUA);
  store.finishSync();
  assert.ok(fua.succeeded);
  assert.equal(asked, 0, 'nothing unstable, nothing to record');
  const first = client.write(2);
  const second = client.write(3);
  assert.equal(store.pending.length, 0);
  assert.equal(asked, 1);
  (record as Recorded | null)?.('EIO');
  assert.deepEqual([first.error, second.error], ['EIO', 'EIO']);
  const third = client.write(4);
  assert.equal(asked, 2);
  (record as Recorded | null)?.(null);
  const fourth = client.write(5);
  store.finishAll();
  assert.ok(third.succeeded && fourth.succeeded);
  assert.equal(asked, 2);
});

const make = (): { readonly domain: FlushDomain } => ({ domain: bench().domain });

test('I7: two exports of one inode share one domain, and the last to leave closes it', () => {
  const registry = new DomainRegistry<{ readonly domain: FlushDomain }>();
  const key = inodeKey(8, 4711);
  const first = registry.acquire(key, make);
  const second = registry.acquire(inodeKey(8n, 4711n), make);
  assert.equal(first, second);
  assert.notEqual(registry.acquire(inodeKey(8, 4712), make), first);
  assert.equal(registry.release(key), null);
  assert.equal(registry.release(key), first);
  assert.throws(() => registry.release(key), /released more often/);
  assert.notEqual(registry.acquire(key, make), first);
});
