import { type Rule, TEAR_SHAPES } from '../../model/types.ts';
import type { Family, Scene } from './family.ts';

/** Each write torn in each way, with all others there and with all others lost. One of a single unit cannot tear. */
export const tears: Family = {
  rung: 'tears',
  grains: ['unit'],
  rules: tearsOf,
  coversAll: () => false,
};

function* tearsOf({ model, view }: Scene): Generator<Rule> {
  const { disk, offset, length } = model.trace.requests;
  for (const request of view.requests) {
    const on = disk[request] as number;
    const from = offset[request] as number;
    const last = from + (length[request] as number) - 1;
    if (model.unitAt(on, from) === model.unitAt(on, last)) continue;
    for (const shape of TEAR_SHAPES) {
      for (const others of ['kept', 'lost'] as const)
        yield { kind: 'tear', request, shape, others };
    }
  }
}
