import assert from 'node:assert/strict';
import test from 'node:test';
import { BlkRig, features, header, MODERN, ranges, Sent } from '../../../test/virtio/blk-rig.ts';
import { ProtocolError } from '../../base/errors.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { POLL_CHAINS, TURN_BYTES, VIRTIO_BLK_F, VIRTIO_BLK_S, VIRTIO_BLK_T } from './blk.ts';

const { OK, IOERR, UNSUPP } = VIRTIO_BLK_S;

/** Keeps what it is given until the test lets it go on. */
class SlowStore implements BlockDevice {
  readonly info: DeviceInfo;
  readonly pending: Io[] = [];
  readonly log: string[] = [];
  readonly #memory = openMemoryStore({ name: 'slow', sizeBytes: 2 ** 24 });

  constructor(maxTransferBytes = 2 ** 20) {
    this.info = { ...this.#memory.info, maxTransferBytes };
  }

  submit(io: Io): void {
    const fua = (io.flags & FLAG.FUA) === 0 ? '' : '+fua';
    const names = ['read', 'write', 'flush', 'discard', 'zeroes'];
    this.log.push(`${names[io.op]}${fua} ${io.offset / 512}+${io.length / 512}`);
    if (io.op === OP.FLUSH) io.complete(null);
    else this.pending.push(io);
  }

  finish(fails = false): void {
    const io = this.pending.shift() as Io;
    if (fails) io.complete('EIO');
    else this.#memory.submit(io);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function makeReads(count: number): Sent[] {
  return Array.from({ length: count }, () => new Sent([header(VIRTIO_BLK_T.IN)], [512, 1]));
}

function slowRig(maxTransferBytes?: number, negotiated = MODERN): [BlkRig, SlowStore] {
  const store = new SlowStore(maxTransferBytes);
  return [new BlkRig({ store }).start(negotiated), store];
}

test('what is done in one turn becomes visible at once, with one interrupt', () => {
  const [at, store] = slowRig();
  const all = [1, 2, 3].map((sector) => at.request(VIRTIO_BLK_T.IN, sector, 512));
  const { publishes } = at.queue;
  store.finish();
  store.finish();
  assert.ok(
    all.every((sent) => !sent.visible),
    'not before the end of the turn',
  );
  at.turn();
  assert.deepEqual(
    all.map((sent) => sent.visible),
    [true, true, false],
  );
  assert.deepEqual([at.queue.publishes - publishes, at.interrupts], [1, 1]);
  at.queue.wantsInterrupts = false;
  store.finish();
  at.turn();
  assert.ok(all[2]?.visible === true);
  assert.equal(at.interrupts, 1, 'a driver that does not want interrupts gets none');
});

test('a store that completes at once: one poll takes, does and answers', () => {
  const at = BlkRig.memory().start();
  at.turn();
  const all = makeReads(3);
  at.queue.waiting.push(...all);
  at.worker?.poll();
  assert.ok(all.every((sent) => sent.status === OK));
  assert.deepEqual([at.queue.publishes, at.interrupts, at.deferred.length], [1, 1, 0]);
});

test('one call of poll takes a bounded number, so that others have their turn', () => {
  const [at, store] = slowRig();
  at.queue.waiting.push(...makeReads(POLL_CHAINS + 1));
  at.worker?.poll();
  assert.equal(store.pending.length, POLL_CHAINS);
  assert.equal(at.worker?.ready(), true);
  at.worker?.poll();
  assert.equal(store.pending.length, POLL_CHAINS + 1);
});

/** A store that does everything at once, and how many bytes that was. */
class BusyStore implements BlockDevice {
  readonly info: DeviceInfo;
  bytes = 0;
  readonly #memory = openMemoryStore({ name: 'busy', sizeBytes: 2 ** 24 });

  constructor() {
    this.info = this.#memory.info;
  }

  submit(io: Io): void {
    this.bytes += io.length;
    this.#memory.submit(io);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** The most bytes of one turn, until all is answered. */
function busiestTurn(at: BlkRig, store: BusyStore, all: readonly Sent[]): number {
  let most = 0;
  for (let turns = 0; !all.every((sent) => sent.visible); turns += 1) {
    assert.ok(turns < 10_000, 'it never ends');
    const before = store.bytes;
    // As the reactor does: pollers, then what is deferred; what that defers is of the next turn.
    if (at.worker?.ready() === true) at.worker.poll();
    for (const callback of at.deferred.splice(0)) callback();
    most = Math.max(most, store.bytes - before);
  }
  return most;
}

test('a guest with a disk in memory does not hold up others, however much it asks for', () => {
  const store = new BusyStore();
  const whole = store.info.sizeBytes;
  const sectors = whole / 512;
  const fill = ranges(...Array.from({ length: 16 }, () => [0, sectors, 0] as const));
  const { IN, WRITE_ZEROES, BARRIER } = VIRTIO_BLK_T;
  const negotiated = MODERN | features(VIRTIO_BLK_F.BARRIER);
  const long = (): Sent[] => [
    new Sent([header(IN)], [whole, 1]),
    new Sent([header(WRITE_ZEROES), fill], [1]),
    new Sent([header(WRITE_ZEROES + BARRIER), fill], [1]),
    new Sent([header(IN)], [512, 1]),
  ];
  for (const kind of [0, 1, 2]) {
    const at = new BlkRig({ store }).start(negotiated);
    const all = [long()[kind] as Sent, long()[3] as Sent];
    at.queue.waiting.push(...all);
    // Once in the poll, once in what that has left over. One range is never divided.
    assert.ok(busiestTurn(at, store, all) <= 2 * (TURN_BYTES + whole));
    assert.deepEqual(
      all.map((sent) => sent.rooms.at(-1)?.bytes[0]),
      [OK, OK],
    );
    let drained = false;
    at.worker?.detach(() => (drained = true));
    assert.ok(drained);
  }
  const at = new BlkRig({ store }).start(negotiated);
  const many = Array.from({ length: 32 }, () => new Sent([header(IN)], [2 ** 20, 1]));
  at.queue.waiting.push(...many);
  assert.ok(busiestTurn(at, store, many) <= TURN_BYTES);
});

test('a barrier too long for one turn: nothing of its queue is begun before it is done, also if a part of it fails', () => {
  const [at, store] = slowRig(2 ** 20, features(VIRTIO_BLK_F.FLUSH, VIRTIO_BLK_F.BARRIER));
  for (const fails of [false, true]) {
    const data = new Uint8Array(TURN_BYTES + 2 ** 20);
    const barrier = new Sent([header(VIRTIO_BLK_T.OUT + VIRTIO_BLK_T.BARRIER), data], [1]);
    const after = new Sent([header(VIRTIO_BLK_T.IN)], [512, 1]);
    at.queue.waiting.push(barrier, after);
    at.turn();
    store.log.length = 0;
    for (let parts = 0; !barrier.visible; parts += 1) {
      assert.ok(parts < 100);
      assert.ok(!store.log.some((line) => line.startsWith('read')), 'something came between');
      if (store.pending.length > 0) store.finish(fails && parts === 3);
      at.turn();
    }
    while (!after.visible) {
      store.finish();
      at.turn();
    }
    assert.deepEqual([barrier.status, after.status], [fails ? IOERR : OK, OK]);
  }
});

test('arm and disarm are the queue’s, until it is detached or broken', () => {
  const [at] = slowRig();
  const { worker, queue } = at;
  worker?.disarm();
  assert.equal(queue.notifies, false);
  queue.waiting.push(...makeReads(1));
  assert.equal(worker?.arm(), true, 'a chain has come meanwhile');
  assert.equal(queue.notifies, true);
  at.turn();
  assert.equal(worker?.arm(), false);
  worker.detach(() => {});
  worker.disarm();
  assert.equal(queue.notifies, true);
  assert.equal(worker.arm(), false);
});

test('long requests go down in parts, a few at a time, and succeed or fail as one', () => {
  const [at, store] = slowRig(4096);
  const data = new Uint8Array(10 * 4096).map((_, i) => i >> 8);
  const written = at.request(VIRTIO_BLK_T.OUT, 8, data);
  assert.equal(store.pending.length, 4);
  for (let i = 0; i < 9; i += 1) store.finish();
  at.turn();
  assert.ok(!written.visible);
  store.finish();
  at.turn();
  assert.equal(written.status, OK);
  assert.equal(store.log.length, 10);
  assert.ok(store.log.every((line, i) => line.endsWith(` ${8 + 8 * i}+8`)));
  const read = at.request(VIRTIO_BLK_T.IN, 8, 10 * 4096);
  while (store.pending.length > 0) store.finish();
  at.turn();
  assert.deepEqual(read.data, data);
});

test('a part that fails: no more are begun, and the answer comes when the others are done', () => {
  const [at, store] = slowRig(4096);
  const read = at.request(VIRTIO_BLK_T.IN, 0, 10 * 4096);
  store.finish(true);
  assert.equal(store.pending.length, 3);
  for (let i = 0; i < 3; i += 1) store.finish();
  at.turn();
  assert.deepEqual([read.status, store.pending.length, store.log.length], [IOERR, 0, 4]);
  assert.deepEqual(read.data, new Uint8Array(10 * 4096));
});

test('the parts of a request over a store that completes at once', () => {
  const info = openMemoryStore({ name: 'm', sizeBytes: 2 ** 24 }).info;
  const at = BlkRig.memory().start();
  const data = new Uint8Array(3 * info.maxTransferBytes + 512).fill(9);
  assert.equal(at.request(VIRTIO_BLK_T.OUT, 0, data).status, OK);
  assert.deepEqual(at.request(VIRTIO_BLK_T.IN, 0, data.length).data, data);
});

test('detach: what was taken is finished and visible before it calls back, and nothing more is taken', () => {
  const [at, store] = slowRig();
  const read = at.request(VIRTIO_BLK_T.IN, 1, 512);
  let drained = 0;
  at.worker?.detach(() => {
    assert.ok(read.visible);
    drained += 1;
  });
  at.queue.waiting.push(...makeReads(1));
  assert.equal(at.worker?.ready(), false);
  at.worker?.poll();
  assert.deepEqual([drained, store.pending.length], [0, 1]);
  store.finish();
  at.turn();
  assert.deepEqual([drained, at.queue.waiting.length], [1, 1]);
  assert.equal(read.status, OK);
});

test('detach of an idle queue calls back at once; of one with answers not yet visible, after making them so', () => {
  const [idle] = slowRig();
  let drained = 0;
  idle.worker?.detach(() => {
    drained += 1;
  });
  assert.equal(drained, 1);
  const [at, store] = slowRig();
  const read = at.request(VIRTIO_BLK_T.IN, 1, 512);
  store.finish();
  assert.ok(!read.visible);
  at.worker?.detach(() => {
    assert.ok(read.visible);
    drained += 1;
  });
  assert.equal(drained, 2);
  const { publishes } = at.queue;
  at.turn();
  assert.deepEqual([drained, at.queue.publishes], [2, publishes]);
});

test('a broken queue: said once, nothing more is taken, what is under way ends, and then it is drained', () => {
  const [at, store] = slowRig();
  const before = at.request(VIRTIO_BLK_T.IN, 1, 512);
  at.queue.broken = new ProtocolError('a chain loops', 'virtio 2.7.5.2');
  at.turn();
  assert.deepEqual(at.brokenFor, ['a chain loops [virtio 2.7.5.2]']);
  assert.equal(at.worker?.ready(), false);
  at.worker?.poll();
  assert.equal(at.worker?.arm(), false);
  assert.equal(at.brokenFor.length, 1);
  let drained = false;
  at.worker?.detach(() => {
    drained = true;
  });
  assert.ok(!drained, 'the kernel still writes into its memory');
  const { publishes } = at.queue;
  store.finish();
  at.turn();
  assert.ok(drained);
  assert.equal(at.queue.publishes, publishes, 'nothing is said in a ring that cannot be trusted');
  assert.equal(before.written, null);
});

test('a queue that breaks in the middle of a batch: what the batch has done is not said either', () => {
  const at = BlkRig.memory().start();
  at.queue.waiting.push(...makeReads(2));
  at.queue.broken = new ProtocolError('a chain loops', 'virtio 2.7.5.2');
  at.turn();
  assert.deepEqual([at.brokenFor.length, at.queue.publishes, at.interrupts], [1, 0, 0]);
});

test('an abandoned queue: what was taken is never given back, nor what was given made visible', () => {
  const [at, store] = slowRig();
  const all = [1, 2].map((sector) => at.request(VIRTIO_BLK_T.IN, sector, 512));
  const { publishes } = at.queue;
  store.finish();
  at.worker?.abandon();
  at.turn();
  store.finish();
  at.turn();
  assert.ok(all.every((sent) => !sent.visible));
  assert.deepEqual([at.queue.publishes - publishes, at.interrupts], [0, 0]);
  assert.equal(all[1]?.written, null);
  at.queue.waiting.push(...makeReads(1));
  at.worker?.poll();
  assert.equal(at.queue.waiting.length, 1, 'nothing more is taken');
  let drained = false;
  at.worker?.detach(() => (drained = true));
  assert.ok(drained);
});

test('a host that detaches a queue while it says that it is broken', () => {
  const [at, store] = slowRig();
  at.request(VIRTIO_BLK_T.IN, 1, 512);
  let drained = false;
  at.broken = () => at.worker?.detach(() => (drained = true));
  at.send([header(VIRTIO_BLK_T.IN).subarray(0, 8)], [1]);
  assert.ok(!drained);
  store.finish();
  at.turn();
  assert.ok(drained);
});

test('5.2.6.3 BARRIER, where negotiated: drained, flushed, alone, stable; a read or a flush is put in order', () => {
  const [at, store] = slowRig(undefined, features(VIRTIO_BLK_F.FLUSH, VIRTIO_BLK_F.BARRIER));
  const { OUT, IN, FLUSH, BARRIER } = VIRTIO_BLK_T;
  const sector = new Uint8Array(512);
  at.request(OUT, 1, sector);
  const barrier = at.request(OUT + BARRIER, 2, sector);
  at.request(OUT, 3, sector);
  const ordered = at.request(IN + BARRIER, 3, 512);
  const flush = at.request(FLUSH + BARRIER, 0, 0);
  at.request(OUT, 4, sector);
  assert.deepEqual(store.log, ['write 1+1']);
  const seen: string[][] = [];
  while (store.pending.length > 0) {
    assert.equal(store.pending.length, 1);
    store.log.length = 0;
    store.finish();
    seen.push([...store.log]);
  }
  at.turn();
  assert.deepEqual(seen, [
    ['flush 0+0', 'write+fua 2+1'],
    ['write 3+1'],
    ['read 3+1'],
    ['flush 0+0', 'write 4+1'],
    [],
  ]);
  assert.deepEqual([barrier.status, ordered.status, flush.status], [OK, OK, OK]);
});

test('5.2.6.3 a long barrier is one barrier: nothing comes between its parts', () => {
  const [at, store] = slowRig(4096, features(VIRTIO_BLK_F.FLUSH, VIRTIO_BLK_F.BARRIER));
  const barrier = at.request(VIRTIO_BLK_T.OUT + VIRTIO_BLK_T.BARRIER, 0, new Uint8Array(6 * 4096));
  const after = at.request(VIRTIO_BLK_T.OUT, 0, new Uint8Array(512));
  while (store.pending.length > 0) {
    assert.equal(store.pending.length, 1);
    store.finish();
  }
  at.turn();
  assert.deepEqual([barrier.status, after.status], [OK, OK]);
  const writes = store.log.filter((line) => line !== 'flush 0+0');
  const parts = [0, 1, 2, 3, 4, 5].map((i) => `write+fua ${8 * i}+8`);
  assert.deepEqual(writes, [...parts, 'write 0+1']);
});

test('5.2.6.3 BARRIER on discards is kept too; without the feature bit 31 is an unknown type', () => {
  const negotiated = features(VIRTIO_BLK_F.FLUSH, VIRTIO_BLK_F.BARRIER, VIRTIO_BLK_F.DISCARD);
  const [at, store] = slowRig(undefined, negotiated);
  const type = VIRTIO_BLK_T.DISCARD + VIRTIO_BLK_T.BARRIER;
  const barrier = at.request(type, 0, ranges([1, 1], [3, 1]));
  while (store.pending.length > 0) store.finish();
  at.turn();
  assert.equal(barrier.status, OK);
  assert.deepEqual(store.log, ['flush 0+0', 'discard+fua 1+1', 'flush 0+0', 'discard+fua 3+1']);
  const [modern] = slowRig();
  for (const each of [VIRTIO_BLK_T.OUT, VIRTIO_BLK_T.IN, VIRTIO_BLK_T.FLUSH]) {
    assert.equal(modern.request(each + VIRTIO_BLK_T.BARRIER, 0, 512).status, UNSUPP);
  }
});
