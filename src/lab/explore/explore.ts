import type { CheckerPool } from '../check/types.ts';
import { stateId } from '../model/state-id.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { byShape } from './clusters.ts';
import { coverageOf, firstCut } from './coverage.ts';
import { type DecisionTree, RequestTree, UnitTree } from './decisions.ts';
import { GRAIN, type Grain, isByRequests } from './grain.ts';
import { ImageHistory } from './image-history.ts';
import { Judge } from './judge.ts';
import { checkKnownEnds } from './known-ends.ts';
import {
  KNOWN_IN_A_ROW,
  LEAST_SHARE_MS,
  MAX_IMAGES,
  PROGRESS_MS,
  SAVE_MS,
  SAVE_SHARE,
} from './limits.ts';
import { loadProgress, saveProgress } from './progress-file.ts';
import { exploreReads } from './read-guided.ts';
import type { Family, Scene } from './rungs/family.ts';
import { FIRST, LADDER } from './rungs/ladder.ts';
import { randomRule } from './rungs/random.ts';
import { Tally } from './tally.ts';
import type { Exploration, ExploreOptions, Progress, Rung } from './types.ts';

export interface ExploreHooks {
  /** Every 200 ms. */
  progress(progress: Progress): void;
  /** When it fires, the exploration ends soon, with what it has found. */
  readonly interrupted: AbortSignal;
}

/**
 * Looks at the states that a power cut may leave, rung by rung of the ladder, until all are judged or the budget is used
 * up. Throws ConfigError when the checker does not pass what must pass, or the progress file is of another exploration.
 */
export async function explore(
  model: CrashModel,
  pool: CheckerPool,
  options: ExploreOptions,
  hooks: ExploreHooks,
): Promise<Exploration> {
  const explorer = new Explorer(model, pool, options, hooks);
  const timer = setInterval(() => explorer.tell(), PROGRESS_MS);
  try {
    return await explorer.run();
  } finally {
    clearInterval(timer);
  }
}

/** A random round makes at most and at least so many states of a cut. */
const MOST_ENERGY = 1024;
const LEAST_ENERGY = 4;
/** And at least so many batches, where a batch is more than one state. */
const ROUND_BATCHES = 4;

/** States are made for so long before others have a turn: signals, answers. */
const TURN_MS = 15;

class Explorer {
  readonly #model: CrashModel;
  readonly #pool: CheckerPool;
  readonly #options: ExploreOptions;
  readonly #hooks: ExploreHooks;
  readonly #grain: Grain;
  readonly #history: ImageHistory;
  readonly #tally: Tally;
  readonly #judge: Judge;
  readonly #identity: Readonly<Record<string, unknown>>;
  /** The first cut that is not left out. */
  readonly #from: number;
  /** Cuts whose states are all offered, if not all judged yet. */
  readonly #listed = new Set<number>();
  readonly #startMs = performance.now();
  #endsMs: number;
  #turnMs = 0;
  #savedMs = 0;
  #saveTookMs = 0;
  #rung: Rung = 'ends';
  /** When it was started. */
  #begun = { atMs: 0, states: 0, runs: 0 };
  /** At the last word of progress. */
  #told = this.#begun;

  constructor(model: CrashModel, pool: CheckerPool, options: ExploreOptions, hooks: ExploreHooks) {
    this.#model = model;
    this.#pool = pool;
    this.#options = options;
    this.#hooks = hooks;
    this.#grain = GRAIN[model.options.model];
    this.#history = new ImageHistory(model);
    this.#tally = new Tally(model.cuts.length);
    this.#judge = new Judge(this.#history, pool, this.#tally, hooks.interrupted);
    this.#from = firstCut(model);
    this.#endsMs = this.#startMs + options.budgetMs;
    this.#identity = {
      trace: model.trace.fingerprint,
      model: model.options,
      checker: options.checker,
      checkerName: pool.checkerName,
      seed: options.seed,
      readGuided: options.readGuided,
      checkBase: options.checkBase,
    };
  }

  async run(): Promise<Exploration> {
    const { progressPath, checkBase } = this.#options;
    if (progressPath !== null) loadProgress(progressPath, this.#identity, this.#judge);
    const { totals } = this.#tally;
    this.#endsMs -= totals.elapsedBeforeMs;
    this.#begun = { atMs: this.#startMs, states: totals.statesDecided, runs: totals.checkerRuns };
    this.#told = this.#begun;
    if (!totals.endsChecked) {
      totals.checkerRuns += await checkKnownEnds(this.#model, this.#pool, checkBase);
      totals.endsChecked = true;
    }
    // Now, not after an hour, it shows whether the file can be written.
    this.#save();
    const ended = await this.#climb();
    this.#save();
    this.tell();
    return this.#result(ended);
  }

  tell(): void {
    const nowMs = performance.now();
    const { totals } = this.#tally;
    // Of a moment too short to tell, the speed is that of the whole.
    const isShort = nowMs - this.#told.atMs < PROGRESS_MS / 4;
    const from = isShort ? this.#begun : this.#told;
    const seconds = Math.max(1, nowMs - from.atMs) / 1000;
    this.#hooks.progress({
      statesDecided: totals.statesDecided,
      checkerRuns: totals.checkerRuns,
      failures: totals.failures,
      statesPerSecond: (totals.statesDecided - from.states) / seconds,
      runsPerSecond: (totals.checkerRuns - from.runs) / seconds,
      rung: this.#rung,
      cutsExact: this.#tally.exactCuts,
      cuts: this.#model.cuts.length - this.#from,
      elapsedMs: this.#elapsedMs,
    });
    this.#told = { atMs: nowMs, states: totals.statesDecided, runs: totals.checkerRuns };
  }

  /** Rung by rung, each from the last cut to the first: the last owes most, and its images need no second look. */
  async #climb(): Promise<Exploration['ended']> {
    const cuts: number[] = [];
    for (let cut = this.#model.cuts.length - 1; cut >= this.#from; cut -= 1) cuts.push(cut);
    await this.#pass([FIRST], cuts, 1);
    const { representatives, others } = byShape(this.#history, cuts);
    await this.#pass(LADDER, representatives, 1 / 2);
    await this.#pass(LADDER, others, 1 / 2);
    // What had to be cut short has a second chance, with more time.
    await this.#pass(LADDER, cuts, 1 / 2);
    if (this.#grain !== 'prefix') await this.#wander(cuts);
    // Whatever was under way when the budget ended is still taken in.
    await this.#judge.settle();
    // Interrupted, what was offered last is not judged.
    const isWhole = !this.#hooks.interrupted.aborted;
    const isCovered = isWhole && cuts.every((cut) => this.#isDone(cut, 'random'));
    return isCovered ? 'covered' : (this.#ended() ?? 'covered');
  }

  /** `part`: of the time that is left. */
  async #pass(
    rungs: readonly (Family | 'read-guided')[],
    cuts: readonly number[],
    part: number,
  ): Promise<void> {
    const fitting = rungs.filter((rung) =>
      rung === 'read-guided' ? this.#canGuide : rung.grains.includes(this.#grain),
    );
    const endMs = performance.now() + (this.#endsMs - performance.now()) * part;
    let left = fitting.length * cuts.length;
    for (const rung of fitting) {
      for (const cut of cuts) {
        if (this.#ended() !== null) return;
        const nowMs = performance.now();
        const share = Math.max(LEAST_SHARE_MS, (2 * (endMs - nowMs)) / left);
        left -= 1;
        await (rung === 'read-guided'
          ? this.#guide(cut, nowMs + share)
          : this.#step(rung, cut, nowMs + share));
      }
    }
    await this.#judge.settle();
  }

  get #canGuide(): boolean {
    return this.#options.readGuided && this.#pool.seesReads && this.#grain !== 'prefix';
  }

  #isDone(cut: number, rung: Rung): boolean {
    const { exact, rungs, listed } = this.#tally.cut(cut);
    return exact !== null || listed || rungs.includes(rung) || this.#listed.has(cut);
  }

  #scene(cut: number): Scene {
    const { images } = this.#judge;
    const view = images.moveTo(cut);
    const model = this.#model;
    const grain = this.#grain;
    const { placeOf } = images;
    let tree: DecisionTree | null = null;
    return {
      model,
      view,
      placeOf,
      get tree(): DecisionTree | null {
        if (grain === 'unit') tree ??= new UnitTree(model, view, placeOf);
        else if (grain === 'request' && isByRequests(model.options)) {
          tree ??= new RequestTree(model, view, placeOf);
        }
        return tree;
      },
    };
  }

  /** One family of states at one cut. */
  async #step(family: Family, cut: number, endMs: number): Promise<void> {
    const { rung } = family;
    if (this.#isDone(cut, rung)) return;
    this.#rung = rung;
    const judge = this.#judge;
    const { images } = judge;
    judge.batchSize = this.#pool.batch;
    const scene = this.#scene(cut);
    const rules = family.rules(scene);
    if (rules === null) return;
    for (const rule of rules) {
      if (this.#ended() !== null || performance.now() > endMs) return;
      images.apply(rule);
      judge.offer(rule, rung);
      if (judge.full) await judge.room();
      await this.#pace();
    }
    const isAll = family.coversAll(scene);
    const isSingle = scene.view.units.length === 0;
    if (isAll) this.#listed.add(cut);
    judge.afterwards(() => this.#finish(cut, rung, isAll, isSingle));
  }

  /** All states of a rung at a cut are judged. `isAll`: they are all states there. */
  #finish(cut: number, rung: Rung, isAll: boolean, isSingle: boolean): void {
    const tally = this.#tally.cut(cut);
    tally.rungs.push(rung);
    if (!isAll) return;
    tally.listed = true;
    if (tally.unjudged > 0) {
      tally.note = `${tally.unjudged} of its ${tally.decided} states got neither pass nor fail`;
    } else {
      tally.exact = isSingle ? 'single' : 'listed';
      tally.note = null;
    }
  }

  async #guide(cut: number, endMs: number): Promise<void> {
    if (this.#isDone(cut, 'read-guided')) return;
    this.#rung = 'read-guided';
    const tally = this.#tally.cut(cut);
    const { tree } = this.#scene(cut);
    if (tree === null) return;
    const outcome = await exploreReads(this.#judge, tree, {
      jobs: this.#pool.jobs,
      stopped: () => this.#ended() !== null,
      spent: () => performance.now() > endMs,
      pace: () => this.#pace(),
    });
    tally.note = outcome.note;
    if (!outcome.exact) return;
    tally.exact = 'read-guided';
    tally.rungs.push('read-guided');
  }

  /** A round ends with waiting for the last answer: it has to be worth it where many are judged at once. */
  get #leastEnergy(): number {
    return Math.max(LEAST_ENERGY, this.#pool.batch * ROUND_BATCHES);
  }

  /** Random states, round by round: more of the cuts that have shown something new. */
  async #wander(cuts: readonly number[]): Promise<void> {
    const isOpen = (cut: number): boolean => !this.#isDone(cut, 'random');
    this.#rung = 'random';
    this.#judge.batchSize = this.#pool.batch;
    let open = cuts.filter(isOpen);
    while (open.length > 0 && this.#ended() === null) {
      for (const cut of open) await this.#draw(cut);
      await this.#judge.settle();
      if (this.#ended() !== null) return;
      for (const cut of open) this.#weigh(cut);
      open = open.filter(isOpen);
    }
  }

  async #draw(cut: number): Promise<void> {
    const judge = this.#judge;
    const { drawn, energy } = this.#tally.cut(cut);
    judge.images.moveTo(cut);
    for (let i = 0; i < energy && this.#ended() === null; i += 1) {
      const rule = randomRule(this.#options.seed, cut, drawn + i, this.#grain);
      judge.images.apply(rule);
      judge.offer(rule, 'random');
      if (judge.full) await judge.room();
      await this.#pace();
    }
  }

  /** After a round: what it was worth at this cut. */
  #weigh(cut: number): void {
    const tally = this.#tally.cut(cut);
    tally.drawn += tally.energy;
    tally.known = tally.decided > tally.decidedBefore ? 0 : tally.known + tally.energy;
    tally.energy =
      tally.news > tally.newsBefore
        ? Math.min(Math.max(MOST_ENERGY, this.#leastEnergy), tally.energy * 2)
        : Math.max(this.#leastEnergy, tally.energy >> 1);
    tally.newsBefore = tally.news;
    tally.decidedBefore = tally.decided;
    if (tally.known >= KNOWN_IN_A_ROW) tally.rungs.push('random');
  }

  /** Why it has to end now, or null. */
  #ended(): Exploration['ended'] | null {
    if (this.#hooks.interrupted.aborted) return 'interrupted';
    const { maxStates = Infinity } = this.#options;
    const judge = this.#judge;
    if (this.#tally.totals.statesDecided + judge.pending >= maxStates) return 'states';
    if (judge.decided.count >= MAX_IMAGES) return 'states';
    return performance.now() >= this.#endsMs ? 'budget' : null;
  }

  /** Gives others a turn now and then. */
  async #pace(): Promise<void> {
    const nowMs = performance.now();
    if (nowMs - this.#turnMs < TURN_MS) return;
    if (nowMs - this.#savedMs >= Math.max(SAVE_MS, this.#saveTookMs * SAVE_SHARE)) this.#save();
    await new Promise(setImmediate);
    this.#turnMs = performance.now();
  }

  get #elapsedMs(): number {
    return this.#tally.totals.elapsedBeforeMs + performance.now() - this.#startMs;
  }

  #save(): void {
    const { progressPath } = this.#options;
    if (progressPath === null) return;
    const fromMs = performance.now();
    saveProgress(progressPath, this.#identity, this.#judge, this.#elapsedMs);
    this.#savedMs = performance.now();
    this.#saveTookMs = this.#savedMs - fromMs;
  }

  #result(ended: Exploration['ended']): Exploration {
    const { totals } = this.#tally;
    const idOf = (state: StateSpec): string =>
      stateId(this.#model.trace.fingerprint, this.#model.options, state);
    return {
      options: this.#options,
      fingerprint: this.#model.trace.fingerprint,
      coverage: coverageOf(this.#model, this.#tally, this.#from),
      findings: this.#judge.book.findings(this.#pool.checkerName, idOf),
      passes: this.#judge.book.passes(),
      statesDecided: totals.statesDecided,
      checkerRuns: totals.checkerRuns,
      sameImage: totals.sameImage,
      sameReads: totals.sameReads,
      elapsedMs: this.#elapsedMs,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      ended,
    };
  }
}
