import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import type { Trace } from '../../trace/trace.ts';
import type { Verdict } from '../check/types.ts';
import type { Decide } from '../explore/types.ts';
import { openCrashModel } from '../model/crash-model.ts';
import { enumerateStates } from '../model/enumerate-states.ts';
import type { CrashModel, ModelName, StateSpec } from '../model/types.ts';
import { explainFinding } from './cause.ts';
import type { Cause } from './types.ts';

// A cause says which FLUSH would have made a failure impossible. Here it is sent: at every place of the trace in turn.

const BLOCK = 512;
const BLOCKS = 4;

type Event =
  | {
      readonly what: 'write';
      readonly disk: number;
      readonly block: number;
      readonly letter: number;
      readonly blocks: number;
    }
  | { readonly what: 'flush'; readonly disk: number }
  | { readonly what: 'done'; readonly request: number }
  | { readonly what: 'ack' };

/** Fails while one block is not as it was promised, though another one is as it is written afterwards. */
interface Rule {
  readonly missing: readonly (readonly [disk: number, block: number, letter: number])[];
  readonly there: readonly (readonly [disk: number, block: number, letter: number])[];
  readonly owed: boolean;
}

function build(events: readonly Event[], disks: number, flushAt = -1, flushOf = 0): Trace {
  const builder = new TraceBuilder({
    disks: Array.from({ length: disks }, () => ({ sizeBytes: BLOCKS * BLOCK })),
  });
  const numbers: number[] = [];
  for (const [at, event] of events.entries()) {
    if (at === flushAt) builder.flushed({ disk: flushOf });
    if (event.what === 'write') {
      const { disk, block, letter, blocks } = event;
      const range = { offset: block * BLOCK, length: blocks * BLOCK };
      numbers.push(builder.write({ disk, ...range, data: letter }));
    } else if (event.what === 'flush') numbers.push(builder.flush({ disk: event.disk }));
    else if (event.what === 'done') builder.done(numbers[event.request] as number);
    else builder.mark('ack', 'promise');
  }
  return builder.trace();
}

function randomEvents(prng: Prng, disks: number): Event[] {
  const events: Event[] = [];
  const inFlight: number[] = [];
  let issued = 0;
  const ackAfter = 2 + prng.below(4);
  while (issued < 7 || inFlight.length > 0) {
    if (issued < 7 && (inFlight.length === 0 || prng.chance(0.5))) {
      const disk = prng.below(disks);
      const block = prng.below(BLOCKS);
      const blocks = 1 + prng.below(Math.min(2, BLOCKS - block));
      const isFlush = issued === 0 || prng.chance(0.1);
      events.push(
        isFlush ? { what: 'flush', disk } : { what: 'write', disk, block, letter: issued, blocks },
      );
      inFlight.push(issued);
      issued += 1;
      if (issued === ackAfter) events.push({ what: 'ack' });
    } else {
      const [request] = inFlight.splice(prng.below(inFlight.length), 1);
      events.push({ what: 'done', request: request as number });
    }
  }
  return events;
}

function verdictOf(model: CrashModel, state: StateSpec, rule: Rule): Verdict {
  const letter = (disk: number, block: number): number => {
    const unit = model.unitAt(disk, block * BLOCK);
    const byte = new Uint8Array(1);
    if (unit >= 0) model.readVersion(model.versionIn(state, unit), 0, byte);
    return byte[0] as number;
  };
  const isMissing = rule.missing.every(([disk, block, it]) => letter(disk, block) !== it);
  const isThere = rule.there.every(([disk, block, it]) => letter(disk, block) === it);
  const isOwed = !rule.owed || (model.cuts[state.cut]?.marks ?? 0) > 0;
  return isMissing && isThere && isOwed
    ? { outcome: 'fail', axis: rule.owed ? 'durability' : 'integrity', class: 'toy', detail: '' }
    : { outcome: 'pass', axis: null, class: '', detail: '' };
}

function failing(model: CrashModel, rule: Rule): StateSpec | null {
  for (const { index } of model.cuts.toReversed()) {
    for (const state of enumerateStates(model, index)) {
      if (verdictOf(model, state, rule).outcome === 'fail') return state;
    }
  }
  return null;
}

function open(trace: Trace, name: ModelName): CrashModel {
  return openCrashModel(trace, { model: name, unitBytes: BLOCK, overlap: 'issued', poison: false });
}

/** Whether it can fail with one more FLUSH before an event. */
function canFail(
  events: readonly Event[],
  disks: number,
  rule: Rule,
  name: ModelName,
  flushAt: number,
  flushOf: number,
): boolean {
  return failing(open(build(events, disks, flushAt, flushOf), name), rule) !== null;
}

function explain(model: CrashModel, state: StateSpec, rule: Rule): Promise<Cause> {
  const decide: Decide = (one) => {
    assert.equal(model.whyIllegal(one), null);
    return Promise.resolve(verdictOf(model, one, rule));
  };
  const verdict = verdictOf(model, state, rule);
  const finding = {
    verdict,
    checker: 'toy',
    state,
    id: '',
    rung: 'ends',
    count: 1,
    others: [],
  } as const;
  return explainFinding(model, finding, decide, { mostStates: 2000, describe: null });
}

function randomRule(prng: Prng, events: readonly Event[]): Rule | null {
  const writes = events.filter((event) => event.what === 'write');
  const places = new Map(
    writes.flatMap(({ disk, block, letter, blocks }) =>
      Array.from({ length: blocks }, (_, i) => {
        const place = [disk, block + i, letter] as const;
        return [`${disk} ${block + i}`, place] as const;
      }),
    ),
  );
  const last = [...places.values()];
  const some = (count: number): typeof last =>
    Array.from({ length: Math.min(count, last.length) }, () =>
      last.splice(prng.below(last.length), 1),
    ).flat();
  const missing = some(1 + prng.below(2));
  const there = some(prng.below(2));
  return missing.length === 0 ? null : { missing, there, owed: prng.chance(0.5) };
}

for (const name of ['M0', 'M1', 'M2'] as const) {
  test(`${name}: a FLUSH at the proposed place makes the failure impossible, at others it does not`, async () => {
    let [inside, outside] = [0, 0];
    for (let seed = 1; seed <= 400; seed += 1) {
      const prng = new Prng(seed);
      const disks = prng.chance(0.3) ? 2 : 1;
      const events = randomEvents(prng, disks);
      const rule = randomRule(prng, events);
      if (rule === null) continue;
      const trace = build(events, disks);
      const model = open(trace, name);
      const state = failing(model, rule);
      if (state === null) continue;
      const cause = await explain(model, state, rule);
      const what = `seed ${seed}, ${JSON.stringify(rule)}, ${cause.sentence}`;
      assert.equal(verdictOf(model, cause.state, rule).outcome, 'fail', what);
      const gap = cause.whatIf.find(({ afterEvent, beforeEvent }) => afterEvent < beforeEvent);
      for (let at = 0; at <= events.length; at += 1) {
        for (let disk = 0; disk < disks; disk += 1) {
          const isInside =
            gap !== undefined &&
            at > gap.afterEvent &&
            at <= gap.beforeEvent &&
            (disks === 1 || gap.words.includes(`of disk${disk}`));
          const can = canFail(events, disks, rule, name, at, disk);
          if (isInside) assert.ok(!can, `${what}: ${gap.words}, at ${at}`);
          if (isInside) inside += 1;
          else if (disks === 1 && rule.missing.length === 1) {
            assert.ok(can, `${what}: ${gap?.words ?? 'nothing helps'}, but at ${at} it does`);
            outside += 1;
          }
        }
      }
    }
    assert.ok(inside > 50 && outside > 50, `${inside} inside, ${outside} outside`);
  });
}
