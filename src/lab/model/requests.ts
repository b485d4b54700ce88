import { FLAG, OP } from '../../block/io.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';

// What kind of request is this: said once for all parts of the model.

/** The event of the note 'begin': what comes before it is preparation. Null: there is none. */
export function beginOf(trace: Trace): number | null {
  const begin = trace.marks.find(({ kind, text }) => kind === 'note' && text === 'begin');
  return begin === undefined ? null : begin.event;
}

export function writesUnits(trace: Trace, request: number): boolean {
  const { op, length } = trace.requests;
  if ((length[request] as number) === 0) return false;
  const what = op[request];
  return what === OP.WRITE || what === OP.WRITE_ZEROES || what === OP.DISCARD;
}

/** A discard after which anything may be read [NBD proto "NBD_CMD_TRIM"]. It is never stable: nothing is promised. */
export function leavesAnything(trace: Trace, request: number): boolean {
  const { op, disk } = trace.requests;
  if (op[request] !== OP.DISCARD) return false;
  return trace.disks[disk[request] as number]?.discard === 'undefined';
}

/** Whether it can become stable at all. A failed write may be there or not, whatever is flushed. */
export function canBeStable(trace: Trace, request: number): boolean {
  return (
    trace.requests.failed[request] === 0 &&
    writesUnits(trace, request) &&
    !leavesAnything(trace, request)
  );
}

/** It completed without an error. */
export function succeeded(trace: Trace, request: number): boolean {
  const { failed, done } = trace.requests;
  return failed[request] === 0 && done[request] !== NEVER;
}

export function hasFlag(trace: Trace, request: number, flag: number): boolean {
  return ((trace.requests.flags[request] as number) & flag) !== 0;
}

/**
 * When a request begins to work: at its issue. A barrier waits until what was issued before it on its disk is done
 * [Io, FLAG.BARRIER]. Of a barrier that did not succeed nothing is assumed, and what was issued after it and is done
 * shows that it was not waiting any more.
 */
export function startsOf(trace: Trace, into: Int32Array): void {
  const { count, issued, done } = trace.requests;
  into.set(issued.subarray(0, count));
  let inFlight: number[] = [];
  for (let request = 0; request < count; request += 1) {
    const now = issued[request] as number;
    if (inFlight.length > 1024) inFlight = inFlight.filter((one) => (done[one] as number) > now);
    if (hasFlag(trace, request, FLAG.BARRIER) && succeeded(trace, request)) {
      inFlight = inFlight.filter((one) => (done[one] as number) > now);
      into[request] = startOfBarrier(trace, request, inFlight);
    }
    if (writesUnits(trace, request)) inFlight.push(request);
  }
}

function startOfBarrier(trace: Trace, barrier: number, inFlight: readonly number[]): number {
  const { count, issued, done, disk } = trace.requests;
  const end = done[barrier] as number;
  let start = issued[barrier] as number;
  for (const before of inFlight) {
    const isWaitedFor = disk[before] === disk[barrier] && (done[before] as number) < end;
    if (isWaitedFor) start = Math.max(start, done[before] as number);
  }
  for (let after = barrier + 1; after < count && (issued[after] as number) < end; after += 1) {
    if (disk[after] !== disk[barrier] || !writesUnits(trace, after)) continue;
    start = Math.min(start, (done[after] as number) - 1);
  }
  return start;
}
