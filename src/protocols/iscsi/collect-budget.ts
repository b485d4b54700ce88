/** Who waits for memory to collect Data-Out. */
export interface BudgetWaiter {
  granted(): void;
}

interface Waiting {
  readonly bytes: number;
  readonly waiter: BudgetWaiter;
}

/** Bounds the Data-Out that all sessions together collect as a whole. Who finds nothing left waits in order. */
export class CollectBudget {
  readonly #limit: number;
  readonly #waiting: Waiting[] = [];
  #used = 0;
  /** Of that, for commands that may not run yet. */
  #early = 0;

  constructor(limitBytes: number) {
    this.#limit = limitBytes;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** Somebody waits, or soon will. */
  get scarce(): boolean {
    return this.#waiting.length > 0 || this.#used > this.#limit / 2;
  }

  /** Takes so much at once, before nobody who waits. */
  take(bytes: number): boolean {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) return false;
    this.#used += bytes;
    return true;
  }

  /**
   * The same for a command that waits for others to end. Such get half at most: what they hold would be what the command they
   * wait for waits for.
   */
  takeEarly(bytes: number): boolean {
    if (this.#early + bytes > this.#limit / 2 || !this.take(bytes)) return false;
    this.#early += bytes;
    return true;
  }

  giveEarly(bytes: number): void {
    this.#early -= bytes;
    this.give(bytes);
  }

  /** `granted` follows when it has been taken. */
  wait(bytes: number, waiter: BudgetWaiter): void {
    this.#waiting.push({ bytes, waiter });
    this.#grant();
  }

  cancel(waiter: BudgetWaiter): void {
    const at = this.#waiting.findIndex((waiting) => waiting.waiter === waiter);
    if (at >= 0) this.#waiting.splice(at, 1);
    this.#grant();
  }

  give(bytes: number): void {
    this.#used -= bytes;
    this.#grant();
  }

  /** One that is larger than the limit gets it when it is alone. */
  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#limit;
  }

  #grant(): void {
    for (;;) {
      const next = this.#waiting[0];
      if (next === undefined || !this.#fits(next.bytes)) return;
      this.#waiting.shift();
      this.#used += next.bytes;
      next.waiter.granted();
    }
  }
}
