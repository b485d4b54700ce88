import { TraceBuilder, type BuiltDisk } from '../../trace/builder.ts';
import type { Trace } from '../../trace/trace.ts';
import { openCrashModel } from '../model/crash-model.ts';
import { enumerateStates } from '../model/enumerate-states.ts';
import type { CrashModel, ModelName } from '../model/types.ts';
import type { CountRow } from './types.ts';

// Traces of a few requests, and how many different states of the disk a power cut leaves of them: by hand from the
// definition of the model (docs/concepts/crash-model.md).

const KIB = 1024;
const LIMIT = 100_000;

interface Count {
  readonly id: string;
  readonly title: string;
  readonly model: ModelName;
  readonly unitBytes?: number;
  readonly disks?: readonly BuiltDisk[];
  /** At the end of the trace only, or over all instants. */
  readonly when: 'end' | 'ever';
  readonly known: number;
  build(trace: TraceBuilder): void;
}

const X = { offset: 0 } as const;
const Y = { offset: 8 * KIB } as const;

function threeWrites(trace: TraceBuilder): void {
  for (const i of [0, 1, 2]) trace.wrote({ offset: i * KIB, data: i + 1 });
}

function twoOfFour(second: number): (trace: TraceBuilder) => void {
  return (trace) => {
    trace.wrote({ ...X, data: 1, length: 4 * KIB });
    trace.wrote({ ...X, data: second, length: 4 * KIB });
  };
}

/** A log and its data, then the commit. Where the flush stands decides. */
function toyLog(flush: boolean, fua: boolean): (trace: TraceBuilder) => void {
  return (trace) => {
    trace.wrote({ offset: 0, data: 1 });
    trace.wrote({ offset: KIB, data: 2 });
    if (flush) trace.flushed();
    trace.wrote({ offset: 2 * KIB, data: 3, fua });
  };
}

const COUNTS: readonly Count[] = [
  {
    id: 'S1a',
    title: 'three writes, in order',
    model: 'M0',
    when: 'ever',
    known: 4,
    build: threeWrites,
  },
  {
    id: 'S1b',
    title: 'three writes, any of them',
    model: 'M1',
    when: 'ever',
    known: 8,
    build: threeWrites,
  },
  {
    id: 'S2',
    title: 'write, flush, write again',
    model: 'M1',
    when: 'end',
    known: 2,
    build: (trace) => {
      trace.wrote({ ...X, data: 1 });
      trace.flushed();
      trace.wrote({ ...X, data: 2 });
    },
  },
  {
    id: 'S3',
    title: 'write twice without a flush: old, first, second, and never four',
    model: 'M1',
    when: 'ever',
    known: 3,
    build: (trace) => {
      trace.wrote({ ...X, data: 1 });
      trace.wrote({ ...X, data: 2 });
    },
  },
  {
    id: 'S4',
    title: 'a write that is done only after the flush was sent is not covered by it',
    model: 'M1',
    when: 'end',
    known: 2,
    build: (trace) => {
      const write = trace.write({ ...X, data: 1 });
      const flush = trace.flush();
      trace.done(write);
      trace.done(flush);
    },
  },
  {
    id: 'S5',
    title: 'FUA makes only itself stable',
    model: 'M1',
    when: 'end',
    known: 2,
    build: (trace) => {
      trace.wrote({ ...X, data: 1 });
      trace.wrote({ ...Y, data: 2, fua: true });
    },
  },
  {
    id: 'S6',
    title: 'FUA that is not done yet',
    model: 'M1',
    when: 'end',
    known: 2,
    build: (trace) => void trace.write({ ...Y, data: 2, fua: true }),
  },
  {
    id: 'S7a',
    title: '4 KiB as a whole',
    model: 'M1',
    when: 'ever',
    known: 2,
    build: (trace) => void trace.wrote({ ...X, data: 1, length: 4 * KIB }),
  },
  {
    id: 'S7b',
    title: '4 KiB in units of 512',
    model: 'M2',
    when: 'ever',
    known: 256,
    build: (trace) => void trace.wrote({ ...X, data: 1, length: 4 * KIB }),
  },
  {
    id: 'S7c',
    title: '4 KiB in units of 4096',
    model: 'M2',
    unitBytes: 4 * KIB,
    when: 'ever',
    known: 2,
    build: (trace) => void trace.wrote({ ...X, data: 1, length: 4 * KIB }),
  },
  {
    id: 'S8',
    title: '4 KiB written twice',
    model: 'M2',
    when: 'ever',
    known: 6561,
    build: twoOfFour(2),
  },
  {
    id: 'S9',
    title: '4 KiB written twice with the same content',
    model: 'M2',
    when: 'ever',
    known: 256,
    build: twoOfFour(1),
  },
  {
    id: 'S10',
    title: 'a flush before a FUA write: both stable',
    model: 'M2',
    when: 'end',
    known: 1,
    build: (trace) => {
      trace.wrote({ ...X, data: 1 });
      trace.flushed();
      trace.wrote({ ...Y, data: 2, fua: true });
    },
  },
  {
    id: 'S11',
    title: 'a flush that fails makes nothing stable',
    model: 'M1',
    when: 'end',
    known: 2,
    build: (trace) => {
      trace.wrote({ ...X, data: 1 });
      trace.failed(trace.flush());
    },
  },
  {
    id: 'S12a',
    title: 'zeroes are written like data',
    model: 'M1',
    when: 'end',
    known: 1,
    build: (trace) => {
      trace.wrote({ ...X, data: 1 });
      trace.flushed();
      trace.done(trace.zeroes({ ...X, length: 512 }));
      trace.flushed();
    },
  },
  {
    id: 'S12b',
    title: 'after a discard of NBD a flush does not settle what is read',
    model: 'M1',
    disks: [{ discard: 'undefined' }],
    when: 'end',
    known: 2,
    build: (trace) => {
      trace.wrote({ ...X, data: 1 });
      trace.flushed();
      trace.done(trace.trim({ ...X, length: 512 }));
      trace.flushed();
    },
  },
  {
    id: 'S13',
    title: 'two disks: a flush of one says nothing of the other',
    model: 'M1',
    disks: [{}, {}],
    when: 'end',
    known: 2,
    build: (trace) => {
      trace.wrote({ ...X, data: 1, disk: 0 });
      trace.wrote({ ...X, data: 2, disk: 1 });
      trace.flushed({ disk: 0 });
    },
  },
  ...(['everyone', 'source'] as const).map((flushCovers): Count => ({
    id: flushCovers === 'everyone' ? 'S14a' : 'S14b',
    title: `a flush by another connection, which covers ${flushCovers === 'everyone' ? 'all' : 'only its own'}`,
    model: 'M1',
    disks: [{ flushCovers }],
    when: 'end',
    known: flushCovers === 'everyone' ? 1 : 2,
    build: (trace) => {
      trace.wrote({ ...X, data: 1, source: 1 });
      trace.flushed({ source: 2 });
    },
  })),
  {
    id: 'S15a',
    title: 'log, data, commit',
    model: 'M1',
    when: 'ever',
    known: 8,
    build: toyLog(false, false),
  },
  {
    id: 'S15b',
    title: 'log, data, flush, commit',
    model: 'M1',
    when: 'ever',
    known: 5,
    build: toyLog(true, false),
  },
];

function traceOf(count: Count): Trace {
  const builder = new TraceBuilder(count.disks === undefined ? {} : { disks: count.disks });
  count.build(builder);
  return builder.trace();
}

function countStates(model: CrashModel, when: Count['when']): string {
  if (when === 'ever') return String(model.countStates(LIMIT));
  let states = 0;
  for (const state of enumerateStates(model, model.cuts.length - 1)) {
    if (model.whyIllegal(state) === null) states += 1;
  }
  return String(states);
}

/** S1 to S15 of the known answers. */
export const COUNT_ROWS: readonly CountRow[] = COUNTS.map((count) => ({
  kind: 'count',
  id: count.id,
  title: `${count.title} (${count.model})`,
  run: () => {
    const model = openCrashModel(traceOf(count), {
      model: count.model,
      unitBytes: count.unitBytes ?? 512,
      overlap: 'issued',
      poison: false,
    });
    return { known: String(count.known), found: countStates(model, count.when) };
  },
}));
