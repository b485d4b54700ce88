import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { ModelName, Rule } from '../model/types.ts';
import { CutImages } from './cut-images.ts';
import { ImageHistory } from './image-history.ts';
import { randomRule } from './rungs/random.ts';
import { randomTrace } from './testing.ts';

const MODELS: readonly ModelName[] = ['M0', 'M1', 'M2', 'M3', 'L'];

test('contents and keys are those of the whole image, whatever way led to a cut', () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const prng = new Prng(seed);
    const trace = randomTrace(prng, 24, 6);
    const model = openCrashModel(trace, {
      model: MODELS[seed % MODELS.length] as ModelName,
      unitBytes: 512,
      overlap: seed % 3 === 0 ? 'any' : 'issued',
      poison: seed % 2 === 0,
    });
    const images = new CutImages(new ImageHistory(model));
    const keyOf = new Map<string, string>();
    const imageOf = new Map<string, string>();
    for (let i = 0; i < 60; i += 1) {
      const cut = prng.below(model.cuts.length);
      const ends: Rule = { kind: i % 2 === 0 ? 'all' : 'floor' };
      const rule: Rule = i < 20 ? ends : randomRule(seed, cut, i, 'unit');
      images.moveTo(cut);
      images.apply(rule);
      const whole: number[] = [];
      for (let unit = 0; unit < model.unitCount; unit += 1) {
        whole.push(model.contentOf(model.versionIn({ cut, rule }, unit)));
      }
      assert.deepEqual([...images.contents], whole, `seed ${seed}, cut ${cut}`);
      const image = whole.join();
      const key = [images.keyA, images.keyB, images.keyC].join();
      assert.equal(keyOf.get(image) ?? key, key, 'one image has one key');
      assert.equal(imageOf.get(key) ?? image, image, 'one key has one image');
      keyOf.set(image, key);
      imageOf.set(key, image);
    }
    trace.close();
  }
});
