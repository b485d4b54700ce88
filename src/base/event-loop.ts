/**
 * The io_uring reactor keeps its thread inside one long call, so promises settled there would never be continued.
 * Whoever settles one on that thread says so here, and the reactor returns to Node's event loop after the batch.
 * Where Node's own event loop is in charge the hook is absent and the call does nothing.
 */
let hook: (() => void) | null = null;

export function setEventLoopHook(callback: (() => void) | null): void {
  hook = callback;
}

/** Lets promise continuations, messages and other event-loop work of this thread run soon. */
export function letEventLoopRun(): void {
  hook?.();
}
