import { spawn } from 'node:child_process';
import { constants } from 'node:os';

export interface Captive {
  /** The command's exit status, or 128 + signal, as a shell has it. */
  readonly ended: Promise<number>;
  /** Passes a signal on; harmless after the end. */
  kill(signal: NodeJS.Signals): void;
}

/** What the command finds in its environment, named as by nbdkit's --run. */
export interface CaptiveVariables {
  readonly uri: string;
  /** '' when there is none. */
  readonly unixsocket: string;
  /** '' when there is none. */
  readonly port: string;
}

/** Starts a shell command with the URI in its environment and our standard streams. */
export function startCaptive(command: string, variables: CaptiveVariables): Captive {
  const child = spawn('/bin/sh', ['-c', command], {
    stdio: 'inherit',
    env: { ...process.env, ...variables },
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status, signal) => {
      resolve(signal === null ? (status ?? 1) : 128 + constants.signals[signal]);
    });
  });
  return { ended, kill: (signal) => void child.kill(signal) };
}
