import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ConfigError, UsageError } from '../../base/errors.ts';
import { Fifo } from '../../base/fifo.ts';
import { traceParts } from '../../trace/reader.ts';
import { shareModel } from '../model/crash-model.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { makeLabFolder, removeLabFolder, undoMounts } from './lab-folder.ts';
import { CLOSE_LIMIT_MS, FRUITLESS_STARTS, KILL_AGAIN_MS, WATCHDOG_GRACE_MS } from './limits.ts';
import { killGroup } from './native.ts';
import {
  NOT_BEGUN,
  PROGRESS,
  type BatchDone,
  type FromWorker,
  type ToWorker,
  type WorkerFailed,
  type WorkerReady,
  type WorkerStart,
} from './pool-messages.ts';
import type { CheckerPool, CheckerSpec, Run, Verdict } from './types.ts';

export interface CheckerPoolOptions {
  /** Its trace's file is opened again by each worker. */
  readonly model: CrashModel;
  readonly checker: CheckerSpec;
  /** Worker threads, at least 1. */
  readonly jobs: number;
  /** Whether runs are to tell what they read, where that can be seen. */
  readonly wantReads: boolean;
  /** One line that the operator should know. */
  readonly remark?: (line: string) => void;
}

/**
 * Starts the workers. Rejects with UsageError or ConfigError when the checker cannot be had. What a lab that was killed
 * has left mounted is undone; what this one makes is undone at `close`, and when the process ends before that.
 */
export async function openCheckerPool(options: CheckerPoolOptions): Promise<CheckerPool> {
  const pool = new Pool(options);
  try {
    await pool.start();
  } catch (error) {
    await pool.close();
    throw error;
  }
  return pool;
}

/** States that one message asks for, and who waits for them. */
interface Work {
  readonly states: readonly StateSpec[];
  /** Filled as runs are known. */
  readonly runs: Run[];
  readonly done: (runs: readonly Run[]) => void;
  readonly failed: (error: Error) => void;
}

class Pool implements CheckerPool {
  readonly jobs: number;
  readonly #options: CheckerPoolOptions;
  readonly #folder: string;
  readonly #members: Member[] = [];
  readonly #waiting = new Fifo<Work>();
  readonly #guard: EndGuard;
  #ready: WorkerReady | null = null;
  #broken: Error | null = null;
  #closing: Promise<void> | null = null;

  constructor(options: CheckerPoolOptions) {
    this.#options = options;
    this.jobs = options.jobs;
    this.#folder = makeLabFolder();
    this.#guard = new EndGuard(() => {
      for (const member of this.#members) member.killGroup();
      removeLabFolder(this.#folder);
    });
  }

  get checkerName(): string {
    return this.#ready?.checkerName ?? '';
  }

  get usesAcks(): boolean {
    return this.#ready?.usesAcks ?? true;
  }

  get seesReads(): boolean {
    return this.#ready?.seesReads ?? false;
  }

  get batch(): number {
    return this.#ready?.batch ?? 1;
  }

  async start(): Promise<void> {
    const { model, checker, wantReads } = this.#options;
    const trace = traceParts(model.trace);
    const shared = shareModel(model);
    for (let i = 0; i < this.jobs; i += 1) {
      const member = new Member(
        join(this.#folder, `worker${i}`),
        { trace, model: shared, checker, wantReads },
        () => this.#feed(member),
        (error) => this.#break(error),
      );
      this.#members.push(member);
    }
    const all = await Promise.all(this.#members.map((member) => member.start()));
    this.#ready = all[0] ?? null;
    if (this.#ready?.remark !== null) this.#options.remark?.(this.#ready?.remark ?? '');
  }

  run(states: readonly StateSpec[]): Promise<readonly Run[]> {
    if (this.#broken !== null) return Promise.reject(this.#broken);
    if (states.length === 0) return Promise.resolve([]);
    return new Promise((done, failed) => {
      this.#waiting.push({ states, runs: [], done, failed });
      const idle = this.#members.find((member) => member.idle);
      if (idle !== undefined) this.#feed(idle);
    });
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  #feed(member: Member): void {
    if (!member.idle) return;
    const work = this.#waiting.shift();
    if (work !== undefined) member.work(work);
  }

  #break(error: Error): void {
    this.#broken ??= error;
    for (let work = this.#waiting.shift(); work !== undefined; work = this.#waiting.shift()) {
      work.failed(error);
    }
  }

  async #close(): Promise<void> {
    this.#break(new Error('the pool is closed'));
    await Promise.all(this.#members.map((member) => member.close()));
    this.#guard.release();
    removeLabFolder(this.#folder);
  }
}

/** One worker thread, and its successors. */
class Member {
  readonly #folder: string;
  readonly #start: Omit<WorkerStart, 'folder' | 'progress'>;
  readonly #free: () => void;
  readonly #broken: (error: Error) => void;
  readonly #progress = new Int32Array(new SharedArrayBuffer(4 * Object.keys(PROGRESS).length));
  #worker: Worker | null = null;
  #starts = 0;
  #fruitless = 0;
  #work: Work | null = null;
  #ready = false;
  #isProcess = false;
  #begun: Promise<unknown> = Promise.resolve();
  #closing = false;
  #closed: () => void = () => {};
  #watchdog: NodeJS.Timeout | null = null;
  #watchedRuns = 0;
  #stuck = false;

  constructor(
    folder: string,
    start: Omit<WorkerStart, 'folder' | 'progress'>,
    free: () => void,
    broken: (error: Error) => void,
  ) {
    this.#folder = folder;
    this.#start = start;
    this.#free = free;
    this.#broken = broken;
  }

  get idle(): boolean {
    return this.#ready && this.#work === null;
  }

  /** Resolves when the thread can work. */
  start(): Promise<WorkerReady> {
    this.#starts += 1;
    const folder = `${this.#folder}-${this.#starts}`;
    mkdirSync(folder);
    const start: WorkerStart = { ...this.#start, folder, progress: this.#progress };
    // `.ts` in the source tree, `.js` in what `npm run build` makes of it.
    const url = new URL(import.meta.url.replace(/pool(\.\w+)$/, 'worker$1'));
    const begun = new Promise<WorkerReady>((ready, failed) => {
      const worker = new Worker(url, { workerData: start, name: 'checker' });
      this.#worker = worker;
      let error: Error | null = null;
      worker.on('message', (message: FromWorker) => {
        if (message.type === 'ready') {
          this.#ready = true;
          this.#isProcess = message.batch === 1;
          ready(message);
        } else if (message.type === 'done') {
          this.#done(message);
        } else if (message.type === 'failed') {
          error = errorOf(message);
        }
      });
      worker.on('error', (thrown: unknown) => {
        error = thrown instanceof Error ? thrown : new Error(String(thrown));
      });
      worker.on('exit', () => {
        failed(error ?? new Error('a worker thread ended before it had begun'));
        this.#ended(folder, error);
      });
    });
    this.#begun = begun.catch(() => undefined);
    return begun;
  }

  work(work: Work): void {
    this.#work = work;
    Atomics.store(this.#progress, PROGRESS.STATE, NOT_BEGUN);
    this.#send({ type: 'run', states: work.states.slice(work.runs.length) });
    this.#watch();
  }

  /**
   * Ends the state at hand, and the thread in its own way. A thread that is beginning is let begin: to end it while it
   * loads native code would end the process.
   */
  async close(): Promise<void> {
    this.#closing = true;
    Atomics.store(this.#progress, PROGRESS.CLOSING, 1);
    await this.#begun;
    const worker = this.#worker;
    if (worker === null) return;
    const ended = new Promise<void>((resolve) => {
      this.#closed = resolve;
    });
    this.#send({ type: 'close' });
    // Again and again: it may have been about to start one.
    const kills = setInterval(() => this.killGroup(), KILL_AGAIN_MS);
    this.killGroup();
    const timer = setTimeout(() => void worker.terminate(), CLOSE_LIMIT_MS);
    await ended;
    clearInterval(kills);
    clearTimeout(timer);
  }

  /** Ends the checker that is running, if it is a process. */
  killGroup(): void {
    const group = Atomics.exchange(this.#progress, PROGRESS.GROUP, 0);
    if (group > 0) killGroup(group);
  }

  #send(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  /** A worker whose run does not end in time is ended itself: its checker is our code, or does not keep its limit. */
  #watch(): void {
    this.#watchedRuns = Atomics.load(this.#progress, PROGRESS.RUNS);
    if (this.#watchdog !== null) {
      this.#watchdog.refresh();
      return;
    }
    const grace = this.#isProcess ? WATCHDOG_GRACE_MS : 0;
    this.#watchdog = setInterval(() => {
      const runs = Atomics.load(this.#progress, PROGRESS.RUNS);
      if (this.#work !== null && runs === this.#watchedRuns) {
        this.#stuck = true;
        void this.#worker?.terminate();
      }
      this.#watchedRuns = runs;
    }, this.#start.checker.timeoutMs + grace);
  }

  #done(message: BatchDone): void {
    const work = this.#work;
    if (work === null) return;
    const { reads } = message;
    for (const [i, index] of message.which.entries()) {
      const from = i === 0 ? 0 : (reads?.ends[i - 1] as number);
      work.runs.push({
        verdict: message.verdicts[index] as Verdict,
        reads: reads === null ? null : reads.units.slice(from, reads.ends[i]),
        durationMs: message.durationsMs[i] as number,
      });
    }
    this.#fruitless = 0;
    this.#finish(work);
  }

  #finish(work: Work): void {
    if (work.runs.length < work.states.length) {
      this.work(work);
      return;
    }
    this.#work = null;
    work.done(work.runs);
    this.#free();
  }

  /** The thread is gone. The state that it had at hand is to blame; the others are asked again. */
  #ended(folder: string, error: Error | null): void {
    this.#worker = null;
    const wasReady = this.#ready;
    this.#ready = false;
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    this.#watchdog = null;
    this.killGroup();
    undoMounts(folder);
    const work = this.#work;
    this.#work = null;
    if (this.#closing) {
      work?.failed(new Error('the pool is closed'));
      this.#closed();
      return;
    }
    // Who waits for `start` is told there.
    if (!wasReady && work === null) return;
    void this.#startAnew(work, error);
  }

  async #startAnew(work: Work | null, error: Error | null): Promise<void> {
    const stuck = this.#stuck;
    this.#stuck = false;
    const bad = Atomics.load(this.#progress, PROGRESS.STATE);
    this.#fruitless = bad === NOT_BEGUN ? this.#fruitless + 1 : 0;
    try {
      if (this.#fruitless > FRUITLESS_STARTS) {
        throw error ?? new Error('worker threads end without an error');
      }
      await this.start();
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown : new Error(String(thrown));
      work?.failed(why);
      this.#broken(why);
      return;
    }
    if (work === null) {
      this.#free();
      return;
    }
    if (bad === NOT_BEGUN) this.work(work);
    else this.#goOn(work, bad, blame(stuck, error));
  }

  /** Judges what stood before the state to blame once more, and goes on behind it. */
  #goOn(work: Work, bad: number, verdict: Verdict): void {
    const known = work.runs.length;
    const before = work.states.slice(known, known + bad);
    const goOn = (runs: readonly Run[]): void => {
      work.runs.push(...runs, { verdict, reads: null, durationMs: 0 });
      this.#finish(work);
    };
    if (before.length === 0) goOn([]);
    else this.work({ states: before, runs: [], done: goOn, failed: work.failed });
  }
}

function blame(stuck: boolean, error: Error | null): Verdict {
  const detail = error?.message ?? '';
  return stuck
    ? { outcome: 'hang', axis: null, class: 'does not end', detail }
    : { outcome: 'checker-error', axis: null, class: 'ends its thread', detail };
}

function errorOf({ error: { name, message, hint } }: WorkerFailed): Error {
  if (name === 'ConfigError') return new ConfigError(message, hint ?? '');
  if (name === 'UsageError') return new UsageError(message);
  return new Error(message);
}

/** Removes a lab's folder and mounts when the process ends without having closed its pool. */
class EndGuard {
  readonly #remove: () => void;
  readonly #signalled: (signal: NodeJS.Signals) => void;

  constructor(remove: () => void) {
    this.#remove = remove;
    this.#signalled = (signal) => {
      // Somebody else listens: they end the process, or close the pool, in their own time.
      if (process.listenerCount(signal) > 1) return;
      this.#remove();
      this.release();
      process.kill(process.pid, signal);
    };
    process.on('exit', this.#remove);
    for (const signal of SIGNALS) process.on(signal, this.#signalled);
  }

  release(): void {
    process.off('exit', this.#remove);
    for (const signal of SIGNALS) process.off(signal, this.#signalled);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
