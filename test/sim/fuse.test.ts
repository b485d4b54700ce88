import assert from 'node:assert/strict';
import test from 'node:test';
import { FUSE_MISTAKES, FUSE_SEEN_FROM_OUTSIDE } from './fuse-mistakes.ts';
import { replayOf, simulate } from './world.ts';

const SEEDS = 200;
/** Within so many seeds a mistake that was put in has to be found. */
const MOST_SEEDS = 300;

test(`simulator, FUSE: ${SEEDS} seeds, and what happened in them`, async (t) => {
  const sum = { acked: 0, flushed: 0, failed: 0, reads: 0, crashes: 0 };
  const did = { programs: 0 };
  for (let seed = 20_000; seed < 20_000 + SEEDS; seed += 1) {
    const { violation, seen, programs } = await simulate(seed, {}, () => {}, 'fuse');
    assert.equal(violation, null, replayOf(seed, 'fuse'));
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += seen[key];
    did.programs += programs;
  }
  t.diagnostic(JSON.stringify({ ...sum, ...did }));
  for (const [what, count] of Object.entries({ ...sum, ...did })) {
    assert.ok(count > 0, `no ${what} at all`);
  }
});

test('simulator, FUSE: the same seed gives the same run', async () => {
  for (const seed of [5, 47, 123]) assert.deepEqual(await traced(seed), await traced(seed));
});

async function traced(seed: number): Promise<unknown> {
  const lines: string[] = [];
  const result = await simulate(seed, {}, (line) => lines.push(line), 'fuse');
  return { ...result, lines };
}

for (const [suite, mistakes] of [
  ['mistake put in', FUSE_MISTAKES],
  ['mistake put in, seen from outside', FUSE_SEEN_FROM_OUTSIDE],
] as const) {
  for (const [name, { faults, verdict }] of Object.entries(mistakes)) {
    test(`${suite}, FUSE: ${name}`, async (t) => {
      for (let seed = 1; seed <= MOST_SEEDS; seed += 1) {
        const { violation } = await simulate(seed, faults, () => {}, 'fuse');
        if (violation === null) continue;
        t.diagnostic(`found with seed ${seed}: ${violation}`);
        assert.match(violation, verdict);
        return;
      }
      assert.fail(`not found in ${MOST_SEEDS} seeds`);
    });
  }
}
