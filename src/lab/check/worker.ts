import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { assert } from '../../base/assert.ts';
import { ConfigError, messageOf } from '../../base/errors.ts';
import type { BlockDevice } from '../../block/device.ts';
import { openReactor } from '../../reactor/open.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { openSharedTrace } from '../../trace/reader.ts';
import type { Mark } from '../../trace/trace.ts';
import { attachCrashModel } from '../model/crash-model.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { openStateDisks, type StateDisks } from '../state-device/state-device.ts';
import { mountFiles, writtenFiles, type DiskFiles } from './disk-files.ts';
import { emptyScratch } from './leftovers.ts';
import { MODULE_BATCH, REACTOR_PAGES } from './limits.ts';
import { makeChecker } from './make-checker.ts';
import {
  PROGRESS,
  type BatchDone,
  type FromWorker,
  type ToWorker,
  type WorkerStart,
} from './pool-messages.ts';
import type { Checker, Run, Subject, Verdict } from './types.ts';

// A worker thread of the pool: a model over shared arrays, disks that show its states, and a checker.

class Worker {
  readonly #reactor: Reactor;
  readonly #model: CrashModel;
  readonly #disks: StateDisks;
  readonly #checker: Checker;
  /** Null: the checker reads from our devices. */
  readonly #files: DiskFiles | null;
  readonly #scratch: string;
  /** What helper programs say goes here, and is read by nobody. */
  readonly #output: number;
  readonly #progress: Int32Array;
  readonly seesReads: boolean;
  readonly remark: string | null;
  #acksOfCut = -1;
  #acks: readonly Mark[] = [];

  private constructor(parts: {
    reactor: Reactor;
    model: CrashModel;
    disks: StateDisks;
    checker: Checker;
    files: DiskFiles | null;
    start: WorkerStart;
    output: number;
    remark: string | null;
  }) {
    this.#reactor = parts.reactor;
    this.#model = parts.model;
    this.#disks = parts.disks;
    this.#checker = parts.checker;
    this.#files = parts.files;
    this.#scratch = join(parts.start.folder, 'scratch');
    this.#output = parts.output;
    this.#progress = parts.start.progress;
    this.remark = parts.remark;
    this.seesReads = parts.start.wantReads && parts.remark === null;
    mkdirSync(this.#scratch);
  }

  static async open(start: WorkerStart): Promise<Worker> {
    const { reactor, line } = await openReactor('auto', { pageLimit: REACTOR_PAGES });
    const model = attachCrashModel(openSharedTrace(start.trace), start.model);
    const checker = await makeChecker(start.checker, {
      reactor,
      model,
      folder: start.folder,
      running: (group) => Atomics.store(start.progress, PROGRESS.GROUP, group),
    });
    const disks = openStateDisks(model, start.wantReads);
    const output = openSync(join(start.folder, 'helpers'), 'a');
    let files: DiskFiles | null = null;
    let remark: string | null = null;
    if (checker.needsFiles) {
      try {
        files = await mountFiles(reactor, disks, start.folder, output);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        files = writtenFiles(disks, start.folder);
        remark = `states are written out as files, and reads are not seen (${line}; ${error.message})`;
      }
    }
    return new Worker({ reactor, model, disks, checker, files, start, output, remark });
  }

  get checker(): Checker {
    return this.#checker;
  }

  get batch(): number {
    return this.#files === null ? MODULE_BATCH : 1;
  }

  /** Null: the pool closes, and wants no answer. */
  async run(states: readonly StateSpec[]): Promise<Run[] | null> {
    const runs: Run[] = [];
    for (const [i, state] of states.entries()) {
      if (this.#closing) return null;
      Atomics.store(this.#progress, PROGRESS.STATE, i);
      Atomics.add(this.#progress, PROGRESS.RUNS, 1);
      runs.push(await this.#judge(state));
    }
    // The last program may have been killed for it.
    return this.#closing ? null : runs;
  }

  async close(): Promise<void> {
    await this.#checker.close();
    await this.#files?.close();
    await this.#disks.close();
    this.#model.trace.close();
    closeSync(this.#output);
    await this.#reactor.close();
  }

  async #judge(state: StateSpec): Promise<Run> {
    const { shown, devices } = this.#disks;
    const began = this.#reactor.nowMs();
    shown.show(state);
    await this.#files?.begin();
    const subject = new RunSubject(
      this.#files?.paths ?? [],
      devices,
      this.#acksAt(state.cut),
      this.#scratch,
    );
    let verdict: Verdict;
    try {
      verdict = await this.#checker.check(subject);
    } catch (error) {
      // A checker of ours that rejects has a mistake; it must not pass for the disk's.
      verdict = doubt('the checker itself failed', messageOf(error));
    }
    const reads = this.seesReads ? shown.reads() : null;
    const durationMs = this.#reactor.nowMs() - began;
    if (devices.some((device) => device.overflowed)) {
      verdict = doubt('writes more than a state may hold', verdict.detail);
    }
    await this.#files?.end();
    if (subject.usedScratch && !(await this.#emptyScratch())) {
      verdict = doubt('leaves a file system mounted in its scratch folder', this.#scratch);
    }
    return { verdict, reads, durationMs };
  }

  get #closing(): boolean {
    return Atomics.load(this.#progress, PROGRESS.CLOSING) === 1;
  }

  #emptyScratch(): Promise<boolean> {
    return emptyScratch(this.#reactor, this.#scratch, this.#output);
  }

  #acksAt(cut: number): readonly Mark[] {
    if (cut === this.#acksOfCut) return this.#acks;
    const { marks = 0 } = this.#model.cuts[cut] ?? {};
    this.#acks = this.#model.trace.marks.slice(0, marks).filter((mark) => mark.kind === 'ack');
    this.#acksOfCut = cut;
    return this.#acks;
  }
}

/** What a checker gets. Looking into its scratch folder costs as much as a small check: only if it was asked for. */
class RunSubject implements Subject {
  readonly files: readonly string[];
  readonly devices: readonly BlockDevice[];
  readonly acks: readonly Mark[];
  usedScratch = false;
  readonly #scratch: string;

  constructor(
    files: readonly string[],
    devices: readonly BlockDevice[],
    acks: readonly Mark[],
    scratch: string,
  ) {
    this.files = files;
    this.devices = devices;
    this.acks = acks;
    this.#scratch = scratch;
  }

  get scratch(): string {
    this.usedScratch = true;
    return this.#scratch;
  }
}

function doubt(name: string, detail: string): Verdict {
  return { outcome: 'checker-error', axis: null, class: name, detail };
}

/** Verdicts that are alike are sent once. */
function pack(runs: readonly Run[], seesReads: boolean): BatchDone {
  const verdicts: Verdict[] = [];
  const known = new Map<string, number>();
  const which = runs.map(({ verdict }) => {
    const key = [verdict.outcome, verdict.axis, verdict.class, verdict.detail].join('\0');
    let index = known.get(key);
    if (index === undefined) {
      index = verdicts.push(verdict) - 1;
      known.set(key, index);
    }
    return index;
  });
  return {
    type: 'done',
    verdicts,
    which: Int32Array.from(which),
    durationsMs: Float64Array.from(runs, (run) => run.durationMs),
    reads: seesReads ? packReads(runs) : null,
  };
}

function packReads(runs: readonly Run[]): { units: Int32Array; ends: Int32Array } {
  const ends = new Int32Array(runs.length);
  let end = 0;
  for (const [i, { reads }] of runs.entries()) {
    end += reads?.length ?? 0;
    ends[i] = end;
  }
  const units = new Int32Array(end);
  for (const [i, { reads }] of runs.entries()) {
    if (reads !== null) units.set(reads, (ends[i] as number) - reads.length);
  }
  return { units, ends };
}

async function main(port: MessagePort, start: WorkerStart): Promise<void> {
  const say = (message: FromWorker): void => port.postMessage(message);
  const worker = await Worker.open(start);
  const obey = async (message: ToWorker): Promise<void> => {
    if (message.type === 'run') {
      const runs = await worker.run(message.states);
      if (runs !== null) say(pack(runs, worker.seesReads));
    } else {
      await worker.close();
      port.close();
    }
  };
  let last = Promise.resolve();
  port.on('message', (message: ToWorker) => {
    last = last.then(() => obey(message)).catch((error: unknown) => fail(port, error));
  });
  const { name: checkerName, usesAcks } = worker.checker;
  const { seesReads, batch, remark } = worker;
  say({ type: 'ready', checkerName, usesAcks, seesReads, batch, remark });
}

function fail(port: MessagePort, error: unknown): void {
  const name = error instanceof Error ? error.name : 'Error';
  const hint = error instanceof ConfigError ? error.hint : null;
  const failed = { type: 'failed', error: { name, message: messageOf(error), hint } } as const;
  port.postMessage(failed satisfies FromWorker);
  // Not port.close(): the reactor keeps its thread.
  process.exit(1);
}

const port = parentPort;
assert(port !== null, 'a worker of the pool is a thread');
main(port, workerData as WorkerStart).catch((error: unknown) => fail(port, error));
