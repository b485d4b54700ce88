import assert from 'node:assert/strict';
import test from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { Prng } from '../../base/prng.ts';
import { isOfTrace, parseStateId, stateId } from './state-id.ts';
import { type ModelName, type ModelOptions, type Rule, TEAR_SHAPES } from './types.ts';

const USUAL: ModelOptions = { model: 'M2', unitBytes: 512, overlap: 'issued', poison: false };

function idOf(rule: Rule, options: Partial<ModelOptions> = {}): string {
  return stateId('3f9a0b1c', { ...USUAL, ...options }, { cut: 12, rule });
}

test('an id is short and can be read', () => {
  const known: [Rule, string][] = [
    [{ kind: 'all' }, 'all'],
    [{ kind: 'floor' }, 'floor'],
    [{ kind: 'prefix', order: 'issued', count: 345 }, 'p345'],
    [{ kind: 'prefix', order: 'completed', count: 3 }, 'd3'],
    [{ kind: 'lost', requests: [7, 9] }, 'lost-7.9'],
    [{ kind: 'kept', requests: [1, 2, 3, 9] }, 'kept-1_3.9'],
    [{ kind: 'lost', requests: [] }, 'lost'],
    [{ kind: 'pairs', row: 3, flip: true }, 'r3n'],
    [{ kind: 'tear', request: 7, shape: 'not-first', others: 'lost' }, 'tear-7-not-first-lost'],
    [{ kind: 'stale', back: 2 }, 's2'],
    [{ kind: 'random', by: 'request', seed: 77, keep: 128 }, 'q77k128'],
    [{ kind: 'random', by: 'unit', seed: 77, keep: 0 }, 'u77k0'],
  ];
  for (const [rule, text] of known) assert.equal(idOf(rule), `3f9a-M2-c12-${text}`);
  const all = { unitBytes: 4096, overlap: 'any', poison: true, model: 'M1' } as const;
  assert.equal(idOf({ kind: 'all' }, all), '3f9a-M1u4096ap-c12-all');
});

test('a torn request of a thousand units takes a few characters', () => {
  const pairs = Array.from({ length: 1000 }, (_, i) => [70_000 + i, 140_001 + 2 * i]).flat();
  assert.ok(idOf({ kind: 'units', others: 'all', pairs }).length < 40);
});

test('what is written is read back', () => {
  const prng = new Prng(5);
  for (let i = 0; i < 5000; i += 1) {
    const options: ModelOptions = {
      model: prng.pick<ModelName>(['M0', 'M1', 'M2', 'M3', 'L']),
      unitBytes: 512 * 2 ** prng.below(8),
      overlap: prng.pick(['issued', 'any'] as const),
      poison: prng.chance(0.5),
    };
    const state = { cut: prng.below(2 ** prng.below(28)), rule: randomRule(prng) };
    const fingerprint = prng.uint32().toString(16).padStart(8, '0');
    const id = stateId(fingerprint, options, state);
    const parts = parseStateId(id);
    assert.deepEqual(parts, { trace: fingerprint.slice(0, 4), options, state }, id);
    assert.ok(isOfTrace(parts, fingerprint));
    assert.match(id, /^[\w.-]+$/);
  }
});

function randomRule(prng: Prng): Rule {
  const some = (): number[] => {
    let last = 0;
    return Array.from(
      { length: prng.below(20) },
      () => (last += 1 + prng.below(prng.pick([1, 1, 900]))),
    );
  };
  const kept = ['lost', 'kept'] as const;
  switch (prng.below(9)) {
    case 0:
      return { kind: prng.pick(['all', 'floor'] as const) };
    case 1: {
      const order = prng.pick(['issued', 'completed'] as const);
      return { kind: 'prefix', order, count: prng.below(1e6) };
    }
    case 2:
      return { kind: prng.pick(kept), requests: some() };
    case 3:
      return { kind: 'pairs', row: prng.below(30), flip: prng.chance(0.5) };
    case 4: {
      const shape = prng.pick(TEAR_SHAPES);
      return { kind: 'tear', request: prng.below(1e6), shape, others: prng.pick(kept) };
    }
    case 5:
      return { kind: 'stale', back: prng.below(50) };
    case 6: {
      const by = prng.pick(['request', 'unit'] as const);
      return { kind: 'random', by, seed: prng.uint32(), keep: prng.below(257) };
    }
    default: {
      const pairs = some().flatMap((unit) => [
        unit,
        prng.chance(0.5) ? 2 * unit + 1 : prng.below(2 ** 31),
      ]);
      return { kind: 'units', others: prng.pick(['all', 'floor'] as const), pairs };
    }
  }
}

test('what is no id is refused', () => {
  const wrong = [
    '',
    'hello',
    '3f9a-M2-c12',
    '3f9a-M2-c12-',
    '3f9a-M9-c12-all',
    '3f9a-M2-12-all',
    '3F9A-M2-c12-all',
    '3f9a-M2-c12-all ',
    '3f9a-M2-c12-lost-',
    '3f9a-M2-c12-lost-7..9',
    '3f9a-M2-c12-lost-9_7',
    '3f9a-M2-c12-lost-0_999999999',
    '3f9a-M2-c12-p',
    '3f9a-M2-c12-p3n',
    '3f9a-M2-c12-q3',
    '3f9a-M2-c12-s3k1',
    '3f9a-M2-c12-tear-7-side-lost',
    '3f9a-M2-c12-tear-7-head-torn',
    '3f9a-M2-c12-x',
    '3f9a-M2-c12-xaAA',
    '3f9a-M2-c12-xaA',
    '3f9a-M2-c12-xaAAAA',
    '3f9a-M2-c12-xa_____w',
  ];
  for (const id of wrong) {
    assert.throws(
      () => parseStateId(id),
      (error: unknown) =>
        error instanceof ConfigError && error.message.startsWith(`'${id}' is no id of a state: `),
      id,
    );
  }
});
