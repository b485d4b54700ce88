import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { skipsFail } from '../test/e2e/support/requires.ts';
import type { TestCounts } from './count-reporter.ts';
import { installTools } from './install-tools.ts';

/**
 * Everything that `npm test` runs, one step after the other; `npm test -- unit e2e` runs some. All steps run even when
 * one fails, and the last lines say what it all came to.
 */
const ROOT = resolve(import.meta.dirname, '..');
const BIN = join(ROOT, 'node_modules/.bin');
/** Guests and servers share two cores; more at once only makes time limits lie. Nor is one enough: a test often waits. */
const CONCURRENCY = 2;
/** The same seeds every time; searches with fresh ones have their own commands, `npm run sim` and `npm run fuzz`. */
const SIM_SEED = 1_000_000;
const SIM_RUNS = 2500;
const HOSTILE_CONNECTIONS = 100_000;
const HOSTILE_PDUS = 1_000_000;
const HOSTILE_CHAINS = 1_000_000;

const STEPS: Readonly<Record<string, () => Promise<TestCounts>>> = {
  types: () => check('types', [join(BIN, 'tsc'), '--noEmit']),
  lint: () => check('lint', [join(BIN, 'oxlint'), '--type-aware', '--deny-warnings']),
  format: () => check('format', [join(BIN, 'prettier'), '--check', '--log-level=warn', '.']),
  unit: () =>
    nodeTest(
      testFiles((path) => !path.startsWith('test/e2e/')),
      [`--test-concurrency=${CONCURRENCY}`],
    ),
  e2e: () =>
    nodeTest(
      testFiles((path) => path.startsWith('test/e2e/')),
      [`--test-concurrency=${CONCURRENCY}`],
    ),
  sim: () => check('sim', script('test/sim/run.ts', String(SIM_SEED), '--runs', String(SIM_RUNS))),
  fuzz: async () => {
    const sum = await check('fuzz: connections', fuzz('--connections', HOSTILE_CONNECTIONS));
    add(sum, await check('fuzz: chains', fuzz('--chains', HOSTILE_CHAINS)));
    add(sum, await check('fuzz: PDUs', fuzz('--pdus', HOSTILE_PDUS)));
    return sum;
  },
};

function fuzz(what: string, count: number): string[] {
  return script('test/fuzz/run.ts', what, String(count));
}

function script(path: string, ...args: readonly string[]): string[] {
  return [process.execPath, join(ROOT, path), ...args];
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The test files below the folders of the house, in a fixed order. */
function testFiles(wanted: (path: string) => boolean): string[] {
  return ['src', 'test', 'bench', 'scripts']
    .flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map((name) =>
        join(folder, name),
      ),
    )
    .filter((path) => path.endsWith('.test.ts') && wanted(path))
    .toSorted((a, b) => (a < b ? -1 : 1));
}

/** Runs a program to its end, its output going where ours goes. Returns its exit code. */
function run(command: readonly string[]): Promise<number> {
  return new Promise((done) => {
    const child = spawn(command[0] ?? '', command.slice(1), {
      cwd: ROOT,
      stdio: ['ignore', 'inherit', 'inherit'],
      // The tools start `node` by its name: it has to be this one, not an older one of the system.
      env: { ...process.env, PATH: `${BIN}${delimiter}${process.env['PATH'] ?? ''}` },
    });
    child.once('error', (error) => {
      say(error.message);
      done(1);
    });
    child.once('close', (code) => done(code ?? 1));
  });
}

/** A step that passes or fails as a whole. */
async function check(name: string, command: readonly string[]): Promise<TestCounts> {
  const code = await run(command);
  say(`${code === 0 ? '✔' : '✖'} ${name}`);
  return counts(1, code === 0 ? 0 : 1);
}

function counts(tests: number, failed: number): TestCounts {
  return {
    tests,
    suites: 0,
    passed: tests - failed,
    failed,
    cancelled: 0,
    skipped: 0,
    todo: 0,
    skippedNames: [],
  };
}

async function nodeTest(files: readonly string[], options: readonly string[]): Promise<TestCounts> {
  const folder = mkdtempSync(join(tmpdir(), 'hf-test-'));
  const report = join(folder, 'counts.json');
  const code = await run([
    process.execPath,
    '--test',
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${join(ROOT, 'scripts/count-reporter.ts')}`,
    `--test-reporter-destination=${report}`,
    ...options,
    ...files,
  ]);
  try {
    const result = JSON.parse(readFileSync(report, 'utf8')) as TestCounts;
    // A runner that fails for a reason that is no test's.
    if (code !== 0 && result.failed + result.cancelled === 0) result.failed += 1;
    return result;
  } catch {
    say(`✖ the test runner left no report (exit code ${code})`);
    return counts(1, 1);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function add(sum: TestCounts, more: TestCounts): void {
  const keys = ['tests', 'suites', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const;
  for (const key of keys) sum[key] += more[key];
  sum.skippedNames.push(...more.skippedNames);
}

async function main(): Promise<number> {
  const wanted = process.argv.slice(2);
  const unknown = wanted.filter((name) => STEPS[name] === undefined);
  if (unknown.length > 0) {
    say(`no such step: ${unknown.join(', ')}; there are ${Object.keys(STEPS).join(', ')}`);
    return 2;
  }
  const started = performance.now();
  const sum = counts(0, 0);
  if (wanted.length === 0 || wanted.includes('e2e') || wanted.includes('unit')) {
    const missing = await installTools(say);
    for (const line of missing) say(`✖ ${line}`);
    add(sum, counts(missing.length, missing.length));
  }
  for (const [name, step] of Object.entries(STEPS)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const since = performance.now();
    say(`\n▶ ${name}`);
    add(sum, await step());
    say(`  ${name} took ${((performance.now() - since) / 1000).toFixed(1)} s`);
  }
  return conclude(sum, performance.now() - started);
}

/** The closing lines, spelled as node's own test runner spells them, then in one. */
function conclude(sum: TestCounts, durationMs: number): number {
  const mustNotSkip = skipsFail();
  say('');
  for (const name of sum.skippedNames) say(`SKIPPED${mustNotSkip ? ' (fails here)' : ''}: ${name}`);
  say(`ℹ tests ${sum.tests}`);
  say(`ℹ suites ${sum.suites}`);
  say(`ℹ pass ${sum.passed}`);
  say(`ℹ fail ${sum.failed}`);
  say(`ℹ cancelled ${sum.cancelled}`);
  say(`ℹ skipped ${sum.skipped}`);
  say(`ℹ todo ${sum.todo}`);
  say(`ℹ duration_ms ${durationMs.toFixed(0)}`);
  const failed = sum.failed + sum.cancelled;
  say(`\n${sum.passed} passed, ${failed} failed, ${sum.skipped} skipped`);
  return failed > 0 || (mustNotSkip && sum.skipped > 0) ? 1 : 0;
}

process.exitCode = await main();
