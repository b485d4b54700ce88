import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { replayOf, simulate, WORLD_KINDS, type WorldKind } from './world.ts';

// npm run sim -- [SEED] [--kind KIND] [--runs N] [--seconds S] [--verbose]

const USAGE = 'usage: npm run sim -- [SEED] [--kind KIND] [--runs N] [--seconds S] [--verbose]\n';

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
const kinds = kindsOf();
const wrong = [runs, seconds].some((number) => Number.isNaN(number)) || kinds.length === 0;
if (!Number.isSafeInteger(first) || first < 0 || wrong) {
  process.stderr.write(USAGE);
  process.exit(2);
}

function trace(line: string): void {
  process.stdout.write(`  ${line}\n`);
}

/** All kinds of worlds by turns, unless one is asked for. A replay without --kind is of a world of NBD alone. */
function kindsOf(): readonly WorldKind[] {
  if (values.kind !== undefined) return WORLD_KINDS.filter((kind) => kind === values.kind);
  return runs === 1 ? ['nbd'] : WORLD_KINDS;
}

const started = performance.now();
const elapsed = (): number => (performance.now() - started) / 1000;
const sum = { acked: 0, flushed: 0, failed: 0, reads: 0, crashes: 0, told: 0 };
const done: Record<WorldKind, number> = { nbd: 0, vm: 0, iscsi: 0, fuse: 0 };
let guests = 0;
let programs = 0;
let failed = 0;
const deadline = seconds === 0 ? Infinity : seconds;
for (let i = 0; i < runs && elapsed() < deadline && failed < 10; i += 1) {
  const kind = kinds[i % kinds.length] as WorldKind;
  const seed = first + Math.floor(i / kinds.length);
  const result = await simulate(seed, {}, values.verbose ? trace : undefined, kind);
  done[kind] += 1;
  guests += result.guests;
  programs += result.programs;
  for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += result.seen[key];
  if (result.violation === null) continue;
  failed += 1;
  process.stdout.write(`seed ${seed} (${kind}): ${result.violation}\n  ${replayOf(seed, kind)}\n`);
}
const all = WORLD_KINDS.reduce((total, kind) => total + done[kind], 0);
const mixed = WORLD_KINDS.map((kind) => `${done[kind]} ${kind}`).join(', ');
const spent = `${elapsed().toFixed(1)} s (${(all / elapsed()).toFixed(0)}/s)`;
process.stdout.write(
  `${all} runs (${mixed}) from seed ${first} in ${spent}, ${failed} failed: ` +
    `${sum.acked} writes acknowledged, ${sum.flushed} flushes, ${sum.reads} reads, ${sum.failed} requests failed, ` +
    `${guests} answers to virtual machines, ${programs} to programs, ` +
    `${sum.crashes} power cuts, ${sum.told} clients told of a loss\n`,
);
process.exitCode = failed > 0 ? 1 : 0;
