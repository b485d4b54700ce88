import type { Rule } from '../../model/types.ts';
import { listStates, UnitTree } from '../decisions.ts';
import { LISTED_STATES } from '../limits.ts';
import type { Family, Scene } from './family.ts';

/** Every state, where they are few. */
export const exhaustive: Family = {
  rung: 'exhaustive',
  grains: ['prefix', 'request', 'unit'],
  rules: allStates,
  coversAll: () => true,
};

function allStates({ model, view, placeOf, tree }: Scene): Rule[] | null {
  if (tree !== null && !(tree instanceof UnitTree)) return listStates(tree, view, LISTED_STATES);
  if (view.plainCount > BigInt(LISTED_STATES)) return null;
  const rules = listStates(tree ?? new UnitTree(model, view, placeOf), view, LISTED_STATES);
  if (tree !== null || rules === null) return rules;
  // Of all choices of units, those that the model allows.
  const cut = view.cut.index;
  return rules.filter((rule) => model.whyIllegal({ cut, rule }) === null);
}
