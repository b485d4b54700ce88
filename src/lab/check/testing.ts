import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { TraceBuilder } from '../../trace/builder.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { openCheckerPool } from './pool.ts';
import type { CheckerPool, CheckerSpec, Run } from './types.ts';

/** Of this file's tests. */
export const folder = mkdtempSync(join(tmpdir(), 'holdfast-pool-test-'));
test.after(() => rmSync(folder, { recursive: true }));

/** States of the model's only cut. */
export const ALL: StateSpec = { cut: 0, rule: { kind: 'all' } };
export const FLOOR: StateSpec = { cut: 0, rule: { kind: 'floor' } };

let traces = 0;

/** Two disks; the first two blocks of the first are written, and one of the second. All is open at the only cut. */
function makeModel(): CrashModel {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: 256 * 1024 }, { sizeBytes: 65_536 }] });
  builder.wrote({ offset: 0, data: Buffer.from('SECRET-A'.repeat(512)) });
  builder.mark('ack', 'row 1');
  builder.wrote({ offset: 8192, data: Buffer.from('SECRET-B'.repeat(512)) });
  builder.wrote({ disk: 1, offset: 0, data: Buffer.from('SECRET-C'.repeat(512)) });
  traces += 1;
  const trace = builder.save(join(folder, `trace${traces}`));
  return openCrashModel(trace, { model: 'M2', unitBytes: 512, overlap: 'issued', poison: false });
}

export interface Opened {
  readonly pool: CheckerPool;
  readonly model: CrashModel;
}

/** A pool over the model, closed afterwards; nothing may stay behind. */
export async function withPool<T>(
  checker: Partial<CheckerSpec> & Pick<CheckerSpec, 'kind' | 'options'>,
  jobs: number,
  use: (opened: Opened) => Promise<T>,
  wantReads = true,
): Promise<T> {
  const model = makeModel();
  const before = labFolders();
  const remarks: string[] = [];
  const pool = await openCheckerPool({
    model,
    checker: { timeoutMs: 5000, ...checker },
    jobs,
    wantReads,
    remark: (line) => remarks.push(line),
  });
  try {
    assert.deepEqual(remarks, []);
    return await use({ pool, model });
  } finally {
    await pool.close();
    model.trace.close();
    assert.deepEqual(labFolders(), before);
  }
}

/** A checker's spec, but for the time limit. */
export const command = (line: string): Pick<CheckerSpec, 'kind' | 'options'> => {
  return { kind: 'command', options: { command: line } };
};

/** A module with this text. */
export function moduleChecker(name: string, text: string): Pick<CheckerSpec, 'kind' | 'options'> {
  const path = join(folder, `${name}.ts`);
  writeFileSync(path, text);
  return { kind: 'module', options: { path } };
}

/** What labs have made in the usual places. */
export function labFolders(): string[] {
  return [tmpdir(), '/dev/shm'].flatMap((parent) =>
    readdirSync(parent).filter((name) => name.startsWith(`holdfast-lab-${process.pid}-`)),
  );
}

export async function one(pool: CheckerPool, state: StateSpec): Promise<Run> {
  const [run] = await pool.run([state]);
  assert.ok(run !== undefined);
  return run;
}

export function all(state: StateSpec, count: number): StateSpec[] {
  return Array.from({ length: count }, () => state);
}

/** 'pass', or outcome and class. */
export function outcomes(runs: readonly Run[]): string[] {
  return runs.map(({ verdict }) => `${verdict.outcome} ${verdict.class}`.trim());
}
