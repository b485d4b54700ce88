import { OP } from '../../../block/io.ts';
import type { Rule } from '../../model/types.ts';
import { isByRequests } from '../grain.ts';
import type { Family, Scene } from './family.ts';

/** The open requests up to each one, in the order of issue and of completion. */
export const prefixes: Family = {
  rung: 'prefixes',
  grains: ['prefix', 'request', 'unit'],
  rules: prefixesOf,
  coversAll,
};

function* prefixesOf({ model, view }: Scene): Generator<Rule> {
  // Where order is kept, it is that of issue, and a prefix may be illegal: each disk keeps its own.
  const keepsOrder = model.options.model === 'M0';
  for (const order of ['issued', 'completed'] as const) {
    if (keepsOrder && order === 'completed') return;
    // The ends are another family, but that may have been cut short, and M0 counts on all.
    for (let count = 0; count <= view.requests.length; count += 1) {
      const rule = { kind: 'prefix', order, count } as const;
      if (keepsOrder && model.whyIllegal({ cut: view.cut.index, rule }) !== null) continue;
      yield rule;
    }
  }
}

/** Under M0, with one disk, and without those that no order binds: failed ones, and discards that leave anything. */
function coversAll({ model, view }: Scene): boolean {
  if (model.options.model !== 'M0' || !isByRequests(model.options)) return false;
  const { disk, failed, op } = model.trace.requests;
  const [first = -1] = view.requests;
  return view.requests.every(
    (request) =>
      disk[request] === disk[first] && failed[request] === 0 && op[request] !== OP.DISCARD,
  );
}
