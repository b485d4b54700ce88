/** Time as the parts below the command line see it; the simulator brings its own. */
export interface Timers {
  /** Monotonic milliseconds, from an arbitrary start. */
  nowMs(): number;
  /** Calls back once, `delayMs` or a little more from now. */
  after(delayMs: number, callback: () => void): Timer;
}

export interface Timer {
  /** Harmless after the call-back. */
  cancel(): void;
}
