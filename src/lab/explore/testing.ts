import { assert } from '../../base/assert.ts';
import { Prng } from '../../base/prng.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import type { Trace } from '../../trace/trace.ts';
import type { CheckerPool, Run, Verdict } from '../check/types.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import type { ExploreOptions } from './types.ts';

// For tests of the explorer: traces at random, and a pool whose checker is a function of what it reads.

/** What a checker of a test may do with a state: units by number; it sees contents as numbers. */
export interface FakeDisk {
  read(unit: number): number;
  write(unit: number): void;
  /** Marks made before the cut. */
  readonly marks: number;
  readonly state: StateSpec;
}

export type FakeCheck = (disk: FakeDisk) => Verdict;

export const PASS: Verdict = { outcome: 'pass', axis: null, class: '', detail: '' };

export function passAs(name: string): Verdict {
  return { ...PASS, class: name };
}

export function failAs(name: string): Verdict {
  return { outcome: 'fail', axis: 'integrity', class: name, detail: `broken: ${name}` };
}

/** A pool that answers from one function, a turn of the event loop later. */
export class FakePool implements CheckerPool {
  readonly checkerName: string = 'fake';
  readonly usesAcks: boolean;
  readonly seesReads: boolean;
  readonly jobs: number;
  readonly batch: number;
  /** All states that were run. */
  readonly ran: StateSpec[] = [];
  readonly #model: CrashModel;
  readonly #check: FakeCheck;

  constructor(
    model: CrashModel,
    check: FakeCheck,
    options: Partial<Pick<CheckerPool, 'usesAcks' | 'seesReads' | 'jobs' | 'batch'>> = {},
  ) {
    this.#model = model;
    this.#check = check;
    this.usesAcks = options.usesAcks ?? false;
    this.seesReads = options.seesReads ?? false;
    this.jobs = options.jobs ?? 2;
    this.batch = options.batch ?? 4;
  }

  async run(states: readonly StateSpec[]): Promise<readonly Run[]> {
    await new Promise(setImmediate);
    return states.map((state) => this.#judge(state));
  }

  async close(): Promise<void> {}

  #judge(state: StateSpec): Run {
    this.ran.push(state);
    const model = this.#model;
    assert(model.whyIllegal(state) === null, model.whyIllegal(state) ?? '');
    const reads: number[] = [];
    const written = new Set<number>();
    const verdict = this.#check({
      marks: model.cuts[state.cut]?.marks ?? 0,
      state,
      read(unit) {
        if (written.has(unit)) return -1;
        if (!reads.includes(unit)) reads.push(unit);
        return model.contentOf(model.versionIn(state, unit));
      },
      write: (unit) => written.add(unit),
    });
    return { verdict, reads: this.seesReads ? Int32Array.from(reads) : null, durationMs: 0 };
  }
}

/** A trace of writes, flushes and FUA of all lengths, done in any order, over a few blocks. */
export function randomTrace(prng: Prng, requests: number, blocks: number): Trace {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: blocks * 512 }] });
  const inFlight: number[] = [];
  for (let i = 0; i < requests; i += 1) {
    const length = 1 + prng.below(Math.min(3, blocks));
    const range = { offset: prng.below(blocks - length + 1) * 512, length: length * 512 };
    const what = prng.below(10);
    if (what === 0) inFlight.push(builder.flush());
    else if (what === 1) inFlight.push(builder.zeroes(range));
    else inFlight.push(builder.write({ ...range, data: 1 + prng.below(250), fua: what === 2 }));
    while (inFlight.length > 0 && prng.chance(0.6)) {
      builder.done(inFlight.splice(prng.below(inFlight.length), 1)[0] as number);
    }
    if (prng.chance(0.15)) builder.mark('ack', `${i}`);
  }
  return builder.trace();
}

/**
 * A deterministic checker made at random: what it reads next depends on what it has read, and now and then it
 * overwrites.
 */
export function randomCheck(seed: number, units: number, reads: number): FakeCheck {
  return (disk) => {
    let state = seed;
    for (let i = 0; i < reads; i += 1) {
      const prng = new Prng(state);
      if (prng.chance(0.2)) disk.write(prng.below(units));
      state = prng.below(2 ** 30) * 64 + ((disk.read(prng.below(units)) + 1) & 63);
    }
    const which = new Prng(state).below(6);
    return which < 4 ? passAs(`p${which}`) : failAs(`f${which}`);
  };
}

export const QUIET = { progress: (): void => {}, interrupted: new AbortController().signal };

export function optionsFor(
  model: CrashModel,
  options: Partial<ExploreOptions> = {},
): ExploreOptions {
  return {
    tracePath: model.trace.path,
    model: model.options,
    checker: { kind: 'fake', options: {}, timeoutMs: 1000 },
    jobs: 2,
    budgetMs: 60_000,
    seed: 1,
    readGuided: true,
    checkBase: false,
    progressPath: null,
    ...options,
  };
}
