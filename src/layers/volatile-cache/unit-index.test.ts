import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { UnitIndex } from './unit-index.ts';

test('it finds what a Map finds, also after deletions among collisions', () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const prng = new Prng(seed);
    const index = new UnitIndex(64);
    const model = new Map<number, number>();
    // Places far apart and neighbours, some beyond 32 bits.
    const units = Array.from(
      { length: 100 },
      () => prng.below(4) * 2 ** 33 + prng.below(seed * 40),
    );
    for (let step = 0; step < 3000; step += 1) {
      const unit = prng.pick(units);
      if (model.has(unit) && prng.chance(0.5)) {
        index.delete(unit);
        model.delete(unit);
      } else if (model.has(unit) || model.size < 64) {
        index.set(unit, step);
        model.set(unit, step);
      }
      const asked = prng.pick(units);
      assert.equal(index.get(asked), model.get(asked) ?? -1);
    }
    for (const unit of units) assert.equal(index.get(unit), model.get(unit) ?? -1);
  }
});
