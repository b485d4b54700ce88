import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { discard, read, write, writeZeroes } from '../../block/await.ts';
import type { BlockDevice } from '../../block/device.ts';
import type { Trace } from '../../trace/trace.ts';
import type { CheckerPool, Run, Verdict } from '../check/types.ts';
import { openCrashModel } from '../model/crash-model.ts';
import { beginOf } from '../model/requests.ts';
import { parseStateId } from '../model/state-id.ts';
import { factsOf, imagesAt, randomTrace, SECTOR, SECTORS } from '../model/testing.ts';
import type { CrashModel, ModelName, ModelOptions, StateSpec } from '../model/types.ts';
import { openStateDisks, type StateDisks } from '../state-device/state-device.ts';
import { RequestTree, UnitTree } from './decisions.ts';
import { explore } from './explore.ts';
import { ImageHistory } from './image-history.ts';
import { Judge } from './judge.ts';
import { exploreReads } from './read-guided.ts';
import { Tally } from './tally.ts';
import { failAs, optionsFor, passAs, QUIET } from './testing.ts';
import type { Exploration } from './types.ts';
import { kindOf } from './verdict-book.ts';

// The whole explorer, over the real devices of states, against brute force: toy recovery programs made at random look at
// all images that the definition of the model allows at any instant. What they find must be what the explorer finds.

/** More of them were tried; these take a few seconds. */
const SEEDS = 120;

/** What a toy sees of the disks: sectors of one byte each. All of it works without waiting for anything. */
interface Sectors {
  readonly disks: number;
  /** Several ranges, asked for together. */
  read(
    ranges: readonly (readonly [disk: number, from: number, count: number])[],
  ): Promise<number[]>;
  change(disk: number, from: number, count: number, byte: number): Promise<void>;
}

type Toy = (sectors: Sectors, acks: number) => Promise<Verdict>;

/**
 * What it does next depends on what it has read: it reads one range or several at once, writes, writes zeroes, and reads
 * again, its own data too. With acks, it passes fewer states the more was acknowledged.
 */
function randomToy(seed: number, usesAcks: boolean): Toy {
  return async (sectors, acks) => {
    const { disks } = sectors;
    let state = seed;
    const range = (prng: Prng): readonly [number, number, number] => {
      const from = prng.below(SECTORS);
      return [prng.below(disks), from, 1 + prng.below(SECTORS - from)];
    };
    const steps = 1 + new Prng(seed).below(5);
    for (let step = 0; step < steps; step += 1) {
      const prng = new Prng(state);
      if (prng.chance(0.4)) await sectors.change(...range(prng), prng.below(4));
      const ranges = Array.from({ length: prng.chance(0.3) ? 2 : 1 }, () => range(prng));
      for (const byte of await sectors.read(ranges)) state = (state * 31 + byte + 1) % 2 ** 30;
    }
    const [byte = 0] = usesAcks ? await sectors.read([[0, 0, 1]]) : [];
    if (usesAcks && acks > byte) return { ...failAs('lost'), axis: 'durability' };
    const which = new Prng(state).below(6);
    return which < 4 ? passAs(`p${which}`) : failAs(`f${which}`);
  };
}

function onDevices(devices: readonly BlockDevice[]): Sectors {
  return {
    disks: devices.length,
    read: async (ranges) => {
      const found = await Promise.all(
        ranges.map(([disk, from, count]) =>
          read(devices[disk] as BlockDevice, from * SECTOR, count * SECTOR),
        ),
      );
      return found.flatMap((bytes) =>
        Array.from({ length: bytes.length / SECTOR }, (_, i) => bytes[i * SECTOR] as number),
      );
    },
    change: async (disk, from, count, byte) => {
      const device = devices[disk] as BlockDevice;
      const [offset, length] = [from * SECTOR, count * SECTOR];
      if (byte === 0) await discard(device, offset, length);
      else if (byte === 1) await writeZeroes(device, offset, length);
      else await write(device, offset, new Uint8Array(length).fill(byte));
    },
  };
}

/** An image as the definition writes it: a number for each sector of each disk, each with a comma behind it. */
function onImage(image: string): Sectors {
  const bytes = image.split(',').slice(0, -1).map(Number);
  return {
    disks: bytes.length / SECTORS,
    read: async (ranges) =>
      ranges.flatMap(([disk, from, count]) =>
        bytes.slice(disk * SECTORS + from, disk * SECTORS + from + count),
      ),
    change: async (disk, from, count, byte) => {
      const at = disk * SECTORS + from;
      bytes.fill(byte < 2 ? 0 : byte, at, at + count);
    },
  };
}

/** A pool without threads. */
class ToyPool implements CheckerPool {
  readonly checkerName = 'toy';
  readonly usesAcks: boolean;
  readonly seesReads: boolean;
  readonly jobs: number;
  readonly batch: number;
  readonly #model: CrashModel;
  readonly #disks: StateDisks;
  readonly #toy: Toy;
  #last: Promise<unknown> = Promise.resolve();

  constructor(model: CrashModel, toy: Toy, prng: Prng, usesAcks: boolean) {
    this.#model = model;
    this.#toy = toy;
    this.usesAcks = usesAcks;
    this.seesReads = prng.chance(0.8);
    this.jobs = 1 + prng.below(3);
    this.batch = prng.pick([1, 3, 64]);
    this.#disks = openStateDisks(model, this.seesReads);
  }

  run(states: readonly StateSpec[]): Promise<readonly Run[]> {
    const runs = this.#last.then(() => this.#runAll(states));
    this.#last = runs;
    return runs;
  }

  async close(): Promise<void> {
    await this.#disks.close();
  }

  async #runAll(states: readonly StateSpec[]): Promise<Run[]> {
    const runs: Run[] = [];
    for (const state of states) {
      assert.equal(this.#model.whyIllegal(state), null);
      this.#disks.shown.show(state);
      const acks = acksBefore(this.#model.trace, this.#model.cuts[state.cut]?.event ?? 0);
      const verdict = await this.#toy(onDevices(this.#disks.devices), acks);
      runs.push({ verdict, reads: this.#disks.shown.reads(), durationMs: 0 });
    }
    return runs;
  }
}

function acksBefore({ marks }: Trace, event: number): number {
  return marks.filter((mark) => mark.kind === 'ack' && mark.event < event).length;
}

/** Kinds of verdicts over all images: at any instant, and at the last one of each, where most is owed. */
async function kindsInTruth(
  trace: Trace,
  options: ModelOptions,
  toy: Toy,
): Promise<{ ever: Set<string>; strictest: Set<string> }> {
  const facts = factsOf(trace, options);
  const kindsOfImages = new Map<string, string>();
  const ever = new Set<string>();
  // Earlier ones are nobody's concern.
  const begin = beginOf(trace) ?? -1;
  for (let t = begin + 1; t <= trace.events; t += 1) {
    for (const image of imagesAt(facts, t)) {
      const kind = kindOf(await toy(onImage(image), acksBefore(trace, t)));
      ever.add(kind);
      kindsOfImages.set(image, kind);
    }
  }
  return { ever, strictest: new Set(kindsOfImages.values()) };
}

function kindsOf({ findings, passes }: Exploration): string[] {
  const good = Object.keys(passes).map((name) => kindOf(passAs(name)));
  return [...good, ...findings.map(({ verdict }) => kindOf(verdict))];
}

async function compare(seed: number, name: ModelName): Promise<boolean> {
  const prng = new Prng(seed);
  const trace = randomTrace(prng);
  const options: ModelOptions = {
    model: name,
    unitBytes: prng.pick([512, 512, 1024]),
    overlap: prng.pick(['issued', 'issued', 'any'] as const),
    poison: false,
  };
  const usesAcks = prng.chance(0.4);
  const toy = randomToy(1 + seed, usesAcks);
  const model = openCrashModel(trace, options);
  const pool = new ToyPool(model, toy, prng, usesAcks);
  try {
    const end = model.cuts.length - 1;
    const [final] = await pool.run([{ cut: end, rule: { kind: 'all' } }]);
    const isGood = final?.verdict.outcome === 'pass' || final?.verdict.axis === 'durability';
    if (!isGood) return false;
    const found = await explore(model, pool, optionsFor(model), QUIET);
    const what = `seed ${seed}, ${JSON.stringify(options)}, acks ${usesAcks}`;
    assert.equal(found.ended, 'covered', what);
    const isOpen = found.coverage.find(
      ({ reached }) => reached !== 'exact' && reached !== 'left-out',
    );
    assert.equal(isOpen, undefined, what);
    const truth = await kindsInTruth(trace, options, toy);
    const kinds = new Set(kindsOf(found));
    assert.deepEqual(
      [...truth.strictest].filter((kind) => !kinds.has(kind)),
      [],
      what,
    );
    assert.deepEqual(
      [...kinds].filter((kind) => !truth.ever.has(kind)),
      [],
      what,
    );
    for (const { verdict, id, others } of found.findings) {
      for (const shown of [id, ...others]) {
        const [again] = await pool.run([parseStateId(shown).state]);
        assert.equal(kindOf(again?.verdict as Verdict), kindOf(verdict), `${what}: ${shown}`);
      }
    }
    return true;
  } finally {
    await pool.close();
    trace.close();
  }
}

/** Each cut by reads alone, however few its states are. */
async function compareGuided(seed: number, name: ModelName): Promise<number> {
  const prng = new Prng(seed);
  const trace = randomTrace(prng);
  const unitBytes = prng.pick([512, 1024]);
  const options: ModelOptions = { model: name, unitBytes, overlap: 'issued', poison: false };
  const usesAcks = prng.chance(0.4);
  const toy = randomToy(1 + seed, usesAcks);
  const model = openCrashModel(trace, options);
  const pool = new ToyPool(model, toy, prng, usesAcks);
  if (!pool.seesReads) return 0;
  const facts = factsOf(trace, options);
  const judge = new Judge(
    new ImageHistory(model),
    pool,
    new Tally(model.cuts.length),
    QUIET.interrupted,
  );
  let found = 0;
  for (const { index, event } of model.cuts.toReversed()) {
    const truth = new Set<string>();
    for (const image of imagesAt(facts, event)) {
      truth.add(kindOf(await toy(onImage(image), acksBefore(trace, event))));
    }
    const view = judge.images.moveTo(index);
    const { placeOf } = judge.images;
    const Tree = name === 'M1' ? RequestTree : UnitTree;
    const kinds = new Set<string>();
    judge.ask = (rule, rung, answer) => {
      Judge.prototype.ask.call(judge, rule, rung, (reads, kind) => {
        kinds.add(kindOf(judge.book.kind(kind).verdict));
        answer(reads, kind);
      });
    };
    const outcome = await exploreReads(judge, new Tree(model, view, placeOf), {
      jobs: pool.jobs,
      stopped: () => false,
      spent: () => false,
      pace: async () => {},
    });
    const what = `seed ${seed}, ${JSON.stringify(options)}, acks ${usesAcks}, cut ${index}`;
    assert.deepEqual(outcome, { exact: true, note: null }, what);
    assert.deepEqual([...kinds].toSorted(), [...truth].toSorted(), what);
    found += truth.size;
  }
  await pool.close();
  trace.close();
  return found;
}

for (const name of ['M0', 'M1', 'M2', 'L'] as const) {
  test(`${name}: what exploring finds is what brute force finds`, async () => {
    let compared = 0;
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      if (await compare(seed, name)) compared += 1;
    }
    assert.ok(compared > SEEDS / 3, `${compared} compared`);
  });
}

for (const name of ['M1', 'M2'] as const) {
  test(`${name}: what is found by reads alone is what brute force finds, cut by cut`, async () => {
    let found = 0;
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      found += await compareGuided(seed, name);
    }
    assert.ok(found > SEEDS, `${found} kinds`);
  });
}
