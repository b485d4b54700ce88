import { spawn } from 'node:child_process';
import { killGroup } from './command.ts';
import { tool } from './requires.ts';

// libiscsi's own test suite, run as a program, and what it says.

/** A suite runs for a minute or two. */
const LIMIT_MS = 15 * 60_000;

export interface SuiteRun {
  /** "ALL.CompareAndWrite.Simple", "SCSI.CompareAndWrite.Simple": families have tests in common. */
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

/** The names of all tests, in the order in which a run without a choice has them. */
export async function listIscsiSuite(): Promise<string[]> {
  const lines = (await collect([tool('iscsi-test-cu'), '--list'])).split('\n');
  return lines.filter((line) => /^\w+\.[\w-]+\.[\w-]+$/.test(line));
}

/**
 * Runs iscsi-test-cu, destructive tests and SANITIZE included: all families, "FAMILY.SUITE" or "FAMILY.SUITE.TEST". Rejects
 * when it does not come to its end.
 */
export async function runIscsiSuite(
  urls: readonly string[],
  names: readonly string[],
  only: string | null = null,
): Promise<SuiteRun> {
  const choice = only === null ? [] : ['--test', only];
  const command = [tool('iscsi-test-cu'), '--dataloss', '--allow-sanitize', ...choice, ...urls];
  const output = await collect(command);
  if (!/^Run Summary:/m.test(output)) {
    throw new Error(`${command.join(' ')} did not come to its end:\n${output.slice(-4000)}`);
  }
  const chosen =
    only === null ? names : names.filter((name) => name === only || name.startsWith(`${only}.`));
  const tests = parseSuite(output).map((test, i): SuiteTest => {
    const name = chosen[i] ?? '';
    if (!name.endsWith(`.${test.name}`)) {
      throw new Error(`test ${i} should be ${name}, and is ${test.name}`);
    }
    return { ...test, name };
  });
  if (tests.length !== chosen.length) {
    throw new Error(`${tests.length} tests of ${chosen.length} have a verdict:\n${output}`);
  }
  return { tests, output };
}

/** What became of each test in the output of CUnit's verbose mode: "SUITE.TEST". */
export function parseSuite(output: string): SuiteTest[] {
  const tests: SuiteTest[] = [];
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
    // The verdict ends a line that the test itself may have begun; what cleans up after it may go on there.
    const verdict = /^(passed|FAILED)(?= {4})|(?:^|[^a-zA-Z])(passed|FAILED)$/.exec(said);
    if (verdict === null) continue;
    tests.push({
      name,
      passed: (verdict[1] ?? verdict[2]) === 'passed',
      skips: lines.flatMap((each) => /\[SKIPPED\] ?(.*)$/.exec(each)?.[1]?.trim() ?? []),
      text: lines.join('\n'),
    });
    name = null;
  }
  return tests;
}

/** The tests that were left out, in whole or in part, in every run that had them. */
export function skippedInAll(runs: readonly SuiteRun[]): string[] {
  const skipped = new Set<string>();
  const done = new Set<string>();
  for (const { name, skips } of runs.flatMap(({ tests }) => tests)) {
    (skips.length > 0 ? skipped : done).add(name);
  }
  return [...skipped].filter((name) => !done.has(name));
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
