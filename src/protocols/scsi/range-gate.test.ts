import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Prng } from '../../base/prng.ts';
import { RangeGate } from './range-gate.ts';
import { ScsiTask } from './task.ts';
import { be32, be64, bench, type Sent, senseOf } from './testing.ts';

function task(offset: number, transferBytes: number): ScsiTask {
  const made = new ScsiTask();
  made.offset = offset;
  made.transferBytes = transferBytes;
  return made;
}

test('writes pass each other, an exclusive one waits for those it overlaps and holds up later ones', () => {
  const gone: ScsiTask[] = [];
  const gate = new RangeGate((each) => void gone.push(each));
  const [a, b] = [task(0, 100), task(50, 100)];
  assert.ok(gate.enter(a, false) && gate.enter(b, false));
  const exclusive = task(60, 10);
  const later = task(65, 10);
  const elsewhere = task(200, 10);
  assert.ok(!gate.enter(exclusive, true));
  assert.ok(!gate.enter(later, false), 'it would starve the one that waits');
  assert.ok(gate.enter(elsewhere, false));
  gate.leave(a);
  assert.deepEqual(gone, []);
  gate.leave(b);
  assert.deepEqual(gone, [exclusive]);
  gate.leave(exclusive);
  assert.deepEqual(gone, [exclusive, later]);
  gate.leave(later);
  gate.leave(elsewhere);
});

test('who leaves while it waits goes, and lets go on who waited behind it', () => {
  const gone: ScsiTask[] = [];
  const gate = new RangeGate((each) => void gone.push(each));
  const [inside, waiting, behind] = [task(0, 10), task(5, 10), task(12, 2)];
  assert.ok(gate.enter(inside, false));
  assert.ok(!gate.enter(waiting, true));
  assert.ok(!gate.enter(behind, false));
  gate.leave(waiting);
  assert.deepEqual(gone, [behind]);
  // Not in it at all: nothing.
  gate.leave(task(0, 10));
  let held = false;
  const part = { offset: 0, transferBytes: 20 };
  gate.hold(part, true, () => (held = true));
  gate.leave(inside);
  assert.ok(!held);
  gate.leave(behind);
  assert.ok(held);
});

test('whoever is inside together does not overlap, unless they are all writes; nobody is forgotten', () => {
  const step = fc.record({
    offset: fc.nat(20),
    bytes: fc.integer({ min: 1, max: 8 }),
    exclusive: fc.boolean(),
    leave: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const inside = new Map<ScsiTask, boolean>();
      const kinds = new Map<ScsiTask, boolean>();
      const gate = new RangeGate((each) => enter(each));
      const enter = (each: ScsiTask): void => {
        const exclusive = kinds.get(each) as boolean;
        for (const [other, alone] of inside) {
          const apart =
            each.offset >= other.offset + other.transferBytes ||
            other.offset >= each.offset + each.transferBytes;
          assert.ok(apart || (!exclusive && !alone), 'two inside that must not be');
        }
        inside.set(each, exclusive);
      };
      const leave = (number: number): void => {
        const each = [...inside.keys()][number % Math.max(1, inside.size)];
        if (each === undefined) return;
        inside.delete(each);
        gate.leave(each);
      };
      for (const { offset, bytes, exclusive, leave: number } of steps) {
        const each = task(offset, bytes);
        kinds.set(each, exclusive);
        if (gate.enter(each, exclusive)) enter(each);
        if (number % 3 === 0) leave(number);
      }
      let left = 0;
      while (inside.size > 0) {
        leave(0);
        left += 1;
        assert.ok(left <= steps.length);
      }
      // All came through: an exclusive one over everything may enter.
      assert.ok(gate.enter(task(0, 1000), true));
    }),
    { numRuns: 300 },
  );
});

/** A counter in block `lba`, incremented by COMPARE AND WRITE: the way cluster file systems take locks. */
function counter(value: number): Uint8Array {
  const block = new Uint8Array(512);
  new DataView(block.buffer).setUint32(0, value);
  return block;
}

test('COMPARE AND WRITE against others and against WRITEs: no update is lost', () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const prng = new Prng(seed);
    const at = bench();
    const [a, b] = [at.initiator(), at.initiator()];
    at.store.holds = true;
    let done = 0;
    let inFlight: Sent[] = [];
    const read = (): number => new DataView(at.store.bytes.buffer).getUint32(0);
    for (let i = 0; i < 300; i += 1) {
      const from = prng.chance(0.5) ? a : b;
      if (inFlight.length < 8) {
        const guess = read() + prng.below(2);
        const dataOut = Uint8Array.from([...counter(guess), ...counter(guess + 1)]);
        inFlight.push(from.send([0x89, 0, ...be64(0), 0, 0, 0, 1, 0, 0], { dataOut }));
        // Neighbours in the same piece of the disk, and ORWRITE of nothing over the same block.
        inFlight.push(from.send([0x8a, 0, ...be64(1), ...be32(1), 0, 0], { dataOut: counter(7) }));
        const zero = new Uint8Array(1024);
        inFlight.push(from.send([0x8b, 0, ...be64(0), ...be32(2), 0, 0], { dataOut: zero }));
      }
      const { pending } = at.store;
      if (pending.length > 0) at.store.finish(pending[prng.below(pending.length)]);
      inFlight = inFlight.filter((sent) => {
        if (!sent.done) return true;
        const compares = sent.task.cdb[0] === 0x89;
        const sense = senseOf(sent);
        assert.ok(sense === 'GOOD' || (compares && sense === 'e 1d00'), sense);
        if (compares && sense === 'GOOD') done += 1;
        return false;
      });
    }
    at.store.settle();
    for (const sent of inFlight) {
      if (sent.task.cdb[0] === 0x89 && senseOf(sent) === 'GOOD') done += 1;
    }
    assert.equal(read(), done, `seed ${seed}`);
    assert.ok(done > 10);
  }
});
