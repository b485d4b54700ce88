const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Ctrl-C, SIGTERM and a terminal that is closed end long work in an orderly way; the second one ends the process. Call `done` when it is over. */
export function untilInterrupted(): { readonly signal: AbortSignal; done: () => void } {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.kill(process.pid, name);
    controller.abort();
    process.off(name, stop);
  };
  for (const name of SIGNALS) process.on(name, stop);
  return {
    signal: controller.signal,
    done: () => {
      for (const name of SIGNALS) process.off(name, stop);
    },
  };
}
