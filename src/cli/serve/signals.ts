import { constants } from 'node:os';

export interface SignalHandlers {
  /** The first SIGTERM, SIGINT or SIGHUP. */
  stop(signal: NodeJS.Signals): void;
  /** A SIGTERM or SIGINT after that: end at once with this exit code. */
  stopNow(exitCode: number): void;
  /** SIGUSR2. (SIGUSR1 is Node's own: it starts the inspector.) */
  report(): void;
}

/** Listens to the process's signals until the returned function is called. */
export function handleSignals(
  handlers: SignalHandlers,
  target: NodeJS.EventEmitter = process,
): () => void {
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (!stopping) {
      stopping = true;
      handlers.stop(signal);
    } else if (signal !== 'SIGHUP') {
      handlers.stopNow(128 + constants.signals[signal]);
    }
  };
  const report = (): void => handlers.report();
  const stops: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP'];
  for (const signal of stops) target.on(signal, stop);
  target.on('SIGUSR2', report);
  return () => {
    for (const signal of stops) target.off(signal, stop);
    target.off('SIGUSR2', report);
  };
}
