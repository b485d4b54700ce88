import type { TraceBuilder } from '../../trace/builder.ts';
import type { Trace } from '../../trace/trace.ts';
import type { Axis, Verdict } from '../check/types.ts';
import { explore } from '../explore/explore.ts';
import { FakePool, optionsFor, PASS, QUIET } from '../explore/testing.ts';
import type { Exploration } from '../explore/types.ts';
import { explainFinding } from '../minimise/cause.ts';
import type { Cause } from '../minimise/types.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { CrashModel, ModelName, StateSpec } from '../model/types.ts';

// For tests of the report: toy explorations with their causes.

const BLOCK = 512;

/** What a toy checker sees: the first byte of a block, and how many marks were made. */
export interface ToyDisk {
  readonly letter: (block: number, disk?: number) => number;
  readonly marks: number;
}

/** Null: it passes. */
export type ToyRule = (disk: ToyDisk) => Partial<Verdict> | null;

export interface Toy {
  readonly model: CrashModel;
  readonly exploration: Exploration;
  readonly causes: readonly Cause[];
}

/** Explores a trace under a rule and explains what fails. */
export async function exploreToy(
  trace: Trace,
  rule: ToyRule,
  more: { readonly name?: ModelName; readonly maxStates?: number } = {},
): Promise<Toy> {
  const options = {
    model: more.name ?? 'M1',
    unitBytes: BLOCK,
    overlap: 'issued',
    poison: false,
  } as const;
  const model = openCrashModel(trace, options);
  const judge = (state: StateSpec): Verdict => toyVerdict(model, state, rule);
  const pool = new FakePool(model, ({ state }) => judge(state), { usesAcks: true });
  const exploration = await explore(
    model,
    pool,
    optionsFor(model, { maxStates: more.maxStates ?? 4000, readGuided: false }),
    QUIET,
  );
  const causes: Cause[] = [];
  for (const finding of exploration.findings) {
    if (finding.verdict.outcome !== 'fail') continue;
    const decide = (state: StateSpec): Promise<Verdict> => Promise.resolve(judge(state));
    causes.push(await explainFinding(model, finding, decide, { mostStates: 400, describe: null }));
  }
  return { model, exploration, causes };
}

function toyVerdict(model: CrashModel, state: StateSpec, rule: ToyRule): Verdict {
  const letter = (block: number, disk = 0): number => {
    const unit = model.unitAt(disk, block * BLOCK);
    if (unit < 0) return 0;
    const byte = new Uint8Array(1);
    model.readVersion(model.versionIn(state, unit), 0, byte);
    return byte[0] as number;
  };
  const found = rule({ letter, marks: model.cuts[state.cut]?.marks ?? 0 });
  return found === null
    ? PASS
    : { ...PASS, outcome: 'fail', axis: 'integrity', class: 'toy', ...found };
}

export function fails(axis: Axis, name: string, detail = ''): Partial<Verdict> {
  return { axis, class: name, detail };
}

/**
 * A log and data, each transaction in both: the log is flushed before the acknowledgement, the data is not; every third
 * transaction forgets the flush.
 */
export function ledger(builder: TraceBuilder, transactions: number): Trace {
  builder.mark('note', 'begin');
  for (let i = 0; i < transactions; i += 1) {
    builder.wrote({ offset: (8 + i) * BLOCK, data: 1 + (i % 200), length: BLOCK });
    builder.wrote({
      offset: (1024 + (i % 16) * 4) * BLOCK,
      data: 1 + (i % 200),
      length: 4 * BLOCK,
    });
    if (i % 3 !== 2) builder.flushed();
    builder.mark('ack', `{"txn":${i + 1}}`);
  }
  builder.flushed();
  builder.mark('note', 'end');
  return builder.trace();
}

/** Every acknowledged transaction is in the log, and no data is there whose log is not. */
export function ledgerRule(transactions: number): ToyRule {
  return ({ letter, marks }) => {
    for (let i = 0; i < transactions; i += 1) {
      const logged = letter(8 + i) === 1 + (i % 200);
      if (i < marks - 1 && !logged) return fails('durability', 'transaction lost', `txn ${i + 1}`);
      if (!logged && letter(1024 + (i % 16) * 4) === 1 + (i % 200)) {
        return fails('atomicity', 'data without log', `txn ${i + 1}`);
      }
    }
    return null;
  };
}
