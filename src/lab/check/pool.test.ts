import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { TraceBuilder } from '../../trace/builder.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { mountsUnder } from './lab-folder.ts';
import { openCheckerPool } from './pool.ts';
import type { CheckerPool, CheckerSpec, Run } from './types.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-pool-test-'));
test.after(() => rmSync(folder, { recursive: true }));

const ALL: StateSpec = { cut: 0, rule: { kind: 'all' } };
const FLOOR: StateSpec = { cut: 0, rule: { kind: 'floor' } };

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

interface Opened {
  readonly pool: CheckerPool;
  readonly model: CrashModel;
}

async function withPool<T>(
  checker: Partial<CheckerSpec> & Pick<CheckerSpec, 'kind' | 'options'>,
  jobs: number,
  use: (opened: Opened) => Promise<T>,
): Promise<T> {
  const model = makeModel();
  const before = labFolders();
  const remarks: string[] = [];
  const pool = await openCheckerPool({
    model,
    checker: { timeoutMs: 5000, ...checker },
    jobs,
    wantReads: true,
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

const command = (line: string): Pick<CheckerSpec, 'kind' | 'options'> => {
  return { kind: 'command', options: { command: line } };
};

function moduleChecker(name: string, text: string): Pick<CheckerSpec, 'kind' | 'options'> {
  const path = join(folder, `${name}.ts`);
  writeFileSync(path, text);
  return { kind: 'module', options: { path } };
}

/** What labs have made in the usual places. */
function labFolders(): string[] {
  return [tmpdir(), '/dev/shm'].flatMap((parent) =>
    readdirSync(parent).filter((name) => name.startsWith(`holdfast-lab-${process.pid}-`)),
  );
}

async function one(pool: CheckerPool, state: StateSpec): Promise<Run> {
  const [run] = await pool.run([state]);
  assert.ok(run !== undefined);
  return run;
}

function outcomes(runs: readonly Run[]): string[] {
  return runs.map(({ verdict }) => `${verdict.outcome} ${verdict.class}`.trim());
}

test('a program reads each state from its own file, and its reads are seen', async () => {
  await withPool(
    command('grep -q SECRET-A {disk} && grep -q SECRET-C {disk1}'),
    2,
    async ({ pool, model }) => {
      assert.equal(pool.seesReads, true);
      assert.equal(pool.batch, 1);
      assert.equal(pool.usesAcks, false);
      const states = Array.from({ length: 12 }, (_, i) => (i % 3 === 0 ? FLOOR : ALL));
      const runs = (await Promise.all(states.map((state) => pool.run([state])))).flat();
      assert.deepEqual(
        outcomes(runs),
        states.map((state) => (state === ALL ? 'pass' : 'fail fails without a word')),
      );
      // grep reads the first disk to its end when there is nothing to find.
      const reads = [...(runs[0]?.reads ?? [])];
      const units = Array.from({ length: model.unitCount }, (_, unit) => unit);
      assert.deepEqual(
        reads,
        units.filter((unit) => model.place(unit).disk === 0),
      );
    },
  );
});

test('a block that is read alone is the only one that is logged', async () => {
  const dd = 'dd if={disk} bs=512 skip=17 count=1 iflag=direct status=none';
  await withPool(command(dd), 1, async ({ pool, model }) => {
    const { reads } = await one(pool, ALL);
    assert.deepEqual([...(reads ?? [])], [model.unitAt(0, 17 * 512)]);
  });
});

test('what one run wrote, or another state held, is never seen by the next', async () => {
  const line =
    'if grep -q SECRET {disk}; then s=10; else s=11; fi; ' +
    'if grep -q SCRIBBLE {disk}; then exit 1; fi; ' +
    'printf SCRIBBLE | dd of={disk} bs=512 seek=9 conv=notrunc status=none; ' +
    'printf SCRIBBLE | dd of={disk} bs=512 seek=100 conv=notrunc,fsync status=none; ' +
    'grep -q SCRIBBLE {disk} || exit 1; exit $s';
  await withPool(command(line), 1, async ({ pool }) => {
    for (let i = 0; i < 4; i += 1) {
      assert.deepEqual(outcomes([await one(pool, ALL)]), ['pass state 10']);
      assert.deepEqual(outcomes([await one(pool, FLOOR)]), ['pass state 11']);
    }
  });
});

test('exit codes, signals, limits', async () => {
  const line = 'if grep -q SECRET-A {disk}; then kill -SEGV $$; fi; echo durability: gone; exit 1';
  await withPool(command(line), 1, async ({ pool }) => {
    assert.deepEqual(outcomes([await one(pool, ALL), await one(pool, FLOOR)]), [
      'checker-error signal SIGSEGV',
      'fail gone',
    ]);
  });
  const slow = { ...command('grep -q SECRET-A {disk} || exit 77; sleep 1000'), timeoutMs: 200 };
  await withPool(slow, 1, async ({ pool }) => {
    assert.deepEqual(outcomes([await one(pool, ALL), await one(pool, FLOOR)]), [
      'hang does not end',
      'skip',
    ]);
  });
});

test('a program with the disk open from an earlier run gets errors, not another state', async () => {
  // It leaves its process group, so that it outlives its run; what it reads late is written down.
  const late = join(folder, 'late');
  const line =
    `if grep -q SECRET-A {disk}; then setsid sh -c "exec 3<{disk}; sleep 0.6; head -c 8 <&3 >${late} 2>&1" ` +
    '>/dev/null 2>&1 & sleep 0.2; fi';
  await withPool(command(line), 1, async ({ pool }) => {
    await one(pool, ALL);
    await one(pool, FLOOR);
    await one(pool, FLOOR);
    await new Promise((resolve) => {
      setTimeout(resolve, 900);
    });
    assert.match(readFileSync(late, 'utf8'), /^head: error/);
  });
});

test('a checker module is run in the thread, many states at once', async () => {
  const text = `
    export const name = 'first block';
    export const usesAcks = false;
    export async function check({ devices, acks, files, scratch }, { readAll, pass, fail, skip }) {
      const [bytes] = [await readAll(devices[0], 3, 8)];
      if (files.length > 0 || acks.length !== 1 || !scratch) throw new Error('subject 1');
      const text = Buffer.from(bytes).toString();
      return text === 'RET-ASEC' ? pass('new') : fail('atomicity', 'block 0 is ' + bytes[0]);
    }`;
  await withPool(moduleChecker('first', text), 2, async ({ pool, model }) => {
    assert.equal(pool.checkerName, 'first block');
    assert.ok(pool.batch > 1);
    const states = Array.from({ length: 100 }, (_, i) => (i % 3 === 0 ? FLOOR : ALL));
    const runs = (await Promise.all([pool.run(states), pool.run(states.toReversed())])).flat();
    const names = states.map((state) => (state === ALL ? 'pass new' : 'fail block # is #'));
    assert.deepEqual(outcomes(runs), [...names, ...names.toReversed()]);
    assert.deepEqual([...(runs[5]?.reads ?? [])], [model.unitAt(0, 0)]);
  });
});

test('a module that throws, or answers nothing, has not judged', async () => {
  const text = `
    let runs = 0;
    export const check = () => {
      runs += 1;
      if (runs === 1) throw new Error('no 17');
      return runs === 2 ? undefined : { outcome: 'fail', axis: 'speed', class: '', detail: '' };
    };`;
  await withPool(moduleChecker('bad', text), 1, async ({ pool }) => {
    assert.deepEqual(outcomes(await pool.run([ALL, ALL, ALL])), [
      'checker-error throws no #',
      'checker-error answers no verdict',
      'checker-error answers no verdict',
    ]);
  });
});

test('a worker that dies costs the one state that killed it', async () => {
  const text = `
    export async function check({ devices }, { readAll, pass }) {
      const [byte] = await readAll(devices[0], 0, 1);
      if (byte === 0) process.exit(3);
      return pass();
    }`;
  await withPool(moduleChecker('dying', text), 1, async ({ pool }) => {
    const dead = 'checker-error ends its thread';
    const runs = await pool.run([ALL, ALL, FLOOR, ALL, FLOOR, FLOOR, ALL]);
    assert.deepEqual(outcomes(runs), ['pass', 'pass', dead, 'pass', dead, dead, 'pass']);
    assert.deepEqual(outcomes(await pool.run([ALL])), ['pass']);
  });
});

test('a checker that cannot be had is said when the pool opens, and nothing stays behind', async () => {
  for (const [spec, message] of [
    [command('true'), /write \{disk\}/],
    [command('true {disk7}'), /the trace has 2 disks/],
    [{ kind: 'module', options: { path: join(folder, 'none.ts') } }, /cannot be loaded/],
    [moduleChecker('empty', 'export const a = 1;'), /exports no check/],
    [{ kind: 'module', options: {} }, /needs the option 'path'/],
    [{ kind: 'nonsense', options: {} }, /nonsense/],
  ] as const) {
    await assert.rejects(
      withPool(spec, 2, async () => {}),
      { message },
    );
  }
  assert.deepEqual(labFolders(), []);
  assert.deepEqual(mountsUnder(folder), []);
});
