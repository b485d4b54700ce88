import assert from 'node:assert/strict';
import test from 'node:test';
import { KiB, MiB } from '../base/units.ts';
import { FuaChooser, LatencyModel } from './fua.ts';

/** A host with given costs, asked `writes` times in a load of `others`; returns the share of native writes. */
function share(
  writes: number,
  load: { readonly others: number; readonly unstableBytes: number },
  host: { native: (bytes: number) => number; sync: (bytes: number) => number },
  chooser = new FuaChooser(),
): number {
  let native = 0;
  for (let i = 0; i < writes; i += 1) {
    if (chooser.preferNative(4 * KiB, load.others, load.unstableBytes)) {
      native += 1;
      chooser.observedNative(host.native(4 * KiB), 4 * KiB);
    } else {
      chooser.observedSync(host.sync(load.unstableBytes), load.unstableBytes);
    }
  }
  return native / writes;
}

// A drive: a flush costs 1 ms, a mebibyte another 2 ms.
const drive = {
  native: (bytes: number) => 1 + (2 * bytes) / MiB,
  sync: (bytes: number) => 1 + (2 * bytes) / MiB,
};

test('a lone writer beside a bulk writer does not wait for the bulk', () => {
  assert.ok(share(5000, { others: 0, unstableBytes: 64 * MiB }, drive) > 0.95);
});

test('many that commit together share a sync', () => {
  assert.ok(share(5000, { others: 30, unstableBytes: 128 * KiB }, drive) < 0.05);
});

test('one other that waits: its sync may be running already, and half of it counts', () => {
  const close = { native: () => 0.9, sync: () => 1 };
  assert.ok(share(5000, { others: 1, unstableBytes: 4 * KiB }, close) > 0.95);
  assert.ok(share(5000, { others: 2, unstableBytes: 4 * KiB }, close) < 0.05);
});

test('a host on which RWF_DSYNC is slow is noticed', () => {
  const slow = { native: () => 20, sync: () => 1 };
  assert.ok(share(5000, { others: 0, unstableBytes: 4 * KiB }, slow) < 0.05);
});

test('a host that changes is noticed by exploring', () => {
  const chooser = new FuaChooser();
  const lone = { others: 0, unstableBytes: 4 * KiB };
  share(2000, lone, { native: () => 20, sync: () => 2 }, chooser);
  assert.equal(chooser.preferNative(4 * KiB, 0, 4 * KiB), false);
  share(20_000, lone, { native: () => 0.1, sync: () => 2 }, chooser);
  assert.ok(share(2000, lone, { native: () => 0.1, sync: () => 2 }, chooser) > 0.95);
});

/** On a host where native is always better. */
function choices(): boolean[] {
  const chooser = new FuaChooser();
  for (let i = 0; i < 8; i += 1) {
    chooser.observedNative(1, 4096);
    chooser.observedSync(5, 4096);
  }
  return Array.from({ length: 4096 }, () => chooser.preferNative(4096, 0, 0));
}

test('exploration is rare, comes in runs, and is the same every time', () => {
  const first = choices();
  const explored = first.filter((native) => !native).length;
  assert.ok(explored > 0 && explored / first.length < 0.02);
  const runs = first.filter((native, i) => !native && first[i - 1] !== false).length;
  assert.ok(explored / runs >= 8, 'a shared sync shows its worth only when several share');
  assert.deepEqual(choices(), first);
});

test('both ways are measured before one is preferred', () => {
  const chooser = new FuaChooser();
  const seen = new Set<boolean>();
  for (let i = 0; i < 8; i += 1) {
    const native = chooser.preferNative(4096, 0, 0);
    seen.add(native);
    if (native) chooser.observedNative(1, 4096);
    else chooser.observedSync(1, 4096);
  }
  assert.equal(seen.size, 2);
});

test('the latency model finds base and slope, and claims no slope from one size', () => {
  const line = new LatencyModel();
  for (let i = 0; i < 100; i += 1) {
    const bytes = ((i * 37) % 16) * 64 * KiB;
    line.observe(2 + (3 * bytes) / MiB, bytes);
  }
  assert.ok(Math.abs(line.estimate(0) - 2) < 0.01);
  assert.ok(Math.abs(line.estimate(4 * MiB) - 14) < 0.05);
  const point = new LatencyModel();
  for (let i = 0; i < 100; i += 1) point.observe(i % 2, 4096);
  assert.ok(Math.abs(point.estimate(1024 * MiB) - point.estimate(4096)) < 1e-9);
});

test('the latency model never says less for more, and never less than nothing', () => {
  const model = new LatencyModel();
  for (let i = 0; i < 100; i += 1) model.observe(i % 2 === 0 ? 10 : 1, i % 2 === 0 ? 4096 : MiB);
  assert.ok(model.estimate(MiB) >= model.estimate(4096));
  const steep = new LatencyModel();
  for (let i = 0; i < 100; i += 1) steep.observe(i % 2 === 0 ? 0 : 10, i % 2 === 0 ? MiB : 2 * MiB);
  assert.ok(steep.estimate(0) >= 0);
});
