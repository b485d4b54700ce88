import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import { Asked, Client, VolatileStore } from '../../test/durability/volatile-store.ts';
import { OP } from '../block/io.ts';
import { FlushDomain } from './flush-domain.ts';
import { TouchedRegions } from './touched-regions.ts';

const MiB = 1024 * 1024;

test('the latest mutation of a range is never underestimated, and exact across regions', () => {
  const size = 8 * 1024 * MiB;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(size - 1), fc.nat(64 * MiB)), { maxLength: 40 }),
      fc.nat(size - 1),
      fc.nat(64 * MiB),
      (writes, from, length) => {
        const regions = new TouchedRegions(size);
        let exact = 0;
        let near = 0;
        writes.forEach(([offset, bytes], i) => {
          regions.touch(offset, Math.min(bytes, size - offset), i + 1);
          const end = Math.min(size, offset + Math.max(1, bytes));
          if (offset < from + Math.max(1, length) && end > from) exact = i + 1;
          // A region is at most one 16384th of the disk, here 512 KiB.
          if (offset < from + Math.max(1, length) + MiB && end > from - MiB) near = i + 1;
        });
        const latest = regions.latest(from, Math.min(length, size - from));
        assert.ok(latest >= exact && latest <= near, `${exact} <= ${latest} <= ${near}`);
      },
    ),
  );
});

test('a disk of unknown size is one region', () => {
  const regions = new TouchedRegions(0);
  regions.touch(2 ** 45, 512, 7);
  assert.equal(regions.latest(0, 512), 7);
});

interface Bench {
  readonly store: VolatileStore;
  readonly client: Client;
  readonly domain: FlushDomain;
}

function bench(): Bench {
  const store = new VolatileStore((target) => new FlushDomain({ target, sizeBytes: 1024 * MiB }));
  return { store, client: new Client(store), domain: store.flusher as FlushDomain };
}

/** A FLUSH of [offset, offset + length). */
function flushRange({ domain }: Bench, offset: number, length: number): Asked {
  const asked = new Asked(OP.FLUSH, 0, 0);
  asked.io.offset = offset;
  asked.io.length = length;
  domain.flush(asked.io);
  return asked;
}

test('P1, P6: a flush of a clean range costs no sync, one of a touched range does', () => {
  const at = bench();
  at.domain.mutated(0, 4096);
  assert.ok(flushRange(at, 512 * MiB, MiB).succeeded);
  assert.equal(at.domain.counters.syncs, 0);
  assert.equal(at.domain.counters.rangeLeftOut, 1);
  const touched = flushRange(at, 0, 512);
  assert.ok(!touched.done);
  assert.equal(at.domain.counters.syncs, 1);
  at.store.finishSync();
  assert.ok(touched.succeeded);
  assert.ok(at.domain.clean);
});

test('P1: a ranged flush joins the running sync that covers it, and waits for its end', () => {
  const at = bench();
  at.domain.mutated(0, 4096);
  const first = flushRange(at, 0, 512);
  at.domain.mutated(512 * MiB, 4096);
  const joined = flushRange(at, 0, 4096);
  const next = flushRange(at, 512 * MiB, 512);
  assert.ok(!joined.done && !next.done);
  at.store.finishSync();
  assert.ok(first.succeeded && joined.succeeded && !next.done);
  assert.equal(at.domain.counters.syncs, 2);
  at.store.finishSync();
  assert.ok(next.succeeded);
});

test('P5: on a poisoned disk a flush of a clean range fails too', () => {
  const at = bench();
  at.domain.mutated(0, 4096);
  const first = flushRange(at, 0, 512);
  at.store.finishSync('EIO');
  assert.equal(first.error, 'EIO');
  assert.equal(flushRange(at, 512 * MiB, 512).error, 'EIO');
  assert.equal(at.domain.counters.rangeLeftOut, 0);
});
