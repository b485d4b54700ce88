import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { findTool } from './requires.ts';

export interface CommandResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly input?: string;
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 60_000;

/** Runs a program to its end, whatever that is. After the time limit its whole process group is killed. */
export function run(
  command: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const [name = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(findTool(name) ?? name, args, {
      detached: true,
      cwd: options.cwd,
      env: { ...process.env, LC_ALL: 'C', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    const limit = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      killGroup(child.pid, 'SIGKILL');
    }, limit);
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    // A program that ends without reading its input is judged by its exit code.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      const stdout = Buffer.concat(out).toString();
      const stderr = Buffer.concat(err).toString();
      if (late) {
        const text = `${command.join(' ')}: not done after ${limit} ms\n${stdout}\n${stderr}`;
        reject(new Error(text));
      } else {
        resolve({ status, signal, stdout, stderr });
      }
    });
  });
}

/** Runs a program that has to succeed; resolves with its standard output. */
export async function succeed(
  command: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const result = await run(command, options);
  if (result.status !== 0) {
    throw new Error(
      `${command.join(' ')}: exit code ${result.status ?? result.signal}\n${result.stdout}\n${result.stderr}`,
    );
  }
  return result.stdout;
}

export function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // The group is gone already.
  }
}

/** Asks again and again until the answer is not null. Rejects after the time limit, naming `what`. */
export async function until<T>(
  what: string,
  limitMs: number,
  ask: () => T | null | Promise<T | null>,
): Promise<T> {
  const end = Date.now() + limitMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (Date.now() > end) throw new Error(`waited ${limitMs} ms for ${what}`);
    await sleep(20);
  }
}
