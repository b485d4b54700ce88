import assert from 'node:assert/strict';
import test from 'node:test';
import { ProtocolError } from '../../base/errors.ts';
import { Prng } from '../../base/prng.ts';
import { Region } from '../../block/memory.ts';
import { GuestMemory } from './guest-memory.ts';
import { RING } from './split-ring.ts';
import { assertBreaks, assertInside, GUEST_BASE, SplitRig } from './split-test-rig.ts';
import { VIRTQ_DESC_F } from './virtio.ts';
import type { Chain } from './virtqueue.ts';

// Drivers that break the rules, one rule at a time; then memory that changes at random.

const { NEXT, WRITE, INDIRECT } = VIRTQ_DESC_F;
const SIZE = 8;
const END = GUEST_BASE + (1 << 20);

interface Hostile {
  readonly name: string;
  readonly spec: string;
  readonly message: RegExp;
  readonly indirect?: boolean;
  /** Breaks something; head 0 is offered afterwards unless it has offered by itself. */
  readonly break: (rig: SplitRig) => void;
}

const data = { address: GUEST_BASE, length: 16 };

/** An indirect table at a fixed place, its descriptors as given, and descriptor 0 that names it. */
function table(
  rig: SplitRig,
  entries: { address?: number; length?: number; flags?: number; next?: number }[],
  length = entries.length * 16,
): void {
  const address = GUEST_BASE + 0x8000;
  for (const [index, entry] of entries.entries()) {
    rig.describe(index, { ...data, ...entry }, rig.memory.placeOf(address));
  }
  rig.describe(0, { address, length, flags: INDIRECT });
}

const HOSTILE: Hostile[] = [
  {
    name: 'idx runs ahead by more than the size',
    spec: 'virtio 2.7.6',
    message: /more chains are available/,
    break: (rig) => rig.set('driver', RING.idx, SIZE + 2),
  },
  {
    name: 'idx goes back',
    spec: 'virtio 2.7.6',
    message: /more chains are available/,
    break: (rig) => rig.set('driver', RING.idx, 0xffff),
  },
  {
    name: 'a head out of range',
    spec: 'virtio 2.7.6',
    message: /head is out of range/,
    break: (rig) => rig.offer(SIZE),
  },
  {
    name: 'the highest head',
    spec: 'virtio 2.7.6',
    message: /head is out of range/,
    break: (rig) => rig.offer(0xffff),
  },
  {
    name: 'a link out of range',
    spec: 'virtio 2.7.5',
    message: /link is out of range/,
    break: (rig) => rig.describe(0, { ...data, flags: NEXT, next: SIZE }),
  },
  {
    name: 'a link to itself',
    spec: 'virtio 2.7.5.2',
    message: /loops/,
    break: (rig) => rig.describe(0, { ...data, flags: NEXT, next: 0 }),
  },
  {
    name: 'a loop over all descriptors, of empty buffers',
    spec: 'virtio 2.7.5.2',
    message: /loops/,
    break: (rig) => {
      for (let i = 0; i < SIZE; i += 1) {
        rig.describe(i, { address: 0, length: 0, flags: NEXT, next: (i + 1) % SIZE });
      }
    },
  },
  {
    name: 'readable after writable',
    spec: 'virtio 2.7.4.2',
    message: /readable buffer after a writable one/,
    break: (rig) => {
      rig.describe(0, { ...data, flags: NEXT | WRITE, next: 1 });
      rig.describe(1, data);
    },
  },
  {
    name: 'readable after writable, across the table',
    spec: 'virtio 2.7.4.2',
    message: /readable buffer after a writable one/,
    break: (rig) => {
      table(rig, [{}]);
      rig.describe(1, { address: GUEST_BASE + 0x8000, length: 16, flags: INDIRECT });
      rig.describe(0, { ...data, flags: NEXT | WRITE, next: 1 });
    },
  },
  ...[
    ['below memory', GUEST_BASE - 1, 16],
    ['at zero', 0, 1],
    ['right above memory', END, 1],
    ['over the end of memory', END - 15, 16],
    ['of 4 GiB', GUEST_BASE, 2 ** 32 - 1],
    ['above 2^53', 2n ** 53n + BigInt(GUEST_BASE), 16],
    ['at the top of 64 bits', 2n ** 64n - 8n, 16],
    ['with the sign bit', 2n ** 63n + BigInt(GUEST_BASE), 16],
  ].map(([name, address, length]) => ({
    name: `a buffer ${String(name)}`,
    spec: 'virtio 2.7.5',
    message: /outside guest memory/,
    break: (rig: SplitRig) =>
      rig.describe(0, { address: address as number | bigint, length: length as number }),
  })),
  {
    name: 'INDIRECT that was not negotiated',
    spec: 'virtio 2.7.5.3.1',
    message: /without VIRTIO_F_INDIRECT_DESC/,
    indirect: false,
    break: (rig) => table(rig, [{}]),
  },
  {
    name: 'INDIRECT with NEXT',
    spec: 'virtio 2.7.5.3.1',
    message: /both INDIRECT and NEXT/,
    break: (rig) => {
      table(rig, [{}]);
      const address = GUEST_BASE + 0x8000;
      rig.describe(0, { address, length: 16, flags: INDIRECT | NEXT, next: 1 });
    },
  },
  {
    name: 'a table in a table',
    spec: 'virtio 2.7.5.3.1',
    message: /inside an indirect table/,
    break: (rig) => table(rig, [{ flags: INDIRECT }]),
  },
  {
    name: 'an empty table',
    spec: 'virtio 2.7.5.3',
    message: /half a descriptor or none/,
    break: (rig) => table(rig, [{}], 0),
  },
  {
    name: 'half a descriptor in a table',
    spec: 'virtio 2.7.5.3',
    message: /half a descriptor or none/,
    break: (rig) => table(rig, [{}, {}], 24),
  },
  {
    name: 'a link out of a table',
    spec: 'virtio 2.7.5.3',
    message: /leads out of its indirect table/,
    break: (rig) => table(rig, [{ flags: NEXT, next: 1 }]),
  },
  {
    name: 'a loop in a table',
    spec: 'virtio 2.7.5.3.1',
    message: /loops or is too long/,
    break: (rig) => table(rig, [{ flags: NEXT, next: 1 }, { flags: NEXT }]),
  },
  {
    name: 'a table outside memory',
    spec: 'virtio 2.7.5.3',
    message: /table lies outside guest memory/,
    break: (rig) => rig.describe(0, { address: END, length: 16, flags: INDIRECT }),
  },
  {
    name: 'a table over the end of memory',
    spec: 'virtio 2.7.5.3',
    message: /table lies outside guest memory/,
    break: (rig) => rig.describe(0, { address: END - 16, length: 32, flags: INDIRECT }),
  },
  {
    name: 'a table above 2^53',
    spec: 'virtio 2.7.5.3',
    message: /table lies outside guest memory/,
    break: (rig) =>
      rig.describe(0, {
        address: 2n ** 60n + BigInt(GUEST_BASE),
        length: 16,
        flags: INDIRECT,
      }),
  },
  {
    name: 'a head that is available twice',
    spec: 'virtio 2.7.13',
    message: /available twice/,
    break: (rig) => {
      rig.describe(0, data);
      rig.offer(0);
      rig.offer(0);
    },
  },
];

for (const { name, spec, message, indirect = true, break: breakIt } of HOSTILE) {
  test(`[${spec}] ${name}: the queue is broken, what was taken before is finished`, () => {
    const rig = new SplitRig({ size: SIZE, indirect });
    const queue = rig.queue();
    rig.describe(7, data);
    const before = rig.available;
    rig.offer(7);
    const first = queue.take();
    assert.ok(first !== null);
    breakIt(rig);
    if (rig.available === before + 1) rig.offer(0);
    const takeAll = (): void => {
      for (let i = 0; i < 3; i += 1) queue.take();
    };
    assertBreaks(takeAll, message, spec);
    // It stays broken, whatever the driver writes now.
    assert.equal(queue.ready, false);
    assert.equal(queue.enableNotify(), false);
    rig.offer(7);
    assert.equal(queue.ready, false);
    assertBreaks(() => queue.take(), /queue is broken/, 'virtio 2.7');
    const inFlight = queue.inFlight;
    queue.give(first, 0);
    queue.publish();
    assert.equal(queue.inFlight, inFlight - 1);
    assert.equal(rig.usedIndex, 1);
  });
}

test('[virtio 2.7.5.2] a chain has at most 2^32 bytes', () => {
  const size = 8192;
  const rig = new SplitRig({ size, memoryBytes: 1 << 23 });
  const queue = rig.queue();
  const pieces = 2 ** 32 / 2 ** 20;
  for (let i = 0; i < pieces; i += 1) {
    rig.describe(i, { address: GUEST_BASE, length: 2 ** 20, flags: NEXT | WRITE, next: i + 1 });
  }
  rig.describe(pieces, { address: GUEST_BASE, length: 0, flags: WRITE });
  rig.offer(0);
  const chain = queue.take();
  assert.equal(chain?.writable.totalBytes, 2 ** 32);
  // All of it may be written, though a le32 cannot tell.
  if (chain !== null) queue.give(chain, 2 ** 32);
  queue.publish();
  const { region, start } = rig.driver.places.device;
  assert.equal(region.view.getUint32(start + 8, true), 2 ** 32 - 1);
  rig.describe(pieces, { address: GUEST_BASE, length: 1, flags: WRITE });
  rig.offer(0);
  assertBreaks(() => queue.take(), /more than 2\^32 bytes/, 'virtio 2.7.5.2');
});

test('[virtio 2.7.5.3.1] a table may have 1024 descriptors, as Linux makes them, and no more', () => {
  for (const count of [9, 1024, 1025]) {
    const rig = new SplitRig({ size: SIZE });
    const queue = rig.queue();
    table(
      rig,
      Array.from({ length: count }, (_, i) => ({
        length: 1,
        ...(i + 1 < count ? { flags: NEXT, next: i + 1 } : {}),
      })),
    );
    rig.offer(0);
    if (count > 1024) assertBreaks(() => queue.take(), /too long/, 'virtio 2.7.5.3.1');
    else assert.equal(queue.take()?.readable.totalBytes, count);
  }
});

test('a buffer may cross from one memory region into the next, a table may not', () => {
  const parts = [0, 1].map((index) => ({
    guestAddress: GUEST_BASE + index * 4096,
    userAddress: index * 2 ** 30,
    sizeBytes: 4096,
    region: Region.plain(8192),
  }));
  const memory = new GuestMemory(parts);
  const rig = new SplitRig({ size: SIZE });
  const queue = rig.queue({ memory });
  rig.describe(0, { address: GUEST_BASE + 4000, length: 200 });
  rig.describe(1, { address: GUEST_BASE + 4080, length: 32, flags: INDIRECT });
  rig.offer(0, 1);
  const chain = queue.take();
  assert.ok(chain !== null);
  assertInside(memory, chain);
  assert.deepEqual(chain.readable.starts.slice(0, 2), [4000, 0]);
  assert.deepEqual(chain.readable.lengths.slice(0, 2), [96, 104]);
  assertBreaks(() => queue.take(), /table lies outside/, 'virtio 2.7.5.3');
});

/** Fills rings with chains that are right, then changes bytes of descriptors, tables and the available ring. */
function vandalise(rig: SplitRig, prng: Prng, changes: number): void {
  const buffer = { address: GUEST_BASE + prng.below(1 << 16), length: prng.below(4096) };
  while (rig.driver.add([buffer], [buffer, buffer], rig.size < 4 || prng.chance(0.5)) !== -1) {
    if (prng.chance(0.2)) break;
  }
  rig.driver.publish();
  const { descriptors, driver } = rig.driver.places;
  const { bytes, view } = rig.memory.region;
  const end = descriptors.start + rig.size * 16;
  const tables = { start: end, length: 16 * 16 * 4 };
  for (let i = 0; i < changes; i += 1) {
    const where = prng.below(4);
    if (where === 0) bytes[descriptors.start + prng.below(rig.size * 16)] = prng.uint32();
    else if (where === 1) bytes[tables.start + prng.below(tables.length)] = prng.uint32();
    else if (where === 2) {
      // Flags and links, where a change hits.
      const at = descriptors.start + prng.below(rig.size) * 16 + 12;
      view.setUint16(at, prng.below(8), true);
      view.setUint16(at + 2, prng.below(rig.size + 1), true);
    } else bytes[driver.start + prng.below(6 + rig.size * 2)] = prng.uint32();
  }
}

test('random bytes in the rings end in a ProtocolError or in chains inside of guest memory', () => {
  let broken = 0;
  let taken = 0;
  for (let seed = 1; seed <= 6000; seed += 1) {
    const prng = new Prng(seed);
    const size = 2 ** prng.below(6);
    const rig = new SplitRig({ size, eventIdx: prng.chance(0.5), memoryBytes: 1 << 17 });
    // The region is longer than the table says: guards that chains must not reach.
    const { region } = rig.memory;
    const sizeBytes = region.bytes.length - 4096;
    const memory = new GuestMemory([
      { guestAddress: GUEST_BASE, userAddress: 0, sizeBytes, region },
    ]);
    const queue = rig.queue({ memory });
    const chains: Chain[] = [];
    try {
      for (let round = 0; round < 3; round += 1) {
        vandalise(rig, prng, 1 + prng.below(4));
        for (let chain = queue.take(); chain !== null; chain = queue.take()) {
          assertInside(memory, chain);
          taken += 1;
          chains.push(chain);
          assert.ok(queue.inFlight <= size);
        }
        for (const chain of chains.splice(0)) queue.give(chain, chain.writable.totalBytes);
        queue.publish();
        while (rig.driver.take() !== null);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw new Error(`seed ${seed}`, { cause: error });
      broken += 1;
      for (const chain of chains) queue.give(chain, 0);
      queue.publish();
    }
    assert.equal(queue.inFlight, 0, `seed ${seed}`);
  }
  // Both kinds of end were seen.
  assert.ok(broken > 2000 && broken < 6000, `${broken} broken`);
  assert.ok(taken > 6000, `${taken} taken`);
});
