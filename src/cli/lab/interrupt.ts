const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Ctrl-C, SIGTERM and a terminal that is closed end long work in an orderly way; the second one ends the process. Call
 * `done` when it is over.
 */
export function untilInterrupted(): { readonly signal: AbortSignal; done: () => void } {
  const controller = new AbortController();
  const done = (): void => {
    for (const name of SIGNALS) process.off(name, stop);
  };
  const stop = (name: NodeJS.Signals): void => {
    // It goes on listening until then: where nobody listens, others end the process at the first one.
    if (controller.signal.aborted) {
      done();
      process.kill(process.pid, name);
    }
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, stop);
  return { signal: controller.signal, done };
}
