import type { Rule } from '../../model/types.ts';
import { listStates, UnitTree } from '../decisions.ts';
import { LISTED_STATES } from '../limits.ts';
import type { Family, Scene } from './family.ts';

/** Every state, where they are few. */
export const exhaustive: Family = {
  rung: 'exhaustive',
  grains: ['prefix', 'request', 'unit'],
  rules: (scene) =>
    scene.tree === null ? legalOnes(scene) : listStates(scene.tree, scene.view, LISTED_STATES),
  coversAll: () => true,
};

/** All choices of units, and of these the ones that the model allows. */
function legalOnes({ model, view, placeOf }: Scene): Rule[] | null {
  const rules = listStates(new UnitTree(model, view, placeOf), view, LISTED_STATES);
  const cut = view.cut.index;
  return rules?.filter((rule) => model.whyIllegal({ cut, rule }) === null) ?? null;
}
