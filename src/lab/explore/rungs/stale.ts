import type { Rule } from '../../model/types.ts';
import type { Family, Scene } from './family.ts';

/** Units that were written several times, all at the same older version. */
export const stale: Family = {
  rung: 'stale',
  grains: ['unit'],
  rules: staleOf,
  coversAll: () => false,
};

function* staleOf({ view: { units, first } }: Scene): Generator<Rule> {
  let most = 0;
  for (let i = 0; i < units.length; i += 1) {
    most = Math.max(most, (first[i + 1] as number) - (first[i] as number));
  }
  for (let back = 1; back < most; back += 1) yield { kind: 'stale', back };
}
