import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { ConfigError, messageOf } from '../../base/errors.ts';

export interface Workload {
  /** Program and arguments; no shell. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** A line that matches is an acknowledgement: its first group, or all of it. */
  readonly ackPattern: RegExp;
  readonly acknowledged: (text: string) => void;
  /** Every line of its standard output. */
  readonly line: (line: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Runs a workload to its end. Resolves with its exit code, 128 and the signal's number if a signal ended it. The time of
 * an acknowledgement is that at which its line is read here: later than it was made, which can only make the lab milder.
 */
export async function runWorkload(workload: Workload): Promise<number> {
  const [program = '', ...args] = workload.command;
  const child = spawn(program, args, {
    stdio: ['inherit', 'pipe', 'inherit'],
    env: { ...process.env, ...workload.env },
    // A group of its own, so that all of it can be told to end.
    detached: true,
  });
  const end = (): void => {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
  };
  workload.signal.addEventListener('abort', end, { once: true });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    const match = workload.ackPattern.exec(line);
    if (match !== null) workload.acknowledged((match[1] ?? match[0]).trim());
    workload.line(line);
  });
  const read = new Promise((resolve) => lines.once('close', resolve));
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', (error) => {
      reject(
        new ConfigError(
          `the workload cannot be started: ${messageOf(error)}`,
          'what follows -- is a program and its arguments; for a shell: -- sh -c "..."',
          { cause: error },
        ),
      );
    });
    child.once('exit', (exit, signal) => {
      resolve(exit ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
  workload.signal.removeEventListener('abort', end);
  await read;
  return code;
}

/** Puts values in the place of `{name}`; a name that is not known is the user's mistake. */
export function fillIn(
  words: readonly string[],
  values: Readonly<Record<string, string | undefined>>,
): string[] {
  return words.map((word) =>
    word.replaceAll(/\{(\w+)\}/g, (all, name: string) => {
      if (!(name in values)) return all;
      const value = values[name];
      if (value === undefined) {
        throw new ConfigError(
          `{${name}} stands in the command, and there is none in this recording`,
          name === 'mount' ? 'add --mkfs TYPE' : 'see holdfast lab record --help',
        );
      }
      return value;
    }),
  );
}
