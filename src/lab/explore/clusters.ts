import { FLAG } from '../../block/io.ts';
import type { CrashModel, CutView } from '../model/types.ts';
import type { ImageHistory } from './image-history.ts';
import { laneHash } from './key-table.ts';

// A workload that does the same again and again gives cuts of the same shape. Where the budget is short, one of each
// shape is looked at before the others.

/** The last cut of each shape, and all others; both as `cuts` has them, from the last to the first. */
export function byShape(
  history: ImageHistory,
  cuts: readonly number[],
): { representatives: number[]; others: number[] } {
  const representatives: number[] = [];
  const others: number[] = [];
  const seen = new Set<string>();
  for (const cut of cuts) {
    const shape = shapeOf(history.model, history.view(cut));
    (seen.has(shape) ? others : representatives).push(cut);
    seen.add(shape);
  }
  return { representatives, others };
}

/**
 * What the open requests look like from afar: operation, FUA, disk, length, done or in flight, and where each is: right
 * behind the one before, at the place of an earlier one, or elsewhere.
 */
export function shapeOf(model: CrashModel, view: CutView): string {
  const { op, flags, disk, offset, length, done } = model.trace.requests;
  const places = new Map<string, number>();
  let [a, b, end] = [0, 0, -1];
  const add = (value: number): void => {
    a = laneHash(a, value, 0);
    b = laneHash(b, value, 1);
  };
  for (const [i, request] of view.requests.entries()) {
    const at = offset[request] as number;
    const place = `${disk[request]} ${at}`;
    const earlier = places.get(place);
    add(op[request] as number);
    add((flags[request] as number) & FLAG.FUA);
    add(disk[request] as number);
    add(length[request] as number);
    add((done[request] as number) < view.cut.event ? 1 : 0);
    add(earlier === undefined ? (at === end ? -1 : -2) : i - earlier);
    places.set(place, i);
    end = at + (length[request] as number);
  }
  return `${view.cut.why} ${view.requests.length} ${a} ${b}`;
}
