import { spawn } from 'node:child_process';
import { killGroup } from './command.ts';
import { tool } from './requires.ts';

// libiscsi's own test suite, run as a program, and what it says.

/** A suite runs for a minute or two. */
const LIMIT_MS = 15 * 60_000;

export interface SuiteRun {
  /** In their order: "CompareAndWrite.Simple", and "CompareAndWrite.Simple#2" where a later family has the same again. */
  readonly tests: readonly SuiteTest[];
  readonly output: string;
}

export interface SuiteTest {
  readonly name: string;
  readonly passed: boolean;
  /** Why all of it or a part was left out; empty: nothing was. */
  readonly skips: readonly string[];
  /** What it printed. */
  readonly text: string;
}

/** Runs all families of iscsi-test-cu, destructive tests and SANITIZE included. Rejects when it does not come to its end. */
export async function runIscsiSuite(urls: readonly string[]): Promise<SuiteRun> {
  const output = await collect([tool('iscsi-test-cu'), '--dataloss', '--allow-sanitize', ...urls]);
  if (!/^Run Summary:/m.test(output)) {
    throw new Error(
      `iscsi-test-cu ${urls.join(' ')} did not come to its end:\n${output.slice(-4000)}`,
    );
  }
  return { tests: parseSuite(output), output };
}

/** What became of each test in the output of CUnit's verbose mode. */
export function parseSuite(output: string): SuiteTest[] {
  const tests: SuiteTest[] = [];
  const seen = new Map<string, number>();
  let suite = '';
  let name: string | null = null;
  let lines: string[] = [];
  for (const line of output.split('\n')) {
    const inSuite = /^Suite: (\S+)/.exec(line);
    const begun = /^ {2}Test: (\S+) \.\.\.(.*)$/.exec(line);
    if (inSuite !== null) suite = inSuite[1] ?? '';
    if (begun !== null) {
      name = `${suite}.${begun[1]}`;
      lines = [];
    }
    const said = begun === null ? line : (begun[2] ?? '');
    if (name === null) continue;
    lines.push(said);
    // The verdict ends a line that the test itself may have begun.
    const verdict = /(?:^|[^a-zA-Z])(passed|FAILED)$/.exec(said)?.[1];
    if (verdict === undefined) continue;
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    tests.push({
      name: count === 1 ? name : `${name}#${count}`,
      passed: verdict === 'passed',
      skips: lines.flatMap((each) => /\[SKIPPED\] ?(.*)$/.exec(each)?.[1]?.trim() ?? []),
      text: lines.join('\n'),
    });
    name = null;
  }
  return tests;
}

/** The tests that were left out, in whole or in part, in every run. */
export function skippedInAll(runs: readonly SuiteRun[]): string[] {
  const [first, ...others] = runs.map(
    ({ tests }) => new Set(tests.filter(({ skips }) => skips.length > 0).map(({ name }) => name)),
  );
  return [...(first ?? [])].filter((name) => others.every((each) => each.has(name)));
}

function collect(command: readonly string[]): Promise<string> {
  const [program = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      killGroup(child.pid, 'SIGKILL');
    }, LIMIT_MS);
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      if (late)
        reject(
          new Error(`${command.join(' ')}: not done after ${LIMIT_MS} ms\n${output.slice(-4000)}`),
        );
      else resolve(output);
    });
  });
}
