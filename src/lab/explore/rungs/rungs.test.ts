import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../../base/prng.ts';
import { openCrashModel } from '../../model/crash-model.ts';
import { enumerateStates } from '../../model/enumerate-states.ts';
import { randomTrace } from '../../model/testing.ts';
import type { ModelName, Rule } from '../../model/types.ts';
import { CutImages } from '../cut-images.ts';
import { ImageHistory } from '../image-history.ts';
import { FIRST, LADDER } from './ladder.ts';

test('a family that says that it covers a cut does so by itself', () => {
  const covered = new Set<string>();
  for (let seed = 1; seed <= 400; seed += 1) {
    const trace = randomTrace(new Prng(seed));
    const name = (['M0', 'M1', 'M2'] as const)[seed % 3] as ModelName;
    const model = openCrashModel(trace, {
      model: name,
      unitBytes: 512,
      overlap: seed % 2 === 0 ? 'any' : 'issued',
      poison: false,
    });
    const images = new CutImages(new ImageHistory(model));
    for (const { index: cut } of model.cuts) {
      const keysOf = (rules: Iterable<Rule>): Set<string> => {
        const keys = new Set<string>();
        for (const rule of rules) {
          images.apply(rule);
          keys.add(images.contents.join());
        }
        return keys;
      };
      const view = images.moveTo(cut);
      const scene = { model, view, placeOf: images.placeOf, tree: null };
      const all = keysOf([...enumerateStates(model, cut)].map(({ rule }) => rule));
      for (const family of [FIRST, ...LADDER]) {
        if (family === 'read-guided' || !family.coversAll(scene)) continue;
        const rules = family.rules(scene);
        if (rules === null) continue;
        const what = `seed ${seed}, ${name}, cut ${cut}, ${family.rung}`;
        assert.deepEqual(keysOf(rules), all, what);
        covered.add(`${family.rung} ${name}`);
      }
    }
    trace.close();
  }
  assert.ok(covered.has('prefixes M0') && covered.has('exhaustive M1') && covered.has('ends M2'));
});
