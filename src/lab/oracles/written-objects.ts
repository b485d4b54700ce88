import { OP } from '../../block/io.ts';
import type { Trace } from '../../trace/trace.ts';
import { canBeStable } from '../model/requests.ts';

/** What was written without a gap and without a flush in between. */
export interface WrittenObjects {
  readonly count: number;
  /** For each request the object that it is a part of; -1: of none. */
  readonly of: Int32Array;
  /** For people: where, and by how many requests. */
  describe(object: number): string;
}

interface WrittenObject {
  readonly disk: number;
  readonly first: number;
  readonly start: number;
  end: number;
  requests: number;
}

/**
 * Joins requests to objects. One that touches what its disk's last object covers, or follows it, continues it; a flush,
 * a write that is to be stable by itself (FUA), or a gap ends it. What failed is no part of any: it may be there or not.
 */
export function findObjects(trace: Trace): WrittenObjects {
  const { count, op, disk, offset, length, flags } = trace.requests;
  const of = new Int32Array(count).fill(-1);
  const objects: WrittenObject[] = [];
  const open = new Map<number, number>();
  for (let request = 0; request < count; request += 1) {
    const on = disk[request] as number;
    if (op[request] === OP.FLUSH) open.delete(on);
    if (!canBeStable(trace, request)) continue;
    const start = offset[request] as number;
    const end = start + (length[request] as number);
    const alone = (flags[request] as number) !== 0;
    const number = open.get(on);
    const last = number === undefined ? undefined : objects[number];
    if (number !== undefined && last !== undefined && !alone && touches(last, start, end)) {
      last.end = Math.max(last.end, end);
      last.requests += 1;
      of[request] = number;
    } else {
      of[request] = objects.push({ disk: on, first: request, start, end, requests: 1 }) - 1;
      if (alone) open.delete(on);
      else open.set(on, objects.length - 1);
    }
  }
  return {
    count: objects.length,
    of,
    describe: (object) => {
      const found = objects[object];
      if (found === undefined) return '';
      const name = trace.disks[found.disk]?.name ?? String(found.disk);
      const by =
        found.requests === 1
          ? `request ${found.first}`
          : `${found.requests} requests from ${found.first} on`;
      return `${name}: ${found.end - found.start} bytes at ${found.start}, by ${by}`;
    },
  };
}

/** Only forward: what is written before an object's start is another one. */
function touches(object: WrittenObject, start: number, end: number): boolean {
  return start >= object.start && start <= object.end && end >= object.start;
}
