import type { BuiltModel } from './built-model.ts';
import { enumerateStates, survivors } from './enumerate-states.ts';

/**
 * How many different images all cuts together have, or null where that takes listing more than `limit` states. Under M2,
 * M3 and L a product is enough, unless a unit gets back a content that it cannot have had in between.
 */
export function countStates(model: BuiltModel, limit: number): bigint | null {
  const { model: name } = model.options;
  if (name !== 'M0' && name !== 'M1' && !contentsReturn(model)) return sumOfProducts(model);
  return listed(model, limit);
}

/** Each state is counted at the last cut where it may be: all states there but those of the next cut too. */
function sumOfProducts(model: BuiltModel): bigint {
  let total = 0n;
  for (const { index } of model.cuts) {
    const view = model.view(index);
    total += view.plainCount;
    if (index + 1 === model.cuts.length) break;
    const stays = survivors(model, index);
    let both = 1n;
    for (let at = 0; at < view.units.length; at += 1) {
      let count = 0;
      for (let i = view.first[at] as number; i < (view.first[at + 1] as number); i += 1) {
        count += stays[i] as number;
      }
      both *= BigInt(count);
    }
    total -= both;
  }
  return total;
}

function listed(model: BuiltModel, limit: number): bigint | null {
  const seen = new Set<string>();
  const image = new Int32Array(model.unitCount);
  let listedStates = 0;
  for (const { index } of model.cuts) {
    const view = model.view(index);
    const chosen = new Int32Array(view.units.length);
    for (let unit = 0; unit < image.length; unit += 1) {
      image[unit] = model.contentOf(model.maker.newest(unit, index));
    }
    for (const { rule } of enumerateStates(model, index)) {
      listedStates += 1;
      if (listedStates > limit) return null;
      model.choose(view, rule, chosen);
      for (let at = 0; at < chosen.length; at += 1) {
        image[view.units[at] as number] = model.contentOf(chosen[at] as number);
      }
      seen.add(image.join());
    }
  }
  return BigInt(seen.size);
}

/** Whether some unit may hold a content at two cuts but not at one between them. */
function contentsReturn(model: BuiltModel): boolean {
  const { requests, versions } = model.tables;
  const { firstOf, writer, lastCut } = versions;
  /** The last cut at which a content was seen to be possible. */
  const until = new Map<number, number>();
  for (let unit = 0; unit + 1 < firstOf.length; unit += 1) {
    until.clear();
    const end = firstOf[unit + 1] as number;
    for (let version = firstOf[unit] as number; version < end; version += 1) {
      const request = writer[version] as number;
      const born = request < 0 ? 0 : (requests.bornAt[request] as number);
      const last = lastCut[version] as number;
      if (born > last) continue;
      const content = model.contentOf(version);
      const before = until.get(content);
      if (before !== undefined && born > before + 1) return true;
      until.set(content, Math.max(before ?? -1, last));
    }
  }
  return false;
}
