import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { CONTROL, MISTAKES, SEEN_FROM_OUTSIDE } from './mistakes.ts';
import type { Faults } from './server.ts';
import { VM_MISTAKES, VM_SEEN_FROM_OUTSIDE } from './vm-mistakes.ts';
import { replayOf, simulate, WORLD_KINDS, type WorldKind } from './world.ts';

/** Fresh seeds of every run of the tests; `npm run sim -- --seconds S` tries as many others as there is time for. */
const SEEDS = { nbd: 600, vm: 600 } as const;
/** Within so many seeds a mistake that was put in has to be found. */
const MOST_SEEDS = 1000;

async function keepsItsWord(
  seed: number,
  faults: Faults = {},
  kind: WorldKind = 'nbd',
): Promise<void> {
  const { violation } = await simulate(seed, faults, undefined, kind);
  assert.equal(violation, null, replayOf(seed, kind));
}

/** "vm 17  what it found" names the kind of world; "17  ..." is of NBD alone. */
const committed = readFileSync(new URL('seeds.txt', import.meta.url), 'utf8')
  .split('\n')
  .map((line) => /^([a-z]+ )?(\d+)/.exec(line))
  .filter((found) => found !== null)
  .map(([, word, seed]) => ({
    seed: Number(seed),
    kind: WORLD_KINDS.find((kind) => word?.trim() === kind) ?? 'nbd',
  }));

test('simulator: the seeds that once failed', async () => {
  for (const kind of WORLD_KINDS) assert.ok(committed.some((each) => each.kind === kind));
  for (const { seed, kind } of committed) await keepsItsWord(seed, {}, kind);
});

for (const kind of ['nbd', 'vm'] as const) {
  test(`simulator: ${SEEDS[kind]} seeds (${kind}), and what happened in them`, async (t) => {
    const sum = { acked: 0, flushed: 0, failed: 0, reads: 0, crashes: 0 };
    let guests = 0;
    for (let seed = 10_000; seed < 10_000 + SEEDS[kind]; seed += 1) {
      const { violation, seen, guests: answers } = await simulate(seed, {}, undefined, kind);
      assert.equal(violation, null, replayOf(seed, kind));
      for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += seen[key];
      guests += answers;
    }
    t.diagnostic(JSON.stringify({ ...sum, guests }));
    // A simulator in which nothing happens finds nothing.
    for (const [what, count] of Object.entries(sum)) assert.ok(count > 0, `no ${what} at all`);
    assert.equal(guests > 0, kind === 'vm');
  });
}

test('simulator: the same seed gives the same run', async () => {
  for (const kind of ['nbd', 'vm'] as const) {
    for (const seed of [5, 47, 123]) {
      assert.deepEqual(await traced(seed, kind), await traced(seed, kind));
    }
  }
});

async function traced(seed: number, kind: WorldKind): Promise<unknown> {
  const lines: string[] = [];
  const result = await simulate(seed, {}, (line) => lines.push(line), kind);
  return { ...result, lines };
}

test('simulator: the base of the faulty flush domains has no mistake', async () => {
  for (let seed = 1; seed <= 150; seed += 1) await keepsItsWord(seed, CONTROL);
});

for (const [suite, kind, mistakes] of [
  ['mistake put in', 'nbd', MISTAKES],
  ['mistake put in, seen from outside', 'nbd', SEEN_FROM_OUTSIDE],
  ['mistake put into the virtio side', 'vm', VM_MISTAKES],
  ['mistake put into the virtio side, seen from outside', 'vm', VM_SEEN_FROM_OUTSIDE],
] as const) {
  for (const [name, { faults, verdict }] of Object.entries(mistakes)) {
    test(`${suite}: ${name}`, async (t) => {
      for (let seed = 1; seed <= MOST_SEEDS; seed += 1) {
        const { violation } = await simulate(seed, faults, undefined, kind);
        if (violation === null) continue;
        t.diagnostic(`found with seed ${seed}: ${violation}`);
        assert.match(violation, verdict);
        return;
      }
      assert.fail(`not found in ${MOST_SEEDS} seeds`);
    });
  }
}
