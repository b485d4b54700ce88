const TRIES = 16;

/**
 * CLOCK_MONOTONIC in nanoseconds as a whole number, the same clock in every process of this host: for the many times of
 * a recording. `process.hrtime.bigint()` is exact and allocates; `performance.now()` is the same clock counted from the
 * start of the thread and does not. What this returns is never later than the truth, and earlier by a microsecond at
 * most: a completion is not dated after a mark that followed it.
 */
export function monotonicClock(): () => number {
  let startNs = -Infinity;
  for (let i = 0; i < TRIES; i += 1) {
    const before = monotonicNow();
    startNs = Math.max(startNs, before - performance.now() * 1e6);
  }
  return () => Math.floor(startNs + performance.now() * 1e6);
}

/** CLOCK_MONOTONIC now, exactly. */
export function monotonicNow(): number {
  return Number(process.hrtime.bigint());
}
