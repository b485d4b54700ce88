import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { mountsUnder } from './lab-folder.ts';
import {
  ALL,
  all,
  command,
  FLOOR,
  folder,
  labFolders,
  moduleChecker,
  outcomes,
  withPool,
} from './testing.ts';

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
    const runs = await pool.run([ALL, ALL, FLOOR, ALL, FLOOR, FLOOR, ALL, ...all(FLOOR, 2)]);
    const ends = ['pass', 'pass', dead, 'pass', dead, dead, 'pass', dead, dead];
    assert.deepEqual(outcomes(runs), ends);
    assert.deepEqual(outcomes(await pool.run([ALL])), ['pass']);
  });
});

test('a checker of ours that does not end is ended, and the others are judged', async () => {
  const text = `
    export async function check({ devices }, { readAll, pass }) {
      const [byte] = await readAll(devices[0], 0, 1);
      if (byte === 0) for (;;);
      return pass();
    }`;
  const spec = { ...moduleChecker('endless', text), timeoutMs: 300 };
  await withPool(spec, 1, async ({ pool }) => {
    const runs = await pool.run([ALL, FLOOR, FLOOR, ALL]);
    const hang = 'hang does not end';
    assert.deepEqual(outcomes(runs), ['pass', hang, hang, 'pass']);
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
      withPool(spec, 1, async () => {}),
      { message },
    );
  }
  assert.deepEqual(labFolders(), []);
  assert.deepEqual(mountsUnder(folder), []);
});
