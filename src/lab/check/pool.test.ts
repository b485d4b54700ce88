import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { ALL, command, FLOOR, folder, one, outcomes, withPool } from './testing.ts';

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

for (const wantReads of [true, false]) {
  test(`what one run wrote, or another state held, is never seen by the next: reads ${wantReads}`, async () => {
    const line =
      'if grep -q SECRET {disk}; then s=10; else s=11; fi; ' +
      'if grep -q SCRIBBLE {disk}; then exit 1; fi; ' +
      'printf SCRIBBLE | dd of={disk} bs=512 seek=9 conv=notrunc status=none; ' +
      'printf SCRIBBLE | dd of={disk} bs=512 seek=100 conv=notrunc,fsync status=none; ' +
      'grep -q SCRIBBLE {disk} || exit 1; exit $s';
    await withPool(
      command(line),
      1,
      async ({ pool }) => {
        for (let i = 0; i < 4; i += 1) {
          assert.deepEqual(outcomes([await one(pool, ALL)]), ['pass state 10']);
          assert.deepEqual(outcomes([await one(pool, FLOOR)]), ['pass state 11']);
        }
      },
      wantReads,
    );
  });
}

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

for (const wantReads of [true, false]) {
  test(`a program with the disk open from an earlier run gets errors: reads ${wantReads}`, async () => {
    // It leaves its process group, so that it outlives its run; what it reads late is written down.
    const late = join(folder, 'late');
    const line =
      `if grep -q SECRET-A {disk}; then setsid sh -c "exec 3<{disk}; sleep 0.6; head -c 8 <&3 >${late} 2>&1" ` +
      '>/dev/null 2>&1 & sleep 0.2; fi';
    await withPool(
      command(line),
      1,
      async ({ pool }) => {
        await one(pool, ALL);
        await one(pool, FLOOR);
        await one(pool, FLOOR);
        await new Promise((resolve) => {
          setTimeout(resolve, 900);
        });
        assert.match(readFileSync(late, 'utf8'), /^head: error/);
      },
      wantReads,
    );
  });
}

test('a pool that is closed in the middle ends what runs, soon', async () => {
  const waiting = await withPool(command('tail -f {disk}'), 2, async ({ pool }) => {
    const asked = [1, 2, 3, 4].map(() => pool.run([ALL]));
    const ends = Promise.allSettled(asked);
    await new Promise((resolve) => {
      setTimeout(resolve, 100);
    });
    return { ends, closing: performance.now() };
  });
  assert.ok(performance.now() - waiting.closing < 3000);
  for (const end of await waiting.ends) assert.equal(end.status, 'rejected');
});
