import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
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

/** After a signal to end, so long until it is killed; and so long for what it said last. */
const KILL_AFTER_MS = 5000;
const LAST_WORDS_MS = 1000;
const GROUP_POLL_MS = 20;

/**
 * Runs a workload to its end, as a process group of its own: what is left of it then is killed, for its disk goes away.
 * Resolves with its exit code, 128 and the signal's number if a signal ended it. The time of an acknowledgement is that at
 * which its line is read here: later than it was made, which can only make the lab milder.
 */
export async function runWorkload(workload: Workload): Promise<number> {
  const [program = '', ...args] = workload.command;
  const child = spawn(program, args, {
    stdio: ['inherit', 'pipe', 'inherit'],
    env: { ...process.env, ...workload.env },
    detached: true,
  });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    const match = workload.ackPattern.exec(line);
    if (match !== null) workload.acknowledged((match[1] ?? match[0]).trim());
    workload.line(line);
  });
  const read = new Promise((resolve) => lines.once('close', resolve));
  const timers: NodeJS.Timeout[] = [];
  const stop = (): void => {
    signalGroup(child.pid, 'SIGTERM');
    timers.push(setTimeout(() => signalGroup(child.pid, 'SIGKILL'), KILL_AFTER_MS));
  };
  workload.signal.addEventListener('abort', stop);
  if (workload.signal.aborted) stop();
  try {
    const code = await ended(child);
    // Told to end, the others need a moment, too.
    const endMs = performance.now() + (workload.signal.aborted ? KILL_AFTER_MS : 0);
    while (performance.now() < endMs && signalGroup(child.pid, 0)) await sleep(GROUP_POLL_MS);
    signalGroup(child.pid, 'SIGKILL');
    // Somebody in yet another group may hold its standard output for ever.
    await Promise.race([
      read,
      new Promise((resolve) => timers.push(setTimeout(resolve, LAST_WORDS_MS))),
    ]);
    return code;
  } finally {
    workload.signal.removeEventListener('abort', stop);
    for (const timer of timers) clearTimeout(timer);
    child.stdout.destroy();
    lines.close();
  }
}

function ended(child: ChildProcess): Promise<number> {
  return new Promise<number>((resolve, reject) => {
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
}

/** False: nobody is left. */
function signalGroup(pid: number | undefined, signal: NodeJS.Signals | 0): boolean {
  try {
    return pid !== undefined && process.kill(-pid, signal);
  } catch {
    return false;
  }
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
