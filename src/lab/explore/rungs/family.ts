import type { CrashModel, CutView, Rule } from '../../model/types.ts';
import type { DecisionTree } from '../decisions.ts';
import type { Grain } from '../grain.ts';
import type { Rung } from '../types.ts';

/** A cut, as those see it who think up its states. */
export interface Scene {
  readonly model: CrashModel;
  readonly view: CutView;
  /** See CutImages. */
  readonly placeOf: Int32Array;
  /** All states of the cut; null where the model's states are no such tree. */
  readonly tree: DecisionTree | null;
}

/** A family of states that is made without looking at verdicts. */
export interface Family {
  readonly rung: Rung;
  /** The models for which its states are legal, by what they keep or lose. */
  readonly grains: readonly Grain[];
  /** All its states at a cut, in their order, as many as are asked for; null: they are too many to begin. */
  rules(scene: Scene): Iterable<Rule> | null;
  /** Whether these are all states of the cut. */
  coversAll(scene: Scene): boolean;
}
