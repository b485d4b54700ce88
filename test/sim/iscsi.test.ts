import assert from 'node:assert/strict';
import test from 'node:test';
import { ISCSI_MISTAKES, ISCSI_SEEN_FROM_OUTSIDE } from './iscsi-mistakes.ts';
import { simulate } from './world.ts';

const SEEDS = 200;
/** Within so many seeds a mistake that was put in has to be found. */
const MOST_SEEDS = 300;

test(`simulator, iSCSI: ${SEEDS} seeds, and what happened in them`, async (t) => {
  const sum = { acked: 0, flushed: 0, failed: 0, reads: 0, crashes: 0, told: 0 };
  const did = { initiators: 0 };
  for (let seed = 20_000; seed < 20_000 + SEEDS; seed += 1) {
    const { violation, seen, initiators } = await simulate(seed, {}, () => {}, 'iscsi');
    assert.equal(violation, null, `replay: npm run sim -- ${seed} --kind iscsi --verbose`);
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += seen[key];
    did.initiators += initiators;
  }
  t.diagnostic(JSON.stringify({ ...sum, ...did }));
  for (const [what, count] of Object.entries({ ...sum, ...did })) {
    assert.ok(count > 0, `no ${what} at all`);
  }
});

test('simulator, iSCSI: the same seed gives the same run', async () => {
  for (const seed of [5, 47, 123]) assert.deepEqual(await traced(seed), await traced(seed));
});

async function traced(seed: number): Promise<unknown> {
  const lines: string[] = [];
  const result = await simulate(seed, {}, (line) => lines.push(line), 'iscsi');
  return { ...result, lines };
}

for (const [suite, mistakes] of [
  ['mistake put in', ISCSI_MISTAKES],
  ['mistake put in, seen from outside', ISCSI_SEEN_FROM_OUTSIDE],
] as const) {
  for (const [name, { faults, verdict }] of Object.entries(mistakes)) {
    test(`${suite}, iSCSI: ${name}`, async (t) => {
      for (let seed = 1; seed <= MOST_SEEDS; seed += 1) {
        const { violation } = await simulate(seed, faults, () => {}, 'iscsi');
        if (violation === null) continue;
        t.diagnostic(`found with seed ${seed}: ${violation}`);
        assert.match(violation, verdict);
        return;
      }
      assert.fail(`not found in ${MOST_SEEDS} seeds`);
    });
  }
}
