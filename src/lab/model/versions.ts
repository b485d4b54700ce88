import { assert } from '../../base/assert.ts';
import { ConfigError } from '../../base/errors.ts';
import type { Trace } from '../../trace/trace.ts';
import { MAX_VERSIONS } from './limits.ts';
import { writesUnits } from './requests.ts';
import { FOREVER, sharedInts, type UnitTables, type VersionTables } from './tables.ts';
import { UnitMap } from './unit-map.ts';

/** Which units each request wrote, and the versions of each unit in the order of issue. */
export function findVersions(
  trace: Trace,
  units: UnitTables,
): { unitFrom: Int32Array; unitTo: Int32Array; versions: VersionTables } {
  const { count } = trace.requests;
  // Before units are numbered in 31 bits, and before there is memory for each.
  checkVersions(trace, units.unitCount);
  const unitFrom = sharedInts(count);
  const unitTo = sharedInts(count);
  const writers = findRanges(trace, new UnitMap(units), unitFrom, unitTo);
  const total = units.unitCount + writers;
  checkVersions(trace, total);
  const firstOf = sharedInts(units.unitCount + 1);
  for (let request = 0; request < count; request += 1) {
    for (let unit = unitFrom[request] as number; unit < (unitTo[request] as number); unit += 1) {
      firstOf[unit + 1] = (firstOf[unit + 1] as number) + 1;
    }
  }
  for (let unit = 0; unit < units.unitCount; unit += 1) {
    firstOf[unit + 1] = (firstOf[unit + 1] as number) + (firstOf[unit] as number) + 1;
  }
  const writer = sharedInts(total, -1);
  const next = firstOf.slice();
  for (let request = 0; request < count; request += 1) {
    for (let unit = unitFrom[request] as number; unit < (unitTo[request] as number); unit += 1) {
      const version = (next[unit] as number) + 1;
      writer[version] = request;
      next[unit] = version;
    }
  }
  const versions = {
    firstOf,
    writer,
    lastCut: sharedInts(total, FOREVER),
    hash: sharedInts(total),
    content: sharedInts(total, -1),
  };
  return { unitFrom, unitTo, versions };
}

function checkVersions({ path }: Trace, total: number): void {
  if (total <= MAX_VERSIONS) return;
  throw new ConfigError(
    `${path} has ${total} versions of units or more, and ${MAX_VERSIONS} is the most`,
    'record less, or take larger units',
  );
}

/** The number of pairs of a request and a unit that it wrote. */
function findRanges(trace: Trace, map: UnitMap, unitFrom: Int32Array, unitTo: Int32Array): number {
  const { count, disk, offset, length } = trace.requests;
  let writers = 0;
  for (let request = 0; request < count; request += 1) {
    if (!writesUnits(trace, request)) continue;
    const on = disk[request] as number;
    const from = offset[request] as number;
    const first = map.unitAt(on, from);
    const last = map.unitAt(on, from + (length[request] as number) - 1);
    assert(first >= 0 && last >= first, 'a request outside the units');
    unitFrom[request] = first;
    unitTo[request] = last + 1;
    writers += last + 1 - first;
  }
  return writers;
}
