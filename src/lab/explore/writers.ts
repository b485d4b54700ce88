import type { CrashModel, CutView } from '../model/types.ts';

/** The open requests that wrote each open unit of a cut, newest first: what a unit holds is the newest one that is there. */
export interface Writers {
  /** Writers of `view.units[i]`: requests[first[i]] to requests[first[i + 1] - 1]. */
  readonly first: Int32Array;
  readonly requests: Int32Array;
}

export function writersOf(model: CrashModel, view: CutView): Writers {
  const count = view.units.length;
  const first = new Int32Array(count + 1);
  eachWriter(model, view, (_request, place) => {
    first[place + 1] = (first[place + 1] as number) + 1;
  });
  for (let i = 0; i < count; i += 1) first[i + 1] = (first[i + 1] as number) + (first[i] as number);
  const requests = new Int32Array(first[count] as number);
  const next = first.slice(1);
  // Requests come oldest first, and each unit's list is filled from its end.
  eachWriter(model, view, (request, place) => {
    const at = (next[place] as number) - 1;
    requests[at] = request;
    next[place] = at;
  });
  return { first, requests };
}

/** Requests begin and end where units do, so that each wrote whole units. */
function eachWriter(
  model: CrashModel,
  view: CutView,
  see: (request: number, place: number) => void,
): void {
  const { disk, offset, length } = model.trace.requests;
  for (const request of view.requests) {
    const on = disk[request] as number;
    const from = offset[request] as number;
    const last = model.unitAt(on, from + (length[request] as number) - 1);
    let place = lowerBound(view.units, model.unitAt(on, from));
    for (; place < view.units.length && (view.units[place] as number) <= last; place += 1) {
      see(request, place);
    }
  }
}

/** The first place in an ascending array whose value is not below `value`. */
function lowerBound(array: Int32Array, value: number): number {
  let low = 0;
  let high = array.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((array[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
