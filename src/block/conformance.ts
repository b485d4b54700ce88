import { describe } from 'node:test';
import { durabilityTests } from './conformance/durability.ts';
import { lifecycleTests } from './conformance/lifecycle.ts';
import type { ConformanceTarget, ConformanceTraits } from './conformance/suite.ts';
import { transferTests } from './conformance/transfer.ts';
import { zeroesTests } from './conformance/zeroes.ts';

export { ModelDisk, randomStep, type Step } from './conformance/model.ts';
export { MIN_BLOCKS, type ConformanceTarget, type ConformanceTraits } from './conformance/suite.ts';

/**
 * Registers node:test tests for every point of the contract that `BlockDevice` states, under the title `name`. `open`
 * is called once for each test and gives a writable device of at least MIN_BLOCKS blocks; the suite closes it. Where
 * the traits say that targets can lose power or fail a sync, what FLUSH and FUA promise is tested too.
 */
export function conformance(
  name: string,
  open: () => Promise<ConformanceTarget>,
  traits: ConformanceTraits = {},
): void {
  void describe(name, () => {
    const suite = { open, traits };
    lifecycleTests(suite);
    transferTests(suite);
    zeroesTests(suite);
    durabilityTests(suite);
  });
}
