import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { simulate } from './world.ts';

// npm run sim -- [SEED] [--runs N] [--seconds S] [--verbose]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '0' },
    seconds: { type: 'string', default: '0' },
    verbose: { type: 'boolean', default: false },
  },
});

const given = positionals[0];
const first = given === undefined ? randomInt(2 ** 31) : Number(given);
const seconds = Number(values.seconds);
// A seed alone is a replay; otherwise 1000 runs, unless a number or a time is given.
const fallback = given === undefined ? 1000 : 1;
const runs = Number(values.runs) || (seconds > 0 ? Infinity : fallback);
if (!Number.isSafeInteger(first) || first < 0 || Number.isNaN(runs) || Number.isNaN(seconds)) {
  process.stderr.write('usage: npm run sim -- [SEED] [--runs N] [--seconds S] [--verbose]\n');
  process.exit(2);
}

function trace(line: string): void {
  process.stdout.write(`  ${line}\n`);
}

const started = performance.now();
const elapsed = (): number => (performance.now() - started) / 1000;
const sum = { acked: 0, flushed: 0, failed: 0, reads: 0, crashes: 0, told: 0 };
let done = 0;
let failed = 0;
const deadline = seconds === 0 ? Infinity : seconds;
for (let seed = first; done < runs && elapsed() < deadline; seed += 1) {
  const result = await simulate(seed, {}, values.verbose ? trace : undefined);
  done += 1;
  for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += result.seen[key];
  if (result.violation !== null) {
    failed += 1;
    process.stdout.write(
      `seed ${seed}: ${result.violation}\n  replay: npm run sim -- ${seed} --verbose\n`,
    );
    if (failed >= 10) break;
  }
}
process.stdout.write(
  `${done} runs from seed ${first} in ${elapsed().toFixed(1)} s (${(done / elapsed()).toFixed(0)}/s), ${failed} failed: ` +
    `${sum.acked} writes acknowledged, ${sum.flushed} flushes, ${sum.reads} reads, ${sum.failed} requests failed, ` +
    `${sum.crashes} power cuts, ${sum.told} clients told of a loss\n`,
);
process.exitCode = failed > 0 ? 1 : 0;
