import { pairRows } from '../../model/pair-rows.ts';
import type { Rule } from '../../model/types.ts';
import type { Family, Scene } from './family.ts';

/**
 * A covering array of strength 2 over the open requests: any two of them are seen there and there, there and lost, lost
 * and there, lost and lost. And its opposite, since one array sees a pair amid mostly one kind of others.
 */
export const pairs: Family = {
  rung: 'pairs',
  grains: ['request', 'unit'],
  rules: pairsOf,
  coversAll: () => false,
};

function* pairsOf({ view }: Scene): Generator<Rule> {
  const rows = pairRows(view.requests.length);
  for (const flip of [false, true]) {
    for (let row = 0; row < rows; row += 1) yield { kind: 'pairs', row, flip };
  }
}
