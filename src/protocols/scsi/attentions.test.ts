import assert from 'node:assert/strict';
import test from 'node:test';
import { Attentions } from './attentions.ts';
import { Nexus } from './nexus.ts';
import { ASC } from './scsi.ts';
import { senseData } from './sense.ts';
import { addUnit, bench, describeSense, filled, TestInitiator, write10 } from './testing.ts';

const TUR = [0, 0, 0, 0, 0, 0];

function nexus(name: string): Nexus {
  return new Nexus({ name, transportId: new Uint8Array(0) }, { resumable: false, key: name }, 1);
}

function all(attentions: Attentions, of: Nexus): number[] {
  const found: number[] = [];
  for (let code = attentions.take(of); code !== null; code = attentions.take(of)) found.push(code);
  return found;
}

test('conditions are told in order, once each; a reset covers those before it', () => {
  const attentions = new Attentions();
  const [a, b] = [nexus('a'), nexus('b')];
  attentions.open(a, ASC.POWER_ON_OCCURRED);
  attentions.establish(ASC.MODE_PARAMETERS_CHANGED);
  attentions.open(b, ASC.POWER_ON_OCCURRED);
  attentions.establish(ASC.MODE_PARAMETERS_CHANGED, b);
  attentions.establish(ASC.CAPACITY_DATA_HAS_CHANGED);
  assert.deepEqual(all(attentions, a), [0x2900, 0x2a01, 0x2a09]);
  assert.deepEqual(all(attentions, b), [0x2900, 0x2a09]);
  attentions.establish(ASC.CAPACITY_DATA_HAS_CHANGED);
  attentions.establish(ASC.BUS_DEVICE_RESET_FUNCTION_OCCURRED);
  attentions.establishFor(a, ASC.RESERVATIONS_PREEMPTED);
  assert.deepEqual(all(attentions, a), [0x2903, 0x2a03]);
  attentions.clear(b, ASC.BUS_DEVICE_RESET_FUNCTION_OCCURRED);
  assert.ok(!attentions.has(b));
  attentions.close(a);
  attentions.establish(ASC.CAPACITY_DATA_HAS_CHANGED);
  assert.deepEqual(all(attentions, a), []);
});

test('what is kept for a nexus that never asks is bounded', () => {
  const attentions = new Attentions();
  const a = nexus('a');
  attentions.open(a, 0);
  for (let code = 1; code < 1000; code += 1) attentions.establishFor(a, code);
  assert.equal(all(attentions, a).length, 16);
});

test('a unit attention stands for any command but three, and before every other check', () => {
  const at = bench();
  const from = new TestInitiator(at.target);
  from.good([0x12, 0, 0, 0, 96, 0]);
  from.good([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]);
  assert.equal(from.refused([0xc1]), '6 2900');
  assert.equal(from.refused([0x28, 0x20]), '5 2400 C1.5');
  // REQUEST SENSE has it as data, and that clears it.
  const other = new TestInitiator(at.target);
  assert.equal(describeSense(other.good([3, 0, 0, 0, 252, 0])), '6 2900');
  other.good(TUR);
  const third = new TestInitiator(at.target);
  assert.equal(third.refused(write10(0, 1), { dataOut: filled(1) }), '6 2900');
  assert.equal(at.store.bytes[0], 0);
});

test('REPORT LUNS clears that there is another logical unit', () => {
  const at = bench();
  const [from, other] = [at.initiator(), at.initiator()];
  addUnit(at.target, 1);
  from.good([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]);
  from.good(TUR);
  assert.equal(other.refused(TUR), '6 3f0e');
});

const fixed = (...args: Parameters<typeof senseData> extends [boolean, ...infer R] ? R : never) => [
  ...senseData(false, ...args),
];

test('sense data: fixed and descriptor format, deferred, progress, information beyond 32 bits', () => {
  assert.deepEqual(fixed(3, 0x1100), [0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0]);
  assert.equal(fixed(3, 0x1100, { deferred: true })[0], 0x71);
  assert.deepEqual(fixed(2, 0x041b, { progress: 0.5 }).slice(12), [4, 0x1b, 0, 0x80, 0x80, 0]);
  assert.deepEqual(fixed(2, 0x041b, { progress: 1 }).slice(15), [0x80, 0xff, 0xff]);
  assert.deepEqual(
    fixed(5, 0x2600, { field: { inCdb: false, byte: 0x102 } }).slice(15),
    [0x80, 1, 2],
  );
  // The field has 32 bits: what does not fit is not VALID.
  assert.deepEqual(
    fixed(3, 0x1100, { information: 2 ** 32 }).slice(0, 7),
    [0x70, 0, 3, 0, 0, 0, 0],
  );
  assert.deepEqual(
    fixed(3, 0x1100, { information: 2 ** 32 - 1 }).slice(0, 7),
    [0xf0, 0, 3, 255, 255, 255, 255],
  );
  assert.deepEqual(
    [...senseData(true, 3, 0x1100, { information: 2 ** 33 + 1, deferred: true })],
    [0x73, 3, 0x11, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 2, 0, 0, 0, 1],
  );
});
