import type { CheckerPool, Run, Verdict } from '../check/types.ts';
import type { Rule, StateSpec } from '../model/types.ts';
import { CutImages } from './cut-images.ts';
import type { ImageHistory } from './image-history.ts';
import { KeyTable, laneHash } from './key-table.ts';
import { BATCHES_PER_JOB, CONFIRMATIONS, MORE_OWED } from './limits.ts';
import { ReadTrie } from './read-trie.ts';
import type { Tally } from './tally.ts';
import type { Rung } from './types.ts';
import { kindOf, VerdictBook } from './verdict-book.ts';

// Judges states: from what is known where it can, by a run where it must. Answers are taken in in the order of asking, so
// that an exploration finds the same however many jobs there are.

/** What a run has read (null: not seen), and the number of its verdict's kind. */
export type Answer = (reads: Int32Array | null, kind: number) => void;

/** A state whose run is under way, or something to do when all before it is judged. */
interface Pending {
  readonly state: StateSpec;
  readonly rung: Rung;
  readonly owed: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /** The same image at other cuts, offered meanwhile. */
  readonly waiters: StateSpec[];
  readonly answer: Answer | null;
}

type Item = Pending | (() => void);

interface Batch {
  readonly items: readonly Item[];
  readonly runs: Promise<readonly Run[]>;
}

export class Judge {
  /** The state at hand: move it and apply a rule, then `offer` or `ask`. */
  readonly images: CutImages;
  readonly book: VerdictBook = new VerdictBook();
  readonly tally: Tally;
  /** From the key of an image to its verdict, and what was owed. */
  readonly decided: KeyTable = new KeyTable();
  /** Keys of images with their cuts: which states are counted. */
  readonly seen: KeyTable = new KeyTable();
  /** Which units were read in which order, as keys. */
  readonly signatures: KeyTable = new KeyTable();
  readonly trie: ReadTrie;
  /** At most `pool.batch`. */
  batchSize: number;
  /** States under way. */
  pending = 0;

  readonly #pool: CheckerPool;
  readonly #history: ImageHistory;
  readonly #interrupted: AbortSignal;
  /** The state whose answer is taken in. */
  readonly #answered: CutImages;
  /** How many acknowledgements are among the first so many marks. */
  readonly #acks: Int32Array;
  /** What is owed at the cuts after: the next larger number. */
  readonly #owedNext = new Map<number, number>();
  readonly #underWay = new Map<number, Pending>();
  #open: Item[] = [];
  #openStates = 0;
  readonly #batches: Batch[] = [];

  constructor(history: ImageHistory, pool: CheckerPool, tally: Tally, interrupted: AbortSignal) {
    this.#history = history;
    this.#pool = pool;
    this.tally = tally;
    this.#interrupted = interrupted;
    this.images = new CutImages(history);
    this.#answered = new CutImages(history);
    this.trie = new ReadTrie(history.model.unitCount);
    this.batchSize = pool.batch;
    const { marks } = history.model.trace;
    this.#acks = new Int32Array(marks.length + 1);
    for (const [i, mark] of marks.entries()) {
      this.#acks[i + 1] = (this.#acks[i] as number) + (mark.kind === 'ack' ? 1 : 0);
    }
    let before = -1;
    for (const { index } of history.model.cuts) {
      const owed = this.#owed(index);
      if (owed !== before && before >= 0) this.#owedNext.set(before, owed);
      before = owed;
    }
  }

  /** Whether `room` is to be awaited before more is offered. */
  get full(): boolean {
    return this.#batches.length >= this.#pool.jobs * BATCHES_PER_JOB;
  }

  /** Judges the state at hand, now or later. False: this very state has been offered before. */
  offer(rule: Rule, rung: Rung): boolean {
    const { keyA: a, keyB: b, keyC: c, cut } = this.images;
    if (this.#isSeen(cut, a, b, c)) return false;
    const owed = this.#owed(cut);
    const running = this.#running(a, b, c);
    if (running !== null && running.owed >= owed) {
      if (running.state.cut === cut) return false;
      if (running.waiters.some((state) => state.cut === cut)) return false;
      running.waiters.push({ cut, rule });
      this.pending += 1;
      return true;
    }
    // Only the strictest obligation counts: what was judged with more acknowledgements is judged.
    const place = this.decided.find(a, b, c);
    if (place >= 0 && this.decided.weight(place) >= owed) {
      this.#countSame(
        { cut, rule },
        owed,
        a,
        b,
        c,
        this.decided.value(place),
        this.decided.weight(place),
      );
      return true;
    }
    const kind = this.#walk(owed);
    if (kind >= 0) {
      this.decided.put(a, b, c, kind, owed);
      this.#count({ cut, rule }, a, b, c, kind);
      this.tally.totals.sameReads += 1;
      return true;
    }
    this.#enqueue({ state: { cut, rule }, rung, owed, a, b, c, waiters: [], answer: null });
    return true;
  }

  /** As `offer`, for those who must know what is read: `answer` is called at once, or while answers are taken in. */
  ask(rule: Rule, rung: Rung, answer: Answer): void {
    const { keyA: a, keyB: b, keyC: c, cut } = this.images;
    const owed = this.#owed(cut);
    const kind = this.#walk(owed);
    if (kind < 0) {
      this.#enqueue({ state: { cut, rule }, rung, owed, a, b, c, waiters: [], answer });
      return;
    }
    if (!this.#isSeen(cut, a, b, c)) {
      this.decided.put(a, b, c, kind, owed);
      this.#count({ cut, rule }, a, b, c, kind);
      this.tally.totals.sameReads += 1;
    }
    answer(this.trie.path.used(), kind);
  }

  /** Does something when all that was offered until now is judged. */
  afterwards(act: () => void): void {
    if (this.#openStates === 0 && this.#batches.length === 0) act();
    else this.#open.push(act);
  }

  /** Sends what waits to the pool, however little it is. */
  flush(): void {
    if (this.#open.length === 0) return;
    const items = this.#open;
    const states: StateSpec[] = [];
    for (const item of items) if (typeof item !== 'function') states.push(item.state);
    this.#open = [];
    this.#openStates = 0;
    const runs = states.length === 0 ? Promise.resolve([]) : this.#pool.run(states);
    // Whoever awaits it hears of a failure; until then it is no unhandled one.
    runs.catch(() => undefined);
    this.#batches.push({ items, runs });
  }

  /** Takes answers in until there is room for more. */
  async room(): Promise<void> {
    while (this.full && !this.#interrupted.aborted) await this.#takeIn();
  }

  /** Takes in the oldest batch. */
  async next(): Promise<void> {
    if (this.#batches.length === 0) this.flush();
    if (this.#batches.length > 0) await this.#takeIn();
  }

  /** Takes in all that was offered; nothing more once interrupted. */
  async settle(): Promise<void> {
    this.flush();
    while (this.#batches.length > 0 && !this.#interrupted.aborted) await this.#takeIn();
  }

  #owed(cut: number): number {
    if (!this.#pool.usesAcks) return 0;
    return this.#acks[this.#history.model.cuts[cut]?.marks ?? 0] as number;
  }

  /**
   * The verdict of a run that read what it would read of the state at hand, or -1. Who passed and owed more would pass
   * here too; of who failed and owed more, nothing is known.
   */
  #walk(owed: number): number {
    const { contents } = this.images;
    let kind = this.trie.walk(owed, contents);
    if (!this.#pool.usesAcks) return kind;
    let more = owed;
    for (let step = 0; kind < 0 && step < MORE_OWED; step += 1) {
      more = this.#owedNext.get(more) ?? -1;
      if (more < 0) return -1;
      kind = this.trie.walk(more, contents);
      if (kind >= 0 && !this.book.isPass(kind)) kind = -1;
    }
    return kind;
  }

  #enqueue(pending: Pending): void {
    this.#underWay.set(shortKey(pending.a, pending.b), pending);
    this.#open.push(pending);
    this.#openStates += 1;
    this.pending += 1;
    if (this.#openStates >= Math.min(this.batchSize, this.#pool.batch)) this.flush();
  }

  #running(a: number, b: number, c: number): Pending | null {
    const found = this.#underWay.get(shortKey(a, b));
    return found !== undefined && found.a === a && found.b === b && found.c === c ? found : null;
  }

  async #takeIn(): Promise<void> {
    const batch = this.#batches[0] as Batch;
    const runs = await orInterrupted(batch.runs, this.#interrupted);
    if (runs === null) return;
    this.#batches.shift();
    let at = 0;
    for (const item of batch.items) {
      if (typeof item === 'function') item();
      else if (!(await this.#take(item, runs[at++] as Run))) return;
    }
  }

  /** False: interrupted before the verdict was certain. */
  async #take(pending: Pending, run: Run): Promise<boolean> {
    const { state, rung, owed, a, b, c } = pending;
    this.tally.totals.checkerRuns += 1;
    const verdict = await this.#confirm(state, run.verdict);
    if (verdict === null) return false;
    const isNew = this.book.find(verdict) < 0;
    const kind = this.book.enter(verdict, state, rung);
    if (isNew) this.tally.cut(state.cut).news += 1;
    if (run.reads !== null) this.#remember(pending, run.reads, kind);
    const place = this.decided.find(a, b, c);
    if (place < 0 || this.decided.weight(place) <= owed) this.decided.put(a, b, c, kind, owed);
    const key = shortKey(a, b);
    if (this.#underWay.get(key) === pending) this.#underWay.delete(key);
    this.pending -= 1 + pending.waiters.length;
    if (!this.#isSeen(state.cut, a, b, c)) this.#count(state, a, b, c, kind);
    for (const waiter of pending.waiters) {
      if (this.#isSeen(waiter.cut, a, b, c)) continue;
      this.#countSame(waiter, this.#owed(waiter.cut), a, b, c, kind, owed);
    }
    pending.answer?.(run.reads, kind);
    return true;
  }

  /** Asks again where it matters: for the first of its kind, and for each failing state that will be shown. */
  async #confirm(state: StateSpec, verdict: Verdict): Promise<Verdict | null> {
    const kind = this.book.find(verdict);
    if (kind >= 0 && !this.book.isShort(kind)) return verdict;
    // A hang costs a whole time limit.
    const times = verdict.outcome === 'hang' ? 1 : CONFIRMATIONS;
    for (let i = 0; i < times; i += 1) {
      const runs = await orInterrupted(this.#pool.run([state]), this.#interrupted);
      if (runs === null) return null;
      this.tally.totals.checkerRuns += 1;
      const again = (runs[0] as Run).verdict;
      if (kindOf(again) === kindOf(verdict)) continue;
      const both = [verdict, again].map((one) => `${one.outcome} ${one.class}`.trim());
      const detail = `First: ${verdict.detail}\nThen: ${again.detail}`;
      return { outcome: 'flaky', axis: null, class: both.toSorted().join(' or '), detail };
    }
    return verdict;
  }

  /** Keeps what was read. Of a run that was cut short or contradicts itself, it says nothing about other states. */
  #remember(pending: Pending, reads: Int32Array, kind: number): void {
    const { outcome } = this.book.kind(kind).verdict;
    if (outcome === 'flaky' || outcome === 'hang' || outcome === 'checker-error') return;
    let [a, b, c] = [0, 0, 0];
    for (const unit of reads) {
      a = laneHash(a, unit, 0);
      b = laneHash(b, unit, 1);
      c = laneHash(c, unit, 2);
    }
    if (this.signatures.find(a, b, c) < 0) {
      this.signatures.put(a, b, c, 0, 0);
      this.tally.cut(pending.state.cut).news += 1;
    }
    this.#answered.moveTo(pending.state.cut);
    this.#answered.apply(pending.state.rule);
    const fits = this.trie.insert(pending.owed, reads, this.#answered.contents, kind);
    if (fits === 'contradiction') this.tally.totals.contradictions += 1;
  }

  #isSeen(cut: number, a: number, b: number, c: number): boolean {
    return (
      this.seen.find(a ^ laneHash(cut, 1, 0), b ^ laneHash(cut, 1, 1), c ^ laneHash(cut, 1, 2)) >= 0
    );
  }

  /** The image was judged at another cut, where `asked` acknowledgements were owed; here only `owed`. */
  #countSame(
    state: StateSpec,
    owed: number,
    a: number,
    b: number,
    c: number,
    kind: number,
    asked: number,
  ): void {
    // What failed with more owed counts as failed, but this very state may pass: it is not shown.
    this.#count(state, a, b, c, kind, asked === owed);
    this.tally.totals.sameImage += 1;
  }

  #count(state: StateSpec, a: number, b: number, c: number, kind: number, mayBeShown = true): void {
    const { cut } = state;
    this.seen.put(a ^ laneHash(cut, 1, 0), b ^ laneHash(cut, 1, 1), c ^ laneHash(cut, 1, 2), 0, 0);
    const { totals } = this.tally;
    const tally = this.tally.cut(cut);
    totals.statesDecided += 1;
    tally.decided += 1;
    if (!this.book.isJudged(kind)) tally.unjudged += 1;
    if (!this.book.isPass(kind)) totals.failures += 1;
    this.book.count(kind, state, mayBeShown);
  }
}

/** Enough of a key to find it again among the few that are under way. */
function shortKey(a: number, b: number): number {
  return (a >>> 0) * 2 ** 21 + (b >>> 11);
}

/** What a promise gives, or null if the signal comes first. */
async function orInterrupted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | null> {
  if (signal.aborted) return null;
  const over = new AbortController();
  const aborted = new Promise<null>((resolve) => {
    signal.addEventListener('abort', () => resolve(null), { signal: over.signal });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    over.abort();
  }
}
