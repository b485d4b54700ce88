import { Prng } from '../../../base/prng.ts';
import type { Rule } from '../../model/types.ts';
import type { Grain } from '../grain.ts';

/** How much of what is open is there, in 256ths: from hardly anything to almost everything. */
const DENSITIES = [128, 13, 243, 64, 192] as const;

/**
 * The random state number `drawn` of a cut: the same for the same seed, in whatever order they are made. By turns whole
 * requests and, where the model allows it, single units.
 */
export function randomRule(seed: number, cut: number, drawn: number, grain: Grain): Rule {
  const prng = new Prng(seed + cut * 2 ** 20 + drawn * 2 ** 32);
  const by = grain === 'unit' && drawn % 2 === 1 ? 'unit' : 'request';
  const keep = DENSITIES[(drawn >> 1) % DENSITIES.length] as number;
  return { kind: 'random', by, seed: prng.uint32(), keep };
}
