import assert from 'node:assert/strict';
import test from 'node:test';
import { BlkRig, header, MODERN, ranges } from '../../../test/virtio/blk-rig.ts';
import { Prng } from '../../base/prng.ts';
import { Region } from '../../block/memory.ts';
import { VIRTIO_BLK_S, VIRTIO_BLK_T } from './blk.ts';
import type { QueueWorker } from './device.ts';
import { DriverMemory } from './driver/driver-memory.ts';
import type { Buffer, DriverQueue } from './driver/driver-queue.ts';
import { PackedDriver } from './driver/packed-driver.ts';
import { SplitDriver } from './driver/split-driver.ts';
import { PackedQueue } from './packed-queue.ts';
import { SplitQueue } from './split-queue.ts';

// The device through the real rings, against a copy of the disk that the driver keeps.

const GUEST_BASE = 2 ** 32;
const SECTORS = 8192;

interface Pending {
  readonly buffers: readonly Buffer[];
  readonly status: Buffer;
  readonly check: (status: number, written: number) => void;
}

class RingRig {
  readonly memory = new DriverMemory(Region.plain(2 ** 23), GUEST_BASE);
  readonly at = BlkRig.memory();
  readonly shadow = new Uint8Array(SECTORS * 512);
  readonly #driver: DriverQueue;
  readonly #worker: QueueWorker;
  readonly #indirect: boolean;
  readonly #random: Prng;
  readonly #pending = new Map<number, Pending>();
  answered = 0;

  constructor(format: 'split' | 'packed', size: number, flags: boolean, random: Prng) {
    this.#random = random;
    this.#indirect = flags;
    const { memory } = this;
    const common = { memory, size, eventIdx: flags, tableEntries: flags ? 16 : 0 };
    const driver = format === 'split' ? new SplitDriver(common) : new PackedDriver(common);
    this.#driver = driver;
    const options = {
      ...driver.places,
      size,
      memory: memory.memory,
      indirect: flags,
      eventIdx: flags,
      base: format === 'split' ? 0 : 0x8000_8000,
      inflight: null,
    };
    const queue = format === 'split' ? new SplitQueue(options) : new PackedQueue(options);
    const workers: QueueWorker[] = [];
    this.at.device.start(
      MODERN,
      () => workers.push(this.at.device.attach(0, queue, this.at)),
      true,
    );
    this.#worker = workers[0] as QueueWorker;
  }

  /** A buffer with these bytes, or of this length, cut into several where the dice say so. */
  #buffers(bytes: Uint8Array | number): Buffer[] {
    const length = typeof bytes === 'number' ? bytes : bytes.length;
    const found: Buffer[] = [];
    let at = 0;
    while (at < length) {
      const left = length - at;
      const take = found.length < 3 && left > 1 ? 1 + this.#random.below(left) : left;
      const buffer = this.memory.allocate(take, 1);
      if (typeof bytes !== 'number') this.memory.bytes(buffer).set(bytes.subarray(at, at + take));
      found.push(buffer);
      at += take;
    }
    return found;
  }

  /** False: the ring is too full. */
  add(
    readable: Uint8Array,
    room: number,
    done: (status: number, data: Uint8Array) => void,
  ): boolean {
    const out = this.#buffers(readable);
    const into = this.#buffers(room);
    const status = this.memory.allocate(1, 1);
    this.memory.bytes(status)[0] = 0xee;
    const buffers = [...out, ...into, status];
    const token = this.#driver.add(out, [...into, status], this.#indirect);
    if (token < 0) {
      for (const buffer of buffers) this.memory.free(buffer);
      return false;
    }
    this.#pending.set(token, {
      buffers,
      status,
      check: (outcome, written) => {
        assert.equal(written, room + 1);
        const data = into.flatMap((buffer) => [...this.memory.bytes(buffer)]);
        done(outcome, Uint8Array.from(data));
      },
    });
    return true;
  }

  /** The driver publishes, the device works, the driver takes the answers. */
  turn(): void {
    this.#driver.publish();
    while (this.#worker.ready()) this.#worker.poll();
    for (;;) {
      const used = this.#driver.take();
      if (used === null) break;
      const pending = this.#pending.get(used.token) as Pending;
      this.#pending.delete(used.token);
      pending.check(this.memory.bytes(pending.status)[0] as number, used.written);
      for (const buffer of pending.buffers) this.memory.free(buffer);
      this.answered += 1;
    }
    assert.equal(this.#pending.size, 0);
  }

  /** Compares all of the disk with the copy. */
  readBack(): void {
    for (let sector = 0; sector < SECTORS; sector += 512) {
      const expected = this.shadow.subarray(sector * 512, (sector + 512) * 512);
      this.add(header(VIRTIO_BLK_T.IN, sector), 512 * 512, (status, data) => {
        assert.equal(status, VIRTIO_BLK_S.OK);
        assert.ok(Buffer.from(expected).equals(data), `sectors from ${sector}`);
      });
      this.turn();
    }
  }

  /** The memory store does each request when it is taken, so that the order is that of adding. */
  request(): boolean {
    const random = this.#random;
    const { IN, OUT, WRITE_ZEROES, FLUSH } = VIRTIO_BLK_T;
    const count = 1 + random.below(16);
    const sector = random.below(SECTORS + 8);
    const inside = sector + count <= SECTORS;
    const expected = inside ? VIRTIO_BLK_S.OK : VIRTIO_BLK_S.IOERR;
    const range = this.shadow.subarray(sector * 512, (sector + count) * 512);
    const checkStatus = (status: number): void => assert.equal(status, expected);
    const kind = random.below(4);
    if (kind === 0) {
      const was = inside ? Uint8Array.from(range) : new Uint8Array(count * 512);
      return this.add(header(IN, sector), count * 512, (status, data) => {
        checkStatus(status);
        assert.deepEqual(data, was);
      });
    }
    if (kind === 1) {
      const data = new Uint8Array(count * 512).fill(1 + random.below(255));
      const added = this.add(join(header(OUT, sector), data), 0, checkStatus);
      if (added && inside) range.set(data);
      return added;
    }
    if (kind === 2) {
      const added = this.add(join(header(WRITE_ZEROES), ranges([sector, count])), 0, checkStatus);
      if (added && inside) range.fill(0);
      return added;
    }
    return this.add(header(FLUSH), 0, (status) => assert.equal(status, VIRTIO_BLK_S.OK));
  }
}

function join(one: Uint8Array, other: Uint8Array): Uint8Array {
  return Uint8Array.from([...one, ...other]);
}

for (const format of ['split', 'packed'] as const) {
  for (const flags of [false, true]) {
    const having = flags ? 'with' : 'without';
    test(`${format} rings ${having} indirect tables and event indices: the disk is what was written`, () => {
      const rig = new RingRig(format, 32, flags, new Prng(7));
      let asked = 0;
      for (let round = 0; round < 150; round += 1) {
        while (rig.request()) asked += 1;
        rig.turn();
      }
      assert.ok(asked > 300 && rig.answered === asked);
      assert.ok(rig.at.interrupts > 0);
      rig.readBack();
    });
  }
}

test('a hostile driver: whatever the bytes and lengths are, it gets a status or breaks its own ring', () => {
  const random = new Prng(11);
  const seen = new Set<number>();
  let broken = 0;
  for (let round = 0; round < 3000; round += 1) {
    const at = BlkRig.memory({ offerFua: true }).start(random.chance(0.5) ? MODERN : ~0n);
    const sent = at.send(wildBuffers(random), wildLengths(random));
    if (at.brokenFor.length > 0) broken += 1;
    else seen.add(sent.status);
  }
  assert.ok(broken > 0);
  assert.deepEqual(
    [...seen].toSorted((a, b) => a - b),
    [0, 1, 2],
  );
});

function wildBuffers(random: Prng): Uint8Array[] {
  const type = random.below(30) + (random.chance(0.2) ? VIRTIO_BLK_T.BARRIER : 0);
  const sector = random.chance(0.5) ? random.below(9000) : random.below(2 ** 32) * 2 ** 20;
  const flags = random.chance(0.8) ? random.below(2) : random.below(2 ** 32);
  const head = header(type, sector, flags);
  const range = () => [random.below(9000), random.below(64), random.below(3)] as const;
  const body = random.chance(0.5)
    ? ranges(...Array.from({ length: random.below(300) }, range))
    : new Uint8Array(random.below(2000));
  const all = join(head, body);
  const end = random.chance(0.3) ? random.below(all.length) : all.length;
  const cut = random.below(end + 1);
  return [all.subarray(0, cut), all.subarray(cut, end)].filter((piece) => piece.length > 0);
}

function wildLengths(random: Prng): number[] {
  if (random.chance(0.1)) return [];
  return random.chance(0.5)
    ? [1]
    : [512 * random.below(5), 1 + random.below(3)].filter((n) => n > 0);
}
