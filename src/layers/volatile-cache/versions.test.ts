import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { Region, Segments } from '../../block/memory.ts';
import { KIND, NONE, Versions } from './versions.ts';

function segmentsOf(bytes: Uint8Array, ...cuts: readonly number[]): Segments {
  const segments = new Segments();
  const ends = [...cuts, bytes.length];
  let start = 0;
  for (const end of ends) {
    // Regions of their own, so that they are not joined.
    segments.push(Region.plain(bytes.slice(start, end)), 0, end - start);
    start = end;
  }
  return segments;
}

function filled(units: number, tag: number): Uint8Array {
  return Uint8Array.from({ length: units * 512 }, (_, i) => tag + (i % 7));
}

test('data comes back whatever the segments, at any place', () => {
  const versions = new Versions(16);
  const bytes = new Uint8Array(4 * 512);
  new Prng(1).fill(bytes);
  versions.add(10, 4, KIND.DATA, segmentsOf(bytes, 1, 511, 513, 1024, 1999));
  const target = new Uint8Array(6 * 512);
  const into = segmentsOf(target, 100, 700);
  versions.read(10, 14, into, 512);
  const found = new Uint8Array(target.length);
  into.copyTo(found);
  assert.deepEqual(found.subarray(512, 512 + bytes.length), bytes);
  assert.ok(found.subarray(0, 512).every((byte) => byte === 0));
});

test('of a unit the newest is read, and each older one is still there', () => {
  const versions = new Versions(16);
  const first = versions.add(0, 2, KIND.DATA, segmentsOf(filled(2, 1)));
  versions.add(1, 2, KIND.DATA, segmentsOf(filled(2, 50)));
  versions.add(1, 1, KIND.ZERO, null);
  assert.equal(versions.used, 5);
  assert.equal(versions.kind[versions.newest(1)], KIND.ZERO);
  assert.equal(versions.newestUpTo(1, 1), versions.next[versions.first[first] as number]);
  assert.equal(versions.newestUpTo(2, 1), NONE);
  assert.equal(versions.nextUsed(3, 9), 9);
  assert.equal(versions.nextUnused(0, 9), 3);
  const bytes = new Uint8Array(512);
  versions.copyTo(versions.newestUpTo(1, 2), bytes, 0);
  assert.deepEqual(bytes, filled(1, 50));
  // The middle version goes, and the older one with it.
  versions.dropUpTo(versions.newestUpTo(1, 2));
  assert.equal(versions.used, 3);
  assert.equal(versions.newestUpTo(1, 2), NONE);
  assert.notEqual(versions.newest(1), NONE);
});

test('room that was given back is used again, and nothing is left after clear', () => {
  const versions = new Versions(64);
  const prng = new Prng(7);
  for (let step = 0; step < 2000; step += 1) {
    const count = 1 + prng.below(8);
    if (count <= versions.free) {
      const data = segmentsOf(filled(count, step % 200));
      versions.add(prng.below(40), count, KIND.DATA, data);
    } else {
      const version = versions.newest(versions.nextUsed(prng.below(20), 60));
      if (version !== NONE) versions.dropUpTo(version);
    }
    if (step % 500 === 499) {
      versions.clear();
      assert.equal(versions.used, 0);
      assert.equal(versions.oldestWrite, NONE);
      assert.equal(versions.nextUsed(0, 60), 60);
    }
  }
});
