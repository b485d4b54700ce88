import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { killGroup, until } from './command.ts';

// The power-cut lab through its command line, and what it must not leave behind.

export const MAIN: string = join(import.meta.dirname, '../../../src/cli/main.ts');
export const LEDGER: string = join(import.meta.dirname, '../../../examples/power-cut/ledger.mjs');

const LIMIT_MS = 120_000;

/** A lab command as a process. */
export class LabProcess {
  readonly pid: number;
  stdout = '';
  stderr = '';
  readonly #child: ChildProcess;
  readonly #closed: Promise<number>;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#closed = new Promise((resolve) => {
      child.once('close', (code) => resolve(code ?? -1));
    });
  }

  /** Its exit code; -1 if a signal ended it. */
  ended(): Promise<number> {
    return this.#closed;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Waits for a text on its standard output. */
  async says(pattern: RegExp): Promise<void> {
    await until(`${pattern} from the lab: ${this.stderr}`, 30_000, () => {
      if (this.#child.exitCode !== null) throw new Error(`it ended: ${this.stdout}${this.stderr}`);
      return pattern.test(this.stdout) ? true : null;
    });
  }
}

/** Starts `holdfast lab WORDS` in a folder. What is left of it at the end of the test is killed. */
export function startLab(t: TestContext, cwd: string, words: readonly string[]): LabProcess {
  const child = spawn(process.execPath, [MAIN, 'lab', ...words], {
    cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  const timer = setTimeout(() => killGroup(child.pid, 'SIGKILL'), LIMIT_MS);
  child.once('close', () => clearTimeout(timer));
  t.after(() => killGroup(child.pid, 'SIGKILL'));
  return new LabProcess(child);
}

export interface LabResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `holdfast lab WORDS` to its end; nothing of it may be left. */
export async function lab(
  t: TestContext,
  cwd: string,
  words: readonly string[],
): Promise<LabResult> {
  const started = startLab(t, cwd, words);
  const code = await started.ended();
  assert.deepEqual(leftovers(cwd, started.pid), [], started.stderr);
  return { code, stdout: started.stdout, stderr: started.stderr };
}

/** As `lab`, and it has to end with 0. Resolves with its standard output. */
export async function labSucceeds(
  t: TestContext,
  cwd: string,
  words: readonly string[],
): Promise<string> {
  const { code, stdout, stderr } = await lab(t, cwd, words);
  assert.equal(code, 0, `${words.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}

/** Mounts, loop devices, folders and scratch disks of one lab process. */
export function leftovers(cwd: string, pid: number): string[] {
  const name = `holdfast-lab-${pid}-`;
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const loops = readdirSync('/sys/block').flatMap((block) => {
    try {
      return [`${block}: ${readFileSync(`/sys/block/${block}/loop/backing_file`, 'utf8').trim()}`];
    } catch {
      return [];
    }
  });
  const folders = [tmpdir(), '/dev/shm'].flatMap((parent) => readdirSync(parent));
  const scratch = readdirSync(cwd).filter((file) => /\.disk(?:\.holdfast)?$/.test(file));
  return [...mounts, ...loops, ...folders].filter((line) => line.includes(name)).concat(scratch);
}

export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}
