import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { simulate, WORLD_KINDS, type WorldKind } from './world.ts';

// npm run sim -- [SEED] [--runs N] [--seconds S] [--kind KIND] [--verbose]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '0' },
    seconds: { type: 'string', default: '0' },
    kind: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});

const given = positionals[0];
const first = given === undefined ? randomInt(2 ** 31) : Number(given);
const seconds = Number(values.seconds);
// A seed alone is a replay; otherwise 1000 runs, unless a number or a time is given.
const fallback = given === undefined ? 1000 : 1;
const runs = Number(values.runs) || (seconds > 0 ? Infinity : fallback);
// One kind after the other, seed by seed; a replay names its own.
const kinds = WORLD_KINDS.filter((kind) => values.kind === undefined || values.kind === kind);
const wrong = [runs, seconds].some((number) => Number.isNaN(number)) || kinds.length === 0;
if (!Number.isSafeInteger(first) || first < 0 || wrong) {
  process.stderr.write(
    'usage: npm run sim -- [SEED] [--runs N] [--seconds S] [--kind KIND] [--verbose]\n',
  );
  process.exit(2);
}

function trace(line: string): void {
  process.stdout.write(`  ${line}\n`);
}

const started = performance.now();
const elapsed = (): number => (performance.now() - started) / 1000;
const worlds: Record<WorldKind, number> = { nbd: 0, vm: 0, iscsi: 0 };
const sum = { acked: 0, flushed: 0, failed: 0, reads: 0, crashes: 0, told: 0 };
let done = 0;
let failed = 0;
const deadline = seconds === 0 ? Infinity : seconds;
for (let seed = first; done < runs && elapsed() < deadline; seed += 1) {
  const kind = kinds[(seed - first) % kinds.length] as WorldKind;
  const result = await simulate(seed, {}, values.verbose ? trace : undefined, kind);
  worlds[kind] += 1;
  done += 1;
  for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += result.seen[key];
  if (result.violation !== null) {
    failed += 1;
    process.stdout.write(
      `seed ${seed} (${kind}): ${result.violation}\n  replay: npm run sim -- ${seed} --kind ${kind} --verbose\n`,
    );
    if (failed >= 10) break;
  }
}
const mixed = WORLD_KINDS.map((kind) => `${worlds[kind]} ${kind}`).join(', ');
const spent = `${elapsed().toFixed(1)} s (${(done / elapsed()).toFixed(0)}/s)`;
process.stdout.write(
  `${done} runs (${mixed}) from seed ${first} in ${spent}, ${failed} failed: ` +
    `${sum.acked} writes acknowledged, ${sum.flushed} flushes, ${sum.reads} reads, ${sum.failed} requests failed, ` +
    `${sum.crashes} power cuts, ${sum.told} clients told of a loss\n`,
);
process.exitCode = failed > 0 ? 1 : 0;
