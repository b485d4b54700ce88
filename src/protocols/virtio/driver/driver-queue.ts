/** A stretch of guest memory, by guest address. */
export interface Buffer {
  readonly address: number;
  readonly length: number;
}

/** What the device has given back. */
export interface Used {
  /** What `add` returned. */
  readonly token: number;
  /** Bytes that the device says it has written. */
  readonly written: number;
}

/**
 * The driver's side of one queue: for our own front-end, tests, the simulator and the benchmark. It keeps what the
 * specification asks of drivers; whoever wants to break it writes to the memory.
 */
export interface DriverQueue {
  readonly size: number;
  /** Chains added and not given back. */
  readonly inFlight: number;
  /**
   * Adds a chain: the readable buffers, then the writable ones; in an indirect table when `indirect`. Not yet visible to
   * the device. Returns a token, or -1 when the ring is too full.
   */
  add(readable: readonly Buffer[], writable: readonly Buffer[], indirect: boolean): number;
  /** Lets the device see what was added. True: it asked to be notified. */
  publish(): boolean;
  /** The next chain that the device has given back, or null. */
  take(): Used | null;
  /** Asks for an interrupt at the next used chain. True: one is there already. */
  enableInterrupts(): boolean;
  disableInterrupts(): void;
}
