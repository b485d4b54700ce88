import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

// Helpers of the command line's tests: the real program, in a process of its own.

export const MAIN: string = fileURLToPath(new URL('./main.ts', import.meta.url));

/** Longer than anything takes on a busy machine; a hang fails instead of stopping the run. */
const DEADLINE_MS = 30_000;

export interface Ended {
  /** The exit code, or the signal's name. */
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running `holdfast`, killed when the test ends. */
export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  #changed: (() => void) | null = null;

  constructor(t: TestContext, command: string, words: readonly string[], stdio: StdioOptions) {
    this.child = spawn(command, words, { stdio, env: cleanEnvironment() });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      this.#changed?.();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      this.#changed?.();
    });
    const deadline = setTimeout(() => this.child.kill('SIGKILL'), DEADLINE_MS);
    this.ended = new Promise((resolve) => {
      this.child.on('close', (code, signal) => {
        clearTimeout(deadline);
        this.#changed?.();
        resolve({ code: code ?? String(signal), stdout: this.stdout, stderr: this.stderr });
      });
    });
    t.after(() => void this.child.kill('SIGKILL'));
  }

  /** Waits for `pattern` in what was printed, or for the end. */
  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.stdout + this.stderr)) {
      if (this.child.exitCode !== null || this.child.signalCode !== null) return;
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }
}

export function start(t: TestContext, ...words: string[]): Program {
  return new Program(t, process.execPath, [MAIN, ...words], ['ignore', 'pipe', 'pipe']);
}

/** Runs the program to its end. */
export function holdfast(t: TestContext, ...words: string[]): Promise<Ended> {
  return start(t, ...words).ended;
}

/** A directory of the test's own, removed with all that is in it. */
export function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-test-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Ours, without what would change what the program does. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const env = { ...process.env };
  for (const name of ['HOLDFAST_REACTOR', 'LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) {
    delete env[name];
  }
  for (const name of ['NOTIFY_SOCKET', 'FORCE_COLOR', 'NODE_OPTIONS', 'STATE_DIRECTORY']) {
    delete env[name];
  }
  return env;
}
