import { assert } from '../../base/assert.ts';
import { OP } from '../../block/io.ts';
import type { Trace } from '../../trace/trace.ts';
import { TORN_ZEROES_BYTES } from './limits.ts';
import { writesUnits } from './requests.ts';
import { sharedFloats, sharedInts, type UnitTables } from './tables.ts';
import type { UnitPlace } from './types.ts';

/** Which bytes are which unit. */
export class UnitMap {
  readonly #tables: UnitTables;

  constructor(tables: UnitTables) {
    this.#tables = tables;
  }

  get count(): number {
    return this.#tables.unitCount;
  }

  place(unit: number): UnitPlace {
    const { runDisk, runStart, runUnitBytes, runFirst } = this.#tables;
    const run = this.#runOf(unit);
    const bytes = runUnitBytes[run] as number;
    const offset = (runStart[run] as number) + (unit - (runFirst[run] as number)) * bytes;
    return { disk: runDisk[run] as number, offset, bytes };
  }

  /** One past the last of the units that follow this one, without a gap and all of its size. */
  runEnd(unit: number): number {
    return this.#tables.runFirst[this.#runOf(unit) + 1] as number;
  }

  /** The run that holds a unit. */
  #runOf(unit: number): number {
    const { runFirst, unitCount } = this.#tables;
    assert(unit >= 0 && unit < unitCount, 'a unit that the trace does not write');
    let low = 0;
    let high = runFirst.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((runFirst[middle] as number) <= unit) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The unit that holds this byte, or -1. */
  unitAt(disk: number, offset: number): number {
    const { runFirst, runStart, runUnitBytes } = this.#tables;
    const run = this.#lastRunBegun(disk, offset);
    if (run < 0) return -1;
    const within = Math.floor((offset - (runStart[run] as number)) / (runUnitBytes[run] as number));
    const unit = (runFirst[run] as number) + within;
    return unit < (runFirst[run + 1] as number) ? unit : -1;
  }

  /** The last run of this disk that begins at or before this byte, or -1. */
  #lastRunBegun(disk: number, offset: number): number {
    const { runDisk, runStart } = this.#tables;
    let low = -1;
    let high = runDisk.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      const there = runDisk[middle] as number;
      if (there < disk || (there === disk && (runStart[middle] as number) <= offset)) low = middle;
      else high = middle;
    }
    return low >= 0 && runDisk[low] === disk ? low : -1;
  }
}

/** Runs while they are found. */
class RunList {
  readonly disks: number[] = [];
  readonly starts: number[] = [];
  readonly sizes: number[] = [];
  readonly firsts: number[] = [];
  count = 0;

  add(disk: number, start: number, bytes: number, units: number): void {
    if (units === 0) return;
    const last = this.disks.length - 1;
    const end =
      last < 0
        ? -1
        : (this.starts[last] as number) +
          (this.count - (this.firsts[last] as number)) * (this.sizes[last] as number);
    if (this.disks[last] !== disk || end !== start || this.sizes[last] !== bytes) {
      this.disks.push(disk);
      this.starts.push(start);
      this.sizes.push(bytes);
      this.firsts.push(this.count);
    }
    this.count += units;
  }

  tables(): UnitTables {
    const runs = this.disks.length;
    const runDisk = new Uint16Array(new SharedArrayBuffer(2 * runs));
    const runStart = sharedFloats(runs);
    const runUnitBytes = sharedFloats(runs);
    const runFirst = sharedInts(runs + 1);
    runDisk.set(this.disks);
    runStart.set(this.starts);
    runUnitBytes.set(this.sizes);
    runFirst.set(this.firsts);
    runFirst[runs] = this.count;
    return { unitCount: this.count, runDisk, runStart, runUnitBytes, runFirst };
  }
}

/**
 * Cuts what the trace writes into units: along a grid of `unitBytes`, and wherever a request begins or ends. Where there
 * are only large zeroes and discards the grid is left out: a mkfs would make a billion units of a disk.
 */
export function findUnits(trace: Trace, unitBytes: number): UnitTables {
  const runs = new RunList();
  for (const { number } of trace.disks) {
    const edges = edgesOf(trace, number);
    let [fine, coarse] = [0, 0];
    let before = 0;
    for (let at = 0; at < edges.length; at += 1) {
      const edge = edges[at] as Edge;
      if (edge.offset > before) {
        if (fine > 0) addGrid(runs, number, before, edge.offset, unitBytes);
        else if (coarse > 0) runs.add(number, before, edge.offset - before, 1);
      }
      before = edge.offset;
      fine += edge.fine;
      coarse += edge.coarse;
    }
  }
  return runs.tables();
}

interface Edge {
  readonly offset: number;
  /** How many ranges of either kind begin (positive) or end (negative) here. */
  readonly fine: number;
  readonly coarse: number;
}

/** Where ranges begin and end on one disk, ascending. Flushes of a range split units too: what they cover is whole. */
function edgesOf(trace: Trace, disk: number): Edge[] {
  const { requests } = trace;
  const edges: Edge[] = [];
  for (let request = 0; request < requests.count; request += 1) {
    if (requests.disk[request] !== disk) continue;
    const length = requests.length[request] as number;
    const isFlush = requests.op[request] === OP.FLUSH && length > 0;
    if (!isFlush && !writesUnits(trace, request)) continue;
    const isFine = requests.op[request] === OP.WRITE || length <= TORN_ZEROES_BYTES;
    const fine = isFine && !isFlush ? 1 : 0;
    const coarse = !isFine && !isFlush ? 1 : 0;
    const offset = requests.offset[request] as number;
    edges.push({ offset, fine, coarse }, { offset: offset + length, fine: -fine, coarse: -coarse });
  }
  return edges.toSorted((a, b) => a.offset - b.offset);
}

function addGrid(runs: RunList, disk: number, from: number, to: number, unitBytes: number): void {
  const up = Math.min(to, Math.ceil(from / unitBytes) * unitBytes);
  const down = Math.max(up, Math.floor(to / unitBytes) * unitBytes);
  if (up > from) runs.add(disk, from, up - from, 1);
  runs.add(disk, up, unitBytes, (down - up) / unitBytes);
  if (to > down) runs.add(disk, down, to - down, 1);
}
