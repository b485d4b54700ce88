import { assert, unreachable } from '../../base/assert.ts';
import { Prng } from '../../base/prng.ts';
import type { CutModel, CutReport } from './requests.ts';

// What a power cut leaves of a volatile cache: a pure function of what was in it, the model and the seed.
//
//   M0  A cache that keeps the order: the writes up to some moment, and none after it.
//   M1  Any of the writes, each as a whole.
//   M2  Every unit for itself: as it was at the last flush, or in any version since.
//   M3  As M2; and a unit that was being written may hold what nobody wrote.
//
// Each model allows what the one before does. All that a model allows can come out of it. Writes that have completed
// and writes that have not are alike to M0 to M2: neither was promised anything.

/** The unit stays as it was at the last flush. */
export const OLD = -1;
/** The unit holds what nobody wrote. */
export const GARBAGE = -2;

/** What is not stable. Units are in the order of their places on the disk, writes in the order of their arrival. */
export interface CutState {
  /** For each write, whether it had not completed. */
  readonly inFlight: readonly boolean[];
  /** For each unit the writes (as indices) that it has versions of, oldest first; at least one. */
  readonly units: readonly (readonly number[])[];
}

/** For each unit OLD, GARBAGE, or which of its versions survives: 0 is the oldest. */
export function decide(state: CutState, model: CutModel, seed: number): Int32Array {
  const prng = new Prng(seed);
  switch (model) {
    case 'M0':
      return prefix(state, prng);
    case 'M1':
      return wholeWrites(state, prng);
    case 'M2':
      return eachUnit(state, prng, false);
    case 'M3':
      return eachUnit(state, prng, true);
    default:
      return unreachable(model);
  }
}

function prefix({ inFlight, units }: CutState, prng: Prng): Int32Array {
  const end = prng.below(inFlight.length + 1);
  return Int32Array.from(units, (versions) => versions.findLastIndex((write) => write < end));
}

function wholeWrites({ inFlight, units }: CutState, prng: Prng): Int32Array {
  const rate = keepRate(prng, inFlight.length);
  const kept = inFlight.map(() => prng.chance(rate));
  return Int32Array.from(units, (versions) => versions.findLastIndex((write) => kept[write]));
}

function eachUnit({ inFlight, units }: CutState, prng: Prng, garbage: boolean): Int32Array {
  const rate = keepRate(prng, units.length);
  return Int32Array.from(units, (versions) => {
    const newest = versions.length - 1;
    const busy = garbage && versions.some((write) => inFlight[write]);
    if (busy && prng.chance(GARBAGE_RATE)) return GARBAGE;
    // OLD is one below the oldest version, so that all that are not the newest are drawn alike.
    return prng.chance(rate) ? newest : OLD + prng.below(versions.length);
  });
}

const GARBAGE_RATE = 0.25;

/**
 * How likely each of `count` things is to survive. Most bugs show when few of many are lost, or few of many kept, which
 * one rate for all cuts would never bring: half of the cuts lose or keep a number on a logarithmic scale.
 */
function keepRate(prng: Prng, count: number): number {
  const few = Math.max(1, count) ** -prng.float();
  // Never 0 or 1: whatever is allowed can happen.
  const rate = [prng.float(), prng.float(), few, 1 - few][prng.below(4)] as number;
  return Math.min(0.999, Math.max(0.001, rate));
}

/** The part of a report that follows from the choices. */
export function tally(
  { inFlight, units }: CutState,
  choices: Int32Array,
): Pick<CutReport, 'writes' | 'units' | 'kept' | 'dropped' | 'stale' | 'garbage' | 'torn'> {
  assert(choices.length === units.length, 'a choice for each unit');
  const count = { kept: 0, dropped: 0, stale: 0, garbage: 0 };
  // Of each write, whether a unit of it is there, and whether one is missing that no newer write has replaced.
  const there = new Uint8Array(inFlight.length);
  const missing = new Uint8Array(inFlight.length);
  for (const [i, versions] of units.entries()) {
    const choice = choices[i] as number;
    if (choice === GARBAGE) count.garbage += 1;
    else if (choice === OLD) count.dropped += 1;
    else if (choice === versions.length - 1) count.kept += 1;
    else count.stale += 1;
    for (const [at, write] of versions.entries()) {
      if (at === choice) there[write] = 1;
      else if (at > choice) missing[write] = 1;
    }
  }
  const torn = there.filter((one, write) => one === 1 && missing[write] === 1).length;
  return { writes: inFlight.length, units: units.length, ...count, torn };
}
