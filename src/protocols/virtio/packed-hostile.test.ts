import assert from 'node:assert/strict';
import test from 'node:test';
import { ProtocolError } from '../../base/errors.ts';
import { Prng } from '../../base/prng.ts';
import type { Region } from '../../block/memory.ts';
import { MIN_TABLE_LIMIT } from './limits.ts';
import { PackedQueue } from './packed-queue.ts';
import { GUEST_ADDRESS, PackedRig } from './packed-test-rig.ts';
import { VIRTQ_DESC_F, VIRTQ_PACKED_DESC_F } from './virtio.ts';
import type { Chain } from './virtqueue.ts';

// Section numbers are those of virtio 1.2 to 1.4.

const { NEXT, WRITE, INDIRECT } = VIRTQ_DESC_F;
const { AVAIL, USED } = VIRTQ_PACKED_DESC_F;

const HOSTILE: Record<string, [(rig: PackedRig) => void, RegExp, string]> = {
  'a chain without an end': [
    (rig) => {
      for (let i = 0; i < 8; i += 1) rig.put(i, rig.buffer(), i, NEXT | AVAIL);
    },
    /no end within the ring/,
    '2.8.17',
  ],
  'a chain that runs into chains in flight': [
    (rig) => {
      rig.put(0, rig.buffer(), 0, AVAIL);
      rig.take();
      for (let i = 1; i < 8; i += 1) rig.put(i, rig.buffer(), i, NEXT | AVAIL);
      rig.put(0, rig.buffer(), 0, USED);
    },
    /no end within the ring/,
    '2.8.17',
  ],
  'a full ring made available again': [
    (rig) => {
      for (let i = 0; i < 8; i += 1) rig.put(i, rig.buffer(), i, AVAIL);
      for (let i = 0; i < 8; i += 1) rig.take();
      rig.put(0, rig.buffer(), 0, USED);
    },
    /full ring/,
    '2.8.16',
  ],
  'a full ring made available before what was given is published': [
    (rig) => {
      for (let i = 0; i < 8; i += 1) rig.put(i, rig.buffer(), i, AVAIL);
      for (let i = 0; i < 8; i += 1) rig.queue.give(rig.take(), 0);
      rig.put(0, rig.buffer(), 0, USED);
    },
    /full ring/,
    '2.8.16',
  ],
  'readable after writable': [
    (rig) => {
      rig.put(0, rig.buffer(), 0, NEXT | WRITE | AVAIL);
      rig.put(1, rig.buffer(), 0, AVAIL);
    },
    /readable buffer after a writable one/,
    '2.7.4.2',
  ],
  'readable after writable in a table': [
    (rig) => {
      const buffer = rig.buffer();
      const table = rig.table([
        { buffer, flags: WRITE },
        { buffer, flags: 0 },
      ]);
      rig.put(0, table, 0, INDIRECT | AVAIL);
    },
    /readable buffer after a writable one/,
    '2.7.4.2',
  ],
  'a table that is linked on': [
    (rig) => {
      const table = rig.table([{ buffer: rig.buffer(), flags: 0 }]);
      rig.put(0, table, 0, INDIRECT | NEXT | AVAIL);
      rig.put(1, rig.buffer(), 0, AVAIL);
    },
    /linked to other descriptors/,
    '2.8.19',
  ],
  'a table at the end of a list': [
    (rig) => {
      const table = rig.table([{ buffer: rig.buffer(), flags: 0 }]);
      rig.put(0, rig.buffer(), 0, NEXT | AVAIL);
      rig.put(1, table, 0, INDIRECT | AVAIL);
    },
    /linked to other descriptors/,
    '2.8.19',
  ],
  'an empty table': [
    (rig) => rig.put(0, { ...rig.buffer(), length: 0 }, 0, INDIRECT | AVAIL),
    /half a descriptor or none/,
    '2.7.5.3',
  ],
  'half a descriptor': [
    (rig) => rig.put(0, { ...rig.buffer(48), length: 40 }, 0, INDIRECT | AVAIL),
    /half a descriptor or none/,
    '2.7.5.3',
  ],
  'a table outside memory': [
    (rig) => rig.put(0, { address: 64, length: 16 }, 0, INDIRECT | AVAIL),
    /table lies outside/,
    '2.7.5.3',
  ],
  'a table that reaches out of memory': [
    (rig) => {
      const address = GUEST_ADDRESS + 2 ** 18 - 16;
      rig.put(0, { address, length: 32 }, 0, INDIRECT | AVAIL);
    },
    /table lies outside/,
    '2.7.5.3',
  ],
  'a table that is too long': [
    (rig) => {
      const table = rig.memory.allocate((MIN_TABLE_LIMIT + 1) * 16);
      rig.put(0, table, 0, INDIRECT | AVAIL);
    },
    /too long/,
    '2.8.19',
  ],
  'a buffer below memory': [
    (rig) => rig.put(0, { address: GUEST_ADDRESS - 1, length: 2 }, 0, AVAIL),
    /buffer lies outside/,
    '2.7.5',
  ],
  'a buffer that reaches out of memory': [
    (rig) => rig.put(0, { address: GUEST_ADDRESS, length: 2 ** 18 + 1 }, 0, AVAIL),
    /buffer lies outside/,
    '2.7.5',
  ],
  'a buffer of 4 GiB less one byte': [
    (rig) => rig.put(0, { address: GUEST_ADDRESS, length: 2 ** 32 - 1 }, 0, AVAIL),
    /buffer lies outside/,
    '2.7.5',
  ],
  'a buffer at the end of the address space': [
    (rig) => {
      rig.put(0, rig.buffer(), 0, AVAIL);
      rig.memory.region.view.setBigUint64(rig.at(0), 2n ** 64n - 8n, true);
    },
    /buffer lies outside/,
    '2.7.5',
  ],
};

for (const [name, [prepare, message, section]] of Object.entries(HOSTILE)) {
  test(`[${section}] hostile driver: ${name}`, () => {
    const rig = new PackedRig({ size: 8 });
    prepare(rig);
    rig.rejects(message, section);
  });
}

test('[2.8.19] hostile driver: a table without VIRTIO_F_INDIRECT_DESC', () => {
  const rig = new PackedRig({ indirect: false });
  const table = rig.table([{ buffer: rig.buffer(), flags: 0 }]);
  rig.put(0, table, 0, INDIRECT | AVAIL);
  rig.rejects(/without VIRTIO_F_INDIRECT_DESC/, '2.7.5.3.1');
});

test('a broken queue is drained: what was taken before is given back and published', () => {
  const rig = new PackedRig({ size: 4 });
  rig.put(0, rig.buffer(), 9, AVAIL);
  rig.put(1, rig.buffer(), 0, INDIRECT | NEXT | AVAIL);
  const chain = rig.take();
  rig.rejects(/linked to other/, '2.8.19');
  assert.equal(rig.queue.inFlight, 1);
  rig.queue.give(chain, 0);
  assert.equal(rig.queue.publish(), true);
  assert.equal(rig.queue.inFlight, 0);
  assert.equal(rig.id(0), 9);
});

test('hostile driver: random bytes over ring and tables give errors or chains within memory', () => {
  let chains = 0;
  let errors = 0;
  for (let seed = 1; seed <= 400; seed += 1) {
    const random = new Prng(seed);
    const rig = new PackedRig({ size: 1 + random.below(40), eventIdx: true, memoryBytes: 2 ** 16 });
    const { driver, memory } = rig;
    const held: Chain[] = [];
    const buffers = Array.from({ length: 4 }, () => rig.buffer(1 + random.below(64)));
    const flippable = rig.at(0) + driver.size * 16 + driver.size * 64;
    try {
      for (let step = 0; step < 150; step += 1) {
        const cut = random.below(4);
        if (random.chance(0.7)) {
          const count = Math.min(4, driver.size);
          driver.add(buffers.slice(0, Math.min(cut, count - 1)), buffers.slice(-1), false);
        } else {
          driver.add(buffers.slice(0, cut), buffers.slice(cut), true);
        }
        if (random.chance(0.7)) driver.publish();
        if (random.chance(0.4)) {
          const at = rig.at(0) + random.below(flippable - rig.at(0));
          memory.region.bytes[at] = random.chance(0.5) ? random.uint32() : random.below(16);
        }
        const chain = rig.queue.take();
        if (chain !== null) {
          chains += 1;
          held.push(chain);
          assertInside(chain, memory.region);
        }
        if (held.length > 0 && random.chance(0.6)) {
          const [given] = held.splice(random.below(held.length), 1) as [Chain];
          rig.queue.give(given, random.below(given.writable.totalBytes + 1));
          if (random.chance(0.5)) rig.queue.publish();
          rig.queue.enableNotify();
        }
        assert.ok(rig.queue.inFlight <= driver.size);
        // What the honest half of the driver thinks of it does not matter.
        if (random.chance(0.5)) ignoreProtocolErrors(() => driver.take());
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      errors += 1;
    }
  }
  assert.ok(chains > 5000, `${chains} chains`);
  assert.ok(errors > 100 && errors < 400, `${errors} errors`);
});

test('hostile driver: a ring of nothing but noise, all available', () => {
  const random = new Prng(7);
  let chains = 0;
  for (let run = 0; run < 20_000; run += 1) {
    const rig = noise(random);
    try {
      for (let chain = rig.queue.take(); chain !== null; chain = rig.queue.take()) {
        chains += 1;
        assertInside(chain, rig.memory.region);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
    }
  }
  assert.ok(chains > 10_000, `${chains} chains`);
});

let noisy: PackedRig | null = null;

/** The same memory each time, with fresh noise in the ring. */
function noise(random: Prng): PackedRig {
  noisy ??= new PackedRig({ size: 16, memoryBytes: 2 ** 13 });
  for (let slot = 0; slot < 16; slot += 1) {
    const address = GUEST_ADDRESS + random.below(2 ** 13 + 64) - 32;
    const length = random.chance(0.9) ? 16 * random.below(8) : random.uint32();
    let flags = (random.uint32() & ~(AVAIL | USED | NEXT | INDIRECT)) | AVAIL;
    if (random.chance(0.3)) flags |= NEXT;
    if (random.chance(0.1)) flags |= INDIRECT;
    noisy.put(slot, { address, length }, random.below(2 ** 16), flags & 0xffff);
  }
  noisy.queue = new PackedQueue(noisy.options);
  return noisy;
}

function ignoreProtocolErrors(call: () => void): void {
  try {
    call();
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
  }
}

function assertInside(chain: Chain, region: Region): void {
  for (const segments of [chain.readable, chain.writable]) {
    let total = 0;
    for (let i = 0; i < segments.count; i += 1) {
      assert.equal(segments.regions[i], region);
      assert.ok((segments.starts[i] as number) >= 0);
      assert.ok(segments.end(i) <= region.bytes.length);
      total += segments.lengths[i] as number;
    }
    assert.equal(total, segments.totalBytes);
  }
}
