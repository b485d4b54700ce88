import assert from 'node:assert/strict';
import test from 'node:test';
import { AssertionError } from '../../../base/assert.ts';
import { Region } from '../../../block/memory.ts';
import { RING } from '../split-ring.ts';
import { assertBreaks, SplitRig } from '../split-test-rig.ts';
import { DriverMemory } from './driver-memory.ts';
import type { Buffer } from './driver-queue.ts';
import { SplitDriver } from './split-driver.ts';

const START = 0x1_0000_0000;

function at(offset: number, length: number): Buffer {
  return { address: START + offset, length };
}

test('[virtio 2.7.5] descriptors are linked, readable before writable, and are laid down as specified', () => {
  const rig = new SplitRig({ size: 4 });
  const { region, start } = rig.driver.places.descriptors;
  const token = rig.driver.add([at(0x100, 16), at(0x200, 32)], [at(0x300, 1)], false);
  assert.equal(token, 0);
  const words = (index: number): (number | bigint)[] => {
    const from = start + index * 16;
    const { view } = region;
    return [
      view.getBigUint64(from, true),
      view.getUint32(from + 8, true),
      view.getUint16(from + 12, true),
      view.getUint16(from + 14, true),
    ];
  };
  assert.deepEqual(words(0), [0x1_0000_0100n, 16, 1, 1]);
  assert.deepEqual(words(1), [0x1_0000_0200n, 32, 1, 2]);
  assert.deepEqual(words(2).slice(0, 3), [0x1_0000_0300n, 1, 2]);
  assert.equal(rig.available, 0);
  rig.driver.publish();
  assert.equal(rig.available, 1);
  assert.equal(rig.get('driver', RING.entries), 0);
});

test('a full ring takes no more, until something comes back', () => {
  const rig = new SplitRig({ size: 4 });
  const queue = rig.queue();
  const buffer = { address: START, length: 8 };
  assert.notEqual(rig.driver.add([buffer, buffer, buffer], [], false), -1);
  assert.equal(rig.driver.add([buffer], [buffer], false), -1);
  assert.notEqual(rig.driver.add([buffer], [buffer, buffer], true), -1);
  assert.equal(rig.driver.add([buffer], [], true), -1);
  assert.equal(rig.driver.inFlight, 2);
  rig.driver.publish();
  const chain = queue.take();
  assert.ok(chain !== null);
  queue.give(chain, 0);
  queue.publish();
  assert.notEqual(rig.driver.take(), null);
  assert.notEqual(rig.driver.add([buffer, buffer], [buffer], false), -1);
  assert.equal(rig.driver.inFlight, 2);
});

test('chains that can never be added are our mistake', () => {
  const rig = new SplitRig({ size: 2 });
  const buffer = { address: START, length: 8 };
  assert.throws(() => rig.driver.add([], [], false), AssertionError);
  assert.throws(() => rig.driver.add([buffer, buffer], [buffer], false), AssertionError);
  const many = Array.from({ length: 17 }, () => buffer);
  assert.throws(() => rig.driver.add(many, [], true), AssertionError);
});

test('[virtio 2.7.8] a device that gives back what it does not have is found out', () => {
  const elements: [number, number, RegExp, string][] = [
    [1, 0, /does not have/, 'virtio 2.7.8'],
    [8, 0, /does not have/, 'virtio 2.7.8'],
    [2 ** 32 - 1, 0, /does not have/, 'virtio 2.7.8'],
    [0, 17, /more than there was room/, 'virtio 2.7.8.2'],
  ];
  for (const [id, written, message, spec] of elements) {
    const rig = new SplitRig({ size: 8 });
    const buffer = { address: START, length: 16 };
    rig.driver.add([buffer], [buffer], true);
    rig.driver.publish();
    const { region, start } = rig.driver.places.device;
    region.view.setUint32(start + 4, id, true);
    region.view.setUint32(start + 8, written, true);
    rig.set('device', RING.idx, 1);
    assertBreaks(() => rig.driver.take(), message, spec);
  }
});

test('rings may lie where the caller wants them', () => {
  const memory = new DriverMemory(Region.plain(1 << 14), START);
  const place = (start: number) => ({ region: memory.region, start });
  const places = { descriptors: place(0x100), driver: place(0x202), device: place(0x304) };
  const driver = new SplitDriver({ memory, size: 4, eventIdx: true, places });
  driver.add([{ address: START, length: 8 }], [], false);
  assert.equal(driver.publish(), true);
  assert.equal(memory.region.view.getUint16(0x204, true), 1);
  assert.equal(memory.region.view.getUint32(0x108, true), 8);
  assert.equal(memory.freeBytes, 1 << 14);
});
